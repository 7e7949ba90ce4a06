"""`wattribute report`: the carbon data sheet of a job, a product or all nodes, in the formats that others read."""

import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from wattribute.agent.cli import write_file
from wattribute.agent.core.errors import WattributeError

if TYPE_CHECKING:
    from wattribute.agent.archive import Archive
    from wattribute.agent.config import Loaded
    from wattribute.agent.report import Asked
    from wattribute.exporters.report.sheet import Sheet

FORMATS = {
    "html": "One self-contained HTML file, with charts.",
    "markdown": "Markdown (the default).",
    "json": "JSON (wattribute.report/1); numbers are exact.",
    "model-card": "Hugging Face front matter: co2_eq_emissions, in grams.",
    "codecarbon-csv": "CodeCarbon's emissions.csv, one row per job, in kilograms and kWh.",
    "cyclonedx": "A CycloneDX 1.6 ML-BOM, in kWh and tonnes.",
    "sci": "The SCI score (ISO/IEC 21031), in grams per functional unit; see --unit.",
    "ghg": "Scopes 1 to 3 of the GHG Protocol, in tonnes.",
}
BY_SUFFIX = {
    ".html": "html",
    ".htm": "html",
    ".json": "json",
    ".csv": "codecarbon-csv",
    ".md": "markdown",
    ".txt": "markdown",
}
Unit: TypeAlias = tuple[str, Decimal | None]
"""A functional unit and how many were served; None: as many as the ledger has."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unix_ns(text: str) -> int:
    """A day (its beginning in UTC) or an RFC 3339 time with its offset, as Unix nanoseconds. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and len(text) == len("2026-01-31"):
            moment = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 2026-01-31 or 2026-01-31T13:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset, so it could be any zone's: write {text}Z for UTC")
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def _time(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else unix_ns(text)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error)) from error


def _decimal(text: str, least: Decimal, *, above: bool = False) -> Decimal:
    try:
        value = Decimal(text)
    except ArithmeticError:
        raise click.BadParameter(f"{text!r} is no number") from None
    if not value.is_finite() or value < least or (above and value == least) or abs(value.adjusted()) > 30:
        raise click.BadParameter(f"{text} isn't {'above' if above else 'at least'} {least}, or is beyond what can be")
    return value


