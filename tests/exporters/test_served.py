"""Served requests on the page: sums that are exact, names that break nothing, a histogram with its exemplars."""

import dataclasses
import json
import subprocess
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.exporters import reading
from tests.exporters.snapshots import NOW_NS, product, served, snapshot
from tests.tools import require

from wattribute.agent.core.model import BUCKETS_UJ, TERMS, ServedTotals, TenantTotals
from wattribute.agent.core.units import NG_PER_G, UJ_PER_J
from wattribute.exporters.batch import cleaned
from wattribute.exporters.metrics_requests import QUERIES, REQUESTS
from wattribute.exporters.negotiation import Format
from wattribute.exporters.prometheus import PrometheusPage

UNIT = 10**6
HISTOGRAM = "wattribute_product_receipt_joules"

few_names = st.sampled_from(["", "a", "a\x00", "a\x01", "_other", 'q"\\\n%s{}', "é😀", "\ud800", "x" * 300])
numbers = st.integers(0, 2**70)
terms = st.lists(numbers, min_size=len(TERMS), max_size=len(TERMS))
tenant_totals = st.builds(
    TenantTotals,
    units=st.dictionaries(few_names | st.just("request"), numbers, max_size=3),
    aborted=st.integers(0, 99),
    energy_uj=numbers,
    terms_ng=terms,
)
served_totals = st.builds(
    ServedTotals,
    product_id=few_names,
    tenants=st.dictionaries(few_names, tenant_totals, max_size=4),
    idle_uj=numbers,
    idle_ng=terms,
    unsettled_uj=numbers,
    unsettled_ng=terms,
    in_flight=st.integers(0, 99),
    stages=st.dictionaries(few_names, st.tuples(numbers, terms), max_size=2),
    receipt_counts=st.lists(st.integers(0, 2**40), max_size=len(BUCKETS_UJ) + 1),
    receipt_sum_uj=numbers,
    receipt_latest=st.dictionaries(
        st.integers(-1, len(BUCKETS_UJ) + 1),
        st.tuples(few_names | st.text(st.characters(), max_size=130), numbers, numbers),
        max_size=4,
    ),
)


def page_of(shown: Sequence[ServedTotals], *, exemplars: bool = False) -> PrometheusPage:
    page = PrometheusPage(exemplars=exemplars)
    page.publish(snapshot([], products=[], served=shown))
    return page


def exemplars_of(page: PrometheusPage) -> dict[tuple[str, str], tuple[str, float, str]]:
    """(product, le) -> (request, joules, when), as the official parser reads them."""
    family = reading.families(page.openmetrics(), is_openmetrics=True)[HISTOGRAM]
    return {
        (sample.labels["product_id"], sample.labels["le"]): (
            sample.exemplar.labels["request_id"],
            sample.exemplar.value,
            str(sample.exemplar.timestamp),
        )
        for sample in family.samples
        if sample.exemplar is not None
    }


