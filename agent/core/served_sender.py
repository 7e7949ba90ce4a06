"""What one sender reports of a metered job: cumulative counts, and the window of time that each report ends.

Counts are checked before anything changes. Units of work in millionths, times in ns (CLOCK_BOOTTIME).
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import BUCKETS_UJ
from wattribute.agent.core.served_window import Window, floors
from wattribute.agent.core.units import NS_PER_S

ENGINE = "engine:"
"""How the tokens of engines begin, which are counted from the outside."""
NAMES_MAX, COUNTS_MAX = 1024, 8192
"""So many tenants of a sender, each with its units: so many counts in all."""
WINDOWS_KEPT, ROWS_KEPT = 64, 8192
"""So many settled windows can still be asked for, and so many rows of all of them."""
ROWS_WAITING = 16384
"""So many windows and rows may wait for a tick."""
LAG_MAX_NS = 60 * NS_PER_S
ROUNDING = 10**12


class Counts(NamedTuple):
    """Of one tenant, cumulative: requests answered, and not, and millionths of other units of work."""

    requests: int
    aborted: int
    units: Mapping[str, int]


class Receipts(NamedTuple):
    """Of requests with a receipt, cumulative: how many by bucket, their sum, the latest (bucket, id, uJ, Unix ns)."""

    counts: Sequence[int]
    sum_uj: int
    latest: Sequence[tuple[int, str, int, int]]


NO_COUNTS, NO_RECEIPTS = Counts(0, 0, {}), Receipts((), 0, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a sender tells (agent/requests.py: Units). `token` is its account, `stages_ns` cumulative by stage; `asks`:
    it wants to know what its windows were billed.
    """

    token: str
    until_ns: int
    served: Sequence[tuple[str, Counts]]
    shares: Sequence[tuple[int, int, int, int]] | None = None
    workers: int = 1
    in_flight: int = 0
    receipts: Receipts | None = None
    stages_ns: Mapping[str, int] = field(default_factory=dict)
    asks: bool = False


class More(NamedTuple):
    """What a report adds: by the sender's name of a tenant, and of receipts."""

    served: dict[str, Counts]
    receipts: Receipts


class Part(NamedTuple):
    """What of a window is to be split by: one tenant in one slot."""

    slot: int
    name: str
    weighted_ns: int
    busy_ns: int


