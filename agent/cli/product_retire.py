"""`wattribute product retire`: nothing new stands on a product, and nobody pays its EPC any more."""

from pathlib import Path

import click

from wattribute.agent.cli.product_records import Draft, append
from wattribute.agent.cli.product_words import config_option


@click.command()
@click.argument("product_id", metavar="ID")
@config_option
def command(product_id: str, file: Path | None) -> None:
    """Retire ID: it can't become a parent any more, and its EPC is no longer billed. What stands on it stays.

    \b
    Example:
      wattribute product retire bert-base
    """

    def write(draft: Draft) -> None:
        draft.put("retire", product_id)

    append(file, write)
    click.echo(f'product "{product_id}" is retired')
