"""A driver that samples each process's SM use at moments of its own, and the SM time that truly was.

The real one does so every 1/6 s to 1 s, by product; a process that was idle has no sample (nvml.h).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.doubles.nvml import GpuDouble, NvmlDouble, Process, Sample
from tests.doubles.nvml_page import MAX_SAMPLES


@dataclass
class _Load:
    percent: int
    next_ns: int
    sampled_ns: int
    busy_ns: int = 0  # the truth, up to now
    sampled_busy_ns: int = 0
    context: bool = True


@dataclass
class SmSampler:
    """Fills one GPU's sample buffer while the stopped clock of its driver is moved on by `advance`.

    `interval_ns` draws the time to a process's next sample; with `in_step` one draw serves all processes.
    """

    double: NvmlDouble
    gpu: GpuDouble
    interval_ns: Callable[[Random], int]
    seed: int = 0
    in_step: bool = False
    merged: bool = True
    epoch_us: int = 1_600_000_000_000_000  # the stamps' clock isn't ours
    _loads: dict[int, _Load] = field(default_factory=dict)
    _buffer: deque[Sample] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))

    def __post_init__(self) -> None:
        self._random = Random(self.seed)

    def load(self, pid: int, percent: int) -> None:
        """A process keeps the SMs this busy from now on; its context comes with the first call."""
        now_ns = self.double.now_ns()
        if pid in self._loads:
            self._loads[pid].percent = percent
        else:
            first = next(iter(self._loads.values()), None) if self.in_step else None
            next_ns = first.next_ns if first else now_ns + self.interval_ns(self._random)
            self._loads[pid] = _Load(percent, next_ns, now_ns)
        self._show()

    def exit(self, pid: int) -> None:
        """The process ends; the sample that covers its end is still to come."""
        self._loads[pid].percent, self._loads[pid].context = 0, False
        self._show()

    def busy_ns(self, pid: int) -> int:
        """The SM time that the process has used."""
        return self._loads[pid].busy_ns

    def advance(self, duration_ns: int) -> None:
        """Moves the driver's clock on, from sample to sample."""
        end_ns = self.double.now_ns() + duration_ns
        while True:
            due_ns = min([end_ns, *(load.next_ns for load in self._loads.values())])
            passed_ns = due_ns - self.double.now_ns()
            for load in self._loads.values():
                load.busy_ns += passed_ns * load.percent // 100
            self.double.advance(passed_ns)
            due = [(pid, load) for pid, load in self._loads.items() if load.next_ns == due_ns]
            interval_ns = self.interval_ns(self._random)
            for pid, load in due:
                self._sample(pid, load, due_ns)
                load.next_ns = due_ns + (interval_ns if self.in_step else self.interval_ns(self._random))
            if due_ns == end_ns:
                break
        self.gpu.samples(*self._buffer, merged=self.merged)

    def _sample(self, pid: int, load: _Load, at_ns: int) -> None:
        busy_ns, span_ns = load.busy_ns - load.sampled_busy_ns, at_ns - load.sampled_ns
        load.sampled_busy_ns, load.sampled_ns = load.busy_ns, at_ns
        percent = round(100 * busy_ns / span_ns)
        if percent:
            self._buffer.append(Sample(pid, self.epoch_us + at_ns // 1000, percent))

    def _show(self) -> None:
        self.gpu.processes(*(Process(pid) for pid, load in self._loads.items() if load.context))
