"""A product's metered requests, and both ways to write its EPC off, as plain values: exact, in units, J and g CO2e."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

from wattribute.agent.core.model import TERMS
from wattribute.agent.core.served_record import Billed, ServedRecord
from wattribute.agent.core.units import NG_PER_G, UJ_PER_J
from wattribute.exporters.report.exact import counted, grams, joules, rounded
from wattribute.exporters.report.requests import per_unit
from wattribute.exporters.report.sheet import SUMS, Amortised

FIGURES = 15


def served_dict(served: ServedRecord | None) -> dict[str, Any] | None:
    """The requests of a sheet as plain values; all tenants."""
    if served is None:
        return None
    billed, whole = served.billed, served.whole
    return {
        **_billed_dict(billed),
        "idle": _amounts_dict(served.idle),
        "per_unit": {
            unit: {**_mean_dict(billed, count), "with_idle": _mean_dict(whole, count)}
            for unit, _, count in per_unit(billed)
        },
        "stages": {stage: _amounts_dict(of) for stage, of in sorted(served.stages.items())},
        "tenants": [{"tenant": tenant, **_billed_dict(of)} for tenant, of in sorted(served.tenants.items())],
    }


def amortised_dict(amortised: Amortised | None) -> dict[str, Any] | None:
    """Both ways to write an EPC off, as plain values."""
    if amortised is None:
        return None
    expected = amortised.expected_micro
    by_time, by_units = amortised.per_unit_by_time, amortised.per_unit_by_units
    return {
        "in_force": amortised.in_force,
        "unit": amortised.unit,
        "served": counted(amortised.served_micro),
        "expected": None if expected is None else counted(expected),
        "time": _way_dict(amortised.by_time_ng, by_time),
        "units": _way_dict(amortised.by_units_ng, by_units),
    }


def _way_dict(due_ng: int | None, per_unit: Fraction | None) -> dict[str, Decimal | None]:
    return {
        "due_gco2e": None if due_ng is None else grams(due_ng),
        "gco2e_per_unit": None if per_unit is None else rounded(per_unit / NG_PER_G, FIGURES),
    }


def _billed_dict(billed: Billed) -> dict[str, Any]:
    return {
        "requests": counted(billed.requests),
        "aborted": billed.aborted,
        "units": {unit: counted(micro) for unit, micro in sorted(billed.units.items())},
        **_amounts_dict(billed),
    }


def _amounts_dict(billed: Billed) -> dict[str, Any]:
    sums = billed.sums_ng()
    return {
        "energy_j": joules(billed.energy_uj),
        "gco2e": {
            **{str(term): grams(billed.terms_ng.get(term, 0)) for term in TERMS},
            **{name: grams(sums[name]) for name in SUMS},
        },
    }


def _mean_dict(of: Billed, count: Fraction) -> dict[str, Decimal]:
    sums = of.sums_ng()
    return {
        "energy_j": rounded(Fraction(of.energy_uj, UJ_PER_J) / count, FIGURES),
        **{f"{name}_gco2e": rounded(Fraction(sums[name], NG_PER_G) / count, FIGURES) for name in SUMS},
    }


__all__ = ["amortised_dict", "served_dict"]
