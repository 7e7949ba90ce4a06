"""What `doctor` says of NVML: one Finding per GPU, or one that names what is missing and the step that mends it."""

from collections.abc import Callable
from contextlib import suppress

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import EnergyReading, Finding, PowerReading
from wattribute.collectors.nvml.gpu import Gpu
from wattribute.collectors.nvml.library import LIBRARY, Nvml, load, why
from wattribute.collectors.nvml.processes import Processes

_SOURCE = "nvml"


def probe(*, clock: Callable[[], int], library: str = LIBRARY) -> list[Finding]:
    """Asks the driver for its GPUs and reads each once, in an NVML session of its own. Raises nothing."""
    try:
        nvml = load(library)
    except SensorUnavailable as error:
        return [_bad(library, error.cause, error.fix)]
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return [_bad(library, *why(nvml, error.value))]
    try:
        count = nvml.nvmlDeviceGetCount()
        if count == 0:
            return [_bad(library, "the NVIDIA driver shows no GPU here", "in a container: docker run --gpus all")]
        return [_look_at(nvml, index, clock) for index in range(count)]
    except nvml.NVMLError as error:
        return [_bad(library, *why(nvml, error.value))]
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _bad(path: str, cause: str, fix: str) -> Finding:
    return Finding(source=_SOURCE, path=path, ok=False, why=cause, fix=fix)


def _look_at(nvml: Nvml, index: int, clock: Callable[[], int]) -> Finding:
    path = f"GPU number {index}"
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        path = nvml.nvmlDeviceGetUUID(handle)
        name = nvml.nvmlDeviceGetName(handle)
        gpu = Gpu(nvml, path, clock, Processes(lambda pid: None))
        try:
            readings, how = gpu.read(), gpu.how
        finally:
            gpu.drop_handle(driver_changed=True)
        notes = [name, *gpu.missing.values(), *_notes(nvml, handle, name)]
    except nvml.NVMLError as error:
        return _bad(path, *why(nvml, error.value))
    for reading in readings:
        if isinstance(reading, EnergyReading):
            return Finding(
                source=_SOURCE,
                path=path,
                ok=True,
                why="; ".join((*notes, how)),
                resolution="1 mJ, moves every 20 to 100 ms",
                value=f"{reading.energy_uj / 1e6:.3f} J since the driver was loaded",
                quality="measured",
            )
        if isinstance(reading, PowerReading):
            return Finding(
                source=_SOURCE,
                path=path,
                ok=True,
                why="; ".join((*notes, f"no energy counter: {how}")),
                resolution="1 mW, averaged over 1 s",
                value=f"{reading.power_uw / 1e6:.3f} W",
                quality="integrated",
            )
    return _bad(path, "; ".join(notes), "use a driver that offers the energy counter: nvidia-smi -q -d POWER")


def _notes(nvml: Nvml, handle: object, name: str) -> list[str]:
    notes = []
    with suppress(nvml.NVMLError):  # chips without MIG answer NOT_SUPPORTED
        if nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE:
            notes.append("MIG is on: energy is the whole board's, counted once, and split over its instances")
    if "GH200" in name or "GB200" in name:
        notes.append("a superchip: the counter may cover the whole module, CPU included; don't add the CPU's own")
    return notes
