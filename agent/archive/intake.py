"""Takes a node's closed rows in, each counted once, in one transaction with the sums that follow from them.

A chain says itself where it goes on: a row's hash is made of the hash before it. So nothing has to be remembered
about a delivery: what is there already is passed over, and what doesn't follow is told apart from what does.
- rows past the end of a known chain: the usual case;
- rows that leave a known chain before its end (a ledger that was restored from a backup, or begun anew): a chain of
  their own, which shares the rows before;
- a row under a key that is known from another chain: passed over where it says the same, else refused and kept aside.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from wattribute.agent.archive.database import Database, Value, insert
from wattribute.agent.archive.facts import NOTHING_SAID, Facts, facts_of, is_provisional, parse
from wattribute.agent.archive.schema import COLUMNS, KEYS, NO_HASH
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.schema import CorrectionRow, Row, StoredGap, Table, WindowRow, chained

Delivery = Sequence[tuple[int, Row, bytes]]
_INT64 = 1 << 63


class Tip(NamedTuple):
    """A chain, where it left another one, and how far it goes."""

    chain: int
    parent: int | None
    forked_after: int
    position: int
    hash: str


class Taken(NamedTuple):
    """What became of delivered rows: counted now, known before, refused (their key has another content)."""

    counted: int
    known: int
    refused: int


def tips(database: Database, node_id: str, table: Table) -> list[Tip]:
    """The chains of a node, newest first. Raises LedgerError."""
    found = database.rows(
        "SELECT chain, parent, forked_after, position, hash FROM chains WHERE node_id = :node_id AND kind = :kind"
        " ORDER BY chain DESC",
        {"node_id": node_id, "kind": table},
    )
    return [Tip(*row) for row in found]


def hashes(
    database: Database, table: Table, known: Mapping[int, Tip], tip: Tip, first: int, last: int
) -> dict[int, str]:
    """The hashes of a chain's positions from `first` to `last`, as far as it goes. Raises LedgerError."""
    found = {0: NO_HASH} if first == 0 else {}
    at: Tip | None = tip
    while at is not None and last > 0:
        if last > at.forked_after:
            for source in (table, "refused"):
                found.update(
                    database.rows(
                        f"SELECT position, hash FROM {source} WHERE chain = :chain"
                        " AND position BETWEEN :first AND :last",
                        {"chain": at.chain, "first": max(first, at.forked_after + 1), "last": last},
                    )
                )
        last = min(last, at.forked_after)
        at = known.get(at.parent) if at.parent is not None and last >= first else None
    return found


def deliver(database: Database, node_id: str, table: Table, rows: Delivery) -> Taken:
    """Take rows of one chain in, in the order of their positions without holes. `node_id`: whose chain it is.

    Committed when it returns; after an error it may have been, and the same call again does no harm. Raises
    LedgerError.
    """
    if not rows:
        return Taken(0, 0, 0)
    with database.transaction(writing=True):
        return deliver_within(database, node_id, table, rows)


def deliver_within(database: Database, node_id: str, table: Table, rows: Delivery) -> Taken:
    """`deliver` as a part of the caller's transaction. Raises LedgerError: the whole transaction is void then."""
    for (one, _, _), (following, _, _) in pairwise(rows):
        if following != one + 1:
            raise LedgerError(f"{table} of {node_id}: position {following} comes after {one}. Fix: deliver them all")
    # The row's lock is what makes two deliveries for one node follow one another.
    database.run(
        "INSERT INTO nodes VALUES (:node_id, 1, :now) ON CONFLICT (node_id) DO UPDATE"
        " SET deliveries = nodes.deliveries + 1, delivered_unix_ns = excluded.delivered_unix_ns",
        {"node_id": node_id, "now": database.now_unix_ns()},
    )
    chain, before, known = _attach(database, node_id, table, rows)
    new = rows[known:]
    if not new:
        return Taken(0, known, 0)
    head = bytes.fromhex(before)
    for position, row, kept in new:
        head = chained(head, row)
        if head != kept:
            raise LedgerError(
                f"{table} of {node_id}: the chain breaks at position {position}, and nothing of this delivery "
                "is taken. Fix: wattribute ledger verify, on that node"
            )
    counted, same, refused = _store(database, table, chain, new)
    _add_sums(database, table, counted)
    database.run(
        "UPDATE chains SET position = :position, hash = :hash WHERE chain = :chain",
        {"chain": chain, "position": new[-1][0], "hash": head.hex()},
    )
    return Taken(len(counted), known + same, refused)


