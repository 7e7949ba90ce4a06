"""What nodes tell one another of a fleet's metered overhead, how it is split, and who was there: see fleet_shares."""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from wattribute.agent.core.attribution import apportion

Kind = Literal["platform", "retraining"]

MOST_WAITING = 2880
"""Parts of one product and kind that wait for the archive: two days of minutes. Past them the oldest are merged."""
MS = 1_000_000


class Key(NamedTuple):
    """Names one interval."""

    product_id: str
    kind: Kind
    start_unix_ns: int
    end_unix_ns: int


class Amounts(NamedTuple):
    """What one node has of an interval. `serial` counts its parts: a clock that is set back makes an interval twice."""

    jsc_ng: int
    hardware_ng: int
    weight: int
    serial: int


class Part(NamedTuple):
    """One node's part of an interval that is over."""

    key: Key
    amounts: Amounts


class Verdict(NamedTuple):
    """An interval that is closed: the parts that count, by node id; none where nothing was metered."""

    key: Key
    parts: Mapping[str, Amounts]


def slices(parts: Mapping[str, Amounts]) -> dict[str, tuple[int, int]]:
    """What each node's payers owe of all parts together: (JSC, hardware) in ng, by weight and largest remainder.

    Equal remainders go to the smaller node id. Without any weight each node is left with what it metered.
    """
    nodes = sorted(parts)
    weights = [parts[node].weight for node in nodes]
    if not any(weights):
        return {node: (parts[node].jsc_ng, parts[node].hardware_ng) for node in nodes}
    jscs_ng = apportion(sum(part.jsc_ng for part in parts.values()), weights)
    hardwares_ng = apportion(sum(part.hardware_ng for part in parts.values()), weights)
    return dict(zip(nodes, zip(jscs_ng, hardwares_ng, strict=True), strict=True))


class Stay(NamedTuple):
    """A payer in Unix milliseconds [since, until); None: it goes on. One that was served is there for one of them."""

    job_id: str
    weight_ppm: int
    since_ms: int
    until_ms: int | None


@dataclass(slots=True)
class Group:
    """One product and kind. `present`: the payers that go on, or were served in the open interval, by job id."""

    length_ns: int
    start_unix_ns: int = 0  # of the open interval
    end_unix_ns: int = 0
    is_open: bool = False
    jsc_ng: int = 0
    hardware_ng: int = 0
    stays: dict[int, Stay] = field(default_factory=dict)
    present: dict[str, int] = field(default_factory=dict)
    sealed: dict[int, Part] = field(default_factory=dict)  # in the order in which they were sealed

    def open(self, unix_ns: int) -> None:
        """Have an interval for what comes: the one that a moment is in, unless that was sealed already."""
        if self.is_open:
            return
        start = max(unix_ns - unix_ns % self.length_ns, self.end_unix_ns)
        for part in sorted(self.sealed.values()):  # by key
            if part.key.start_unix_ns < start + self.length_ns and start < part.key.end_unix_ns:
                start = part.key.end_unix_ns
        self.start_unix_ns, self.end_unix_ns, self.is_open = start, self._end(start), True

    def pieces(self, unix_ns: int) -> list[tuple[int, int]]:
        """The open interval and those after it until a moment; after a long absence not all of them."""
        pieces = [(self.start_unix_ns, self.end_unix_ns)]
        oldest = unix_ns - unix_ns % self.length_ns - MOST_WAITING * self.length_ns
        while pieces[-1][1] <= unix_ns:
            start = max(pieces[-1][1], oldest)
            pieces.append((start, self._end(start)))
        return pieces

    def weights(self, kind: Kind, start_unix_ns: int, end_unix_ns: int) -> dict[str, int]:
        """Job id -> its weight in an interval that is over; those without any are left out."""
        start_ms, end_ms = start_unix_ns // MS, end_unix_ns // MS
        weights: dict[str, int] = {}
        for job_id, weight_ppm, since_ms, until_ms in self.stays.values():
            present_ms = (end_ms if until_ms is None else min(until_ms, end_ms)) - max(since_ms, start_ms)
            if present_ms > 0:
                weights[job_id] = weight_ppm * present_ms + weights.get(job_id, 0) if kind == "platform" else weight_ppm
        return weights

    def needs(self) -> Callable[[Stay], bool]:
        """Whether a stay is in an interval that isn't booked yet."""
        spans = sorted((part.key.start_unix_ns // MS, part.key.end_unix_ns // MS) for part in self.sealed.values())
        starts = [start for start, _ in spans]
        open_ms = self.start_unix_ns // MS if self.is_open else None

        def needed(stay: Stay) -> bool:
            if stay.until_ms is None or (open_ms is not None and stay.until_ms > open_ms):
                return True
            before = bisect_left(starts, stay.until_ms) - 1
            return before >= 0 and spans[before][1] > stay.since_ms

        return needed

    def _end(self, start_unix_ns: int) -> int:
        return start_unix_ns - start_unix_ns % self.length_ns + self.length_ns
