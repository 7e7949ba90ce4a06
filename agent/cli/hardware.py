"""`doctor --embodied`: what this machine is made of, what that cost to make, and the tables that say so."""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from wattribute.agent.cli import print_table
from wattribute.agent.config import Config
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.units import NS_PER_S, YEAR_S, g_of
from wattribute.agent.embodied import LIFETIME_YEARS, Part, propose, toml
from wattribute.agent.wiring import components

HOURS = YEAR_S // 3600


def look(config: Config) -> dict[str, Any]:
    """Everything that there is to say, as plain JSON values; kg CO2e, each figure as low, central and high."""
    from wattribute.collectors.catalogue import catalogue
    from wattribute.collectors.inventory import take

    inventory = take(Path(config.paths.proc), Path(config.paths.sys))
    gpus = gpu_names(config)
    proposal = propose(inventory, gpus, catalogue())
    mass = proposal.mass
    return {
        "found": {**asdict(inventory), "gpus": gpus},
        "parts": [_part(part) for part in proposal.parts],
        "kgco2e": _kg(mass),
        "lifetime_years": LIFETIME_YEARS,
        "kgco2e_per_year": _kg(mass, 1 / LIFETIME_YEARS),
        "gco2e_per_hour": _kg(mass, 1000 / LIFETIME_YEARS / HOURS),
        "notes": list(proposal.notes),
        "toml": toml(proposal),
        "in_force": _in_force(config, gpus),
    }


def show(found: Mapping[str, Any]) -> None:
    """The same for people."""
    width = shutil.get_terminal_size((120, 24)).columns
    rows = [("ITEM", "SURE", "KG CO2E", "STANDS FOR")]
    rows += [(part["item"], part["sure"], _range(part["kgco2e"]), part["found"]) for part in found["parts"]]
    print_table(rows, width=width)
    click.echo(f"\nTogether: {_range(found['kgco2e'])} kg CO2e")
    click.echo(
        f"Over {found['lifetime_years']} years: {_range(found['kgco2e_per_year'])} kg a year, "
        f"{_range(found['gco2e_per_hour'])} g an hour"
    )
    for note in found["notes"]:
        click.echo(f"Note: {note}")
    click.echo(f"In force: {found['in_force']['what']}, {_range(found['in_force']['gco2e_per_hour'])} g an hour")
    click.echo("\nWhere the figures come from:")
    for part in found["parts"]:
        click.echo(f"  {part['item']}: {_whence(part)}")
    click.echo("\nTo say so in the configuration:\n")
    click.echo(found["toml"], nl=False)


def gpu_names(config: Config) -> list[str]:
    """The product name of each GPU that the driver shows; none where there is no driver."""
    if config.collectors.nvml == "off":
        return []
    from wattribute.collectors.nvml import NvmlCollector

    try:
        collector = NvmlCollector(time.monotonic_ns, lambda pid: None, proc=Path(config.paths.proc))
        try:
            collector.read()
            return list(collector.names().values())
        finally:
            collector.close()
    except SensorUnavailable as error:
        logging.getLogger("wattribute").debug("%s", error)
        return []


def _in_force(config: Config, gpus: list[str]) -> dict[str, Any]:
    """What the agent bills by this configuration."""
    parts, assumed = components(config, gpus)
    what = "assumed, since no [[embodied]] is configured" if assumed else f"{len(parts)} [[embodied]] tables"
    rates = [sum(part.rates()[end] for part in parts) for end in range(3)]
    low, central, high = (float(rate) * 3600 / NS_PER_S / NS_PER_S for rate in rates)
    return {"configured": not assumed, "what": what, "gco2e_per_hour": {"low": low, "central": central, "high": high}}


def _part(part: Part) -> dict[str, Any]:
    item = asdict(part.item)
    each = {name: item.pop(name) for name in ("low", "central", "high")}
    for name in ("exact", "close", "hgx", "id"):
        item.pop(name)
    return {
        "found": part.found,
        "item": part.item.id,
        "sure": part.sure,
        "count": float(part.count),
        "kgco2e": _kg(part.mass),
        "kgco2e_each": each,
        **item,
    }


def _kg(mass: Bounded, times: float = 1.0) -> dict[str, float]:
    return {name: round(g_of(getattr(mass, name)) / 1000 * times, 6) for name in ("low", "central", "high")}


def _range(kg: Mapping[str, float]) -> str:
    return f"{_figure(kg['central'])} ({_figure(kg['low'])} to {_figure(kg['high'])})"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _whence(part: Mapping[str, Any]) -> str:
    each, per = part["kgco2e_each"], "per GB" if part["unit"] == "GB" else "each"
    figures = f"{each['central']:g} kg {per} ({each['low']:g} to {each['high']:g}), {part['boundary']}, {part['year']}"
    return "; ".join(text for text in (figures, part["derived"], part["source"]) if text)
