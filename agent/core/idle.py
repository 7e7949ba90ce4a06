"""Idle power, learnt from what a domain draws while little or nothing runs. Pure; units: microwatts, nanoseconds.

Two ways, the first where there is enough of it:
- observed: the mean power of windows in which at most 1 % of the domain's capacity was busy, less what that use cost;
- extrapolated: the power at no use of the straight line through all windows (least squares), believed only where use
  varied by 2 % of the capacity or more and the line's 95 % bounds are within 2 % of the mean power. A law that isn't
  straight bends it: receipts say which way it was.
A GPU has no use that its power could be a line of (a mere context adds 26 to 66 W: arXiv 2605.23918), so that its idle
power is the tenth percentile of what it drew without any context on it, from 30 s after the last one went.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Any, Literal

from wattribute.agent.core.units import NS_PER_S

IdleMethod = Literal["observed", "extrapolated"]

SAMPLE_NS = NS_PER_S
"""Shorter windows are joined: counters move in steps of up to 100 ms, which must not look like noise."""
QUIET_PPM = 10_000
QUIET_SAMPLES = 3
QUIET_NS = 10 * NS_PER_S
LINE_SAMPLES = 30
FORGET_SAMPLES = 3600
BOUND_PPM = 20_000
SPREAD_PPM = 20_000
"""A load that varies by less (standard deviation, of the capacity) varies by how it is read, which power doesn't
follow: the line would lie flat, and all of a steady job's power would seem idle."""
SETTLED_NS = 30 * NS_PER_S
GPU_SAMPLES = 64
GPU_ENOUGH = 10


@dataclass(slots=True)
class Idle:
    """An idle power and how it was learnt; `within_uw` is half the width of its 95 % bounds."""

    power_uw: int
    within_uw: int
    method: IdleMethod


@dataclass(slots=True)
class _Sums:
    """Sums over samples of use u (ppm of the capacity) and power p (uW)."""

    n: int = 0
    u: int = 0
    p: int = 0
    uu: int = 0
    up: int = 0
    pp: int = 0

    def add(self, use_ppm: int, power_uw: int) -> None:
        self.n += 1
        self.u += use_ppm
        self.p += power_uw
        self.uu += use_ppm * use_ppm
        self.up += use_ppm * power_uw
        self.pp += power_uw * power_uw

    def halve(self) -> None:
        """What is long ago counts less and less."""
        self.n, self.u, self.p = self.n // 2, self.u // 2, self.p // 2
        self.uu, self.up, self.pp = self.uu // 2, self.up // 2, self.pp // 2

    def spread(self) -> int:
        """Of the use: n times the sum of squares about its mean, that is, n * n times its variance."""
        return self.uu * self.n - self.u * self.u

    def values(self) -> list[int]:
        return [self.n, self.u, self.p, self.uu, self.up, self.pp]


