"""`/live.json`: what the agent's own page draws, from the same snapshot as `/metrics`; bounded, however many jobs are.

Energy is integer microjoules, mass integer nanograms, as in the ledger; `*_s` are seconds. Totals, not rates: whoever
has two documents divides the difference of their totals by that of their `booked_s`, for energy of their `read_s`.
"""

import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from wattribute.agent.core.model import (
    CPU_NS_SLOT,
    DOMAIN_KINDS,
    ENERGY_SLOTS,
    EXPORTED_SLOTS,
    QUALITIES,
    SHARE_KINDS,
    SM_NS_SLOT,
    TERM_SLOT,
    TERMS,
    DomainKind,
    JobTotals,
    ProductTotals,
    ServedTotals,
    Snapshot,
    SourceHealth,
)
from wattribute.agent.core.units import NS_PER_S
from wattribute.exporters.batch import added, cleaned
from wattribute.exporters.messages import RequestHead, Response
from wattribute.exporters.negotiation import accepts_gzip

SCHEMA = "wattribute.live/1"
JOBS = 200
PRODUCTS = 100
ROWS = 8  # of GPUs, Slurm jobs and containers of one job
FOLDS = ("_retired", "_overflow")

Document: TypeAlias = dict[str, Any]

_FIRST_TERM, _LAST_TERM = TERM_SLOT[TERMS[0]], TERM_SLOT[TERMS[-1]] + 1
_NOTHING = [0] * EXPORTED_SLOTS
_OF_SHARE, _OF_KIND = len(QUALITIES), len(QUALITIES) * len(SHARE_KINDS)


class LivePage:
    """The document of the latest snapshot, made when it is asked for, at most once per snapshot.

    `interval_s`: how often the agent measures, so that nobody asks more often.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._made: tuple[Snapshot, str, tuple[bytes, bytes]] | None = None
        self._energies_uj: dict[str, int] = {}

    def answer(self, request: RequestHead, snapshot: Snapshot | None, problem: str) -> Response:
        """The document, or 503 before the first snapshot. `problem`: why the agent isn't healthy; "" where it is."""
        headers = (("Cache-Control", "no-store"), ("Vary", "Accept-Encoding"))
        if snapshot is None:
            return Response(status=503, body=b"nothing measured yet\n", headers=(*headers, ("Retry-After", "1")))
        if self._made is None or self._made[0] is not snapshot or self._made[1] != problem:
            live = {**self._document(snapshot), "interval_s": self._interval_s, "problem": problem}
            plain = json.dumps(live, separators=(",", ":"), allow_nan=False).encode()
            self._made = snapshot, problem, (plain, zlib.compress(plain, 1, 16 + zlib.MAX_WBITS))
        compressed = accepts_gzip(request.headers.get("accept-encoding", ""))
        encoding = (("Content-Encoding", "gzip"),) if compressed else ()
        return Response(content_type="application/json", body=self._made[2][compressed], headers=(*headers, *encoding))

    def _document(self, snapshot: Snapshot) -> Document:
        before = self._energies_uj
        # What there are too many of is told by what it used since the document before this one.
        many = sum(totals.info for totals in snapshot.jobs) > JOBS
        self._energies_uj = {t.job.id: sum(t.values[:ENERGY_SLOTS]) for t in snapshot.jobs} if many else {}
        after = self._energies_uj
        return document(snapshot, lambda job_id: after.get(job_id, 0) - before.get(job_id, 0))


