"""Bounds on the page: those of the receipt, as ratios, and as old as a minute while a job runs."""

from fractions import Fraction

import pytest
from tests.agent.test_node import bench, workers
from tests.doubles.node_bench import Bench, S, Worker

from wattribute.agent import bound_ratios
from wattribute.agent.core.claims import Entry
from wattribute.agent.core.model import TERM_SLOT, Job
from wattribute.agent.ledger.batch import pack
from wattribute.agent.live import LiveJob
from wattribute.agent.view import Row, View

__all__ = ["bench", "workers"]  # fixtures

PRODUCTS = """
[export]
hold_s = 30
[carbon]
pue = 1.2
[[product]]
id = "known"
scope = "node"
epc_kgco2e = 1000
epc_kgco2e_low = 500
epc_kgco2e_high = 3000
lifetime_years = 3
[[product]]
id = "unknown"
scope = "node"
lifetime_years = 3
"""
NAME = "wattribute_job_bound_ratio"


def ratios(bench: Bench, job_id: str) -> dict[tuple[str, str], Fraction]:
    return {
        (labels["sum"], labels["end"]): Fraction(value)
        for name, labels, value in bench.page()
        if name == NAME and labels["job_id"] == job_id
    }


def told(bench: Bench, job_id: str) -> dict[tuple[str, str], float]:
    """The same from the receipt."""
    receipt = bench.receipt(job_id)
    return {
        (name, end): grams / receipt["gco2e"][name]
        for name in ("jsce", "asce")
        if receipt["bounds"][name] is not None
        for end, grams in zip(("low", "high"), receipt["bounds"][name], strict=True)
    }


def test_they_are_the_receipts(bench: Bench, workers: list[Worker]) -> None:
    bench.open(PRODUCTS)
    bench.tick()
    for job_id, worker in (("known", workers[0]), ("unknown", workers[1])):
        bench.start(job_id, worker.pid, product_id=job_id)
        worker.burn()
    bench.tick()
    bench.tick()
    assert ratios(bench, "known") == pytest.approx(told(bench, "known"), abs=2e-6)
    assert len(ratios(bench, "known")) == 4
    assert set(ratios(bench, "unknown")) == {("jsce", "low"), ("jsce", "high")}  # its EPC is missing
    bench.end("known", workers[0].pid)
    bench.tick()
    bench.tick()
    assert ratios(bench, "known") == pytest.approx(told(bench, "known"), abs=2e-6)
    bench.tick(40)
    assert ratios(bench, "known") == {}  # it has left the page


def test_no_page_works_out_too_many(bench: Bench, workers: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound_ratios, "AT_ONCE", 1)
    bench.open(PRODUCTS)
    for job_id, worker in zip("ab", workers, strict=False):
        bench.start(job_id, worker.pid)
        worker.burn()
    known = []
    for _ in range(3):
        bench.tick()
        known.append(len({labels["job_id"] for name, labels, _ in bench.page() if name == NAME}))
    assert known == [1, 2, 2]


@pytest.mark.parametrize("blurred", ["round_j = 1", "export_age_s = 1"])
def test_a_page_that_hides_totals_has_none(bench: Bench, workers: list[Worker], blurred: str) -> None:
    """With the hardware's grams, which are exact, a ratio would tell those of the energy."""
    bench.open(f"[export]\n{blurred}\n")
    bench.start("a", workers[0].pid)
    workers[0].burn()
    for _ in range(4):
        bench.tick()
    page = bench.page(whole=False)
    assert any(labels.get("job_id") == "a" for _, labels, _ in page)
    assert not any(name == NAME for name, _, _ in page)


def test_what_is_booked_after_the_end_counts_too() -> None:
    """A closing reading that is late finds a job that is on the page as ended, with nothing."""
    entry = Entry(Job(id="brief"), 0, ended_ns=S)
    live = LiveJob(entry, 0)
    bands = {"pue": ["1", "1"], "hardware": ["1/2", "2"]}
    about = {"bands": bands, "products": {}}
    known = bound_ratios.BoundRatios()

    def at(second: int) -> object:
        view = View(at_ns=second * S, rows={"brief": Row.of(live, pack(entry.values))})
        return known.of({"brief": live}, view, about).get("brief", {})

    assert not live.running
    assert at(1) == {}
    entry.values[TERM_SLOT["hardware"]] = 1000
    assert at(2) == {}
    assert at(62) == {("asce", "low"): 500_000, ("asce", "high"): 2_000_000}
    entry.values[TERM_SLOT["operation"]] = 1000
    assert at(200) == at(62)  # it was the last time
