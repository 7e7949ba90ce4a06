"""Carries batches out: each in one transaction, durable when `apply` returns. Not thread-safe."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.batch import Batch, Close, Correction, GapRow, JobRow, dump, unpack
from wattribute.agent.ledger.files import Mark, StateLock
from wattribute.agent.ledger.opening import Opened, head_of
from wattribute.agent.ledger.schema import (
    COLUMNS,
    KEYS,
    CorrectionRow,
    Row,
    StoredGap,
    Table,
    WindowRow,
    chained,
    contents,
    described_crc,
    statement,
)


class _Described(NamedTuple):
    meta: str
    closed: bytes
    window_start_unix_ns: int


class _Chain:
    """The end of an insert-only table, within one transaction: how many rows it has, and the hash of the last."""

    def __init__(self, connection: sqlite3.Connection, table: Table, node_id: str, epoch: str) -> None:
        self._connection = connection
        self._table = table
        connection.execute(
            "INSERT INTO epochs (node_id, epoch) VALUES (?1, ?2) ON CONFLICT DO NOTHING", (node_id, epoch)
        )
        found = connection.execute("SELECT epoch_id FROM epochs WHERE node_id = ? AND epoch = ?", (node_id, epoch))
        (self._epoch_id,) = found.fetchone()
        self._columns, self._key = COLUMNS[table], KEYS[table]
        self._count, self._head = head_of(connection, table)

    def append(self, row: Row) -> None:
        """Add a row; one that is there already changes nothing. Raises LedgerError where it says something else."""
        head = chained(self._head, row)
        stored = (self._epoch_id, *row[2:])
        values = (*stored, self._count + 1, head)
        marks = ", ".join("?" * len(values))
        added = self._connection.execute(
            f"INSERT INTO {self._table} ({self._columns}, position, hash) VALUES ({marks})"
            f" ON CONFLICT ({self._key}) DO NOTHING",
            values,
        ).rowcount
        if added:
            self._count += 1
            self._head = head
            return
        same = " AND ".join(f"{column} IS ?" for column in self._columns.split(", "))
        if not self._connection.execute(f"SELECT 1 FROM {self._table} WHERE {same}", stored).fetchone():
            raise LedgerError(f"{self._table} has another row under the key of {row}")

    def keep(self) -> None:
        """Note the new end, in the same transaction."""
        if self._table == "corrections":
            self._connection.execute(
                "INSERT INTO heads VALUES (?1, ?2, ?3) ON CONFLICT (chain) DO UPDATE SET row_count = ?2, head = ?3",
                (self._table, self._count, self._head),
            )
            return
        self._connection.execute(
            f"UPDATE meta SET {self._table} = ?, {self._table}_head = ?", (self._count, self._head)
        )


class Store:
    """A ledger open for writing. Not thread-safe; owns the connection, and marks its commits in the lock."""

    def __init__(self, opened: Opened, lock: StateLock) -> None:
        self._connection = opened.connection
        self._lock = lock
        self._ids = opened.ids  # row id by key, of the live jobs
        self._commits = opened.commits
        self._generation = opened.restored.generation
        self._node_id, self._boot_id = opened.saved_node_id, opened.saved_boot_id

    @property
    def epoch(self) -> str:
        """Names the run of time in which a window's key is unique: boot id and ledger generation."""
        return f"{self._boot_id}/{self._generation}"

    def apply(self, batch: Batch) -> None:
        """Commit a batch; afterwards it survives a kill and a power cut. Raises sqlite3.Error, LedgerError: nothing
        of it is there then, and it can be tried again.
        """
        added: list[str] = []
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for row in batch.jobs:
                if row.meta is not None:
                    self._describe(row, row.meta, batch.at_unix_ns, added)
            if batch.closes:
                self._close(batch.closes)
            self._write_totals(batch.jobs)
            if batch.gaps:
                self._write_gaps(batch.gaps)
            if batch.corrections:
                self._write_corrections(batch.corrections, batch.at_unix_ns)
            if batch.forget:
                self._forget(batch)
            connection.executemany(
                "INSERT INTO state VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE SET body = ?2, crc = ?3",
                [(name, body, crc32(body.encode())) for name, body in batch.state.items()],
            )
            connection.execute(
                "UPDATE meta SET commits = ?, committed_unix_ns = ?, prices = ?",
                (self._commits + 1, batch.at_unix_ns, batch.prices),
            )
            connection.execute("COMMIT")
        except BaseException:
            for key in added:
                del self._ids[key]
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        for key in batch.forget:
            self._ids.pop(key, None)
        self._committed()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _committed(self) -> None:
        self._commits += 1
        self._lock.write(Mark(self._generation, self._commits))

    def take_over(self, node_id: str, boot_id: str, open_windows: Sequence[str]) -> None:
        """Close what an earlier run left open, under that run's name; what follows has the new one.

        Raises sqlite3.Error.
        """
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            end_unix_ns, prices = connection.execute("SELECT committed_unix_ns, prices FROM meta").fetchone()
            self._close([Close(key, end_unix_ns, self._totals(self._ids[key]), prices) for key in open_windows])
            connection.execute(
                "UPDATE meta SET node_id = ?, boot_id = ?, generation = ?, commits = ?",
                (node_id, boot_id, self._generation, self._commits + 1),
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._node_id, self._boot_id = node_id, boot_id
        self._committed()

    # Jobs

    def _id(self, key: str) -> int:
        row_id = self._ids.get(key)
        if row_id is None:
            found = self._connection.execute("SELECT id FROM job WHERE key = ?", (key,)).fetchone()
            if found is None:
                raise LedgerError(f"the ledger was never told what job {key!r} is")
            row_id = found[0]
        return row_id

    def _described(self, row_id: int) -> _Described:
        row = self._connection.execute(
            "SELECT meta, closed, window_start_unix_ns FROM job WHERE id = ?", (row_id,)
        ).fetchone()
        return _Described(*row)

    def _totals(self, row_id: int) -> bytes:
        packed: bytes = self._connection.execute("SELECT packed FROM total WHERE id = ?", (row_id,)).fetchone()[0]
        return packed

    def _describe(self, row: JobRow, meta: str, at_unix_ns: int, added: list[str]) -> None:
        connection = self._connection
        found = connection.execute("SELECT id FROM job WHERE key = ?", (row.key,)).fetchone()
        if found is None:
            start = row.since_unix_ns or at_unix_ns
            connection.execute(
                "INSERT INTO job (key, meta, closed, window_start_unix_ns, finished, crc) VALUES (?, ?, x'', ?, 0, ?)",
                (row.key, meta, start, described_crc(row.key, meta, b"", start)),
            )
            found = connection.execute("SELECT last_insert_rowid()").fetchone()
            connection.execute("INSERT INTO total VALUES (?, x'', 0)", found)
        else:
            known = self._described(found[0])
            start = known.window_start_unix_ns
            if row.since_unix_ns > start and known.closed == self._totals(found[0]):
                start = row.since_unix_ns  # a new segment: the time in between belongs to no window
            connection.execute(
                "UPDATE job SET meta = ?, window_start_unix_ns = ?, finished = 0, crc = ? WHERE id = ?",
                (meta, start, described_crc(row.key, meta, known.closed, start), found[0]),
            )
        if row.key not in self._ids:
            self._ids[row.key] = found[0]
            added.append(row.key)

    def _write_totals(self, jobs: Sequence[JobRow]) -> None:
        known = self._ids
        rows = [
            (row.totals, crc32(row.totals), known[row.key] if row.key in known else self._id(row.key)) for row in jobs
        ]
        self._connection.executemany("UPDATE total SET packed = ?, crc = ? WHERE id = ?", rows)

    def _forget(self, batch: Batch) -> None:
        ids = {key: self._id(key) for key in batch.forget}
        self._close(
            [
                Close(key, batch.at_unix_ns, self._totals(row_id), batch.prices)
                for key, row_id in ids.items()
                if not key.startswith("_")
            ]
        )
        self._connection.executemany("UPDATE job SET finished = 1 WHERE id = ?", [(row_id,) for row_id in ids.values()])

    # Rows that are only ever added

    def _close(self, closes: Sequence[Close]) -> None:
        chain = _Chain(self._connection, "windows", self._node_id, self.epoch)
        for close in closes:
            row_id = self._id(close.key)
            known = self._described(row_id)
            # Wall time may have been set back; the windows of one job still follow one another.
            end_unix_ns = max(close.end_unix_ns, known.window_start_unix_ns + (close.totals != known.closed))
            totals, meta = unpack(close.totals), json.loads(known.meta)
            changed = contents(totals, unpack(known.closed), meta)
            if changed and "job" in meta:
                changed.setdefault("", {})  # it says whose the window is
            for domain, amounts in changed.items():
                chain.append(
                    WindowRow(
                        self._node_id,
                        self.epoch,
                        known.window_start_unix_ns,
                        close.key,
                        domain,
                        end_unix_ns,
                        dump(amounts),
                        "" if domain else statement(close.prices, meta),
                    )
                )
            self._connection.execute(
                "UPDATE job SET closed = ?, window_start_unix_ns = ?, crc = ? WHERE id = ?",
                (close.totals, end_unix_ns, described_crc(close.key, known.meta, close.totals, end_unix_ns), row_id),
            )
            self._connection.execute(
                "UPDATE total SET packed = ?, crc = ? WHERE id = ?", (close.totals, crc32(close.totals), row_id)
            )
        chain.keep()

    def _write_gaps(self, gaps: Sequence[GapRow]) -> None:
        chain = _Chain(self._connection, "gaps", self._node_id, self.epoch)
        for gap in gaps:
            chain.append(
                StoredGap(
                    self._node_id,
                    self.epoch,
                    gap.kind,
                    gap.id,
                    gap.start_unix_ns,
                    gap.end_unix_ns,
                    gap.cause,
                    gap.lower_uj,
                    gap.upper_uj,
                    gap.booked_uj,
                )
            )
        chain.keep()

    def _write_corrections(self, corrections: Sequence[Correction], at_unix_ns: int) -> None:
        chain = _Chain(self._connection, "corrections", self._node_id, self.epoch)
        for one in _summed(corrections):
            chain.append(
                CorrectionRow(
                    self._node_id,
                    self.epoch,
                    one.job_id,
                    one.product_id,
                    one.term,
                    one.cause,
                    one.window_start_unix_ns,
                    at_unix_ns,
                    one.window_end_unix_ns,
                    one.delta_ng,
                    one.detail,
                )
            )
        chain.keep()


def _summed(corrections: Sequence[Correction]) -> Iterable[Correction]:
    """One for each key: a clock that is set back has an interval twice, and a full disk puts both in one batch."""
    summed: dict[tuple[str | int, ...], Correction] = {}
    for one in corrections:
        key = (one.job_id, one.product_id, one.term, one.cause, one.window_start_unix_ns)
        known = summed.get(key)
        if known is not None:
            end_unix_ns = max(known.window_end_unix_ns, one.window_end_unix_ns)
            one = one._replace(window_end_unix_ns=end_unix_ns, delta_ng=known.delta_ng + one.delta_ng)
        summed[key] = one
    return summed.values()
