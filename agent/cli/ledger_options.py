"""What the ledger's commands have in common: which configuration, which state directory."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from wattribute.agent.archive import file_of, is_local
from wattribute.agent.config import Config, load

PATH = click.Path(path_type=Path)


def places(function: Callable[..., None]) -> Callable[..., None]:
    """Adds --config and --state-dir."""
    options: list[Callable[[Any], Any]] = [
        click.option(
            "--config", "file", type=PATH, help="Configuration file  [default: /etc/wattribute/wattribute.toml]"
        ),
        click.option("--state-dir", metavar="DIR", help="Where the ledger is kept."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def config_of(file: Path | None, state_dir: str | None) -> Config:
    """The configuration in force. Raises ConfigError."""
    return load(file, os.environ, {"agent.state_dir": state_dir}).config


def archive_is_there(config: Config) -> bool:
    """Whether there is an archive to look at without making one; a PostgreSQL is there until it is asked."""
    return not is_local(config) or file_of(config).is_file()
