"""What the product commands read and write: weights, masses, moments, and the same in words."""

import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from wattribute.agent.cli.amounts import Amount
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.provenance import exact
from wattribute.agent.core.units import DAY_S, NG_PER_G, NS_PER_S, YEAR_S, g_of
from wattribute.agent.identity import problem

if TYPE_CHECKING:  # generic from click 8.4 on, but not before
    PairType: TypeAlias = click.ParamType[tuple[str, str]]
    TextType: TypeAlias = click.ParamType[str]
    IntType: TypeAlias = click.ParamType[int]
else:
    PairType = TextType = IntType = click.ParamType

KG, TONNE = 1000 * NG_PER_G, 1_000_000 * NG_PER_G
MASS = Amount(high=10**15)

config_option = click.option(
    "--config", "file", type=click.Path(path_type=Path), help="Configuration file, which says where the ledger is."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON; masses are grams.")


class Weight(PairType):
    """ID=W: a parent, and the part of its EPC that is inherited; "" for no parent at all."""

    name = "ID=W"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        if not value:
            return "", ""
        product_id, equals, weight = str(value).rpartition("=")
        if not equals or not product_id:
            self.fail(f"{value!r} isn't ID=WEIGHT, e.g. bert-base=0.5", param, ctx)
        try:
            exact(weight)
        except ValueError as error:
            self.fail(f"{value!r}: weight {error}", param, ctx)
        return product_id, weight


class ProductId(TextType):
    """An id that a product may have."""

    name = "ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if why := problem(str(value)):
            self.fail(f"product id can't be {value!r}: {why}", param, ctx)
        return str(value)


class UnitName(TextType):
    """What a product serves."""

    name = "UNIT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if why := problem(str(value)):
            self.fail(f"unit can't be {value!r}: {why}", param, ctx)
        return str(value)


class Moment(IntType):
    """A day (its beginning, in UTC) or an RFC 3339 moment; unix nanoseconds."""

    name = "DATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            at = datetime.datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no day (2026-03-01) and no moment (2026-03-01T12:00:00Z)", param, ctx)
        if at.tzinfo is None:
            at = at.replace(tzinfo=datetime.UTC)
        since = at - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return (since.days * DAY_S + since.seconds) * NS_PER_S + since.microseconds * 1000


def rfc3339(unix_ns: int | None) -> str | None:
    """A moment in UTC, to the second."""
    if unix_ns is None:
        return None
    at = datetime.datetime.fromtimestamp(unix_ns // NS_PER_S, datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def ng_of(value: Fraction, unit: int) -> int:
    """A mass in a unit of so many nanograms, to the nearest nanogram."""
    return round(value * unit)


def between(central: int, low: int | None, high: int | None) -> Bounded:
    """A figure and its bounds; what isn't given is the figure itself. Raises UsageError where they are out of order."""
    try:
        return Bounded(central if low is None else low, central, central if high is None else high)
    except ValueError as error:
        raise click.UsageError("the lower bound, the figure and the upper bound aren't in that order") from error


def mass(mass_ng: int) -> str:
    """A mass in words: 12.3 g, 4,567 kg, 1.2 t."""
    size = abs(mass_ng)
    per, unit = (NG_PER_G, "g") if size < KG else (KG, "kg") if size < 10 * TONNE else (TONNE, "t")
    value = mass_ng / per
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.4g} {unit}"


def masses(value: Bounded | None) -> str:
    """A mass with its bounds, in words."""
    if value is None:
        return "unknown"
    if value.low == value.high:
        return mass(value.central)
    return f"{mass(value.central)} ({mass(value.low)} to {mass(value.high)})"


def grams(value: Bounded | None) -> dict[str, float] | None:
    """A mass with its bounds as JSON has it."""
    if value is None:
        return None
    return {"low": g_of(value.low), "central": g_of(value.central), "high": g_of(value.high)}


def years(lifetime_s: int | None) -> str:
    """A lifetime in words."""
    if lifetime_s is None:
        return "none"
    if lifetime_s < YEAR_S:
        return _counted(f"{lifetime_s / DAY_S:.4g}", "day")
    return _counted(f"{lifetime_s / YEAR_S:.4g}", "year")


def _counted(number: str, what: str) -> str:
    return f"{number} {what}{'' if number == '1' else 's'}"


def weight(value: Fraction) -> str:
    """A weight as the decimal that it is."""
    return f"{float(value):.12g}"
