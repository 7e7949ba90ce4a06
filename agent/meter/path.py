"""What begin and end of a request do, and no more: see tally.py for why it is written so.

Between the clock and the call that writes the row nothing may be called, looped over or made that the garbage
collector tracks: that is what makes these lines one step for other threads, signals and finalizers.
"""

import functools
import struct
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from wattribute.agent.meter.layout import ABORTED, WIDE, WORD
from wattribute.agent.meter.memory import Memory
from wattribute.agent.meter.request import Detailed, Request, Row

if TYPE_CHECKING:
    from wattribute.agent.meter.tally import Tally

UNITS_MOST = 1e12
_NS = 1e9
_F = TypeVar("_F", bound=Callable[..., Any])


class Begin(Protocol):
    """A request begins now, with a receipt if it is asked for."""

    def __call__(self, tenant: str = "", weight: float = 1, receipt: bool | None = None) -> Request: ...


class Requests(Protocol):
    """A request for a `with`, begun now; `units` are served if it ends well."""

    def __call__(
        self, units: Mapping[str, float] | None = None, tenant: str = "", weight: float = 1, receipt: bool | None = None
    ) -> Request: ...


class Locked(Protocol):
    """A decorator of what must not run twice at once."""

    def __call__(self, function: _F, /) -> _F: ...


class Path:
    """The functions of one tally, over variables of their own. `enter` says in which memory, and begins at nothing."""

    begin: Begin
    request: Requests
    count: Callable[[Row, int, float], None]
    enter: Callable[[Memory], None]
    v_ns: Callable[[], float]

    def __init__(self, tally: "Tally", clock: Callable[[], int], locked: bool) -> None:
        seconds = time.monotonic if clock is time.monotonic_ns else lambda: clock() / _NS
        _path(self, tally, seconds, _one_at_a_time() if locked else _as_it_is)


def _as_it_is(function: _F) -> _F:
    return function


