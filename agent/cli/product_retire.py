"""`wattribute product retire`: nothing new stands on a product, and nobody pays its EPC any more."""

from pathlib import Path

import click

from wattribute.agent.cli.product_freeze import freeze
from wattribute.agent.cli.product_records import Draft, append
from wattribute.agent.cli.product_words import config_option


@click.command()
@click.argument("product_id", metavar="ID")
@config_option
def command(product_id: str, file: Path | None) -> None:
    """Retire ID: nothing new can stand on it, and its EPC is no longer billed. What stands on it already stays.

    The EPC of an open product is frozen as it is, where it is known.

    \b
    Example:
      wattribute product retire bert-base
    """

    append(file, lambda draft: retire(draft, product_id), jobs=True)
    click.echo(f'product "{product_id}" is retired')


def retire(draft: Draft, product_id: str, deployed_unix_ns: int | None = None) -> None:
    """Put a product's retirement, and its freezing before it where that is missing and can be done. Raises Refused."""
    product = draft.registry.products.get(product_id)
    if product is not None and product.status == "open" and draft.book().epc[product_id].total is not None:
        freeze(draft, product_id, deployed_unix_ns)
    draft.put("retire", product_id)
