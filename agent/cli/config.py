"""`wattribute config`: check a file, or show what is in force and where each value came from."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from wattribute.agent.config import Config, Loaded, check_exposure, load
from wattribute.agent.config.addresses import without_password
from wattribute.agent.config.decode import LISTS, SECTIONS
from wattribute.agent.core.errors import ConfigError

FILE = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Check a configuration file, or show the configuration in force.

    \b
    Example:
      wattribute config check /etc/wattribute/wattribute.toml
    """


@command.command()
@click.argument("file", type=FILE)
def check(file: Path) -> None:
    """Check FILE: exit 0 if it is valid, 2 with one line per error if it isn't.

    The file is judged alone, without the environment.

    \b
    Example:
      wattribute config check wattribute.toml
    """
    loaded = load(file, {}, {})
    config = loaded.config
    warnings = [*loaded.warnings, *check_exposure(config, allow_insecure=True)]
    try:
        check_exposure(config, allow_insecure=False)
    except ConfigError as error:  # valid, but the agent will ask for a flag
        warnings.append(str(error))
    click.echo(f"{file}: ok ({summary(config)})")
    for warning in warnings:
        click.echo(f"wattribute: warning: {warning}", err=True)


@command.command()
@click.option("--config", "file", type=FILE, help="Configuration file  [default: /etc/wattribute/wattribute.toml]")
@click.option("--origin", is_flag=True, help="Add where each value came from, as a comment.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all origins.")
def show(file: Path | None, origin: bool, as_json: bool) -> None:
    """Print the configuration in force, as TOML that `config check` accepts.

    A value comes from a flag, a WATTRIBUTE_* variable, the file or the default, in this order.

    \b
    Example:
      WATTRIBUTE_AGENT__INTERVAL_S=0.5 wattribute config show --origin
    """
    loaded = load(file, os.environ, {})
    for warning in loaded.warnings:
        click.echo(f"wattribute: warning: {warning}", err=True)
    if as_json:
        document = {"config": _shown(loaded.config), "origins": dict(loaded.origins)}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for line in to_toml(loaded, origins=origin):
        click.echo(line)


def summary(config: Config) -> str:
    """The few things that a reader of the file would check first."""
    count = len(config.product)
    carbon = config.carbon
    way = next((way for way in ("provider", "series", "zone") if getattr(carbon, way) is not None), "")
    if way:
        grid = f"{way} {getattr(carbon, way)}"
    else:
        grid = "a mix" if carbon.mix is not None else f"{carbon.intensity_g_per_kwh:g} g/kWh"
    products = f"{count} product{'' if count == 1 else 's'}"
    rules = f", {len(config.rule)} rule{'' if len(config.rule) == 1 else 's'}" if config.rule else ""
    return f"every {config.agent.interval_s:g} s, {config.agent.listen}, PUE {carbon.pue:g}, {grid}, {products}{rules}"


def to_toml(loaded: Loaded, *, origins: bool) -> Iterator[str]:
    """The configuration as lines of TOML; a key without a value (derived, or not chosen) is a comment."""
    builtins = _shown(loaded.config)
    plain = [section for section in SECTIONS if section not in LISTS]
    for section in plain:
        yield f"[{section}]"
        for key, value in builtins[section].items():
            tail = f"  # {loaded.origins[f'{section}.{key}']}" if origins else ""
            yield f"# {key} is not set{tail}" if value is None else f"{key} = {_value(value)}{tail}"
        yield ""
    for section in LISTS:
        tail = f"  # {loaded.origins[section]}" if origins else ""
        if not builtins[section]:
            yield f"# no [[{section}]]{tail}"
        for item in builtins[section]:
            yield f"[[{section}]]{tail}"
            yield from (f"{key} = {_value(value)}" for key, value in item.items() if value is not None)
            yield ""


def _shown(config: Config) -> dict[str, Any]:
    builtins: dict[str, Any] = msgspec.to_builtins(config)
    builtins["ledger"]["url"] = without_password(config.ledger.url)
    return builtins


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_value(str(key))} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    return repr(value)
