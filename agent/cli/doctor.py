"""`wattribute doctor`: what can be measured on this machine, what can't and why, and the one command that mends it."""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click

from wattribute.agent.cli import print_table
from wattribute.agent.client import Client
from wattribute.agent.config import Config, listen_address, load
from wattribute.agent.core.errors import SensorUnavailable, WattributeError
from wattribute.agent.core.model import Collector, EnergyReading, Finding


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="Configuration file  [default: /etc/wattribute/wattribute.toml]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one object per source.")
def command(file: Path | None, as_json: bool) -> None:
    """Say what can be measured here: each source, whether it can be read, how well, and what would mend it.

    Exit code 1 if a source that the configuration names or requires can't be read.

    \b
    Example:
      wattribute doctor
    """
    loaded = load(file, os.environ, {})
    findings = list(examine(loaded.config))
    lacking = sorted(required(loaded.config) - {finding.source for finding in findings if finding.ok})
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        for warning in loaded.warnings:
            click.echo(f"wattribute: warning: {warning}", err=True)
        show(findings)
    for source in lacking:
        click.echo(f"wattribute: error: {source} is required by the configuration, and can't be read", err=True)
    raise click.exceptions.Exit(1 if lacking else 0)


def required(config: Config) -> set[str]:
    """The sources without which the agent wouldn't start."""
    named = {"rapl"} if config.collectors.rapl in ("powercap", "pyrapl") else set[str]()
    return named.union(config.collectors.require)


def examine(config: Config) -> Iterator[Finding]:
    """Looks at every source once. Raises nothing for a machine without any."""
    if config.collectors.rapl == "off":
        yield _switched_off("rapl")
    elif config.collectors.rapl == "pyrapl":
        from wattribute.collectors.pyrapl import PyRaplCollector

        yield from read_once("rapl", "pyRAPL", lambda: PyRaplCollector(time.monotonic_ns))
    else:
        from wattribute.collectors.rapl import probe as probe_rapl

        yield from probe_rapl(Path(config.paths.sys))
    if config.collectors.nvml == "off":
        yield _switched_off("nvml")
    else:
        from wattribute.collectors.nvml import probe as probe_nvml

        yield from probe_nvml(clock=time.monotonic_ns)
    yield from _computed(config)
    yield look_at_state(Path(config.agent.state_dir))
    agent = look_at_agent(config.agent.socket)
    yield agent
    yield look_at_port(config.agent.listen, agent_runs=agent.ok)


def _switched_off(source: str) -> Finding:
    return Finding(
        source=source, path="", ok=False, why="off in the configuration", fix=f'collectors.{source} = "auto"'
    )


def _computed(config: Config) -> Iterator[Finding]:
    return iter(())


def read_once(source: str, path: str, start: Callable[[], Collector]) -> Iterator[Finding]:
    """One Finding per energy counter of a collector that has no probe of its own."""
    try:
        collector = start()
        try:
            readings = collector.read()
        finally:
            collector.close()
    except SensorUnavailable as error:
        yield Finding(source=source, path=path, ok=False, why=error.cause, fix=error.fix)
        return
    for reading in readings:
        if isinstance(reading, EnergyReading):
            yield Finding(
                source=source,
                path=path,
                ok=True,
                why=f"{reading.domain.kind} {reading.domain.id}: readable",
                wraps_at_uj=reading.wraps_at_uj,
                value=f"{reading.energy_uj} uJ",
                quality=reading.quality,
            )


def look_at_state(state_dir: Path) -> Finding:
    """Whether the ledger can be kept: in the directory, or in one that can still be made."""
    there = state_dir
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        free = shutil.disk_usage(there).free
        why = "writable" if there == state_dir else f"doesn't exist yet; {there} is writable"
        return Finding(source="state", path=str(state_dir), ok=True, why=why, value=f"{free / 2**30:.1f} GiB free")
    why = f"{there} isn't writable" if there.is_dir() else f"{there} isn't a directory"
    fix = f'sudo install -d -o "$USER" {state_dir}' if there.is_dir() else f"mv {there} {there}.old"
    return Finding(source="state", path=str(state_dir), ok=False, why=why, fix=fix)


def look_at_agent(path: str) -> Finding:
    """Whether an agent answers on the control socket. Jobs work without one: they are measured in-process."""
    if not os.path.lexists(path):
        why, fix = "no agent runs: jobs are measured in-process", "wattribute agent"
        return Finding(source="agent", path=path, ok=False, why=why, fix=fix)
    try:
        hello = Client(path).call("hello")
    except WattributeError as error:
        return Finding(source="agent", path=path, ok=False, why=str(error), fix="wattribute agent")
    return Finding(
        source="agent",
        path=path,
        ok=True,
        why=f"an agent answers, version {hello.get('version')}",
        resolution=f"every {hello.get('interval_s')} s",
    )


def look_at_port(listen: str, *, agent_runs: bool) -> Finding:
    """Whether /metrics can be served there, or already is."""
    host, port = listen_address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()
    except OSError as error:
        if agent_runs:
            return Finding(source="http", path=listen, ok=True, why="in use, while an agent runs: likely by it")
        other = "127.0.0.1:19918" if port == 19917 else "127.0.0.1:19917"
        fix = f"wattribute agent --listen {other}"
        return Finding(source="http", path=listen, ok=False, why=f"{error.strerror or error}", fix=fix)
    return Finding(source="http", path=listen, ok=True, why="free for /metrics")


def show(findings: list[Finding]) -> None:
    """A table of what was found, then the steps that would mend what is wrong."""
    rows = [("SOURCE", "STATE", "QUALITY", "WHAT WAS FOUND")]
    rows += [(one.source, "ok" if one.ok else "no", one.quality or "", _what(one)) for one in findings]
    print_table(rows, width=shutil.get_terminal_size((120, 24)).columns)
    fixes = dict.fromkeys((finding.source, finding.fix) for finding in findings if finding.fix and not finding.ok)
    if fixes:
        click.echo("\nTo mend it:")
        for source, fix in fixes:
            click.echo(f"  {source}: {fix}")


def _what(finding: Finding) -> str:
    wrap = f"wraps at {finding.wraps_at_uj / 1e6:,.0f} J" if finding.wraps_at_uj else ""
    found = "; ".join(part for part in (finding.why, finding.value, finding.resolution, wrap) if part)
    return f"{finding.path}: {found}" if finding.path else found
