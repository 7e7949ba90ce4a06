"""`wattribute product freeze`: fix a product's EPC at deployment, from when it is written off."""

import time
from pathlib import Path

import click

from wattribute.agent.cli.product_records import Draft, append
from wattribute.agent.cli.product_words import Moment, config_option, masses
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.errors import Refused


@click.command()
@click.argument("product_id", metavar="ID")
@click.option("--deployed", type=Moment(), help="When it was deployed: a day, or a moment. [now]")
@config_option
def command(product_id: str, deployed: int | None, file: Path | None) -> None:
    """Fix the EPC of ID: what its creation jobs and costs come to, and what it inherits from its (frozen) parents.

    From then on it doesn't move, whatever comes late; `product epc` shows the difference. Its users pay it over its
    lifetime.

    \b
    Example:
      wattribute product freeze distilbert --deployed 2026-03-01
    """
    said: list[str] = []

    def write(draft: Draft) -> None:
        said[:] = freeze(draft, product_id, deployed)

    append(file, write, jobs=True)
    for line in said[1:]:
        click.echo(f"wattribute: warning: {line}", err=True)
    click.echo(said[0])


def freeze(draft: Draft, product_id: str, deployed_unix_ns: int | None) -> list[str]:
    """Put a product's EPC as it is now; what to tell of it: a sentence, then warnings. Raises Refused."""
    found = draft.book()
    if product_id in found.products:
        epc = found.epc[product_id]
        own, total = epc.own, epc.total
        inherited = {parent: part for parent, part in epc.inherited.items() if part is not None}
        if found.products[product_id].status == "open" and (own is None or total is None):
            raise Refused(missing_words(product_id, found.missing(product_id)))
    else:
        own, total, inherited = None, None, {}
    draft.put(
        "freeze",
        product_id,
        own_ng=_three(own),
        inherited_ng={parent: _three(part) for parent, part in inherited.items()},
        deployed_unix_ns=time.time_ns() if deployed_unix_ns is None else deployed_unix_ns,
    )
    said = [f'product "{product_id}" is frozen: EPC {masses(total)}']
    recorded = found.recorded.get(product_id)
    if recorded is not None and recorded.running:
        jobs = ", ".join(recorded.running[:5]) + (" ..." if len(recorded.running) > 5 else "")
        said.append(f"creation jobs still run ({jobs}): what they cost from now on isn't in the EPC")
    if not found.products[product_id].written_off:
        said.append("it has no lifetime: its users pay nothing of its EPC, its children inherit by weight")
    return said


def missing_words(product_id: str, missing: tuple[str, ...]) -> str:
    """Why an EPC isn't known, and what to do."""
    names = ", ".join(f'"{one}"' for one in missing[:10]) + (" ..." if len(missing) > 10 else "")
    return (
        f'the EPC of product "{product_id}" isn\'t known: nothing says what {names} cost to make. Run creation jobs of '
        "it (--role creation), enter what they cost (product cost), or declare it (product add --update --epc-kg)"
    )


def _three(value: Bounded | None) -> list[int]:
    return [] if value is None else [value.low, value.central, value.high]
