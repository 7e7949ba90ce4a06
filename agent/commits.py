"""Takes the totals at a tick and hands them over: changed rows to the record, and a view of all of them to be shown.

One job's packed totals are made once, for both. A view is put up when the record has the rows it was made of.
"""

import time
from typing import TYPE_CHECKING

from wattribute.agent.climate import Climate
from wattribute.agent.core.books import Books
from wattribute.agent.core.model import Clock, Gap, Root
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.ledger.batch import dump, pack
from wattribute.agent.live import CpuTime, LiveJob
from wattribute.agent.node_about import About
from wattribute.agent.pace import Pace
from wattribute.agent.registry import Registry
from wattribute.agent.saved import is_described, totals_of
from wattribute.agent.serving import Serving
from wattribute.agent.view import Row, ShowWindow, take

if TYPE_CHECKING:
    from wattribute.agent.groups import Groups
    from wattribute.agent.norecord import NoRecord
    from wattribute.agent.record import Record


class Commits:
    """From the books to the record and to `views`. `hold_s`: how long an ended job keeps its series.

    `cpu` and `groups` give what the roots of jobs have used: where the next agent goes on from.
    """

    def __init__(
        self,
        books: Books,
        registry: Registry,
        serving: Serving,
        record: "Record | NoRecord",
        climate: Climate,
        about: About,
        views: ShowWindow,
        cpu: CpuTime,
        groups: "Groups | None",
        clock: Clock,
        *,
        hold_s: float,
    ) -> None:
        self._books = books
        self._registry = registry
        self._serving = serving
        self._record = record
        self._climate = climate
        self._about = about
        self._views = views
        self._cpu = cpu
        self._groups = groups
        self._clock = clock
        self._hold_ns = round(hold_s * NS_PER_S)
        self._rows = {job_id: Row.of(live, pack(live.entry.values)) for job_id, live in registry.jobs.items()}
        self._gaps: list[tuple[int, Gap]] = []
        self._seq = 0
        self._viewed = 0
        self._taken_ns = 0
        self._used_ns = 0
        self._pace = Pace()

    def due(self, now_ns: int) -> bool:
        """Whether totals are to be taken for time's sake, or because the record still holds some back."""
        due = self._pace.due(now_ns, now_ns - self._taken_ns, self._used_ns + self._record.used_ns)
        return due or self._record.waits

    def add_gap(self, start_unix_ns: int, gap: Gap) -> None:
        """A gap of a domain, for the record: it goes with the next totals."""
        self._gaps.append((start_unix_ns, gap))

    def settled(self, live: LiveJob) -> bool:
        """Whether the closing readings of a job that has ended are in."""
        return not self._books.holds(live.entry) or self._books.settled(live.entry)

    def retire(self, unix_ns: int) -> bool:
        """Fold the series of jobs that ended `hold_s` ago; True where there were any."""
        jobs, over = self._registry.jobs, []
        for job_id, live in jobs.items():
            ended_unix_ns = live.entry.job.ended_unix_ns
            if ended_unix_ns is not None and unix_ns - ended_unix_ns >= self._hold_ns and self.settled(live):
                over.append(job_id)
        for job_id in over:
            self._record.retire(jobs.pop(job_id))
        if over:
            # A new mapping: the present one may be on show.
            self._rows = {job_id: row for job_id, row in self._rows.items() if job_id in jobs}
        return bool(over)

    def take(self, now_ns: int, unix_ns: int) -> None:
        """Take the totals as they are now, at a tick, and hand them to the record."""
        began_ns = time.thread_time_ns()
        rows, changed = dict(self._rows), []
        for job_id, live in self._registry.jobs.items():
            if live.entry.changed or not live.known_meta:
                live.entry.changed = False
                packed = pack(totals_of(live.entry))
                row = rows.get(job_id)
                rows[job_id] = Row.of(live, packed) if row is None or not is_described(live) else row.gone_on(packed)
                changed.append((live, packed))
        self._rows = rows
        self._seq += 1
        record, books, serving = self._record, self._books, self._serving
        if self._views.has_room and record.is_whole:
            self._viewed = self._seq
            corrections_ng = record.corrections.sums_ng
            view = take(self._seq, now_ns, unix_ns, books, serving, rows, record.folds, corrections_ng)
            self._views.put(view)
        self._taken_ns = now_ns
        record.about = self._about.now()
        roots_ns: list[tuple[Root, int]] = [*self._cpu.trees_ns().items()]
        if self._groups is not None:
            roots_ns += self._groups.counters_ns().items()
        prices = dump(self._climate.stated(books, unix_ns))
        record.write(self._seq, unix_ns, changed, books, serving, self._gaps, roots_ns, prices)
        self._gaps = []
        self._used_ns += time.thread_time_ns() - began_ns

    def show(self) -> bool:
        """Put up what the record has by now and is old enough to be shown; True where there was news."""
        return self._views.show(self._record.committed, self._clock.monotonic_ns())

    def flush(self, booked_ns: int, patience_s: float) -> None:
        """Write down what was booked until `booked_ns`, wait until it is durable, and show it."""
        for _ in range(2):
            if self._taken_ns < booked_ns or self._viewed < self._seq:
                self.take(booked_ns, self._clock.time_ns())
            self._record.flush(patience_s)
            self.show()  # which makes room for a view that there was none for


__all__ = ["Commits"]
