"""What a real GPU shows: its counter against its power, its power at rest, what calls cost, what the collector tells.

    python -m tests.collectors.nvml.real_gpu

Asserts what must hold on any GPU, and prints the figures: they are the hardware's, so no test judges them.
"""

import ctypes
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from tests.collectors.nvml.pick import energies, faults, powers, usage

from wattribute.collectors.nvml import NvmlCollector

CALLS = 50


def main(seconds: float = 5.0) -> None:
    """Prints "no GPU" where there is no driver library."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        print("no GPU")
        return
    import pynvml  # type: ignore[import-not-found, unused-ignore]

    pynvml.nvmlInit()
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        print(f"{pynvml.nvmlDeviceGetUUID(handle)}  {pynvml.nvmlDeviceGetName(handle)}")
        _compare_counter(pynvml, handle, seconds)
        for name, call in _calls(pynvml, handle).items():
            print(f"  {name}: {_cost(pynvml, call)}")
    pynvml.nvmlShutdown()
    _read_as_the_agent_does(seconds)


def _compare_counter(nvml: Any, handle: Any, seconds: float) -> None:
    """Energy by the counter and by power read at each of its steps, over the same seconds."""
    try:
        first_mj = last_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError as error:
        print(f"  no energy counter: {error}")
        return
    begun_s = step_s = now_s = time.monotonic()
    integral_j, steps_s = 0.0, []
    while now_s - begun_s < seconds:
        power_w = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        energy_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        assert energy_mj >= last_mj, "the counter fell"
        then_s, now_s = now_s, time.monotonic()
        integral_j += power_w * (now_s - then_s)
        if energy_mj != last_mj:
            steps_s.append(now_s - step_s)
            step_s, last_mj = now_s, energy_mj
        time.sleep(0.005)
    counted_j = (last_mj - first_mj) / 1000
    alone = not nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    print(f"  {integral_j / (now_s - begun_s):.1f} W, {'no process on it' if alone else 'in use'}")
    print(f"  counter / integrated power: {counted_j:.2f} J / {integral_j:.2f} J = {counted_j / integral_j:.3f}")
    print(f"  the counter moves each {1000 * median(steps_s or [seconds]):.0f} ms")


def _calls(nvml: Any, handle: Any) -> dict[str, Callable[[], Any]]:
    on_board = (
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMaxMigDeviceCount",
    )
    calls: dict[str, Callable[[], Any]] = {name: _bind(nvml, name, handle) for name in on_board}
    calls["nvmlDeviceGetProcessUtilization"] = _bind(nvml, "nvmlDeviceGetProcessUtilization", handle, 0)
    calls["nvmlDeviceGetFieldValues"] = _bind(
        nvml, "nvmlDeviceGetFieldValues", handle, [nvml.NVML_FI_DEV_POWER_AVERAGE]
    )
    try:
        mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0)
        gpu_instance = nvml.nvmlDeviceGetGpuInstanceId(mig)
        sample = nvml.nvmlGpmSampleAlloc()
    except nvml.NVMLError:
        return calls
    calls["nvmlDeviceGetMigDeviceHandleByIndex"] = _bind(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, 0)
    calls["nvmlDeviceGetAttributes_v2"] = _bind(nvml, "nvmlDeviceGetAttributes_v2", mig)
    calls["its processes"] = _bind(nvml, "nvmlDeviceGetComputeRunningProcesses_v3", mig)
    calls["nvmlGpmMigSampleGet"] = _bind(nvml, "nvmlGpmMigSampleGet", handle, gpu_instance, sample)
    calls["its processes, after GPM"] = calls["its processes"]
    return calls


def _bind(nvml: Any, name: str, *arguments: Any) -> Callable[[], Any]:
    return lambda: getattr(nvml, name)(*arguments)


def _cost(nvml: Any, call: Callable[[], Any]) -> str:
    took_us = []
    for _ in range(CALLS):
        begun_ns = time.perf_counter_ns()
        try:
            call()
        except nvml.NVMLError as error:
            if error.value not in (nvml.NVML_SUCCESS, nvml.NVML_ERROR_NOT_FOUND):
                return str(error)
        took_us.append((time.perf_counter_ns() - begun_ns) / 1000)
    return f"{median(took_us):.1f} us, at most {max(took_us):.1f}"


def _read_as_the_agent_does(seconds: float) -> None:
    collector = NvmlCollector(time.monotonic_ns, lambda pid: None)
    before = collector.read()
    time.sleep(seconds)
    begun_ns = time.perf_counter_ns()
    after = collector.read()
    print(f"one read of all GPUs: {(time.perf_counter_ns() - begun_ns) / 1000:.0f} us")
    assert energies(before).keys() == energies(after).keys()
    assert energies(after) or powers(after), before
    for uuid, reading in energies(after).items():
        first = energies(before)[uuid]
        assert 1 < (reading.energy_uj - first.energy_uj) / ((reading.at_ns - first.at_ns) / 1000) < 2000, "watts"
    for uuid, words in collector.methods().items():
        print(f"{uuid}: {words}")
        ours = [reading for reading in usage(after).values() if reading.device == uuid]
        assert sum(reading.held_ppb or 0 for reading in ours) <= 1_000_000_000
    for fault in faults(before):
        print(f"{fault.domain.id}: {fault.cause}")
    collector.close()


if __name__ == "__main__":
    main()
