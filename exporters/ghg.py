"""A GHG Protocol split of what was emitted, in tonnes of CO2e: scope 2 twice, scope 3 by category, offsets apart.

It holds operation, cooling and hardware: what was caused, not what was billed. Own hardware in an own building is
assumed; in somebody else's, all of it is scope 3, category 1 or 8.
"""

from decimal import Decimal
from fractions import Fraction
from typing import Any

from wattribute.agent.core.receipt import rfc3339
from wattribute.exporters.report.exact import decimal_of, kwh, tonnes
from wattribute.exporters.report.sheet import Sheet
from wattribute.exporters.report.words import PRICE

SCHEMA = "wattribute.ghg/1"
_DIGITS = 15
_G_PER_TONNE = 1_000_000


def ghg(sheet: Sheet, market_g_per_kwh: Decimal | None = None) -> dict[str, Any]:
    """The split. `market_g_per_kwh`: the factor of the contract that the electricity was bought under.

    Raises ValueError for a negative one.
    """
    if market_g_per_kwh is not None and market_g_per_kwh < 0:
        raise ValueError(f"a contract's factor is at least 0 g/kWh, not {market_g_per_kwh}")
    used_kwh = sheet.used_kwh(sheet.total.whole_uj)
    market = None if market_g_per_kwh is None else used_kwh * Fraction(market_g_per_kwh) / _G_PER_TONNE
    lifecycle = sheet.intensity.factor_type == "lifecycle"
    return {
        "schema": SCHEMA,
        "kind": sheet.kind,
        "id": sheet.id,
        "from": rfc3339(sheet.from_unix_ns),
        "to": rfc3339(sheet.to_unix_ns),
        "energy_kwh": kwh(sheet.total.whole_uj),
        "energy_with_cooling_kwh": decimal_of(used_kwh, _DIGITS),
        "scope_1": {"tco2e": None, "note": "nothing here burns fuel that wattribute meters (generators, heating)"},
        "scope_2": {
            "location_based_tco2e": tonnes(sheet.total.sums_ng()["jsc"]),
            "location_based_note": _location(sheet.intensity.factor_type),
            "market_based_tco2e": None if market is None else decimal_of(market, _DIGITS),
            "market_based_g_per_kwh": market_g_per_kwh,
            "market_based_note": MARKET if market is None else "by the contract's factor, as given",
        },
        "scope_3": {
            "category_1_purchased_services": {
                "tco2e": None,
                "note": "platforms, models and data sets of others: their EPC reaches ASC^e as a price, not this table",
            },
            "category_2_capital_goods": {
                "tco2e": tonnes(sheet.total.term_ng("hardware")),
                "note": "straight-line over the hardware's life: a management view. An inventory books all of it in "
                "the year of purchase",
            },
            "category_3_fuel_and_energy": {
                "tco2e": None,
                "contained_in_scope_2": True if lifecycle else False if sheet.intensity.factor_type else None,
                "note": _upstream(sheet.intensity.factor_type),
            },
        },
        "offsets_tco2e": None,
        "offsets_note": "never netted; wattribute keeps none",
        "hourly_kwh": [
            {"from": rfc3339(start), "energy_kwh": None if energy_uj is None else kwh(energy_uj)}
            for start, energy_uj in sheet.hours
        ],
        "note": PRICE if sheet.kind == "node" else f"Part of what the nodes emitted: don't add it to theirs. {PRICE}",
    }


MARKET = (
    "not known: it takes the factor of the contract or the residual mix (--market-g-per-kwh). The grid's average isn't "
    "one"
)


def _location(factor_type: str) -> str:
    if factor_type == "direct":
        return "operation and cooling by direct factors: what plants emit while they run"
    if factor_type == "lifecycle":
        return (
            "operation and cooling by life-cycle factors, so it holds a part of scope 3, category 3, too. For scope 2 "
            'alone set carbon.factor_type = "direct"'
        )
    return "operation and cooling; whether the factors are direct or life-cycle isn't known"


def _upstream(factor_type: str) -> str:
    if factor_type == "direct":
        return "not known: a direct factor holds nothing of it"
    if factor_type == "lifecycle":
        return (
            "the upstream part of life-cycle factors is in scope 2's figure and can't be told apart; grid losses are "
            "in neither"
        )
    return "not known: nor is the type of the factors"


__all__ = ["SCHEMA", "ghg"]
