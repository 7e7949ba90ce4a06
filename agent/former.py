"""Jobs that have left the live table, as they were: from memory until the ledger has them, then as it tells them.

Asking it may take long (its disk may stand still), so that whoever can wait elsewhere begins with `recall`.
"""

import time
from collections.abc import Callable, Iterable

from wattribute.agent.ledger.past import Past, Question
from wattribute.agent.live import LiveJob
from wattribute.agent.saved import revive

_KEPT_S = 60.0


class FormerJobs:
    """By id. `committed` gives the last batch that the ledger has, `patience_s` how long its disk is waited for."""

    def __init__(self, past: Past, committed: Callable[[], int], patience_s: float) -> None:
        self._past = past
        self._committed = committed
        self._patience_s = patience_s
        self._billed: dict[str, LiveJob] = {}  # with more than the last batch has
        self._leaving: dict[str, tuple[int, LiveJob]] = {}  # by job id, with the batch that tells the ledger
        self._recalled: dict[str, Question] = {}

    @property
    def wakeup_fd(self) -> int:
        """Becomes readable after each answer."""
        return self._past.wakeup_fd

    def recall(self, job_id: str) -> Question | None:
        """Begin to ask what `finished` needs of the disk; None where it can tell at once. Raises NotYet."""
        # The ledger's names with a leading `_` are sums, not jobs.
        if self._left(job_id) is not None or job_id.startswith("_") or not self._past.may_know(job_id):
            return None
        question = self._recalled.get(job_id)
        if question is None:
            question = self._recalled[job_id] = self._past.ask(job_id)
        return question

    def finished(self, job_id: str) -> LiveJob | None:
        """One job; None where there never was one. Raises LedgerError; NotYet where the disk doesn't answer at once."""
        left = self._left(job_id)
        question = None if left is not None else self.recall(job_id)
        if question is None:
            return left
        try:
            saved = question.answer(0.0 if self._past.hangs else self._patience_s)
        finally:
            if question.done.is_set():
                self._recalled.pop(job_id, None)
        return None if saved is None else revive(saved)

    def leave(self, live: LiveJob) -> None:
        """A job leaves the table; the ledger is told with the next batch."""
        job_id = live.entry.job.id
        self._past.add(job_id)
        self._recalled.pop(job_id, None)

    def bill(self, live: LiveJob) -> None:
        """One of them was given more than the ledger has, which is told with the next batch."""
        self._billed[live.entry.job.id] = live

    def told(self, seq: int, retired: Iterable[LiveJob], changed: Iterable[str]) -> None:
        """A batch was handed over in which jobs left; of those with a `changed` id the ledger says more by now."""
        committed, kept_s = self._committed(), time.monotonic() - _KEPT_S
        self._leaving = {key: left for key, left in self._leaving.items() if left[0] > committed}
        self._leaving |= {key: (seq, live) for key, live in self._billed.items()}
        self._leaving |= {live.entry.job.id: (seq, live) for live in retired}
        self._billed = {}
        for job_id in changed:
            self._recalled.pop(job_id, None)
        self._recalled = {
            k: asked for k, asked in self._recalled.items() if not asked.done.is_set() or asked.asked_s > kept_s
        }

    def close(self) -> None:
        """Ask no more."""
        self._past.close()

    def _left(self, job_id: str) -> LiveJob | None:
        if (billed := self._billed.get(job_id)) is not None:
            return billed
        leaving = self._leaving.get(job_id)
        return leaving[1] if leaving is not None and leaving[0] > self._committed() else None


__all__ = ["FormerJobs"]
