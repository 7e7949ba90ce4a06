"""Collects what a data sheet is made of: a job, a product, or all nodes, from the archive and this machine's ledger."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import chain, islice, pairwise
from typing import Any

from wattribute import __version__
from wattribute.agent.archive import Archive
from wattribute.agent.config import Loaded
from wattribute.agent.core.errors import LedgerError, WattributeError
from wattribute.agent.core.lineage import Book, Recorded, book, lineage, recovery
from wattribute.agent.core.model import Job, Role, Term
from wattribute.agent.core.products import Product, own_part, payees
from wattribute.agent.core.provenance import registry
from wattribute.agent.core.records import JobRecord, NodeRecord
from wattribute.agent.core.served_record import ServedRecord
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.creation import cost_of
from wattribute.agent.report_basis import (
    Basis,
    of_config,
    of_node,
    of_receipt,
    receipt_uncertainty,
    record_of,
    uncertainty,
)
from wattribute.agent.wiring import products
from wattribute.exporters.report.exact import mass
from wattribute.exporters.report.sheet import Amortised, Costs, Group, Kind, Made, Sheet

HOUR_NS = 3600 * NS_PER_S
HOURS_SHOWN = 31 * 24
POINTS = 12  # of a curve; each is a pass over its part of the archive
_NAMES_COMPARED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a sheet is to be about: the time (None: all of it), and what only some formats want."""

    now_unix_ns: int
    from_unix_ns: int | None = None
    to_unix_ns: int | None = None
    runs: bool = False
    curve: bool = False
    hours: bool = False


def job_sheet(
    archive: Archive, loaded: Loaded, job_id: str, asked: Asked, receipts: Callable[[], list[dict[str, Any]]]
) -> Sheet:
    """The sheet of one job. `receipts`: those that this machine knows, for jobs that no closed row tells of yet.

    Raises WattributeError for an unknown one, with the nearest; LedgerError.
    """
    record = archive.job(job_id)
    known = receipts()
    receipt = next((one for one in known if one["job_id"] == job_id), None)
    if record is None and receipt is None:
        names = [*(one["job_id"] for one in known), *(job.id for job in islice(archive.jobs(), _NAMES_COMPARED))]
        raise WattributeError(f'no job "{job_id}" is known here{_nearest(job_id, names, "wattribute jobs")}')
    timed = asked.from_unix_ns is not None or asked.to_unix_ns is not None
    if record is not None and timed:
        record = next((job for job in _jobs(archive, asked, record.product_id) if job.id == job_id), None)
        if record is None:
            raise WattributeError(f'job "{job_id}" used nothing in the asked-for time')
    elif receipt is not None and (record is None or _is_fresher(receipt, record)):
        if timed:
            raise WattributeError(f'job "{job_id}" has no closed rows to tell times apart: ask without --from and --to')
        record = record_of(receipt)
    assert record is not None
    basis = _basis(record, receipt, loaded)
    found = _book_for(archive, loaded, record)
    costs = Costs.of([record])
    product = found.products.get(record.product_id)
    bounds = None if receipt is None else receipt_uncertainty(receipt, costs)
    if bounds is None:
        bounds = uncertainty(costs, basis, loaded, found, [(record.product_id, record.uses, record.role)])
    return replace(
        _sheet("job", job_id, asked, basis, costs),
        job=record,
        product=product,
        groups=(Group(role=record.role, phase=record.phase, costs=costs),),
        uncertainty=bounds,
        revision=record.revision,
        provisional=record.provisional,
        runs=(record,) if asked.runs else (),
    )


def _basis(record: JobRecord, receipt: Mapping[str, Any] | None, loaded: Loaded) -> Basis:
    if receipt is not None:
        return of_receipt(receipt, loaded)
    if record.source == "codecarbon":
        note = (
            "Imported from CodeCarbon, whose method, carbon intensity and PUE it has; hardware and taxes aren't in it."
        )
        return Basis(basis="CodeCarbon", notes=(note,))
    if record.source == "in-process":
        note = "Measured by the job's own process, whose receipt isn't here: prices are those of its time and place."
        return Basis(basis="in-process", notes=(note,))
    return of_config(loaded)


