"""Takes what another ledger exported into the archive: verified first, refused as a whole where a chain breaks.

The same rows again change nothing: where a chain goes on is told by its hashes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple

from wattribute.agent.archive.intake import amounts
from wattribute.agent.archive.reading import Strand
from wattribute.agent.archive.schema import IN_PROCESS
from wattribute.agent.archive.store import Archive
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.chains import Chain, Linked, blame, fixed_candidates, linked, named
from wattribute.agent.ledger.schema import NO_HASH, SCHEMA_VERSION, Row, Table

ROWS_AT_ONCE = 1000


class Brought(NamedTuple):
    """A row of an export: the number of its chain, its place in it, and its hash in hexadecimal."""

    chain: int
    position: int
    row: Row
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An export to be imported: one table, its chains, and its rows, chain by chain, from the start at each call."""

    path: str
    table: Table
    schema: int
    partial: bool
    strands: list[Strand]
    rows: Callable[[], Iterator[Brought]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of the rows of an export: `added` count from now on, `known` were there before."""

    rows: int
    added: int
    known: int
    refused: int
    nodes: tuple[str, ...]


def take(archive: Archive, bundle: Bundle, *, dry_run: bool = False) -> Imported:
    """Verify an export and take it in; with `dry_run` say what would be added. Raises LedgerError: nothing was."""
    checked = _Check(archive, bundle).carry_out()
    if dry_run:
        return checked
    added = known = refused = 0
    strands = {strand.chain: strand for strand in bundle.strands}
    for number, rows in groupby(bundle.rows(), key=lambda one: one.chain):
        while some := list(islice(rows, ROWS_AT_ONCE)):
            taken = archive.deliver(
                strands[number].node_id,
                bundle.table,
                [(one.position, one.row, bytes.fromhex(one.hash)) for one in some],
            )
            added, known, refused = added + taken.counted, known + taken.known, refused + taken.refused
    return Imported(rows=checked.rows, added=added, known=known, refused=refused, nodes=checked.nodes)


class _Check:
    """One pass over an export, before anything is written."""

    def __init__(self, archive: Archive, bundle: Bundle) -> None:
        self._archive = archive
        self._bundle = bundle
        self._strands = {strand.chain: strand for strand in bundle.strands}
        if len(self._strands) != len(bundle.strands):
            raise self._refused("two of its chains have the same number")
        # Where chains leave others: the hash there is what they follow.
        self._forks = {self._left(one) for one in bundle.strands}
        self._hashes: dict[tuple[int | None, int], bytes] = {}
        self._rows = self._known = 0

    def carry_out(self) -> Imported:
        bundle = self._bundle
        if bundle.schema > SCHEMA_VERSION:
            raise LedgerError(f"{bundle.path} was exported by a newer wattribute. Fix: import it with that version")
        seen: set[int] = set()
        for number, rows in groupby(bundle.rows(), key=lambda one: one.chain):
            if number not in self._strands or number in seen:
                raise LedgerError(f"{bundle.path}: chain {number} has no head, or its rows aren't together")
            seen.add(number)
            self._chain(self._strands[number], rows)
        if not bundle.partial:
            for strand in bundle.strands:
                if strand.chain not in seen and strand.rows > strand.forked_after:
                    raise self._refused(f"of chain {strand.chain}, which has {strand.rows} rows, there is none")
        nodes = tuple(sorted({strand.node_id for strand in bundle.strands}))
        added = self._rows - self._known
        return Imported(rows=self._rows, added=added, known=self._known, refused=0, nodes=nodes)

    def _chain(self, strand: Strand, rows: Iterable[Brought]) -> None:
        table = self._bundle.table
        rows = iter(rows)
        first = next(rows)
        tips = self._archive.acked(strand.node_id, table)
        ends = {(tip.position, tip.hash) for tip in tips}
        owner = self._owner(strand, first)
        if strand.node_id not in (owner, f"{IN_PROCESS}{owner}"):
            raise self._refused(f"chain {strand.chain} is called that of {strand.node_id!r}, and is one of {owner!r}")
        chain = Chain(table, rows=first.position - 1, head=self._before(strand, first))
        count, known, last = 0, 0, first
        for values in chain.follow(_linked_rows(_again(first, rows))):
            if chain.breaks:
                break
            last = Brought(strand.chain, chain.rows, first.row, chain.head.hex())
            count += 1
            if (chain.rows, last.hash) in ends:
                known = count
            if (strand.chain, chain.rows) in self._forks:
                self._hashes[strand.chain, chain.rows] = chain.head
            if table == "windows":
                self._amounts(chain.rows, values)
        whole = (strand.rows, _digest(strand.hash))
        end = chain.end(*((chain.rows, chain.head) if self._bundle.partial else whole))
        if chain.breaks:
            raise self._refused(blame(chain.breaks[0], chain.breaks, fixed_candidates(table)).text)
        if end:
            raise self._refused(end)
        if any(self._archive.hash_at(table, tips, tip, last.position) == last.hash for tip in tips):
            known = count
        self._rows, self._known = self._rows + count, self._known + known

    def _owner(self, strand: Strand, first: Brought) -> str:
        """Whose chain it is by its rows; by its name where the first of them isn't there: a node may be renamed."""
        if first.position == 1:
            return first.row.node_id
        parent = self._strands.get(strand.parent) if strand.parent is not None else None
        return strand.node_id if parent is None else parent.node_id

    def _left(self, strand: Strand) -> tuple[int | None, int]:
        """The chain, and the position in it, whose row a chain's first own row follows."""
        parent = strand.parent
        while parent in self._strands and self._strands[parent].forked_after >= strand.forked_after:
            parent = self._strands[parent].parent  # that part was shared already
        return parent, strand.forked_after

    def _before(self, strand: Strand, first: Brought) -> bytes:
        """The hash that the first row follows: none, another chain's of the export, or one that the archive has."""
        position = first.position - 1
        if position == 0:
            return NO_HASH
        if position == strand.forked_after and self._left(strand) in self._hashes:
            return self._hashes[self._left(strand)]
        table, kept = self._bundle.table, _digest(first.hash)
        tips = self._archive.acked(strand.node_id, table)
        for tip in tips:
            there = self._archive.hash_at(table, tips, tip, position)
            if there is not None and linked(bytes.fromhex(there), first.row) == kept:
                return bytes.fromhex(there)
        raise self._refused(
            f"it begins at position {first.position} ({named(table, first.row)}), and the archive has nothing that it "
            "follows. Fix: export without --from and --to"
        )

    def _amounts(self, position: int, values: tuple[Any, ...]) -> None:
        try:
            amounts(values[6])
        except LedgerError as error:
            raise self._refused(f"position {position} ({named('windows', values)}): {error}") from error

    def _refused(self, why: str) -> LedgerError:
        return LedgerError(f"{self._bundle.path}: nothing is imported: {why}")


def _again(first: Brought, rest: Iterator[Brought]) -> Iterator[Brought]:
    yield first
    yield from rest


def _linked_rows(rows: Iterable[Brought]) -> Iterator[Linked]:
    for one in rows:
        yield tuple(one.row), one.position, _digest(one.hash)


def _digest(text: str) -> bytes:
    """A hash as bytes; what isn't one fits nothing."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
