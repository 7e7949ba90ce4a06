"""CPU time of every watched root, read in the tick, or before it, right at the step of the energy counters.

A counter that steps each millisecond is split by what had been used at its step: the sensor's thread reads that.
"""

import threading
from typing import TYPE_CHECKING

from wattribute.agent.core.model import Clock, SourceHealth, UsageReading
from wattribute.agent.live import CpuTime

if TYPE_CHECKING:
    from wattribute.agent.groups import Groups


class CpuReads:
    """Process trees, with cgroups where `groups` has them. Whoever reads or changes what is watched holds `lock`."""

    def __init__(self, cpu: CpuTime, groups: "Groups | None", clock: Clock) -> None:
        self.lock = threading.Lock()
        self._cpu = cpu
        self._groups = groups
        self._clock = clock
        self._captured: list[UsageReading] = []
        self._read_ns = 0
        self._read_unix_ns: int | None = None

    def capture(self) -> None:
        """In a sensor's thread, right at its counters' step: what had been used by then."""
        with self.lock:
            self._captured = self._read()

    def take(self, stepped_ns: int) -> list[UsageReading]:
        """What was captured, unless counters have stepped since (`stepped_ns`); else what is used now. Under `lock`."""
        captured, self._captured = self._captured, []
        return captured if captured and captured[0].at_ns >= stepped_ns else self._read()

    def health(self) -> SourceHealth:
        """As a source: there is no node without it."""
        return SourceHealth(
            name="process",
            up=True,
            read_ns=self._read_ns,
            last_read_unix_ns=self._read_unix_ns,
            failures={},
            gap_ns=0,
            wraps=0,
            resets=0,
        )

    def _read(self) -> list[UsageReading]:
        began_ns = self._clock.monotonic_ns()
        readings = self._cpu.read() if self._groups is None else self._groups.read()
        self._read_ns = self._clock.monotonic_ns() - began_ns
        self._read_unix_ns = self._clock.time_ns()
        return readings


__all__ = ["CpuReads"]
