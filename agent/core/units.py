"""Exact integer conversions; the only place where 3_600_000 stands.

Inside, energy is integer microjoules, mass integer nanograms, time integer nanoseconds. A rate (a price) is an
integer numerator over a fixed denominator, so that what accrues is exact to a nanogram over any run.
"""

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

NS_PER_S = 1_000_000_000
UJ_PER_J = 1_000_000
J_PER_KWH = 3_600_000
UJ_PER_KWH = J_PER_KWH * UJ_PER_J
NG_PER_G = 1_000_000_000
DAY_S = 86_400
YEAR_S = 365 * DAY_S  # formulas: a year is 365 days

PRICE_SCALE = 1_000_000_000
"""Carbon intensity is held as integer nanograms CO2e per kWh: g/kWh * 1e9."""

RATE_SCALE = 1_000_000_000
"""Mass rates are held as integer nanograms per 1e9 s; `rate * ns / RATE_DENOMINATOR` is nanograms."""

RATE_DENOMINATOR = RATE_SCALE * NS_PER_S


def _scaled(value: float | int | str | Fraction, scale: int) -> int:
    if isinstance(value, Fraction):
        return round(value * scale)
    # str() first: 0.1 is meant as a tenth, not as the binary fraction nearest to it.
    return int((Decimal(str(value)) * scale).to_integral_value(rounding=ROUND_HALF_EVEN))


def uj_from_j(energy_j: float | str) -> int:
    """Joules to integer microjoules (half-even)."""
    return _scaled(energy_j, UJ_PER_J)


def uw_from_w(power_w: float | str) -> int:
    """Watts to integer microwatts (half-even)."""
    return _scaled(power_w, UJ_PER_J)


def ng_from_g(mass_g: float | str) -> int:
    """Grams to integer nanograms (half-even)."""
    return _scaled(mass_g, NG_PER_G)


def ng_from_kg(mass_kg: float | str) -> int:
    """Kilograms to integer nanograms (half-even)."""
    return _scaled(mass_kg, NG_PER_G * 1000)


def ng_per_kwh(intensity_g_per_kwh: float | str | Fraction) -> int:
    """Carbon intensity in g/kWh to integer ng/kWh: the price that `ng_of_energy` takes."""
    return _scaled(intensity_g_per_kwh, PRICE_SCALE)


def rate_from_g_per_min(rate_g_per_min: float | str) -> int:
    """Grams per minute to integer nanograms per 1e9 s."""
    return round(Fraction(Decimal(str(rate_g_per_min))) * NG_PER_G * RATE_SCALE / 60)


def energy_over(power_uw: int, duration_ns: int) -> int:
    """Microjoules that a constant power yields over a time, rounded down."""
    return power_uw * duration_ns // NS_PER_S


def j_of(energy_uj: int) -> float:
    """Microjoules to joules."""
    return energy_uj / UJ_PER_J


def g_of(mass_ng: int) -> float:
    """Nanograms to grams."""
    return mass_ng / NG_PER_G
