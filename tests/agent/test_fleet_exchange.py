"""One real node and a PostgreSQL, on which another node is played: who pays for what was metered where."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.postgres import Postgres, running
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import total

from wattribute.agent.archive import Archive, open_archive
from wattribute.agent.config.schema import Config, Ledger
from wattribute.agent.core.fleet_parts import Amounts, Key, Part
from wattribute.agent.ledger.reader import read_only

S = 1_000_000_000
PRODUCT = """
[export]
hold_s = 1
[[product]]
id = "iks"
kind = "platform"
scope = "fleet"
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.url(postgres.new_database())


@pytest.fixture
def archive(url: str) -> Iterator[Archive]:
    with open_archive(Config(ledger=Ledger(url=url))) as opened:
        yield opened


@pytest.fixture
def bench(tmp_path: Path, url: str, archive: Archive) -> Iterator[Bench]:
    """A node that starts just after a full minute."""
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = Bench(tmp_path, tree.add_package())
        made.clock.unix_ns = 1_700_000_040 * S
        made.open(f'[ledger]\nurl = "{url}"\n{PRODUCT}')
        made.tick()
        yield made
        made.close()
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []


@pytest.fixture
def worker() -> Iterator[Worker]:
    started = Worker()
    yield started
    started.kill()


def play(archive: Archive, *, jsc_ng: int, weight: int) -> Amounts:
    """Another node's part of the first minute, which closes it; what this node has of it."""
    key = Key("iks", "platform", 1_700_000_040 * S, 1_700_000_100 * S)
    (verdict,) = archive.exchange("other", [Part(key, Amounts(jsc_ng, 0, weight, 1))])
    archive.present("other", {})
    return verdict.parts["n"]


def pass_minute(bench: Bench, archive: Archive) -> None:
    """Until the first minute is over and told, while another node uses the product."""
    archive.present("other", {"iks": 1})
    bench.hear()
    for _ in range(13):
        bench.tick(5)
    bench.node.flush()
    bench.tick(0.1)
    bench.hear()


def test_the_platforms_node_bills_nothing_where_its_users_are_elsewhere(
    bench: Bench, worker: Worker, archive: Archive
) -> None:
    bench.start("plat", worker.pid, product_id="iks", role="platform")
    worker.burn(0.05)
    pass_minute(bench, archive)
    ours = play(archive, jsc_ng=0, weight=7)
    assert ours.jsc_ng > 10**6
    bench.hear()
    bench.tick()
    page = bench.page()
    for name in ("overhead", "billed", "untaxed"):
        assert total(page, f"wattribute_product_{name}_grams_total", product_id="iks") == 0
    shown = bench.receipt("plat")["gco2e"]
    assert round((shown["operation"] + shown["cooling"]) * 1e9) > ours.jsc_ng


def test_a_job_that_ended_before_the_close_gets_its_share_in_a_later_revision(
    bench: Bench, worker: Worker, archive: Archive
) -> None:
    bench.start("x", worker.pid, uses=["iks"])
    worker.burn(0.05)
    bench.tick(10)
    bench.end("x", worker.pid)
    bench.tick(2)
    before = bench.receipt("x")
    assert (before["settled"], before["revision"], before["gco2e"]["platform"]) == (False, 1, 0)
    pass_minute(bench, archive)
    assert all("x" not in str(job["job_id"]) for job in bench.node.jobs())  # it has left the page
    assert play(archive, jsc_ng=5_000_000_007, weight=0).weight > 10**10
    bench.restart()
    bench.hear()
    bench.tick()
    assert not bench.receipt("x")["settled"]  # what is offered after a start was committed in this run
    bench.node.flush()
    bench.tick()
    bench.hear()
    bench.tick()
    page = bench.page()
    billed = total(page, "wattribute_product_billed_grams_total", product_id="iks", term="platform")
    assert billed == Decimal("5.000000007")
    assert total(page, "wattribute_job_co2e_grams_total", term="platform") == billed
    after = bench.receipt("x")
    assert (after["settled"], after["revision"]) == (True, 2)
    assert after["taxes"] == [{"product_id": "iks", "term": "platform", "gco2e": 5.000000007}]
    bench.restart()
    bench.hear()
    bench.tick()
    assert bench.receipt("x")["taxes"] == after["taxes"]


def test_a_node_alone_in_its_fleet_closes_by_itself(bench: Bench, worker: Worker, archive: Archive) -> None:
    """The user's and the platform's jobs on one node; its page adds up to what the platform cost."""
    bench.start("plat", worker.pid, product_id="iks", role="platform")
    bench.start("x", worker.pid, member="m2", uses=["iks"])
    worker.burn(0.05)
    pass_minute(bench, archive)
    archive.present("other", {})
    bench.hear()
    bench.tick()
    page = bench.page()
    billed = total(page, "wattribute_product_billed_grams_total", product_id="iks", term="platform")
    assert billed > 0
    assert billed == Decimal(str(bench.receipt("x")["gco2e"]["platform"]))
    assert total(page, "wattribute_product_untaxed_grams_total", product_id="iks") == 0
