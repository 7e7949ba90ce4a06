"""What single requests took: the rows of settled windows, split over the requests that were in flight in them.

A row is what one tenant of one worker was billed for in a window: microjoules, then nanograms in the order of TERMS.
A request's part of it is by weight * dV, V being the worker's virtual time; parts are cumulative floors, so that
their sum is the row, exactly, where every request has a receipt. V is in whole numbers of any fine unit.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from wattribute.agent.receipts import TERMS

PLACES = 1 + len(TERMS)
AT_ONCE = 1000
"""So many requests are looked at without a pause: one or two milliseconds of work."""
KEPT = 10_000
"""So many receipts of ended requests can be asked for."""
V_PER_NS = 1 << 20
"""Virtual time is counted in these, so that parts are whole numbers."""
_SLACK_V = V_PER_NS * 1000
_SLACK_EACH_V = V_PER_NS * 8
"""What rounding may make of a row, and of each request in it, in ns: more than that is of requests not known here."""
JSCE = tuple(1 + TERMS.index(term) for term in ("operation", "cooling", "platform", "retraining"))


_T = TypeVar("_T")


class Row(NamedTuple):
    """One tenant's in one window. `busy_v`: the weight * dV of all its requests, also of those without a receipt."""

    tenant: str
    amounts: Sequence[int]
    busy_v: int


Part = tuple[Sequence[int], int, int, int]
"""From where to where in a row, of how much: worked out when somebody asks, as nobody does of most."""


def _at(part: Part, place: int) -> int:
    amounts, before, after, whole = part
    amount = amounts[place]
    return amount * after // whole - amount * before // whole


class Price(NamedTuple):
    """What a product is written off by: nanograms for each unit that is served."""

    unit: str
    ng: float


class Bill:
    """One request's, from its begin on. `v_end` is None while it is in flight.

    `price` and `retraining_open` are what was so when it was settled: its part of the product's own cost where that
    goes by units, and whether a retraining of the product is under way that isn't billed yet.
    """

    __slots__ = (
        "_part",
        "_sums",
        "_until_v",
        "aborted",
        "began_ns",
        "ended_ns",
        "number",
        "prefix",
        "price",
        "retraining_open",
        "settled",
        "short",
        "tenant",
        "units",
        "v_begin",
        "v_end",
        "weight",
    )

    def __init__(self, number: int, tenant: str, weight: float, v_begin: int, began_ns: int, prefix: str = "") -> None:
        self.number = number
        self.prefix = prefix
        self.tenant = tenant
        self.weight = weight
        self.v_begin = v_begin
        self.began_ns = began_ns
        self.v_end: int | None = None
        self.ended_ns: int | None = None
        self.units: Mapping[str, float] = {}
        self.aborted = False
        self.settled = False
        self.short = False  # nobody told what a window of its time was billed
        self.price: Price | None = None
        self.retraining_open = False
        self._sums: list[int] | None = None
        self._part: Part | None = None
        self._until_v = v_begin

    @property
    def id(self) -> str:
        """The request's."""
        return f"{self.prefix}-{self.number}"

    def end(self, v_end: int, ended_ns: int, units: Mapping[str, float], *, aborted: bool) -> None:
        """It is over; what it took is known once the next window is settled."""
        self.v_end, self.ended_ns, self.units, self.aborted = v_end, ended_ns, units, aborted

    def take(self, part: Part, until_v: int) -> None:
        """One more window's part. Changed in one step, for `so_far`."""
        sums = None if self._part is None else _added(self._sums, self._part)
        self._sums, self._part, self._until_v = sums, part, until_v

    def give(self, amounts: Sequence[int]) -> None:
        """Something of a row that nobody else was there for."""
        self.take((amounts, 0, 1, 1), self._until_v)

    def so_far(self) -> tuple[list[int] | None, int]:
        """What the windows until a moment came to, and the moment: for who doesn't wait until bills are settled."""
        sums, part, until_v = self._sums, self._part, self._until_v
        return None if part is None else _added(sums, part), until_v

    def overlap_v(self, since_v: int, until_v: int) -> int:
        """Its weight * dV between two moments."""
        end = until_v if self.v_end is None or self.v_end > until_v else self.v_end
        begin = self.v_begin if self.v_begin > since_v else since_v
        return round(self.weight * (end - begin)) if end > begin else 0

    @property
    def energy_uj(self) -> int | None:
        """So far; None where no row that is settled had a part of it, though it was there."""
        if self._part is None:
            return 0 if self.settled and self.v_end == self.v_begin else None
        return _at(self._part, 0) + (self._sums[0] if self._sums else 0)

    @property
    def amounts(self) -> list[int] | None:
        """By place: microjoules, then nanograms by term; None as for `energy_uj`."""
        if self._part is None:
            return None if self.energy_uj is None else [0] * PLACES
        return _added(self._sums, self._part)


def _added(sums: Sequence[int] | None, part: Part) -> list[int]:
    return [before + _at(part, place) for place, before in enumerate(sums or (0,) * PLACES)]


class Rate(NamedTuple):
    """What the last window cost per weight * dV: so much for `busy_v` of it."""

    energy_uj: int
    jsce_ng: int
    asce_ng: int
    busy_v: int


