"""Tells when the machine stood still: suspended, or a virtual machine that was paused.

CLOCK_BOOTTIME goes on in suspend and CLOCK_MONOTONIC doesn't (clock_gettime(2)). While a hypervisor pauses a machine
both may stand still; when wall time is set right afterwards, it has moved against them: by that a pause shows, and so
does a clock that somebody set.
"""

import logging
from collections.abc import Iterable, Mapping

from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.live import LiveJob

log = logging.getLogger("wattribute")

ASLEEP_NS = 100_000_000
STEP_NS = NS_PER_S


class Pauses:
    """Compares the clocks from tick to tick."""

    def __init__(self, asleep_ns: int) -> None:
        self._asleep_ns = asleep_ns
        self._offset_ns: int | None = None

    def see(self, now_ns: int, unix_ns: int, asleep_ns: int) -> list[dict[str, str | None]]:
        """The gaps that a receipt has of the time since the last call; `now_ns` is CLOCK_BOOTTIME."""
        gaps: list[dict[str, str | None]] = []
        slept_ns, self._asleep_ns = asleep_ns - self._asleep_ns, asleep_ns
        offset_ns = unix_ns - now_ns
        stepped_ns = 0 if self._offset_ns is None else offset_ns - self._offset_ns
        self._offset_ns = offset_ns
        if slept_ns >= ASLEEP_NS:
            gaps.append(_gap(unix_ns, slept_ns, f"the machine was suspended for {slept_ns / NS_PER_S:.1f} s"))
        if abs(stepped_ns) >= STEP_NS:
            why = f"wall time moved by {stepped_ns / NS_PER_S:+.1f} s: the machine was paused, or its clock set"
            gaps.append(_gap(unix_ns, max(0, stepped_ns), why))
        return gaps


def tell_jobs(jobs: Iterable[LiveJob], gap: Mapping[str, str | None]) -> None:
    """The machine stood still since the last tick: the window is longer, and jobs didn't run in that part of it."""
    log.info("%s", gap["cause"])
    for live in jobs:
        if live.running:
            live.gaps.append(dict(gap))
            live.known_meta = False


def _gap(unix_ns: int, duration_ns: int, cause: str) -> dict[str, str | None]:
    return {"start": rfc3339(unix_ns - duration_ns), "end": rfc3339(unix_ns), "cause": cause}
