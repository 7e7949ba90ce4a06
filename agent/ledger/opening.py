"""Opens a ledger for writing: makes a new one, takes up an old one, or moves a bad one aside, loudly.

A ledger that is damaged can't be gone on from: whatever follows it belongs to a new generation, so that no row key
is ever used for two contents. The same holds for one that lost commits (a cut log, a backup put back).
"""

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.batch import unpack
from wattribute.agent.ledger.files import DATABASE, Mark, StateLock, create_private
from wattribute.agent.ledger.schema import (
    ADDED_BY_2,
    APPLICATION_ID,
    NO_HASH,
    SCHEMA_VERSION,
    TABLES,
    TABLES_OF_1,
    Table,
    described_crc,
)

log = logging.getLogger("wattribute")

CHECKED_WHOLE_BYTES = 64 << 20
"""Up to this size the whole file is checked at start (about 0.1 s); past it, all but the closed rows."""


class Damaged(Exception):
    """The file isn't a sound ledger; the message says what is wrong."""


class Corrected(NamedTuple):
    """What was corrected of a job: nanograms by (product, term), and how many times that happened."""

    corrections_ng: dict[tuple[str, str], int]
    times: int


NEVER_CORRECTED = Corrected({}, 0)


class SavedJob(NamedTuple):
    """A job as the ledger has it: its description, its totals by slot as they were booked, and what was corrected."""

    meta: dict[str, Any]
    totals: list[int]
    corrected: Corrected = NEVER_CORRECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What an agent goes on from. `committed_unix_ns` is when the last batch was taken (0: a new ledger)."""

    jobs: Mapping[str, SavedJob]
    state: Mapping[str, Any]
    created_unix_ns: int
    committed_unix_ns: int
    generation: int
    same_boot: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open ledger. `open_windows` are the jobs whose totals hold more than their closed rows."""

    connection: sqlite3.Connection
    restored: Restored
    ids: dict[str, int]
    open_windows: tuple[str, ...]
    saved_node_id: str
    saved_boot_id: str
    commits: int


def take_up(
    state_dir: Path, lock: StateLock, *, node_id: str, boot_id: str, clock_unix_ns: Callable[[], int]
) -> Opened:
    """The ledger of a state directory whose lock is held, new where there is none.

    Raises Damaged, sqlite3.Error, OSError, and LedgerError for one of a newer version.
    """
    path = state_dir / DATABASE
    create_private(path)
    connection = connect(path, writing=True)
    try:
        version = check_version(connection, path)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA journal_size_limit = 4194304")
        if version:
            if version < SCHEMA_VERSION:
                _migrate(connection)
            return _go_on(connection, path, lock.mark(), node_id, boot_id)
        return _create(connection, lock.mark(), node_id, boot_id, clock_unix_ns())
    except BaseException:
        connection.close()
        raise


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file itself is bad, and not its disk or its rights."""
    if isinstance(error, Damaged):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def connect(path: Path, *, writing: bool) -> sqlite3.Connection:
    """A connection without transactions of Python's making; one thread at a time. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'rw' if writing else 'ro'}",
        uri=True,
        timeout=5.0,
        isolation_level=None,
        check_same_thread=False,  # opened by one thread, used by another
    )
    connection.text_factory = _text  # a mangled text is a checksum that doesn't match, not another exception
    return connection


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """Which schema the ledger has, 1 or 2; 0 for an empty file. Raises Damaged, LedgerError."""
    version = _pragma(connection, "user_version")
    if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        return 0
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise Damaged("it isn't a wattribute ledger")
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{path} was written by a newer wattribute (schema {version}, this one knows {SCHEMA_VERSION}). "
            "Fix: install that version again, or give another --state-dir"
        )
    present = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
    if version not in (1, SCHEMA_VERSION) or present != set(TABLES if version > 1 else TABLES_OF_1):
        raise Damaged(f"its tables aren't those of schema {version}")
    return version


def _migrate(connection: sqlite3.Connection) -> None:
    """A ledger of schema 1 gets the tables that came since; nothing in it changes."""
    connection.execute("BEGIN IMMEDIATE")
    for table in ADDED_BY_2:
        connection.execute(table)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def load_job(row: tuple[Any, ...]) -> SavedJob:
    """A job from a row of JOB_QUERY. Raises Damaged."""
    key, meta, closed, window_start_unix_ns, crc, packed, packed_crc, _ = row
    try:
        if crc32(packed) == packed_crc and described_crc(key, meta, closed, window_start_unix_ns) == crc:
            return SavedJob(json.loads(meta), unpack(packed))
    except (AttributeError, TypeError, ValueError):
        pass  # a mangled row header turns a blob into a number
    raise Damaged(f"the row of job {key!r} doesn't match its checksum")


