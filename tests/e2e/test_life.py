"""A whole product's life, played through the agent, the ledger, the archive and the command line.

Data, creation with a parent, a platform, use, retraining, idle time: the organisation's total is the node's, taxes
only move what is in it, and what users recover and children inherit is at most the EPC.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import total

from wattribute.agent.archive import open_archive
from wattribute.agent.cli import main
from wattribute.agent.config import load
from wattribute.agent.core.accounting import sums_ng
from wattribute.agent.core.model import TERMS, Term
from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.core.records import JobRecord

EMITTED: tuple[Term, ...] = ("operation", "cooling", "hardware")
CONFIG = """
[carbon]
intensity_g_per_kwh = 500
pue = 1.25
[[embodied]]
component = "server"
kgco2e = 1000
lifetime_years = 4
[export]
hold_s = 5
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = Bench(tmp_path, tree.add_package())
        made.open(CONFIG)
        yield made
        made.close()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started = [Worker() for _ in range(4)]
    yield started
    for worker in started:
        worker.kill()


class Life:
    """What somebody does on one machine: commands at a terminal, and jobs."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.folder = folder
        self.file = str(folder / "wattribute.toml")

    def say(self, *words: str, code: int = 0) -> str:
        """One command; afterwards the agent has heard of it."""
        self.bench.node.flush()
        result = CliRunner().invoke(main, [*words, "--config", self.file])
        assert result.exit_code == code, result.output
        self.bench.hear()
        self.bench.tick()
        return result.output

    def work(self, job_id: str, *workers: Worker, seconds: int = 4, **fields: Any) -> None:
        """One job, of the first worker; the others do what they do besides."""
        worker = workers[0]
        self.bench.start(job_id, worker.pid, **fields)
        for _ in range(seconds):
            for one in workers:
                one.burn()
            self.bench.tick()
        self.bench.end(job_id, worker.pid)
        for _ in range(2):
            self.bench.tick()

    def to_the_next_window(self) -> None:
        """Everything that is open is closed where a window ends by the clock."""
        self.bench.tick(300 - self.bench.clock.unix_ns / 1e9 % 300)
        self.bench.node.flush()


def tax(job: JobRecord, payee: str, term: Term) -> int:
    return job.taxes_ng.get((payee, term), 0)


def test_a_products_life(bench: Bench, workers: list[Worker], tmp_path: Path) -> None:
    life = Life(bench, tmp_path)
    bench.tick()
    life.say("product", "add", "corpus", "--kind", "dataset", "--scope", "node", "--lifetime-years", "5")
    life.say("product", "add", "iks", "--kind", "platform", "--scope", "node")
    life.say(
        *("product", "add", "bert", "--kind", "model", "--scope", "node", "--lifetime-years", "0.00001"),
        *("--parent", "corpus=0.4", "--runs-on", "iks", "--retraining-interval-days", "0.0007"),
    )

    # Data; work that nothing measured, entered by hand; a model that inherits, and pays its parent no product tax.
    life.work("prep", workers[0], product_id="corpus", role="creation", phase="data")
    life.say("product", "cost", "corpus", "--g", "3", "--low", "2", "--high", "5", "--note", "three person-days")
    life.say("product", "freeze", "corpus", "--deployed", rfc3339(bench.clock.unix_ns) or "")
    bench.start("control-plane", workers[1].pid, product_id="iks", role="platform")
    life.work("train", *workers[:2], product_id="bert", role="creation", phase="training", uses=("corpus",))
    life.say("product", "freeze", "bert", "--deployed", rfc3339(bench.clock.unix_ns) or "")

    # Use, two at once of unequal weight; the platform goes on; retraining between them; then nobody.
    bench.start("use-1", workers[0].pid, product_id="bert")
    bench.start("use-3", workers[2].pid, product_id="bert", weight=3)
    for _ in range(10):
        for worker in workers[:3]:
            worker.burn()
        bench.tick()
    bench.end("use-1", workers[0].pid)
    bench.end("use-3", workers[2].pid)
    life.work("retrain", workers[3], product_id="bert", role="retraining")
    for _ in range(30):
        bench.tick()
    bench.restart()
    life.work("use-late", workers[0], product_id="bert")
    for _ in range(70):  # past the interval of the retraining, and past the jobs' hold
        bench.tick()
    bench.end("control-plane", workers[1].pid)
    for _ in range(10):
        bench.tick()
    bench.page()
    life.to_the_next_window()
    page = bench.page()

    with open_archive(load(Path(life.file), {}, {}).config) as archive:
        jobs = {job.id: job for job in archive.jobs()}
        (node,) = archive.node_totals().values()
        assert archive.verify() == []
    assert set(jobs) == {"prep", "train", "control-plane", "use-1", "use-3", "retrain", "use-late"}

    # An organisation's total is operation, cooling and hardware of jobs of every role and what nobody paid: the node's.
    for term in EMITTED:
        of_jobs = sum(job.terms_ng.get(term, 0) for job in jobs.values())
        unpaid = sum(ng for (_, name), ng in node.unattributed_ng.items() if name == term)
        assert of_jobs + unpaid == node.terms_ng[term], term
    priced = sum(sums_ng({term: job.terms_ng.get(term, 0) for term in TERMS})["asce"] for job in jobs.values())
    emitted = sum(job.terms_ng.get(term, 0) for job in jobs.values() for term in EMITTED)
    assert priced > emitted, "ASC^e is a price: what others emitted is in it once more"
    assert "price, not an inventory" in life.say("report", "node")

    # The platform's jobs cost what its users were billed and what nobody was there for.
    platform = jobs["control-plane"]
    overhead = platform.terms_ng["operation"] + platform.terms_ng["cooling"]
    metric = "wattribute_product_{}_grams_total"
    for term, cost in (("platform", overhead), ("overhead_hardware", platform.terms_ng["hardware"])):
        billed = sum(tax(job, "iks", term) for job in jobs.values())
        untaxed = total(page, metric.format("untaxed"), product_id="iks", term=term)
        assert billed > 0
        assert billed + round(untaxed * 10**9) == cost
    assert not platform.taxes_ng
    assert tax(jobs["train"], "iks", "platform") > 0
    assert tax(jobs["use-3"], "iks", "platform") == pytest.approx(3 * tax(jobs["use-1"], "iks", "platform"), rel=0.01)

    # Retraining is paid by whom the model served in the interval, also once their series have left the page.
    retrained = jobs["retrain"].terms_ng["operation"] + jobs["retrain"].terms_ng["cooling"]
    paid = sum(tax(job, "bert", "retraining") for job in jobs.values())
    untaxed = total(page, metric.format("untaxed"), product_id="bert", term="retraining")
    assert paid > 0
    assert paid + round(untaxed * 10**9) == retrained
    shown = total(page, "wattribute_product_co2e_grams_total", product_id="bert", term="retraining")
    assert round(shown * 10**9) == paid

    # Never more than the EPC: what its users recover and what its children inherit.
    for product_id, children in (("corpus", ("bert",)), ("bert", ())):
        told = json.loads(life.say("product", "epc", product_id, "--json"))
        recovered = sum(tax(job, product_id, "product") for job in jobs.values())
        inherited = sum(
            json.loads(life.say("product", "epc", child, "--json"))["gco2e"]["inherited"][product_id]["central"]
            for child in children
        )
        assert recovered / 1e9 + inherited <= told["gco2e"]["total"]["central"] * (1 + 1e-12)
        assert told["recovery"]["recovered_gco2e"] == recovered / 1e9
    assert sum(tax(job, "bert", "product") for job in jobs.values()) > 0
    assert not any(tax(jobs[job_id], "bert", term) for job_id in ("train", "retrain") for term in TERMS)
    assert not any(tax(job, "corpus", "product") for job in jobs.values()), "those that use bert inherit; none uses it"

    # Receipts say the same, to the nanogram, with bounds around it.
    for job_id, job in jobs.items():
        receipt = bench.receipt(job_id)
        assert receipt["settled"], job_id
        for term in TERMS:
            assert round(receipt["gco2e"][term] * 1e9) == job.terms_ng.get(term, 0), (job_id, term)
            low, high = receipt["bounds"]["terms"][term]
            assert low <= receipt["gco2e"][term] <= high
    assert bench.receipt("use-1")["revision"] == 2
    assert "sound" in life.say("ledger", "verify")
