"""The page: exact, consistent, never broken by a name, and rendered once per snapshot and variant."""

import dataclasses
import gzip
import subprocess
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.exporters import reading
from tests.exporters.snapshots import DEVICES, NOW_NS, jobs, product, served, snapshot, source, totals
from tests.tools import require

from wattribute.agent.core.model import (
    SHARE_KINDS,
    SLOTS,
    TERM_SLOT,
    TERMS,
    Job,
    JobTotals,
    Role,
    Snapshot,
    energy_slot,
)
from wattribute.agent.core.units import NG_PER_G, UJ_PER_J
from wattribute.exporters.batch import LABEL_CHARACTERS, cleaned
from wattribute.exporters.metrics import METRIC, METRICS
from wattribute.exporters.prometheus import PrometheusPage

anything = st.text(st.characters(), max_size=40)  # lone surrogates and control characters too
awkward = st.text(st.sampled_from('\\"\n\r\t{}=, %#\x00\x85\u2028\ud800é😀ax'), max_size=12)
names = st.one_of(anything, awkward)


def page_of(shown: Snapshot) -> PrometheusPage:
    page = PrometheusPage()
    page.publish(shown)
    return page


@pytest.fixture(scope="module")
def shown() -> Snapshot:
    folded = [
        totals(Job(id="_retired", product_id=f"product-{i}", role="use"), seed=90 + i, info=False) for i in range(2)
    ]
    of_requests = [served("product-0"), served("product-1", tenants=[""], seed=2)]
    return snapshot([*jobs(12), *folded, totals(Job(id="_overflow"), seed=99, info=False)], served=of_requests)


@pytest.fixture(scope="module")
def page(shown: Snapshot) -> dict[reading.Sample, Decimal]:
    return reading.samples(page_of(shown).text())


def test_joules_of_jobs_and_unattributed_are_the_nodes(page: dict[reading.Sample, Decimal]) -> None:
    for domain in ("cpu", "dram", "gpu"):
        of_jobs = reading.total(page, "wattribute_job_energy_joules_total", domain=domain)
        unattributed = reading.total(page, "wattribute_node_unattributed_joules_total", domain=domain)
        assert of_jobs > 0
        assert of_jobs + unattributed == reading.total(page, "wattribute_node_energy_joules_total", domain=domain)


def test_grams_of_jobs_and_unattributed_are_the_nodes(page: dict[reading.Sample, Decimal]) -> None:
    for term in ("operation", "cooling", "hardware"):
        of_jobs = reading.total(page, "wattribute_job_co2e_grams_total", term=term)
        unattributed = reading.total(page, "wattribute_node_unattributed_grams_total", term=term)
        assert of_jobs + unattributed == reading.total(page, "wattribute_node_co2e_grams_total", term=term)


def test_billed_and_untaxed_are_the_overhead(page: dict[reading.Sample, Decimal]) -> None:
    payees = reading.label_values(page, "wattribute_product_overhead_grams_total", "product_id", "term")
    assert len(payees) == 5 * 4  # product-0 .. product-3 and default
    for product_id, term in payees:
        billed, untaxed, overhead = (
            reading.total(page, f"wattribute_product_{part}_grams_total", product_id=product_id, term=term)
            for part in ("billed", "untaxed", "overhead")
        )
        assert billed + untaxed == overhead


def test_terms_of_a_job_make_its_four_costs(page: dict[reading.Sample, Decimal]) -> None:
    series = reading.label_values(page, "wattribute_job_jsc_grams_total", "job_id", "product_id", "role")
    assert len(series) == 15
    for job_id, product_id, role in series:
        job = {"job_id": job_id, "product_id": product_id, "role": role}
        grams = {term: reading.total(page, "wattribute_job_co2e_grams_total", **job, term=term) for term in TERMS}
        jsc, jsce, asc, asce = (
            reading.total(page, f"wattribute_job_{cost}_grams_total", **job) for cost in ("jsc", "jsce", "asc", "asce")
        )
        assert jsc == grams["operation"] + grams["cooling"]
        assert jsce == jsc + grams["platform"] + grams["retraining"]
        assert asc == jsc + grams["hardware"]
        assert asce == jsce + grams["hardware"] + grams["overhead_hardware"] + grams["product"]


def test_a_product_is_the_sum_over_its_jobs(page: dict[reading.Sample, Decimal]) -> None:
    for what, part in (("energy_joules", "domain"), ("co2e_grams", "term")):
        of_products = reading.label_values(page, f"wattribute_product_{what}_total", "product_id", "role", part)
        assert of_products
        for product_id, role, value in of_products:
            labels = {"product_id": product_id, "role": role, part: value}
            assert reading.total(page, f"wattribute_product_{what}_total", **labels) == reading.total(
                page, f"wattribute_job_{what}_total", **labels
            )


