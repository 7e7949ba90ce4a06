"""Splits what a job used in a stretch of time over the requests that it served in it; every sum is exact.

Each part is a cumulative floor (E * C_i // W - E * C_(i-1) // W), so that the parts and what is left for `idle` are
whole microjoules and nanograms that sum to what was split. Times in ns (CLOCK_BOOTTIME).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from wattribute.agent.core.served import Tenant

COLUMNS = 9
"""What of a job is split by time: active and idle uJ; operation, cooling, platform, hardware, overhead_hardware and
product ng (what is due of it by time); CPU time."""
Amounts = Sequence[int]
"""A job's amounts by column, cumulative or of a stretch."""


@dataclass(slots=True)
class Row:
    """One tenant in one slot: the name that its sender gave, its account, weight * time in flight, and its busy time.

    `bill` is what it was billed for in the window so far.
    """

    slot: int
    name: str
    tenant: Tenant
    weighted_ns: int
    busy_ns: int
    bill: list[int]


@dataclass(slots=True)
class Window:
    """What one sender said of the time from `since_ns` to `until_ns`, in which it had so many workers.

    `work`: how many rows have to be split because of it, where windows of other senders overlap it.
    """

    since_ns: int
    until_ns: int
    workers: int
    rows: list[Row]
    stages_ns: dict[str, int] = field(default_factory=dict)
    work: int = 0

    def part(self, start_ns: int, end_ns: int) -> tuple[list[int], list[int], int]:
        """Of a stretch that it overlaps: weighted and busy time by row, and its workers' time."""
        start_ns, end_ns = max(start_ns, self.since_ns), min(end_ns, self.until_ns)
        workers_ns = self.workers * (end_ns - start_ns)
        if (start_ns, end_ns) == (self.since_ns, self.until_ns):
            return [row.weighted_ns for row in self.rows], [row.busy_ns for row in self.rows], workers_ns
        first, last, whole = start_ns - self.since_ns, end_ns - self.since_ns, self.until_ns - self.since_ns
        return (
            [row.weighted_ns * last // whole - row.weighted_ns * first // whole for row in self.rows],
            [row.busy_ns * last // whole - row.busy_ns * first // whole for row in self.rows],
            workers_ns,
        )


def floors(total: int, weights: Sequence[int], whole: int) -> list[int]:
    """The part of `total` that each weight is of `whole` (at least their sum), by cumulative floor."""
    if not total or not whole:
        return [0] * len(weights)
    parts, reached, before = [], 0, 0
    for weight in weights:
        reached += weight
        now = total * reached // whole
        parts.append(now - before)
        before = now
    return parts


def bills(
    amounts: Amounts, weighted_ns: Sequence[int], busy_ns: Sequence[int], workers_ns: int, cpus: int
) -> list[tuple[int, ...]]:
    """The bill of each row for a stretch; what they leave of `amounts` was idle.

    Active energy goes by weighted time, no more of it than the CPU time that busy requests can have used; idle energy,
    and what falls due by time, by busy time, as far as the workers were busy; operation and cooling as the energy does.
    """
    active_uj, idle_uj, operation_ng, cooling_ng, platform_ng, hardware_ng, overhead_ng, product_ng, cpu_ns = amounts
    busy_sum_ns = sum(busy_ns)
    whole_ns = max(workers_ns, busy_sum_ns)
    part_ns, of_ns = (min(busy_sum_ns * cpus, cpu_ns), cpu_ns) if cpu_ns else (1, 1)
    active = floors(active_uj * part_ns, weighted_ns, sum(weighted_ns) * of_ns)
    energy = [a + i for a, i in zip(active, floors(idle_uj, busy_ns, whole_ns), strict=True)]
    energy_uj = active_uj + idle_uj
    return list(
        zip(
            energy,
            floors(operation_ng, energy, energy_uj),
            floors(cooling_ng, energy, energy_uj),
            floors(platform_ng, busy_ns, whole_ns),
            [0] * len(energy),  # retraining comes when its interval is over
            floors(hardware_ng, busy_ns, whole_ns),
            floors(overhead_ng, busy_ns, whole_ns),
            floors(product_ng, busy_ns, whole_ns),
            strict=True,
        )
    )


def as_bill(amounts: Amounts) -> list[int]:
    """A job's amounts as a bill."""
    active_uj, idle_uj, operation_ng, cooling_ng, platform_ng, hardware_ng, overhead_ng, product_ng, _ = amounts
    return [active_uj + idle_uj, operation_ng, cooling_ng, platform_ng, 0, hardware_ng, overhead_ng, product_ng]


class Track:
    """A job's cumulative amounts at its last ticks. Between two of them they grow evenly, in whole numbers."""

    MOST = 256

    def __init__(self, at_ns: int, amounts: Amounts) -> None:
        self._points: deque[tuple[int, Amounts]] = deque([(at_ns, amounts)])

    @property
    def last(self) -> tuple[int, Amounts]:
        """The last tick."""
        return self._points[-1]

    def add(self, at_ns: int, amounts: Amounts) -> None:
        """One more tick; two at one moment are one."""
        if at_ns <= self._points[-1][0]:
            self._points[-1] = self._points[-1][0], amounts
        else:
            self._points.append((at_ns, amounts))

    def at(self, at_ns: int) -> Amounts:
        """The amounts at a moment between the first tick that is kept and the last."""
        before_ns, before = self._points[0]
        for after_ns, after in self._points:
            if after_ns >= at_ns:
                break
            before_ns, before = after_ns, after
        if at_ns >= after_ns or after_ns == before_ns:
            return after
        part_ns, whole_ns = at_ns - before_ns, after_ns - before_ns
        return [low + (high - low) * part_ns // whole_ns for low, high in zip(before, after, strict=True)]

    def settle(self, at_ns: int, amounts: Amounts) -> None:
        """What was before a moment isn't asked for any more. `amounts` are those of that moment.

        Of a stretch that nobody reports of, the oldest ticks are left out: it is taken as even from there on.
        """
        while len(self._points) > 1 and self._points[1][0] <= at_ns:
            self._points.popleft()
        if len(self._points) > self.MOST:
            self._points.popleft()
            self._points[0] = at_ns, amounts