def load_corrections(connection: sqlite3.Connection, key: str | None = None) -> dict[str, Corrected]:
    """What was corrected, by job; of one job where a key is given. Nothing in a ledger of schema 1."""
    if _pragma(connection, "user_version") < 2:
        return {}
    which, values = ("", ()) if key is None else ("WHERE job_id = ?", (key,))
    found: dict[str, tuple[dict[tuple[str, str], int], set[int]]] = {}
    for job_id, product_id, term, at_unix_ns, delta_ng in connection.execute(
        f"SELECT job_id, product_id, term, at_unix_ns, delta_ng FROM corrections {which}", values
    ):
        sums, moments = found.setdefault(job_id, ({}, set()))
        sums[product_id, term] = sums.get((product_id, term), 0) + delta_ng
        moments.add(at_unix_ns)
    return {job_id: Corrected(sums, len(moments)) for job_id, (sums, moments) in found.items()}


def load_state(connection: sqlite3.Connection) -> dict[str, Any]:
    """The saved state by name. Raises Damaged."""
    state = {}
    for name, body, crc in connection.execute("SELECT name, body, crc FROM state"):
        if not isinstance(body, str) or crc32(body.encode()) != crc:
            raise Damaged(f"the state {name!r} doesn't match its checksum")
        state[name] = json.loads(body)
    return state


def head_of(connection: sqlite3.Connection, table: Table) -> tuple[int, bytes]:
    """How many rows a chain has, and the hash of the last."""
    if table == "corrections":  # came with schema 2, whose tables hold no column for it in `meta`
        found = connection.execute("SELECT row_count, head FROM heads WHERE chain = ?", (table,)).fetchone()
        return found or (0, NO_HASH)
    count, head = connection.execute(f"SELECT {table}, {table}_head FROM meta").fetchone()
    return count, head


JOB_QUERY = (
    "SELECT key, meta, closed, window_start_unix_ns, job.crc, packed, total.crc, job.id FROM job JOIN total USING (id)"
)


def _text(stored: bytes) -> str:
    return stored.decode(errors="replace")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _go_on(connection: sqlite3.Connection, path: Path, mark: Mark, node_id: str, boot_id: str) -> Opened:
    _check_pages(connection, path)
    meta = connection.execute(
        "SELECT node_id, boot_id, generation, created_unix_ns, commits, committed_unix_ns FROM meta"
    ).fetchone()
    if meta is None or [type(value) for value in meta] != [str, str, int, int, int, int]:
        raise Damaged("its description is missing")
    saved_node_id, saved_boot_id, generation, created_unix_ns, commits, committed_unix_ns = meta
    same_boot = saved_boot_id == boot_id
    jobs, ids, open_windows = {}, {}, []
    corrected = load_corrections(connection)
    for row in connection.execute(f"{JOB_QUERY} WHERE finished = 0"):
        key, _, closed, _, _, packed, _, row_id = row
        jobs[key] = load_job(row)._replace(corrected=corrected.get(key, NEVER_CORRECTED))
        ids[key] = row_id
        if packed != closed and not key.startswith("_"):
            open_windows.append(key)
    if mark > Mark(generation, commits):
        generation = max(mark.generation, generation) + 1
        log.warning(
            "the ledger %s lost commits (it has %d of %d): its end was cut off, or an old copy was put back. "
            "Going on from what it has, as generation %d; counters may fall once",
            path,
            commits,
            mark.commits,
            generation,
        )
        saved_node_id, saved_boot_id = node_id, boot_id
    return Opened(
        connection=connection,
        restored=Restored(
            jobs=jobs,
            state=load_state(connection),
            created_unix_ns=created_unix_ns,
            committed_unix_ns=committed_unix_ns,
            generation=generation,
            same_boot=same_boot,
        ),
        ids=ids,
        open_windows=tuple(open_windows),
        saved_node_id=saved_node_id,
        saved_boot_id=saved_boot_id,
        commits=commits,
    )


def _create(connection: sqlite3.Connection, mark: Mark, node_id: str, boot_id: str, now_unix_ns: int) -> Opened:
    generation = mark.generation + 1
    connection.execute("BEGIN IMMEDIATE")
    for table in TABLES:
        connection.execute(table)
    connection.execute(
        "INSERT INTO meta VALUES (1, ?, ?, ?, ?, 0, 0, '', 0, ?, 0, ?)",
        (node_id, boot_id, generation, now_unix_ns, NO_HASH, NO_HASH),
    )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
    return Opened(
        connection=connection,
        restored=Restored(
            jobs={},
            state={},
            created_unix_ns=now_unix_ns,
            committed_unix_ns=0,
            generation=generation,
            same_boot=False,
        ),
        ids={},
        open_windows=(),
        saved_node_id=node_id,
        saved_boot_id=boot_id,
        commits=0,
    )


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size <= CHECKED_WHOLE_BYTES:
        checks = ["PRAGMA quick_check(3)"]
    else:
        checks = [f"PRAGMA quick_check({table})" for table in ("meta", "job", "total", "state", "gaps", "heads")]
    for check in checks:
        found = [text for (text,) in connection.execute(check)]
        if found != ["ok"]:
            raise Damaged("; ".join(str(text) for text in found))