def test_values_are_the_snapshots_own_integers(shown: Snapshot, page: dict[reading.Sample, Decimal]) -> None:
    totals_ = shown.jobs[0]
    assert (
        reading.total(
            page, "wattribute_job_energy_joules_total", job_id="job-0", domain="cpu", share="idle", quality="measured"
        )
        == Decimal(totals_.values[energy_slot("cpu", "idle", "measured")]) / UJ_PER_J
    )
    assert (
        reading.total(page, "wattribute_job_co2e_grams_total", job_id="job-0", term="product")
        == Decimal(totals_.values[TERM_SLOT["product"]]) / NG_PER_G
    )
    started = reading.total(page, "wattribute_job_start_time_seconds", job_id="job-1")
    assert started == Decimal(shown.jobs[1].job.started_unix_ns) / 10**9
    assert reading.total(page, "wattribute_product_weight_seconds_total", product_id="product-0") == Decimal(
        "123.456789012345678"
    )
    assert reading.total(page, "wattribute_ledger_created_timestamp_seconds") == Decimal(NOW_NS - 1_234_567_891) / 10**9


def test_every_metric_of_the_table_is_on_a_full_page_with_its_labels(shown: Snapshot) -> None:
    full = dataclasses.replace(shown, products=[product("product-0", epc_own_ng=7)])
    page = reading.samples(page_of(full).text())
    labels = {name: tuple(sorted(label for label, _ in has)) for name, has in page}
    expected: dict[str, tuple[str, ...]] = {}
    for metric in METRICS:
        usual = tuple(sorted(metric.labels))
        if metric.type == "histogram":
            bucket = tuple(sorted((*metric.labels, "le")))
            expected |= {f"{metric.name}_bucket": bucket, f"{metric.name}_count": usual, f"{metric.name}_sum": usual}
        else:
            expected[metric.name] = usual
    assert labels == expected


def test_families_come_in_the_order_of_the_table(shown: Snapshot) -> None:
    typed = [line.split()[2] for line in page_of(shown).text().decode().split("\n") if line.startswith("# TYPE")]
    assert typed == [metric.name for metric in METRICS if metric.name in typed]


def test_a_folded_job_has_counters_alone(page: dict[reading.Sample, Decimal]) -> None:
    folded = {name for name, has in page if dict(has).get("job_id", "").startswith("_")}
    assert folded == {
        metric.name for metric in METRICS if metric.name.startswith("wattribute_job_") and metric.type == "counter"
    }
    assert ("job-0",) in reading.label_values(page, "wattribute_job_info", "job_id")


def test_the_end_shows_only_once_there_is_one(page: dict[reading.Sample, Decimal]) -> None:
    ended = reading.label_values(page, "wattribute_job_end_time_seconds", "job_id")
    assert ended == {("job-0",), ("job-3",), ("job-6",), ("job-9",)}
    for (job_id,) in reading.label_values(page, "wattribute_job_running", "job_id"):
        assert reading.total(page, "wattribute_job_running", job_id=job_id) == (0 if (job_id,) in ended else 1)


def test_energy_series_start_at_zero_in_what_the_node_measures() -> None:
    page = reading.samples(page_of(snapshot([JobTotals(job=Job(id="new"), values=[0] * SLOTS)])).text())
    series = reading.label_values(page, "wattribute_job_energy_joules_total", "domain", "share", "quality")
    assert series == {(kind, share, quality) for kind, _, quality in DEVICES for share in SHARE_KINDS}
    assert reading.total(page, "wattribute_job_energy_joules_total") == 0


def test_where_no_energy_is_known_neither_is_what_it_costs() -> None:
    values = [0] * SLOTS
    values[TERM_SLOT["hardware"]] = 7
    none: dict[str, object] = {"node_energy_uj": {}, "unattributed_uj": {}, "attribution": {}}
    page = reading.samples(page_of(snapshot([JobTotals(job=Job(id="a"), values=values)], **none)).text())  # type: ignore[arg-type]
    for family in ("job", "product", "node"):
        (terms,) = zip(*reading.label_values(page, f"wattribute_{family}_co2e_grams_total", "term"), strict=True)
        assert "hardware" in terms
        assert not {"operation", "cooling"} & set(terms)
    reasons = reading.label_values(page, "wattribute_node_unattributed_grams_total", "term")
    assert reasons == {("hardware",)}
    assert reading.total(page, "wattribute_job_co2e_grams_total", job_id="a") == Decimal("7e-9")
    names = {name for name, _ in page}
    assert not names & {f"wattribute_job_{part}_grams_total" for part in ("jsc", "jsce", "asc", "asce")}


