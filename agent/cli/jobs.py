"""`wattribute jobs`: every job that is known here, running or ended."""

import json
import shutil
from typing import Any

import click

from wattribute.agent.cli import print_table
from wattribute.agent.cli.known import receipts

HEADER = ("JOB", "PRODUCT", "ROLE", "STATE", "STARTED (UTC)", "SECONDS", "JOULES", "GRAMS ASC^e", "MEASURED BY")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of receipts.")
def command(as_json: bool) -> None:
    """List the jobs that are known here: those of the agent, and those that were measured in-process.

    Of the agent's jobs a user sees their own; root, agent.scheduler_uids and the agent's user see all.

    \b
    Example:
      wattribute jobs
    """
    found = receipts()
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif not found:
        click.echo("no jobs yet. Start one: wattribute run -- COMMAND", err=True)
    else:
        print_table([HEADER, *map(_row, found)], width=shutil.get_terminal_size((200, 24)).columns, wrap_last=False)


def _row(receipt: dict[str, Any]) -> tuple[str, ...]:
    energy_uj = receipt["energy_uj"]
    return (
        receipt["job_id"],
        receipt["product_id"],
        receipt["role"],
        "ended" if receipt["ended_at"] else "running",
        (receipt["started_at"] or "")[:19].replace("T", " "),
        _number(receipt["duration_s"]),
        _number(None if energy_uj is None else energy_uj / 1e6),
        _number(receipt["gco2e"]["asce"]),
        receipt["basis"],
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
