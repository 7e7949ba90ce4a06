"""Between the node and its ledger: what is saved each tick, and how a node goes on from there.

`about` is what all receipts of the node share, saved so that they can be read while the agent is down.
The totals of a tick are handed over in one batch; what is shown waits until that batch is durable.
"""

import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from wattribute.agent.core.books import Books
from wattribute.agent.core.claims import Entry
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.model import (
    EXPORTED_SLOTS,
    TERM_SLOT,
    Account,
    Clock,
    Gap,
    Job,
    ProcessId,
    Root,
    SourceHealth,
    Term,
)
from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.corrections import Corrections
from wattribute.agent.folds import FoldKey, Folds, fold_name
from wattribute.agent.former import FormerJobs
from wattribute.agent.ledger.batch import Batch, Close, Correction, GapRow, JobRow, dump, merge, pack
from wattribute.agent.ledger.opening import Restored
from wattribute.agent.ledger.past import NotYet, OpenReader, Past, Question
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.schema import NODE_KEY, WINDOW_NS
from wattribute.agent.ledger.writer import Ledger
from wattribute.agent.live import CpuTime, LiveJob
from wattribute.agent.node_window import NodeWindow
from wattribute.agent.registry import Registry
from wattribute.agent.saved import describe, is_described, members_of, revive, totals_of, tree_key
from wattribute.agent.serving import Serving

log = logging.getLogger("wattribute")

PATIENCE_S = 0.02
"""So long a tick waits for what the ledger knows of a job that comes back, as it waits for a sensor."""
BILLING_S = 0.02
"""So long a tick takes for late bills of jobs that have left the table."""


class _LateBill(NamedTuple):
    job_id: str
    owed: Mapping[tuple[str, Term], int]
    start_unix_ns: int
    end_unix_ns: int
    cause: str


