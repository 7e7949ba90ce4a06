"""Settles what was booked at a carbon intensity that wasn't final yet: by corrections, never by edits.

Closed windows are gone through in the order of their chain, each once: as soon as every period that one overlaps has
its final value, the difference between what its energy costs and what was booked is a correction. Nanograms. Within a
window energy counts as used evenly. A platform that is metered here was booked at the same price, so the tax that a
window paid for it is corrected in proportion; other taxes are left as they were booked.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from wattribute.agent.core.accounting import Price
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.units import UJ_PER_KWH
from wattribute.agent.grid_followed import HORIZON_NS
from wattribute.agent.ledger.batch import Correction
from wattribute.agent.ledger.reader import Reader, read_only
from wattribute.agent.ledger.schema import NODE_KEY, WindowRow
from wattribute.collectors.grid.feed import HOUR_NS

log = logging.getLogger("wattribute")

MeteredHere = Callable[[str], bool]
"""Whether all that a product bills for its platform is what its jobs on this node cost."""

FinalPrice = Callable[[int, int], Price | None]
"""What energy cost from one moment (Unix ns) to another, once that is final; None until then."""

_TAX = "tax.platform."
EVERY_S = 60.0
BEHIND_S = 1.0
"""How often there is a pass, and how often while there is more than one pass takes: thousands of jobs close at once."""
ROWS = 2000
GIVEN_UP_NS = HORIZON_NS - 4 * HOUR_NS
"""A provider that never tells the final value isn't waited for any longer: the row stays as it was booked. The rows
behind it have as much time left."""


class Settled(NamedTuple):
    """Corrections, and up to where all is settled: a position in the chain of windows, and that window's end."""

    corrections: list[Correction]
    position: int
    until_unix_ns: int


class ClosedWindow(NamedTuple):
    """One window of a job, or what nobody paid of the node's: energy, and what was booked for it."""

    position: int
    job_id: str
    product_id: str
    start_unix_ns: int
    end_unix_ns: int
    energy_uj: int
    booked: Price  # in nanograms here
    provisional: bool
    quality: str
    platform_ng: Mapping[str, int] = {}  # by product, what was paid for its platform


def closed_windows(rows: Iterable[tuple[int, WindowRow]]) -> Iterator[ClosedWindow]:
    """Put a window's rows together again: the one with domain "" comes last, and says whose it is."""
    energy_uj, key = 0, ("", 0)
    for position, row in rows:
        if (row.job_id, row.window_start_unix_ns) != key:
            energy_uj, key = 0, (row.job_id, row.window_start_unix_ns)
        amounts: dict[str, int] = json.loads(row.content)
        prefix = "unattributed." if row.job_id == NODE_KEY else ""
        if row.domain:
            energy_uj += sum(amount for name, amount in amounts.items() if name.startswith(prefix))
            continue
        said = json.loads(row.prices) if row.prices else {}
        yield ClosedWindow(
            position,
            row.job_id,
            said.get("product_id", ""),
            row.window_start_unix_ns,
            row.window_end_unix_ns,
            energy_uj,
            Price(_booked(amounts, prefix, "operation"), _booked(amounts, prefix, "cooling")),
            said.get("final") is False,
            str(said.get("quality", "")),
            {name.removeprefix(_TAX): ng for name, ng in amounts.items() if name.startswith(_TAX)},
        )


def _booked(amounts: dict[str, int], prefix: str, term: str) -> int:
    if not prefix:
        return amounts.get(term, 0)
    return sum(ng for name, ng in amounts.items() if name.startswith(prefix) and name.endswith(f".{term}"))


def settle(
    windows: Iterable[ClosedWindow],
    final_price: FinalPrice,
    now_unix_ns: int,
    after: int,
    since_unix_ns: int = 0,
    metered_here: MeteredHere = lambda product_id: False,
) -> Settled:
    """Correct what can be corrected now; stops at the first window whose final price isn't known yet.

    What began before `since_unix_ns` was another source's: its final price never comes.
    """
    corrections: list[Correction] = []
    position, until_unix_ns = after, 0
    for window in windows:
        if window.provisional:
            price = final_price(window.start_unix_ns, window.end_unix_ns)
            awaited = window.start_unix_ns >= since_unix_ns and now_unix_ns - window.end_unix_ns < GIVEN_UP_NS
            if price is None and awaited:
                break
            if price is not None:
                corrections += _corrections(window, price, metered_here)
        position, until_unix_ns = window.position, max(until_unix_ns, window.end_unix_ns)
    return Settled(corrections, position, until_unix_ns)


def _corrections(window: ClosedWindow, price: Price, metered_here: MeteredHere) -> Iterator[Correction]:
    detail = f"{window.quality} value settled: {price.operation} ng/kWh"

    def by(product_id: str, term: str, delta_ng: int) -> Iterator[Correction]:
        if abs(delta_ng) > 1:  # a nanogram is what a carried remainder can make
            times = window.start_unix_ns, window.end_unix_ns
            yield Correction(window.job_id, product_id, term, "intensity", *times, delta_ng, detail)

    booked_ng = window.booked.operation + window.booked.cooling
    due = window.energy_uj * (price.operation + price.cooling)
    for term, per_kwh, was_ng in (
        ("operation", price.operation, window.booked.operation),
        ("cooling", price.cooling, window.booked.cooling),
    ):
        yield from by(window.product_id, term, window.energy_uj * per_kwh // UJ_PER_KWH - was_ng)
    for product_id, paid_ng in window.platform_ng.items():
        if booked_ng and metered_here(product_id):
            yield from by(product_id, "platform", paid_ng * due // (booked_ng * UJ_PER_KWH) - paid_ng)


class Settlement:
    """Goes through the ledger beside the agent, in a thread of its own, from where the last run ended."""

    waits_ns = GIVEN_UP_NS

    def __init__(
        self,
        state_dir: Path,
        final_price: FinalPrice,
        clock_unix_ns: Callable[[], int],
        after: int,
        since_unix_ns: int = 0,
        metered_here: MeteredHere = lambda product_id: False,
    ) -> None:
        self._state_dir = state_dir
        self._final_price = final_price
        self._clock_unix_ns = clock_unix_ns
        self._position = after
        self._since_unix_ns = since_unix_ns
        self._metered_here = metered_here
        self._ready: Settled | None = None
        self._reader: Reader | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wattribute-settlement", daemon=True)

    def start(self) -> None:
        """Begin; nothing is read before."""
        self._thread.start()

    def take(self) -> Settled | None:
        """What was settled since the last call: the caller writes corrections and position in one batch."""
        ready, self._ready = self._ready, None
        return ready

    def look(self) -> bool:
        """One pass over what is new: at most ROWS rows; True where there is more. Raises LedgerError."""
        if self._ready is not None:
            return True
        if self._reader is None:
            self._reader = read_only(self._state_dir)
        rows = [
            (position, row)
            for position, row, _ in self._reader.chain("windows", self._position, ROWS)
            if isinstance(row, WindowRow)
        ]
        found = settle(
            closed_windows(rows),
            self._final_price,
            self._clock_unix_ns(),
            self._position,
            self._since_unix_ns,
            self._metered_here,
        )
        if found.position <= self._position:
            return False
        self._position = found.position
        self._ready = found
        return len(rows) == ROWS

    def close(self) -> None:
        """End the thread; may be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        if self._reader is not None:
            self._reader.close()

    def _run(self) -> None:
        behind = False
        while not self._stop.wait(BEHIND_S if behind else EVERY_S):
            try:
                behind = self.look()
            except LedgerError as error:
                behind = False
                log.warning("carbon intensity can't be settled: %s", error)
