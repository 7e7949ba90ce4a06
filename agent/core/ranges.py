"""Exact numbers with the bounds between which they certainly lie, in any unit; none is negative."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Self, TypeAlias

PLACES = 300  # 1e999999999 is a number that takes a gigabyte

Number: TypeAlias = int | float | str | Decimal | Fraction


def exact(value: Number) -> Fraction:
    """The number as it is written: 0.1 is a tenth. Raises ValueError where it is none, or beyond 1e300."""
    if isinstance(value, Fraction):
        return value
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"not a number: {value!r}") from None
    if not number.is_finite():
        raise ValueError(f"not a finite number: {value!r}")
    if abs(number.adjusted()) > PLACES:
        raise ValueError(f"not a number of this world: {value!r}")
    return Fraction(number)


@dataclass(frozen=True, slots=True)
class Range:
    """0 <= low <= central <= high. Raises ValueError where they aren't in that order.

    Sums and products are worst-case intervals: two ranges are taken as independent, so none comes out too narrow.
    """

    low: Fraction
    central: Fraction
    high: Fraction

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.central <= self.high:
            raise ValueError(f"not 0 <= low <= central <= high: {self}")

    @classmethod
    def of(cls, low: Number, central: Number | None = None, high: Number | None = None) -> Self:
        """One exact number, or low, central and high."""
        first = exact(low)
        middle = first if central is None else exact(central)
        return cls(first, middle, middle if high is None else exact(high))

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.central + other.central, self.high + other.high)

    def __mul__(self, other: "Range | Fraction | int") -> "Range":
        by = other if isinstance(other, Range) else Range.of(other)
        return Range(self.low * by.low, self.central * by.central, self.high * by.high)

    def __truediv__(self, other: "Range | Fraction | int") -> "Range":
        by = other if isinstance(other, Range) else Range.of(other)
        if by.low == 0:
            raise ValueError("divided by what may be 0")
        return Range(self.low / by.high, self.central / by.central, self.high / by.low)

    def __str__(self) -> str:
        values = (self.low, self.central, self.high)
        return f"{float(self.low):g}" if self.low == self.high else ":".join(f"{float(value):g}" for value in values)


NIL = Range.of(0)
