"""The SCI score of ISO/IEC 21031:2024, (E * I + M) / R, in grams of CO2e per functional unit.

E holds the PUE, idle and overhead shares; I is location-based, by the energy's own hours; M is the hardware's straight
line. No market instrument (certificates, contracts, offsets) is in it. SCI for AI splits it: what building a model
costs is its provider's score, what running it costs its consumer's; ASC^e, which holds both, stands beside them. R is
given, or what metered requests were: reserved hardware that stood idle is in E and M all the same.
"""

from decimal import Decimal
from fractions import Fraction
from typing import Any

from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.core.units import NG_PER_G
from wattribute.exporters.report.exact import counted, decimal_of, grams, rounded
from wattribute.exporters.report.sheet import Costs, Sheet
from wattribute.exporters.report.words import PRICE

SCHEMA = "wattribute.sci/1"
CONSUMER = ("use", "platform")
PROVIDER = ("creation", "retraining")
_FIGURES = 15


def sci(sheet: Sheet, unit: str, count: Decimal | None) -> dict[str, Any]:
    """The score per `unit`, of which the sheet is about `count`; None: as many as the ledger has of it.

    Raises ValueError for count <= 0, and where the ledger has none.
    """
    source = "given"
    if count is None:
        source, count = "metered requests in the ledger", units_served(sheet, unit)
    if count <= 0:
        raise ValueError(f"the functional unit {unit!r} needs a count above 0, not {count}")
    per_unit = Fraction(count)
    whole = sheet.total
    mean = sheet.mean_g_per_kwh()
    consumer = Costs.of(group.costs for group in sheet.groups if group.role in CONSUMER)
    provider = Costs.of(group.costs for group in sheet.groups if group.role in PROVIDER)
    # What creation and platform jobs cost reaches those of users as taxes: their ASC^e holds it already.
    payers = [group for group in sheet.groups if sheet.kind == "job" or group.role == "use"]
    asce_ng = sum(group.costs.sums_ng()["asce"] for group in payers)
    return {
        "schema": SCHEMA,
        "standard": "ISO/IEC 21031:2024",
        "kind": sheet.kind,
        "id": sheet.id,
        "from": rfc3339(sheet.from_unix_ns),
        "to": rfc3339(sheet.to_unix_ns),
        "functional_unit": {"name": unit, "count": count, "source": source},
        "formula": "(E * I + M) / R",
        "score_gco2e_per_unit": _per(whole.own_ng, per_unit),
        "e_kwh": decimal_of(sheet.used_kwh(whole.whole_uj), _FIGURES),
        "i_gco2e_per_kwh": None if mean is None else rounded(mean, _FIGURES),
        "operational_gco2e": grams(whole.sums_ng()["jsc"]),
        "embodied_gco2e": grams(whole.term_ng("hardware")),
        "intensity": {
            "grid_zone": sheet.intensity.zone,
            "provider": sheet.intensity.provider,
            "method": f"location-based, {sheet.intensity.method}".rstrip(", "),
        },
        "market_instruments": "none: neither I nor M holds certificates, contracts or offsets",
        "boundary": {"included": list(sheet.included), "missing": list(sheet.missing)},
        "sci_for_ai": {
            "consumer": {
                "stages": "operation and monitoring: jobs with the roles use and platform",
                **_view(consumer, per_unit),
            },
            "provider": {
                "stages": "design and development: jobs with the roles creation and retraining",
                **_view(provider, None),
                "score_note": "its functional unit is another one (parameters, training tokens), which nobody stated",
            },
        },
        "asce": {
            "gco2e": grams(asce_ng),
            "gco2e_per_unit": _per(asce_ng, per_unit),
            "jobs": sum(group.costs.jobs for group in payers),
            "billed_to_requests_gco2e_per_unit": _billed(sheet, per_unit),
            "note": f"On behalf of users, with their part of what the products cost to make and to run. {PRICE}",
        },
    }


def units_served(sheet: Sheet, unit: str) -> Decimal:
    """How many of a unit the product's metered requests were. Raises ValueError, naming the units that there are."""
    served = {} if sheet.served is None else sheet.served.billed.units
    if served.get(unit):
        return counted(served[unit])
    if sheet.kind != "product":
        raise ValueError(f"units are metered by product: say how many this {sheet.kind} served, --unit {unit}=1000000")
    known = [name for name, micro in sorted(served.items()) if micro]
    if not known:
        raise ValueError(
            f"no metered request of product {sheet.id!r} is in the ledger for that time, so nobody counted its {unit}: "
            f"say how many, --unit {unit}=1000000"
        )
    raise ValueError(
        f"the ledger has no {unit!r} of product {sheet.id!r}: it has {', '.join(known)}. Or say how many, "
        f"--unit {unit}=1000000"
    )


def jobs_served(sheet: Sheet) -> tuple[str, Decimal]:
    """The functional unit where nobody states one: a job, of those on behalf of users. Raises ValueError for none."""
    if sheet.kind == "job":
        return "job", Decimal(1)
    served = sum(group.costs.jobs for group in sheet.groups if group.role == "use")
    if not served:
        raise ValueError("no job with the role use is known here: state the functional unit, --unit token=1000000")
    return "job", Decimal(served)


def _view(costs: Costs, per_unit: Fraction | None) -> dict[str, Any]:
    return {
        "jobs": costs.jobs,
        "operational_gco2e": grams(costs.sums_ng()["jsc"]),
        "embodied_gco2e": grams(costs.term_ng("hardware")),
        "score_gco2e_per_unit": None if per_unit is None else _per(costs.own_ng, per_unit),
    }


def _billed(sheet: Sheet, per_unit: Fraction) -> Decimal | None:
    return None if sheet.served is None else _per(sheet.served.billed.sums_ng()["asce"], per_unit)


def _per(mass_ng: int, count: Fraction) -> Decimal:
    return rounded(Fraction(mass_ng, NG_PER_G) / count, _FIGURES)


__all__ = ["SCHEMA", "jobs_served", "sci", "units_served"]