@settings(deadline=None, max_examples=40)
@given(shown=st.lists(served_totals, min_size=1, max_size=3))
def test_all_that_was_used_is_on_the_page_exactly_and_tenants_are_their_product(shown: list[ServedTotals]) -> None:
    page = page_of(shown, exemplars=True)
    exact = reading.samples(page.text())
    open_ = reading.families(page.openmetrics(), is_openmetrics=True)
    assert reading.floats(reading.families(page.text())) == reading.floats(open_)
    for product_id in {cleaned((one.product_id,))[0] for one in shown}:
        own = [one for one in shown if cleaned((one.product_id,)) == (product_id,)]
        tenants = [(name, tenant) for one in own for name, tenant in one.tenants.items()]

        def total(name: str, of: str = product_id, **labels: str) -> Decimal:
            return reading.total(exact, f"wattribute_{name}", product_id=of, **labels)

        parts = "product_request_{}_total", "product_idle_{}_total", "product_unsettled_{}"
        used_uj = sum(one.idle_uj + one.unsettled_uj for one in own) + sum(tenant.energy_uj for _, tenant in tenants)
        assert sum(total(part.format("joules")) for part in parts) * UJ_PER_J == used_uj
        for i, term in enumerate(TERMS):
            used_ng = sum(one.idle_ng[i] + one.unsettled_ng[i] for one in own)
            used_ng += sum(tenant.terms_ng[i] for _, tenant in tenants)
            assert sum(total(part.format("grams"), term=term) for part in parts) * NG_PER_G == used_ng
        units = reading.label_values(exact, "wattribute_product_units_total", "product_id", "unit")
        assert sum(total("product_units_total", unit=unit) for of, unit in units if of == product_id) * UNIT == (
            sum(n for _, tenant in tenants for n in tenant.units.values())
        )
        if any(name for name, _ in tenants):
            assert total("tenant_joules_total") == total("product_request_joules_total")
            assert total("tenant_grams_total") == total("product_request_grams_total")
            for _, unit in units:
                assert total("tenant_units_total", unit=unit) == total("product_units_total", unit=unit)
        else:
            assert not [name for name, has in exact if "_tenant_" in name and ("product_id", product_id) in has]
        received = sum(sum(one.receipt_counts) for one in own)
        assert total("product_receipt_joules_bucket", le="+Inf") == received == total("product_receipt_joules_count")


def test_a_histogram_counts_what_is_below_and_none_is_shown_without_receipts() -> None:
    counts = [0] * (len(BUCKETS_UJ) + 1)
    counts[0], counts[6], counts[-1] = 2, 3, 1
    one = dataclasses.replace(served("p"), receipt_counts=counts, receipt_sum_uj=1_234_567)
    exact = reading.samples(page_of([one, dataclasses.replace(served("none"), receipt_counts=())]).text())
    assert reading.label_values(exact, f"{HISTOGRAM}_count", "product_id") == {("p",)}
    below = {le: reading.total(exact, f"{HISTOGRAM}_bucket", le=le) for le in ("0.001", "0.3", "1.0", "100000.0")}
    assert below == {"0.001": 2, "0.3": 2, "1.0": 5, "100000.0": 5}
    assert reading.total(exact, f"{HISTOGRAM}_count") == 6
    assert reading.total(exact, f"{HISTOGRAM}_sum") == Decimal("1.234567")


def test_the_first_request_comes_after_a_zero() -> None:
    fresh = dataclasses.replace(served("p"), tenants={}, receipt_counts=[0] * (len(BUCKETS_UJ) + 1))
    page = reading.samples(page_of([fresh]).text())
    assert reading.label_values(page, "wattribute_product_units_total", "unit") == {("request",)}
    assert reading.label_values(page, "wattribute_product_request_grams_total", "term") == {(term,) for term in TERMS}
    assert reading.total(page, f"{HISTOGRAM}_bucket") == 0


def test_exemplars_are_shown_where_they_are_wanted_and_legal() -> None:
    one = served("p")
    wanted, unwanted = page_of([one], exemplars=True), page_of([one])
    found = exemplars_of(wanted)
    assert len(found) == len(BUCKETS_UJ)
    assert found["p", "1.0"] == ("request-6", 1.0, f"{NOW_NS // 10**9}.000000006")
    assert exemplars_of(unwanted) == {}
    assert wanted.text() == unwanted.text()
    forms: tuple[Format, ...] = ("text", "openmetrics")
    assert [b"request_id=" in wanted.page(form, compressed=False) for form in forms] == [False, True]


@pytest.mark.parametrize(
    ("request_id", "shown"),
    [
        ("x" * 118, True),
        ("x" * 119, False),
        ('a"b', False),
        ("a\\b", False),
        ("a\nb", False),
        ("a # {b} 100%é😀", True),
    ],
)
def test_an_exemplar_that_could_not_name_its_request_is_left_out(request_id: str, shown: bool) -> None:
    one = dataclasses.replace(served("p"), receipt_latest={3: (request_id, 5, 7)})
    assert list(exemplars_of(page_of([one], exemplars=True)).values()) == (
        [(request_id, 5e-6, "0.000000007")] if shown else []
    )