class IdleOfUse:
    """Idle power of a domain whose use is known: packages and DRAM, by CPU time."""

    def __init__(self) -> None:
        self.idle: Idle | None = None
        self._all = _Sums()
        self._quiet = _Sums()
        self._quiet_ns = 0
        self._lowest_uw: int | None = None
        self._energy_uj = self._busy_ns = self._duration_ns = 0

    def see(self, energy_uj: int, busy_ns: int, duration_ns: int, cpus: int) -> None:
        """One window: its energy, the CPU time of everything that ran, its length awake."""
        self._energy_uj += energy_uj
        self._busy_ns += busy_ns
        self._duration_ns += duration_ns
        if self._duration_ns < SAMPLE_NS:
            return
        power_uw = self._energy_uj * NS_PER_S // self._duration_ns
        use_ppm = self._busy_ns * 1_000_000 // (self._duration_ns * cpus)
        if use_ppm <= QUIET_PPM:
            self._quiet_ns += self._duration_ns
        self._energy_uj = self._busy_ns = self._duration_ns = 0
        for sums in (self._all, self._quiet) if use_ppm <= QUIET_PPM else (self._all,):
            sums.add(use_ppm, power_uw)
            if sums.n >= FORGET_SAMPLES:
                sums.halve()
                self._lowest_uw = None  # a counter that stood still for a moment isn't the lowest for good
        self._lowest_uw = power_uw if self._lowest_uw is None else min(self._lowest_uw, power_uw)
        self.idle = self._learn() or self.idle
        if self.idle is not None and self.idle.method == "extrapolated":
            self.idle.power_uw = min(self.idle.power_uw, self._lowest_uw)

    def _learn(self) -> Idle | None:
        line = _line(self._all)
        quiet = self._quiet
        if quiet.n >= QUIET_SAMPLES and self._quiet_ns >= QUIET_NS:
            power_uw = quiet.p // quiet.n
            if line is not None:
                power_uw = max(0, power_uw - max(0, line[1]) * quiet.u // (quiet.n * 1_000_000))
            spread_uw = isqrt(max(0, quiet.pp * quiet.n - quiet.p * quiet.p)) // quiet.n
            return Idle(power_uw, 2 * spread_uw // isqrt(quiet.n), "observed")
        if line is None or self._all.spread() < (SPREAD_PPM * self._all.n) ** 2:
            return None
        power_uw, _, within_uw = line
        if within_uw > self._all.p // self._all.n * BOUND_PPM // 1_000_000:
            return None
        return Idle(max(0, power_uw), within_uw, "extrapolated")

    def save(self) -> list[Any]:
        """As plain JSON values."""
        idle = self.idle
        learnt = None if idle is None else [idle.power_uw, idle.within_uw, idle.method]
        return [self._all.values(), self._quiet.values(), self._lowest_uw, learnt, self._quiet_ns]

    @classmethod
    def restore(cls, saved: Sequence[Any]) -> "IdleOfUse":
        """What `save` gave."""
        restored = cls()
        restored._all, restored._quiet = _Sums(*saved[0]), _Sums(*saved[1])
        restored._lowest_uw = saved[2]
        restored.idle = None if saved[3] is None else Idle(*saved[3])
        restored._quiet_ns = saved[4]
        return restored


def _line(sums: _Sums) -> tuple[int, int, int] | None:
    """(power at no use, its slope per capacity, half the 95 % bounds of the first) in uW; None without two uses."""
    n = sums.n
    u_spread = sums.spread()
    if n < LINE_SAMPLES or u_spread <= 0:
        return None
    up_spread = sums.up * n - sums.u * sums.p
    p_spread = sums.pp * n - sums.p * sums.p
    slope_uw = up_spread * 1_000_000 // u_spread
    power_uw = (sums.p - up_spread * sums.u // u_spread) // n
    left = max(0, p_spread - up_spread * up_spread // u_spread)  # n times the sum of squared residuals
    variance = left * sums.uu // ((n - 2) * n * u_spread)
    return power_uw, slope_uw, 2 * isqrt(variance)


@dataclass(slots=True)
class IdleOfGpu:
    """Idle power of a GPU without contexts."""

    idle: Idle | None = None
    _powers_uw: deque[int] = field(default_factory=lambda: deque(maxlen=GPU_SAMPLES))
    _quiet_since_ns: int | None = None
    _energy_uj: int = 0
    _duration_ns: int = 0

    def see(self, energy_uj: int, start_ns: int, end_ns: int, *, held: bool) -> None:
        """One window, and whether anybody held a context in it."""
        if held:
            self._quiet_since_ns = None
            self._energy_uj = self._duration_ns = 0
            return
        if self._quiet_since_ns is None:
            self._quiet_since_ns = start_ns
        if start_ns - self._quiet_since_ns < SETTLED_NS:
            return
        self._energy_uj += energy_uj
        self._duration_ns += end_ns - start_ns
        if self._duration_ns < SAMPLE_NS:
            return
        self._powers_uw.append(self._energy_uj * NS_PER_S // self._duration_ns)
        self._energy_uj = self._duration_ns = 0
        if len(self._powers_uw) >= GPU_ENOUGH:
            ordered = sorted(self._powers_uw)
            low_uw = ordered[len(ordered) // 10]
            self.idle = Idle(low_uw, ordered[len(ordered) * 9 // 10] - low_uw, "observed")

    def save(self) -> list[Any]:
        """As plain JSON values."""
        return [] if self.idle is None else [self.idle.power_uw, self.idle.within_uw, self.idle.method]

    @classmethod
    def restore(cls, saved: Sequence[Any]) -> "IdleOfGpu":
        """What `save` gave."""
        return cls(idle=Idle(*saved) if saved else None)
