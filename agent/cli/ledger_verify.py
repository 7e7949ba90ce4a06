"""`wattribute ledger verify`: chains, sums and heads, of this node's ledger and of the archive."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import click

from wattribute.agent.archive import Archive, Unreachable, open_archive
from wattribute.agent.archive.schema import hash_of_event
from wattribute.agent.cli.ledger_options import PATH, archive_is_there, config_of, places
from wattribute.agent.config import Config
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.ledger.files import DATABASE
from wattribute.agent.ledger.reader import Reader, read_only
from wattribute.agent.ledger.schema import CHAINS, NO_HASH, Table

EVENTS = "product_events"
LEDGER, ARCHIVE = "ledger", "archive/"


class Head(NamedTuple):
    """The end of a chain as it is printed: kept elsewhere, it proves every row before it."""

    hash: str
    rows: int
    where: str  # ledger, or archive/CHAIN
    table: str
    node_id: str

    def line(self) -> str:
        """One line: the node comes last, since it may hold spaces."""
        return f"{self.hash} {self.rows} {self.where} {self.table} {self.node_id or '-'}"

    @classmethod
    def of(cls, line: str) -> "Head":
        """What `line` gave. Raises ValueError."""
        hash_, rows, where, table, node_id = line.rstrip("\n").split(" ", 4)
        known = where == LEDGER or where.startswith(ARCHIVE)
        if len(bytes.fromhex(hash_)) != 32 or int(rows) < 0 or table not in (*CHAINS, EVENTS) or not known:
            raise ValueError(line)
        return cls(hash_, int(rows), where, table, "" if node_id == "-" else node_id)


@dataclass(slots=True, kw_only=True)
class Found:
    """What came out of one store."""

    name: str
    heads: list[Head] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)


@click.command()
@places
@click.option("--head", "heads_only", is_flag=True, help="Print only each chain's head: HASH ROWS WHERE TABLE NODE.")
@click.option("--against", type=PATH, metavar="FILE", help="Check that heads printed earlier are still in the chains.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(file: Path | None, state_dir: str | None, heads_only: bool, against: Path | None, as_json: bool) -> None:
    """Check every row of the ledger: nothing was changed, taken out or put in, and everything adds up.

    Every row's hash follows from the row before it; closed rows of each job hold what its totals say; all jobs and
    what nobody paid are the node's joules; nothing falls. The archive is checked too, where there is one. Exit code 1
    when something is wrong; each problem names the row.

    Somebody who may write to the file can make its chains anew. Keep what --head prints somewhere else, and check
    with --against later.

    \b
    Example:
      wattribute ledger verify --head > heads.txt
    """
    config = config_of(file, state_dir)
    kept = [] if against is None else _read_heads(against)
    found = list(_verified(config, kept))
    wrong = any(one.problems for one in found)
    if as_json:
        click.echo(json.dumps({"sound": not wrong, "stores": [_as_json(one) for one in found]}, indent=2))
    else:
        for one in found:
            _print(one, heads_only=heads_only)
        if against is not None and not wrong and not heads_only:
            click.echo(f"{against}: {len(kept)} head{'' if len(kept) == 1 else 's'}, all in their chains")
    if wrong:
        raise click.exceptions.Exit(1)


def _verified(config: Config, kept: list[Head]) -> Iterator[Found]:
    state_dir = Path(config.agent.state_dir)
    with_archive = archive_is_there(config)
    with_ledger = (state_dir / DATABASE).is_file() or not with_archive
    for looked_at, which, name in ((with_ledger, LEDGER, state_dir / DATABASE), (with_archive, ARCHIVE, "the archive")):
        heads = [] if looked_at else [head for head in kept if head.where.startswith(which)]
        if heads:
            found = Found(name=str(name))
            for head in heads:
                _compare(found, head, None)
            yield found
    if with_ledger:
        with read_only(state_dir) as reader:
            found = _ledger(reader, str(state_dir / DATABASE))
            for head in kept:
                if head.where == LEDGER:
                    rows = reader.chain(head.table, head.rows - 1, 1) if head.table in CHAINS else []
                    there = rows[0][2].hex() if rows and rows[0][0] == head.rows else None
                    _compare(found, head, NO_HASH.hex() if head.rows == 0 else there)
        yield found
    if with_archive:
        try:
            yield _archived(config, kept)
        except Unreachable as error:
            if not with_ledger:
                raise
            yield Found(name="the archive", problems=[{"problem": f"it wasn't checked: {error}"}])


def _archived(config: Config, kept: list[Head]) -> Found:
    with open_archive(config, pull=False) as archive:
        found = Found(name=archive.name, problems=[{"problem": text} for text in archive.verify()])
        for end in archive.heads():
            found.heads.append(Head(end.hash, end.rows, f"{ARCHIVE}{end.chain}", end.table, end.node_id))
        for head in kept:
            if head.where.startswith(ARCHIVE):
                _compare(found, head, _in_archive(archive, head))
    return found


def _ledger(reader: Reader, name: str) -> Found:
    total = sum(head.rows for head in reader.heads())
    with _progress(total) as progress:
        verdict = reader.verdict(progress)
    found = Found(name=name)
    found.heads = [Head(head.hash.hex(), head.rows, LEDGER, head.table, head.node_id) for head in verdict.heads]
    for one in verdict.problems:
        known = {"table": one.table, "position": one.position, "column": one.column, **_shown(one.row)}
        found.problems.append({"problem": one.text, **{name: value for name, value in known.items() if value}})
    return found


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {name: value for name, value in row.items() if isinstance(value, str | int)}
    for name in ("window_start_unix_ns", "window_end_unix_ns", "start_unix_ns", "end_unix_ns"):
        unix_ns = shown.get(name)
        if isinstance(unix_ns, int):
            with suppress(OverflowError):  # a year that no calendar has
                shown[name.removesuffix("_unix_ns")] = rfc3339(unix_ns)
    return shown


def _in_archive(archive: Archive, head: Head) -> str | None:
    if head.rows == 0:
        return NO_HASH.hex()
    if head.table == EVENTS:
        there = NO_HASH.hex()
        events = archive.events()
        for _, event in events[: head.rows]:
            there = hash_of_event(there, json.dumps(event, separators=(",", ":")))
        return there if len(events) >= head.rows else None
    table = cast(Table, head.table)
    tips = archive.acked(head.node_id, table)
    for tip in tips:
        if archive.hash_at(table, tips, tip, head.rows) == head.hash:
            return head.hash
    return None


def _compare(found: Found, head: Head, there: str | None) -> None:
    if there != head.hash:
        is_now = "has no such row" if there is None else f"has {there} there"
        text = (
            f"the chain of {head.table} ({head.where}, node {head.node_id}) had the head {head.hash} after {head.rows} "
            f"rows, and {is_now}: it was cut off or made anew"
        )
        found.problems.append({"problem": text, "table": head.table, "position": head.rows})


def _read_heads(path: Path) -> list[Head]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    heads = []
    for number, line in enumerate(lines, start=1):
        try:
            heads.append(Head.of(line))
        except ValueError:
            raise LedgerError(f"{path}, line {number}: not a line of wattribute ledger verify --head") from None
    if not heads:
        raise LedgerError(f"{path} holds no heads. Fix: write some with wattribute ledger verify --head")
    return heads


def _print(found: Found, *, heads_only: bool) -> None:
    for one in found.problems:
        click.echo(f"wrong: {one['problem']}", err=heads_only)
    if heads_only:
        for head in found.heads:
            click.echo(head.line())
        return
    rows = sum(head.rows for head in found.heads)
    count = len(found.problems)
    verdict = "sound" if not count else f"{count} problem{'' if count == 1 else 's'}"
    click.echo(f"{found.name}: {rows} rows, {verdict}")
    for head in found.heads:
        click.echo(f"  {head.table} of {head.node_id or 'all'} ({head.where}): {head.rows} rows, head {head.hash}")


def _as_json(found: Found) -> dict[str, Any]:
    return {"name": found.name, "heads": [head._asdict() for head in found.heads], "problems": found.problems}


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr while somebody watches and it takes long."""
    if total < 100_000 or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=total, label="rows", file=sys.stderr) as bar:
        yield bar.update
