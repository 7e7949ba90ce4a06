"""Exact numbers as text: integer nanograms and microjoules become decimals, never floats.

Grams, kilograms and tonnes of nanograms are exact. A kilowatt-hour is 3.6e12 uJ, whose reciprocal has no end in
decimals: kWh are rounded half-even to 1e-15 kWh, fine enough to get every microjoule back.
"""

import json
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from typing import Any

from wattribute.agent.core.units import UJ_PER_KWH

_KWH_DIGITS = 15
_WIDE = Context(prec=60)  # the default of 28 digits would round a large sum
_MASSES = (("Gt", 24), ("Mt", 21), ("kt", 18), ("t", 15), ("kg", 12), ("g", 9), ("mg", 6), ("µg", 3), ("ng", 0))
_ENERGIES = (("TJ", 18), ("GJ", 15), ("MJ", 12), ("kJ", 9), ("J", 6), ("mJ", 3), ("µJ", 0))

# A thousandth of the least unit for a mean, which may be far below it.
_MEAN_MASSES = (*((unit, digits + 3) for unit, digits in _MASSES), ("pg", 0))
_MEAN_ENERGIES = (*((unit, digits + 3) for unit, digits in _ENERGIES), ("nJ", 0))


def grams(mass_ng: int) -> Decimal:
    """Nanograms to grams, exact."""
    return _shifted(mass_ng, 9)


def kilograms(mass_ng: int) -> Decimal:
    """Nanograms to kilograms, exact."""
    return _shifted(mass_ng, 12)


def tonnes(mass_ng: int) -> Decimal:
    """Nanograms to tonnes, exact."""
    return _shifted(mass_ng, 15)


def joules(energy_uj: int) -> Decimal:
    """Microjoules to joules, exact."""
    return _shifted(energy_uj, 6)


def counted(micro: int) -> Decimal:
    """Millionths of a unit to units, exact."""
    return _shifted(micro, 6)


def seconds(duration_ns: int) -> Decimal:
    """Nanoseconds to seconds, exact."""
    return _shifted(duration_ns, 9)


def kwh(energy_uj: int) -> Decimal:
    """Microjoules to kilowatt-hours, to 1e-15 kWh (3.6 nJ)."""
    return decimal_of(Fraction(energy_uj, UJ_PER_KWH), _KWH_DIGITS)


def decimal_of(value: Fraction, digits: int) -> Decimal:
    """A fraction rounded half-even to `digits` behind the point."""
    return _shifted(round(value * 10**digits), digits)


def rounded(value: Fraction, figures: int) -> Decimal:
    """A fraction rounded half-even to significant `figures`."""
    with localcontext(Context(prec=figures)):
        return Decimal(value.numerator) / Decimal(value.denominator)


def plain(value: Decimal | int) -> str:
    """All digits of a number, without an exponent and without zeros at its end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def mass(mass_ng: int) -> str:
    """Nanograms for a reader: four figures and the unit that fits, as in `1.234 kg`."""
    return _scaled(mass_ng, _MASSES)


def energy(energy_uj: int) -> str:
    """Microjoules for a reader: four figures and the unit that fits, as in `1.234 MJ`."""
    return _scaled(energy_uj, _ENERGIES)


def mean_mass(mass_ng: int, count: Fraction) -> str:
    """Nanograms for each of `count`, for a reader; nothing where there are none."""
    return _scaled(round(mass_ng * 1000 / count), _MEAN_MASSES) if count else ""


def mean_energy(energy_uj: int, count: Fraction) -> str:
    """Microjoules for each of `count`, for a reader; nothing where there are none."""
    return _scaled(round(energy_uj * 1000 / count), _MEAN_ENERGIES) if count else ""


def percent(part: int, whole: int) -> str:
    """A share for a reader: `12.3 %`, `<0.1 %`; nothing of nothing has none."""
    if not whole:
        return ""
    share = decimal_of(Fraction(100 * part, whole), 1)
    return f"{plain(share)} %" if share or not part else "<0.1 %"


def json_text(value: Any, indent: int = 2) -> str:
    """JSON in which a Decimal is a number with all its digits (the standard library's writer takes floats alone)."""
    return _json(value, " " * indent, "\n") + "\n"


def _json(value: Any, step: str, line: str) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, float):
        raise TypeError(f"a float in a report: {value!r}")
    if isinstance(value, dict):
        pairs = [
            f"{json.dumps(str(key), ensure_ascii=False)}: {_json(one, step, line + step)}" for key, one in value.items()
        ]
        return _wrapped("{", pairs, "}", step, line)
    if isinstance(value, list | tuple):
        return _wrapped("[", [_json(one, step, line + step) for one in value], "]", step, line)
    return json.dumps(value, ensure_ascii=False)


def _wrapped(start: str, parts: list[str], end: str, step: str, line: str) -> str:
    return start + ",".join(f"{line}{step}{part}" for part in parts) + line + end if parts else start + end


def _shifted(value: int, digits: int) -> Decimal:
    return Decimal(value).scaleb(-digits, _WIDE)


def _scaled(value: int, units: tuple[tuple[str, int], ...]) -> str:
    if not value:
        return "0 " + next(unit for unit, _ in units if unit in {"g", "J"})
    unit, digits = next(((unit, digits) for unit, digits in units if abs(value) >= 10**digits), units[-1])
    return f"{plain(Decimal(f'{_shifted(value, digits):.4g}'))} {unit}"


__all__ = [
    "counted",
    "decimal_of",
    "energy",
    "grams",
    "joules",
    "json_text",
    "kilograms",
    "kwh",
    "mass",
    "mean_energy",
    "mean_mass",
    "percent",
    "plain",
    "rounded",
    "seconds",
    "tonnes",
]
