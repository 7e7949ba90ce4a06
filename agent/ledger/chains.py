"""Follows a chain of closed rows from hash to hash, and says of a break which row and which column it is.

Rows come one by one and are kept nowhere, so that a chain of any length needs the same memory.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from wattribute.agent.core.model import DOMAIN_KINDS
from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.ledger.schema import NO_HASH, ROWS, Table

Values: TypeAlias = tuple[Any, ...]
"""A row's columns in their order, node and epoch first, without position and hash."""

Linked: TypeAlias = tuple[Values, int, bytes]
"""A row as it is stored: its columns, position and hash."""

Progress: TypeAlias = Callable[[int], None]
"""Is told every STEP rows how many more there were."""

STEP = 10_000
MOST_BREAKS = 100
"""Past it breaks are counted and not described."""

Kind: TypeAlias = Literal["columns", "hash", "missing"]

_escaped = json.JSONEncoder(separators=(",", ":")).encode
_encode = msgspec.json.Encoder().encode


def canonical(values: Values) -> bytes:
    """The bytes that a row's hash is made of (see schema.chained), ten times as fast. Raises TypeError for a blob."""
    if bytes in set(map(type, values)):
        raise TypeError("a blob stands where a text or a number belongs")
    fast = _encode(values)
    # All of ASCII is written alike but for DEL.
    return fast if fast.isascii() and b"\x7f" not in fast else _escaped(values).encode()


def linked(before: bytes, values: Values) -> bytes | None:
    """The hash of a row after another; None where its columns are none that a row can have."""
    try:
        return hashlib.sha256(before + canonical(values)).digest()
    except TypeError:
        return None


class Break(NamedTuple):
    """A row that doesn't follow: `before` is the hash that it should follow, `kept` its own as stored.

    `kind`: its columns don't fit its hash, or fit the row after it, which its hash doesn't, or rows before it are
    missing.
    """

    table: Table
    position: int
    values: Values
    before: bytes
    kept: bytes
    kind: Kind
    missing: tuple[int, int] = (0, 0)


class Chain:
    """One chain, followed once. `rows` and `head` are its end, `breaks` what was found (at most MOST_BREAKS)."""

    def __init__(self, table: Table, *, rows: int = 0, head: bytes = NO_HASH) -> None:
        self.table: Table = table
        self.rows = rows
        self.head = head
        self.breaks: list[Break] = []
        self.more_breaks = 0
        self._suspect: Break | None = None
        self._computed = b""  # the hash that the suspect's columns give

    def follow(self, rows: Iterable[Linked], progress: Progress | None = None) -> Iterator[Values]:
        """The rows' columns, all of them, also where the chain breaks: there it goes on from the stored hash."""
        sha256, encode = hashlib.sha256, canonical
        for values, position, kept in rows:
            try:
                found = sha256(self.head + encode(values)).digest()
            except TypeError:
                found = b""
            if found != kept or position != self.rows + 1:
                self._odd(Break(self.table, position, values, self.head, kept, "columns"), found)
            elif self._suspect is not None:
                self._note(self._suspect)
            self.head = kept if type(kept) is bytes else found
            self.rows = position
            if progress is not None and not position % STEP:
                progress(STEP)
            yield values

    def end(self, rows: int, head: object) -> str:
        """What is wrong with the end, going by what was noted of it in the same ledger; empty: nothing."""
        suspect = self._suspect
        if suspect is not None:
            computed = self._computed == head and self.rows == rows
            self._note(suspect._replace(kind="hash") if computed else suspect)
            if computed:
                return ""
        if self.rows != rows:
            return f"the chain of {self.table} ends at {self.rows} of {rows} rows"
        if self.head != head:
            noted = head.hex() if isinstance(head, bytes) else repr(head)
            return f"the chain of {self.table} ends with the hash {self.head.hex()}, and {noted} was noted as its head"
        return ""

    def _odd(self, one: Break, found: bytes) -> None:
        in_place = one.position == self.rows + 1
        suspect, computed = self._suspect, self._computed
        if suspect is not None:
            if in_place and linked(computed, one.values) == one.kept:
                self._note(suspect._replace(kind="hash"))
                return
            self._note(suspect)
        if in_place:
            self._suspect, self._computed = one, found
        else:
            self._note(one._replace(kind="missing", missing=(self.rows + 1, one.position - 1)))

    def _note(self, one: Break) -> None:
        self._suspect = None
        if len(self.breaks) < MOST_BREAKS:
            self.breaks.append(one)
        else:
            self.more_breaks += 1


class Found(NamedTuple):
    """What a break turned out to be: the column (empty: not known), and the whole in words."""

    column: str
    text: str


def blame(broken: Break, others: Sequence[Break], candidates: Mapping[str, Iterable[Any]]) -> Found:
    """Which column of a broken row was changed, proven by its hash where a value is known with which it fits.

    `candidates` are values by column that the row may have had; `others` the chain's other breaks.
    """
    table, position = broken.table, broken.position
    start = f"the chain of {table} breaks at position {position} ({named(table, broken.values)}): "
    if broken.kind == "missing":
        first, last = broken.missing
        if last < first:
            return Found("position", f"{start}it stands after position {first - 1}")
        return Found("", f"{start}{f'position {first} is' if first == last else f'{first} to {last} are'} missing")
    if broken.kind == "hash":
        return Found("hash", f"{start}its hash was changed, its columns fit the row after it")
    for other in others:
        if other.position != position and linked(broken.before, other.values) in (broken.kept, other.kept):
            return Found("position", f"{start}the row that belongs here stands at position {other.position}")
    columns = ROWS[table]._fields
    for place, column in enumerate(columns):
        for value in candidates.get(column, ()):
            values = (*broken.values[:place], value, *broken.values[place + 1 :])
            if linked(broken.before, values) == broken.kept:
                now = broken.values[place]
                return Found(column, f"{start}{column} was changed: {value!r} fits its hash, {now!r} doesn't")
    return Found("", f"{start}its columns were changed, or it was put there: they don't fit its hash")


def fixed_candidates(table: Table) -> dict[str, list[Any]]:
    """Values that a column can have in any ledger."""
    if table == "windows":
        return {"domain": ["", *DOMAIN_KINDS]}
    return {"kind": [*DOMAIN_KINDS, "psys"]} if table == "gaps" else {}


def named(table: Table, values: Values) -> str:
    """A row in words: node, epoch, job or source, and time in RFC 3339."""
    row = dict(zip(ROWS[table]._fields, values, strict=True))
    what = [f"node {row['node_id']}, epoch {row['epoch']}"]
    if table == "gaps":
        what.append(f"{row['kind']} {row['id']}, {_time(row['start_unix_ns'])} to {_time(row['end_unix_ns'])}")
        return ", ".join(what)
    what.append(f"job {row['job_id']!r}")
    what.append(f"domain {row['domain']!r}" if table == "windows" else f"term {row['term']!r}")
    what.append(f"window {_time(row['window_start_unix_ns'])} to {_time(row['window_end_unix_ns'])}")
    return ", ".join(what)


def _time(unix_ns: object) -> str:
    try:
        return rfc3339(unix_ns if isinstance(unix_ns, int) else None) or repr(unix_ns)
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return repr(unix_ns)