def document(snapshot: Snapshot, recent_uj: Callable[[str], int]) -> Document:
    """The document. Of more than JOBS jobs those that run come first, by what they used lately (`recent_uj`)."""
    kinds = [kind for kind in DOMAIN_KINDS if any(kind == of for of, _, _ in snapshot.node_energy_uj)]
    listed = [totals for totals in snapshot.jobs if totals.info]
    if len(listed) > JOBS:
        listed.sort(key=lambda totals: (not totals.running, -recent_uj(totals.job.id)))
    shown, others = listed[:JOBS], listed[JOBS:]
    by_product: dict[str, list[JobTotals]] = defaultdict(list)
    for totals in snapshot.jobs:
        by_product[totals.job.product_id].append(totals)
    used = {product_id: added([t.values for t in of]) for product_id, of in by_product.items()}
    folds = {name: [t for t in snapshot.jobs if not t.info and t.job.id == name] for name in FOLDS}
    told = {"shown": _total(shown), **{name: _total(of) for name, of in folds.items()}}
    # What isn't told one by one is the rest of all: there may be thousands of them.
    whole = added(list(used.values())) or _NOTHING
    rest = [all_ - sum(parts) for all_, *parts in zip(whole, *told.values(), strict=True)]
    # Declared products first, then those that used most.
    products = [(one, used.get(one.id, _NOTHING)) for one in snapshot.products]
    products.sort(key=lambda pair: (pair[0].kind == "undeclared", -sum(pair[1][:ENERGY_SLOTS])))
    served = {one.product_id: one for one in snapshot.served}
    intensity = snapshot.intensity
    zone, provider, method, quality = cleaned((intensity.zone, intensity.provider, intensity.method, intensity.quality))
    return {
        "schema": SCHEMA,
        "version": snapshot.version,
        "node_id": cleaned((snapshot.node_id,))[0],
        "taken_unix_s": snapshot.taken_at_unix_ns / NS_PER_S,
        "booked_unix_s": snapshot.booked_unix_ns / NS_PER_S,
        "booked_s": snapshot.booked_ns / NS_PER_S,
        "read_s": {kind: snapshot.read_ns[kind] / NS_PER_S for kind in kinds if kind in snapshot.read_ns},
        "terms": TERMS,
        "shares": SHARE_KINDS,
        "qualities": QUALITIES,
        "node": _node(snapshot, kinds),
        "jobs": [_job(totals, kinds) for totals in shown],
        "sums": {
            "shown": _sum(shown, told["shown"], kinds),
            "others": _sum(others, rest, kinds),
            **{name: _sum(of, told[name], kinds) for name, of in folds.items()},
        },
        "products": [
            _product(product, values, kinds, served.get(product.id), snapshot.corrections_ng)
            for product, values in products[:PRODUCTS]
        ],
        "products_left_out": max(0, len(products) - PRODUCTS),
        "sources": [_source(source, snapshot.taken_at_unix_ns) for source in snapshot.sources],
        "pue": snapshot.pue,
        "intensity": {
            "gco2e_per_kwh": intensity.gco2e_per_kwh,
            "zone": zone,
            "provider": provider,
            "method": method,
            "quality": quality,
        },
        "methods": [[kind, device, how] for (kind, device), how in snapshot.attribution.items()],
        "policy": dict(snapshot.policy),
        "idle_uw": [[kind, device, how, uw] for (kind, device, how), uw in snapshot.idle_uw.items()],
        "agent": {
            "cpu_ns": snapshot.agent_cpu_ns,
            "resident_bytes": snapshot.agent_resident_bytes,
            "energy_uj": snapshot.agent_energy_uj,
            "tick_ns": snapshot.agent_tick_ns,
            "ticks": snapshot.agent_ticks,
            "ticks_late": snapshot.agent_ticks_late,
        },
    }


def _node(snapshot: Snapshot, kinds: Sequence[DomainKind]) -> Document:
    energy_uj: dict[str, dict[str, int]] = {kind: {} for kind in kinds}
    for (kind, _, quality), uj in snapshot.node_energy_uj.items():
        if kind in energy_uj:
            energy_uj[kind][quality] = energy_uj[kind].get(quality, 0) + uj
    unattributed_uj: dict[str, dict[str, int]] = {kind: {} for kind in kinds}
    for (kind, reason), uj in snapshot.unattributed_uj.items():
        if kind in unattributed_uj:
            unattributed_uj[kind][reason] = uj
    unattributed_ng: dict[str, dict[str, int]] = defaultdict(dict)
    for (term, why), ng in snapshot.unattributed_ng.items():
        unattributed_ng[term][why] = ng
    return {
        "energy_uj": energy_uj,
        "unattributed_uj": unattributed_uj,
        "gco2e_ng": dict(snapshot.node_co2e_ng),
        "unattributed_ng": unattributed_ng,
    }


