"""`wattribute slurm jobs`: what Slurm's jobs used and cost, listed as sacct lists jobs."""

import json
import os
import pwd
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from wattribute.agent.cli import print_table
from wattribute.agent.client import Client
from wattribute.agent.config import Config, load
from wattribute.agent.core.errors import LedgerError, WattributeError
from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.receipts import grams_text, joules_text
from wattribute.agent.slurm_jobs import SlurmJob, of_archive, of_ledger, of_receipts

HEADER = ("JobID", "User", "Account", "Partition", "Nodes", "Elapsed", "Energy", "JSC^e", "ASC^e", "State")
PARSABLE = (
    "JobID",
    "JobIDRaw",
    "Cluster",
    "User",
    "Account",
    "Partition",
    "NodesReported",
    "NNodes",
    "Start",
    "End",
    "ElapsedRaw",
    "EnergyJoules",
    "JSCeGrams",
    "ASCeGrams",
    "State",
)
ASK_S = 5.0


def _moment(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    return None if text is None else _unix_ns(text)


def _unix_ns(text: str) -> int:
    """A time as sacct takes it, in local time where it has no offset."""
    now = datetime.now().astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    known = {"now": now, "today": midnight, "midnight": midnight}
    try:
        moment = known.get(text.lower()) or datetime.fromisoformat(text)
        return round(moment.astimezone().timestamp() * 1e6) * 1000
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no time: write 2026-01-31, 2026-01-31T13:00, now or today") from None


def _names(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for value in values for name in value.split(",") if name)


@click.command()
@click.option("-S", "--starttime", callback=_moment, metavar="TIME", help="Jobs that ran after it. [today, without -j]")
@click.option("-E", "--endtime", callback=_moment, metavar="TIME", help="Jobs that began before it. [now]")
@click.option("-u", "--user", "users", multiple=True, callback=_names, metavar="NAMES", help="Of these users only.")
@click.option("-j", "--jobs", "numbers", multiple=True, callback=_names, metavar="IDS", help="42, 40_7, 40, lab-42.")
@click.option("-P", "--parsable2", is_flag=True, help="Fields between |, in joules, grams and seconds.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list, a job a line.")
def command(
    starttime: int | None,
    endtime: int | None,
    users: tuple[str, ...],
    numbers: tuple[str, ...],
    parsable2: bool,
    as_json: bool,
) -> None:
    """List Slurm's jobs with energy and carbon, as sacct lists jobs; times are local.

    From the fleet's ledger where ledger.url is a PostgreSQL that may be read: sums over all nodes, of what nodes have
    closed by now (windows of 300 s, and ended jobs). Else from this node's ledger; who may not read that sees his own
    jobs, from the agent. Nodes: how many of the job's have told of it.

    \b
    Example:
      wattribute slurm jobs -S 2026-01-31 -u alice
      wattribute slurm jobs -j 42 --json
    """
    now_ns = time.time_ns()
    start_ns = starttime if starttime is not None else 0 if numbers else _unix_ns("today")
    end_ns = now_ns if endtime is None else endtime
    if start_ns >= end_ns:
        raise click.UsageError("--starttime isn't before --endtime")
    jobs = [
        job
        for job in _known(load(None, os.environ, {}).config, start_ns, numbers)
        if job.started_unix_ns < end_ns
        and (job.ended_unix_ns is None or job.ended_unix_ns > start_ns)
        and (not users or job.user in users)
        and (not numbers or any(map(job.is_named, numbers)))
    ]
    jobs.sort(key=lambda job: (job.started_unix_ns, job.job_id))
    if as_json:
        listed = (json.dumps(_json(job, now_ns), ensure_ascii=False) for job in jobs)
        click.echo("[\n  " + ",\n  ".join(listed) + "\n]" if jobs else "[]")
    elif parsable2:
        rows = (PARSABLE, *(_fields(job, now_ns) for job in jobs))
        click.echo("\n".join("|".join(text.replace("|", "?") for text in row) for row in rows))
    elif jobs:
        table = [HEADER, *(_row(job, now_ns) for job in jobs)]
        print_table(table, width=shutil.get_terminal_size((200, 24)).columns, wrap_last=False)
    else:
        click.echo("no job of Slurm's in that time. See: wattribute slurm jobs --help", err=True)


def _known(config: Config, since_ns: int, names: Sequence[str]) -> Iterable[SlurmJob]:
    from wattribute.agent.archive import is_local, open_archive

    if not is_local(config):
        try:
            with open_archive(config) as archive:
                return list(of_archive(archive, since_unix_ns=since_ns, names=names))
        except LedgerError as error:
            click.echo(f"wattribute: warning: {error}; these are this node's jobs alone", err=True)
    state_dir = Path(config.agent.state_dir)
    if os.access(state_dir / "ledger.db", os.R_OK):
        return of_ledger(state_dir)
    client = Client.find(os.environ)
    if client is None:
        raise WattributeError(f"{state_dir} can't be read, and no agent answers. See: wattribute doctor")
    # Receipts name no user: those that a user is shown are his own.
    own = _own_name() if os.getuid() else ""
    return [replace(job, user=own) for job in of_receipts(client.call("jobs", ASK_S)["jobs"])]


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # one that the node's own passwd doesn't know
        return str(os.getuid())


def _row(job: SlurmJob, now_ns: int) -> tuple[str, ...]:
    return (
        job.shown_id,
        job.user,
        job.account,
        job.partition,
        f"{job.nodes}/{job.expected_nodes}",
        _elapsed(job.elapsed_s(now_ns)),
        joules_text(job.energy_uj),
        grams_text(job.jsce_gco2e),
        grams_text(job.asce_gco2e),
        _state(job),
    )


def _fields(job: SlurmJob, now_ns: int) -> tuple[str, ...]:
    return (
        job.shown_id,
        job.slurm_job_id,
        job.cluster,
        job.user,
        job.account,
        job.partition,
        str(job.nodes),
        str(job.expected_nodes),
        _local(job.started_unix_ns),
        "Unknown" if job.ended_unix_ns is None else _local(job.ended_unix_ns),
        str(int(job.elapsed_s(now_ns))),
        "" if job.energy_uj is None else f"{job.energy_uj / 1e6:.6f}",
        "" if job.jsce_gco2e is None else f"{job.jsce_gco2e:.9f}",
        "" if job.asce_gco2e is None else f"{job.asce_gco2e:.9f}",
        _state(job),
    )


def _json(job: SlurmJob, now_ns: int) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "slurm_job_id": job.slurm_job_id,
        "cluster": job.cluster,
        "user": job.user,
        "account": job.account,
        "partition": job.partition,
        "nodes_reported": job.nodes,
        "nodes_expected": job.expected_nodes,
        "started_at": rfc3339(job.started_unix_ns),
        "ended_at": rfc3339(job.ended_unix_ns),
        "elapsed_s": job.elapsed_s(now_ns),
        "energy_uj": job.energy_uj,
        "jsce_gco2e": job.jsce_gco2e,
        "asce_gco2e": job.asce_gco2e,
        "state": _state(job),
    }


def _state(job: SlurmJob) -> str:
    """Not Slurm's, which knows how it ended."""
    return "RUNNING" if job.ended_unix_ns is None else "ENDED"


def _elapsed(elapsed_s: float) -> str:
    minutes, seconds = divmod(int(elapsed_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hours:02}:{minutes:02}:{seconds:02}"


def _local(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns / 1e9).strftime("%Y-%m-%dT%H:%M:%S")
