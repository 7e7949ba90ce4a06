"""A job's receipt: what it used and what that cost, with where each number comes from (contract, section 6)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from wattribute.agent.core.accounting import sums_ng
from wattribute.agent.core.model import (
    CPU_NS_SLOT,
    DOMAIN_KINDS,
    PAYEE_TERMS,
    QUALITIES,
    SHARE_KINDS,
    SM_NS_SLOT,
    TERM_SLOT,
    TERMS,
    Job,
    Term,
    energy_slot,
)
from wattribute.agent.core.units import NS_PER_S, g_of, j_of

SCHEMA = "wattribute.receipt/1"
UNSEEN = ("psu", "fans", "nic", "storage")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(unix_ns: int | None) -> str | None:
    """Wall time in nanoseconds as RFC 3339 in UTC, to the microsecond."""
    if unix_ns is None:
        return None
    moment = _EPOCH + timedelta(microseconds=unix_ns // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


NO_ENERGY = "no energy is known: there is no sensor that can be read, and no model (collectors.modelled)"


def build(
    job: Job,
    values: Sequence[int],
    taxes_ng: Mapping[tuple[str, Term], int],
    *,
    corrections_ng: Mapping[tuple[str, str], int],
    revision: int,
    now_unix_ns: int,
    domains: Iterable[str],
    common: Mapping[str, Any],
    members: int,
    settled: bool,
    notes: Sequence[str],
    bounds: Mapping[str, Any],
) -> dict[str, Any]:
    """The receipt of one job. `domains` are the kinds that the node has a sensor or a model for; `common` holds what
    is the same for all jobs of a node: node, method, policy, pue, intensity, basis, unseen. `values` and `taxes_ng` are
    as they were booked; `corrections_ng`, by product and term, is what turned out otherwise.
    """
    included = list(domains)
    energy_uj = {
        kind: {share: sum(values[energy_slot(kind, share, quality)] for quality in QUALITIES) for share in SHARE_KINDS}
        for kind in DOMAIN_KINDS
    }
    by_quality = {
        quality: sum(values[energy_slot(kind, share, quality)] for kind in DOMAIN_KINDS for share in SHARE_KINDS)
        for quality in QUALITIES
    }
    energy_j: dict[str, dict[str, float] | None] = {
        kind: {share: j_of(uj) for share, uj in energy_uj[kind].items()} if kind in included else None
        for kind in DOMAIN_KINDS
        if kind in included or kind != "rest"
    }
    whole_uj = sum(by_quality.values())
    terms_ng = {term: values[TERM_SLOT[term]] for term in TERMS}
    due_ng = dict(taxes_ng)
    for (product_id, term), delta_ng in corrections_ng.items():
        name = cast(Term, term)
        terms_ng[name] += delta_ng
        if term in PAYEE_TERMS:
            due_ng[product_id, name] = due_ng.get((product_id, name), 0) + delta_ng
    sums = sums_ng(terms_ng)
    grams: dict[str, float | None] = {str(term): g_of(ng) for term, ng in terms_ng.items()}
    grams.update((name, g_of(ng)) for name, ng in sums.items())
    if not included:  # nothing tells its electricity, so neither its operation nor a sum with it: that isn't 0
        grams.update(dict.fromkeys(("operation", "cooling", *sums)))
    end_unix_ns = job.ended_unix_ns or now_unix_ns
    return {
        "schema": SCHEMA,
        "job_id": job.id,
        "product_id": job.product_id,
        "uses": list(job.uses),
        "role": job.role,
        "phase": job.phase,
        "node": common["node"],
        "members": members,
        "expected_nodes": job.nodes,
        "parent_job_id": job.parent_job_id,
        "started_at": rfc3339(job.started_unix_ns),
        "ended_at": rfc3339(job.ended_unix_ns),
        "duration_s": max(0, end_unix_ns - job.started_unix_ns) / NS_PER_S,
        "cpu_s": values[CPU_NS_SLOT] / NS_PER_S,
        "gpu_sm_s": values[SM_NS_SLOT] / NS_PER_S if "gpu" in included else None,
        "energy_uj": whole_uj if included else None,
        "energy_j": energy_j,
        "quality": {quality: uj / whole_uj if whole_uj else 0.0 for quality, uj in by_quality.items()},
        "method": common["method"],
        "boundary": {
            "included": included,
            "missing": [kind for kind in ("cpu", "dram") if kind not in included] + list(common.get("unseen", UNSEEN)),
        },
        "policy": common["policy"],
        "pue": common["pue"],
        "intensity": common["intensity"],
        "gco2e": grams,
        "taxes": [
            {"product_id": product_id, "term": term, "gco2e": g_of(ng)} for (product_id, term), ng in due_ng.items()
        ],
        "bounds": dict(bounds) if included else {"jsce": None, "asce": None},
        "basis": common["basis"],
        "settled": settled,
        "revision": revision,
        "labels": dict(job.labels),
        "gaps": list(common["gaps"]),
        "notes": list(notes) if included else [NO_ENERGY, *notes],
    }
