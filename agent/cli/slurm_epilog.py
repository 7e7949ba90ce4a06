"""`wattribute slurm epilog`: forgets what the prolog left; a process of its own writes the job's AdminComment."""

import os

import click

from wattribute.agent.cli.slurm_comment import WAIT_S, write_aside
from wattribute.agent.config import load
from wattribute.agent.slurm_comment import is_first_node
from wattribute.agent.slurm_facts import drop, job_number
from wattribute.agent.slurm_jobs import asked_by


@click.command()
@click.option("--comment", is_flag=True, help="On the job's first node, write its AdminComment, in the background.")
def command(comment: bool) -> None:
    """Forget the facts of the job that ended: called by deploy/slurm/epilog.sh, as root.

    With --comment the node is free at once: the closing reading is waited for by a process of its own, which tells
    syslog what went wrong.

    \b
    Example:
      SLURM_JOB_ID=42 wattribute slurm epilog --comment
    """
    config = load(None, os.environ, {}).config
    drop(config.jobs.slurm_dir, os.environ)
    if comment and is_first_node(os.environ):
        write_aside(config, asked_by(os.environ, job_number(os.environ)), WAIT_S)