def _is_fresher(receipt: Mapping[str, Any], record: JobRecord) -> bool:
    """Whether a receipt knows what closed rows don't yet: of a running job that this node has to itself."""
    return record.ended_unix_ns is None and record.nodes == (receipt["node"],) and record.expected_nodes == 1


def product_sheet(
    archive: Archive, loaded: Loaded, product_id: str, asked: Asked, receipts: Callable[[], list[dict[str, Any]]]
) -> Sheet:
    """The sheet of a product and its jobs. `receipts`: those that this machine knows, to name a job of a product that
    no closed row tells of yet. Raises WattributeError for an unknown one, with the nearest; LedgerError.
    """
    seen = _Seen(product_id, keep=asked.runs)
    timed = asked.from_unix_ns is not None or asked.to_unix_ns is not None
    found = _book(archive, loaded, lambda: archive.jobs() if timed else seen.through(archive.jobs()))
    if timed:
        for _ in seen.through(_jobs(archive, asked)):
            pass
    elif not found.products and not seen.jobs:  # without products the book read no jobs
        for _ in seen.through(archive.jobs()):
            pass
    product = found.products.get(product_id)
    if product is None and not seen.jobs:
        young = () if timed else [one["job_id"] for one in receipts() if one["product_id"] == product_id]
        if young:
            raise WattributeError(
                f'no row of product "{product_id}" is closed yet, which takes 5 minutes or its job\'s end. Until then: '
                f"wattribute report job {young[-1]}"
            )
        names = [*found.products, *seen.products]
        nearest = _nearest(product_id, names, "wattribute product list")
        raise WattributeError(f'no product "{product_id}" is known{nearest}')
    basis = of_node(loaded) or of_config(loaded)
    costs = Costs.of(group.costs for group in seen.groups())
    sheet = replace(
        _sheet("product", product_id, asked, basis, costs),
        groups=seen.groups(),
        uncertainty=uncertainty(costs, basis, loaded, found, seen.kinds),
        billed_ng=dict(seen.billed_ng),
        served=archive.served(product_id, from_unix_ns=asked.from_unix_ns, to_unix_ns=asked.to_unix_ns),
        revision=seen.revision,
        provisional=seen.provisional,
        runs=tuple(seen.runs),
    )
    if product is None:
        note = "The product is a tag that jobs carry: it isn't registered, so nothing is known of its making."
        return replace(sheet, notes=(note, *sheet.notes))
    now_unix_ns = asked.now_unix_ns
    epc = found.epc[product_id]
    made = Made(
        own=epc.own,
        inherited=epc.brought,
        recovery=recovery(found, product_id, now_unix_ns),
        recorded=found.recorded.get(product_id, Recorded()),
        missing=found.missing(product_id),
        own_part=own_part(product_id, found.products.values()),
        curve=tuple(_curve(archive, product, now_unix_ns)) if asked.curve else (),
    )
    amortised = _amortised(product, made, archive.served(product_id) if timed else sheet.served)
    if amortised is not None and amortised.in_force == "units":
        made = replace(made, recovery=replace(made.recovery, expected_ng=amortised.by_units_ng))
    return replace(sheet, product=product, made=made, amortised=amortised, lineage=lineage(found, product_id))


def _amortised(product: Product, made: Made, ever: ServedRecord | None) -> Amortised | None:
    """Both ways to write a product off; None for one of which units are neither expected nor counted."""
    if product.expected_micro_units is None and ever is None:
        return None
    recovery = made.recovery
    return Amortised(
        in_force=product.amortise,
        unit=product.unit,
        served_micro=0 if ever is None else ever.billed.units.get(product.unit, 0),
        expected_micro=product.expected_micro_units,
        stock_ng=None if product.status == "open" else recovery.stock_ng,
        by_time_ng=recovery.expected_ng,
    )


