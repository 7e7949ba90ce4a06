"""`wattribute slurm`: what Slurm's prolog and epilogs call, and a listing of its jobs.

A subcommand's module, `slurm_NAME.py`, is imported when it is called.
"""

from importlib import import_module

import click

PARTS = ("jobs", "prolog", "epilog", "receipt", "comment")


class Parts(click.Group):
    """Finds a subcommand in the module of its name, when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(PARTS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in PARTS:
            return None
        command: click.Command = import_module(f"wattribute.agent.cli.slurm_{cmd_name}").command
        return command


@click.group(cls=Parts)
def command() -> None:
    """List Slurm's jobs; and what its prolog and epilogs call, as docs/slurm.md says.

    \b
    Example:
      wattribute slurm jobs --starttime 2026-01-31
    """
