"""From a node's own ledger into the archive: what the archive doesn't have yet, in pieces.

Where to go on is asked of the archive each time, never remembered beside it: an acknowledgement that was lost, a
delivery that came twice and a kill in mid-commit change nothing.
"""

from typing import NamedTuple

from wattribute.agent.archive.intake import Taken, Tip
from wattribute.agent.archive.store import Archive
from wattribute.agent.ledger.reader import Reader
from wattribute.agent.ledger.schema import CHAINS, Table

ROWS_AT_ONCE = 1000


class Delivered(NamedTuple):
    """What one delivery did; `more`: there is more to deliver."""

    counted: int
    known: int
    refused: int
    more: bool


def deliver_new(reader: Reader, archive: Archive, *, limit: int = ROWS_AT_ONCE) -> Delivered:
    """Deliver the next rows of each chain of a ledger, at most `limit` of each. Raises LedgerError."""
    sums, more = Taken(0, 0, 0), False
    for table in CHAINS:
        first = reader.chain(table, 0, 1)
        if not first:
            continue
        node_id = first[0][1].node_id  # whose chain it is, also when the node has another name by now
        rows = reader.chain(table, common(reader, archive, node_id, table), limit)
        taken = archive.deliver(node_id, table, rows)
        sums = Taken(*(a + b for a, b in zip(sums, taken, strict=True)))
        more = more or len(rows) == limit
    return Delivered(*sums, more)


def deliver_all(reader: Reader, archive: Archive) -> Delivered:
    """Deliver until there is nothing new. Raises LedgerError."""
    sums = Taken(0, 0, 0)
    while True:
        done = deliver_new(reader, archive)
        sums = Taken(*(a + b for a, b in zip(sums, done[:3], strict=True)))
        if not done.more:
            return Delivered(*sums, False)


def common(reader: Reader, archive: Archive, node_id: str, table: Table) -> int:
    """The last position up to which the archive has this ledger's chain. Raises LedgerError."""
    tips = archive.acked(node_id, table)
    going_on = [tip.position for tip in tips if _hash(reader, table, tip.position) == tip.hash]
    if going_on:
        return max(going_on)
    # No known chain goes on here: this ledger left one of them, or has only its beginning.
    return max((_fork(reader, archive, table, tips, tip) for tip in tips), default=0)


def _fork(reader: Reader, archive: Archive, table: Table, tips: list[Tip], tip: Tip) -> int:
    """The last position that both have alike: a hash is made of all before it, so bisection finds it."""
    alike, differs = 0, tip.position + 1
    while differs - alike > 1:
        middle = (alike + differs) // 2
        ours = _hash(reader, table, middle)
        if ours is not None and ours == archive.hash_at(table, tips, tip, middle):
            alike = middle
        else:
            differs = middle
    return alike


def _hash(reader: Reader, table: Table, position: int) -> str | None:
    found = reader.chain(table, position - 1, 1)
    return found[0][2].hex() if found and found[0][0] == position else None
