"""Whether the archive still says what was delivered: every chain hashed again, sums added up again.

Rows come one by one; in memory are the sums of one node's jobs at a time.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias, cast

from wattribute.agent.archive.database import Database
from wattribute.agent.archive.intake import Sums, sums_of
from wattribute.agent.archive.schema import COLUMNS, NO_HASH, hash_of_event
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.schema import ROWS, Row, Table, chained

MOST_TOLD = 20

_Read: TypeAlias = tuple[int, Row | None, str, int | None]


class Head(NamedTuple):
    """The end of one chain: whose it is (empty: the products'), how many rows it has, the last one's hash."""

    node_id: str
    table: str
    chain: int
    rows: int
    hash: str


def heads(database: Database) -> list[Head]:
    """Where each chain ends. Raises LedgerError."""
    found = database.rows("SELECT node_id, kind, chain, position, hash FROM chains ORDER BY node_id, kind, chain")
    last = database.rows("SELECT position, hash FROM product_events ORDER BY position DESC LIMIT 1")
    return [*(Head(*row) for row in found), *(Head("", "product_events", 0, *row) for row in last)]


def problems(database: Database) -> Iterator[str]:
    """What is wrong, in words, each row that broke by its position; rows that were refused are named too."""
    for chain, node_id, kind, parent, forked_after, position, head in database.rows(
        "SELECT chain, node_id, kind, parent, forked_after, position, hash FROM chains ORDER BY chain"
    ):
        yield from _chain(database, cast(Table, kind), node_id, chain, parent, forked_after, (position, head))
    yield from _events(database)
    for (node_id,) in database.rows("SELECT DISTINCT node_id FROM epochs ORDER BY node_id"):
        yield from _sums(database, node_id)


def _chain(
    database: Database,
    table: Table,
    node_id: str,
    chain: int,
    parent: int | None,
    forked_after: int,
    end: tuple[int, str],
) -> Iterator[str]:
    expected, head = forked_after, bytes.fromhex(_before(database, table, parent, forked_after))
    for position, row, kept, same in _rows(database, table, chain):
        if row is None:
            yield f"{table} of {node_id}: position {position}, which was refused, can't be read any more"
            continue
        expected += 1
        head = chained(head, row)
        if position != expected or head.hex() != kept:
            yield f"{table} of {node_id}: chain {chain} breaks at position {position}: {_shown(row)}"
            expected, head = position, bytes.fromhex(kept)
        if same == 0:
            yield f"{table} of {node_id}: position {position} was refused, its key has another content: {_shown(row)}"
    if (expected, head.hex()) != end:
        yield f"{table} of {node_id}: chain {chain} ends at {expected} of {end[0]} rows"


def _before(database: Database, table: Table, parent: int | None, position: int) -> str:
    """The hash that a forked chain follows."""
    while parent is not None and position:
        ((up, forked_after),) = database.rows(
            "SELECT parent, forked_after FROM chains WHERE chain = :chain", {"chain": parent}
        )
        if position > forked_after:
            for source in (table, "refused"):
                found = database.rows(
                    f"SELECT hash FROM {source} WHERE chain = :chain AND position = :position",
                    {"chain": parent, "position": position},
                )
                if found:
                    return str(found[0][0])
        parent = up
    return NO_HASH


def _rows(database: Database, table: Table, chain: int) -> Iterator[_Read]:
    """(position, row, hash, whether it says the same as the row that counts; None: it counts)."""
    kind = cast(Any, ROWS[table])
    columns = ", ".join(COLUMNS[table])
    aside = database.rows("SELECT position, body, hash, same FROM refused WHERE chain = :c", {"c": chain})
    waiting = sorted(aside, reverse=True)
    for position, kept, *values in database.stream(
        f"SELECT position, hash, node_id, epoch, {columns} FROM {table} JOIN epochs USING (epoch_id)"
        " WHERE chain = :chain ORDER BY position",
        {"chain": chain},
    ):
        while waiting and waiting[-1][0] < position:
            yield _refused(kind, waiting.pop())
        yield position, kind(*values), kept, None
    while waiting:
        yield _refused(kind, waiting.pop())


def _refused(kind: Any, found: tuple[Any, ...]) -> _Read:
    position, body, kept, same = found
    try:
        return position, kind(*json.loads(body)), kept, same
    except (ValueError, TypeError):
        return position, None, kept, same


def _events(database: Database) -> Iterator[str]:
    head, expected = NO_HASH, 0
    for position, body, kept in database.stream("SELECT position, body, hash FROM product_events ORDER BY position"):
        expected += 1
        head = hash_of_event(head, body)
        if position != expected or head != kept:
            yield f"product events: the chain breaks at position {position}: {body[:200]}"
            expected, head = position, kept


def _sums(database: Database, node_id: str) -> Iterator[str]:
    sums: Sums = {}
    for table in ("windows", "corrections"):
        kind = cast(Any, ROWS[table])
        columns = ", ".join(COLUMNS[table])
        for values in database.stream(
            f"SELECT node_id, epoch, {columns} FROM {table} JOIN epochs USING (epoch_id) WHERE node_id = :node_id",
            {"node_id": node_id},
        ):
            try:
                found = sums_of([kind(*values)])
            except LedgerError as error:
                yield f"{table} of {node_id}: {error}"
                continue
            for key, amount in found.items():
                sums[key] = sums.get(key, 0) + amount
    told = 0
    for job_id, domain, name, amount in database.stream(
        "SELECT job_id, domain, name, amount FROM job_sums WHERE node_id = :node_id", {"node_id": node_id}
    ):
        in_rows = sums.pop((job_id, node_id, domain, name), 0)
        if in_rows != amount and (told := told + 1) <= MOST_TOLD:
            yield f"job {job_id!r} on {node_id}: its rows hold {in_rows} of {domain} {name}, its sum {amount}"
    for (job_id, _, domain, name), in_rows in sums.items():
        if in_rows and (told := told + 1) <= MOST_TOLD:
            yield f"job {job_id!r} on {node_id}: its rows hold {in_rows} of {domain} {name}, its sum nothing"


def _shown(row: Row) -> str:
    """A row by its key."""
    values = row._asdict()
    return ", ".join(f"{name} {values[name]}" for name in list(values)[1:] if name not in _LONG)


_LONG = ("content", "prices", "detail", "window_end_unix_ns", "booked_uj", "lower_uj", "upper_uj", "delta_ng")
