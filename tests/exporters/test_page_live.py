"""`/live.json` says what `/metrics` says, to the last digit, and stays small whatever there is."""

import dataclasses
import gzip
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.e2e.running import Sample, parse, total
from tests.exporters.snapshots import jobs, product, served, snapshot, totals

from wattribute.agent.core.model import Job, Snapshot
from wattribute.exporters.live import JOBS, PRODUCTS, LivePage
from wattribute.exporters.messages import RequestHead, Response
from wattribute.exporters.prometheus import PrometheusPage

UJ, NG = Decimal("1e-6"), Decimal("1e-9")


def ask(page: LivePage, shown: Snapshot | None, problem: str = "", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return page.answer(RequestHead("GET", "/live.json", "", named, True), shown, problem)


def live(shown: Snapshot) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(LivePage(1.0), shown).body)
    return found


def metrics(shown: Snapshot) -> list[Sample]:
    page = PrometheusPage()
    page.publish(shown)
    return parse(page.text().decode())


def energies(of: Iterable[dict[str, Any]], domain: str) -> Decimal:
    return sum(sum(one["energy_uj"].get(domain, ())) for one in of) * UJ


def full_house() -> Snapshot:
    """More jobs than are shown, and what was folded."""
    folded = [totals(Job(id=name, product_id="product-1"), info=False) for name in ("_retired", "_overflow")]
    return snapshot([*jobs(JOBS + 50), *folded], served=[served("product-2")])


def test_what_is_shown_and_the_sums_of_the_rest_are_the_page_of_metrics() -> None:
    shown = full_house()
    document, samples = live(shown), metrics(shown)
    assert len(document["jobs"]) == document["sums"]["shown"]["count"] == JOBS
    assert document["sums"]["others"]["count"] == 50
    for domain in ("cpu", "dram", "gpu"):
        of_jobs = total(samples, "wattribute_job_energy_joules_total", domain=domain)
        assert energies(document["sums"].values(), domain) == of_jobs
        assert energies(document["products"], domain) == of_jobs
        assert energies(document["jobs"], domain) == energies([document["sums"]["shown"]], domain)
        node_uj, nobody_uj = document["node"]["energy_uj"][domain], document["node"]["unattributed_uj"][domain]
        assert sum(node_uj.values()) * UJ == of_jobs + sum(nobody_uj.values()) * UJ
        assert sum(node_uj.values()) * UJ == total(samples, "wattribute_node_energy_joules_total", domain=domain)
    for place, term in enumerate(document["terms"]):
        of_jobs = total(samples, "wattribute_job_co2e_grams_total", term=term)
        assert sum(of["terms_ng"][place] for of in document["sums"].values()) * NG == of_jobs
        assert sum(of["terms_ng"][place] for of in document["products"]) * NG == of_jobs
    for fold in ("_retired", "_overflow"):
        of_fold = total(samples, "wattribute_job_energy_joules_total", job_id=fold)
        assert sum(sum(uj) for uj in document["sums"][fold]["energy_uj"].values()) * UJ == of_fold > 0


def test_a_job_and_a_product_have_their_own_figures() -> None:
    shown = snapshot(jobs(6), served=[served("product-2")])
    document, samples = live(shown), metrics(shown)
    for job in document["jobs"]:
        for place, share in enumerate(document["shares"]):
            told = sum(parts[place] for parts in job["energy_uj"].values()) * UJ
            assert told == total(samples, "wattribute_job_energy_joules_total", job_id=job["id"], share=share)
        for place, quality in enumerate(document["qualities"]):
            of_quality = total(samples, "wattribute_job_energy_joules_total", job_id=job["id"], quality=quality)
            assert job["quality_uj"][place] * UJ == of_quality
    (llama,) = [one for one in document["products"] if one["id"] == "product-2"]
    name = {"product_id": "product-2"}
    requests = total(samples, "wattribute_product_units_total", unit="request", **name)
    assert llama["served"]["units_micro"]["request"] * UJ == requests
    assert llama["served"]["energy_uj"] * UJ == total(samples, "wattribute_product_request_joules_total", **name)
    assert llama["served"]["idle_uj"] * UJ == total(samples, "wattribute_product_idle_joules_total", **name)
    assert llama["epc_own_ng"] is None  # not known, and not 0
    assert sum(llama["billed_ng"].values()) * NG == total(samples, "wattribute_product_billed_grams_total", **name)


def test_of_many_jobs_the_busy_ones_are_shown() -> None:
    page = LivePage(1.0)
    many = jobs(3 * JOBS)
    ask(page, snapshot(many))
    late = [
        dataclasses.replace(t, values=[2 * v for v in t.values]) if t.running and i > 2 * JOBS else t
        for i, t in enumerate(many)
    ]
    document = json.loads(ask(page, snapshot(late)).body)
    busy = {t.job.id for i, t in enumerate(many) if t.running and i > 2 * JOBS}
    assert busy <= {job["id"] for job in document["jobs"]}
    assert all(job["running"] for job in document["jobs"])


def test_it_stays_small() -> None:
    names = [f"{i:0128d}" for i in range(5 * PRODUCTS)]
    crowd = [totals(Job(id=name, product_id=name, user=name, phase=name), seed=i) for i, name in enumerate(names)]
    declared = product("mine")
    undeclared = [product(name, kind="undeclared") for name in names]
    response = ask(LivePage(1.0), snapshot(crowd, products=[*undeclared, declared]))
    document = json.loads(response.body)
    assert (len(document["jobs"]), len(document["products"]), document["products_left_out"]) == (JOBS, PRODUCTS, 401)
    assert document["products"][0]["id"] == "mine"
    assert len(response.body) < 400_000


def test_it_is_made_once_for_each_snapshot_and_packed_once() -> None:
    page, shown = LivePage(0.5), snapshot(jobs(3))
    plain, packed = ask(page, shown), ask(page, shown, accept_encoding="gzip")
    assert plain.body is ask(page, shown).body
    assert packed.body is ask(page, shown, accept_encoding="gzip").body
    assert gzip.decompress(packed.body) == plain.body
    assert json.loads(plain.body)["interval_s"] == 0.5
    assert json.loads(ask(page, shown, "disk full").body)["problem"] == "disk full"
    assert ask(page, snapshot(jobs(4))).body != plain.body


def test_before_the_first_snapshot_it_is_not_there() -> None:
    assert ask(LivePage(1.0), None).status == 503


@given(st.text(st.characters(), max_size=20))
def test_no_name_breaks_it(name: str) -> None:
    job = Job(id=name, product_id=name, phase=name, user=name, parent_job_id=name)
    shown = snapshot([totals(job)], products=[product(name)], served=[served(name)], node_id=name)
    document = live(shown)
    assert len(document["jobs"]) == 1
    assert document["jobs"][0]["id"] == document["products"][0]["id"]