def node_sheet(archive: Archive, loaded: Loaded, asked: Asked) -> Sheet:
    """The sheet of all nodes that the archive knows: what an organisation's inventory is made from.

    Raises WattributeError where there is nothing; LedgerError.
    """
    nodes = archive.node_totals(from_unix_ns=asked.from_unix_ns, to_unix_ns=asked.to_unix_ns)
    seen, imported = _Seen(None, keep=asked.runs), _Seen(None, keep=False)
    for job in _jobs(archive, asked):
        (seen if job.source == "agent" else imported).add(job)
    if not nodes and not seen.jobs:
        alone = f" (of {imported.jobs} without an agent see: wattribute jobs)" if imported.jobs else ""
        raise WattributeError(f"no node has told anything of that time{alone}. Start an agent: wattribute agent")
    basis = of_node(loaded)
    ids = ", ".join(sorted(nodes)) if len(nodes) < 4 else f"{len(nodes)} nodes"
    sheet = _sheet("node", ids, asked, basis or of_config(loaded), _of_nodes(nodes.values(), seen.jobs))
    if imported.jobs:
        own_ng = Costs.of(group.costs for group in imported.groups()).own_ng
        jobs = "job was" if imported.jobs == 1 else "jobs were"
        note = (
            f"{imported.jobs} {jobs} imported or measured without an agent ({mass(own_ng)}): no node tells of that, "
            "and it isn't in the sum."
        )
        sheet = replace(sheet, notes=(note, *sheet.notes))
    return replace(
        sheet,
        nodes=tuple(nodes[node_id] for node_id in sorted(nodes)),
        groups=seen.groups(),
        provisional=seen.provisional,
        hours=tuple(_hours(archive, asked)) if asked.hours else (),
        runs=tuple(seen.runs),
    )


def _sheet(kind: Kind, name: str, asked: Asked, basis: Basis, total: Costs) -> Sheet:
    return Sheet(
        kind=kind,
        id=name,
        version=__version__,
        made_unix_ns=asked.now_unix_ns,
        from_unix_ns=asked.from_unix_ns,
        to_unix_ns=asked.to_unix_ns,
        total=total,
        method=basis.method,
        policy=basis.policy,
        included=basis.included,
        missing=basis.missing,
        basis=basis.basis,
        intensity=basis.intensity,
        pue=basis.pue,
        hardware=basis.hardware,
        notes=basis.notes,
    )


class _Seen:
    """Jobs that pass by: those of one product (None: of all) are summed, and what others paid it."""

    def __init__(self, product_id: str | None, *, keep: bool) -> None:
        self._product_id, self._keep = product_id, keep
        self._sums: dict[tuple[Role, str], Costs] = {}
        self._waiting: dict[tuple[Role, str], list[JobRecord]] = {}
        self.jobs = 0
        self.runs: list[JobRecord] = []
        self.kinds: set[tuple[str, tuple[str, ...], Role]] = set()
        self.products: set[str] = set()
        self.billed_ng: Counter[Term] = Counter()
        self.revision = 1
        self.provisional = False

    def through(self, jobs: Iterable[JobRecord]) -> Iterator[JobRecord]:
        for job in jobs:
            self.add(job)
            yield job

    def add(self, job: JobRecord) -> None:
        self.products.add(job.product_id)
        for (payee, term), ng in job.taxes_ng.items():
            if payee == self._product_id:
                self.billed_ng[term] += ng
        if self._product_id not in (None, job.product_id):
            return
        self.jobs += 1
        self.kinds.add((job.product_id, job.uses, job.role))
        self.revision = max(self.revision, job.revision)
        self.provisional = self.provisional or job.provisional
        if self._keep:
            self.runs.append(job)
        key = (job.role, job.phase)
        waiting = self._waiting.setdefault(key, [])
        waiting.append(job)
        if len(waiting) == 256:
            self._settle(key)

    def _settle(self, key: tuple[Role, str]) -> None:
        known = [self._sums[key]] if key in self._sums else []
        self._sums[key] = Costs.of([*known, *self._waiting.pop(key)])

    def groups(self) -> tuple[Group, ...]:
        for key in list(self._waiting):
            self._settle(key)
        return tuple(Group(role=role, phase=phase, costs=costs) for (role, phase), costs in sorted(self._sums.items()))