def test_joules_of_a_quality_that_the_node_lost_stay() -> None:
    kept = totals(Job(id="kept"))
    values = list(kept.values)
    values[energy_slot("cpu", "direct", "modelled")] = 7
    page = reading.samples(page_of(snapshot([dataclasses.replace(kept, values=values)])).text())
    assert reading.total(page, "wattribute_job_energy_joules_total", domain="cpu", quality="modelled") == Decimal(
        "7e-6"
    )


def test_psys_is_never_among_what_is_summed() -> None:
    shown = snapshot(jobs(1))
    shown = dataclasses.replace(shown, node_energy_uj={**shown.node_energy_uj, ("psys", "psys", "measured"): 10**9})
    assert b"psys" not in page_of(shown).text()


def test_an_undeclared_product_is_a_tag_without_taxes() -> None:
    tag = dataclasses.replace(
        product("tag", kind="undeclared"), billed_ng={}, untaxed_ng={}, epc_inherited_ng=None, amortised_ng={}
    )
    page = reading.samples(page_of(snapshot([], products=[tag])).text())
    assert {name for name, has in page if ("product_id", "tag") in has} == {
        "wattribute_product_info",
        "wattribute_product_running_jobs",
        "wattribute_product_jobs_total",
        "wattribute_product_weight_seconds_total",
    }


def test_a_missing_epc_says_so_and_has_no_number() -> None:
    page = reading.samples(page_of(snapshot([], products=[product("p")])).text())
    assert reading.label_values(page, "wattribute_product_epc_grams", "part") == {("inherited",)}
    assert reading.total(page, "wattribute_product_epc_missing", part="own") == 1
    assert reading.total(page, "wattribute_product_epc_missing", part="inherited") == 0


def test_what_is_not_a_number_is_left_out() -> None:
    shown = dataclasses.replace(snapshot([]), pue=float("nan"))
    assert b"wattribute_pue_ratio" not in page_of(shown).text()


def test_jobs_with_the_same_labels_are_one_series_and_nothing_is_lost() -> None:
    one, other = totals(Job(id="a\x01"), seed=1), totals(Job(id="a\x02"), seed=2)
    page = reading.samples(page_of(snapshot([one, other])).text())
    slot = TERM_SLOT["operation"]
    assert reading.total(page, "wattribute_job_co2e_grams_total", term="operation") == (
        Decimal(one.values[slot] + other.values[slot]) / NG_PER_G
    )


def test_one_id_with_two_products_is_shown_once_and_counted_twice() -> None:
    page = reading.samples(page_of(snapshot([totals(Job(id="a", product_id=p)) for p in ("p", "q")])).text())
    assert reading.label_values(page, "wattribute_job_info", "job_id", "product_id") == {("a", "p")}
    assert reading.label_values(page, "wattribute_job_cpu_seconds_total", "product_id") == {("p",), ("q",)}


@given(values=st.lists(names, max_size=4))
def test_cleaned_labels_hold_nothing_that_breaks_a_page(values: list[str]) -> None:
    once = cleaned(tuple(values))
    assert cleaned(once) == once
    for value in once:
        value.encode()
        assert len(value.replace("\n", "").splitlines()) <= 1
    for before, after in zip(values, once, strict=True):
        if before.isprintable() and len(before) <= LABEL_CHARACTERS:
            assert after == before


@settings(deadline=None)
@given(
    ids=st.lists(names, min_size=1, max_size=3),
    text=names,
    role=st.sampled_from(["use", "platform"]),
    device=names,
    number=st.integers(0, 2**80),
)
def test_no_name_breaks_a_page_and_all_come_back_as_they_were(
    ids: list[str], text: str, role: Role, device: str, number: int
) -> None:
    named = [
        dataclasses.replace(
            totals(
                Job(id=id_, product_id=text, role=role, phase=text, user=text, parent_job_id=text), scale=number + 1
            ),
            gpus=(device, text),
        )
        for id_ in ids
    ]
    shown = dataclasses.replace(
        snapshot(named, products=[product(text), product(device)]),
        sources=[source(text), source(device)],
        node_energy_uj={("cpu", device, "measured"): number, ("cpu", text, "integrated"): 1},
        version=text,
        registry_hash=device,
    )
    page = page_of(shown)
    exact = reading.samples(page.text())
    text_families = reading.families(page.text())
    assert reading.floats(text_families) == {series: float(value) for series, value in exact.items()}
    assert reading.floats(reading.families(page.openmetrics(), is_openmetrics=True)) == reading.floats(text_families)
    assert reading.label_values(exact, "wattribute_job_info", "job_id") == {cleaned((id_,)) for id_ in ids}
    assert reading.label_values(exact, "wattribute_registry_info", "hash") == {cleaned((device,))}
    assert reading.total(exact, "wattribute_node_energy_joules_total") * UJ_PER_J == number + 1


