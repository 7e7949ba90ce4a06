"""What an export of the ledger holds, in any format: rows as their node closed them, with chain, position and hash.

Everything that a hash is made of is there unchanged, so that whoever has an export can verify it without us. A few
columns that follow from the others come last, for whoever just wants to add up.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.model import TERMS

FORMAT = 1
NODE_KEY = "_node"  # the job id under which rows tell of the whole node

Kind: TypeAlias = Literal["text", "integer", "maybe"]
"""`maybe`: an integer, or nothing where there is no bound."""


class Column(NamedTuple):
    """A column: its name, of which the unit is the last word, its type, and what it says."""

    name: str
    kind: Kind
    says: str


_NODE = Column("node_id", "text", "the node that closed the row")
_EPOCH = Column("epoch", "text", "boot id and generation of the node's ledger: a row's key is unique within both")
_START = Column("window_start_unix_ns", "integer", "start of the window, Unix nanoseconds")
_END = Column("window_end_unix_ns", "integer", "end of the window, Unix nanoseconds")
_JOB = Column("job_id", "text", "the job; _node: the node itself")

STORED: Mapping[str, Sequence[Column]] = {
    "windows": (
        _NODE,
        _EPOCH,
        _START,
        _JOB,
        Column("domain", "text", "cpu, dram, gpu or rest; empty: what belongs to no domain"),
        _END,
        Column(
            "content", "text", "JSON, integers by name: microjoules by share.quality; without domain nanograms CO2e"
        ),
        Column("prices", "text", "JSON: what energy cost then, and whose the job is; only without domain"),
    ),
    "gaps": (
        _NODE,
        _EPOCH,
        Column("kind", "text", "cpu, dram, gpu, rest or psys"),
        Column("id", "text", "what was measured: package, GPU UUID"),
        Column("start_unix_ns", "integer", "start of the gap, Unix nanoseconds"),
        Column("end_unix_ns", "integer", "end of the gap, Unix nanoseconds"),
        Column("cause", "text", "first, wrapped, reset, stale, implausible, absent or released"),
        Column("lower_uj", "integer", "at least this was used, microjoules"),
        Column("upper_uj", "maybe", "at most this was used, microjoules; nothing: no bound"),
        Column("booked_uj", "integer", "what was booked for it, microjoules"),
    ),
    "corrections": (
        _NODE,
        _EPOCH,
        _JOB,
        Column("product_id", "text", "who is paid: of a tax its payee, else the job's own product"),
        Column("term", "text", "the carbon term that is corrected"),
        Column("cause", "text", "intensity or retraining"),
        _START,
        Column("at_unix_ns", "integer", "when it was corrected, Unix nanoseconds"),
        _END,
        Column("delta_ng", "integer", "what is added to the term, nanograms CO2e, signed"),
        Column("detail", "text", "why, in words"),
    ),
}
PLACE = (
    Column("record", "text", "row; known, refused: not to be counted, another chain has its key; head: a chain's end"),
    Column("chain", "integer", "number of the chain in this export"),
    Column("position", "integer", "place in the chain, from 1; of a head: how many rows the chain has"),
)
HASH = Column("hash", "text", "SHA-256 of the hash before and the row's columns, hexadecimal")
_TIMES = (
    Column("start", "text", "start as RFC 3339"),
    Column("end", "text", "end as RFC 3339"),
)
DERIVED: Mapping[str, Sequence[Column]] = {
    "windows": (
        *_TIMES,
        Column("product_id", "text", "the job's product, where the row says it"),
        Column("role", "text", "the job's role, where the row says it"),
        Column("energy_uj", "integer", "the row's energy, microjoules"),
        Column("co2e_ng", "integer", "the row's ASC^e as booked, nanograms CO2e; corrections are a table of their own"),
    ),
    "gaps": _TIMES,
    "corrections": _TIMES,
}
ABOUT = Column("about", "text", "of a head: JSON about the export")


def columns(table: str) -> tuple[Column, ...]:
    """All columns of an export of a table, in their order."""
    return (*PLACE, *STORED[table], HASH, *DERIVED[table])


class Row(NamedTuple):
    """A row of an export. `values` are the columns of STORED. `record`: row | known | refused."""

    record: str
    chain: int
    position: int
    values: tuple[Any, ...]
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of one chain: how many rows it has, and the hash of the last.

    A chain that left another one (`parent`) begins after that one's position `forked_after`.
    """

    chain: int
    node_id: str
    rows: int
    hash: str
    parent: int | None = None
    forked_after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an export is of. `partial`: only rows of a stretch of time are in it. `schema`: of the ledger."""

    table: str
    schema: int
    heads: Sequence[Head]
    partial: bool = False

    def of(self, head: Head) -> dict[str, Any]:
        """What a head says of its export, as JSON values."""
        return {
            "format": FORMAT,
            "schema": self.schema,
            "table": self.table,
            "partial": self.partial,
            "parent": head.parent,
            "forked_after": head.forked_after,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export that was opened: what it is of, and its rows, from the start at each call."""

    path: str
    about: About
    rows: Callable[[], Iterator[Row]]