def test_without_served_requests_there_are_no_such_series() -> None:
    page = page_of([]).openmetrics().decode()
    assert not [metric.name for metric in REQUESTS if metric.family in page]


def test_what_of_an_epc_is_due_is_told_by_both_ways() -> None:
    page = PrometheusPage()
    page.publish(snapshot([], products=[product("p")]))
    exact = reading.samples(page.text())
    name = "wattribute_product_amortised_grams_total"
    assert {method: reading.total(exact, name, method=method) for method in ("time", "units")} == {
        "time": Decimal("1.000000001"),
        "units": Decimal("7e-9"),
    }


def grown(terms_g: Sequence[int], k: int) -> list[int]:
    return [(1 + k * g) * NG_PER_G for g in terms_g]


def after(k: int) -> ServedTotals:
    """A product after `k` equal spans: 10 requests each, 2,000 output tokens, and 1, 2 .. 7 grams by term."""
    grams = range(1, 8)
    one = TenantTotals(
        units={"request": (5 + 4 * k) * UNIT, "output_token": 1000 * k * UNIT},
        aborted=0,
        energy_uj=0,
        terms_ng=grown([0] * 7, k),
    )
    acme = dataclasses.replace(
        one, units={"request": 6 * k * UNIT, "output_token": 1000 * k * UNIT}, terms_ng=grown(grams, k)
    )
    counts = [0] * (len(BUCKETS_UJ) + 1)
    counts[6] = 100 * k
    return dataclasses.replace(
        served("p"),
        tenants={"": one, "acme": acme},
        idle_ng=grown(grams, k),
        stages={"prefill": (0, grown(grams, k)), "decode": (0, grown([1] * 7, k))},
        receipt_counts=counts,
    )


def test_the_documented_queries_give_the_numbers_expected(tmp_path: Path) -> None:
    p, acme = '{product_id="p"}', '{product_id="p",tenant="acme"}'
    expected: dict[str, dict[str, float]] = {
        "JSC^e of a request, grams": {p: (1 + 2 + 3 + 4) / 10},
        "ASC^e of a request, grams": {p: 28 / 10},
        "ASC^e of 1,000 output tokens, grams, idle time included": {p: (28 + 28) / 2},
        "ASC^e of 1,000 output tokens of each tenant, grams": {p: 0, acme: 28},
        "JSC of decoding 1,000 output tokens, grams": {p: (1 + 1) / 2},
        "What 95 of 100 requests with a receipt stay below, joules": {p: 0.3 + 0.95 * (1 - 0.3)},
    }
    assert expected.keys() == QUERIES.keys()
    lines = [page_of([after(k)]).text().decode().splitlines() for k in range(6)]
    scraped = [line.rpartition(" ")[0] for line in lines[0]]
    columns = zip(*[[line.rpartition(" ")[2] for line in page] for page in lines], strict=True)
    tests = [
        {
            "expr": f"abs(({QUERIES[what]}) - {value}) < bool 1e-9",
            "eval_time": "5m",
            "exp_samples": [{"labels": of, "value": int(other == value)} for of, other in values.items()],
        }
        for what, values in expected.items()
        for value in values.values()
    ]
    series = [
        {"series": name, "values": " ".join(str(float(value)) for value in column)}
        for name, column in zip(scraped, columns, strict=True)
        if name.startswith("wattribute_")
    ]
    rules = tmp_path / "served.json"
    rules.write_text(json.dumps({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]}))
    checked = subprocess.run(
        [require("promtool"), "test", "rules", rules], capture_output=True, text=True, timeout=30, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
