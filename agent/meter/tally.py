"""Counts the requests of one worker, and whose its busy time is: the path that every request pays for.

Virtual time V grows by dt / W while requests of a total weight W are in flight, so that w * (V(end) - V(begin)) is a
request's part of the busy time, exact at every moment. Per tenant, sums do (request.Row); each begin and each end
writes one row to the account's memory, and nothing grows with the number of requests.

No lock: CPython 3.11 to 3.13 with its GIL lets other threads and signals in at calls, function entries and backward
jumps only. What begin and end change stands between two calls of C, the clock before and the row after, as straight
lines. Other interpreters get a lock. Sums are floats in seconds: after 100 days of work each event is exact to 2 ns,
weight * time in flight to a millionth.
"""

import itertools
import math
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wattribute.agent.core.products import REQUEST
from wattribute.agent.identity import fit
from wattribute.agent.meter import layout
from wattribute.agent.meter.account_file import AccountFile
from wattribute.agent.meter.path import UNITS_MOST, Begin, Path, Requests
from wattribute.agent.meter.request import Detailed, Request, Row
from wattribute.agent.process import here

if TYPE_CHECKING:
    from wattribute.agent.meter.receipts import RequestReceipt

WEIGHT_LEAST, WEIGHT_MOST = 1e-3, 1e6
_WEIGHT_STEPS = 1 << 20  # weights are whole numbers of these parts: sums of them are exact, and come back to 0
_ENDED_KEPT = 16_384
_known: "weakref.WeakSet[Tally]" = weakref.WeakSet()


