"""`wattribute product add`: register a product, or change one that is still open."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from wattribute.agent.cli.amounts import Amount
from wattribute.agent.cli.product_freeze import freeze
from wattribute.agent.cli.product_records import Draft, append, user
from wattribute.agent.cli.product_retire import retire
from wattribute.agent.cli.product_words import (
    KG,
    MASS,
    Moment,
    ProductId,
    UnitName,
    Weight,
    between,
    config_option,
    mass,
    ng_of,
)
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.lineage import Book, recovery
from wattribute.agent.core.products import MICRO
from wattribute.agent.core.units import DAY_S, NG_PER_G, RATE_SCALE, YEAR_S


@click.command()
@click.argument("product_id", metavar="ID", type=ProductId())
@click.option("--kind", type=click.Choice(("platform", "model", "dataset", "service")), help="What it is. [service]")
@click.option("--version", metavar="V", help="Its version, in your words.")
@click.option(
    "--parent", "parents", multiple=True, type=Weight(), help="What it was made from, and the part inherited."
)
@click.option("--runs-on", multiple=True, metavar="ID", help="What it runs on; whoever uses it pays for that too.")
@click.option("--owner", "owners", multiple=True, metavar="USER", help="Who may run jobs for it in other roles. [you]")
@click.option("--epc-kg", type=MASS, help="Its own EPC in kg CO2e, without parents, where it is known.")
@click.option("--epc-low-kg", type=MASS, help="Lower bound of it.")
@click.option("--epc-high-kg", type=MASS, help="Upper bound of it.")
@click.option("--epc-computed", is_flag=True, help="With --update: from creation jobs and costs again, not declared.")
@click.option("--boundary", metavar="TEXT", help="What the EPC holds and what it doesn't.")
@click.option("--lifetime-years", type=Amount(high=1000, above=True), help="Over how long its EPC is written off.")
@click.option("--amortise", type=click.Choice(("time", "units")), help="What its users pay its EPC by. [time]")
@click.option("--unit", type=UnitName(), help="What it serves: token, image, ... [request]")
@click.option(
    "--expected-units",
    type=Amount(low=Fraction(1, MICRO), high=10**24),
    help="How many units it should serve in its life, over which --amortise units writes its EPC off.",
)
@click.option("--overhead-g-per-min", type=MASS, help="Operation of machines that no agent meters, in g CO2e a minute.")
@click.option("--concurrency", type=Amount(low=Fraction(1, 1000), high=10**9), help="How many jobs use it at once.")
@click.option("--scope", type=click.Choice(("node", "fleet")), help="Whose jobs share it: those of one node, or all.")
@click.option(
    "--tax-by",
    type=click.Choice(("weight", "reserved", "units")),
    help="What its platform is split by: weight, reserved CPUs or units served, times weight. [weight]",
)
@click.option(
    "--retraining-interval-days",
    type=Amount(low=Fraction(1, 1440), high=3650),
    help="Over which time retraining is split over the jobs served. [1]",
)
@click.option("--status", type=click.Choice(("open", "frozen", "retired")), help="How far it is. [open]")
@click.option("--deployed", type=Moment(), help="With --status frozen or retired: when it was deployed. [now]")
@click.option("--update", is_flag=True, help="Change what is registered: only what is given, lists as a whole.")
@config_option
def command(product_id: str, file: Path | None, status: str | None, update: bool, **options: Any) -> None:
    """Register a product: a platform, model, data set or service that jobs stand on.

    Its EPC is what its creation jobs cost (wattribute run --product ID --role creation), what `product cost` adds, or
    what --epc-kg declares; and what it inherits by weight. `product freeze` fixes it when the product is deployed.

    \b
    Example:
      wattribute product add distilbert --kind model --parent bert-base=0.5 --lifetime-years 3 --scope fleet
    """
    deployed = options.pop("deployed")
    values = _values(options, update=update)
    if update and (status or deployed):
        raise click.UsageError("--update doesn't change the status: see product freeze and product retire")
    if update and not values:
        raise click.UsageError("--update needs something to change")
    if deployed is not None and status in (None, "open"):
        raise click.UsageError("--deployed needs --status frozen or retired: an open product is still being made")

    def write(draft: Draft) -> None:
        if update:
            draft.put("set", product_id, **values)
        else:
            draft.put("add", product_id, **{"owners": [user()], **values})
        if values.get("parents"):
            _check_left(draft.book(), product_id)
        if status == "frozen":
            freeze(draft, product_id, deployed)
        elif status == "retired":
            retire(draft, product_id, deployed)

    append(file, write, jobs=bool(values.get("parents")) or status in ("frozen", "retired"))
    click.echo(
        f'product "{product_id}" is changed' if update else f'product "{product_id}" is added, {status or "open"}'
    )


def _check_left(found: Book, product_id: str) -> None:
    """Raises Refused where users of a parent have paid already what this product would inherit."""
    for parent, part in found.epc[product_id].inherited.items():
        excess_ng = recovery(found, parent, 0).excess_ng
        if part is not None and part.central and excess_ng:
            left = max(
                Fraction(0), found.products[product_id].parents[parent] * (1 - Fraction(excess_ng, part.central))
            )
            raise Refused(
                f'product "{product_id}": of the EPC of "{parent}" its users have paid '
                f"{mass(found.recovered_ng.get(parent, 0))} already; at most a weight of "
                f"{float(left * 1000 // 1 / 1000):g} is left to inherit"
            )


def _values(options: dict[str, Any], *, update: bool) -> dict[str, Any]:
    """What was given, as an event has it."""
    texts = ("kind", "version", "boundary", "scope", "amortise", "unit", "tax_by")
    values: dict[str, Any] = {name: options[name] for name in texts if options[name] is not None}
    for name in ("runs_on", "owners"):
        if options[name]:
            values[name] = _once(name, [one for one in options[name] if one])
    if options["parents"]:
        parents = [(parent, weight) for parent, weight in options["parents"] if parent]
        _once("parents", [parent for parent, _ in parents])
        values["parents"] = dict(parents)
    values |= _epc(options, update=update)
    for name, option, unit in (
        ("lifetime_s", "lifetime_years", YEAR_S),
        ("retraining_interval_s", "retraining_interval_days", DAY_S),
        ("overhead_rate", "overhead_g_per_min", Fraction(NG_PER_G * RATE_SCALE, 60)),
        ("concurrency_ppm", "concurrency", 1_000_000),
        ("expected_micro_units", "expected_units", MICRO),
    ):
        if options[option] is not None:
            values[name] = round(options[option] * unit)
    if values.get("lifetime_s") == 0:
        raise click.UsageError("--lifetime-years is below a second")
    return values


def _epc(options: dict[str, Any], *, update: bool) -> dict[str, Any]:
    low, central, high = (
        None if options[name] is None else ng_of(options[name], KG) for name in ("epc_low_kg", "epc_kg", "epc_high_kg")
    )
    if options["epc_computed"]:
        if not update or central is not None:
            raise click.UsageError("--epc-computed goes with --update, without --epc-kg")
        return {"epc_ng": None}
    if central is None:
        if low is not None or high is not None:
            raise click.UsageError("--epc-low-kg and --epc-high-kg need --epc-kg, the figure between them")
        return {}
    bounded = between(central, low, high)
    return {"epc_ng": [bounded.low, bounded.central, bounded.high]}


def _once(name: str, ids: list[str]) -> list[str]:
    for one in ids:
        if ids.count(one) > 1:
            raise click.UsageError(f"--{name.replace('_', '-').removesuffix('s')} {one} is given twice")
    return ids
