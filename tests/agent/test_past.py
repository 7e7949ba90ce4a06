"""A ledger whose disk stands still holds back what only it knows, and nothing else."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.asking import ask
from tests.doubles.found_bench import FoundBench
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.powercap import PowercapTree
from tests.doubles.slow_disk import SlowDisk
from tests.e2e.running import total

from wattribute.agent.control import Deferred
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.dispatch import Dispatch
from wattribute.agent.ledger.batch import Batch
from wattribute.agent.ledger.past import Known, NotYet
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.store import Store
from wattribute.agent.peer import has_left
from wattribute.agent.requests import JobReceipt, Jobs, JobStart, Peer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

HOLD_1 = "[export]\nhold_s = 1\n"
INTERVAL_S = 864
MODEL = '[[product]]\nid = "model"\nscope = "node"\nretraining_interval_days = 0.01\n'


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
def bench(tmp_path: Path, disk: SlowDisk) -> Iterator[Bench]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = Bench(tmp_path, tree.add_package())
        made.open_reader = disk.open
        yield made
        made.close()
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started = [Worker() for _ in range(3)]
    yield started
    for worker in started:
        worker.kill()


@settings(max_examples=20)
@given(st.sets(st.text()))
def test_what_was_added_is_known(keys: set[str]) -> None:
    known = Known(len(keys))
    for key in keys:
        known.add(key)
    assert all(key in known for key in keys)
    assert "never" not in Known(0)


def gone(bench: Bench, job_id: str, worker: Worker, **fields: Any) -> int:
    """A job that has been, and has left the table; its energy, uJ."""
    bench.start(job_id, worker.pid, **fields)
    worker.burn()
    bench.tick()
    bench.end(job_id, worker.pid)
    bench.tick(2)
    bench.tick(2)
    bench.node.flush()
    assert job_id not in bench.node.registry.jobs
    return int(bench.receipt(job_id)["energy_uj"])


def learnt(bench: Bench) -> None:
    """Which ids the ledger knows is in memory from now on."""
    while bench.node.recall("never heard of"):
        time.sleep(0.001)


def test_other_jobs_go_on_while_the_disk_hangs(bench: Bench, workers: list[Worker], disk: SlowDisk) -> None:
    pid = workers[0].pid
    bench.open(HOLD_1)
    bench.tick()
    before_uj = gone(bench, "a", workers[0])
    assert before_uj > 0
    bench.patience_s = 0.01
    bench.restart()
    learnt(bench)
    dispatch = Dispatch(bench.node, interval_s=1.0, version="0")
    back = JobStart(id=1, job_id="a", member="m", pid=pid)
    with disk.hangs():
        with pytest.raises(NotYet):
            ask(dispatch, back, Peer(pid, 0, 0))
        with pytest.raises(NotYet):
            bench.receipt("a")
        assert "a" not in bench.node.registry.jobs
        assert not isinstance(dispatch(JobStart(id=1, job_id="new", member="m", pid=pid), Peer(pid, 0, 0)), Deferred)
        bench.tick()
        workers[0].burn()
        bench.tick()
        assert bench.receipt("new")["energy_uj"] > 0
        bench.page()
        asked = dispatch(JobReceipt(id=1, job_id="a"), Peer(pid, 0, 0))
        assert isinstance(asked, Deferred)
        left = dispatch(back, Peer(pid, 0, 0))
        assert isinstance(left, Deferred)
        left.wanted = lambda: False
    ask(dispatch, Jobs(id=1), Peer(pid, 0, 0))
    assert "a" not in bench.node.registry.jobs  # whoever wanted it has left
    assert ask(dispatch, JobReceipt(id=1, job_id="a"), Peer(pid, 0, 0))["receipt"]["energy_uj"] == before_uj
    assert not ask(dispatch, back, Peer(pid, 0, 0))["joined"]
    bench.tick()
    workers[0].burn()
    bench.tick()
    assert bench.receipt("a")["energy_uj"] > before_uj


@pytest.mark.parametrize("comes_back", [False, True])
def test_late_taxes_wait_for_the_disk_and_nothing_is_shown_without_them(
    bench: Bench, workers: list[Worker], disk: SlowDisk, comes_back: bool
) -> None:
    bench.open(f"[export]\nhold_s = 1\n{MODEL}")
    bench.tick((INTERVAL_S * NS_PER_S - bench.clock.unix_ns % (INTERVAL_S * NS_PER_S)) / NS_PER_S)
    bench.start("retraining", workers[1].pid, product_id="model", role="retraining")
    workers[1].burn()
    bench.tick()
    bench.end("retraining", workers[1].pid)
    gone(bench, "used", workers[0], product_id="model")
    bench.patience_s = 0.01
    bench.restart()
    with disk.hangs():
        for seconds in (INTERVAL_S, 1, 1):
            bench.tick(seconds)
            bench.node.flush(0.05)
            assert not bench.node.record.is_whole
            page = bench.look()
            billed = total(page, "wattribute_product_billed_grams_total", term="retraining")
            assert billed == total(page, "wattribute_job_co2e_grams_total", term="retraining") == 0
    if comes_back:
        for answered in bench.node.recall("used"):
            answered.wait()
        bench.start("used", workers[0].pid, product_id="model")
    bench.tick()
    page = bench.page()
    billed = total(page, "wattribute_product_billed_grams_total", term="retraining")
    assert billed == total(page, "wattribute_job_co2e_grams_total", term="retraining") > 0
    assert bench.receipt("used")["gco2e"]["retraining"] == pytest.approx(float(billed), abs=1e-9)


def test_a_bill_that_the_ledger_does_not_have_yet_is_in_the_receipt(bench: Bench, workers: list[Worker]) -> None:
    """Before, a job that came back before that batch was durable had a receipt without it."""
    bench.open(f"[export]\nhold_s = 1\n{MODEL}")
    bench.tick((INTERVAL_S * NS_PER_S - bench.clock.unix_ns % (INTERVAL_S * NS_PER_S)) / NS_PER_S)
    bench.start("retraining", workers[1].pid, product_id="model", role="retraining")
    workers[1].burn()
    bench.tick()
    bench.end("retraining", workers[1].pid)
    gone(bench, "used", workers[0], product_id="model")
    with patch.object(Store, "apply", side_effect=LedgerError("full")):
        for seconds in (INTERVAL_S, 1):
            bench.tick(seconds)
        early = bench.receipt("used")
        bench.start("used", workers[0].pid, product_id="model")
    bench.tick()
    billed = float(total(bench.page(), "wattribute_product_billed_grams_total", term="retraining"))
    assert billed > 0
    for receipt in (early, bench.receipt("used")):
        assert receipt["gco2e"]["retraining"] == pytest.approx(billed, abs=1e-9)
        assert receipt["revision"] == 2


def test_a_found_job_that_comes_back_is_taken_up_when_the_disk_answers(tmp_path: Path, disk: SlowDisk) -> None:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        bench = FoundBench(tmp_path, tree.add_package())
        bench.open_reader = disk.open
        try:
            bench.open(HOLD_1)
            bench.tick()
            bench.find("a", "/jobs/a")
            bench.sim.use("/jobs/a", 300)
            bench.tick()
            bench.lose("/jobs/a")
            for _ in range(3):
                bench.tick(2)
            bench.patience_s = 0.01
            bench.restart()
            learnt(bench)
            with disk.hangs():
                bench.find("a", "/jobs/a")
                bench.find("b", "/jobs/b")
                bench.sim.use("/jobs/a", 100)
                bench.sim.use("/jobs/b", 100)
                bench.tick()
                bench.page()
                assert bench.node.registry.jobs.keys() == {"b"}
                assert bench.cpu_ms("b") == 100
            while "a" not in bench.node.registry.jobs:
                bench.tick()
            bench.sim.use("/jobs/a", 200)
            bench.tick()
            bench.page()
            assert bench.cpu_ms("a") >= 500  # what it used meanwhile was recognised late
        finally:
            bench.close()


def test_a_disk_that_was_full_is_waited_for_while_it_takes_what_was_held(bench: Bench) -> None:
    """Before, its last refusal counted as one of what was on its way: an agent that stopped then lost a tick."""
    bench.open()
    with patch.object(Store, "apply", side_effect=LedgerError("full")):
        bench.tick()
        bench.node.flush()
    slow, real = threading.Event(), Store.apply

    def apply(store: Store, batch: Batch) -> None:
        slow.wait()
        real(store, batch)

    with patch.object(Store, "apply", apply):
        bench.tick()
        bench.tick()
        threading.Timer(0.05, slow.set).start()
        bench.node.flush()
    assert bench.node.record.committed == bench.node.record.written


def test_a_fault_in_an_answer_that_was_waited_for_is_told_and_ends_nothing(bench: Bench) -> None:
    """Before, one that ended while the ledger couldn't be read took the agent's loop with it."""
    bench.open()
    dispatch = Dispatch(bench.node, interval_s=1.0, version="0")

    def fails() -> dict[str, object]:
        raise LedgerError("not a database")

    asked = dispatch._when(lambda: False, 0.0, fails)
    assert isinstance(asked, Deferred)
    told: list[object] = []
    asked.on_answer(told.append)
    dispatch.settle()
    assert isinstance(told[0], LedgerError)


def test_who_has_left_is_told_from_who_has_nothing_more_to_say() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not has_left(ours)
        theirs.shutdown(socket.SHUT_WR)
        assert not has_left(ours)
        theirs.close()
        assert has_left(ours)
