"""`wattribute slurm prolog`: leaves what the agent needs to know of a job, from the prolog's environment."""

import os

import click

from wattribute.agent.config import load
from wattribute.agent.slurm_facts import keep


@click.command()
def command() -> None:
    """Leave the facts of the job that starts for the agent: called by deploy/slurm/prolog.sh, as root.

    The agent finds the job by itself. This tells what it can't read without root: cluster, account, partition, number
    of nodes, and the product, where the job's comment names one.

    \b
    Example:
      sbatch --comment wattribute.io/product=bert-base job.sh
      SLURM_JOB_ID=42 SLURM_JOB_ACCOUNT=physics wattribute slurm prolog
    """
    keep(load(None, os.environ, {}).config.jobs.slurm_dir, os.environ)
