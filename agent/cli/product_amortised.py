"""Both ways in which a product's EPC can be written off, by time and by the units that it serves, in words and JSON."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattribute.agent.cli.product_records import served_units
from wattribute.agent.cli.product_words import mass, years
from wattribute.agent.core.lineage import Book, Recovery, recovery
from wattribute.agent.core.products import MICRO, Product
from wattribute.agent.core.units import DAY_S, g_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Amortisation:
    """What of a product's EPC is due. `served`: millionths of its unit that its own jobs served, None where nobody
    tells; jobs of other products that use it aren't in them.
    """

    product: Product
    paid: Recovery
    served: int | None = None

    @property
    def due_by_units_ng(self) -> int | None:
        """u_p * EPC * units / expected units, at most all of it; None: not known."""
        expected, stock_ng = self.product.expected_micro_units, self.paid.stock_ng
        if not expected or stock_ng is None or self.served is None or self.product.status == "open":
            return None
        return stock_ng * min(self.served, expected) // expected

    @property
    def expected_ng(self) -> int | None:
        """What should have been recovered by now, by the way that bills; None: not known."""
        return self.due_by_units_ng if self.product.amortise == "units" else self.paid.expected_ng

    @property
    def ahead_ng(self) -> int | None:
        """Recovered less expected: above 0 over-recovered, below under-recovered."""
        return None if self.expected_ng is None else self.paid.recovered_ng - self.expected_ng

    def lines(self) -> list[tuple[str, str]]:
        """In words: by time, and by units where they are declared."""
        product, stock_ng, expected = self.product, self.paid.stock_ng, self.product.expected_micro_units
        lines = [("lifetime", self._life())]
        if not expected:
            return lines
        if product.lifetime_s is not None and stock_ng is not None:
            a_day = f"{mass(stock_ng * DAY_S // product.lifetime_s)} a day"
            lines.append(("by time", self._said("time", a_day, self.paid.expected_ng)))
        price = "price unknown" if stock_ng is None else f"{g_of(stock_ng) * MICRO / expected:.4g} g per {product.unit}"
        counts = [f"{_count(expected)} expected"]
        if self.served is not None:
            counts.append(f"{_count(self.served)} served by its own jobs")
        lines.append(("by units", self._said("units", f"{price}, {', '.join(counts)}", self.due_by_units_ng)))
        return lines

    def document(self) -> dict[str, Any]:
        """As JSON has it; None is not known or not declared."""
        product, stock_ng, expected = self.product, self.paid.stock_ng, self.product.expected_micro_units
        return {
            "in_force": product.amortise,
            "unit": product.unit,
            "expected_units": None if expected is None else expected / MICRO,
            "served_units": None if self.served is None else self.served / MICRO,
            "gco2e_per_unit": g_of(stock_ng) * MICRO / expected if expected and stock_ng is not None else None,
            "due_by_time_gco2e": _g(self.paid.expected_ng),
            "due_by_units_gco2e": _g(self.due_by_units_ng),
        }

    def _said(self, way: str, price: str, due_ng: int | None) -> str:
        due = "" if due_ng is None else f": {mass(due_ng)} due"
        return f"{price}{due}" + (" (what its users pay)" if way == self.product.amortise else " (to compare)")

    def _life(self) -> str:
        product, left_s = self.product, self.paid.left_s
        if product.lifetime_s is None:
            return "none" if product.written_off else "none: its users pay nothing of it"
        return f"{years(product.lifetime_s)}, {'not deployed yet' if left_s is None else f'{years(left_s)} left'}"


def amortisation(found: Book, product_id: str, file: Path | None) -> Amortisation:
    """What of a product's EPC is due now. Raises ConfigError, LedgerError."""
    product = found.products[product_id]
    served = None if product.expected_micro_units is None else served_units(file, product)
    return Amortisation(product=product, paid=recovery(found, product_id, time.time_ns()), served=served)


def _count(micro_units: int) -> str:
    return f"{micro_units / MICRO:,.6g}" if micro_units % MICRO else f"{micro_units // MICRO:,}"


def _g(mass_ng: int | None) -> float | None:
    return None if mass_ng is None else g_of(mass_ng)
