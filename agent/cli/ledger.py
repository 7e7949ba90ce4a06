"""`wattribute ledger`: the record as evidence: verify it, take it elsewhere, bring in what others recorded."""

import click

from wattribute.agent.cli.ledger_export import export
from wattribute.agent.cli.ledger_import import import_
from wattribute.agent.cli.ledger_verify import verify


@click.group()
def command() -> None:
    """Verify the ledger, export it, import what others have recorded.

    \b
    Example:
      wattribute ledger verify
    """


command.add_command(verify)
command.add_command(export)
command.add_command(import_)
