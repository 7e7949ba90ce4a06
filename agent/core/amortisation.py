"""How a product's EPC is written off: by time, or by the units that it served; one bills, the other is to compare.

By units: u_p * EPC * units / expected_units, and never more than the stock u_p * EPC. Where the stock or what is
expected changes, what was recovered stays, and the rest falls on the units that are still expected.
Source: formulas.md, "Embodied" (product tax). Nanograms, and millionths of a unit.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from wattribute.agent.core.products import MICRO, Product


class Amortised:
    """What of one product's EPC is due on this node so far, by either way."""

    def __init__(self) -> None:
        self.time_ng = self.units_ng = 0
        self._billed_ng = 0  # by units, while that was the way in force
        self._served = 0
        self._stock_ng: int | None = None
        self._terms: tuple[int, int, bool] | None = None  # the stock, units expected in all, whether they bill
        self._since = 0, 0  # what was served and recovered when these terms came
        self._ways: tuple[str, ...] = ()

    def declare(self, product: Product, stock_ng: int | None, booked_ng: int) -> None:
        """The product as it is from now on. `stock_ng`: what its own users recover of its EPC, None where that isn't
        known; `booked_ng`: what was billed and untaxed of it.
        """
        self._stock_ng = stock_ng = stock_ng if product.status == "frozen" else None
        expected, bills = product.expected_micro_units, product.amortise == "units"
        terms = None if stock_ng is None or not expected else (stock_ng, expected, bills)
        if terms != self._terms:
            self._terms = terms
            self._since = self._served, booked_ng if bills else self.units_ng
        by_time = stock_ng is not None and bool(product.lifetime_s)
        self._ways = ("time",) * by_time + ("units",) * (terms is not None)

    def serve(self, micro_units: int) -> int:
        """So much was served; what is to be billed for it, ng: nothing where time is what bills."""
        if self._terms is None:
            return 0
        before_ng = self._recovered(self._served)
        self._served += micro_units
        due_ng = self._recovered(self._served) - before_ng
        self.units_ng += due_ng
        if not self._terms[2]:
            return 0
        self._billed_ng += due_ng
        return due_ng

    def price(self) -> Fraction | None:
        """Nanograms per unit by units, whichever way bills; 0 once all is recovered, None where it can't be told."""
        if self._terms is None:
            return None
        left_ng, left = self._left()
        return Fraction(left_ng * MICRO, left) if self._served - self._since[0] < left else Fraction(0)

    def room_ng(self, booked_ng: int) -> int | None:
        """How much time may still recover where units have recovered a part already; None: no such bound."""
        return max(0, (self._stock_ng or 0) - booked_ng) if self._billed_ng else None

    def due_ng(self) -> dict[str, int]:
        """What is due so far by each way that can be reckoned, `time` and `units`."""
        due_ng = {"time": self.time_ng, "units": self.units_ng}
        return {way: ng for way, ng in due_ng.items() if ng or way in self._ways}

    def save(self) -> list[Any]:
        """What must survive a restart, as plain JSON values."""
        return [self.time_ng, self.units_ng, self._billed_ng, self._served, self._terms, self._since]

    def restore(self, saved: Sequence[Any]) -> None:
        """Go on from what `save` gave; `declare` comes after it."""
        self.time_ng, self.units_ng, self._billed_ng, self._served, terms, since = saved
        self._terms = None if terms is None else (terms[0], terms[1], terms[2])
        self._since = since[0], since[1]

    def _left(self) -> tuple[int, int]:
        """Of the stock and of the units expected, what was left when the present terms came."""
        assert self._terms is not None
        (stock_ng, expected, _), (served, recovered_ng) = self._terms, self._since
        return max(0, stock_ng - recovered_ng), max(0, expected - served)

    def _recovered(self, served: int) -> int:
        left_ng, left = self._left()
        return left_ng * min(served - self._since[0], left) // left if left else 0
