"""Snapshots that obey the laws: joules and grams of jobs and what is unattributed add up to the node's."""

import random
from collections import Counter
from collections.abc import Sequence

from wattribute.agent.core.model import (
    BUCKETS_UJ,
    EXPORTED_SLOTS,
    REASONS,
    ROLES,
    SHARE_KINDS,
    SLOTS,
    TERM_SLOT,
    TERMS,
    CarbonIntensity,
    DomainKind,
    Job,
    JobTotals,
    ProductTotals,
    Quality,
    Reason,
    ServedTotals,
    Snapshot,
    SourceHealth,
    TenantTotals,
    Term,
    energy_slot,
)

SECOND_NS = 1_000_000_000
NOW_NS = 1_760_000_000 * SECOND_NS
DEVICES: tuple[tuple[DomainKind, str, Quality], ...] = (
    ("cpu", "package-0", "measured"),
    ("cpu", "package-1", "measured"),
    ("dram", "package-0", "modelled"),
    ("gpu", "GPU-11111111", "measured"),
    ("gpu", "GPU-22222222", "integrated"),
)


def totals(job: Job, *, seed: int = 1, info: bool = True, scale: int = 10**9) -> JobTotals:
    """A job with random totals in what DEVICES measure, and in every term."""
    rng = random.Random(seed)
    values = [0] * SLOTS
    for kind, _, quality in DEVICES:
        for share in SHARE_KINDS:
            values[energy_slot(kind, share, quality)] = rng.randrange(scale)
    for slot in range(TERM_SLOT[TERMS[0]], EXPORTED_SLOTS):
        values[slot] = rng.randrange(scale * 1000)
    return JobTotals(
        job=job,
        values=values,
        gpus=("GPU-11111111",),
        running=job.ended_unix_ns is None,
        info=info,
        slurm=({"slurm_cluster": "c1", "slurm_job_id": "42", "partition": "gpu", "account": "physics"},),
        kubernetes=({"pod_uid": "u-1", "pod_name": "a"}, {"pod_uid": "u-1", "pod_name": "a", "container_name": "b"}),
        payees=("iks", job.product_id) if info and job.ended_unix_ns is None else (),
    )


def snapshot(
    jobs: list[JobTotals], *, products: list[ProductTotals] | None = None, seed: int = 1, **changes: object
) -> Snapshot:
    """A snapshot whose node and unattributed totals follow from its jobs."""
    rng = random.Random(seed)
    unattributed_uj: dict[tuple[DomainKind, Reason], int] = {
        (kind, reason): rng.randrange(10**9) for kind in ("cpu", "dram", "gpu") for reason in REASONS
    }
    unattributed_ng: dict[tuple[Term, Reason], int] = {
        (term, reason): rng.randrange(10**9) for term in ("operation", "cooling", "hardware") for reason in REASONS
    }
    used_uj: Counter[DomainKind] = Counter()
    for totals_ in jobs:
        for kind, quality in {(kind, quality) for kind, _, quality in DEVICES}:
            used_uj[kind] += sum(totals_.values[energy_slot(kind, share, quality)] for share in SHARE_KINDS)
    for (kind, _), uj in unattributed_uj.items():
        used_uj[kind] += uj
    node_uj: dict[tuple[DomainKind, str, Quality], int] = {}
    for kind, device, quality in DEVICES:
        last = device == [d for k, d, _ in DEVICES if k == kind][-1]
        node_uj[kind, device, quality] = part = used_uj[kind] if last else rng.randrange(used_uj[kind] + 1)
        used_uj[kind] -= part
    node_ng: dict[Term, int] = {
        term: sum(t.values[TERM_SLOT[term]] for t in jobs)
        + sum(ng for (of, _), ng in unattributed_ng.items() if of == term)
        for term in ("operation", "cooling", "hardware")
    }
    if products is None:
        names = sorted({t.job.product_id for t in jobs})
        products = [product(name, seed=i) for i, name in enumerate(names)]
    fields: dict[str, object] = {
        "taken_at_unix_ns": NOW_NS,
        "version": "0.1.0",
        "node_id": "node-a",
        "jobs": jobs,
        "products": products,
        "node_energy_uj": node_uj,
        "unattributed_uj": unattributed_uj,
        "node_co2e_ng": node_ng,
        "unattributed_ng": unattributed_ng,
        "corrections_ng": {("bert-base", "operation"): -1_500_000_007, ("", "cooling"): 3},
        "sources": [source("rapl"), source("nvml", up=False, why="driver gone", fix="modprobe nvidia")],
        "pue": 1.2,
        "intensity": CarbonIntensity(
            gco2e_per_kwh=480.0,
            valid_from_unix_ns=0,
            valid_until_unix_ns=None,
            zone="FR",
            provider="static",
            method="average, lifecycle",
        ),
        "ledger_created_unix_ns": NOW_NS - 1_234_567_891,
        "registry_hash": "0a1b2c",
        "agent_tick_ns": 1_234_567,
        "agent_ticks": 42,
        "agent_ticks_late": 1,
        "agent_cpu_ns": 987_654_321,
        "agent_resident_bytes": 20 << 20,
        "agent_energy_uj": 1_000_001,
        "agent_late_ns": (100_000, 5_000_000, 200_000),
        "suspended_ns": 7_000_000_001,
        "attribution": {("cpu", ""): "powercap, split by CPU time", ("gpu", "GPU-1"): "energy counter"},
        "policy": {"idle": "reserved", "overhead": "usage"},
        "idle_uw": {("cpu", "", "observed"): 37_000_001},
        "web_refused": {"auth": 2, "busy": 0},
        "bounds_ppm": {t.job.id: {("jsce", "low"): 880_000, ("jsce", "high"): 1_310_001} for t in jobs if t.info},
    }
    return Snapshot(**{**fields, **changes})  # type: ignore[arg-type]


