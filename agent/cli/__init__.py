"""The command line: `wattribute COMMAND`. A command's module is imported when it is called, so that `run` starts fast.

Exit codes: 0 good, 1 what was asked for failed, 2 wrong usage or configuration.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from wattribute import __version__
from wattribute.agent.core.errors import ConfigError, WattributeError

COMMANDS = (
    "agent",
    "run",
    "jobs",
    "receipt",
    "doctor",
    "product",
    "estimate",
    "report",
    "ledger",
    "intensity",
    "config",
)


class Commands(click.Group):
    """Finds a command in the module of its name, when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"wattribute.agent.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in COMMANDS:
            from difflib import get_close_matches

            meant = get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {meant[0]!r}?" if meant else ""))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with plain_errors():
            return super().invoke(ctx)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Says an expected failure in one line of stderr each, and exits with its code."""
    try:
        yield
    except WattributeError as error:
        for line in str(error).splitlines():
            click.echo(f"wattribute: error: {line}", err=True)
        raise click.exceptions.Exit(2 if isinstance(error, ConfigError) else 1) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="wattribute %(version)s")
def main() -> None:
    """What each AI job costs the climate: energy and carbon per job, measured live.

    \b
    Example:
      wattribute run -- python train.py
    """


def print_table(rows: Sequence[Sequence[str]], *, width: int, wrap_last: bool = True) -> None:
    """Prints aligned columns (the first row is the header); the last column is wrapped to what is left of `width`."""
    import textwrap

    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = max(width - indent, 24)
    for row in rows:
        last = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False) if wrap_last else [row[-1]]
        cells = [text.ljust(size) for text, size in zip(row[:-1], widths[:-1], strict=True)]
        click.echo("  ".join([*cells, *(last[:1] or [""])]).rstrip())
        for line in last[1:]:
            click.echo(" " * indent + line)
