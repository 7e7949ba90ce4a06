"""A platform that is paid by requests, on a whole node with its ledger: jobs that end, and agents that are killed."""

import sys
from pathlib import Path

import pytest
from tests.doubles.metered_bench import MeteredBench
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import total

from wattribute.agent.ledger.reader import read_only

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

PRODUCTS = """
[[product]]
id = "gateway"
scope = "node"
overhead_g_per_min = 60
tax_by = "units"
[[product]]
id = "llm"
runs_on = ["gateway"]
"""
BILLED, UNTAXED = "wattribute_product_billed_grams_total", "wattribute_product_untaxed_grams_total"


def grams(bench: MeteredBench, job_id: str) -> float:
    return sum(float(tax["gco2e"]) for tax in bench.receipt(job_id)["taxes"] if tax["product_id"] == "gateway")


def test_a_platform_is_paid_by_requests_over_ends_and_restarts(tmp_path: Path) -> None:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        bench = MeteredBench(tmp_path, tree.add_package())
        bench.open(PRODUCTS)
        bench.tick()
        busy, busy_meter = bench.serving("busy", "llm")
        calm, calm_meter = bench.serving("calm", "llm")
        for _ in range(4):
            bench.sim.burn(busy, 500)
            busy_meter.serve(a=3).report(0.5)
            calm_meter.serve(a=1).report(0.5)
            bench.tick()
        before = grams(bench, "busy"), grams(bench, "calm")
        assert before[0] == pytest.approx(3 * before[1], abs=1e-8)
        assert sum(before) == pytest.approx(4.2)  # a gram a second, from when the first of them began
        # The agent is killed while what both owe waits for the other's report.
        busy_meter.serve(a=3).report(0.5)
        bench.tick(2)
        bench.kill()
        bench.open()
        bench.end("busy", busy.pid)
        bench.tick(2)
        assert not bench.receipt("busy")["settled"]
        calm_meter.serve(a=1).report(0.5)
        bench.tick()
        bench.tick(61)  # nothing more is told of the last window
        owed = grams(bench, "busy") - before[0], grams(bench, "calm") - before[1]
        assert owed[0] == pytest.approx(3 * owed[1], abs=1e-8) and owed[1] > 0
        assert bench.receipt("busy")["settled"]
        bench.end("calm", calm.pid)
        bench.tick()
        page = bench.page()
        billed = float(total(page, BILLED, term="platform"))
        assert billed == pytest.approx(grams(bench, "busy") + grams(bench, "calm"), abs=1e-8)
        assert total(page, UNTAXED, term="platform") > 0
        bench.look_at_requests("busy", "calm")
        bench.close()
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []
