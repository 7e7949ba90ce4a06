"""`wattribute slurm receipt`: the receipt of the job that a script of Slurm's runs for."""

import json
import os

import click

from wattribute.agent.client import Client
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.receipts import Receipt
from wattribute.agent.slurm_facts import job_number
from wattribute.agent.slurm_jobs import asked_by, receipt_of

ASK_S = 1.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the receipt as JSON (wattribute.receipt/1).")
def command(as_json: bool) -> None:
    """Print what the Slurm job that this runs in has used on this node until now.

    Called by deploy/slurm/task_epilog.sh, as the job's user, at the end of the batch script.

    \b
    Example:
      SLURM_JOB_ID=42 wattribute slurm receipt
    """
    asked = asked_by(os.environ, job_number(os.environ))
    client = Client.find(os.environ)
    found = None if client is None else receipt_of(client, asked, ASK_S)
    if found is None:
        raise WattributeError(f"no agent here knows Slurm's job {asked.number}. See: wattribute doctor")
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo(str(Receipt(found)))
    if found["expected_nodes"] > 1:
        click.echo(f"  this node's part; the job has {found['expected_nodes']} nodes")
    if found["ended_at"] is None:
        click.echo(f"  until the end of its script; after the job: wattribute receipt '{found['job_id']}'")
