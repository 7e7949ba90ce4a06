"""A data sheet as data (`wattribute.report/1`): numbers are exact decimals; grams CO2e, joules, seconds, RFC 3339."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.model import TERMS, Term
from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.core.records import NodeRecord
from wattribute.exporters.report.exact import decimal_of, grams, joules, kwh, rounded, seconds
from wattribute.exporters.report.requests_data import amortised_dict, served_dict
from wattribute.exporters.report.sheet import SUMS, Costs, Made, Sheet
from wattribute.exporters.report.words import PRICE

SCHEMA = "wattribute.report/1"


def to_dict(sheet: Sheet) -> dict[str, Any]:
    """The whole sheet; `exact.json_text` writes it out without a float."""
    made, mean = sheet.made, sheet.mean_g_per_kwh()
    return {
        "schema": SCHEMA,
        "kind": sheet.kind,
        "id": sheet.id,
        "made_at": rfc3339(sheet.made_unix_ns),
        "made_by": f"wattribute {sheet.version}",
        "from": rfc3339(sheet.from_unix_ns),
        "to": rfc3339(sheet.to_unix_ns),
        "job": _job(sheet),
        "product": _product(sheet),
        "total": _costs(sheet.total),
        "bounds": _bounds(sheet),
        "groups": [{"role": group.role, "phase": group.phase, **_costs(group.costs)} for group in sheet.groups],
        "nodes": [_node(node) for node in sheet.nodes],
        "epc": None if made is None else _made(made),
        "lineage": _lineage(sheet),
        "requests": served_dict(sheet.served),
        "amortised": amortised_dict(sheet.amortised),
        "billed": _by_term(sheet.billed_ng),
        "method": dict(sheet.method),
        "policy": dict(sheet.policy),
        "boundary": {"included": list(sheet.included), "missing": list(sheet.missing)},
        "basis": sheet.basis,
        "intensity": {
            "mean_gco2e_per_kwh": None if mean is None else rounded(mean, 12),
            "gco2e_per_kwh": sheet.intensity.gco2e_per_kwh,
            "grid_zone": sheet.intensity.zone,
            "provider": sheet.intensity.provider,
            "method": sheet.intensity.method,
            "factor_type": sheet.intensity.factor_type,
            "quality": sheet.intensity.quality,
            "year": sheet.intensity.year,
            "source": sheet.intensity.source,
        },
        "pue": sheet.pue,
        "hardware": list(sheet.hardware),
        "revision": sheet.revision,
        "provisional": sheet.provisional,
        "notes": [*sheet.notes, PRICE],
    }


def _job(sheet: Sheet) -> dict[str, Any] | None:
    job = sheet.job
    if job is None:
        return None
    return {
        "job_id": job.id,
        "product_id": job.product_id,
        "uses": list(job.uses),
        "role": job.role,
        "phase": job.phase,
        "user": job.user,
        "weight": decimal_of(Fraction(job.weight_ppm, 1_000_000), 6),
        "nodes": list(job.nodes),
        "expected_nodes": job.expected_nodes,
        "started_at": rfc3339(job.started_unix_ns or None),
        "ended_at": rfc3339(job.ended_unix_ns),
        "source": job.source,
    }


def _product(sheet: Sheet) -> dict[str, Any] | None:
    product = sheet.product
    if product is None:
        return None
    return {
        "product_id": product.id,
        "kind": product.kind,
        "version": product.version,
        "status": product.status,
        "boundary": product.boundary,
        "runs_on": list(product.runs_on),
        "owners": list(product.owners),
        "lifetime_s": product.lifetime_s,
        "deployed_at": rfc3339(product.deployed_unix_ns),
    }


def _costs(costs: Costs) -> dict[str, Any]:
    known = costs.electricity_known
    amounts_ng = {**{str(term): costs.term_ng(term) for term in TERMS}, **costs.sums_ng()}
    unknown = () if known else ("operation", "cooling", *SUMS)
    return {
        "jobs": costs.jobs,
        "energy_uj": costs.whole_uj if known else None,
        "energy_kwh": kwh(costs.whole_uj) if known else None,
        "energy_j": [
            {"domain": domain, "share": share or None, "quality": quality, "energy_j": joules(energy_uj)}
            for (domain, share, quality), energy_uj in sorted(costs.energy_uj.items())
        ],
        "cpu_s": seconds(costs.cpu_ns),
        "gpu_sm_s": seconds(costs.sm_ns) if costs.sm_ns or "gpu" in costs.energy_by(0) else None,
        "gco2e": {name: None if name in unknown else grams(ng) for name, ng in amounts_ng.items()},
        "taxes": [
            {"product_id": payee, "term": term, "gco2e": grams(ng)}
            for (payee, term), ng in sorted(costs.taxes_ng.items())
        ],
        "corrections": _by_term(costs.corrections_ng),
    }


def _by_term(amounts_ng: Mapping[Term, int]) -> dict[str, Decimal]:
    return {str(term): grams(amounts_ng[term]) for term in TERMS if term in amounts_ng}


def _bounds(sheet: Sheet) -> dict[str, Any] | None:
    found = sheet.uncertainty
    if found is None:
        return None
    return {
        **{name: _ends(sheet.bounds_of(name)) for name in SUMS},
        "terms": {str(term): _ends(found.terms[term]) for term in TERMS},
        "dominant": found.dominant,
    }


def _ends(bounds: Bounded | None) -> list[Decimal] | None:
    return None if bounds is None else [grams(bounds.low), grams(bounds.high)]


def _range(bounds: Bounded | None) -> dict[str, Decimal] | None:
    if bounds is None:
        return None
    return {"low": grams(bounds.low), "central": grams(bounds.central), "high": grams(bounds.high)}


def _node(node: NodeRecord) -> dict[str, Any]:
    return {
        "node": node.id,
        "energy_j": [
            {"domain": domain, "quality": quality, "energy_j": joules(energy_uj)}
            for (domain, quality), energy_uj in sorted(node.energy_uj.items())
        ],
        "unattributed_j": [
            {"domain": domain, "reason": reason, "energy_j": joules(energy_uj)}
            for (domain, reason), energy_uj in sorted(node.unattributed_uj.items())
        ],
        "gco2e": _by_term(node.terms_ng),
        "unattributed_gco2e": [
            {"reason": reason, "term": term, "gco2e": grams(ng)}
            for (reason, term), ng in sorted(node.unattributed_ng.items())
        ],
        "corrections": _by_term(node.corrections_ng),
    }


def _made(made: Made) -> dict[str, Any]:
    recovery = made.recovery
    expected, stock = recovery.expected_ng, recovery.stock_ng
    return {
        "own_gco2e": _range(made.own),
        "inherited_gco2e": _range(made.inherited),
        "gco2e": _range(made.epc),
        "missing": list(made.missing),
        "creation_jobs": made.recorded.job_count,
        "entered_costs": made.recorded.entered_count,
        "own_part": decimal_of(made.own_part, 12),
        "to_recover_gco2e": None if stock is None else grams(stock),
        "recovered_gco2e": grams(recovery.recovered_ng),
        "expected_gco2e": None if expected is None else grams(expected),
        "excess_gco2e": grams(recovery.excess_ng),
        "left_s": recovery.left_s,
        "recovered": [{"at": rfc3339(at), "gco2e": grams(ng)} for at, ng in made.curve],
    }


def _lineage(sheet: Sheet) -> dict[str, Any] | None:
    if sheet.lineage is None:
        return None
    return {
        "products": [
            {"product_id": node.id, "kind": node.kind, "status": node.status, "epc_gco2e": _range(node.epc)}
            for node in sheet.lineage.nodes
        ],
        "parents": [
            {
                "parent": edge.parent,
                "child": edge.child,
                "weight": decimal_of(edge.weight, 12),
                "inherited_gco2e": _range(edge.inherited),
            }
            for edge in sheet.lineage.edges
        ],
    }


__all__ = ["SCHEMA", "to_dict"]
