"""What a snapshot says of served requests: units, joules and grams by product and tenant, and a histogram of receipts.

Names that are the same once they are fit for a page are summed. No served product: no series.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import add
from typing import TypeAlias

from wattribute.agent.core.model import BUCKETS_UJ, TERMS, ServedTotals
from wattribute.exporters.batch import Batch, Exemplar, Labels, Rows, cleaned, rows
from wattribute.exporters.metrics import METRIC
from wattribute.exporters.metrics_requests import REQUESTS

RECEIPTS = METRIC["wattribute_product_receipt_joules"]

Sums: TypeAlias = defaultdict[str, dict[Labels, int]]
"""By family: label values -> number."""


def served_batches(served: Sequence[ServedTotals]) -> Iterator[Batch]:
    """The families of requests, in the order of the table."""
    if not served:
        return
    sums: Sums = defaultdict(dict)
    with_tenants = {cleaned((one.product_id,)) for one in served if any(one.tenants)}
    for one in served:
        product = cleaned((one.product_id,))
        _count_product(sums, one, product)
        _count_tenants(sums, one, product, named=product in with_tenants)
    for metric in REQUESTS:
        if metric is not RECEIPTS:
            yield rows(metric.name, sums[metric.name])
    yield _receipts(served)


def _count_product(sums: Sums, one: ServedTotals, product: Labels) -> None:
    _add(sums["wattribute_product_units_total"], (*product, "request"), 0)  # a rate needs the zero before the first
    _add(sums["wattribute_product_requests_in_flight"], product, one.in_flight)
    _add(sums["wattribute_product_idle_joules_total"], product, one.idle_uj)
    _add_terms(sums["wattribute_product_idle_grams_total"], product, one.idle_ng)
    _add(sums["wattribute_product_unsettled_joules"], product, one.unsettled_uj)
    _add_terms(sums["wattribute_product_unsettled_grams"], product, one.unsettled_ng)
    tenants = one.tenants.values()
    _add(sums["wattribute_product_requests_aborted_total"], product, sum([of.aborted for of in tenants]))
    _add(sums["wattribute_product_request_joules_total"], product, sum([of.energy_uj for of in tenants]))
    by_term = [sum(term) for term in zip(*[of.terms_ng for of in tenants], strict=True)] or [0] * len(TERMS)
    _add_terms(sums["wattribute_product_request_grams_total"], product, by_term)
    for stage, (energy_uj, terms_ng) in one.stages.items():
        labels = product + cleaned((stage,))
        _add(sums["wattribute_product_stage_joules_total"], labels, energy_uj)
        _add_terms(sums["wattribute_product_stage_grams_total"], labels, terms_ng)


def _count_tenants(sums: Sums, one: ServedTotals, product: Labels, *, named: bool) -> None:
    """Units of the product, and what each tenant had where one is `named`."""
    of_product = sums["wattribute_product_units_total"]
    of_tenant = sums["wattribute_tenant_units_total"]
    for name, tenant in one.tenants.items():
        labels = product + cleaned((name,))
        for raw, units in tenant.units.items():
            unit = cleaned((raw,))
            _add(of_product, product + unit, units)
            if named:
                _add(of_tenant, labels + unit, units)
        if named:
            _add(sums["wattribute_tenant_joules_total"], labels, tenant.energy_uj)
            _add_terms(sums["wattribute_tenant_grams_total"], labels, tenant.terms_ng)


def _add(sums: dict[Labels, int], labels: Labels, number: int) -> None:
    sums[labels] = sums.get(labels, 0) + number


def _add_terms(sums: dict[Labels, int], labels: Labels, terms_ng: Sequence[int]) -> None:
    for term, ng in zip(TERMS, terms_ng, strict=True):
        _add(sums, (*labels, term), ng)


def _receipts(served: Sequence[ServedTotals]) -> Batch:
    """The histogram, of products that have receipts: per product, buckets (cumulative), count, sum."""
    buckets = len(BUCKETS_UJ) + 1
    by_product: dict[Labels, list[int]] = {}
    latest: dict[tuple[Labels, int], Exemplar] = {}
    for one in served:
        if not one.receipt_counts:
            continue
        product = cleaned((one.product_id,))
        counts = [*one.receipt_counts, *[0] * buckets][:buckets]
        numbers = [*accumulate(counts), sum(counts), one.receipt_sum_uj]
        by_product[product] = list(map(add, numbers, by_product.get(product, [0] * len(numbers))))
        for bucket, (request_id, energy_uj, at_ns) in one.receipt_latest.items():
            known = latest.get((product, bucket))
            if known is None or known.at_unix_ns < at_ns:
                latest[product, bucket] = Exemplar(request_id, energy_uj, at_ns)
    exemplars = {
        first * RECEIPTS.numbers + bucket: latest[product, bucket]
        for first, product in enumerate(by_product)
        for bucket in range(buckets)
        if (product, bucket) in latest
    }
    column = [number for numbers in by_product.values() for number in numbers]
    return Batch((RECEIPTS,), (Rows(tuple(by_product)),), (column,), exemplars)