def _job(totals: JobTotals, kinds: Sequence[DomainKind]) -> Document:
    job, values = totals.job, totals.values
    job_id, product_id, phase, user, parent = cleaned(
        (job.id, job.product_id, job.phase, job.user, job.parent_job_id or "")
    )
    return {
        "id": job_id,
        "product_id": product_id,
        "role": job.role,
        "phase": phase,
        "user": user,
        "origin": job.origin,
        "parent_job_id": parent,
        "running": totals.running,
        "started_unix_s": job.started_unix_ns / NS_PER_S,
        "ended_unix_s": None if job.ended_unix_ns is None else job.ended_unix_ns / NS_PER_S,
        "nodes": job.nodes,
        "energy_uj": _energy(values, kinds),
        "quality_uj": by_quality(values),
        "terms_ng": values[_FIRST_TERM:_LAST_TERM],
        "cpu_ns": values[CPU_NS_SLOT],
        "sm_ns": values[SM_NS_SLOT],
        "gpus": cleaned(totals.gpus[:ROWS]),
        "slurm": [_labels(row) for row in totals.slurm[:ROWS]],
        "kubernetes": [_labels(row) for row in totals.kubernetes[:ROWS]],
    }


def _energy(values: Sequence[int], kinds: Sequence[DomainKind]) -> Mapping[str, list[int]]:
    """By domain: the microjoules of each share, of all qualities. A domain that the node doesn't have is left out."""
    energy_uj: dict[str, list[int]] = {}
    for place, kind in enumerate(DOMAIN_KINDS):
        first = place * _OF_KIND
        shares = [sum(values[at : at + _OF_SHARE]) for at in range(first, first + _OF_KIND, _OF_SHARE)]
        if kind in kinds or any(shares):
            energy_uj[kind] = shares
    return energy_uj


def by_quality(values: Sequence[int]) -> list[int]:
    """The microjoules of each of QUALITIES, of a job's or a product's totals."""
    return [sum(values[first:ENERGY_SLOTS:_OF_SHARE]) for first in range(_OF_SHARE)]


def _labels(row: Mapping[str, str]) -> Mapping[str, str]:
    return dict(zip(cleaned(tuple(row)), cleaned(tuple(row.values())), strict=True))


def _total(jobs: Sequence[JobTotals]) -> Sequence[int]:
    return added([totals.values for totals in jobs]) or _NOTHING


def _sum(jobs: Sequence[JobTotals], values: Sequence[int], kinds: Sequence[DomainKind]) -> Document:
    return {
        "count": len(jobs),
        "running": sum(totals.running for totals in jobs if totals.info),
        "energy_uj": _energy(values, kinds),
        "terms_ng": values[_FIRST_TERM:_LAST_TERM],
    }


def _product(
    product: ProductTotals,
    values: Sequence[int],
    kinds: Sequence[DomainKind],
    served: ServedTotals | None,
    corrections_ng: Mapping[tuple[str, str], int],
) -> Document:
    product_id, kind = cleaned((product.id, product.kind))
    return {
        "id": product_id,
        "kind": kind,
        "running_jobs": product.running_jobs,
        "jobs_total": product.jobs_total,
        "energy_uj": _energy(values, kinds),
        "quality_uj": by_quality(values),
        "terms_ng": values[_FIRST_TERM:_LAST_TERM],
        "epc_own_ng": product.epc_own_ng,
        "epc_inherited_ng": product.epc_inherited_ng,
        "billed_ng": dict(product.billed_ng),
        "untaxed_ng": dict(product.untaxed_ng),
        "corrections_ng": {term: ng for (of, term), ng in corrections_ng.items() if of == product.id},
        "served": None if served is None else _served(served),
    }


def _served(served: ServedTotals) -> Document:
    units: dict[str, int] = {"request": 0}
    for tenant in served.tenants.values():
        for raw, micro in tenant.units.items():
            (unit,) = cleaned((raw,))
            units[unit] = units.get(unit, 0) + micro
    tenants = served.tenants.values()
    return {
        "units_micro": units,
        "aborted": sum(tenant.aborted for tenant in tenants),
        "in_flight": served.in_flight,
        "energy_uj": sum(tenant.energy_uj for tenant in tenants),
        "terms_ng": _columns([tenant.terms_ng for tenant in tenants]),
        "idle_uj": served.idle_uj,
        "idle_ng": list(served.idle_ng),
        "unsettled_uj": served.unsettled_uj,
        "unsettled_ng": list(served.unsettled_ng),
    }


def _columns(rows: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)] or [0] * len(TERMS)


def _source(source: SourceHealth, now_unix_ns: int) -> Document:
    at_ns = source.last_read_unix_ns
    return {
        "name": source.name,
        "up": source.up,
        "age_s": None if at_ns is None else max(0, now_unix_ns - at_ns) / NS_PER_S,
        "failures": dict(source.failures),
        "gap_s": source.gap_ns / NS_PER_S,
        "why": source.why,
        "fix": source.fix,
    }
