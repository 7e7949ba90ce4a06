"""What the archive asks of a database: one SQL text with `:name` parameters, explicit transactions, two drivers.

Values are texts, integers of 64 bits and None. Every failure of the database is a LedgerError with the fix.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

from wattribute.agent.core.errors import LedgerError

Value: TypeAlias = str | int | None
Params: TypeAlias = Mapping[str, Value]

NOTHING: Params = {}
ROWS_AT_ONCE = 100
"""Rows per INSERT: a network's round trip is shared by them, and parameters stay far below SQLite's 32,766."""


class Unreachable(LedgerError):
    """The database can't be reached or is busy: trying again later may help. Nothing of the transaction is known."""


class Database(Protocol):
    """One connection to one database, for one thread at a time. `name` tells it in messages, without a password."""

    @property
    def name(self) -> str: ...

    def rows(self, sql: str, params: Params = NOTHING) -> list[tuple[Any, ...]]:
        """Carry out a statement; what it gives back. Raises LedgerError."""
        ...

    def stream(self, sql: str, params: Params = NOTHING) -> Iterator[tuple[Any, ...]]:
        """The rows of a query one by one, memory flat; within a transaction. Raises LedgerError."""
        ...

    def run(self, sql: str, params: Params = NOTHING) -> None:
        """Carry out a statement that gives nothing back. Raises LedgerError."""
        ...

    def transaction(self, *, writing: bool) -> AbstractContextManager[None]:
        """All or nothing; without `writing`, everything is read as of one moment. Raises LedgerError."""
        ...

    def now_unix_ns(self) -> int:
        """The time by the clock that all who share the database have in common. Raises LedgerError."""
        ...

    def create(self, statements: Sequence[str], *, unless: str) -> None:
        """Make tables, unless this one is there; others who would do the same wait. Raises LedgerError."""
        ...

    def be_lenient(self) -> bool:
        """From now on read texts that aren't UTF-8 with marks in them, so that rows can be named; False: no change."""
        ...

    def close(self) -> None:
        """Let go of it; may be called twice."""
        ...


def insert(
    database: Database,
    table: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Value]],
    then: str = "",
) -> list[tuple[Any, ...]]:
    """Insert many rows in few statements; `then` is what follows VALUES, and may give something back."""
    given: list[tuple[Any, ...]] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        marks = ", ".join(f"({', '.join(f':{name}_{i}' for name in columns)})" for i in range(len(some)))
        params = {f"{name}_{i}": value for i, row in enumerate(some) for name, value in zip(columns, row, strict=True)}
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {marks} {then}"
        if "RETURNING" in then:
            given += database.rows(sql, params)
        else:
            database.run(sql, params)
    return given