def _one_at_a_time() -> Locked:
    """A decorator of functions of which one runs at a time. A finalizer may come while its own thread is in one."""
    lock = threading.RLock()

    def locked(function: _F) -> _F:
        @functools.wraps(function)
        def alone(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return function(*args, **kwargs)

        return alone  # type: ignore[return-value]

    return locked


def _path(path: Path, tally: "Tally", clock: Callable[[], float], locked: Locked) -> None:
    at = virtual = weights = 0.0
    rows, row_of, unit_of, weight_of = tally.rows, tally.row, tally.unit, tally.weight
    ended, watched, numbers = tally.ended, tally.watched, tally.numbers
    time_ns, ref = time.time_ns, weakref.ref
    memory: Any = None
    floats: Any = None
    write = struct.Struct("qddddddd").pack_into
    write_begun = struct.Struct("dddddd").pack_into

    def add(row: Row, units: Mapping[str, float], kept: dict[str, float] | None) -> None:
        """Counts units; into `kept` too, if there is one."""
        try:
            for name in units:
                counted = unit_of(row, name, units[name])
                if kept is not None and counted:
                    kept[name] = kept.get(name, 0.0) + counted
        except Exception:  # noqa: BLE001 - what a user gives for a mapping
            unit_of(row, "units", None)

    def dropped(request: Request) -> None:
        """The end of one that nobody can end any more."""
        if hasattr(request, "_row"):  # else an exception came before it began
            try:
                request.end(None, True)
            except BaseException:  # of a signal's handler: it would be lost here anyhow, the request mustn't be
                request.end(None, True)
                raise

    class Open(Request):
        """In flight, of weight 1 and without a receipt."""

        __slots__ = ()

        @locked
        def end(
            self, units: Mapping[str, float] | None = None, aborted: bool = False, _trace: TracebackType | None = None
        ) -> None:
            nonlocal at, virtual, weights
            if units is not None:
                row = self._row
                if row.over:
                    return
                try:
                    if len(units) == 1 and row.first in units:  # most often it is one kind, the same each time
                        amount = units[row.first] + 0.0  # what code a number of its own may have runs here
                        if amount >= 0.0 and amount <= 1e12:  # UNITS_MOST
                            row.counted = row.counted + amount
                            units = None
                except Exception:  # noqa: BLE001 - no number, or no mapping
                    if isinstance(units, type):  # an exception's class: see __exit__
                        units, aborted = None, True
                if units is not None:
                    try:
                        for name in units:
                            try:
                                amount = units[name] + 0.0
                                if amount >= 0.0 and amount <= 1e12:
                                    cell = row.units[name]
                                    if cell == row.first_cell:
                                        row.counted = row.counted + amount
                                    else:
                                        floats[cell] = floats[cell] + amount
                                else:
                                    unit_of(row, name, amount)
                            except Exception:  # noqa: BLE001 - a kind not seen before, or no number
                                unit_of(row, name, units[name])
                    except Exception:  # noqa: BLE001 - what a user gives for a mapping
                        unit_of(row, "units", None)
            now = clock()
            row = self._row
            if row.over:
                return
            if now > at:
                virtual += (now - at) / weights
                at = now
            w = row.w = row.w - 1.0
            c = row.c = row.c - virtual
            b = row.b = row.b - at
            weights -= 1.0
            self._row = row.done
            if aborted:
                n = row.n
                floats[row.cell + ABORTED] = row.aborted = row.aborted + 1.0
            else:
                n = row.n = row.n + 1
            write(memory, row.off, n, at, virtual, w, c, b, at, row.counted)
            self.__class__ = Request  # type: ignore[assignment]  # without a finalizer it is freed sooner

        # The same, called by a `with`: a call of another function would cost a twentieth of a request.
        __exit__ = end  # type: ignore[assignment]

        @locked
        def add(self, units: Mapping[str, float] | None = None, /, **more: float) -> None:
            row = self._row
            if not row.over:
                if units is not None:
                    add(row, units, None)
                add(row, more, None)

        def __del__(self) -> None:
            dropped(self)

    class OpenDetailed(Detailed):
        """In flight."""

        __slots__ = ()

        @locked
        def end(self, units: Mapping[str, float] | None = None, aborted: bool = False) -> None:
            nonlocal at, virtual, weights
            row = self._row
            if row.over:
                return
            if units is not None:
                add(row, units, self.units)
            weight = self.weight
            now = clock()
            row = self._row
            if row.over:
                return
            if now > at:
                virtual += (now - at) / weights
                at = now
            w = row.w = row.w - weight
            c = row.c = row.c - weight * virtual
            b = row.b = row.b - weight * at
            weights -= weight
            v = virtual
            self._row = row.done
            floats[row.cell + WIDE] = row.wide = row.wide - 1.0
            floats[row.cell + WIDE + 1] = row.wide_w = row.wide_w - weight
            if aborted:
                floats[row.cell + ABORTED] = row.aborted = row.aborted + 1.0
            else:
                row.n += 1
            write(memory, row.off, row.n, at, virtual, w, c, b, at, row.counted)
            self.aborted = aborted
            if self.wanted:
                self.v_end, self.ended_unix_ns = v * _NS, time_ns()
                watched.pop(self.number, None)
                ended.append(self)
            self.__class__ = Detailed  # type: ignore[assignment]

        @locked
        def add(self, units: Mapping[str, float] | None = None, /, **more: float) -> None:
            row = self._row
            if not row.over:
                if units is not None:
                    add(row, units, self.units)
                add(row, more, self.units)

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            if kind is None:
                self.end(self.planned)
            else:
                self.end(None, True)

        def __del__(self) -> None:
            dropped(self)

    @locked
    def begin(tenant: str = "", weight: float = 1, receipt: bool | None = None) -> Request:
        """Begins a request of a tenant ("": nobody in particular), to be ended with `end`. Raises nothing."""
        nonlocal at, virtual, weights
        try:
            if receipt or weight != 1:
                return begin_detailed(tenant, weight, None, bool(receipt))
            row = rows[tenant]
        except Exception:  # noqa: BLE001 - a tenant not seen before, or whatever a user gives
            return begin_detailed(tenant, weight, None, receipt is True)
        request = Open()
        now = clock()
        if now > at:
            if weights:
                virtual += (now - at) / weights
            at = now
        request._row = row
        w = row.w = row.w + 1.0
        c = row.c = row.c + virtual
        b = row.b = row.b + at
        weights += 1.0
        write_begun(memory, row.off + WORD, at, virtual, w, c, b, at)
        return request

    @locked
    def begin_detailed(
        tenant: object, weight: object, units: Mapping[str, float] | None = None, receipt: bool = False
    ) -> Detailed:
        nonlocal at, virtual, weights
        try:
            exact = 1.0 if weight == 1 else weight_of(weight)
        except Exception:  # noqa: BLE001 - of a comparison of the user's own
            exact = weight_of(weight)
        try:
            row = rows[tenant]
        except Exception:  # noqa: BLE001 - as in begin
            row = row_of(tenant)
        request = OpenDetailed()
        request.weight = exact
        request.planned, request.wanted, request.units = units, receipt, {}
        request.v_begin, request.v_end, request.aborted = 0.0, None, False
        request.began_unix_ns, request.ended_unix_ns = 0, None
        if receipt:
            request.number, request.began_unix_ns = next(numbers), time_ns()
        now = clock()
        request._row = row
        if row.over:
            return request
        if now > at:
            if weights:
                virtual += (now - at) / weights
            at = now
        w = row.w = row.w + exact
        c = row.c = row.c + exact * virtual
        b = row.b = row.b + exact * at
        weights += exact
        request.v_begin = virtual * _NS
        floats[row.cell + WIDE] = row.wide = row.wide + 1.0
        floats[row.cell + WIDE + 1] = row.wide_w = row.wide_w + exact
        write_begun(memory, row.off + WORD, at, virtual, w, c, b, at)
        if receipt:
            watched[request.number] = ref(request)
        return request

    def request(
        units: Mapping[str, float] | None = None, tenant: str = "", weight: float = 1, receipt: bool | None = None
    ) -> Request:
        if units is None and not receipt:
            return begin(tenant, weight)
        return begin_detailed(tenant, weight, units, bool(receipt))

    def count(row: Row, cell: int, amount: float) -> None:
        if cell == row.first_cell:
            row.counted = counted = row.counted + amount
            floats[cell] = counted
        else:
            floats[cell] = floats[cell] + amount

    def v_ns() -> float:
        now = clock()
        return (virtual + ((now - at) / weights if weights and now > at else 0.0)) * _NS

    def enter(entered: Memory) -> None:
        nonlocal at, virtual, weights, memory, floats
        memory, floats = entered.buffer, memoryview(entered.buffer).cast("d")
        at = virtual = weights = 0.0

    path.begin, path.request = begin, request
    path.count, path.enter, path.v_ns = locked(count), locked(enter), locked(v_ns)


__all__ = ["Begin", "Path", "Requests"]
