"""Numbers on the command line: exact as they are written, alone or with their bounds; and how they are shown."""

from decimal import ROUND_HALF_EVEN, Context
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from wattribute.agent.core.ranges import Number, Range, exact

if TYPE_CHECKING:  # generic from click 8.4 on, but not before
    FractionType: TypeAlias = click.ParamType[Fraction]
    RangeType: TypeAlias = click.ParamType[Range]
else:
    FractionType = RangeType = click.ParamType


MOST = Fraction(10**30)  # and products of a handful of these are floats still
LONGEST = 60  # so that no difference of two is too small for one either


class Amount(FractionType):
    """An exact number within limits; 168, 0.015, 1.5e6."""

    name = "number"

    def __init__(self, low: Number = 0, high: Number | None = None, *, above: bool = False) -> None:
        """`above`: the lowest value itself isn't allowed."""
        self._low, self._high, self._above = exact(low), None if high is None else exact(high), above

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """The number. Fails as wrong usage, with what is allowed."""
        if isinstance(value, Fraction):
            return value
        if len(str(value)) > LONGEST:
            self.fail(f"{str(value)[:20]}... has more digits than any figure", param, ctx)
        try:
            number = exact(str(value).strip())
        except ValueError:
            self.fail(f"{value!r} isn't a number (write 1234.5: a dot, no thousands separators)", param, ctx)
        if number and not MOST >= abs(number) >= 1 / MOST:
            self.fail(f"{value} is beyond what can be", param, ctx)
        if number < self._low or (self._above and number == self._low):
            self.fail(f"{value} isn't {'above' if self._above else 'at least'} {float(self._low):g}", param, ctx)
        if self._high is not None and number > self._high:
            self.fail(f"{value} is above {float(self._high):g}", param, ctx)
        return number


class Amounts(RangeType):
    """A number, or LOW:CENTRAL:HIGH; each within limits."""

    name = "range"

    def __init__(self, low: Number = 0, high: Number | None = None, *, above: bool = False) -> None:
        self._one = Amount(low, high, above=above)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Range:
        """The range. Fails as wrong usage, with what is allowed."""
        if isinstance(value, Range):
            return value
        parts = [self._one.convert(part, param, ctx) for part in str(value).split(":")]
        if len(parts) not in (1, 3):
            self.fail(f"{value!r} isn't a number or LOW:CENTRAL:HIGH", param, ctx)
        try:
            return Range.of(*parts)
        except ValueError:
            self.fail(f"{value!r}: low, central and high aren't in this order", param, ctx)


def shown(value: Fraction) -> str:
    """A number for people: whole ones in full, others to five digits; thousands apart."""
    if value.denominator == 1 and abs(value) < 10**15:
        return f"{value.numerator:,}"
    decimal = Context(prec=5, rounding=ROUND_HALF_EVEN).divide(value.numerator, value.denominator).normalize()
    if not -5 < decimal.adjusted() < 15:
        return f"{decimal:.4g}"
    return f"{float(value):,.1f}" if abs(value) >= 10_000 else f"{decimal:,f}"


def spread(value: Range) -> str:
    """A range for people: its middle, and its bounds where it has any."""
    middle = shown(value.central)
    return middle if value.low == value.high else f"{middle} ({shown(value.low)} to {shown(value.high)})"


def floats(value: Range) -> dict[str, float]:
    """A range for JSON."""
    return {"low": float(value.low), "central": float(value.central), "high": float(value.high)}
