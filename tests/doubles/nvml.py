"""A stand-in NVIDIA driver: builds nvml.c and nvml_mig.c into a folder and drives it through a shared page.

    python -m tests.doubles.nvml --gpus 8 --dir /tmp/gpus      # then: LD_LIBRARY_PATH=/tmp/gpus wattribute doctor

The real binding (nvidia-ml-py) loads it, in one of two ways. A process started with `NvmlDouble.env` finds it by
LD_LIBRARY_PATH (setting that inside a running process does nothing). Inside this process, whoever loads
`NvmlDouble.library` by its full path before pynvml loads anything wins, because the two share a soname; it then stays
for the life of the process, so a process can use one double only: `in_process()`.
"""

import argparse
import atexit
import ctypes
import functools
import mmap
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.doubles.nvml_page import (
    EMPTY_SUCCESS,
    FUNCTIONS,
    LAID_DOWN,
    MAGIC,
    MAX_GPUS,
    MAX_INSTANCES,
    MERGED,
    RawGpu,
    RawPage,
)

SONAME = "libnvidia-ml.so.1"


class MissingCompiler(Exception):
    """There is no C compiler here: tests skip as `missing: cc`."""


class Process(NamedTuple):
    """One context on a GPU. `sm_percent` is how busy it keeps the SMs; memory None: the driver doesn't tell.

    `instance` is the MIG device it is on, by its place among the GPU's.
    """

    pid: int
    memory_bytes: int | None = 1 << 30
    sm_percent: int = 0
    graphics: bool = False
    instance: int | None = None


class Sample(NamedTuple):
    """One answer of nvmlDeviceGetProcessUtilization; the stamp's clock is the driver's own."""

    pid: int
    stamp_us: int
    sm_percent: int


