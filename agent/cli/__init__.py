"""The command line: `wattribute COMMAND`. A command's module is imported when it is called, so that `run` starts fast.

Exit codes: 0 good, 1 what was asked for failed, 2 wrong usage or configuration.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, EIO, ENOSPC
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from wattribute import __version__
from wattribute.agent.core.errors import ConfigError, WattributeError

COMMANDS = (
    "agent",
    "run",
    "jobs",
    "receipt",
    "top",
    "doctor",
    "product",
    "estimate",
    "report",
    "slurm",
    "dashboards",
    "ledger",
    "intensity",
    "gpu",
    "config",
)


_FULL = {ENOSPC, EDQUOT, EFBIG, EIO}


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

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with plain_errors():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with plain_errors():
            return super().invoke(ctx)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Says an expected failure in one line of stderr each, and exits with its code."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        known = error.ctx.command_path if error.ctx else "wattribute"
        said = " ".join(error.format_message().split())
        _say(f"{said}{'' if said.endswith(('.', '?')) else '.'} See: {known} --help")
        raise click.exceptions.Exit(2) from error
    except WattributeError as error:
        for line in str(error).splitlines():
            _say(line)
        raise click.exceptions.Exit(2 if isinstance(error, ConfigError) else 1) from error
    except UnicodeEncodeError as error:
        _say(f"the terminal's encoding ({error.encoding}) lacks a character. Fix: set PYTHONUTF8=1, or LC_ALL=C.UTF-8")
        raise click.exceptions.Exit(1) from error
    except PermissionError as error:
        _say(f"{error.filename} can't be opened: {error.strerror}. Fix: run it as a user who may, e.g. the agent's")
        raise click.exceptions.Exit(1) from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _say(f"{error.filename or 'the output'} can't be written: {error.strerror}")
        raise click.exceptions.Exit(1) from error


def _say(line: str) -> None:
    click.echo(f"wattribute: error: {line}", err=True)


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
    lines = []
    for row in rows:
        last = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False) if wrap_last else [row[-1]]
        cells = [text.ljust(size) for text, size in zip(row[:-1], widths[:-1], strict=True)]
        lines.append("  ".join([*cells, *(last[:1] or [""])]).rstrip())
        lines += (" " * indent + line for line in last[1:])
    click.echo("\n".join(lines))  # at once: each call flushes


def write_file(path: Path, text: str) -> None:
    """Writes what was asked for into a file, all of it or nothing. Raises WattributeError with the fix."""
    from wattribute.agent.stored import write_atomic

    try:
        if path.exists() and not path.is_file():  # a pipe or a terminal, which can't be replaced
            path.write_text(text, encoding="utf-8")
        elif not path.parent.is_dir():
            raise WattributeError(f"can't write {path}: there is no folder {path.parent}. Fix: mkdir -p {path.parent}")
        else:
            write_atomic(path, text, 0o644)
    except OSError as error:
        raise WattributeError(f"can't write {path}: {error.strerror or error}") from error
