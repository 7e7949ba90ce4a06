"""A provider that estimates first and revises later, through agent, ledger, archive, report and page.

What was booked stays as it was; joules are never touched; the difference is a correction, once, over restarts too.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.doubles.grid_server import KEY, Answering, GridServer, says
from tests.doubles.node_bench import Bench, S, Worker
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import total

from wattribute.agent.archive import open_archive
from wattribute.agent.cli import main
from wattribute.agent.config import load
from wattribute.agent.core.model import Term
from wattribute.agent.core.units import NG_PER_G, UJ_PER_KWH

HOUR_S = 3600
CONFIG = """
[carbon]
provider = "electricitymaps"
pue = 1.25
[provider]
zone = "DE"
url = "{url}"
timeout_s = 2
[[product]]
id = "iks"
kind = "platform"
scope = "node"
"""
PRICED: tuple[Term, Term] = ("operation", "cooling")


class Told:
    """A node whose grid is asked and whose ledger is settled by hand."""

    def __init__(self, bench: Bench, server: GridServer, folder: Path) -> None:
        self.bench = bench
        self.server = server
        self.file = folder / "wattribute.toml"
        self.hour_s = bench.clock.unix_ns // S // HOUR_S * HOUR_S

    def say(self, g_per_kwh: float, *, hour: int = 0, estimated: bool) -> None:
        self.server.maps[self.hour_s + hour * HOUR_S] = (g_per_kwh, estimated)

    def open(self, more: str = "") -> None:
        self.bench.open(CONFIG.format(url=self.server.url) + more)
        self.asked()

    def asked(self) -> None:
        """The agent's own thread has asked once; the hand clock doesn't let it ask again."""
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s:
            (health,) = self.bench.node._climate.grid.health()
            if health.failures or health.last_read_unix_ns is not None:
                return
            time.sleep(0.005)
        raise AssertionError("the grid wasn't asked")

    def ask(self) -> None:
        grid = self.bench.node._climate.grid
        grid.ask()  # type: ignore[attr-defined]
        grid.look()  # type: ignore[attr-defined]

    def settle(self) -> None:
        """What the settlement's thread would do by now."""
        settlement = self.bench.node._climate._settlement
        assert settlement is not None
        for _ in range(3):
            settlement.look()
            self.bench.tick()
        self.bench.node.flush()

    def pass_(self, minutes: int) -> None:
        for _ in range(minutes // 5):
            self.bench.tick(300)
        self.bench.node.flush()

    def work(self, workers: list[Worker]) -> None:
        """Job `a` of a product on a platform that is metered beside it."""
        self.bench.tick()
        self.bench.start("plat", workers[1].pid, product_id="iks", role="platform")
        self.bench.start("a", workers[0].pid, product_id="m", uses=("iks",))
        for _ in range(4):
            for worker in workers:
                worker.burn()
            self.bench.tick()
        self.bench.end("a", workers[0].pid)
        self.bench.end("plat", workers[1].pid)
        for _ in range(3):
            self.bench.tick()

    def run(self, *words: str) -> str:
        result = CliRunner().invoke(main, [*words, "--config", str(self.file)])
        assert result.exit_code == 0, result.output
        return result.output

    def check(self, g_per_kwh: float, revision: int) -> dict[str, Any]:
        """Job `a` costs what its energy costs at this price: receipt, archive and report say so; all adds up."""
        receipt = self.bench.receipt("a")
        assert receipt["revision"] == revision
        expected_ng = receipt["energy_uj"] * g_per_kwh * NG_PER_G / UJ_PER_KWH
        assert receipt["gco2e"]["operation"] * NG_PER_G == pytest.approx(expected_ng, abs=3)
        assert receipt["gco2e"]["cooling"] * NG_PER_G == pytest.approx(expected_ng / 4, abs=3)
        assert receipt["intensity"]["gco2e_per_kwh"] == pytest.approx(g_per_kwh, rel=1e-5)
        assert receipt["pue"] == pytest.approx(1.25, rel=1e-5)
        for term, (low, high) in receipt["bounds"]["terms"].items():
            assert low <= receipt["gco2e"][term] <= high
        with open_archive(load(self.file, {}, {}).config) as archive:
            assert archive.verify() == []
            jobs = {job.id: job for job in archive.jobs()}
            (node,) = archive.node_totals().values()
        for term in PRICED:
            assert jobs["a"].terms_ng[term] == round(receipt["gco2e"][term] * NG_PER_G)
            of_jobs = sum(job.terms_ng.get(term, 0) for job in jobs.values())
            unpaid = sum(ng for (_, name), ng in node.unattributed_ng.items() if name == term)
            assert of_jobs + unpaid == node.terms_ng[term]
        assert jobs["a"].taxes_ng.get(("iks", "platform"), 0) == round(receipt["gco2e"]["platform"] * NG_PER_G)
        assert jobs["a"].revision == revision
        told = json.loads(self.run("report", "job", "a", "--json"))
        assert told["total"]["gco2e"]["operation"] == receipt["gco2e"]["operation"]
        assert told["revision"] == revision
        assert "add up to what the nodes used, exactly" in self.run("report", "node")
        assert "sound" in self.run("ledger", "verify")
        return receipt

    def corrections(self) -> dict[tuple[str, str], int]:
        """The gauge: (product, term) -> ng."""
        return {
            (s.labels["product_id"], s.labels["term"]): round(s.value * NG_PER_G)
            for s in self.bench.page()
            if s.name == "wattribute_product_correction_grams"
        }


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started = [Worker(), Worker()]
    yield started
    for worker in started:
        worker.kill()


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.setenv("ELECTRICITYMAPS_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with GridServer() as server, PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        bench = Bench(tmp_path, tree.add_package())
        yield Told(bench, server, tmp_path)
        bench.close()


@pytest.mark.parametrize("restarts", ["never", "before the final value", "before it is settled", "after"])
def test_an_estimate_is_settled_once_and_nothing_that_was_shown_changes(
    told: Told, workers: list[Worker], restarts: str
) -> None:
    bench = told.bench
    told.say(400, estimated=True)
    told.open("[export]\nhold_s = 7200\n")
    told.work(workers)
    told.pass_(5)
    before = told.check(400, 1)
    assert not before["settled"]
    assert before["intensity"]["quality"] == "estimated"
    assert told.corrections() == {}
    shown = total(bench.page(), "wattribute_job_co2e_grams_total", job_id="a")

    def restart(moment: str) -> None:
        if restarts == moment:
            bench.restart()
            told.asked()

    restart("before the final value")
    told.pass_(50)
    told.say(250, estimated=False)
    told.say(300, hour=1, estimated=True)
    told.ask()
    restart("before it is settled")
    assert not bench.receipt("a")["settled"]
    told.settle()
    restart("after")
    told.settle()

    after = told.check(250, 2)
    assert after["settled"]
    assert after["energy_uj"] == before["energy_uj"]
    assert after["energy_j"] == before["energy_j"]
    assert total(bench.page(), "wattribute_job_co2e_grams_total", job_id="a") == shown
    gauge = told.corrections()
    for term in PRICED:
        difference_g = after["gco2e"][term] - before["gco2e"][term]
        assert gauge["m", term] == round(difference_g * NG_PER_G)
        assert gauge["iks", term] < 0
        assert gauge["", term] < gauge["m", term], "what nobody paid is corrected too"
    # What the platform's job turned out to cost less, its payer owes less: its part of it.
    assert before["gco2e"]["platform"] > 0
    assert after["gco2e"]["platform"] == pytest.approx(before["gco2e"]["platform"] * 250 / 400, abs=1e-8)
    owed_g = after["gco2e"]["platform"] - before["gco2e"]["platform"]
    assert gauge["iks", "platform"] == round(owed_g * NG_PER_G)
    (tax,) = [one for one in after["taxes"] if one["term"] == "platform"]
    assert tax["gco2e"] == after["gco2e"]["platform"]

    # The same again, and revised again: nothing is settled twice.
    told.say(99, estimated=False)
    told.ask()
    told.settle()
    told.check(250, 2)


def test_a_provider_that_is_dead_at_the_start_is_made_up_for(told: Told, workers: list[Worker]) -> None:
    """Also for a job whose series have left the page by then."""
    told.server.trouble = says(500, b"no")
    told.say(380, hour=-1, estimated=False)
    told.open()
    told.work(workers)
    fallback = told.bench.receipt("a")
    assert fallback["intensity"]["quality"] == "static"
    assert fallback["intensity"]["gco2e_per_kwh"] == 380.95  # Germany's year, from the table
    told.pass_(55)
    assert not told.bench.receipt("a")["settled"]
    told.server.trouble = None
    told.say(120, estimated=False)
    told.say(130, hour=1, estimated=True)
    told.ask()
    told.settle()
    assert told.check(120, 2)["settled"]
    assert told.corrections()["m", "operation"] < 0


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (says(429, b"{}", Retry_After="60"), "rate_limited"),
        (says(500, b"oops"), "server"),
        (says(200, b"<html>"), "garbage"),
        (says(200, b'{"zone": "FR", "carbonIntensity": 1, "datetime": "2023-11-14T22:00:00Z"}'), "zone"),
    ],
    ids=["429", "500", "garbage", "another zone"],
)  # fmt: skip
def test_trouble_in_between_leaves_the_last_value_and_is_settled_later(
    told: Told, workers: list[Worker], trouble: Callable[[Answering, str], bool], reason: str
) -> None:
    told.say(400, estimated=True)
    told.open()
    told.server.trouble = trouble
    told.work(workers)
    told.ask()
    (health,) = told.bench.node._climate.grid.health()
    assert (health.up, health.failures) == (False, {reason: 1})
    told.pass_(55)
    told.check(400, 1)
    told.settle()
    told.check(400, 1)
    told.server.trouble = None
    told.say(700, estimated=False)
    told.say(300, hour=1, estimated=True)
    told.ask()
    told.settle()
    assert told.check(700, 2)["settled"]
    assert told.corrections()["m", "cooling"] > 0


def test_a_source_that_is_new_waits_for_nothing_of_the_one_before(told: Told, workers: list[Worker]) -> None:
    """What ran on when the source changed began before it: no final value comes for that, and none is waited for."""
    told.say(400, estimated=True)
    told.bench.open("[carbon]\nintensity_g_per_kwh = 500\npue = 1.25\n")
    told.bench.start("long", workers[1].pid)
    told.bench.tick()
    told.bench.kill()
    told.bench.clock.pass_(2)
    told.open()
    told.bench.tick(0)
    told.pass_(10)
    assert "long" in {receipt["job_id"] for receipt in told.bench.node.jobs()}
    told.bench.start("a", workers[0].pid, product_id="m")
    workers[0].burn()
    told.bench.tick()
    told.bench.end("a", workers[0].pid)
    told.pass_(50)
    told.say(250, estimated=False)
    told.say(300, hour=1, estimated=True)
    told.ask()
    told.settle()
    assert told.check(250, 2)["settled"]
