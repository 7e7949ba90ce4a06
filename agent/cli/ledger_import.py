"""`wattribute ledger import`: other ledgers' exports, and CodeCarbon's emissions.csv, into the archive."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import click

from wattribute.agent.archive import Archive, codecarbon, imports, open_archive
from wattribute.agent.archive.reading import Strand
from wattribute.agent.cli.ledger_options import PATH, config_of, places
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.model import ROLES, Role
from wattribute.agent.core.units import g_of, j_of
from wattribute.agent.identity import problem
from wattribute.agent.ledger.schema import ROWS, Table
from wattribute.exporters import ledger_csv, ledger_jsonl, ledger_parquet
from wattribute.exporters.ledger_rows import Export

READERS: dict[str, Callable[[str], Export]] = {
    "csv": ledger_csv.read,
    "jsonl": ledger_jsonl.read,
    "parquet": ledger_parquet.read,
}
FORMATS = ("auto", *READERS, "codecarbon")


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@places
@click.option("--format", "form", type=click.Choice(FORMATS), default="auto", show_default=True, help="What it is.")
@click.option("--product", metavar="ID", help="CodeCarbon: the product that the runs worked for. [default]")
@click.option("--role", type=click.Choice(ROLES), help="CodeCarbon: the runs' role towards the product. [use]")
@click.option("--job-id", metavar="ID", help="CodeCarbon: the job's id, of a single run. [codecarbon-RUN_ID]")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be imported.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_(
    files: tuple[Path, ...],
    file: Path | None,
    state_dir: str | None,
    form: str,
    product: str | None,
    role: str | None,
    job_id: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import exports of other ledgers, or CodeCarbon's emissions.csv, into the archive.

    An export's chains are verified first; where one breaks, nothing of that file is imported. The same file again
    adds nothing. Each run of an emissions.csv becomes a job codecarbon-RUN_ID; its times, which have no zone, are
    taken as UTC.

    \b
    Example:
      wattribute ledger import --product bert-base --role creation emissions.csv
    """
    for name, value in (("--product", product), ("--job-id", job_id)):
        wrong = None if value is None else problem(value)
        if wrong:
            raise click.UsageError(f"{name} {value!r}: {wrong}")
    kinds = [_kind(path) if form == "auto" else form for path in files]
    given = [name for name, value in (("--product", product), ("--role", role), ("--job-id", job_id)) if value]
    if given and set(kinds) != {"codecarbon"}:
        raise click.UsageError(
            f"{given[0]} is for CodeCarbon's emissions.csv; an export says itself whose its rows are"
        )
    done = []
    with open_archive(config_of(file, state_dir)) as archive:
        for path, kind in zip(files, kinds, strict=True):
            if kind == "codecarbon":
                found = codecarbon.runs(
                    str(path), product_id=product or "default", role=cast(Role, role or "use"), job_id=job_id
                )
                done.append(_codecarbon(archive, path, found, dry_run=dry_run))
            else:
                done.append(_export(archive, READERS[kind](str(path)), dry_run=dry_run))
            if not as_json:
                click.echo(done[-1].pop("summary"))
    if as_json:
        for one in done:
            del one["summary"]
        click.echo(json.dumps(done, indent=2, ensure_ascii=False))


def _kind(path: Path) -> str:
    """What a file is, by its first bytes. Raises LedgerError."""
    try:
        with open(path, "rb") as file:
            start = file.read(1 << 16)
    except OSError as error:
        raise LedgerError(f"{path} can't be read: {error.strerror}") from error
    if start.startswith(b"PAR1"):
        return "parquet"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise LedgerError(f"{path} is empty")
    if text.startswith(b"{"):
        return "jsonl"
    try:
        header = next(csv.reader([text.partition(b"\n")[0].decode(errors="replace").rstrip("\r")]), [])
    except csv.Error:
        header = []
    if b"\0" in start or not header:
        raise LedgerError(f"{path} is neither an export of wattribute's nor an emissions.csv of CodeCarbon")
    return "csv" if {"record", "chain", "hash"} <= set(header) else "codecarbon"


def _export(archive: Archive, export: Export, *, dry_run: bool) -> dict[str, Any]:
    table = cast(Table, export.about.table)

    def rows() -> Iterator[imports.Brought]:
        for row in export.rows():
            yield imports.Brought(row.chain, row.position, ROWS[table](*row.values), row.hash)

    bundle = imports.Bundle(
        path=export.path,
        table=table,
        schema=export.about.schema,
        partial=export.about.partial,
        strands=[
            Strand(head.chain, head.node_id, head.parent, head.forked_after, head.rows, head.hash)
            for head in export.about.heads
            if head.node_id
        ],
        rows=rows,
    )
    taken = imports.take(archive, bundle, dry_run=dry_run)
    nodes = f"{len(taken.nodes)} node{'' if len(taken.nodes) == 1 else 's'}"
    refused = f", {taken.refused} refused: their keys have another content" if taken.refused else ""
    return {
        "file": export.path,
        "format": "export",
        "table": table,
        "dry_run": dry_run,
        "nodes": taken.nodes,
        "rows": taken.rows,
        "added": taken.added,
        "known": taken.known,
        "refused": taken.refused,
        "summary": f"{export.path}: {taken.rows} rows of {table} of {nodes}, chains sound: "
        f"{_added(taken.added, dry_run)}, {taken.known} known before{refused}",
    }


def _codecarbon(archive: Archive, path: Path, found: list[codecarbon.Run], *, dry_run: bool) -> dict[str, Any]:
    taken = codecarbon.take(archive, found, dry_run=dry_run)
    fresh = [*taken.new, *taken.longer]
    energy_uj, emissions_ng = sum(run.energy_uj for run in fresh), sum(run.emissions_ng for run in fresh)
    amounts = f" ({j_of(energy_uj):.6g} J, {g_of(emissions_ng):.6g} g CO2e)" if fresh else ""
    longer = f", {len(taken.longer)} longer than before" if taken.longer else ""
    return {
        "file": str(path),
        "format": "codecarbon",
        "dry_run": dry_run,
        "runs": len(found),
        "added": [run.job_id for run in taken.new],
        "longer": [run.job_id for run in taken.longer],
        "known": [run.job_id for run in taken.known],
        "energy_uj": energy_uj,
        "co2e_ng": emissions_ng,
        "summary": f"{path}: {len(found)} run{'' if len(found) == 1 else 's'} of CodeCarbon: "
        f"{_added(len(taken.new), dry_run)}{longer}{amounts}, {len(taken.known)} known before",
    }


def _added(count: int, dry_run: bool) -> str:
    if not count:
        return "nothing to add" if dry_run else "nothing added"
    return f"{count} would be added" if dry_run else f"{count} added"
