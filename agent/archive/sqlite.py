"""SQLite as the archive's database: WAL, readable by its owner only; other processes may write at the same time."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wattribute.agent.archive.database import NOTHING, Params, Unreachable
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.files import leave_to_owner, sync_dir

BUSY_S = 15.0
APPLICATION_ID = 0x77617461  # "wata"
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class SqliteDatabase:
    """An archive in a file. Raises LedgerError where it can't be opened."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_sure_of(path)
            self._connection = sqlite3.connect(
                path,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,  # opened by one thread, used by another
            )
        except (OSError, sqlite3.Error) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise LedgerError(
                f"the archive {path} can't be opened: {why}. Fix: run it as the user that the agent runs as, or give "
                "another agent.state_dir"
            ) from error
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self._errors():
            (kind,) = self._connection.execute("PRAGMA application_id").fetchone()
            if kind == 0 and not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            elif kind != APPLICATION_ID:
                raise LedgerError(
                    f"{self._path} isn't an archive of wattribute, and is left alone. Fix: give another path"
                )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")

    def rows(self, sql: str, params: Params = NOTHING) -> list[tuple[Any, ...]]:
        with self._errors():
            return self._connection.execute(sql, params).fetchall()

    def stream(self, sql: str, params: Params = NOTHING) -> Iterator[tuple[Any, ...]]:
        with self._errors():
            yield from self._connection.execute(sql, params)

    def run(self, sql: str, params: Params = NOTHING) -> None:
        with self._errors():
            self._connection.execute(sql, params)

    @contextlib.contextmanager
    def transaction(self, *, writing: bool) -> Iterator[None]:
        self.run("BEGIN IMMEDIATE" if writing else "BEGIN")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise

    def now_unix_ns(self) -> int:
        return time.time_ns()

    def create(self, statements: Sequence[str], *, unless: str) -> None:
        known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name"
        if self.rows(known, {"name": unless}):
            return
        with self.transaction(writing=True):
            if not self.rows(known, {"name": unless}):
                for statement in statements:
                    self.run(statement)

    def be_lenient(self) -> bool:
        if self._connection.text_factory is not str:
            return False
        self._connection.text_factory = _text
        return True

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _PASSING:
                raise Unreachable(
                    f"the archive {self._path} is busy: another process has been writing to it for {BUSY_S:g} s. "
                    "Fix: try again"
                ) from error
            raise LedgerError(
                f"the archive {self._path} can't be read or written: {error}. Fix: check that its disk is writable and "
                "has room; a damaged one can be moved away: it is filled again from ledger.db, without what was "
                "registered or imported"
            ) from error


def _make_sure_of(path: Path) -> None:
    """The file, readable by its owner only; another program's is left as it is. Raises OSError.

    Before SQLite opens it: closing a descriptor of ours later would drop SQLite's own POSIX locks.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        header = os.pread(fd, 72, 0)
        if not header or header[68:] == APPLICATION_ID.to_bytes(4, "big"):  # sqlite.org/fileformat.html, 1.3
            os.fchmod(fd, 0o600)
            leave_to_owner(fd, path.parent)
    finally:
        os.close(fd)
    sync_dir(path.parent)


def _text(stored: bytes) -> str:
    return stored.decode(errors="replace")
