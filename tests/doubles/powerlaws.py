"""Known power, integrated without loss: laws of time or of CPU time, and the thread that books them into counters."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

FJ_PER_UJ = 1_000_000_000  # microwatts times nanoseconds are femtojoules
STEP_S = 0.003


class Counter(Protocol):
    """Takes energy: a zone of the powercap double, a page of another."""

    def add(self, energy_uj: int) -> None: ...


@dataclass
class CpuLaw:
    """Power that follows CPU time: idle_w + w_per_core * d(cpu)/dt, so energy is idle * dt + k * d(cpu), exactly.

    `cpu_ns` gives cumulative CPU nanoseconds; `used_ns` is what was seen of them.
    """

    idle_w: float
    w_per_core: float
    cpu_ns: Callable[[], int]
    used_ns: int = 0
    _last_ns: int | None = None

    def begin(self) -> None:
        """CPU time counts from here."""
        self._last_ns = self.cpu_ns()

    def energy_fj(self, duration_ns: int) -> int:
        """Femtojoules (uW * ns) of the step that ends now."""
        assert self._last_ns is not None, "begin() comes first"
        now_ns = self.cpu_ns()
        used_ns = now_ns - self._last_ns
        self._last_ns = now_ns
        self.used_ns += used_ns
        return round(self.idle_w * 1e6) * duration_ns + round(self.w_per_core * 1e6) * used_ns


Law: TypeAlias = Callable[[float], float] | CpuLaw
"""Watts as a function of the seconds since the start, or a law of CPU time."""


class Writer:
    """Integrates laws into zones every few milliseconds, in a thread. `seconds` is how long it ran."""

    def __init__(self, laws: Iterable[tuple[Counter, Law]], step_s: float = STEP_S) -> None:
        self._laws = dict(laws)
        self._step_s = step_s
        self._left_fj: dict[Counter, int] = dict.fromkeys(self._laws, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="powercap-double", daemon=True)
        self._start_ns = 0
        self._last_ns = 0

    @property
    def seconds(self) -> float:
        return (self._last_ns - self._start_ns) / 1e9

    def start(self) -> None:
        for law in self._laws.values():
            if isinstance(law, CpuLaw):
                law.begin()
        self._start_ns = self._last_ns = time.monotonic_ns()
        self._thread.start()

    def stop(self) -> None:
        """Book the last piece up to now and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._step_s):
            self._step()
        self._step()

    def _step(self) -> None:
        now_ns = time.monotonic_ns()
        duration_ns = now_ns - self._last_ns
        middle_s = (now_ns + self._last_ns - 2 * self._start_ns) / 2e9
        self._last_ns = now_ns
        for zone, law in self._laws.items():
            if isinstance(law, CpuLaw):
                energy_fj = law.energy_fj(duration_ns)
            else:
                energy_fj = round(law(middle_s) * 1e6) * duration_ns
            # What is left below a microjoule is carried on: nothing is ever rounded away.
            energy_uj, self._left_fj[zone] = divmod(self._left_fj[zone] + energy_fj, FJ_PER_UJ)
            zone.add(energy_uj)


def pids_cpu_ns(pids: Sequence[int]) -> Callable[[], int]:
    """Sum of the CPU clocks of processes (clock_getcpuclockid(3)); one that is gone keeps its last value."""
    last_ns = dict.fromkeys(pids, 0)

    def read() -> int:
        for pid in pids:
            try:
                last_ns[pid] = time.clock_gettime_ns(~pid << 3 | 2)
            except OSError:
                continue
        return sum(last_ns.values())

    return read


def node_cpu_ns(
    cpuacct: Path = Path("/sys/fs/cgroup/cpuacct/cpuacct.usage"), stat: Path = Path("/proc/stat")
) -> Callable[[], int]:
    """CPU time of the whole node: the root cgroup's nanoseconds, else the ticks of /proc/stat."""
    if cpuacct.exists():
        return lambda: int(cpuacct.read_text())
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def read() -> int:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, stat.read_text().split(maxsplit=8)[1:8])
        return (user + nice + system + irq + softirq) * tick_ns

    return read
