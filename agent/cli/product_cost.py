"""`wattribute product cost`: work on a product that nothing measured: a person-day, a cloud bill."""

import secrets
from fractions import Fraction
from pathlib import Path

import click

from wattribute.agent.cli.product_records import Draft, append
from wattribute.agent.cli.product_words import KG, MASS, ProductId, between, config_option, masses, ng_of
from wattribute.agent.core.units import NG_PER_G


@click.command()
@click.argument("product_id", metavar="ID")
@click.option("--kgco2e", type=MASS, help="What it cost, in kg CO2e.")
@click.option("--g", "grams", type=MASS, help="The same in grams.")
@click.option("--person-days", type=MASS, help="So many days of work, each at --kg-per-day.")
@click.option("--kg-per-day", type=MASS, help="What a day of work costs in kg CO2e; there is no default.")
@click.option("--low", type=MASS, help="Lower bound, in the unit of the figure (kg with --person-days).")
@click.option("--high", type=MASS, help="Upper bound, in the same unit.")
@click.option("--note", metavar="TEXT", help="What it was; needed but with --person-days.")
@click.option("--id", "cost_id", type=ProductId(), help="A name for this cost: given again, it isn't added again.")
@click.option("--replace", is_flag=True, help="Take the place of the cost with that --id, which was wrong.")
@config_option
def command(
    product_id: str,
    kgco2e: Fraction | None,
    grams: Fraction | None,
    person_days: Fraction | None,
    kg_per_day: Fraction | None,
    low: Fraction | None,
    high: Fraction | None,
    note: str | None,
    cost_id: str | None,
    replace: bool,
    file: Path | None,
) -> None:
    """Enter what making ID cost where nothing measured it. It counts as a creation job does.

    \b
    Example:
      wattribute product cost distilbert --person-days 3 --kg-per-day 12 --note "labelling" --id labelling-2026-03
    """
    figures = [figure for figure in (kgco2e, grams, person_days) if figure is not None]
    if len(figures) != 1:
        raise click.UsageError("give exactly one of --kgco2e, --g and --person-days")
    if (person_days is None) != (kg_per_day is None):
        raise click.UsageError("--person-days and --kg-per-day go together: nobody knows what your day of work costs")
    if person_days is not None and kg_per_day is not None:
        counted = f"{float(person_days):g} person-days at {float(kg_per_day):g} kg a day"
        note = f"{note} ({counted})" if note else counted
        figures = [person_days * kg_per_day]
    if not note or not note.isprintable():
        raise click.UsageError("--note needs a text that says what it was, in one line")
    if replace and cost_id is None:
        raise click.UsageError("--replace needs the --id of the cost that was wrong (see: product show)")
    unit = NG_PER_G if grams is not None else KG
    value = between(ng_of(figures[0], unit), *(None if one is None else ng_of(one, unit) for one in (low, high)))
    name = cost_id or secrets.token_hex(4)
    late: list[bool] = []

    def write(draft: Draft) -> None:
        there = draft.registry.costs.get(product_id, {}).get(name)
        if there is not None and (there.mass, there.note) == (value, note):
            return
        more = {"replaces": True} if replace else {}
        draft.put("cost", product_id, cost_id=name, ng=[value.low, value.central, value.high], note=note, **more)
        late[:] = [product_id in draft.registry.freezes]

    written = append(file, write)
    click.echo(f'product "{product_id}": {masses(value)}, cost "{name}"' + ("" if written else ", known already"))
    if any(late):
        click.echo(
            f'wattribute: warning: the EPC of "{product_id}" is frozen: this is shown as under-recorded, not billed',
            err=True,
        )
