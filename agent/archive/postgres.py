"""PostgreSQL as the archive's database, through SQLAlchemy Core and psycopg (the extra `postgresql`).

A connection that hangs is cut after a time, so that no thread waits for good. What a failed commit did isn't known;
the next connection reads it back.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wattribute.agent.archive.database import NOTHING, Params, Unreachable
from wattribute.agent.core.errors import ConfigError, LedgerError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, TextClause

CONNECT_S = 5
HANGING_S = 120.0
"""How long one answer may take: a thousand rows are a tenth of a second, sorting some ten millions is a minute.

Not how long a transaction may: a verification of everything is many answers.
"""
ROWS_AT_ONCE = 2000
SCHEMA_LOCK = 0x77617474

_FIXES = {  # postgresql.org/docs/current/errcodes-appendix.html
    "42501": "give the agent's role the rights in docs/fleet.md",
    "42P07": "give wattribute a database of its own: this one has tables of another program",
}
_OTHERWISE = "check ledger.url, and that the database is wattribute's own and in UTF8 (createdb --encoding UTF8)"
_NO_DRIVER = "ledger.url names a PostgreSQL, and its driver isn't installed: pip install 'wattribute[postgresql]'"
_ARGUMENTS: Mapping[str, str | int] = {
    "connect_timeout": CONNECT_S,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "wattribute",
    "client_encoding": "utf8",
}


class PostgresDatabase:
    """An archive in PostgreSQL: postgresql://USER@HOST/DATABASE.

    A password is better in ~/.pgpass or PGPASSWORD than in the URL. Raises ConfigError without the extra, Unreachable
    where nobody answers.
    """

    def __init__(self, url: str, *, hanging_s: float = HANGING_S) -> None:
        try:
            import sqlalchemy
            from sqlalchemy.pool import NullPool
        except ImportError as error:
            raise ConfigError(_NO_DRIVER) from error
        try:
            parsed = sqlalchemy.make_url(url)
            self.name = _shown(parsed)
            engine = sqlalchemy.create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                poolclass=NullPool,
                connect_args={name: value for name, value in _ARGUMENTS.items() if name not in parsed.query},
            )
        except ImportError as error:
            raise ConfigError(_NO_DRIVER) from error
        except (sqlalchemy.exc.ArgumentError, ValueError):
            raise ConfigError(
                "ledger.url isn't an address of a database: postgresql://USER@HOST/DATABASE is one"
            ) from None  # the cause would show the password
        self._failures = (sqlalchemy.exc.SQLAlchemyError,)
        self._operational = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)
        self._text = sqlalchemy.text
        self._texts: dict[str, TextClause] = {}
        self._hanging_s = hanging_s
        handshake: list[threading.Timer] = []

        def watch(driver: Any, record: object) -> None:
            handshake.append(self._started(driver))

        # SQLAlchemy asks a new server some things: those too may be left without an answer.
        sqlalchemy.event.listen(engine, "connect", watch, insert=True)
        try:
            with self._errors():
                self._connection: Connection = engine.connect()
        finally:
            for timer in handshake:
                timer.cancel()

    def rows(self, sql: str, params: Params = NOTHING) -> list[tuple[Any, ...]]:
        with self._errors(), self._alone():
            return [tuple(row) for row in self._connection.execute(self._prepared(sql), params)]

    def stream(self, sql: str, params: Params = NOTHING) -> Iterator[tuple[Any, ...]]:
        with self._errors():
            with self._deadline():
                result = self._connection.execute(
                    self._prepared(sql), params, execution_options={"stream_results": True, "yield_per": ROWS_AT_ONCE}
                )
            try:
                pieces = result.partitions(ROWS_AT_ONCE)
                while True:
                    with self._deadline():
                        piece = next(pieces, None)
                    if piece is None:
                        return
                    yield from map(tuple, piece)
            finally:
                with contextlib.suppress(*self._failures), self._deadline():
                    result.close()

    def run(self, sql: str, params: Params = NOTHING) -> None:
        with self._errors(), self._alone():
            self._connection.execute(self._prepared(sql), params)

    @contextlib.contextmanager
    def transaction(self, *, writing: bool) -> Iterator[None]:
        with self._errors():
            transaction = self._connection.begin()
            try:
                if not writing:
                    self.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield
                with self._deadline():
                    transaction.commit()
            except BaseException:
                with contextlib.suppress(*self._failures), self._deadline():
                    transaction.rollback()
                raise

    def now_unix_ns(self) -> int:
        ((now,),) = self.rows("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000000 AS BIGINT)")
        return int(now)

    def create(self, statements: Sequence[str], *, unless: str) -> None:
        # Not to_regclass: it remembers that there was none, also past the wait for another who made it.
        known = "SELECT COUNT(*) FROM pg_tables WHERE tablename = :name AND schemaname = ANY (current_schemas(false))"
        if self.rows(known, {"name": unless}) != [(0,)]:
            return
        with self.transaction(writing=True):
            self.run(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
            if self.rows(known, {"name": unless}) == [(0,)]:
                for statement in statements:
                    # Bytes in order, not a language's: quicker, and the same order as SQLite's.
                    self.run(statement.replace(" TEXT", ' TEXT COLLATE "C"'))

    def be_lenient(self) -> bool:
        return False  # the server keeps no other texts

    def close(self) -> None:
        with contextlib.suppress(*self._failures):
            self._connection.close()

    def _prepared(self, sql: str) -> "TextClause":
        known = self._texts.get(sql)
        if known is None:
            if len(self._texts) > 500:
                self._texts.clear()
            known = self._texts[sql] = self._text(sql)
        return known

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """A statement outside a transaction is one of its own."""
        of_its_own = contextlib.nullcontext() if self._connection.in_transaction() else self._connection.begin()
        with self._deadline(), of_its_own:
            yield

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        """Cut the connection where the server is still silent after a time: psycopg itself would wait for good."""
        driver = None if self._connection.invalidated else self._connection.connection.driver_connection
        timer = None if driver is None or driver.closed else self._started(driver)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    def _started(self, driver: Any) -> threading.Timer:
        timer = threading.Timer(self._hanging_s, _cut, [driver.fileno()])
        timer.daemon = True
        timer.start()
        return timer

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            why = " ".join(str(getattr(error, "orig", None) or error).split())
            if isinstance(error, self._operational):
                raise Unreachable(
                    f"{self.name} doesn't answer: {why}. Fix: check that PostgreSQL runs and takes this user "
                    "(psql with the same address); what wasn't delivered stays in ledger.db until it does"
                ) from None
            state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
            raise LedgerError(f"{self.name} refuses: {why}. Fix: {_FIXES.get(state, _OTHERWISE)}") from None


def _shown(url: "URL") -> str:
    """Host and database alone: what else is in a URL may be a secret."""
    return f"postgresql://{url.host or 'localhost'}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def _cut(fd: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as hanging:
        hanging.shutdown(socket.SHUT_RDWR)
