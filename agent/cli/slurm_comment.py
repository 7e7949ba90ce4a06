"""`wattribute slurm comment`: writes what a job used into its AdminComment, where sacct shows it."""

import os
import time

import click

from wattribute.agent.client import AgentUnreachable, Client
from wattribute.agent.config import Config, load
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.slurm_aside import leave, work_off
from wattribute.agent.slurm_comment import comment_of, set_comment
from wattribute.agent.slurm_facts import job_number
from wattribute.agent.slurm_jobs import Asked, SlurmJob, asked_by, of_receipt, receipt_of, record_of

WAIT_S = 60.0
EVERY_S = 1.0
ASK_S = 5.0
DAY_NS = 86_400 * 10**9


@click.command()
@click.argument("number", required=False)
@click.option("--cluster", metavar="NAME", help="The job's cluster. [SLURM_CLUSTER_NAME, else slurm.conf's]")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 3600),
    default=WAIT_S,
    show_default=True,
    help="Seconds to wait for the closing reading, and for all nodes where the ledger is a fleet's.",
)
@click.option("--background", is_flag=True, help="Return at once; syslog hears what went wrong.")
def command(number: str | None, cluster: str | None, wait_s: float, background: bool) -> None:
    """Write what Slurm's job NUMBER used into its AdminComment: called by deploy/slurm/epilog_slurmctld.sh.

    From the fleet's ledger where ledger.url is a PostgreSQL: the sum over all nodes. Else from the agent on this node:
    its part of the job. `nodes=1/4` says how many of how many nodes are in the figures. An AdminComment of somebody
    else's stays. Needs slurmdbd, and the right to change jobs in it (root has it).

    \b
    Example:
      wattribute slurm comment 42
      sacct -X -j 42 -o JobID,AdminComment%120
    """
    if number is None:
        number = job_number(os.environ)
    elif not (number.isascii() and number.isdigit()):
        raise click.UsageError(f"{number!r} is no number of a job: see sacct's JobIDRaw")
    asked = asked_by(os.environ, number)
    if cluster:
        asked = asked._replace(cluster=cluster)
    config = load(None, os.environ, {}).config
    if background:
        write_aside(config, asked, wait_s)
        return
    until_s = time.monotonic() + wait_s
    while (text := _written(config, asked, time.monotonic() >= until_s)) is None:
        time.sleep(min(EVERY_S, max(0.0, until_s - time.monotonic())))
    click.echo(text)


def write_aside(config: Config, asked: Asked, wait_s: float) -> None:
    """Leaves a comment to a process of its own, which writes those of all jobs, one after another. Raises
    WattributeError where nothing can be left.
    """
    # SlurmUser on a controller has no folder of its own in /run.
    folder = config.jobs.slurm_dir if os.geteuid() == 0 else f"/tmp/wattribute-slurm-{os.geteuid()}"
    leave(folder, asked)
    work_off(
        folder,
        lambda left, late: _written(config, left, late) is not None,
        patience_s=wait_s,
        every_s=EVERY_S,
    )


def _written(config: Config, asked: Asked, late: bool) -> str | None:
    """Writes what there is once it is complete, or `late`; the comment. A look that fails is none, but for the last.

    Raises WattributeError.
    """
    from wattribute.agent.archive import is_local

    try:
        job = _agents(config, asked) if is_local(config) else _fleets(config, asked, everywhere=late)
    except WattributeError:
        if late:
            raise
        return None
    if job is None and late:
        raise WattributeError(f"nobody has measured Slurm's job {asked.number}. See: wattribute slurm jobs")
    if job is None or not (late or (job.ended_unix_ns is not None and job.nodes >= _sources(job))):
        return None
    text = comment_of(job)
    set_comment(asked.number, asked.cluster, text)
    return text


def _sources(job: SlurmJob) -> int:
    return job.expected_nodes if job.basis == "ledger" else 1


def _agents(config: Config, asked: Asked) -> SlurmJob | None:
    client = Client.find({**os.environ, "WATTRIBUTE_AGENT__SOCKET": config.agent.socket})
    if client is None:
        raise AgentUnreachable(f"no agent answers at {config.agent.socket}. See: wattribute doctor")
    receipt = receipt_of(client, asked, ASK_S)
    return None if receipt is None else of_receipt(receipt)


def _fleets(config: Config, asked: Asked, *, everywhere: bool) -> SlurmJob | None:
    from wattribute.agent.archive import open_archive

    with open_archive(config, pull=False) as archive:
        return record_of(archive, asked, since_unix_ns=time.time_ns() - DAY_NS if everywhere else None)
