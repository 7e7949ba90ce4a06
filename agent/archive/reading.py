"""The archive's rows as their nodes closed them, chain by chain, in pieces: what an export is made from.

Rows are only ever added, so that a chain read up to an end that was known at the start is of one moment, without a
transaction that would have to stay open as long as somebody writes what was read.
"""

import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

from wattribute.agent.archive.database import Database, Params
from wattribute.agent.archive.schema import COLUMNS
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.schema import ROWS, Row, Table

ROWS_AT_ONCE = 2000

Record: TypeAlias = Literal["row", "known", "refused"]
_TIMES = {"gaps": ("start_unix_ns", "end_unix_ns")}


class Strand(NamedTuple):
    """One chain: whose it is, where it left another one (`parent`), and how far it goes."""

    chain: int
    node_id: str
    parent: int | None
    forked_after: int
    rows: int
    hash: str


class Kept(NamedTuple):
    """A row with its place and hash. `record`: it counts, or another chain has the same row, or its key (refused)."""

    record: Record
    position: int
    row: Row
    hash: str


def strands(database: Database, table: Table) -> list[Strand]:
    """The chains of a table, each after the one that it left. Raises LedgerError."""
    found = database.rows(
        "SELECT chain, node_id, parent, forked_after, position, hash FROM chains WHERE kind = :kind ORDER BY chain",
        {"kind": table},
    )
    return [Strand(*row) for row in found]


def kept(
    database: Database, table: Table, strand: Strand, from_unix_ns: int | None, to_unix_ns: int | None
) -> Iterator[Kept]:
    """A chain's own rows, in order; with a time, those of windows or gaps that overlap it. Raises LedgerError."""
    first, last = _TIMES.get(table, ("window_start_unix_ns", "window_end_unix_ns"))
    whole = from_unix_ns is None and to_unix_ns is None
    aside = sorted(_aside(database, table, strand), key=lambda one: -one.position) if whole else []
    after = strand.forked_after
    while True:
        params: Params = {
            "chain": strand.chain,
            "after": after,
            "most": strand.rows,
            "limit": ROWS_AT_ONCE,
            "first": -(1 << 63) if from_unix_ns is None else from_unix_ns,
            "last": (1 << 63) - 1 if to_unix_ns is None else to_unix_ns,
        }
        columns = ", ".join(COLUMNS[table])
        rows: list[tuple[Any, ...]] = database.rows(
            f"SELECT position, hash, node_id, epoch, {columns} FROM {table} JOIN epochs USING (epoch_id)"
            f" WHERE chain = :chain AND position > :after AND position <= :most AND {last} > :first AND {first} < :last"
            " ORDER BY position LIMIT :limit",
            params,
        )
        for position, hash_, *values in rows:
            while aside and aside[-1].position < position:
                yield aside.pop()
            yield Kept("row", position, ROWS[table](*values), hash_)
        if len(rows) < ROWS_AT_ONCE:
            break
        after = rows[-1][0]
    yield from reversed(aside)


def _aside(database: Database, table: Table, strand: Strand) -> Iterator[Kept]:
    for position, body, same, hash_ in database.rows(
        "SELECT position, body, same, hash FROM refused WHERE chain = :chain AND position <= :most",
        {"chain": strand.chain, "most": strand.rows},
    ):
        try:
            row = ROWS[table](*json.loads(body))
        except (TypeError, ValueError) as error:
            raise LedgerError(
                f"{table} of {strand.node_id}: position {position}, which was refused, can't be read any more. "
                "Fix: wattribute ledger verify"
            ) from error
        yield Kept("known" if same else "refused", position, row, hash_)
