"""Rounds what is shown down, for who mustn't see fine-grained energy (export.round_j); books and ledger stay exact.

Every series is rounded by itself, to a multiple of a quantum in microjoules. What grams follow from energy would undo
that: they are rounded to as many nanograms, 1 ng per uJ being 3.6 kg/kWh, which is more than any grid makes.
A sum that never falls doesn't fall rounded down either, and what moves between series never takes one back: the floor
of a sum is at least the sum of the floors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from wattribute.agent.core.model import (
    BUCKETS_UJ,
    ENERGY_SLOTS,
    TERM_SLOT,
    TERMS,
    JobTotals,
    ProductTotals,
    ServedTotals,
    Snapshot,
    TenantTotals,
    Term,
)

FROM_ENERGY: tuple[Term, ...] = ("operation", "cooling", "platform", "retraining")
"""The terms that follow from energy; the others go by time, weight or units."""

_TERM_SLOTS = [TERM_SLOT[term] for term in FROM_ENERGY]
_Key = TypeVar("_Key")


def rounded(snapshot: Snapshot, quantum_uj: int) -> Snapshot:
    """The snapshot with energy, and grams that follow from it, rounded down."""
    q = quantum_uj
    return replace(
        snapshot,
        jobs=[_job(totals, q) for totals in snapshot.jobs],
        products=[_product(totals, q) for totals in snapshot.products],
        node_energy_uj=_all(snapshot.node_energy_uj, q),
        unattributed_uj=_all(snapshot.unattributed_uj, q),
        node_co2e_ng={term: ng_of(term, ng, q) for term, ng in snapshot.node_co2e_ng.items()},
        unattributed_ng={key: ng_of(key[0], ng, q) for key, ng in snapshot.unattributed_ng.items()},
        corrections_ng={key: ng_of(key[1], ng, q) for key, ng in snapshot.corrections_ng.items()},
        served=[_served(one, q) for one in snapshot.served],
        agent_energy_uj=snapshot.agent_energy_uj // q * q,
    )


def values_of(values: Sequence[int], quantum: int) -> list[int]:
    """A job's totals by slot, rounded down."""
    shown = [uj and uj // quantum * quantum for uj in values[:ENERGY_SLOTS]]  # most are 0
    shown += values[ENERGY_SLOTS:]
    for slot in _TERM_SLOTS:
        shown[slot] = shown[slot] // quantum * quantum
    return shown


def ng_of(term: str, ng: int, quantum: int) -> int:
    """Nanograms of a term, rounded down where it follows from energy."""
    return ng // quantum * quantum if term in FROM_ENERGY else ng


def _all(amounts: Mapping[_Key, int], quantum: int) -> dict[_Key, int]:
    return {key: amount // quantum * quantum for key, amount in amounts.items()}


def _terms(terms_ng: Sequence[int], quantum: int) -> list[int]:
    return [ng_of(term, ng, quantum) for term, ng in zip(TERMS, terms_ng, strict=True)]


def _job(totals: JobTotals, quantum: int) -> JobTotals:
    taxes_ng = {key: ng_of(key[1], ng, quantum) for key, ng in totals.taxes_ng.items()}
    return replace(totals, values=values_of(totals.values, quantum), taxes_ng=taxes_ng)


def _product(totals: ProductTotals, quantum: int) -> ProductTotals:
    billed_ng = {term: ng_of(term, ng, quantum) for term, ng in totals.billed_ng.items()}
    untaxed_ng = {term: ng_of(term, ng, quantum) for term, ng in totals.untaxed_ng.items()}
    return replace(totals, billed_ng=billed_ng, untaxed_ng=untaxed_ng)


def _served(totals: ServedTotals, quantum: int) -> ServedTotals:
    q = quantum
    return replace(
        totals,
        tenants={name: _tenant(tenant, q) for name, tenant in totals.tenants.items()},
        idle_uj=totals.idle_uj // q * q,
        idle_ng=_terms(totals.idle_ng, q),
        unsettled_uj=totals.unsettled_uj // q * q,
        unsettled_ng=_terms(totals.unsettled_ng, q),
        stages={name: (uj // q * q, _terms(terms_ng, q)) for name, (uj, terms_ng) in totals.stages.items()},
        receipt_counts=_buckets(totals.receipt_counts, q),
        receipt_sum_uj=totals.receipt_sum_uj // q * q,
        receipt_latest={
            place: (request_id, uj // q * q, at_ns)
            for place, (request_id, uj, at_ns) in totals.receipt_latest.items()
            if place >= _first(q)
        },
    )


def _tenant(totals: TenantTotals, quantum: int) -> TenantTotals:
    energy_uj = totals.energy_uj // quantum * quantum
    return replace(totals, energy_uj=energy_uj, terms_ng=_terms(totals.terms_ng, quantum))


def _buckets(counts: Sequence[int], quantum: int) -> list[int]:
    """How many requests fell into which bucket; those below the quantum aren't told apart."""
    first = _first(quantum)
    if len(counts) <= first:
        return list(counts)
    return [0] * first + [sum(counts[: first + 1]), *counts[first + 1 :]]


def _first(quantum: int) -> int:
    """The lowest bucket that ends at the quantum or above."""
    return sum(end_uj < quantum for end_uj in BUCKETS_UJ)