def build(directory: Path) -> Path:
    """Compiles the library into `directory` and returns its path; MissingCompiler where there is none."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MissingCompiler("missing: cc")
    library = directory / SONAME
    sources = [Path(__file__).with_name(name) for name in ("nvml.c", "nvml_mig.c")]
    flags = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{SONAME}")
    subprocess.run([compiler, *flags, "-o", library, *sources, "-ldl"], check=True)
    return library


class Instance(NamedTuple):
    """A compute instance, that is, a MIG device; those of one GPU instance state the same slices and activity.

    `activity` is the part of the GPU instance's SMs that are busy; a broken driver's may be above 1.
    """

    gpu_instance: int
    slices: int
    sms: int
    activity: float = 0.0
    compute_instance: int = 0
    uuid: str = ""


class GpuDouble:
    """One GPU of the double; what is assigned holds from the next NVML call on, in every process."""

    def __init__(self, double: "NvmlDouble", index: int) -> None:
        self._double = double
        self._index = index

    @property
    def _raw(self) -> RawGpu:
        gpu: RawGpu = self._double.page.gpus[self._index]
        return gpu

    @property
    def uuid(self) -> str:
        return str(self._raw.uuid.decode())

    @property
    def power_w(self) -> float:
        return float(self._raw.power_mw) / 1000

    @power_w.setter
    def power_w(self, power_w: float) -> None:
        with self._double.writing():
            self._settle()
            self._raw.power_mw = round(power_w * 1000)

    @property
    def energy_uj(self) -> int:
        """What the counter holds at this moment, before it is rounded to millijoules and to its refresh."""
        return self._energy_at(self._double.now_ns())

    @energy_uj.setter
    def energy_uj(self, energy_uj: int) -> None:
        """Sets the counter; 0 is a counter reset."""
        with self._double.writing():
            self._raw.base_ns, self._raw.base_uj = self._double.now_ns(), energy_uj

    def processes(self, *processes: Process) -> None:
        """The contexts on this GPU; the busy ones give a utilization sample per 100 ms of the driver's clock."""
        with self._double.writing():
            self._raw.process_count = len(processes)
            for slot, process in zip(self._raw.processes, processes, strict=False):
                slot.pid, slot.sm_percent, slot.graphics = process.pid, process.sm_percent, int(process.graphics)
                slot.instance = 0 if process.instance is None else process.instance + 1
                slot.memory_bytes = (1 << 64) - 1 if process.memory_bytes is None else process.memory_bytes

    def samples(self, *samples: Sample, success_when_empty: bool = False, merged: bool = False) -> None:
        """From here on the driver's sample buffer holds exactly these, whatever the processes do.

        `merged`: it answers one per process, their average since last seen.
        """
        with self._double.writing():
            self._raw.sampling = EMPTY_SUCCESS if success_when_empty else MERGED if merged else LAID_DOWN
            self._raw.sample_count = len(samples)
            for slot, sample in zip(self._raw.samples, samples, strict=False):
                slot.pid, slot.stamp_us, slot.sm_percent = sample.pid, sample.stamp_us, sample.sm_percent

    def mig(self, on: bool = True, slices: int = 7) -> None:
        """Switches MIG on or off; `slices` are the most that can be allocated (7 on an H100, 4 on an A30)."""
        with self._double.writing():
            self._raw.mig, self._raw.mig_slices = int(on), slices
            self._raw.mig_epoch += 1

    def instances(self, *instances: Instance | None, reuse_handles: bool = False) -> None:
        """Rebuilds the MIG devices (None: a place that isn't in use). Old handles are void, or mean the new ones."""
        if len(instances) > MAX_INSTANCES:
            raise ValueError(f"a GPU of the double has at most {MAX_INSTANCES} MIG devices")
        with self._double.writing():
            self._raw.mig_epoch += not reuse_handles
            self._raw.instance_count = len(instances)
            for place, (slot, instance) in enumerate(zip(self._raw.instances, instances, strict=False)):
                ctypes.memset(ctypes.addressof(slot), 0, ctypes.sizeof(slot))
                if instance is None:
                    continue
                slot.uuid = (instance.uuid or f"MIG-{self._index}-{instance.gpu_instance}-{place}").encode()
                slot.gpu_instance, slot.compute_instance = instance.gpu_instance, instance.compute_instance
                slot.slices, slot.sms = instance.slices, instance.sms
                slot.base_ns, slot.active_ppm = self._double.now_ns(), round(instance.activity * 1e6)

    def activity(self, gpu_instance: int, activity: float) -> None:
        """How busy a GPU instance is from now on."""
        now_ns = self._double.now_ns()
        with self._double.writing():
            for slot in self._raw.instances[: self._raw.instance_count]:
                if slot.gpu_instance == gpu_instance:
                    slot.base_active_ns += slot.active_ppm * (now_ns - slot.base_ns) // 1_000_000
                    slot.base_ns, slot.active_ppm = now_ns, round(activity * 1e6)

    def gpm(self, supported: bool = True, metric_error: int = 0) -> None:
        """Whether the board has GPM, and what its SM_UTIL carries while the call itself succeeds."""
        with self._double.writing():
            self._raw.gpm, self._raw.metric_error = int(supported), metric_error

    def fail_instance(self, place: int, function: str, code: int) -> None:
        """One function answers an NVML error code on one MIG device; 0 mends it."""
        with self._double.writing():
            self._raw.instances[place].errors[FUNCTIONS.index(function)] = code

    def fail(self, function: str, code: int) -> None:
        """One function (of FUNCTIONS) answers an NVML error code on this GPU; 0 mends it."""
        with self._double.writing():
            self._raw.errors[FUNCTIONS.index(function)] = code

    def fail_fields(self, code: int) -> None:
        """Each field value carries this code while the call itself answers SUCCESS."""
        with self._double.writing():
            self._raw.field_error = code

    def field_type(self, value_type: int) -> None:
        """The valueType of power fields (1: unsigned int)."""
        with self._double.writing():
            self._raw.field_type = value_type

    def break_down(self, code: int) -> None:
        """Every call and look-up answers this code (15: fell off the bus, 16: reset required); 0 mends it."""
        with self._double.writing():
            self._raw.error = code

    def model(self, name: str, capability: tuple[int, int], limit_w: float = 700) -> None:
        """What the GPU says it is."""
        with self._double.writing():
            self._raw.name = name.encode()
            self._raw.capability_major, self._raw.capability_minor = capability
            self._raw.limit_mw = round(limit_w * 1000)

    def _settle(self) -> None:
        now_ns = self._double.now_ns()
        self._raw.base_uj, self._raw.base_ns = self._energy_at(now_ns), now_ns

    def _energy_at(self, now_ns: int) -> int:
        return int(self._raw.base_uj + self._raw.power_mw * max(0, now_ns - self._raw.base_ns) // 1_000_000)


class NvmlDouble:
    """A folder with the library and its state, and the handle to drive it.

    As a context manager it closes the page at the end; the folder is the caller's, and outlives a process that
    still has the library loaded.
    """

    def __init__(self, directory: Path, gpus: int = 1) -> None:
        self.library = build(directory)
        state = directory / "state"
        state.write_bytes(bytes(ctypes.sizeof(RawPage)))
        with state.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.page = RawPage.from_buffer(self._map)
        self.gpus: Sequence[GpuDouble] = ()
        self.reset(gpus)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        del self.page  # releases its hold on the map
        self._map.close()

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment, at its start, to load this library as the driver's."""
        rest = os.environ.get("LD_LIBRARY_PATH")
        return {"LD_LIBRARY_PATH": str(self.library.parent) + (f":{rest}" if rest else "")}

    def reset(self, gpus: int = 1) -> None:
        """All as new: `gpus` H100s at 100 W that have used nothing, hold no context and fail nowhere."""
        generation = self.page.generation + 1
        with self.writing():
            after_lock = RawPage.gpu_count.offset
            ctypes.memset(ctypes.addressof(self.page) + after_lock, 0, ctypes.sizeof(RawPage) - after_lock)
            self.page.magic, self.page.generation, self.page.driver = MAGIC, generation, b"550.54.15"
            for index in range(MAX_GPUS):
                gpu = self.page.gpus[index]
                gpu.uuid = f"GPU-00000000-0000-0000-0000-{index:012d}".encode()
                gpu.name, gpu.capability_major, gpu.capability_minor = b"NVIDIA H100 80GB HBM3", 9, 0
                gpu.limit_mw, gpu.power_mw, gpu.field_type = 700_000, 100_000, 1
                gpu.base_ns = time.monotonic_ns()
        self.count(gpus)

    def count(self, gpus: int) -> None:
        """How many GPUs the driver shows."""
        if not 0 <= gpus <= MAX_GPUS:
            raise ValueError(f"a double has 0 to {MAX_GPUS} GPUs, not {gpus}")
        with self.writing():
            self.page.gpu_count = gpus
        self.gpus = tuple(GpuDouble(self, index) for index in range(gpus))

    def now_ns(self) -> int:
        """The driver's clock: CLOCK_MONOTONIC, or where `freeze` and `advance` put it."""
        return int(self.page.now_ns) or time.monotonic_ns()

    def freeze(self) -> None:
        """Stops the driver's clock, so that tests are exact; `advance` moves it."""
        with self.writing():
            self.page.now_ns = time.monotonic_ns()

    def advance(self, duration_ns: int) -> None:
        """Moves the stopped clock on: energy grows, samples become new."""
        with self.writing():
            self.page.now_ns += duration_ns

    def refresh(self, refresh_ns: int) -> None:
        """The energy counter moves only at multiples of this (100 ms on an H100); 0: at once."""
        with self.writing():
            self.page.refresh_ns = refresh_ns

    def driver(self, version: str) -> None:
        """The driver's version string."""
        with self.writing():
            self.page.driver = version.encode()

    def fail(self, function: str, code: int) -> None:
        """One function (of FUNCTIONS) answers an NVML error code on every GPU; 0 mends it."""
        with self.writing():
            self.page.errors[FUNCTIONS.index(function)] = code

    def delay(self, function: str, duration_s: float) -> None:
        """One function takes this long from now on."""
        with self.writing():
            self.page.delay_us[FUNCTIONS.index(function)] = round(duration_s * 1e6)

    def calls(self, function: str) -> int:
        """How often a function was called, by all processes."""
        return int(self.page.calls[FUNCTIONS.index(function)])

    def reload_driver(self, *, keep_counters: bool = False) -> None:
        """Every session answers UNINITIALIZED until it is opened again, handles are void, counters start over."""
        with self.writing():
            self.page.generation += 1
            for gpu in () if keep_counters else self.page.gpus:
                gpu.base_ns, gpu.base_uj = self.now_ns(), 0

    def swap(self, one: int, other: int) -> None:
        """Two GPUs change places in the driver's order, as they may at a boot."""
        with self.writing():
            kept = RawGpu.from_buffer_copy(self.page.gpus[one])
            self.page.gpus[one] = self.page.gpus[other]
            self.page.gpus[other] = kept

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds readers off while several fields change (a sequence lock; one writer)."""
        self.page.sequence += 1
        try:
            yield
        finally:
            self.page.sequence += 1


@functools.cache
def in_process() -> NvmlDouble:
    """The one double of this process, loaded before pynvml can load another; `reset` it before each use."""
    directory = Path(tempfile.mkdtemp(prefix="nvml-double-"))
    atexit.register(shutil.rmtree, directory)
    double = NvmlDouble(directory)
    ctypes.CDLL(str(double.library))
    return double


def _process(text: str) -> tuple[int, Process]:
    gpu, pid, memory_mib, sm_percent = (int(part) for part in text.split(":"))
    return gpu, Process(pid, memory_mib << 20, sm_percent)


def main() -> None:
    """Prepares a folder for processes without a GPU, and says how to use it."""
    parser = argparse.ArgumentParser(prog="python -m tests.doubles.nvml", description=main.__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="folder for the library and its state")
    parser.add_argument("--gpus", type=int, default=1, help=f"1 to {MAX_GPUS}; each an H100")
    parser.add_argument("--power-w", type=float, default=300.0, help="what each GPU draws from now on")
    parser.add_argument(
        "--process",
        type=_process,
        action="append",
        default=[],
        metavar="GPU:PID:MIB:SM_PERCENT",
        help="a process with a context on one GPU (repeatable)",
    )
    arguments = parser.parse_args()
    arguments.dir.mkdir(parents=True, exist_ok=True)
    with NvmlDouble(arguments.dir, arguments.gpus) as double:
        double.refresh(100_000_000)
        for index, gpu in enumerate(double.gpus):
            gpu.power_w = arguments.power_w
            gpu.processes(*(process for on, process in arguments.process if on == index))
        print(
            f"{arguments.gpus} GPUs at {arguments.power_w:g} W. Start processes with: "
            f"LD_LIBRARY_PATH={arguments.dir.resolve()}"
        )


if __name__ == "__main__":
    main()
