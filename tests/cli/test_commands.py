"""The command line's frame: help, exit codes, errors in one line, and docs that match."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from docs.write_commands import PAGE, page

from wattribute import __version__
from wattribute.agent.cli import COMMANDS, main, plain_errors, print_table, write_file
from wattribute.agent.core.errors import ConfigError, SensorUnavailable, WattributeError


def every_command(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from every_command(inner, (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in every_command(main)], ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert "Example:\n" in result.output
    assert "wattribute " + " ".join(path[:1]) in result.output.partition("Example:")[2]


def test_every_option_says_what_it_does() -> None:
    silent = [
        (path, parameter.name)
        for path, command in every_command(main)
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []


def test_every_listed_command_is_there() -> None:
    assert main.list_commands(click.Context(main)) == list(COMMANDS)
    assert all(main.get_command(click.Context(main), name) for name in COMMANDS)


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"wattribute {__version__}\n"


def test_an_unknown_command_is_wrong_usage_and_names_the_nearest() -> None:
    result = CliRunner().invoke(main, ["doctr"])
    assert result.exit_code == 2
    assert "Did you mean 'doctor'?" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jsn"], "No such option '--jsn'. See: wattribute --help"),
        (["doctor", "--jsn"], "No such option '--jsn'. Did you mean '--json'? See: wattribute doctor --help"),
        (["report", "jb"], "No such command 'jb'. Did you mean 'job'? See: wattribute report --help"),
        (["report", "job"], "Missing argument 'JOB_ID'. See: wattribute report job --help"),
        (["estimate", "inference", "--watts", "3"], "--watts and --seconds go together. See: wattribute estimate inf"),
    ],
)
def test_wrong_usage_is_one_line_that_says_where_to_look(words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, words, prog_name="wattribute")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"wattribute: error: {said}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the output can't be written: No space left on device"),
        (OSError(errno.EIO, "Input/output error", "/x"), "/x can't be written: Input/output error"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            "/x can't be opened: Permission denied. Fix: run it",
        ),
        (UnicodeEncodeError("latin-1", "\u0639", 0, 1, "no"), "(latin-1) lacks a character. Fix: set PYTHONUTF8=1"),
    ],
)
def test_what_the_system_refuses_is_no_traceback(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(click.exceptions.Exit) as caught, plain_errors():
        raise error
    assert caught.value.exit_code == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), FileNotFoundError(errno.ENOENT, "no")])
def test_other_failures_stay_what_they_are(error: OSError) -> None:
    with pytest.raises(type(error)), plain_errors():
        raise error


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_file(tmp_path / "x", "one")
    assert (tmp_path / "x").read_text() == "one"
    with pytest.raises(WattributeError, match="Fix: mkdir -p"):
        write_file(tmp_path / "absent" / "x", "one")
    with pytest.raises(WattributeError, match="can't write"):
        write_file(tmp_path / "x" / "y", "one")


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("one\ntwo"), 2), (SensorUnavailable("gone", "plug it in"), 1)]
)
def test_expected_errors_are_one_line_each_and_an_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(click.exceptions.Exit) as caught, plain_errors():
        raise error
    assert caught.value.exit_code == code
    assert capsys.readouterr().err == "".join(f"wattribute: error: {line}\n" for line in str(error).splitlines())


def test_the_table_keeps_its_columns_and_wraps_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([("A", "B"), ("aaaa", "one two three four five six seven")], width=32)
    assert capsys.readouterr().out == "A     B\naaaa  one two three four five\n      six seven\n"


def test_the_page_of_commands_is_that_of_the_command_line() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make docs"


def test_the_module_runs() -> None:
    out = subprocess.run([sys.executable, "-m", "wattribute", "--version"], capture_output=True, text=True, check=True)
    assert out.stdout == f"wattribute {__version__}\n"