class Bills:
    """Those of one worker. `all_have`: every request has a receipt, so that what is in nobody's time is kept for the
    next of its tenant. Of a row with more busy time than theirs, the rest is of requests without a receipt.
    """

    def __init__(self, *, all_have: bool, kept: int = KEPT, pause: Callable[[], object] = lambda: None) -> None:
        self.rate: Rate | None = None
        self._all_have = all_have
        self._kept = kept
        self._pause = pause
        self._by_number: dict[int, Bill] = {}
        self._open: dict[str, list[Bill]] = {}  # by tenant, those whose time isn't settled
        self._ended: deque[Bill] = deque()
        self._carried: dict[str, list[int]] = {}  # of rows without anybody to take them
        self._latest: dict[str, Bill] = {}
        self._v = 0

    def __len__(self) -> int:
        """How many wait for a window."""
        return sum(map(len, self._open.values()))

    @property
    def any(self) -> bool:
        """Whether there is one, open or ended."""
        return bool(self._by_number)

    def find(self, number: int) -> Bill | None:
        return self._by_number.get(number)

    def add(self, bill: Bill) -> None:
        """A request that isn't known yet."""
        self._by_number[bill.number] = bill
        self._open.setdefault(bill.tenant, []).append(bill)

    def ended(self, bill: Bill) -> None:
        """One of them has ended: of these, so many are kept."""
        self._ended.append(bill)
        if len(self._ended) > self._kept:
            del self._by_number[self._ended.popleft().number]

    def settle(self, until_v: int, rows: Iterable[Row]) -> list[Bill]:
        """The window that ends at `until_v`, and begins where the one before did. Returns those that are settled."""
        since_v, self._v = self._v, max(self._v, until_v)
        busy_v, sums = 0, [0] * PLACES
        for row in rows:
            self._split(row, since_v, until_v)
            busy_v += row.busy_v
            sums = [a + b for a, b in zip(sums, row.amounts, strict=True)]
        if busy_v:
            jsce_ng = sum(sums[place] for place in JSCE)
            self.rate = Rate(sums[0], jsce_ng, sum(sums[1:]), busy_v)
        done = []
        for tenant, bills in list(self._open.items()):
            still = []
            latest, latest_ns = None, -1
            for bill in self._in_turns(bills):
                if bill.v_end is not None and bill.v_end <= until_v:
                    bill.settled = True
                    done.append(bill)
                    ended_ns = bill.ended_ns or 0
                    if ended_ns > latest_ns:
                        latest, latest_ns = bill, ended_ns
                else:
                    still.append(bill)
            if latest is not None:
                self._latest[tenant] = latest
            if still:
                self._open[tenant] = still
            else:
                del self._open[tenant]
        return done

    def skip(self, until_v: int) -> None:
        """Nobody tells what was billed until then: the next window begins there."""
        if until_v <= self._v:  # as it is unless a window was lost
            return
        for bills in self._open.values():
            for bill in bills:
                bill.short = bill.short or bill.overlap_v(self._v, until_v) > 0
        self._v = until_v

    def finish(self) -> None:
        """No window comes any more: what was carried goes to the last of its tenant, else to the last of all."""
        last = max(self._latest.values(), key=lambda bill: bill.ended_ns or 0, default=None)
        for tenant, amounts in self._carried.items():
            bill = self._latest.get(tenant, last)
            if bill is not None:
                bill.give(amounts)
        self._carried = {}

    def _in_turns(self, bills: Sequence[_T]) -> Iterator[_T]:
        """All of them, with a pause now and then: a settlement of thousands isn't to keep a server waiting."""
        for begin in range(0, len(bills), AT_ONCE):
            if begin:
                self._pause()
            yield from bills[begin : begin + AT_ONCE]

    def _split(self, row: Row, since_v: int, until_v: int) -> None:
        members, whole = [], 0
        for bill in self._in_turns(self._open.get(row.tenant, ())):  # overlap_v, without a call for each
            begin, end = bill.v_begin, bill.v_end
            if end is None or end > until_v:
                end = until_v
            if begin < since_v:
                begin = since_v
            if end > begin:
                part = end - begin if bill.weight == 1 else round(bill.weight * (end - begin))
                if part:
                    members.append((bill, part))
                    whole += part
        amounts = row.amounts
        if row.busy_v - whole > _SLACK_V + _SLACK_EACH_V * len(members):
            whole = row.busy_v
        elif self._all_have and not members:
            if any(amounts):
                carried = self._carried.get(row.tenant, [0] * PLACES)
                self._carried[row.tenant] = [a + b for a, b in zip(carried, amounts, strict=True)]
            return
        elif self._all_have and row.tenant in self._carried:
            amounts = [a + b for a, b in zip(amounts, self._carried.pop(row.tenant), strict=True)]
        reached = 0
        for bill, part in self._in_turns(members):
            bill.take((amounts, reached, reached + part, whole), until_v)
            reached += part


__all__ = ["AT_ONCE", "JSCE", "KEPT", "PLACES", "V_PER_NS", "Bill", "Bills", "Price", "Rate", "Row"]
