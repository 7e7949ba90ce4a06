"""Asks the ledger for jobs that have left the agent's table, in a thread of its own: its disk may stand still.

Which ids it may know is kept in memory (4 bytes a job), so that a job with a new id begins without a question.
"""

import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.files import DATABASE
from wattribute.agent.ledger.opening import SavedJob, connect
from wattribute.agent.ledger.reader import Reader, read_only

log = logging.getLogger("wattribute")

OVERDUE_S = 0.1
MOST_PENDING = 20_000
KEYS_AT_ONCE, BREATH_S = 500, 0.005
"""While ids are learnt: the agent's loop shares an interpreter lock with this thread."""
_BITS_A_KEY, _LEAST_KEYS, _PROBES = 16, 1 << 16, 4
_LEAVE_S = 3.0

OpenReader = Callable[[Path], Reader]


class NotYet(LedgerError):
    """The ledger's disk hasn't answered yet."""


class Question:
    """What the ledger has of one job, once `done` is set. All but `_answer` is for the asker's thread."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.asked_s = time.monotonic()
        self.done = threading.Event()
        self._saved: SavedJob | None = None
        self._error: LedgerError | None = None

    def answer(self, patience_s: float = 0.0) -> SavedJob | None:
        """The job, None where the ledger has never heard of it. Raises LedgerError; NotYet after `patience_s`."""
        if not self.done.wait(patience_s):
            raise _not_yet()
        if self._error is not None:
            raise self._error
        return self._saved

    def _answer(self, saved: SavedJob | None, error: LedgerError | None = None) -> None:
        self._saved, self._error = saved, error
        self.done.set()


class Known:
    """Job ids, some of them wrongly (a Bloom filter): what it doesn't know was never added."""

    def __init__(self, keys: int) -> None:
        self._size = max(keys, _LEAST_KEYS) * _BITS_A_KEY
        self._bits = bytearray(self._size // 8)

    def add(self, key: str) -> None:
        """From now on it is known."""
        for place in self._places(key):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: str) -> bool:
        return all(self._bits[place >> 3] & 1 << (place & 7) for place in self._places(key))

    def _places(self, key: str) -> Iterable[int]:
        mixed = hash(key) & (1 << 64) - 1
        step = mixed >> 32 | 1
        return [(mixed + number * step) % self._size for number in range(_PROBES)]


class Past:
    """The jobs that a ledger has forgotten, by id. All methods are for one thread, and none of them waits.

    `wakeup_fd` becomes readable after each answer.
    """

    def __init__(self, state_dir: Path, open_reader: OpenReader = read_only) -> None:
        self._state_dir = state_dir
        self._open_reader = open_reader
        self._reader: Reader | None = None
        self._inbox: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._learnt: Known | None = None
        self._known: Known | None = None
        self._added: list[str] = []  # before it was learnt what the ledger knows
        self._stop = threading.Event()
        self._pending: deque[Question] = deque()
        self.wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="wattribute-past", daemon=True)
        self._learner = threading.Thread(target=self._learn, name="wattribute-past-ids", daemon=True)
        self._thread.start()
        self._learner.start()

    def add(self, job_id: str) -> None:
        """A job leaves the table: from now on the ledger knows it."""
        if self._known is None:
            self._added.append(job_id)
        else:
            self._known.add(job_id)

    def may_know(self, job_id: str) -> bool:
        """Whether the ledger must be asked; False: it has never heard of the job."""
        if self._known is None and self._learnt is not None:
            self._known, self._learnt = self._learnt, None
            for added in self._added:
                self._known.add(added)
            self._added = []
        return self._known is None or job_id in self._known

    def ask(self, job_id: str) -> Question:
        """Ask for a job. Raises NotYet where too many questions wait already."""
        self._drop_answered()
        if len(self._pending) >= MOST_PENDING:
            raise _not_yet()
        question = Question(job_id)
        self._pending.append(question)
        self._inbox.put(question)
        return question

    @property
    def hangs(self) -> bool:
        """Whether it is known not to answer at once."""
        self._drop_answered()
        return bool(self._pending) and time.monotonic() - self._pending[0].asked_s > OVERDUE_S

    def close(self) -> None:
        """End the threads; may be called twice. One that hangs in a call of the disk's is left to the process's end."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._inbox.put(None)
        for thread in (self._thread, self._learner):
            thread.join(_LEAVE_S)
        if not self._thread.is_alive():
            os.close(self.wakeup_fd)

    def _drop_answered(self) -> None:
        while self._pending and self._pending[0].done.is_set():  # they are answered in their order
            self._pending.popleft()

    # In the threads

    def _run(self) -> None:
        try:
            while (question := self._inbox.get()) is not None and not self._stop.is_set():
                try:
                    if self._reader is None:
                        self._reader = self._open_reader(self._state_dir)
                    question._answer(self._reader.job(question.job_id))
                except LedgerError as error:
                    question._answer(None, error)
                except Exception as error:
                    log.exception("a fault in asking the ledger: please report it")
                    question._answer(None, LedgerError(f"the ledger can't be asked: {error}. Fix: restart the agent"))
                # Full only after 2**64 - 2 answers that nobody looked at.
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(self.wakeup_fd, 1)
        finally:
            if self._reader is not None:
                self._reader.close()

    def _learn(self) -> None:
        """Which ids the ledger has: until then it is asked for each."""
        try:
            with contextlib.closing(connect(self._state_dir / DATABASE, writing=False)) as connection:
                known = Known(2 * int(connection.execute("SELECT count(*) FROM job").fetchone()[0]))
                for keys in _pieces(connection.execute("SELECT key FROM job")):
                    for (key,) in keys:
                        known.add(key)
                    if self._stop.wait(BREATH_S):
                        return
        except sqlite3.Error as error:
            log.warning("which jobs the ledger knows can't be read, so it is asked at each job's start: %s", error)
            return
        self._learnt = known


def _not_yet() -> NotYet:
    return NotYet("the ledger's disk doesn't answer, and what it knows of this job is needed. Fix: see to that disk")


def _pieces(rows: sqlite3.Cursor) -> Iterator[list[tuple[str]]]:
    while keys := rows.fetchmany(KEYS_AT_ONCE):
        yield keys


__all__ = ["Known", "NotYet", "OpenReader", "Past", "Question"]
