"""Whether the archive still says what was delivered: every chain hashed again, and what was made of the rows made anew.

Rows come one by one, and memory doesn't grow with them: see verify_sums.
"""

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from wattribute.agent.archive.database import Database
from wattribute.agent.archive.schema import COLUMNS, IN_PROCESS, KEYS, NO_HASH, hash_of_event
from wattribute.agent.archive.verify_sums import Ledgers, facts
from wattribute.agent.ledger.chains import Break, Chain, Linked, Values, blame, fixed_candidates, named
from wattribute.agent.ledger.schema import CHAINS, ROWS, Table

NEIGHBOURS = 50
"""So many rows around a broken one are asked for the value that it may have had."""


class Head(NamedTuple):
    """The end of one chain: whose it is (empty: the products'), how many rows it has, the last one's hash."""

    node_id: str
    table: str
    chain: int
    rows: int
    hash: str


class _Known(NamedTuple):
    """A chain as the table of chains has it."""

    chain: int
    node_id: str
    table: Table
    parent: int | None
    forked_after: int
    position: int
    head: str


def heads(database: Database) -> list[Head]:
    """Where each chain ends. Raises LedgerError."""
    found = database.rows("SELECT node_id, kind, chain, position, hash FROM chains ORDER BY node_id, kind, chain")
    last = database.rows("SELECT position, hash FROM product_events ORDER BY position DESC LIMIT 1")
    return [*(Head(*row) for row in found), *(Head("", "product_events", 0, *row) for row in last)]


def problems(database: Database) -> Iterator[str]:
    """What is wrong, in words, each row that broke by its position; rows that were refused are named too.

    Within the caller's transaction. Raises LedgerError.
    """
    known = {
        chain: _Known(chain, *rest)
        for chain, *rest in database.rows(
            "SELECT chain, node_id, kind, parent, forked_after, position, hash FROM chains ORDER BY chain"
        )
    }
    epochs = {
        number: (node_id, epoch)
        for number, node_id, epoch in database.rows("SELECT epoch_id, node_id, epoch FROM epochs")
    }
    ledgers = Ledgers()
    for one in known.values():
        if one.table in CHAINS:
            yield from _Followed(database, one, known, epochs, ledgers).problems()
        else:
            yield f"chain {one.chain} of {one.node_id} is of {one.table!r}, which isn't a table of rows"
    yield from _without_a_chain(database)
    yield from _counters(database, known, epochs)
    yield from _events(database)
    yield from ledgers.problems(database)
    yield from facts(database)