def _attach(database: Database, node_id: str, table: Table, rows: Delivery) -> tuple[int, str, int]:
    """The chain that the rows belong to, the hash that its first new row follows, and how many are there already."""
    first, last = rows[0][0], rows[-1][0]
    if first < 1:
        raise LedgerError(f"{table} of {node_id}: positions begin at 1, not at {first}")
    chains = tips(database, node_id, table)
    known = {tip.chain: tip for tip in chains}
    best: tuple[int, bool, Tip, str] | None = None
    for tip in chains:
        if tip.position < first - 1:
            continue
        there = (
            {tip.position: tip.hash}
            if tip.position == first - 1 and tip.position > 0
            else hashes(database, table, known, tip, first - 1, last)
        )
        before = there.get(first - 1)
        if before is None or chained(bytes.fromhex(before), rows[0][1]) != rows[0][2]:
            continue
        same = 0
        while same < len(rows) and there.get(rows[same][0]) == rows[same][2].hex():
            before, same = rows[same][2].hex(), same + 1
        at_end = first - 1 + same == tip.position
        if best is None or (same, at_end) > best[:2]:
            best = (same, at_end, tip, before)
    if best is None:
        if first > 1:
            raise LedgerError(
                f"{table} of {node_id}: the archive has nothing that position {first} follows. "
                "Fix: deliver from an earlier position, the first being 1"
            )
        return _begin(database, node_id, table, None, 0, NO_HASH), NO_HASH, 0
    same, at_end, tip, before = best
    if at_end or same == len(rows):
        return tip.chain, before, same
    return _begin(database, node_id, table, tip.chain, first - 1 + same, before), before, same


def _begin(database: Database, node_id: str, table: Table, parent: int | None, forked_after: int, before: str) -> int:
    chain = next_number(database, "chains")
    insert(
        database,
        "chains",
        ("chain", "node_id", "kind", "parent", "forked_after", "position", "hash"),
        [(chain, node_id, table, parent, forked_after, forked_after, before)],
    )
    return chain


def next_number(database: Database, name: str) -> int:
    """The next of a series of numbers, within a transaction. Raises LedgerError."""
    ((value,),) = database.rows(
        "UPDATE archive_counters SET value = value + 1 WHERE name = :name RETURNING value", {"name": name}
    )
    return int(value)


def _epoch_ids(database: Database, rows: Delivery) -> dict[tuple[str, str], int]:
    ids: dict[tuple[str, str], int] = {}
    for _, row, _ in rows:
        key = (row.node_id, row.epoch)
        if key in ids:
            continue
        params = {"node_id": row.node_id, "epoch": row.epoch}
        found = database.rows("SELECT epoch_id FROM epochs WHERE node_id = :node_id AND epoch = :epoch", params)
        if found:
            ids[key] = int(found[0][0])
        else:
            ids[key] = next_number(database, "epochs")
            database.run("INSERT INTO epochs VALUES (:id, :node_id, :epoch)", {"id": ids[key], **params})
    return ids


def _store(database: Database, table: Table, chain: int, rows: Delivery) -> tuple[list[Row], int, int]:
    """Insert them; the rows that count, how many said the same as a known one, and how many something else."""
    epochs = _epoch_ids(database, rows)
    values: list[list[Value]] = [
        [chain, position, epochs[row.node_id, row.epoch], *row[2:], kept.hex()] for position, row, kept in rows
    ]
    columns = ("chain", "position", "epoch_id", *COLUMNS[table], "hash")
    key = ", ".join(("epoch_id", *KEYS[table]))
    given = insert(database, table, columns, values, f"ON CONFLICT ({key}) DO NOTHING RETURNING position")
    stored = {int(position) for (position,) in given}
    counted = [row for position, row, _ in rows if position in stored]
    aside: list[list[Value]] = []
    for position, row, kept in rows:
        if position not in stored:
            same = _says_the_same(database, table, epochs[row.node_id, row.epoch], row)
            aside.append([chain, position, json.dumps(row, separators=(",", ":")), int(same), kept.hex()])
    insert(database, "refused", ("chain", "position", "body", "same", "hash"), aside)
    alike = sum(int(values[3] or 0) for values in aside)
    return counted, alike, len(aside) - alike