class Sender:
    """One token: its counts, its windows that aren't settled yet, and those that may be asked for."""

    def __init__(self, until_ns: int | None = None) -> None:
        self.until_ns = until_ns  # where its last window ended; None: nothing came yet
        self.heard_ns = 0
        self.in_flight = 0
        self.waiting: deque[Window] = deque()
        self.done: deque[Window] = deque(maxlen=WINDOWS_KEPT)
        self._lag_ns = NS_PER_S
        self._asks = False
        self._counts: dict[str, Counts] = {}
        self._counts_known = 0
        self._receipts = Receipts((0,) * (len(BUCKETS_UJ) + 1), 0, ())
        self._stages_ns: dict[str, int] = {}

    def lives(self, at_ns: int) -> bool:
        """Whether its next report is still to be waited for."""
        return at_ns - self.heard_ns <= self._lag_ns

    def reach_ns(self, at_ns: int) -> int:
        """Until when it has told everything, as far as it is in windows that end until a moment."""
        ends = [window.until_ns for window in self.waiting if window.until_ns <= at_ns]
        if ends:
            return ends[-1]
        return self.waiting[0].since_ns if self.waiting else self.until_ns or 0

    def more(self, report: Report) -> More:
        """What a report adds to what was told before. Raises Refused where something fell."""
        served: dict[str, Counts] = {}
        for name, counts in report.served:
            if name in served:
                raise Refused(f"tenant {name!r} is in one report twice")
            known = self._counts.get(name, NO_COUNTS)
            before = known.units
            units = {unit: _grown(before.get(unit, 0), micro) for unit, micro in counts.units.items()}
            more = Counts(counts.requests - known.requests, counts.aborted - known.aborted, units)
            if more.requests < 0 or more.aborted < 0 or (units and min(units.values()) < 0):
                raise Refused(
                    f"counts of tenant {name!r} fell under account {report.token!r}: they are cumulative, and begin "
                    "at 0 again only under another account"
                )
            served[name] = more
        if len(self._counts.keys() | served.keys()) > NAMES_MAX:
            raise Refused(f"more than {NAMES_MAX} tenants under one account: let the rarer ones share a name")
        if self._counts_known + self._fresh(served) > COUNTS_MAX:
            raise Refused(f"more than {COUNTS_MAX} counts under one account: tenants, each with its units")
        if any(ns < self._stages_ns.get(stage, 0) for stage, ns in report.stages_ns.items()):
            raise Refused(f"time by stage fell under account {report.token!r}: it is cumulative")
        return More(served, self._more_receipts(report))

    def parts(self, report: Report, more: More, unit: str) -> list[Part] | None:
        """What the report's window is split by; None: it stays open, as something is in flight and nothing was served.

        Without shares: the requests served in it, none: `unit`, else the first that was. Raises Refused.
        """
        if report.shares is not None:
            parts = []
            for slot, place, weighted_ns, busy_ns in report.shares:
                if not 0 <= place < len(report.served) or weighted_ns < 0 or busy_ns < 0:
                    raise Refused(f"shares: {[slot, place, weighted_ns, busy_ns]} isn't of anything in `served`")
                parts.append(Part(slot, report.served[place][0], weighted_ns, busy_ns))
        else:
            weights = {name: counts.requests for name, counts in more.served.items() if counts.requests}
            if not weights:
                units = [one for counts in more.served.values() for one, micro in counts.units.items() if micro]
                by = unit if unit in units or not units else units[0]
                weights = {name: micro for name, counts in more.served.items() if (micro := counts.units.get(by, 0))}
            if not weights and report.in_flight and self.until_ns is not None:
                return None
            parts = [Part(0, name, weight, 0) for name, weight in weights.items()]
        if sum(len(window.rows) + 1 for window in self.waiting) + len(parts) >= ROWS_WAITING:
            raise Refused("too many reports wait for the next tick: send one per interval")
        return parts

    def take(self, report: Report, more: More) -> None:
        """The report is taken in: its counts are known from now on."""
        self.heard_ns, self.in_flight = report.until_ns, report.in_flight
        self._asks = self._asks or report.asks
        self._counts_known += self._fresh(more.served)
        for name, added in more.served.items():
            known = self._counts.get(name, NO_COUNTS)
            units = {unit: known.units.get(unit, 0) + micro for unit, micro in added.units.items()}
            requests, aborted = known.requests + added.requests, known.aborted + added.aborted
            self._counts[name] = Counts(requests, aborted, {**known.units, **units})
        if report.receipts is not None:
            buckets = [*report.receipts.counts, *self._receipts.counts[len(report.receipts.counts) :]]
            self._receipts = Receipts(buckets, report.receipts.sum_uj, ())

    def window(self, report: Report, parts: list[Part], settled_ns: int) -> tuple[int, list[Part]] | None:
        """Where the report's window begins, and its parts; None: it has no length."""
        since_ns = self.until_ns
        if since_ns is None:
            since_ns = report.until_ns if not parts else settled_ns
            if parts and report.shares is not None:
                busy_ns: dict[int, int] = {}
                for part in parts:
                    busy_ns[part.slot] = busy_ns.get(part.slot, 0) + part.busy_ns
                since_ns = max(0, report.until_ns - max(busy_ns.values()))
        else:
            self._lag_ns = min(LAG_MAX_NS, NS_PER_S + 3 * max(0, report.until_ns - since_ns))
        length_ns = report.until_ns - since_ns
        self.until_ns = max(since_ns, report.until_ns)
        if length_ns <= 0:
            return None
        if report.shares is None:
            weights = [part.weighted_ns for part in parts]
            busy = floors(length_ns * report.workers, weights, sum(weights))
            parts = [part._replace(busy_ns=busy_ns) for part, busy_ns in zip(parts, busy, strict=True)]
        return since_ns, parts

    def stages(self, report: Report) -> dict[str, int]:
        """Time by stage since the window before, ns."""
        more = {stage: ns - self._stages_ns.get(stage, 0) for stage, ns in report.stages_ns.items()}
        self._stages_ns.update(report.stages_ns)
        return {stage: ns for stage, ns in more.items() if ns}

    def finish(self, window: Window) -> None:
        """A window is settled."""
        if self._asks:
            self.done.append(window)
            while len(self.done) > 1 and sum(len(one.rows) for one in self.done) > ROWS_KEPT:
                self.done.popleft()

    def entries(self) -> int:
        """How much is remembered of it: counts, rows of windows, and the work that those which wait will be."""
        kept = sum(len(window.rows) + 1 for window in self.done)
        return 1 + self._counts_known + kept + sum(window.work for window in self.waiting)

    def save(self) -> list[Any]:
        """Its counts, as plain JSON values."""
        counts = [[name, *one] for name, one in self._counts.items()]
        return [counts, [self._receipts.counts, self._receipts.sum_uj], self._stages_ns]

    @classmethod
    def restore(cls, saved: Sequence[Any], until_ns: int | None) -> "Sender":
        """Go on from what `save` gave; its next window begins at `until_ns`, or as that of a new sender."""
        counts, receipts, stages_ns = saved
        sender = cls(until_ns)
        sender._counts = {name: Counts(*rest) for name, *rest in counts}
        sender._counts_known = sum(1 + len(known.units) for known in sender._counts.values())
        sender._receipts = Receipts(receipts[0], receipts[1], ())
        sender._stages_ns = dict(stages_ns)
        return sender

    def _fresh(self, served: Mapping[str, Counts]) -> int:
        """How many counts weren't there before."""
        known = self._counts
        return sum(
            len(counts.units.keys() - known[name].units.keys()) if name in known else 1 + len(counts.units)
            for name, counts in served.items()
        )

    def _more_receipts(self, report: Report) -> Receipts:
        told, known = report.receipts, self._receipts
        if told is None:
            return NO_RECEIPTS
        buckets = len(known.counts)
        if len(told.counts) > buckets or any(not 0 <= one[0] < buckets for one in told.latest):
            raise Refused(f"receipts: there are {buckets} buckets")
        counts = [now - then for now, then in zip(told.counts, known.counts, strict=False)]
        if (counts and min(counts) < 0) or told.sum_uj < known.sum_uj:
            raise Refused(f"receipts fell under account {report.token!r}: they are cumulative")
        return Receipts(counts, told.sum_uj - known.sum_uj, told.latest)


def _grown(before: int, now: int) -> int:
    """By how much; a few digits less is nothing: who adds up floats of workers may do it in another order."""
    return 0 if 0 < before - now <= 1 + before // ROUNDING else now - before
