"""`wattribute intensity`: which carbon intensity is in force and why; what the provider says now."""

import json
import logging
import os
import shutil
import sys
import time
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from wattribute.agent.cli import print_table
from wattribute.agent.config import Config, Loaded, load
from wattribute.agent.core.errors import ConfigError, WattributeError
from wattribute.agent.core.intensity import rfc3339, unix_ns_of
from wattribute.agent.core.model import CarbonIntensity
from wattribute.agent.grid import Link, chosen, fallbacks, open_feed, open_grid
from wattribute.agent.opening import SystemClock

FILE = click.Path(path_type=Path)
CONFIG = click.option(
    "--config", "file", type=FILE, help="Configuration file  [default: /etc/wattribute/wattribute.toml]"
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
ALL = "*"
FETCHED_NS = 3 * 3600 * 10**9


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A time with its offset, as Unix nanoseconds."""
    try:
        return None if value is None else unix_ns_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.group()
def command() -> None:
    """Show the carbon intensity in force and where it comes from, or ask the provider for it.

    \b
    Example:
      wattribute intensity show
    """


@command.command()
@CONFIG
@AS_JSON
@click.option(
    "--at", "at_unix_ns", metavar="TIME", callback=moment, help="The moment, e.g. 2026-01-31T13:00:00Z  [default: now]"
)
@click.option(
    "--zones", "pattern", is_flag=False, flag_value=ALL, metavar="[PATTERN]", help="List the zones that are known."
)
def show(file: Path | None, as_json: bool, at_unix_ns: int | None, pattern: str | None) -> None:
    """Show the intensity in force: value, bounds, source, and what would count in its place.

    A provider isn't asked: what the agent kept of its last answers counts.

    \b
    Example:
      wattribute intensity show --zones 'US-*'
    """
    _log()
    loaded = load(file, os.environ, {})
    if pattern is not None:
        _zones(loaded.config, pattern, as_json)
        return
    clock = SystemClock()
    state_dir = Path(loaded.config.agent.state_dir)
    grid = open_grid(loaded.config, clock, state_dir, chosen(loaded), asks=False, about_unix_ns=at_unix_ns)
    now_unix_ns = clock.time_ns() if at_unix_ns is None else at_unix_ns
    value, pue = grid.now(now_unix_ns), grid.pue(now_unix_ns)
    links = chain(loaded, value, now_unix_ns)
    if as_json:
        document = {"at": rfc3339(now_unix_ns), **_document(value), "pue": pue, "chain": list(map(_link, links))}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for warning in loaded.warnings:
        click.echo(f"wattribute: warning: {warning}", err=True)
    for name, text in _lines(value, pue):
        click.echo(f"{name:<10} {text}")
    click.echo("\nWhat counts, in this order:")
    for number, link in enumerate(links, 1):
        mark = "<- in force" if link.value is value else ""
        said = link.why if link.value is None else f"{link.value.gco2e_per_kwh:.6g} g/kWh ({link.value.quality})"
        click.echo(f"  {number}. {link.name}: {said}  {mark}".rstrip())


@command.command()
@CONFIG
@AS_JSON
@click.option(
    "--from", "from_unix_ns", metavar="TIME", callback=moment, help="From when on  [default: three hours ago]"
)
@click.option(
    "--to",
    "to_unix_ns",
    metavar="TIME",
    callback=moment,
    help="Until when  [default: now, or as far ahead as it knows]",
)
def fetch(file: Path | None, as_json: bool, from_unix_ns: int | None, to_unix_ns: int | None) -> None:
    """Ask the provider now, and print what it says, or exactly why it can't be used.

    Nothing is kept. Keys come from the environment or provider.key_file.

    \b
    Example:
      wattribute intensity fetch --from 2026-01-31T00:00:00Z --to 2026-02-01T00:00:00Z
    """
    _log()
    config = load(file, os.environ, {}).config
    if config.carbon.provider is None:
        raise ConfigError("there is no provider to ask: carbon.provider isn't set (wattribute intensity show)")
    feed = open_feed(config, os.environ, needs_key=True)
    now_unix_ns = time.time_ns()
    end = now_unix_ns + feed.ahead_ns if to_unix_ns is None else to_unix_ns
    start = min(now_unix_ns, end) - FETCHED_NS if from_unix_ns is None else from_unix_ns
    if start >= end:
        raise click.UsageError("--from must be before --to")
    from wattribute.collectors.grid.feed import Unanswered

    try:
        answer = feed.fetch(start, end, now_unix_ns)
    except Unanswered as error:
        raise WattributeError(f"{config.carbon.provider}: {error}") from error
    if answer.why:
        count = sum(answer.refused.values())
        click.echo(f"wattribute: warning: {config.carbon.provider}: {count} not used: {answer.why}", err=True)
    if as_json:
        about = {"grid_zone": feed.about.zone, "provider": feed.about.provider, "method": feed.about.method}
        rows = [
            {
                "valid_from": rfc3339(one.valid_from_unix_ns),
                "valid_until": rfc3339(one.valid_until_unix_ns),
                "gco2e_per_kwh": one.g_per_kwh,
                "status": one.status,
                **about,
            }
            for one in answer.values
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = [("FROM (UTC)", "UNTIL (UTC)", "G/KWH", "STATUS", "METHOD")]
    table += [
        (
            rfc3339(one.valid_from_unix_ns),
            rfc3339(one.valid_until_unix_ns),
            f"{one.g_per_kwh:.6g}",
            one.status,
            feed.about.method,
        )
        for one in answer.values
    ]
    print_table(table, width=_width(), wrap_last=False)


def chain(loaded: Loaded, value: CarbonIntensity, unix_ns: int) -> list[Link]:
    """The steps from the configured source down to the world's average, each with its value or why it has none.

    The one whose value is `value` is in force.
    """
    carbon = loaded.config.carbon
    if carbon.provider is None:
        name = next((key for key in ("zone", "series", "mix") if getattr(carbon, key) is not None), "")
        if not name:
            name = "intensity_g_per_kwh" if chosen(loaded) else "nothing configured: the world's average"
        return [Link(f"carbon.{name}" if " " not in name else name, value)]
    own = value.provider == carbon.provider
    live = own and (value.valid_until_unix_ns is None or unix_ns < value.valid_until_unix_ns)
    links = [
        Link(carbon.provider, value if live else None, "no value for this moment in what it last said"),
        Link(f"its last value, held on for {_hours()} h", value if own and not live else None, "none"),
    ]
    for link in fallbacks(loaded.config):
        same = link.value is not None and not own and link.value.quality == value.quality
        links.append(Link(link.name, value, link.why) if same else link)
    return links


def _hours() -> int:
    from wattribute.agent.grid_followed import STALE_NS

    return STALE_NS // (3600 * 10**9)


def _zones(config: Config, pattern: str, as_json: bool) -> None:
    from wattribute.agent.config.carbon import table_of

    sought = pattern.casefold()
    zones = [
        zone
        for zone in table_of(config.carbon).zones
        for words in [[word.casefold() for word in (zone.key, zone.also, zone.name)]]
        if any(fnmatchcase(word, sought) or sought in word for word in words if word)
    ]
    if as_json:
        rows = [{**asdict(zone), "g_per_kwh": float(zone.g_per_kwh)} for zone in zones]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif zones:
        table = [("ZONE", "ALSO", "NAME", "G/KWH", "FACTORS", "YEAR", "SOURCE (LICENCE)")]
        for zone in zones:
            figure = f"{float(zone.g_per_kwh):.4g}"
            source = f"{zone.source} ({zone.licence})"
            table.append((zone.key, zone.also, zone.name, figure, zone.factor_type, str(zone.year), source))
        print_table(table, width=_width(), wrap_last=False)
    if not zones:
        raise WattributeError(f"no zone is called {pattern!r}; without a pattern all are listed")


def _document(value: CarbonIntensity) -> dict[str, Any]:
    until, retrieved = value.valid_until_unix_ns, value.retrieved_unix_ns
    return {
        "gco2e_per_kwh": value.gco2e_per_kwh,
        "bounds": [value.low_g_per_kwh, value.high_g_per_kwh],
        "grid_zone": value.zone,
        "provider": value.provider,
        "method": value.method,
        "quality": value.quality,
        "final": value.final,
        "year": value.year,
        "source": value.source,
        "licence": value.licence,
        "valid_from": rfc3339(value.valid_from_unix_ns) if value.valid_from_unix_ns else None,
        "valid_until": None if until is None else rfc3339(until),
        "retrieved_at": None if retrieved is None else rfc3339(retrieved),
    }


def _link(link: Link) -> dict[str, Any]:
    if link.value is None:
        return {"step": link.name, "gco2e_per_kwh": None, "quality": None, "why": link.why}
    return {"step": link.name, "gco2e_per_kwh": link.value.gco2e_per_kwh, "quality": link.value.quality, "why": ""}


def _lines(value: CarbonIntensity, pue: float) -> list[tuple[str, str]]:
    until = value.valid_until_unix_ns
    since = rfc3339(value.valid_from_unix_ns) if value.valid_from_unix_ns else "always"
    bounds = ""
    if value.low_g_per_kwh is not None:
        bounds = f" (between {value.low_g_per_kwh:.4g} and {value.high_g_per_kwh:.4g})"
    lines = [
        ("intensity", f"{value.gco2e_per_kwh:.6g} g CO2e/kWh{bounds}"),
        ("zone", value.zone or "-"),
        ("provider", value.provider),
        ("method", value.method + (": not what JSC is defined on" if value.method.startswith("marginal") else "")),
        ("quality", value.quality + ("" if value.final else ", not final")),
        ("year", "-" if value.year is None else str(value.year)),
        ("source", value.source),
        ("licence", value.licence or "-"),
        ("valid", f"from {since} until {'further notice' if until is None else rfc3339(until)}"),
    ]
    if value.retrieved_unix_ns is not None:
        lines.append(("retrieved", rfc3339(value.retrieved_unix_ns)))
    return [*lines, ("PUE", f"{pue:g}")]


def _width() -> int:
    return shutil.get_terminal_size((200, 24)).columns


def _log() -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="wattribute: warning: %(message)s")
