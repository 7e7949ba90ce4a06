"""Reads a ledger beside the agent that writes it, or after it: jobs, closed rows, and whether they add up."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.files import DATABASE
from wattribute.agent.ledger.opening import (
    JOB_QUERY,
    NEVER_CORRECTED,
    Damaged,
    SavedJob,
    check_version,
    connect,
    load_corrections,
    load_job,
    load_state,
)
from wattribute.agent.ledger.schema import (
    COLUMNS,
    GAP_COLUMNS,
    ROWS,
    WINDOW_COLUMNS,
    Row,
    StoredGap,
    Table,
    WindowRow,
)

if TYPE_CHECKING:  # verification isn't on an agent's way to its start
    from wattribute.agent.ledger.chains import Progress
    from wattribute.agent.ledger.verify import Head, Verdict


class Reader:
    """A ledger open for reading; every call sees what is committed by then. Not thread-safe."""

    def __init__(self, connection: sqlite3.Connection, path: Path, version: int) -> None:
        self._connection = connection
        self._path = path
        self._version = version

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def jobs(self) -> dict[str, SavedJob]:
        """The jobs that run or are still held, and the folded rows, by key. Raises LedgerError."""
        return self._jobs("WHERE finished = 0")

    def finished_jobs(self) -> dict[str, SavedJob]:
        """The jobs that the agent has forgotten, oldest first, by key. Raises LedgerError."""
        return self._jobs("WHERE finished = 1 ORDER BY job.id")

    def described_by(self, text: str) -> Iterator[SavedJob]:
        """Every job, live or finished, that has a text in its description, oldest first, as of one moment.

        Each is read when it is asked for, so that memory stays flat. Raises LedgerError.
        """
        try:
            rows = self._connection.execute(f"{JOB_QUERY} WHERE instr(meta, ?) > 0 ORDER BY job.id", (text,))
            corrected = load_corrections(self._connection)
            for row in rows:
                saved = load_job(row)
                yield saved._replace(corrected=corrected[row[0]]) if row[0] in corrected else saved
        except (sqlite3.Error, Damaged) as error:
            raise _unreadable(self._path, error) from error

    def job(self, key: str) -> SavedJob | None:
        """One job, live or finished; None: never heard of. Raises LedgerError."""
        return self._jobs("WHERE key = ?", key).get(key)

    def state(self) -> dict[str, Any]:
        """What the agent saved of itself, by name. Raises LedgerError."""
        try:
            return load_state(self._connection)
        except (sqlite3.Error, Damaged) as error:
            raise _unreadable(self._path, error) from error

    def committed_unix_ns(self) -> int:
        """When the last batch was taken. Raises LedgerError."""
        return int(self._rows("SELECT committed_unix_ns FROM meta")[0][0])

    def chain(self, table: Table, after: int = 0, limit: int = 1000) -> list[tuple[int, Row, bytes]]:
        """The next closed rows past a position of a chain: (position, row, hash). Raises LedgerError."""
        if table == "corrections" and self._version < 2:
            return []
        columns = f"{COLUMNS[table].removeprefix('epoch_id, ')}, position, hash"
        found = self._rows(
            f"SELECT node_id, epoch, {columns} FROM {table} JOIN epochs USING (epoch_id) WHERE position > ?"
            " ORDER BY position LIMIT ?",
            after,
            limit,
        )
        return [(position, ROWS[table](*values), kept) for *values, position, kept in found]

    def created_unix_ns(self) -> int:
        """When this ledger was begun: it tells one ledger of a node from the next. Raises LedgerError."""
        return int(self._rows("SELECT created_unix_ns FROM meta")[0][0])

    def windows(self) -> list[WindowRow]:
        """Every closed row, in the order of the chain. Raises LedgerError."""
        return [WindowRow(*row) for row in self._rows(_query("windows", WINDOW_COLUMNS))]

    def gaps(self) -> list[StoredGap]:
        """Every gap, in the order of the chain. Raises LedgerError."""
        return [StoredGap(*row) for row in self._rows(_query("gaps", GAP_COLUMNS))]

    def verify(self) -> list[str]:
        """What is wrong, in words; nothing: see verdict. Raises LedgerError."""
        return [problem.text for problem in self.verdict().problems]

    def verdict(self, progress: "Progress | None" = None) -> "Verdict":
        """Whether pages, checksums and chains are sound, and closed rows add up to the totals and these to the node.
        Reads everything, at one moment. Raises LedgerError.
        """
        from wattribute.agent.ledger.verify import verify

        try:
            self._connection.execute("BEGIN")
            try:
                return verify(self._connection, self._version, progress)
            finally:
                self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from error

    def heads(self) -> "list[Head]":
        """The ends of the chains as they are noted, without a check. Raises LedgerError."""
        from wattribute.agent.ledger.verify import heads

        try:
            return heads(self._connection, self._version)
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from error

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        self._connection.close()

    def _rows(self, query: str, *values: str | int) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from error

    def _jobs(self, which: str, *values: str) -> dict[str, SavedJob]:
        rows = self._rows(f"{JOB_QUERY} {which}", *values)
        try:
            corrected = load_corrections(self._connection, *values)
            return {row[0]: load_job(row)._replace(corrected=corrected.get(row[0], NEVER_CORRECTED)) for row in rows}
        except (sqlite3.Error, Damaged) as error:
            raise _unreadable(self._path, error) from error


def read_only(state_dir: Path) -> Reader:
    """The ledger in a state directory, whether its agent runs or not. Raises LedgerError."""
    path = state_dir / DATABASE
    if not path.is_file():
        raise LedgerError(f"there is no ledger in {state_dir}. Fix: give the --state-dir of the agent that ran here")
    try:
        connection = connect(path, writing=False)
        try:
            version = check_version(connection, path)
            if not version:
                raise Damaged("it is empty")
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, Damaged) as error:
        raise _unreadable(path, error) from error
    return Reader(connection, path, version)


def _query(table: str, columns: str) -> str:
    columns = columns.removeprefix("epoch_id, ")
    return f"SELECT node_id, epoch, {columns} FROM {table} JOIN epochs USING (epoch_id) ORDER BY position"


def _unreadable(path: Path, error: Exception) -> LedgerError:
    return LedgerError(
        f"the ledger {path} can't be read: {error}. Fix: read it as the user that the agent runs as; a damaged one is "
        "moved aside when the agent starts"
    )
