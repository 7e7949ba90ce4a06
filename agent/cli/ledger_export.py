"""`wattribute ledger export`: closed rows as CSV, JSON lines or Parquet, with all that is needed to verify them."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast, get_args

import click

from wattribute.agent.archive import open_archive
from wattribute.agent.archive.store import Archive
from wattribute.agent.cli.ledger_options import PATH, config_of, places
from wattribute.agent.cli.product_words import Moment
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.reader import Reader, read_only
from wattribute.agent.ledger.schema import NO_HASH, SCHEMA_VERSION, Table
from wattribute.exporters import ledger_csv, ledger_jsonl, ledger_parquet
from wattribute.exporters.ledger_rows import About, Head, Row

FORMATS = ("csv", "jsonl", "parquet")
SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
ROWS_AT_ONCE = 2000
STDOUT = Path("-")


@click.command()
@places
@click.option("--format", "form", type=click.Choice(FORMATS), help="[by the file's name, else csv]")
@click.option("-o", "--output", "path", type=PATH, default=STDOUT, metavar="FILE", help="Where to; -: stdout. [-]")
@click.option("--from", "from_unix_ns", type=Moment(), help="Only windows that end after this.")
@click.option("--to", "to_unix_ns", type=Moment(), help="Only windows that start before this.")
@click.option(
    "--table", type=click.Choice(get_args(Table)), default="windows", show_default=True, help="Which rows to export."
)
@click.option("--local", is_flag=True, help="Only what this node's own ledger.db holds, not all nodes of the archive.")
def export(
    file: Path | None,
    state_dir: str | None,
    form: str | None,
    path: Path,
    from_unix_ns: int | None,
    to_unix_ns: int | None,
    table: str,
    local: bool,
) -> None:
    """Export the closed rows of all nodes, with positions and hashes, so that they can be verified elsewhere.

    docs/ledger.md says what each column holds. `wattribute ledger import` takes an export in again; one of a stretch
    of time only where the archive has what comes before it.

    \b
    Example:
      wattribute ledger export --table windows -o windows.parquet
    """
    form = form or SUFFIXES.get(path.suffix, "csv")
    if form == "parquet" and path == STDOUT:
        raise click.UsageError("Parquet isn't written to a terminal or a pipe: give -o FILE")
    if from_unix_ns is not None and to_unix_ns is not None and from_unix_ns >= to_unix_ns:
        raise click.UsageError("--from is not before --to")
    config = config_of(file, state_dir)
    which = cast(Table, table)
    with contextlib.ExitStack() as stack:
        if local:
            reader = stack.enter_context(read_only(Path(config.agent.state_dir)))
            about, rows = _of_ledger(reader, which, from_unix_ns, to_unix_ns)
        else:
            archive = stack.enter_context(open_archive(config))
            about, rows = _of_archive(archive, which, from_unix_ns, to_unix_ns)
        _write(path, form, about, rows)


def _of_archive(archive: Archive, table: Table, first: int | None, last: int | None) -> tuple[About, Iterator[Row]]:
    strands = archive.strands(table)
    heads = [
        Head(
            chain=one.chain,
            node_id=one.node_id,
            rows=one.rows,
            hash=one.hash,
            parent=one.parent,
            forked_after=one.forked_after,
        )
        for one in strands
    ]

    def rows() -> Iterator[Row]:
        for strand in strands:
            for one in archive.kept(table, strand, from_unix_ns=first, to_unix_ns=last):
                yield Row(one.record, strand.chain, one.position, tuple(one.row), one.hash)

    return _about(table, heads, first, last), rows()


def _of_ledger(reader: Reader, table: Table, first: int | None, last: int | None) -> tuple[About, Iterator[Row]]:
    # A ledger of the first version has no corrections.
    end, kept = next(((head.rows, head.hash.hex()) for head in reader.heads() if head.table == table), (0, ""))
    begin = reader.chain(table, 0, 1)
    # Whose chain it is: the node may have another name by now.
    node_id = begin[0][1].node_id if begin else ""
    heads = [Head(chain=1, node_id=node_id, rows=end, hash=kept)] if end else []
    start_at, end_at = {"windows": (2, 5), "gaps": (4, 5), "corrections": (6, 8)}[table]

    def rows() -> Iterator[Row]:
        after = 0
        while after < end:
            some = reader.chain(table, after, min(ROWS_AT_ONCE, end - after))
            if not some:
                raise LedgerError(f"{table} ends at {after} of {end} rows. Fix: wattribute ledger verify")
            for position, row, hash_ in some:
                values: tuple[Any, ...] = tuple(row)
                if (first is None or values[end_at] > first) and (last is None or values[start_at] < last):
                    yield Row("row", 1, position, values, hash_.hex())
            after = some[-1][0]

    return _about(table, heads, first, last), rows()


def _about(table: Table, heads: list[Head], first: int | None, last: int | None) -> About:
    # A table without rows says so by a head of nobody's: else it couldn't be told from an export that was cut off.
    heads = heads or [Head(chain=0, node_id="", rows=0, hash=NO_HASH.hex())]
    return About(table=table, schema=SCHEMA_VERSION, heads=heads, partial=first is not None or last is not None)


def _write(path: Path, form: str, about: About, rows: Iterator[Row]) -> None:
    if path == STDOUT:
        out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="", write_through=False)
        try:
            _write_text(out, form, about, rows)
            out.flush()
        finally:
            out.detach()
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.exists() and not path.is_file():  # a pipe, or /dev/null: nothing takes its place
            if form == "parquet":
                raise click.UsageError(f"Parquet isn't written to a terminal or a pipe: {path} is no file")
            with open(path, "w", encoding="utf-8", newline="") as out:
                _write_text(out, form, about, rows)
            return
        try:
            if form == "parquet":
                ledger_parquet.write(str(aside), about, rows)
            else:
                with open(aside, "x", encoding="utf-8", newline="") as out:
                    _write_text(out, form, about, rows)
            with open(aside, "rb") as written:
                os.fsync(written.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise LedgerError(f"{path} can't be written: {error.strerror or error}") from error


def _write_text(out: IO[str], form: str, about: About, rows: Iterator[Row]) -> None:
    (ledger_csv if form == "csv" else ledger_jsonl).write(out, about, rows)