class Record:
    """The node's side of its ledger. `folds` are the sums of the series that left the page."""

    def __init__(self, ledger: Ledger, restored: Restored, boot: str, former: FormerJobs) -> None:
        self.folds = Folds()
        self.created_unix_ns = restored.created_unix_ns
        self._ledger = ledger
        self._former = former
        self._jobs: Mapping[str, LiveJob] = {}  # the live table
        self._late_bills: deque[_LateBill] = deque()
        self._torn = False  # the batch that was written last lacks a late bill
        self._restored = restored
        self._boot_id = boot
        self._saved: dict[str, Any] = restored.state.get("books", {})
        self._same_boot = restored.same_boot and bool(self._saved)
        self.about: dict[str, Any] = {}
        self._offered: Batch | None = None
        self._retired: list[LiveJob] = []
        self._changed_folds: set[FoldKey] = set()
        self._window_end_unix_ns: dict[str, int] = {}
        self._node_window = NodeWindow()
        self.corrections = Corrections(restored.state.get("corrections"))
        self._seq = 0
        self._about_written: dict[str, Any] = {}

    @classmethod
    def open(
        cls,
        state_dir: Path,
        *,
        node_id: str,
        boot: str,
        clock: Clock,
        patience_s: float = PATIENCE_S,
        open_reader: OpenReader = read_only,
    ) -> "Record":
        """Open the ledger below `state_dir`. Raises LedgerError with the fix.

        `patience_s`: how long its disk is waited for where a job that comes back is met in a tick; `open_reader` opens
        it for that question.
        """
        ledger = Ledger.open(state_dir, node_id=node_id, boot_id=boot, clock_unix_ns=clock.time_ns)
        return cls(
            ledger, ledger.restore(), boot, FormerJobs(Past(state_dir, open_reader), ledger.committed, patience_s)
        )

    @property
    def committed(self) -> int:
        """Sequence number of the last durable batch."""
        return self._ledger.committed()

    @property
    def written(self) -> int:
        """Sequence number of the last batch that was written, durable or not."""
        return self._seq

    @property
    def used_ns(self) -> int:
        """CPU time that committing has cost so far, in the ledger's thread."""
        return self._ledger.used_ns

    @property
    def waits(self) -> bool:
        """Whether the ledger was still busy with the batch before when the last one was offered."""
        return self._offered is not None or bool(self._late_bills)

    @property
    def is_whole(self) -> bool:
        """Whether all that is billed is in some job's totals or in a fold, so that it adds up and may be shown."""
        return not self._late_bills

    @property
    def wakeup_fds(self) -> Sequence[int]:
        """They become readable after each commit, and after each answer to what was recalled."""
        return self._ledger.wakeup_fd, self._former.wakeup_fd

    def resume_at_ns(self, now_ns: int) -> int:
        """Where the books go on: at the last saved tick of the same boot, else now."""
        return int(self._saved["at_ns"]) if self._same_boot else now_ns

    def restore(
        self,
        books: Books,
        registry: Registry,
        serving: Serving,
        cpu: CpuTime,
        accounts_ns: Mapping[Account, int],
    ) -> None:
        """Put the saved jobs back: those whose processes live go on, the others ended when the agent last looked."""
        self._jobs = registry.jobs
        trees = self._restored.state.get("trees", {}) if self._same_boot else {}
        stopped_unix_ns = self._restored.committed_unix_ns
        for key, saved in self._restored.jobs.items():
            if key == NODE_KEY:
                self._node_window.restore(saved)
                continue
            if key.startswith("_"):
                name, product_id, role = json.loads(key[1:])
                self.folds.values[name, product_id, role] = list(saved.totals)
                continue
            live = revive(saved)
            registry.jobs[key] = live
            if live.running and self._same_boot:
                self._go_on(live, saved.meta, trees, books, registry, cpu)
        books.taxes.restore_served(self._restored.state)
        if self._saved:
            books.restore(self._saved, same_boot=self._same_boot, accounts_ns=accounts_ns)
        for live in registry.jobs.values():
            if live.running and not live.members:
                self._stop(live, books, stopped_unix_ns)
        serving.restore(self._restored.state)
        self._restored = replace(self._restored, jobs={}, state={})

    def _go_on(
        self,
        live: LiveJob,
        meta: Mapping[str, Any],
        trees: Mapping[str, int],
        books: Books,
        registry: Registry,
        cpu: CpuTime,
    ) -> None:
        books.open(live.entry, first=False)
        alive = {}
        for token, (process, parent) in members_of(meta).items():
            # A cgroup that is gone is told when it is watched.
            if not isinstance(process, ProcessId) or cpu.identify(process.pid) == process:
                alive[token] = (process, parent, trees.get(tree_key(process), 0))
        registry.adopt(live, alive)

    def _stop(self, live: LiveJob, books: Books, stopped_unix_ns: int) -> None:
        why = "its processes ended while the agent was away" if self._same_boot else "the machine restarted"
        live.notes.setdefault(f"{why}: counted until {rfc3339(stopped_unix_ns)}")
        live.gaps.append({"start": rfc3339(stopped_unix_ns), "end": None, "cause": why})
        live.entry.job = replace(live.entry.job, ended_unix_ns=stopped_unix_ns)
        live.known_meta = False
        if self._same_boot:
            books.end(live.entry, self.resume_at_ns(live.entry.started_ns))
        else:
            # Its times are another boot's: they mean nothing to the books, which never open it.
            live.entry.ended_ns = live.entry.started_ns
            books.taxes.cut_off(live.entry.job, stopped_unix_ns)

    def recall(self, job_id: str) -> Question | None:
        """See FormerJobs.recall."""
        return self._former.recall(job_id)

    def finished(self, job_id: str) -> LiveJob | None:
        """See FormerJobs.finished."""
        return self._former.finished(job_id)

    def retire(self, live: LiveJob) -> None:
        """The job's series leave the page: its totals move to a fold in the same batch."""
        self.fold(live)
        live.folded = False
        self._retired.append(live)
        self._former.leave(live)

    def bill_late(
        self, job_id: str, owed: Mapping[tuple[str, Term], int], start_unix_ns: int, end_unix_ns: int, cause: str
    ) -> None:
        """What fell due after a job's series had left the page: to the fold, and as rows for its receipt.

        `place_late` does it; until then nothing is committed.
        """
        self._late_bills.append(_LateBill(job_id, owed, start_unix_ns, end_unix_ns, cause))
        with contextlib.suppress(NotYet):
            self.recall(job_id)  # all are asked for before the first is waited for

    def place_late(self) -> None:
        """Book the late bills of jobs that are known by now, some milliseconds long; the rest is for the next tick."""
        until_s = time.monotonic() + BILLING_S
        while self._late_bills and time.monotonic() < until_s:
            bill = self._late_bills[0]
            try:
                live = self._jobs.get(bill.job_id) or self.finished(bill.job_id)  # it may have come back meanwhile
            except NotYet:
                return
            except LedgerError as error:  # its grams are billed all the same, or the page wouldn't add up
                log.error("what job %r was can't be read: %s", bill.job_id, error)
                live = None
            self._late_bills.popleft()
            self._bill(bill, live)

    def _bill(self, bill: _LateBill, live: LiveJob | None) -> None:
        shown = [0] * EXPORTED_SLOTS
        times = bill.start_unix_ns, bill.end_unix_ns
        for (product_id, term), owed_ng in bill.owed.items():
            shown[TERM_SLOT[term]] += owed_ng
            self.corrections.add(Correction(bill.job_id, product_id, term, bill.cause, *times, owed_ng))
            if live is not None:  # it may be asked for and come back as it is, before the ledger has that row
                live.correct(product_id, term, owed_ng)
        if live is not None:
            self._former.bill(live)
        else:
            log.error("job %r, which owes taxes, isn't known: they are among those of `default`", bill.job_id)
            live = LiveJob(Entry(Job(id=bill.job_id), 0), 0)
        live.corrected += 1
        self._changed_folds.add(self.folds.add(fold_name(overflow=live.folded), live.entry.job, shown))

    def fold(self, live: LiveJob) -> None:
        """What a job's series show moves to a fold; they begin anew."""
        entry = live.entry
        shown = entry.values[:EXPORTED_SLOTS]
        if live.folded_values is not None:
            shown = [value - folded for value, folded in zip(shown, live.folded_values, strict=True)]
        self._changed_folds.add(self.folds.add(fold_name(overflow=live.folded), entry.job, shown))
        live.folded_values = entry.values[:EXPORTED_SLOTS]
        live.known_meta = False

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
        """Hand a tick's totals to the ledger; what it can't take yet is offered again with the next.

        `prices` is what energy costs now, a JSON object.
        """
        window_end_unix_ns = (unix_ns // WINDOW_NS + 1) * WINDOW_NS
        jobs, closes = [], []
        retired = [(live, pack(totals_of(live.entry))) for live in self._retired]
        for live, packed in [*changed, *retired]:
            key = live.entry.job.id
            if is_described(live):
                jobs.append(JobRow(key, packed))
            else:
                meta = dump(describe(live, self._boot_id))
                jobs.append(JobRow(key, packed, meta, live.entry.job.started_unix_ns))
                live.known_meta, live.described = True, (len(live.entry.taxes_ng), len(live.entry.gpus))
            if live.entry.ended_ns is not None and not books.holds(live.entry):
                self._window_end_unix_ns.pop(key, None)
                closes.append(Close(key, unix_ns, packed, prices))
            elif window_end_unix_ns != self._window_end_unix_ns.setdefault(
                key, window_end_unix_ns
            ):  # over, or set back
                self._window_end_unix_ns[key] = window_end_unix_ns
                closes.append(Close(key, unix_ns, packed, prices))
        if self._node_window.due(unix_ns, window_end_unix_ns, job_closed=bool(closes)):
            node_row, node_close = self._node_window.rows(books, unix_ns, prices, serving.totals())
            jobs.append(node_row)
            closes.append(node_close)
        for fold in self._changed_folds:
            jobs.append(JobRow.of("_" + json.dumps(fold), self.folds.values[fold], {"fold": list(fold)}))
        state = {"books": dump(books.save()), "trees": dump({tree_key(p): ns for p, ns in roots_ns})}
        state |= {name: dump(chunk) for name, chunk in books.taxes.served_chunks().items()}
        state |= serving.save()
        corrections, corrected = self.corrections.take()
        if corrected is not None:
            state["corrections"] = dump(corrected)
        if self.about != self._about_written:
            state["about"], self._about_written = dump(self.about), self.about
        batch = Batch(
            seq=seq,
            at_unix_ns=unix_ns,
            prices=prices,
            jobs=jobs,
            state=state,
            closes=closes,
            gaps=[_gap_row(start_unix_ns, gap) for start_unix_ns, gap in gaps],
            corrections=corrections,
            forget=[live.entry.job.id for live in self._retired],
        )
        self._former.told(seq, self._retired, (correction.job_id for correction in corrections))
        self._retired, self._changed_folds = [], set()
        self._seq = seq
        self._torn = bool(self._late_bills)
        self._offer(batch if self._offered is None else merge(self._offered, batch))

    def _offer(self, batch: Batch) -> None:
        self._offered = None if not self._torn and self._ledger.submit(batch) else batch

    def flush(self, patience_s: float) -> None:
        """Wait until what was written is durable, or the disk has failed at it."""
        until_s = time.monotonic() + patience_s
        while time.monotonic() < until_s:
            if self._torn:
                self.place_late()
                if not self._late_bills:
                    return  # they go with the next batch
            elif self._offered is not None:
                self._offer(self._offered)
            elif self._ledger.committed() >= self._seq:
                return
            if self._ledger.gave_up:
                return
            time.sleep(0.001)

    def health(self) -> Iterable[SourceHealth]:
        """The ledger as a source: up while commits succeed."""
        failure = self._ledger.failure
        yield SourceHealth(
            name="ledger",
            up=failure is None,
            read_ns=0,
            last_read_unix_ns=None,
            failures={},
            gap_ns=0,
            wraps=0,
            resets=0,
            why=failure or "",
        )

    def close(self) -> None:
        """Write what is left and let the file go."""
        if self._offered is not None:
            self.flush(5.0)
        self._former.close()
        self._ledger.close()


def _gap_row(start_unix_ns: int, gap: Gap) -> GapRow:
    return GapRow(
        kind=gap.domain.kind,
        id=gap.domain.id,
        start_unix_ns=start_unix_ns,
        end_unix_ns=start_unix_ns + gap.end_ns - gap.start_ns,
        cause=gap.cause,
        lower_uj=gap.lower_uj,
        upper_uj=gap.upper_uj,
        booked_uj=gap.lower_uj,
    )
