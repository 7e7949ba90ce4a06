"""What a snapshot says of products: their taxes and embodied cost, and the sums over their jobs."""

from collections.abc import Iterator, Mapping, Sequence
from operator import add
from typing import NamedTuple

from wattribute.agent.core.model import (
    DOMAIN_KINDS,
    ENERGY_SLOTS,
    PAYEE_TERMS,
    TERM_SLOT,
    TERMS,
    DomainKind,
    ProductTotals,
    Snapshot,
)
from wattribute.exporters.batch import Batch, Labels, Owner, Series, added, cleaned, rows, summed
from wattribute.exporters.metrics import METRIC

EPC_PARTS = ("own", "inherited")
OF_ENERGY = 2  # so many of the terms, the first ones, are for energy: operation and cooling
_FIRST_TERM, _LAST_TERM = TERM_SLOT[TERMS[0]], TERM_SLOT[TERMS[-1]] + 1
_SLOTS_PER_KIND = ENERGY_SLOTS // len(DOMAIN_KINDS)

PRODUCT_STATE = (
    METRIC["wattribute_product_info"],
    METRIC["wattribute_product_running_jobs"],
    METRIC["wattribute_product_jobs_total"],
    METRIC["wattribute_product_weight_seconds_total"],
    METRIC["wattribute_product_overhead_grams_total"],
    METRIC["wattribute_product_billed_grams_total"],
    METRIC["wattribute_product_untaxed_grams_total"],
    METRIC["wattribute_product_epc_grams"],
    METRIC["wattribute_product_epc_missing"],
)


class ProductState(NamedTuple):
    """A product and what was taxed on its behalf; an undeclared one is no payee: a tag, without taxes and EPC."""

    product_id: str
    kind: str
    payee: bool
    known_epc: tuple[str, ...]

    def series(self) -> Series:
        product = [(self.product_id,)]
        taxes = [(self.product_id, term) for term in PAYEE_TERMS] if self.payee else []
        known = [(self.product_id, part) for part in self.known_epc]
        parts = [(self.product_id, part) for part in EPC_PARTS] if self.payee else []
        return [(self.product_id, self.kind)], product, product, product, taxes, taxes, taxes, known, parts


PRODUCT_USE = (METRIC["wattribute_product_energy_joules_total"], METRIC["wattribute_product_co2e_grams_total"])


class ProductUse(NamedTuple):
    """The sums over the jobs of a product and role. Without `kinds` no energy is known, nor what that costs."""

    product: Labels
    kinds: tuple[DomainKind, ...]

    def series(self) -> Series:
        terms = TERMS if self.kinds else TERMS[OF_ENERGY:]
        return [(*self.product, kind) for kind in self.kinds], [(*self.product, term) for term in terms]


def product_batches(snapshot: Snapshot, counters: Mapping[Labels, Sequence[int]]) -> Iterator[Batch]:
    """The families of products; `counters`: the totals of jobs by (job, product, role)."""
    yield _product_states(snapshot.products)
    yield _product_uses(snapshot, counters)
    yield rows("wattribute_product_correction_grams", summed(snapshot.corrections_ng.items()))
    amortised_ng = summed(
        ((one.id, method), ng) for one in snapshot.products for method, ng in one.amortised_ng.items()
    )
    yield rows("wattribute_product_amortised_grams_total", amortised_ng)


def _product_states(products: Sequence[ProductTotals]) -> Batch:
    states: dict[str, ProductState] = {}
    columns: list[list[int]] = [[] for _ in PRODUCT_STATE]
    info, running, jobs, weight, overhead_ng, billed_ng, untaxed_ng, epc_ng, epc_missing = columns
    for product in products:
        product_id, kind = cleaned((product.id, product.kind))
        if product_id in states:
            continue
        billed = [product.billed_ng.get(term, 0) for term in PAYEE_TERMS]
        untaxed = [product.untaxed_ng.get(term, 0) for term in PAYEE_TERMS]
        payee = kind != "undeclared" or any(billed) or any(untaxed)
        epc = dict(zip(EPC_PARTS, (product.epc_own_ng, product.epc_inherited_ng), strict=True))
        known = {part: ng for part, ng in epc.items() if ng is not None}
        states[product_id] = ProductState(product_id, kind, payee, tuple(known))
        info.append(1)
        running.append(product.running_jobs)
        jobs.append(product.jobs_total)
        weight.append(product.weight_ppm_ns)
        epc_ng += known.values()
        if payee:
            overhead_ng += map(add, billed, untaxed)
            billed_ng += billed
            untaxed_ng += untaxed
            epc_missing += [int(ng is None) for ng in epc.values()]
    return Batch(PRODUCT_STATE, list(states.values()), columns)


def _product_uses(snapshot: Snapshot, counters: Mapping[Labels, Sequence[int]]) -> Batch:
    on_node = {kind for kind, _, _ in snapshot.node_energy_uj}
    jobs: dict[Labels, list[Sequence[int]]] = {}
    for job, values in counters.items():
        jobs.setdefault(job[1:], []).append(values)
    owners: list[Owner] = []
    energy_uj: list[int] = []
    terms_ng: list[int] = []
    for product, totals in jobs.items():
        values = totals[0] if len(totals) == 1 else added(totals)
        by_kind = {
            kind: sum(values[first : first + _SLOTS_PER_KIND])
            for kind, first in zip(DOMAIN_KINDS, range(0, ENERGY_SLOTS, _SLOTS_PER_KIND), strict=True)
        }
        kinds = tuple([kind for kind, uj in by_kind.items() if uj or kind in on_node])
        owners.append(ProductUse(product, kinds))
        energy_uj += [by_kind[kind] for kind in kinds]
        terms_ng += values[_FIRST_TERM if kinds else _FIRST_TERM + OF_ENERGY : _LAST_TERM]
    return Batch(PRODUCT_USE, owners, (energy_uj, terms_ng))