def product(name: str, *, seed: int = 1, kind: str = "model", epc_own_ng: int | None = None) -> ProductTotals:
    rng = random.Random(seed)
    taxed: tuple[Term, ...] = ("platform", "retraining", "overhead_hardware", "product")
    return ProductTotals(
        id=name,
        kind=kind,
        epc_own_ng=epc_own_ng,
        epc_inherited_ng=12_345,
        billed_ng={term: rng.randrange(10**12) for term in taxed},
        untaxed_ng={term: rng.randrange(10**12) for term in taxed[:2]},
        running_jobs=2,
        jobs_total=7,
        weight_ppm_ns=123_456_789_012_345_678,
        amortised_ng={"time": 1_000_000_001, "units": 7},
    )


def served(product_id: str, *, tenants: Sequence[str] = ("", "acme"), seed: int = 1) -> ServedTotals:
    """What a product served to some tenants, all of it random; requests with receipts in every bucket."""
    rng = random.Random(seed)

    def terms_ng() -> list[int]:
        return [rng.randrange(10**12) for _ in TERMS]

    return ServedTotals(
        product_id=product_id,
        tenants={
            name: TenantTotals(
                units={unit: rng.randrange(10**12) for unit in ("request", "output_token")},
                aborted=rng.randrange(9),
                energy_uj=rng.randrange(10**12),
                terms_ng=terms_ng(),
            )
            for name in tenants
        },
        idle_uj=rng.randrange(10**12),
        idle_ng=terms_ng(),
        unsettled_uj=rng.randrange(10**9),
        unsettled_ng=terms_ng(),
        in_flight=rng.randrange(9),
        stages={stage: (rng.randrange(10**9), terms_ng()) for stage in ("prefill", "decode")},
        receipt_counts=[rng.randrange(100) for _ in range(len(BUCKETS_UJ) + 1)],
        receipt_sum_uj=rng.randrange(10**12),
        receipt_latest={place: (f"request-{place}", uj, NOW_NS + place) for place, uj in enumerate(BUCKETS_UJ)},
    )


def source(name: str, *, up: bool = True, why: str = "", fix: str = "") -> SourceHealth:
    return SourceHealth(
        name=name,
        up=up,
        read_ns=250_000,
        last_read_unix_ns=NOW_NS - 3 * SECOND_NS if up else None,
        failures={"timeout": 3, "permission": 1},
        gap_ns=1_500_000_000,
        wraps=2,
        resets=1,
        why=why,
        fix=fix,
        devices={f"{name}-0": up},
    )


def jobs(count: int, *, products: int = 4) -> list[JobTotals]:
    """Some jobs of several products and roles; every third one has ended."""
    return [
        totals(
            Job(
                id=f"job-{i}",
                product_id=f"product-{i % products}",
                role=ROLES[i % len(ROLES)],
                phase="training",
                user="alice",
                started_unix_ns=NOW_NS - 60 * SECOND_NS - i,
                ended_unix_ns=NOW_NS - i if i % 3 == 0 else None,
                parent_job_id="job-0" if i % 5 == 1 else None,
            ),
            seed=i,
        )
        for i in range(count)
    ]