def _says_the_same(database: Database, table: Table, epoch_id: int, row: Row) -> bool:
    named = dict(zip(COLUMNS[table], row[2:], strict=True))
    where = " AND ".join(f"{name} = :{name}" for name in ("epoch_id", *KEYS[table]))
    found = database.rows(
        f"SELECT {', '.join(COLUMNS[table])} FROM {table} WHERE {where}",
        {"epoch_id": epoch_id, **{name: named[name] for name in KEYS[table]}},
    )
    return found == [tuple(row[2:])]


Sums = dict[tuple[str, str, str, str], int]


def sums_of(rows: Sequence[Row]) -> Sums:
    """(job, node, domain, name) -> amount of closed rows. Raises LedgerError for a row that says no amounts."""
    sums: Sums = {}
    for row in rows:
        if isinstance(row, WindowRow):
            for name, amount in amounts(row.content).items():
                if not name.startswith("carry."):
                    key = (row.job_id, row.node_id, row.domain, name)
                    sums[key] = sums.get(key, 0) + amount
        elif isinstance(row, CorrectionRow):
            # One name for each payee and term: what was paid to the job's own product is a term of its own anyhow.
            key = (row.job_id, row.node_id, "", f"correction.{row.term}.{row.product_id}")
            sums[key] = sums.get(key, 0) + row.delta_ng
    return sums


def amounts(content: str) -> dict[str, int]:
    """The amounts in a row's content, by name. Raises LedgerError."""
    try:
        said = json.loads(content)
    except ValueError as error:
        raise LedgerError(f"a row's content isn't JSON: {content[:80]!r}") from error
    if not isinstance(said, dict) or not all(
        type(amount) is int and -_INT64 <= amount < _INT64 for amount in said.values()
    ):
        raise LedgerError(f"a row's content isn't integers by name: {content[:80]!r}")
    return said


def _check_range(sums: Iterable[object]) -> None:
    """Raises LedgerError for a sum of more than 64 bits: SQLite would go on with a float."""
    for amount in sums:
        if type(amount) is not int or not -_INT64 <= amount < _INT64:
            raise LedgerError(f"a job's sum doesn't fit 64 bits: {amount}. Fix: wattribute ledger verify, on that node")


def _add_sums(database: Database, table: Table, rows: Sequence[Row]) -> None:
    if table == "gaps" or not rows:
        return
    sums = sums_of(rows)
    _check_range(sums.values())
    added = insert(
        database,
        "job_sums",
        ("job_id", "node_id", "domain", "name", "amount"),
        [(*key, sums[key]) for key in sorted(sums)],  # in one order, so that no two deliveries wait for each other
        "ON CONFLICT (job_id, node_id, domain, name) DO UPDATE SET amount = job_sums.amount + excluded.amount"
        " RETURNING amount",
    )
    _check_range(amount for (amount,) in added)
    facts: dict[tuple[str, str], tuple[int, str, Facts, int, int]] = {}
    for row in rows:
        if isinstance(row, StoredGap):
            continue
        until, body, told, provisional, settled = facts.get((row.job_id, row.node_id), (0, "", NOTHING_SAID, 0, 0))
        if isinstance(row, CorrectionRow):
            if row.cause == "intensity":
                settled = max(settled, row.window_end_unix_ns)
        elif row.domain == "":
            said = parse(row.prices)
            if is_provisional(said):
                provisional = max(provisional, row.window_end_unix_ns)
            if row.window_end_unix_ns >= until:
                until, body, told = row.window_end_unix_ns, row.prices, facts_of(said)
        facts[row.job_id, row.node_id] = (until, body, told, provisional, settled)
    insert(
        database,
        "job_facts",
        ("job_id", "node_id", "until_unix_ns", "product_id", "body", "provisional_unix_ns", "settled_unix_ns"),
        [
            (*key, until, told.product_id, body, provisional, settled)
            for key, (until, body, told, provisional, settled) in sorted(facts.items())
        ],
        "ON CONFLICT (job_id, node_id) DO UPDATE SET "
        + ", ".join(
            f"{name} = CASE WHEN excluded.{by} > 0 AND excluded.{by} >= job_facts.{by}"
            f" THEN excluded.{name} ELSE job_facts.{name} END"
            for name, by in (
                ("until_unix_ns", "until_unix_ns"),
                ("product_id", "until_unix_ns"),
                ("body", "until_unix_ns"),
                ("provisional_unix_ns", "provisional_unix_ns"),
                ("settled_unix_ns", "settled_unix_ns"),
            )
        ),
    )
