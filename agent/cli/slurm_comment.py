"""`wattribute slurm comment`: writes what a job used into its AdminComment, where sacct shows it."""

import os
import time
from collections.abc import Callable

import click

from wattribute.agent.client import AgentUnreachable, Client
from wattribute.agent.config import Config, load
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.slurm_aside import run_aside
from wattribute.agent.slurm_comment import comment_of, set_comment
from wattribute.agent.slurm_facts import job_number
from wattribute.agent.slurm_jobs import Asked, SlurmJob, asked_by, of_receipt, receipt_of, record_of

WAIT_S = 60.0
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
        run_aside(lambda: write_comment(config, asked, wait_s))
    else:
        click.echo(write_comment(config, asked, wait_s))


def write_comment(config: Config, asked: Asked, wait_s: float) -> str:
    """Waits for the job's final figures, as long as that, and writes what there is; the comment. Raises
    WattributeError.
    """
    from wattribute.agent.archive import is_local

    if is_local(config):
        job = _final(lambda late: _agents(config, asked), wait_s, every_s=0.5)
    else:
        job = _final(lambda late: _fleets(config, asked, everywhere=late), wait_s, every_s=2.0)
    if job is None:
        raise WattributeError(f"nobody has measured Slurm's job {asked.number}. See: wattribute slurm jobs")
    text = comment_of(job)
    set_comment(asked.number, asked.cluster, text)
    return text


def _final(look: Callable[[bool], SlurmJob | None], wait_s: float, every_s: float) -> SlurmJob | None:
    """What is found once it is complete, or at the last look, which knows that it is. A look that fails is tried again;
    the last one's error is raised.
    """
    until_s = time.monotonic() + wait_s
    while True:
        late = time.monotonic() >= until_s
        try:
            job = look(late)
        except WattributeError:
            if late:
                raise
            job = None
        if late or (job is not None and job.ended_unix_ns is not None and job.nodes >= _sources(job)):
            return job
        time.sleep(min(every_s, max(0.0, until_s - time.monotonic())))


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
