"""`wattribute product`: what jobs stand on, what that cost to make, and where it came from.

A subcommand's module, `product_NAME.py`, is imported when it is called.
"""

from difflib import get_close_matches
from importlib import import_module

import click

PARTS = ("add", "list", "show", "lineage", "epc", "cost", "freeze", "retire", "compare")


class Parts(click.Group):
    """Finds a subcommand in the module of its name, when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(PARTS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in PARTS:
            return None
        command: click.Command = import_module(f"wattribute.agent.cli.product_{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in PARTS:
            meant = get_close_matches(name, PARTS, n=1)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {meant[0]!r}?" if meant else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=Parts)
def command() -> None:
    """Keep the registry of products: platforms, models, data sets and services, and what each cost to make.

    \b
    Example:
      wattribute product list
    """
