"""A request as its server holds it. What it can do while it is in flight is in tally.py, which makes them."""

import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from wattribute.agent.meter import layout
from wattribute.agent.process import here

if TYPE_CHECKING:
    from wattribute.agent.meter.receipts import RequestReceipt
    from wattribute.agent.meter.tally import Tally

_naming = threading.Lock()
_NONE_YET = object()  # no name that a user may have for a kind of units


class Ended:
    """In place of its row, what an ended request has."""

    __slots__ = ("name", "over", "prefix", "tally")

    def __init__(self, tally: "Tally", name: str, prefix: str) -> None:
        self.tally = tally
        self.name = name
        self.prefix = prefix
        self.over = True


class Row:
    """What one tenant has in one worker: the weight in flight `w`, and sums of which its part of the time is made.

    In seconds, with virtual time V and time t: S = w V - c is its part of the busy time, A = w t - b its weight * time
    in flight. `wide` are the detailed requests in flight, `off` and `cell` where it stands in memory. Units of the
    account's `first` kind are `counted` here, the others in memory alone. Names of its requests begin with `prefix`. It
    is `over` when it isn't this process's any more.
    """

    __slots__ = (
        "aborted",
        "b",
        "c",
        "cell",
        "counted",
        "done",
        "first",
        "first_cell",
        "n",
        "name",
        "off",
        "over",
        "prefix",
        "tally",
        "units",
        "w",
        "wide",
        "wide_w",
    )

    def __init__(self, tally: "Tally", name: str, off: int, prefix: str) -> None:
        self.tally = tally
        self.name = name
        self.prefix = prefix
        self.off = off
        self.cell = off // 8
        self.w = self.c = self.b = self.aborted = self.wide = self.wide_w = self.counted = 0.0
        self.n = 0
        self.units: dict[str, int] = {}
        self.first: Any = _NONE_YET
        self.first_cell = self.cell + layout.FIRST_UNITS
        self.over = False
        self.done: Any = Ended(tally, name, prefix)  # typed as a row: who has it asks `over` first


class Request:
    """One request: `end` it once, or use it in a `with`, where an exception ends it as aborted and passes on.

    One that is dropped without an end counts as aborted; one of a parent process is the parent's: its end does nothing.
    """

    __slots__ = ("_row", "number")

    _row: Row
    number: int

    def end(self, units: Mapping[str, float] | None = None, aborted: bool = False) -> None:
        """It is answered, with so much served, or (`aborted`) won't be. The first call counts. Raises nothing."""
        here().say_once("ended twice", "a request was ended twice: the first time counts")

    def add(self, units: Mapping[str, float] | None = None, /, **more: float) -> None:
        """So much was served while it is in flight: counted at once. Raises nothing."""
        here().say_once("late units", "units of a request that has ended don't count")

    @property
    def tenant(self) -> str:
        """On whose behalf; "" for nobody in particular, `_other` for those past the limit."""
        return self._row.name

    @property
    def id(self) -> str:
        """A name of its own: the account's, the worker's, a running number."""
        if not hasattr(self, "number"):
            with _naming:
                if not hasattr(self, "number"):
                    self.number = next(self._row.tally.numbers)
        return f"{self._row.prefix}-{self.number}"

    @property
    def receipt(self) -> "RequestReceipt | None":
        """What it took: of one that has ended, waits until that is settled, two intervals and 5 s at most. None for a
        request without a receipt.
        """
        receipt_of = self._row.tally.receipt_of
        return None if receipt_of is None else receipt_of(self)

    def __repr__(self) -> str:
        tenant = f" of tenant {self.tenant!r}" if self.tenant else ""
        return f"<wattribute request {self.id!r}{tenant}, {'ended' if self._row.over else 'in flight'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.end()
        else:
            self.end(None, True)


class Detailed(Request):
    """One of a weight, with units known before, or with a receipt (`wanted`); virtual time in ns."""

    __slots__ = (
        "__weakref__",
        "aborted",
        "began_unix_ns",
        "ended_unix_ns",
        "planned",
        "units",
        "v_begin",
        "v_end",
        "wanted",
        "weight",
    )

    weight: float
    planned: Mapping[str, float] | None
    wanted: bool
    aborted: bool
    began_unix_ns: int
    ended_unix_ns: int | None
    units: dict[str, float]
    v_begin: float
    v_end: float | None


def _after_fork() -> None:
    global _naming
    _naming = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


__all__ = ["Detailed", "Request", "Row"]
