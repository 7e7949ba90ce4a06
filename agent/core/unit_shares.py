"""Overhead that a product splits by the units that its payers tell of (`tax_by = "units"`), until they have told.

What the payers of a tick owe waits in a window of its product. A window is split when each job that had units in the
one before has told of more, after a minute at the latest, so that a report a moment later isn't one too late; without
any units it is untaxed. Every job by its weight times its micro-units. Nanograms; times in Unix nanoseconds.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from wattribute.agent.core.model import Term
from wattribute.agent.core.products import Product
from wattribute.agent.core.retraining import Closed, split_by
from wattribute.agent.core.units import NS_PER_S

PATIENCE_NS = 60 * NS_PER_S
TERMS: tuple[Term, ...] = ("platform", "overhead_hardware")
"""What is split by units; a product's EPC has a way of its own (`amortise`)."""
STATE = "by_units"
_SET_BACK_NS = NS_PER_S
_Key: TypeAlias = tuple[str, str]  # product and unit: units of another kind aren't added up


@dataclass(slots=True)
class _Window:
    since_unix_ns: int
    expected: list[str] = field(default_factory=list)  # jobs that had units in the window before
    owed_ng: list[int] = field(default_factory=lambda: [0, 0])  # by TERMS
    units: dict[str, int] = field(default_factory=dict)  # job id -> weight times micro-units


class UnitShares:
    """The windows of all products that go by units."""

    def __init__(self) -> None:
        self._windows: dict[_Key, _Window] = {}
        self._written = False

    def weigh(self, product: Product, job_id: str, weight: int, unix_ns: int) -> None:
        """A payer told that it served so much more: its weight times micro-units of the product's unit."""
        if weight > 0:
            units = self._window(product, unix_ns).units
            units[job_id] = units.get(job_id, 0) + weight

    def add(self, product: Product, term: Term, owed_ng: int, unix_ns: int) -> None:
        """What the payers of a tick, which ends at `unix_ns`, owe together of one of TERMS."""
        if owed_ng:
            self._window(product, unix_ns).owed_ng[TERMS.index(term)] += owed_ng

    def settle(self, present: Container[str], unix_ns: int) -> list[Closed]:
        """Split what can be split at a tick's end; `present` are the jobs that may still tell."""
        closed = []
        for key, window in list(self._windows.items()):
            owes = any(window.owed_ng)
            told = all(job_id in window.units or job_id not in present for job_id in window.expected)
            waited_ns = unix_ns - window.since_unix_ns
            if -_SET_BACK_NS <= waited_ns < PATIENCE_NS and not (owes and told and window.units):
                continue
            if owes:
                times, (jsc_ng, hardware_ng) = (window.since_unix_ns, unix_ns), window.owed_ng
                closed.append(split_by(window.units, key[0], *times, (jsc_ng, hardware_ng), TERMS[0], TERMS[0]))
            if window.units:
                self._windows[key] = _Window(unix_ns, list(window.units))
            else:
                del self._windows[key]
        return closed

    def open(self, job_id: str) -> bool:
        """Whether a job has told of units by which something may still be split."""
        return any(job_id in window.units for window in self._windows.values())

    def chunk(self) -> dict[str, Any]:
        """All of it as plain JSON values under a stable name; nothing where nothing waits and nothing did."""
        rows = [
            [*key, window.since_unix_ns, window.expected, window.owed_ng, window.units]
            for key, window in self._windows.items()
        ]
        if not rows and not self._written:
            return {}
        self._written = bool(rows)
        return {STATE: rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take in the last that `chunk` gave; other names are left alone."""
        for product_id, unit, since_unix_ns, expected, owed_ng, units in state.get(STATE, ()):
            window = _Window(since_unix_ns, list(expected), list(owed_ng), dict(units))
            self._windows[product_id, unit] = window
            self._written = True

    def _window(self, product: Product, unix_ns: int) -> _Window:
        key = product.id, product.unit
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(unix_ns)
        return window


def told(state: Mapping[str, Any]) -> set[str]:
    """The jobs that may still be billed by their units, by what `chunk` gave: for who reads it elsewhere."""
    return {job_id for *_, units in state.get(STATE, ()) for job_id in units}
