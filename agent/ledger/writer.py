"""The agent's ledger: takes a batch without waiting, and commits it in a thread of its own."""

import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.ledger.batch import Batch, merge
from wattribute.agent.ledger.files import DATABASE, StateLock, move_aside
from wattribute.agent.ledger.opening import Damaged, Restored, is_damage, take_up
from wattribute.agent.ledger.store import Store

log = logging.getLogger("wattribute")

HANGS_S = 10.0
"""A commit that takes longer is told as a fault: the disk stands still."""


class Ledger:
    """The durable record of one state directory, held by one agent at a time.

    All methods are for one thread (the agent's loop). A batch that can't be committed is kept, and tried again
    merged with the next one: a disk that was full for a while costs nothing but the wait.
    """

    def __init__(self, store: Store, lock: StateLock, restored: Restored, state_dir: Path) -> None:
        self._store = store
        self._lock = lock
        self._restored: Restored | None = restored
        self._state_dir = state_dir
        self._inbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._busy = False
        self._since_s = 0.0
        self._committed = 0
        self._used_ns = 0
        self._failure: str | None = None
        self._held: Batch | None = None
        self._closed = False
        self.wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Becomes readable after each try to commit."""
        self._thread = threading.Thread(target=self._write, name="wattribute-ledger", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, state_dir: Path, *, node_id: str, boot_id: str, clock_unix_ns: Callable[[], int]) -> "Ledger":
        """Take a state directory, make or take up its ledger, close the windows that an earlier run left open.

        Raises LedgerError, with the fix: not writable, in use by another agent, written by a newer version. A damaged
        ledger is moved aside with a warning, and a new generation begins.
        """
        lock = StateLock(state_dir)

        def begin() -> "Ledger":
            opened = take_up(state_dir, lock, node_id=node_id, boot_id=boot_id, clock_unix_ns=clock_unix_ns)
            store = Store(opened, lock)
            try:
                store.take_over(node_id, boot_id, opened.open_windows)
            except BaseException:
                store.close()
                raise
            return cls(store, lock, opened.restored, state_dir)

        try:
            try:
                return begin()
            except (Damaged, sqlite3.DatabaseError) as error:
                if not is_damage(error):
                    raise
                aside = move_aside(state_dir / DATABASE, clock_unix_ns() // NS_PER_S)
                log.warning(
                    "the ledger in %s is damaged (%s): moved to %s, and a new one begun. Counters start again from 0",
                    state_dir,
                    error,
                    aside.name,
                )
                return begin()
        except (Damaged, sqlite3.Error, OSError) as error:
            lock.close()
            fix = "check that the disk is writable and has room, or give another --state-dir"
            if isinstance(error, PermissionError):  # a backup that root put back, or what an agent of root's left
                fix = f"sudo chown -R {os.geteuid()} {state_dir}"
            raise LedgerError(f"the ledger in {state_dir} can't be opened: {error}. Fix: {fix}") from error
        except BaseException:
            lock.close()
            raise

    def restore(self) -> Restored:
        """What an earlier run left; can be asked for once."""
        restored, self._restored = self._restored, None
        if restored is None:
            raise LedgerError("what the ledger had was taken already")
        return restored

    @property
    def epoch(self) -> str:
        """Names the run of time in which a window's key is unique: boot id and ledger generation."""
        return self._store.epoch

    def submit(self, batch: Batch) -> bool:
        """Hand over a batch; False where the one before is still being written: merge it and offer it again."""
        if self._busy or not self._thread.is_alive():
            return False
        self._busy, self._since_s = True, time.monotonic()
        self._inbox.put(batch)
        return True

    def committed(self) -> int:
        """Sequence number of the last durable batch of this run; 0: none yet."""
        return self._committed

    @property
    def used_ns(self) -> int:
        """CPU time that the ledger's own thread has used, until the last commit."""
        return self._used_ns

    @property
    def failure(self) -> str | None:
        """Why the last try to commit failed, or takes so long; None once one succeeds again."""
        if not self._closed and not self._thread.is_alive():
            return "the ledger's thread has died: its traceback is in the log. Fix: restart the agent"
        if self._busy and (hangs_s := time.monotonic() - self._since_s) > HANGS_S and not self._failure:
            return f"its disk hasn't answered for {hangs_s:.0f} s. Fix: see to the disk of {self._state_dir}"
        return self._failure

    @property
    def gave_up(self) -> bool:
        """Whether what was submitted was tried in vain, or its disk hangs: to wait for it is no use."""
        trying = self._busy and self._thread.is_alive() and time.monotonic() - self._since_s <= HANGS_S
        return self.failure is not None and not trying

    def close(self) -> None:
        """Write what is still held, end the thread, give the directory free. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._inbox.put(None)
        self._thread.join()
        self._store.close()
        self._lock.close()
        os.close(self.wakeup_fd)

    def _write(self) -> None:
        while (batch := self._inbox.get()) is not None:
            self._commit(batch if self._held is None else merge(self._held, batch))
            self._used_ns = time.thread_time_ns()
            self._busy = False
            # Full only after 2**64 - 2 commits that nobody looked at.
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self.wakeup_fd, 1)
        if self._held is not None:
            self._commit(self._held)
            if self._held is not None:
                log.error("the last totals, since batch %d, are lost: %s", self._committed, self._failure)

    def _commit(self, batch: Batch) -> None:
        try:
            self._store.apply(batch)
        except (sqlite3.Error, LedgerError) as error:
            self._held = batch
            if self._failure is None:
                log.warning("the ledger can't be written, and keeps trying: %s", error)
            fix = "restart the agent: it moves the file aside" if is_damage(error) else "make room on its disk"
            self._failure = f"{error}. Fix: {fix}" if isinstance(error, sqlite3.Error) else str(error)
        else:
            if self._held is not None:
                log.warning("the ledger can be written again; nothing was lost")
            self._held = self._failure = None
            self._committed = batch.seq
