"""`wattribute receipt JOB_ID`: what one job used, and what that cost the climate."""

import json

import click

from wattribute.agent.cli.known import receipt
from wattribute.agent.receipts import Receipt


@click.command()
@click.argument("job_id")
@click.option("--json", "as_json", is_flag=True, help="Print the receipt as JSON (wattribute.receipt/1).")
def command(job_id: str, as_json: bool) -> None:
    """Print the receipt of JOB_ID: of a running job until now, of an ended one in full.

    \b
    Example:
      wattribute receipt bert-ft-7 --json
    """
    found = receipt(job_id)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else str(Receipt(found)))