def _of_nodes(nodes: Iterable[NodeRecord], jobs: int) -> Costs:
    energy: Counter[tuple[str, str, str]] = Counter()
    terms: Counter[Term] = Counter()
    corrections: Counter[Term] = Counter()
    for node in nodes:
        energy.update({(domain, "", quality): uj for (domain, quality), uj in node.energy_uj.items()})
        terms.update(node.terms_ng)
        corrections.update(node.corrections_ng)
    return Costs(jobs=jobs, energy_uj=dict(energy), terms_ng=dict(terms), corrections_ng=dict(corrections))


def _jobs(archive: Archive, asked: Asked, product_id: str | None = None) -> Iterator[JobRecord]:
    return archive.jobs(product_id=product_id, from_unix_ns=asked.from_unix_ns, to_unix_ns=asked.to_unix_ns)


def _book(archive: Archive, loaded: Loaded, jobs: Callable[[], Iterable[JobRecord]]) -> Book:
    declared = products(loaded.config)
    try:
        folded = registry(event for _, event in archive.events())
        known = jobs() if declared or folded.products else ()
        return book(folded, known, declared, cost_of=cost_of(loaded))
    except ValueError as error:
        raise LedgerError(f"the registry of products in {archive.name} can't be used: {error}") from error


def _book_for(archive: Archive, loaded: Loaded, record: JobRecord) -> Book:
    """What is known of the products that a job pays: creation jobs are read for those alone whose EPC they make."""
    found = _book(archive, loaded, lambda: ())
    job = Job(id=record.id, product_id=record.product_id, uses=record.uses, role=record.role)
    made = {one for payee in payees(job, found.products) for one in found.missing(payee)}
    if not made:
        return found
    return _book(
        archive,
        loaded,
        lambda: chain.from_iterable(archive.jobs(product_id=product_id, role="creation") for product_id in made),
    )


def _curve(archive: Archive, product: Product, now_unix_ns: int) -> Iterator[tuple[int, int]]:
    """What was recovered of a product's EPC up to some moments of its life."""
    start_unix_ns, lifetime_s = product.deployed_unix_ns, product.lifetime_s
    if start_unix_ns is None or lifetime_s is None:
        return
    end_unix_ns = min(now_unix_ns, start_unix_ns + lifetime_s * NS_PER_S)
    recovered_ng = 0
    yield start_unix_ns, 0
    edges = [start_unix_ns + (end_unix_ns - start_unix_ns) * point // POINTS for point in range(POINTS + 1)]
    for begin, end in pairwise(edges):
        if begin < end:
            for job in archive.jobs(from_unix_ns=begin, to_unix_ns=end):
                recovered_ng += job.taxes_ng.get((product.id, "product"), 0)
            yield end, recovered_ng


def _hours(archive: Archive, asked: Asked) -> Iterator[tuple[int, int | None]]:
    """The nodes' energy hour by hour, where a time of at most a month was asked for; None: nobody told of that hour."""
    if asked.from_unix_ns is None:
        return
    end_unix_ns = asked.now_unix_ns if asked.to_unix_ns is None else asked.to_unix_ns
    starts = range(asked.from_unix_ns // HOUR_NS * HOUR_NS, end_unix_ns, HOUR_NS)
    if len(starts) > HOURS_SHOWN:
        return
    for start in starts:
        first, last = max(start, asked.from_unix_ns), min(start + HOUR_NS, end_unix_ns)
        found = archive.node_totals(from_unix_ns=first, to_unix_ns=last)
        yield first, sum(sum(node.energy_uj.values()) for node in found.values()) if found else None


def _nearest(name: str, names: Iterable[str], listing: str) -> str:
    meant = get_close_matches(name, list(dict.fromkeys(names)), n=1)
    return f'. Did you mean "{meant[0]}"?' if meant else f". See: {listing}"


__all__ = ["Asked", "job_sheet", "node_sheet", "product_sheet"]
