"""`wattribute doctor`: what can be measured on this machine, what can't and why, and the one command that mends it."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import click

from wattribute.agent.cli import print_table
from wattribute.agent.cli.findings import examine
from wattribute.agent.config import Config, load
from wattribute.agent.core.model import Finding


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="Configuration file  [default: /etc/wattribute/wattribute.toml]",
)
@click.option("--embodied", is_flag=True, help="Say instead what this machine cost to make, and how to configure it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one object per source (or what was found).")
def command(file: Path | None, embodied: bool, as_json: bool) -> None:
    """Say what can be measured here: each source, whether it can be read, how well, and what would mend it.

    Exit code 1 if a source that the configuration names or requires can't be read.

    \b
    Example:
      wattribute doctor
      wattribute doctor --embodied
    """
    loaded = load(file, os.environ, {})
    if embodied:
        from wattribute.agent.cli import hardware

        found = hardware.look(loaded.config)
        if as_json:
            click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        else:
            hardware.show(found)
        return
    findings = list(examine(loaded.config))
    # A finding without a quality tells of something that isn't counted, as the cores inside a package.
    readable = {finding.source for finding in findings if finding.ok and finding.quality}
    lacking = sorted(required(loaded.config) - readable)
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
    if config.collectors.wall != "off":
        named.add("wall")
    return named.union(config.collectors.require)


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