def needs_lock() -> bool:
    """Whether straight lines of Python may be interrupted by other threads here, as far as is known."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return not (gil and sys.implementation.name == "cpython" and sys.version_info < (3, 14))


class Tally:
    """The count of one process in its slot of the account. A child of a fork has its own, from its first request on.

    `on_first` is called at the first request of each process. Of more than `max_tenants` tenants in the account the
    rest are `_other`. `refused` counts units that were left out: no number from 0 to 1e12, or a ninth kind.
    """

    def __init__(
        self,
        file: AccountFile,
        clock: Callable[[], int] = time.monotonic_ns,
        max_tenants: int = 100,
        on_first: Callable[[], object] | None = None,
        *,
        locked: bool | None = None,
    ) -> None:
        self.file = file
        self.refused = 0
        self.ended: deque[Detailed] = deque(maxlen=_ENDED_KEPT)
        self.receipt_of: Callable[[Request], RequestReceipt | None] | None = None
        """Who knows what a request took."""
        self._tenants_most = min(max_tenants, layout.TENANTS - 2) + 2
        self._on_first = on_first
        self._first = True
        self.rows: dict[Any, Row] = {}
        self._by_place: dict[int, Row] = {}
        self.watched: dict[int, weakref.ref[Detailed]] = {}
        """By number, those in flight with a receipt: who drops one has ended it."""
        self._adding = False
        """Whether a row or a unit is being added: who has the lock and finds that is a signal's handler in there."""
        self.numbers = itertools.count(1)
        """Of requests, in this process."""
        self._path = Path(self, clock, needs_lock() if locked is None else locked)
        self.begin: Begin = self._path.begin
        """Begins a request of a tenant ("": nobody in particular) and weight (0.001 to 1e6). Raises nothing."""
        self.request: Requests = self._path.request
        """A request for a `with`, begun now; `units` are served if it ends well. Raises nothing.

        With `receipt` it keeps where virtual time was at its begin and end, for `ended`.
        """
        file.on_detach(self._afresh)
        _known.add(self)

    def count_in_flight(self) -> int:
        """How many are under way in this process."""
        return sum(max(0, round(row.w - row.wide_w + row.wide)) for row in list(self._by_place.values()))

    def in_flight(self) -> list[Detailed]:
        """Those in flight with a receipt."""
        found = [reference() for reference in list(self.watched.values())]
        return [each for each in found if each is not None and each.v_end is None]

    def find_in_flight(self, number: int) -> Detailed | None:
        """One of them, by its number."""
        reference = self.watched.get(number)
        found = None if reference is None else reference()
        return found if found is not None and found.v_end is None else None

    def v_ns(self) -> float:
        """Virtual time now, in ns."""
        return self._path.v_ns()

    def row(self, tenant: object) -> Row:
        """The row to count a tenant in. Seldom: the path knows those it has seen."""
        first = False
        with self.file.taking:
            if self._adding:
                return self._nowhere()
            try:
                self._adding = True
                first, self._first = self._first, False
                row = self._found(tenant)
            except Exception:  # noqa: BLE001 - a defect of ours must not cost anybody an answer
                here().say_once("tally", "an error of wattribute's own while counting a request", exc_info=True)
                row = self._nowhere()
            finally:
                self._adding = False
        if first and self._on_first is not None:
            try:
                self._on_first()
            except Exception:  # noqa: BLE001 - as above
                here().say_once("first", "an error of wattribute's own at the first request", exc_info=True)
        return row

    def _found(self, tenant: object) -> Row:
        if not self._by_place:
            self.file.slot()
            self._path.enter(self.file.memory)
        name = "" if tenant is None or tenant == "" else fit(str(tenant))
        place = layout.NOBODY if not name else self.file.tenants.place(name, self._tenants_most)
        certain = place >= 0 or len(self.file.tenants.all()) >= self._tenants_most
        place = place if place >= 0 else layout.OTHER
        row = self._by_place.get(place)
        if row is None:
            names = self.file.tenants.all()
            slot = self.file.slot()
            prefix = f"{self.file.token[:8]}-{slot}.{self.file.generation}"  # that no other worker has
            row = self._by_place[place] = Row(self, names[place], layout.row_at(slot, place), prefix)
        if certain and isinstance(tenant, str) and len(self.rows) < 4 * layout.TENANTS:
            self.rows[tenant] = row
        return row

    def _nowhere(self) -> Row:
        """Where counts go that can't be kept."""
        here().say_once("uncounted", "a request isn't counted: this worker has no place in its account now")
        row = Row(self, "", 0, f"{self.file.token[:8]}-p{os.getpid()}")
        row.over = True
        return row

    def unit(self, row: Row, name: object, amount: object) -> float:
        """Counts units that the path doesn't by itself; how much counted: 0 where they are left out, said once."""
        try:
            number = math.nan if isinstance(amount, str | bytes | bytearray) else float(amount)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001 - the number is the user's, and may be anything
            number = math.nan
        if not 0 <= number <= UNITS_MOST:
            return self._refuse("amount", "%s of unit %s is left out: from 0 to 1e12 can be counted", amount, name)
        cell = row.units.get(name) if isinstance(name, str) else None
        if cell is None:
            try:
                known = fit(str(name))
            except Exception:  # noqa: BLE001 - as above
                known = "unnamed"
            if known == REQUEST:  # an agent refuses the whole report for it
                return self._refuse("request", "%s of unit %s is left out: each request is one by itself", amount, name)
            with self.file.taking:
                if self._adding:
                    return self._refuse("busy", "%s of unit %s is left out: a signal came in between", amount, name)
                try:
                    self._adding = True
                    place = self.file.kinds.place(known, layout.KINDS)
                finally:
                    self._adding = False
            if place < 0:
                return self._refuse("kind", "%s of unit %s is left out: there are 8 kinds already", amount, name)
            cell = row.cell + layout.units_at(place)
            if isinstance(name, str) and len(row.units) < 4 * layout.KINDS:
                row.units[name] = cell
                if cell == row.first_cell:
                    row.first = name
        self._path.count(row, cell, number)
        return number

    def _refuse(self, key: str, text: str, amount: object, name: object) -> float:
        self.refused += 1
        here().say_once(f"units {key}", text, ascii(amount)[:40], ascii(name)[:40])
        return 0.0

    def weight(self, weight: object) -> float:
        """A weight that can be: exact in sums."""
        try:
            number = float(weight)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001 - as in `unit`
            number = math.nan
        if WEIGHT_LEAST <= number <= WEIGHT_MOST and not isinstance(weight, str):
            return round(number * _WEIGHT_STEPS) / _WEIGHT_STEPS
        here().say_once("weight", "a request can't weigh %s: from 0.001 to 1e6 it can; 1 is used", ascii(weight)[:40])
        return 1.0

    def _afresh(self) -> None:
        """Counts from nothing in another slot; what is in flight isn't this process's any more."""
        for row in list(self._by_place.values()):
            row.over = True
        self.rows.clear()
        self._by_place.clear()
        self.watched.clear()
        self.ended.clear()

    def _forked(self) -> None:
        self._afresh()
        self._first = True
        self._adding = False  # a thread of the parent's may have been in there


def _after_fork() -> None:
    for tally in list(_known):
        tally._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


__all__ = ["Begin", "Detailed", "Request", "Tally", "needs_lock"]
