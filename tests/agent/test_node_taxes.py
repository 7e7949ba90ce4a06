"""Taxes on a node with a real ledger: those that fall due late, and those of jobs that a reboot ended."""

from decimal import Decimal
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from tests.agent.test_node import bench, workers
from tests.doubles.node_bench import Bench, S, Worker
from tests.e2e.running import total

from wattribute.agent.cli import main
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.reader import Reader
from wattribute.agent.ledger.store import Store

__all__ = ["bench", "workers"]  # fixtures

MODEL = """
[export]
hold_s = 5
[[product]]
id = "model"
scope = "node"
retraining_interval_days = 0.01
"""
INTERVAL_S = 864
JOB_GRAMS, BILLED = "wattribute_job_co2e_grams_total", "wattribute_product_billed_grams_total"
UNTAXED = "wattribute_product_untaxed_grams_total"


def retrain(bench: Bench, worker: Worker) -> None:
    """Some of an interval that has just begun, and somebody who uses the model meanwhile."""
    bench.tick((INTERVAL_S * S - bench.clock.unix_ns % (INTERVAL_S * S)) / S)
    bench.start("retraining", worker.pid, product_id="model", role="retraining")
    for _ in range(3):
        worker.burn()
        bench.tick()
    bench.end("retraining", worker.pid)


def test_a_job_that_a_reboot_ended_was_served(bench: Bench, workers: list[Worker]) -> None:
    bench.open(MODEL)
    bench.tick()
    retrain(bench, workers[0])
    bench.start("cut-off", workers[1].pid, product_id="model")
    bench.tick()
    bench.reboot()
    assert bench.receipt("cut-off")["ended_at"] is not None
    assert not bench.receipt("cut-off")["settled"]
    bench.tick(INTERVAL_S)
    page = bench.page()
    grams = total(page, BILLED, term="retraining")
    assert grams > 0 == total(page, UNTAXED, term="retraining")
    (tax,) = [tax for tax in bench.receipt("cut-off")["taxes"] if tax["term"] == "retraining"]
    assert tax["gco2e"] == pytest.approx(float(grams), abs=1e-9)
    assert bench.receipt("cut-off")["settled"]


def test_a_late_tax_while_the_disk_is_full_is_in_the_receipt_once(bench: Bench, workers: list[Worker]) -> None:
    """Of a job that has left the page, that comes back before the ledger knows, and again after."""
    bench.open(MODEL)
    bench.tick()
    retrain(bench, workers[0])
    bench.start("used", workers[1].pid, product_id="model")
    bench.end("used", workers[1].pid)
    with patch.object(Store, "apply", side_effect=LedgerError("full")):
        for seconds in (20, 20, INTERVAL_S, 1):
            bench.tick(seconds)
        assert "used" not in bench.node.registry.jobs
        early = bench.receipt("used")
        bench.start("used", workers[1].pid, product_id="model")
        back = bench.receipt("used")
    for _ in range(20):
        bench.tick(0.1)
        bench.node.flush()
    bench.end("used", workers[1].pid)
    for seconds in (20, 20, INTERVAL_S, 1):
        bench.tick(seconds)
    page = bench.page()
    grams = float(total(page, BILLED, term="retraining"))
    assert grams == float(total(page, JOB_GRAMS, term="retraining")) > 0
    for receipt in (early, back, bench.receipt("used")):
        assert receipt["gco2e"]["retraining"] == pytest.approx(grams, abs=1e-9)
        assert receipt["revision"] == 2


def test_a_late_tax_of_a_job_that_cannot_be_read_stays_on_the_page(bench: Bench, workers: list[Worker]) -> None:
    bench.open(MODEL)
    bench.tick()
    retrain(bench, workers[0])
    bench.start("used", workers[1].pid, product_id="model")
    bench.end("used", workers[1].pid)
    for seconds in (20, 20):
        bench.tick(seconds)
    bench.node.flush()
    with patch.object(Reader, "job", side_effect=LedgerError("not a database")):
        bench.tick(INTERVAL_S)
    page = bench.page()
    assert total(page, JOB_GRAMS, term="retraining") == total(page, BILLED, term="retraining") > 0


def test_an_absurd_rate_stops_nobody(bench: Bench, workers: list[Worker]) -> None:
    """Its job owes no more than a ledger can hold, nor is more untaxed; what else runs is billed as ever."""
    rate = "scope = 'node'\noverhead_g_per_min = 1e18\n"
    sane = "[[product]]\nid = 'sane'\nscope = 'node'\noverhead_g_per_min = 60\n"
    bench.open(f"[export]\nhold_s = 5\n{sane}[[product]]\nid = 'absurd'\n{rate}")
    bench.tick()
    bench.start("a", workers[0].pid, product_id="absurd", uses=("sane",))
    for _ in range(3):
        bench.tick(100)
    page = bench.page()
    assert total(page, BILLED, product_id="sane") == total(page, JOB_GRAMS, term="platform", job_id="a") > 300
    assert total(page, BILLED, product_id="absurd") == 0 < total(page, UNTAXED, product_id="absurd")
    bench.restart()
    bench.end("a", workers[0].pid)
    for seconds in (20, 20, 300):
        bench.tick(seconds)
    bench.page()


PLATFORM_OF_MODEL = """
[[product]]
id = "iks"
kind = "platform"
scope = "node"
[[product]]
id = "model"
scope = "node"
runs_on = ["iks"]
"""


def test_a_page_says_by_what_weight_each_job_pays_whom_while_it_runs(bench: Bench, workers: list[Worker]) -> None:
    bench.open(PLATFORM_OF_MODEL)
    bench.start("serve", workers[0].pid, product_id="model", nodes=4)
    bench.start("plat", workers[1].pid, product_id="iks", role="platform")
    bench.start("tag", workers[2].pid, product_id="undeclared")
    bench.tick()
    weights = [sample for sample in bench.page() if sample.name == "wattribute_job_weight"]
    assert {(one.labels["job_id"], one.labels["product_id"]): one.value for one in weights} == {
        ("serve", "model"): Decimal("0.25"),
        ("serve", "iks"): Decimal("0.25"),
    }
    bench.end("serve", workers[0].pid)
    bench.tick()
    assert "wattribute_job_weight" not in {sample.name for sample in bench.page()}


def test_a_declared_concurrency_stands_for_a_fleet_that_nobody_counts(
    bench: Bench, workers: list[Worker], tmp_path: Path
) -> None:
    """50 g/min over 10 users on all nodes, of whom one is here: of the registry's product as of the configuration's."""
    bench.open("[[product]]\nid = 'iks'\nscope = 'fleet'\noverhead_g_per_min = 50\nconcurrency = 10\n")
    words = "product add eks --scope fleet --overhead-g-per-min 50 --concurrency 10 --config"
    added = CliRunner().invoke(main, [*words.split(), str(tmp_path / "wattribute.toml")])
    assert added.exit_code == 0, added.output
    bench.hear()
    bench.tick()
    bench.start("a", workers[0].pid, uses=("iks", "eks"))
    bench.tick(300)
    page = bench.page()
    for product in ("iks", "eks"):
        assert 25 <= total(page, BILLED, product_id=product, term="platform") < Decimal("25.01")
        assert total(page, UNTAXED, product_id=product, term="platform") == 0