def test_a_label_of_ten_thousand_characters_is_cut() -> None:
    page = page_of(snapshot([totals(Job(id="x" * 10_000))])).text()
    assert max(map(len, page.split(b"\n"))) < 2 * LABEL_CHARACTERS + 200


def test_both_formats_have_types_help_and_the_same_samples(shown: Snapshot) -> None:
    page = page_of(shown)
    text, open_ = reading.families(page.text()), reading.families(page.openmetrics(), is_openmetrics=True)
    assert reading.floats(text) == reading.floats(open_)
    for families in (text, open_):
        for family in families.values():
            metric = METRIC.get(family.name) or METRIC[f"{family.name}_total"]
            assert (family.type, family.documentation) == (metric.type, metric.help)
    for family in open_.values():
        metric = METRIC.get(family.name) or METRIC[f"{family.name}_total"]
        assert family.unit == metric.unit
    assert page.openmetrics().endswith(b"\n# EOF\n")


def test_gzip_holds_the_same_page(shown: Snapshot) -> None:
    page = page_of(shown)
    assert gzip.decompress(page.text(compressed=True)) == page.text()
    assert gzip.decompress(page.openmetrics(compressed=True)) == page.openmetrics()


def test_a_variant_is_rendered_once_per_snapshot(shown: Snapshot) -> None:
    page = page_of(shown)
    once = page.text(compressed=True)
    assert page.text(compressed=True) is once
    page.publish(shown)
    assert page.text(compressed=True) is not once
    assert page.text(compressed=True) == once


def test_what_left_the_page_is_not_kept(shown: Snapshot) -> None:
    page = page_of(shown)
    page.text()
    page.publish(dataclasses.replace(shown, jobs=shown.jobs[:1], bounds_ppm={}))
    assert b'job_id="job-1"' not in page.text()
    assert len(page._templates["wattribute_job_info"]) == 1
    page.close()


def test_labels_that_change_are_seen_at_once(shown: Snapshot) -> None:
    page = page_of(shown)
    page.text()
    job = dataclasses.replace(shown.jobs[0].job, ended_unix_ns=NOW_NS, phase="changed")
    page.publish(dataclasses.replace(shown, jobs=[dataclasses.replace(shown.jobs[0], job=job), *shown.jobs[1:]]))
    assert page.text() == page_of(page.snapshot or shown).text()
    assert b'phase="changed"' in page.text()


def test_before_the_first_snapshot_the_page_is_empty() -> None:
    page = PrometheusPage()
    assert page.snapshot is None
    assert (page.text(), page.openmetrics()) == (b"", b"# EOF\n")


def test_a_node_without_jobs_sources_or_sensors_has_a_legal_page() -> None:
    bare = dataclasses.replace(
        snapshot([], products=[]),
        sources=[],
        node_energy_uj={},
        unattributed_uj={},
        node_co2e_ng={},
        unattributed_ng={},
    )
    page = page_of(bare)
    assert reading.floats(reading.families(page.text())) == reading.floats(
        reading.families(page.openmetrics(), is_openmetrics=True)
    )
    assert b"wattribute_job_" not in page.text()


def promtool_says(page: bytes) -> tuple[int, list[str]]:
    checked = subprocess.run(
        [require("promtool"), "check", "metrics"], input=page, capture_output=True, timeout=30, check=False
    )
    return checked.returncode, (checked.stdout + checked.stderr).decode().splitlines()


def test_promtool_finds_nothing_to_say(shown: Snapshot) -> None:
    quiet = [dataclasses.replace(one, wraps=0, resets=0) for one in shown.sources]
    assert promtool_says(page_of(dataclasses.replace(shown, sources=quiet)).text()) == (0, [])


def test_promtool_dislikes_but_takes_the_names_of_wraps_and_resets(shown: Snapshot) -> None:
    _, lines = promtool_says(page_of(shown).text())
    assert sorted(line.split()[0] for line in lines) == [
        "wattribute_counter_resets_total",
        "wattribute_counter_wraps_total",
    ]
    assert all("should not include type 'counter'" in line for line in lines)


def test_a_correction_can_be_negative_and_is_exact(page: dict[reading.Sample, Decimal]) -> None:
    name = "wattribute_product_correction_grams"
    assert reading.total(page, name, product_id="bert-base", term="operation") == Decimal("-1.500000007")
    assert reading.total(page, name, product_id="", term="cooling") == Decimal("3e-9")