def _unit(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Unit | None:
    if text is None:
        return None
    name, given, count = text.rpartition("=") if "=" in text else (text, "", "")
    if not name.strip():
        raise click.BadParameter(f"{text!r}: write NAME=COUNT, such as token=1000000, or NAME alone")
    return name.strip(), _decimal(count, Decimal(0), above=True) if given else None


def _factor(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Decimal | None:
    return None if text is None else _decimal(text, Decimal(0))


def _options(*formats: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that all sheets have, and the formats that this one can be in."""
    options: list[Any] = [
        click.option(
            "--from", "start", callback=_time, metavar="TIME", help="From this day or time on (UTC, RFC 3339)."
        ),
        click.option("--to", "end", callback=_time, metavar="TIME", help="Until before this day or time."),
        *(click.option(f"--{name}", name.replace("-", "_"), is_flag=True, help=FORMATS[name]) for name in formats),
        click.option(
            "--unit",
            callback=_unit,
            metavar="NAME[=COUNT]",
            help="For --sci: the functional unit, and how many were served; without a count, as metered requests say.",
        ),
        click.option(
            "--market-g-per-kwh",
            "market",
            callback=_factor,
            metavar="G",
            help="For --ghg: the factor of the electricity's contract, for scope 2 by market.",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            help="Write to this file, all of it or nothing; its suffix decides the format where no option does.",
        ),
        click.option(
            "--config",
            "file",
            type=click.Path(path_type=Path),
            help="Configuration file  [default: /etc/wattribute/wattribute.toml]",
        ),
    ]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group()
def command() -> None:
    """Write a carbon data sheet: energy, terms up to ASC^e with their bounds, taxes, EPC and lineage, method, sources.

    \b
    Example:
      wattribute report job bert-ft-7 -o bert-ft-7.html
    """


@command.command()
@click.argument("job_id")
@_options(*FORMATS)
def job(job_id: str, **options: Any) -> None:
    """The sheet of one job.

    \b
    Example:
      wattribute report job bert-ft-7 --model-card
    """

    def collect(archive: "Archive", loaded: "Loaded", asked: "Asked") -> "Sheet":
        from wattribute.agent.report import job_sheet

        return job_sheet(archive, loaded, job_id, asked, lambda: _receipts(options["file"]))

    _report(collect, options)


@command.command()
@click.argument("product_id")
@_options(*FORMATS)
def product(product_id: str, **options: Any) -> None:
    """The sheet of a product: its jobs, what it cost to make, where it came from, what was paid back.

    \b
    Example:
      wattribute report product bert-base -o bert-base.html
    """

    def collect(archive: "Archive", loaded: "Loaded", asked: "Asked") -> "Sheet":
        from wattribute.agent.report import product_sheet

        return product_sheet(archive, loaded, product_id, asked, lambda: _receipts(options["file"]))

    _report(collect, options)


@command.command()
@_options("html", "markdown", "json", "codecarbon-csv", "sci", "ghg")
def node(**options: Any) -> None:
    """The sheet of all nodes that the ledger knows: what was emitted, by jobs of every role and what nobody pays for.

    \b
    Example:
      wattribute report node --from 2026-01-01 --to 2026-02-01 --ghg
    """

    def collect(archive: "Archive", loaded: "Loaded", asked: "Asked") -> "Sheet":
        from wattribute.agent.report import node_sheet

        return node_sheet(archive, loaded, asked)

    _report(collect, options)


def _receipts(file: Path | None) -> list[dict[str, Any]]:
    """Those that this machine knows."""
    from wattribute.agent.cli.known import receipts

    return receipts({**os.environ, "WATTRIBUTE_CONFIG": str(file)} if file else os.environ)


def _report(collect: Callable[["Archive", "Loaded", "Asked"], "Sheet"], options: dict[str, Any]) -> None:
    form = _form(options)
    start, end = options["start"], options["end"]
    if start is not None and end is not None and start >= end:
        raise click.UsageError("--from isn't before --to")
    from wattribute.agent.archive import open_archive
    from wattribute.agent.config import load
    from wattribute.agent.report import Asked

    asked = Asked(
        now_unix_ns=time.time_ns(),
        from_unix_ns=start,
        to_unix_ns=end,
        runs=form == "codecarbon-csv",
        curve=form in ("html", "json"),
        hours=form == "ghg",
    )
    loaded = load(options["file"], os.environ, {})
    for warning in loaded.warnings:
        click.echo(f"wattribute: warning: {warning}", err=True)
    with open_archive(loaded.config) as archive:
        sheet = collect(archive, loaded, asked)
    try:
        text = render(sheet, form, options["unit"], options["market"])
    except ValueError as error:
        raise WattributeError(str(error)) from error
    _write(text, options["output"])


def _form(options: dict[str, Any]) -> str:
    chosen = [name for name in FORMATS if options.get(name.replace("-", "_"))]
    if len(chosen) > 1:
        raise click.UsageError(f"one format at a time, not --{' and --'.join(chosen)}")
    output = options["output"]
    suffix = output.suffix.lower() if output else ""
    if suffix and not chosen and suffix not in BY_SUFFIX:
        raise click.UsageError(f"no format is written as {suffix}: take {', '.join(BY_SUFFIX)}, or name the format")
    form = chosen[0] if chosen else BY_SUFFIX.get(suffix, "markdown")
    if options["unit"] and form != "sci":
        raise click.UsageError("--unit is for --sci")
    if options["market"] is not None and form != "ghg":
        raise click.UsageError("--market-g-per-kwh is for --ghg")
    return form


def render(sheet: "Sheet", form: str, unit: Unit | None, market: Decimal | None) -> str:
    """A sheet's text in one of FORMATS. Raises ValueError where it can't be said in that format."""
    if form == "html":
        from wattribute.exporters.report.html import html

        return html(sheet)
    if form == "markdown":
        from wattribute.exporters.report.markdown import markdown

        return markdown(sheet)
    if form in ("model-card", "cyclonedx", "sci", "ghg") and not sheet.total.electricity_known:
        raise ValueError(f"no energy of {sheet.id!r} is known. That isn't 0, so --{form} has no figure of it")
    if form == "model-card":
        from wattribute.exporters.model_card import model_card

        return model_card(sheet)
    if form == "codecarbon-csv":
        from wattribute.exporters.codecarbon_csv import codecarbon_csv

        return codecarbon_csv(sheet)
    from wattribute.exporters.report.exact import json_text

    if form == "cyclonedx":
        from wattribute.exporters.cyclonedx import cyclonedx

        return json_text(cyclonedx(sheet))
    if form == "sci":
        from wattribute.exporters.sci import jobs_served, sci

        return json_text(sci(sheet, *(unit or jobs_served(sheet))))
    if form == "ghg":
        from wattribute.exporters.ghg import ghg

        return json_text(ghg(sheet, market))
    from wattribute.exporters.report.data import to_dict

    return json_text(to_dict(sheet))


def _write(text: str, output: Path | None) -> None:
    if output is None or str(output) == "-":
        click.echo(text, nl=False)
        return
    write_file(output, text)
