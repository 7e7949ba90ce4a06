"""Writes docs/commands.md from the command line itself (`make docs`); a test compares the two."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from wattribute.agent.cli import main

PAGE = Path(__file__).with_name("commands.md")
HEAD = """# Commands

Written by `make docs` from the command line itself; don't edit.

Exit codes: 0 good, 1 what was asked for failed, 2 wrong usage or configuration. `wattribute run` passes on the exit
code of the command that it runs. Errors go to stderr as `wattribute: error: ...` and say what to do. Every command
has `--help`.
"""


def sections(command: click.Command, ctx: click.Context) -> Iterator[str]:
    """One section per command, depth first: usage, what it does with an example, its options."""
    yield f"## {ctx.command_path}\n"
    usage = [ctx.command_path, *command.collect_usage_pieces(ctx)]
    # Of the help text, what follows \b is laid out by hand (the example): as code.
    text, _, example = inspect.cleandoc(command.help or "").partition("\b\n")
    yield f"{text.strip()}\n\n```\n{' '.join(usage)}\n```\n"
    if example:
        lines = [line.strip() for line in example.splitlines() if line.strip() != "Example:"]
        yield "Example:\n\n```sh\n" + "\n".join(lines) + "\n```\n"
    records = [param.get_help_record(ctx) for param in command.params if isinstance(param, click.Option)]
    options = [f"| `{name}` | {help_text} |" for name, help_text in filter(None, records)]
    if options:
        yield "\n".join(["| option | does |", "|---|---|", *options]) + "\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            if inner is not None and not inner.hidden:
                yield from sections(inner, click.Context(inner, info_name=name, parent=ctx))


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *sections(main, click.Context(main, info_name="wattribute"))])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