def flat(table: str, row: Row) -> tuple[Any, ...]:
    """A row as it is written, with what follows from it."""
    return (row.record, row.chain, row.position, *row.values, row.hash, *_derived(table, row.values))


def _derived(table: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if table == "gaps":
        return time_of(values[4]), time_of(values[5])
    if table == "corrections":
        return time_of(values[6]), time_of(values[8])
    _, _, start, job, domain, end, content, prices = values
    amounts, said = _object(content), _object(prices)
    counted = [
        amount
        for name, amount in amounts.items()
        if isinstance(amount, int) and (name.startswith("node.") if job == NODE_KEY else True)
    ]
    grams = sum(amounts.get(term, 0) for term in TERMS)
    return (
        time_of(start),
        time_of(end),
        _text(said.get("product_id")),
        _text(said.get("role")),
        sum(counted) if domain else 0,
        0 if domain else grams,
    )


def _object(text: str) -> Mapping[str, Any]:
    try:
        said = json.loads(text) if text else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def time_of(unix_ns: int) -> str:
    """Unix nanoseconds as RFC 3339; empty for a time that no calendar has."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=unix_ns // 1000)
    except OverflowError:
        return ""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def about_from(path: str, heads: Sequence[Mapping[str, Any]], abouts: Sequence[Mapping[str, Any]]) -> About:
    """What the heads of an export say. Raises LedgerError where they aren't ours, or are a newer version's."""
    try:
        first = abouts[0]
        if first["format"] > FORMAT:
            raise LedgerError(f"{path} was exported by a newer wattribute. Fix: import it with that version")
        if first["table"] not in STORED:
            raise LedgerError(f"{path} holds {first['table']!r}, which isn't a table of the ledger")
        for head, about in zip(heads, abouts, strict=True):
            _check_head(path, head, about)
        return About(
            table=first["table"],
            schema=first["schema"],
            partial=any(about["partial"] for about in abouts),
            heads=[
                Head(
                    chain=head["chain"],
                    node_id=head["node_id"],
                    rows=head["position"],
                    hash=head["hash"],
                    parent=about["parent"],
                    forked_after=about["forked_after"],
                )
                for head, about in zip(heads, abouts, strict=True)
            ],
        )
    except (IndexError, KeyError, TypeError) as error:
        raise LedgerError(
            f"{path} isn't an export of wattribute: it doesn't begin with what it is of. Fix: export it again with "
            "wattribute ledger export"
        ) from error


def _check_head(path: str, head: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Raises LedgerError where a head holds a value that none can."""
    numbers = {"chain": head["chain"], "position": head["position"], "forked_after": about["forked_after"]}
    if about["parent"] is not None:
        numbers["parent"] = about["parent"]
    wrong = [name for name, value in numbers.items() if type(value) is not int or not 0 <= value < 1 << 63]
    wrong += [name for name in ("node_id", "hash") if type(head[name]) is not str]
    wrong += [name for name, value in (("schema", about["schema"]),) if type(value) is not int]
    if not wrong and about["parent"] is not None and about["parent"] >= head["chain"]:
        wrong = ["parent"]  # a chain leaves one that was there before
    if wrong:
        raise LedgerError(f"{path}: a head's {wrong[0]} can't be {_shown({**about, **head}[wrong[0]])}")


def row_from(where: str, table: str, record: Mapping[str, Any]) -> Row:
    """A row from plain values by column. Raises LedgerError naming the column that is missing or of another type."""

    def value(column: Column) -> Any:
        found = record.get(column.name)
        if column.kind == "text" and type(found) is not str:
            raise LedgerError(f"{where}, column {column.name}: {_shown(found)} isn't a text")
        if column.kind == "integer" and type(found) is not int:
            raise LedgerError(f"{where}, column {column.name}: {_shown(found)} isn't an integer")
        if column.kind == "maybe" and found is not None and type(found) is not int:
            raise LedgerError(f"{where}, column {column.name}: {_shown(found)} isn't an integer or nothing")
        return found

    kind, chain, position = (value(column) for column in PLACE)
    return Row(kind, chain, position, tuple(value(column) for column in STORED[table]), value(HASH))


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:60]
