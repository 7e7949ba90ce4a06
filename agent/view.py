"""What is shown: a consistent copy of all totals, made at a tick and put up once the ledger has it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from wattribute.agent.core.books import Books
from wattribute.agent.core.model import (
    EXPORTED_SLOTS,
    TERM_SLOT,
    DomainKind,
    Job,
    JobTotals,
    ProductTotals,
    Quality,
    Reason,
    ServedTotals,
    Term,
)
from wattribute.agent.folds import FoldKey, Folds, fold_name, folded
from wattribute.agent.ledger.batch import unpack
from wattribute.agent.live import LiveJob
from wattribute.agent.serving import Serving

NODE_TERMS: tuple[Term, ...] = ("operation", "cooling", "hardware")


class Row(NamedTuple):
    """One job as it was at a tick; `apart`: what of its totals is in a fold already."""

    job: Job
    packed: bytes
    gpus: tuple[str, ...]
    running: bool
    folded: bool
    apart: list[int] | None
    slurm: tuple[Mapping[str, str], ...] = ()
    kubernetes: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def of(cls, live: LiveJob, packed: bytes) -> "Row":
        """A copy: what happens to the job later isn't shown before its time."""
        job, gpus = live.entry.job, tuple(live.entry.gpus)
        slurm, kubernetes = live.joins() if live.found or job.labels else ((), ())
        return cls(job, packed, gpus, live.running, live.folded, live.folded_values, slurm, kubernetes)

    def gone_on(self, packed: bytes) -> "Row":
        """The same job with newer totals, while nothing else about it has changed."""
        job, _, gpus, running, folded, apart, slurm, kubernetes = self
        return Row(job, packed, gpus, running, folded, apart, slurm, kubernetes)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Totals at one tick, whose time is `at_ns` (CLOCK_BOOTTIME) and `unix_ns`. `rows`: by job id."""

    seq: int = 0
    at_ns: int = 0
    unix_ns: int = 0
    rows: Mapping[str, Row] = field(default_factory=dict)
    folds: Mapping[FoldKey, list[int]] = field(default_factory=dict)
    payees: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    products: list[ProductTotals] = field(default_factory=list)
    read_ns: Mapping[DomainKind, int] = field(default_factory=dict)
    node_energy_uj: Mapping[tuple[DomainKind, str, Quality], int] = field(default_factory=dict)
    unattributed_uj: Mapping[tuple[DomainKind, Reason], int] = field(default_factory=dict)
    node_co2e_ng: Mapping[Term, int] = field(default_factory=dict)
    unattributed_ng: Mapping[tuple[Term, Reason], int] = field(default_factory=dict)
    corrections_ng: Mapping[tuple[str, str], int] = field(default_factory=dict)
    served: list[ServedTotals] = field(default_factory=list)
    agent_energy_uj: int = 0

    def jobs(self) -> list[JobTotals]:
        """Jobs and folds as an exporter sees them; jobs past the cap are summed into `_overflow`."""
        folds = Folds({key: list(values) for key, values in self.folds.items()})
        rows = []
        for row in self.rows.values():
            values = unpack(row.packed)
            if row.apart is not None:
                values = [values[slot] - row.apart[slot] for slot in range(EXPORTED_SLOTS)]
            if row.folded:
                folds.add(fold_name(overflow=True), row.job, values)
                continue
            rows.append(
                JobTotals(
                    job=row.job,
                    values=values,
                    gpus=row.gpus,
                    running=row.running,
                    slurm=row.slurm,
                    kubernetes=row.kubernetes,
                    payees=self.payees.get(row.job.id, ()),
                )
            )
        rows += [folded(name, product_id, role, values) for (name, product_id, role), values in folds.values.items()]
        return rows


def take(
    seq: int,
    at_ns: int,
    unix_ns: int,
    books: Books,
    serving: Serving,
    rows: Mapping[str, Row],
    folds: Folds,
    corrections_ng: Mapping[tuple[str, str], int],
) -> View:
    """Copy the books' totals as they are now, at a tick."""
    return View(
        seq=seq,
        at_ns=at_ns,
        unix_ns=unix_ns,
        rows=rows,
        folds={key: list(values) for key, values in folds.values.items()},
        payees=books.taxes.paid(),
        products=books.taxes.totals(),
        read_ns=books.domains.read_ns(),
        node_energy_uj=dict(books.node_energy_uj),
        unattributed_uj=dict(books.unattributed_uj),
        node_co2e_ng=dict(books.node_co2e_ng),
        unattributed_ng={
            (term, reason): values[TERM_SLOT[term]]
            for reason, values in books.unattributed.items()
            for term in NODE_TERMS
        },
        corrections_ng=dict(corrections_ng),
        served=serving.totals(),
        agent_energy_uj=books.agent_energy_uj,
    )


AGING_VIEWS = 64
"""So many views at most wait for `export_age_s` to pass; what is shown is then a 64th older than it must be."""
UNCOMMITTED_VIEWS = 4
"""A disk that stands still holds back what is shown, not what is measured: no more than these wait for it."""


class ShowWindow:
    """Which view is on show: the last that the record has and that is old enough (`age_ns`)."""

    def __init__(self, age_ns: int) -> None:
        self.shown = View()
        self._age_ns = age_ns
        self._taken: deque[View] = deque()
        self._aging: deque[View] = deque()

    @property
    def aging(self) -> int:
        """How many views wait to be old enough."""
        return len(self._aging)

    @property
    def has_room(self) -> bool:
        """Whether one more view may wait for the record."""
        return len(self._taken) < UNCOMMITTED_VIEWS

    def put(self, view: View) -> None:
        """A view that was handed to the record."""
        self._taken.append(view)

    def show(self, committed: int, now_ns: int) -> bool:
        """Put up what the record has by now and is old enough; True where the record has something new."""
        news = False
        while self._taken and self._taken[0].seq <= committed:
            taken = self._taken.popleft()
            # A long wait has room for a few: those in between are left out.
            if not self._aging or taken.at_ns - self._aging[-1].at_ns >= self._age_ns // AGING_VIEWS:
                self._aging.append(taken)
            news = True
        while self._aging and now_ns - self._aging[0].at_ns >= self._age_ns:
            self.shown = self._aging.popleft()
        return news