class _Followed:
    """One chain, followed once; what counts of it is added up in `ledgers`."""

    def __init__(
        self,
        database: Database,
        one: _Known,
        known: Mapping[int, _Known],
        epochs: Mapping[int, tuple[str, str]],
        ledgers: Ledgers,
    ) -> None:
        self._database = database
        self._one = one
        self._known = known
        self._epochs = epochs
        self._ledgers = ledgers
        self._of = f"{one.table} of {one.node_id}"
        self._found: list[str] = []

    def problems(self) -> Iterator[str]:
        one, table = self._one, self._one.table
        chain = Chain(table, rows=one.forked_after, head=_digest(self._before(one.parent, one.forked_after)))
        first: Values | None = None
        try:
            for values in chain.follow(self._rows()):
                first = values if first is None else first
        except TypeError:
            yield self._said(f" has a value of another type past position {chain.rows}: it can't be followed further")
        end = chain.end(one.position, _digest(one.head))
        yield from self._owner(first)
        for broken in chain.breaks:
            yield self._said(blame(broken, chain.breaks, self._candidates(broken)).text)
        if chain.more_breaks:
            yield self._said(f"the chain of {table} breaks at {chain.more_breaks} more positions")
        if end:
            yield self._said(end)
        yield from self._found

    def _said(self, text: str) -> str:
        one = self._one
        return f"{self._of}: chain {one.chain}{text.removeprefix(f'the chain of {one.table}')}"

    def _owner(self, first: Values | None) -> Iterator[str]:
        one = self._one
        if one.parent is not None:
            owner = self._known[one.parent].node_id if one.parent in self._known else None
        else:
            owner = first[0] if first is not None else one.node_id
        if owner != one.node_id and one.node_id != f"{IN_PROCESS}{owner}":
            yield self._said(f" is called that of {one.node_id}, and its rows begin as those of {owner}")

    def _before(self, parent: int | None, position: int) -> str:
        """The hash that a forked chain follows."""
        seen: set[int] = set()
        while parent is not None and position and parent in self._known and parent not in seen:
            seen.add(parent)
            up = self._known[parent]
            if position > up.forked_after:
                for source in (up.table, "refused"):
                    found = self._database.rows(
                        f"SELECT hash FROM {source} WHERE chain = :chain AND position = :position",
                        {"chain": parent, "position": position},
                    )
                    if found:
                        return str(found[0][0])
            parent = up.parent
        return NO_HASH

    def _rows(self) -> Iterator[Linked]:
        """What counts and what was refused, in the order of the chain."""
        table, chain = self._one.table, {"chain": self._one.chain}
        counted = self._database.stream(
            f"SELECT position, hash, epoch_id, {', '.join(COLUMNS[table])} FROM {table} WHERE chain = :chain"
            " ORDER BY position",
            chain,
        )
        aside = self._database.stream(
            "SELECT position, hash, body, same FROM refused WHERE chain = :chain ORDER BY position", chain
        )
        width = 3 + len(COLUMNS[table])
        epochs, count = self._epochs, self._ledgers.of(table)
        for row in heapq.merge(counted, aside, key=itemgetter(0)):
            kept = _digest(row[1])
            if len(row) == width:
                values = epochs.get(row[2], ("", f"number {row[2]}, which isn't there")) + tuple(row[3:])
                if count is not None and (why := count(values)):
                    self._found.append(self._said(f" has at position {row[0]} ({named(table, values)}) {why}"))
                yield values, row[0], kept
            else:
                yield self._refused(*row), row[0], kept

    def _refused(self, position: int, _: str, body: str, same: int) -> Values:
        """A row that was kept aside, and whether that was right."""
        table = self._one.table
        try:
            row = ROWS[table](*json.loads(body))
        except (ValueError, TypeError, RecursionError):
            self._found.append(f"{self._of}: position {position}, which was refused, can't be read any more")
            return (None,) * len(ROWS[table]._fields)
        at = f"{self._of}: position {position} was refused, "
        who = f": {named(table, tuple(row))}"
        counts = self._under_its_key(row._asdict())
        if counts is None:
            self._found.append(f"{at}and no row that counts has its key{who}")
        elif counts != tuple(row[2:]):
            said = "as saying the same as one that says something else" if same != 0 else "its key has another content"
            self._found.append(f"{at}{said}{who}")
        elif same != 1:
            self._found.append(f"{at}as saying something else than one that says the same{who}")
        return tuple(row)

    def _under_its_key(self, row: Mapping[str, Any]) -> tuple[Any, ...] | None:
        table = self._one.table
        where = " AND ".join(f"{name} = :{name}" for name in ("node_id", "epoch", *KEYS[table]))
        found = self._database.rows(
            f"SELECT {', '.join(COLUMNS[table])} FROM {table} JOIN epochs USING (epoch_id) WHERE {where}",
            {name: row[name] for name in ("node_id", "epoch", *KEYS[table])},
        )
        return tuple(found[0]) if found else None

    def _candidates(self, broken: Break) -> dict[str, Iterable[Any]]:
        """Values that the columns of a broken row may have had: those of rows nearby."""
        if broken.kind != "columns":
            return {}
        table, columns = self._one.table, ROWS[self._one.table]._fields
        near: dict[str, dict[Any, None]] = {name: {} for name in columns}
        for number, *values in self._database.rows(
            f"SELECT epoch_id, {', '.join(COLUMNS[table])} FROM {table} WHERE chain = :chain"
            " AND position BETWEEN :first AND :last",
            {
                "chain": self._one.chain,
                "first": broken.position - NEIGHBOURS,
                "last": broken.position + NEIGHBOURS,
            },
        ):
            for name, value in zip(columns[2:], values, strict=True):
                near[name][value] = None
            near["node_id"][self._epochs.get(number, ("", ""))[0]] = None
        for node_id, epoch in self._epochs.values():
            near["node_id"][node_id] = near["epoch"][epoch] = None
        for name, fixed in fixed_candidates(table).items():
            near[name] |= dict.fromkeys(fixed)
        return {name: list(values) for name, values in near.items()}


def _digest(text: object) -> bytes:
    """A hash as bytes; what isn't one, as it is written, fits nothing."""
    try:
        found = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return b""
    return found if found.hex() == text else b""


def _without_a_chain(database: Database) -> Iterator[str]:
    for table in CHAINS:
        for chain, rows in database.rows(
            f"SELECT chain, COUNT(*) FROM {table} WHERE chain NOT IN (SELECT chain FROM chains WHERE kind = :kind)"
            " GROUP BY chain ORDER BY chain",
            {"kind": table},
        ):
            yield f"{table}: {rows} rows are of chain {chain}, which isn't there: no delivery has brought them"
    for chain, rows in database.rows(
        "SELECT chain, COUNT(*) FROM refused WHERE chain NOT IN (SELECT chain FROM chains) GROUP BY chain"
        " ORDER BY chain"
    ):
        yield f"refused: {rows} rows are of chain {chain}, which isn't there"


def _counters(database: Database, known: Mapping[int, _Known], epochs: Mapping[int, tuple[str, str]]) -> Iterator[str]:
    counters = dict(database.rows("SELECT name, value FROM archive_counters"))
    for name, most in (("chains", max(known, default=0)), ("epochs", max(epochs, default=0))):
        value = counters.get(name)
        if type(value) is not int or value < most:
            yield f"archive_counters: {name} is {value!r}, and there is number {most} already"


def _events(database: Database) -> Iterator[str]:
    head, expected = NO_HASH, 0
    for position, body, kept in database.stream("SELECT position, body, hash FROM product_events ORDER BY position"):
        expected += 1
        found = hash_of_event(head, body) if isinstance(body, str) else ""
        if position != expected or found != kept:
            yield f"product events: the chain breaks at position {position}: {body!s:.200}"
        expected, head = position, kept if _digest(kept) else NO_HASH
