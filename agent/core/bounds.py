"""A value with the bounds between which it certainly lies: worst-case intervals, so that bounds add."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Bounded:
    """low <= central <= high, integer nanograms CO2e. Raises ValueError where they aren't in that order."""

    low: int
    central: int
    high: int

    def __post_init__(self) -> None:
        if not self.low <= self.central <= self.high:
            raise ValueError(f"bounds out of order: {self.low}, {self.central}, {self.high}")

    @classmethod
    def exactly(cls, mass_ng: int) -> Self:
        """A value about which nothing is uncertain."""
        return cls(mass_ng, mass_ng, mass_ng)

    def __add__(self, other: "Bounded") -> "Bounded":
        return Bounded(self.low + other.low, self.central + other.central, self.high + other.high)

    def part(self, numerator: int, denominator: int) -> "Bounded":
        """A share of it, rounded down throughout, so that parts never add up to more than the whole."""
        return Bounded(*(value * numerator // denominator for value in (self.low, self.central, self.high)))


NOTHING = Bounded(0, 0, 0)
