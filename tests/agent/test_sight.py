"""Energy is a side channel: who sees whose jobs over the socket, how fresh and how fine; no question reads a sensor."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.asking import ask
from tests.doubles.metered_bench import MeteredBench
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import total
from tests.exporters.snapshots import jobs, product, served, snapshot

from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import BUCKETS_UJ, Collector, Reading
from wattribute.agent.core.rounding import rounded
from wattribute.agent.dispatch import Dispatch
from wattribute.agent.requests import Health, JobReceipt, Jobs, Peer
from wattribute.agent.site import Site
from wattribute.exporters.messages import RequestHead

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

ALICE, BOB, SLURM = 54321, 54322, 54323
AGED = "[export]\nexport_age_s = 5\n"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = Bench(tmp_path, tree.add_package())
        made.peer_uid = ALICE
        yield made
        made.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.kill()


def asked(bench: Bench, uid: int) -> Any:
    """What a user is answered to `jobs`."""
    return ask(Dispatch(bench.node, interval_s=1.0, version="1"), Jobs(id=1), Peer(1, uid, uid))


def receipt(bench: Bench, uid: int, job_id: str = "a") -> dict[str, Any]:
    dispatch = Dispatch(bench.node, interval_s=1.0, version="1")
    found: dict[str, Any] = ask(dispatch, JobReceipt(id=1, job_id=job_id), Peer(1, uid, uid))["receipt"]
    return found


def test_a_user_sees_their_own_jobs_and_no_trace_of_others(bench: Bench, worker: Worker) -> None:
    bench.open()
    bench.node._sight._trusted.add(SLURM)
    bench.tick()
    bench.start("a", worker.pid)
    for uid, seen in ((ALICE, "own"), (0, "all"), (SLURM, "all")):
        answer = asked(bench, uid)
        assert (answer["seen"], [job["job_id"] for job in answer["jobs"]]) == (seen, ["a"])
    assert asked(bench, BOB)["jobs"] == []
    refusals = []
    for job_id in ("a", "b"):
        with pytest.raises(Refused) as refusal:
            receipt(bench, BOB, job_id)
        refusals.append(str(refusal.value).replace(repr(job_id), "X"))
    assert refusals[0] == refusals[1] == "no job X is known here"


def test_why_no_job_is_found_is_told_to_whom_it_concerns(bench: Bench) -> None:
    bench.open('[[engine]]\nurl = "http://127.0.0.1:9/metrics"\nkind = "vllm"\nproduct = "secret-llm"\n')
    for _ in range(3):
        bench.tick()
    whys = {}
    for uid in (0, BOB):
        told: Any = Dispatch(bench.node, interval_s=1.0, version="1")(Health(id=1), Peer(1, uid, uid))
        (whys[uid],) = [one["why"] for one in told["sources"] if one["source"].startswith("engine:")]
    assert "listens" in whys[0]
    assert whys[BOB] == "root and the agent's own user are told why"


def test_what_a_user_sees_of_a_running_job_is_no_younger_than_the_page(bench: Bench, worker: Worker) -> None:
    bench.open(AGED)
    bench.tick()
    bench.start("a", worker.pid)
    for second in range(9):
        worker.burn()
        bench.tick()
        bench.node.flush()
        page, own, whole = bench.look(), receipt(bench, ALICE), receipt(bench, 0)
        assert own["energy_uj"] == total(page, "wattribute_job_energy_joules_total", job_id="a") * 1_000_000
        assert own["gco2e"]["asce"] == pytest.approx(float(total(page, "wattribute_job_asce_grams_total", job_id="a")))
        assert whole["energy_uj"] > own["energy_uj"]
        assert any("export_age_s" in note for note in own["notes"])
        assert (own["energy_uj"] > 0) == (second >= 5)
    assert asked(bench, ALICE)["at_ns"] < asked(bench, 0)["at_ns"] - 4_000_000_000
    bench.end("a", worker.pid)
    bench.tick()
    closing = receipt(bench, ALICE)  # is theirs at once
    assert closing["energy_uj"] == receipt(bench, 0)["energy_uj"] > own["energy_uj"]
    bench.node.flush()
    assert total(bench.look(), "wattribute_job_energy_joules_total", job_id="a") * 1_000_000 < closing["energy_uj"]


def test_the_meter_of_a_job_hears_of_its_windows_when_they_are_old_enough(tmp_path: Path) -> None:
    with PowercapTree(tmp_path / "sys") as tree, contextlib.ExitStack() as stack:
        tree.say_cpu()
        bench = MeteredBench(tmp_path, tree.add_package())
        stack.callback(bench.close)
        bench.peer_uid = ALICE
        bench.open(AGED)
        bench.tick()
        worker, meter = bench.serving("serve", "llm")
        heard = []
        for _ in range(9):
            bench.sim.burn(worker, 900)
            bench.tick(1)
            heard.append([window["until_ns"] for window in meter.serve(a=1).report(0.5, seen_ns=0)["windows"]])
        assert heard[3] == []
        assert 0 < heard[-1][-1] <= bench.clock.boot_ns - 5_000_000_000


def test_rounded_series_are_multiples_that_never_fall_and_add_up_within_a_quantum_each(
    bench: Bench, worker: Worker
) -> None:
    bench.open("[export]\nround_j = 10\nhold_s = 2\n")
    bench.tick()
    for number in range(4):
        bench.start(f"job-{number}", worker.pid)
        for _ in range(3):
            worker.burn()
            bench.tick(cpu_uj=33_333_333)
            bench.node.flush()
            page = bench.look()  # compares each counter with the one before
        bench.end(f"job-{number}", worker.pid)
    bench.tick(3)
    bench.node.flush()
    page = bench.look()
    joules = [s for s in page if s.name.endswith("joules_total")]
    assert all(s.value % 10 == 0 for s in joules)
    grams = [s for s in page if s.name.endswith("grams_total") and s.labels.get("term") in ("operation", "cooling")]
    assert grams
    assert all(s.value % Decimal("0.01") == 0 for s in grams)
    parts = [s for s in joules if "wattribute_job" in s.name or "unattributed" in s.name]
    whole = total(page, "wattribute_node_energy_joules_total")
    assert 0 <= whole - sum(s.value for s in parts) < 10 * len(parts)
    exact, own = receipt(bench, 0, "job-0"), receipt(bench, ALICE, "job-0")
    assert own["energy_uj"] % 10_000_000 == 0
    assert own["energy_uj"] < exact["energy_uj"]
    assert own["intensity"] == exact["intensity"]
    assert own["bounds"] != exact["bounds"]
    assert any("round_j" in note for note in own["notes"])


def test_corrections_and_mean_prices_tell_no_more_than_rounded_energy(bench: Bench, worker: Worker) -> None:
    bench.open("[export]\nround_j = 10\n")
    bench.tick()
    bench.start("a", worker.pid)
    worker.burn()
    bench.tick(cpu_uj=33_333_333)
    bench.node.registry.jobs["a"].correct("", "operation", 12_345_678)  # energy times what the price was off
    exact, own = receipt(bench, 0), receipt(bench, ALICE)
    grams = own["gco2e"]["operation"]
    assert grams == round(grams, 2) != exact["gco2e"]["operation"]
    price = exact["intensity"]["gco2e_per_kwh"]
    assert own["intensity"]["gco2e_per_kwh"] == float(f"{price:.4g}") != price


@given(st.integers(1, 10**9))
def test_a_rounded_snapshot_keeps_to_the_terms_of_each_job(quantum: int) -> None:
    exact = snapshot(jobs=jobs(4), products=[product("product-1")], served=[served("product-1")])
    coarse = rounded(exact, quantum)
    for before, after in zip(exact.jobs, coarse.jobs, strict=True):
        for then, now in zip(before.values, after.values, strict=True):
            assert now == then or (now % quantum == 0 and 0 < then - now < quantum)
    (before_served,), (after_served,) = exact.served, coarse.served
    assert sum(after_served.receipt_counts) == sum(before_served.receipt_counts)
    assert not any(
        count for count, end_uj in zip(after_served.receipt_counts, BUCKETS_UJ, strict=False) if end_uj < quantum
    )


class Counted:
    """A collector that counts how often it is read."""

    def __init__(self, collector: Collector) -> None:
        self.name = collector.name
        self.reads = 0
        self._collector = collector

    def read(self) -> Sequence[Reading]:
        self.reads += 1
        return self._collector.read()

    read_fresh = read

    def close(self) -> None:
        self._collector.close()


def test_no_question_makes_a_sensor_be_read(bench: Bench, worker: Worker) -> None:
    bench.open()
    bench.tick()
    bench.start("a", worker.pid)
    counted = []
    for source in bench.node._rounds._sources:
        counted.append(collector := Counted(source._collector))
        source._collector = collector
    bench.tick()
    assert [one.reads for one in counted] == [1] * len(counted)
    routes, dispatch = Site(bench.node).routes(), Dispatch(bench.node, interval_s=1.0, version="1")
    for _ in range(50):
        for path in routes:
            routes[path](RequestHead("GET", path, "", {}, True))
        for request in (
            Jobs(id=1),
            Health(id=1),
            JobReceipt(id=1, job_id="a"),
            JobReceipt(id=1, job_id="a", wait=True),
        ):
            dispatch(request, Peer(1, ALICE, ALICE))
        bench.clock.pass_(0.01)
        bench.node.edge(lambda: None)
        bench.node.show()
    assert bench.node.edge_due_ns() is None
    assert [one.reads for one in counted] == [1] * len(counted)
