"""What a node without a ledger has in its place: nothing is kept, so everything counts as kept at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wattribute.agent.core.books import Books
from wattribute.agent.core.model import Account, Gap, Root, SourceHealth, Term
from wattribute.agent.corrections import Corrections
from wattribute.agent.folds import Folds
from wattribute.agent.live import CpuTime, LiveJob
from wattribute.agent.registry import Registry
from wattribute.agent.serving import Serving


class NoRecord:
    """The ledger of a process that measures itself: its sessions keep the receipts."""

    wakeup_fds = ()
    is_whole = True
    committed = 2**63
    written = 0
    used_ns = 0
    waits = False

    def __init__(self, created_unix_ns: int) -> None:
        self.created_unix_ns = created_unix_ns
        self.folds = Folds()
        self.corrections = Corrections()
        self.about: dict[str, Any] = {}

    def resume_at_ns(self, now_ns: int) -> int:
        return now_ns

    def restore(
        self,
        books: Books,
        registry: Registry,
        serving: Serving,
        cpu: CpuTime,
        accounts_ns: Mapping[Account, int],
    ) -> None:
        """There is nothing to go on from."""

    def recall(self, job_id: str) -> None:
        """Nobody is to be asked."""

    def finished(self, job_id: str) -> LiveJob | None:
        """Nobody remembers jobs that left the table."""

    def retire(self, live: LiveJob) -> None:
        """The job leaves the table; its receipt is the session's to keep."""

    def bill_late(
        self, job_id: str, owed: Mapping[tuple[str, Term], int], start_unix_ns: int, end_unix_ns: int, cause: str
    ) -> None:
        """A session that is over has its receipt."""

    def place_late(self) -> None:
        """Nothing waits."""

    def fold(self, live: LiveJob) -> None:
        """Without a page there are no series to begin anew."""

    def write(
        self,
        seq: int,
        unix_ns: int,
        changed: Sequence[tuple[LiveJob, bytes]],
        books: Books,
        serving: Serving,
        gaps: Sequence[tuple[int, Gap]],
        roots_ns: Iterable[tuple[Root, int]],
        prices: str,
    ) -> None:
        """Nothing to write to."""

    def flush(self, patience_s: float) -> None:
        """Nothing to wait for."""

    def health(self) -> Iterable[SourceHealth]:
        return ()

    def close(self) -> None:
        """Nothing to close."""
