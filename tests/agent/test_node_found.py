"""Found jobs on a whole node with its ledger: named, restarted, suspended, removed. Every page adds up."""

import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.doubles.found_bench import CPUS, FoundBench
from tests.doubles.found_node import unavailable
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import Sample, total

from wattribute.agent.core.errors import Refused
from wattribute.agent.core.found import Reservation
from wattribute.agent.core.idle_powers import IdlePowers
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.requests import JobStart, Peer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

IDLE_J, ACTIVE_J = 10, 40
"""Of the 50 J that the package draws in a second."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[FoundBench]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = FoundBench(tmp_path, tree.add_package())
        yield made
        made.close()
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []


def joules(page: list[Sample], **labels: str) -> Decimal:
    return total(page, "wattribute_job_energy_joules_total", domain="cpu", **labels)


def test_a_found_job_has_its_part_of_the_nodes_energy(bench: FoundBench) -> None:
    bench.open()
    bench.tick()
    bench.find("a", "/jobs/a", reserved=Reservation(1000, 4 << 30), phase="training")
    bench.sim.use("/jobs/a", 300)
    bench.sim.use("/system.slice/wattribute.service", 100)
    bench.tick()
    page = bench.page()
    receipt = bench.receipt("a")
    assert receipt["cpu_s"] == 0.3
    assert receipt["phase"] == "training"
    # It appeared at the tick: its CPU time is of this window, its reservation holds from then on.
    assert joules(page, job_id="a", share="direct") == Decimal(ACTIVE_J) * 3 / 4
    bench.sim.use("/jobs/a", 100)
    bench.sim.use("/system.slice/sshd.service" if bench.sim.make("/system.slice/sshd.service") else "", 100)
    bench.tick()
    after = bench.page()
    assert joules(after, job_id="a", share="direct") - joules(page, job_id="a", share="direct") == ACTIVE_J // 2
    assert joules(after, job_id="a", share="idle") - joules(page, job_id="a", share="idle") == Decimal(IDLE_J) / CPUS
    bench.lose("/jobs/a")
    for _ in range(3):
        bench.tick()
    receipt = bench.receipt("a")
    assert receipt["settled"]
    assert receipt["gaps"] == []
    info = next(s for s in bench.page() if s.name == "wattribute_job_info")
    assert (info.labels["job_id"], info.labels["origin"]) == ("a", "cgroup")


def test_a_session_names_the_product_of_the_job_that_it_is_in(bench: FoundBench) -> None:
    """What was used before stays with the product that it was shown for; no series and no sum falls."""
    bench.open()
    bench.tick()
    bench.find("slurm-7", "/jobs/7")
    for _ in range(3):
        bench.sim.use("/jobs/7", 500)
        bench.tick()
    before = joules(bench.page(), product_id="default")
    assert before == joules(bench.page(), job_id="slurm-7") > 0
    worker = bench.sim.fork("/jobs/7")
    bench.start("slurm-7", worker.pid, product_id="bert", phase="training")
    page = bench.page()
    assert joules(page, product_id="default") == joules(page, job_id="_retired") == before
    bench.sim.burn(worker, 500)
    bench.sim.use("/jobs/7", 500)
    bench.tick()
    bench.start("slurm-7", worker.pid, "second", product_id="bert")
    bench.restart()
    bench.sim.burn(worker, 500)
    bench.tick()
    page = bench.page()
    assert joules(page, product_id="default") == before
    assert joules(page, product_id="bert") == joules(page, job_id="slurm-7") > 0
    receipt = bench.receipt("slurm-7")
    assert (receipt["product_id"], receipt["phase"], receipt["members"]) == ("bert", "training", 3)
    assert receipt["cpu_s"] == 3.0
    whole = sum(Decimal(str(part)) for part in receipt["energy_j"]["cpu"].values())
    assert whole == joules(page, product_id="default") + joules(page, product_id="bert")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"role": "platform"}, "has the role 'use'"),
        ({"pid": 99_999}, "no process 99999"),
        ({"uid": 4242}, "belongs to another user"),
    ],
)
def test_a_session_that_is_refused_names_nothing(bench: FoundBench, fields: dict[str, object], word: str) -> None:
    bench.open()
    bench.tick()
    bench.find("a", "/jobs/a")
    worker = bench.sim.fork("/jobs/a")
    bench.tick()
    chosen = {"pid": worker.pid, "uid": bench.peer_uid, "role": "use"} | fields
    request = JobStart(
        id=1,
        job_id="a",
        member="m",
        pid=chosen["pid"],  # type: ignore[arg-type]
        product_id="bert",
        role=chosen["role"],  # type: ignore[arg-type]
    )
    with pytest.raises(Refused, match=word):
        bench.node.start(request, Peer(worker.pid, chosen["uid"], 0))  # type: ignore[arg-type]
    bench.tick()
    assert bench.receipt("a")["product_id"] == "default"
    assert joules(bench.page(), job_id="_retired") == 0


def test_a_product_that_is_known_stays(bench: FoundBench) -> None:
    bench.open()
    bench.tick()
    bench.find("a", "/jobs/a", product_id="llama")
    worker = bench.sim.fork("/jobs/a")
    bench.tick()
    with pytest.raises(Refused, match="works for product 'llama'"):
        bench.start("a", worker.pid, product_id="bert")
    bench.start("a", worker.pid)
    assert bench.receipt("a")["product_id"] == "llama"


def test_after_a_restart_what_was_used_meanwhile_is_billed(bench: FoundBench) -> None:
    bench.open()
    bench.tick()
    bench.find("outer", "/jobs/outer")
    bench.find("unit", "/jobs/outer/unit")
    worker = bench.sim.fork("/jobs/outer")
    bench.start("inner", worker.pid)
    bench.sim.burn(worker, 100)
    bench.sim.use("/jobs/outer", 10)
    bench.sim.use("/jobs/outer/unit", 50)
    bench.tick()
    before = bench.page()
    for _ in range(2):
        bench.kill()
        bench.sim.burn(worker, 100)
        bench.sim.use("/jobs/outer", 10)
        bench.sim.use("/jobs/outer/unit", 50)
        bench.sim.use("/system.slice/wattribute.service", 40)
        bench.clock.pass_(20)
        bench.package.package.add(20 * 50_000_000)
        bench.open()
        bench.tick(0)
    assert {job_id: bench.cpu_ms(job_id) for job_id in ("outer", "unit", "inner")} == {
        "outer": 30,
        "unit": 150,
        "inner": 300,
    }
    page = bench.page()
    for job_id, ms in (("outer", 10), ("unit", 50), ("inner", 100)):
        gained = joules(page, job_id=job_id, share="direct") - joules(before, job_id=job_id, share="direct")
        assert float(gained) == pytest.approx(2 * 20 * ACTIVE_J * ms / 200, abs=1e-5)
    bench.source.tell()  # one that needs a while until it knows them again
    bench.restart()
    bench.tick()
    assert all(bench.receipt(job_id)["ended_at"] is None for job_id in ("outer", "unit", "inner"))
    bench.source.tell(*bench.told.values())
    bench.tick()
    bench.source.tell()
    bench.tick()
    assert bench.receipt("outer")["ended_at"]


def test_cgroups_that_went_while_the_agent_was_away_are_left(bench: FoundBench) -> None:
    bench.open()
    bench.tick()
    bench.find("whole", "/jobs/whole", reserved=Reservation(1000))
    bench.find("half", "/jobs/half-1", reserved=Reservation(1000))
    bench.find("half", "/jobs/half-2", reserved=Reservation(2000))
    for path in ("/jobs/whole", "/jobs/half-1", "/jobs/half-2"):
        bench.sim.use(path, 100)
    bench.tick()
    bench.kill()
    bench.lose("/jobs/whole")
    bench.lose("/jobs/half-1")
    bench.sim.use("/jobs/half-2", 30)
    bench.open()
    bench.tick(1)
    receipt = bench.receipt("whole")
    assert receipt["ended_at"]
    assert any("ended while the agent was away" in gap["cause"] for gap in receipt["gaps"])
    assert bench.receipt("half")["ended_at"] is None
    assert bench.cpu_ms("half") == 230
    assert bench.node.registry.jobs["half"].entry.reserved == Reservation(2000)
    bench.page()


def test_one_made_anew_while_the_agent_was_away_is_another(bench: FoundBench) -> None:
    bench.open()
    bench.tick()
    bench.find("a", "/jobs/a")
    bench.sim.use("/jobs/a", 100)
    bench.tick()
    bench.kill()
    bench.lose("/jobs/a")
    bench.find("a", "/jobs/a")
    bench.sim.use("/jobs/a", 5000)
    bench.open()
    bench.tick(1)
    bench.sim.use("/jobs/a", 7)
    bench.tick()
    receipt = bench.receipt("a")
    assert receipt["ended_at"] is None
    assert receipt["members"] == 2
    assert receipt["cpu_s"] == 0.107  # what it used before anybody looked isn't known to be of this boot's jobs
    bench.page()


def test_after_a_reboot_a_job_of_that_name_opens_a_new_segment(bench: FoundBench) -> None:
    bench.open()
    bench.tick()
    bench.find("a", "/jobs/a")
    bench.sim.use("/jobs/a", 100)
    bench.tick()
    bench.reboot()
    assert bench.receipt("a")["members"] == 2
    bench.sim.use("/jobs/a", 100)
    bench.tick()
    receipt = bench.receipt("a")
    assert receipt["ended_at"] is None
    assert receipt["cpu_s"] == 0.2
    assert [gap["cause"] for gap in receipt["gaps"]] == ["the machine restarted"]
    bench.page()


def test_a_source_that_fails_ends_nothing_and_is_told(bench: FoundBench) -> None:
    bench.open()
    bench.tick()
    bench.find("a", "/jobs/a")
    bench.tick()
    for error in (unavailable("connection refused"), RuntimeError("a bug")):
        bench.source.error = error
        for _ in range(5):
            bench.sim.use("/jobs/a", 10)
            bench.tick(100)
        health = {each["source"]: each for each in bench.node.health()["sources"]}
        assert not health["told"]["up"]
        assert str(error.args[0] if isinstance(error, RuntimeError) else "connection refused") in health["told"]["why"]
    assert bench.receipt("a")["ended_at"] is None
    assert bench.cpu_ms("a") == 100
    bench.lose("/jobs/a")  # nobody tells, but the kernel does
    bench.tick()
    assert bench.receipt("a")["ended_at"]


def test_time_suspended_is_on_receipts_and_has_no_idle_energy(bench: FoundBench) -> None:
    bench.open()
    bench.tick()
    bench.find("a", "/jobs/a", reserved=Reservation(exclusive=True))
    bench.find("over", "/jobs/over")
    bench.tick()
    bench.lose("/jobs/over")
    bench.tick()
    before = bench.page()
    bench.suspend(3600)
    bench.sim.use("/jobs/a", 100)
    bench.tick()
    page = bench.page()
    gained = {s: joules(page, job_id="a", share=s) - joules(before, job_id="a", share=s) for s in ("direct", "idle")}
    assert gained == {"direct": ACTIVE_J, "idle": IDLE_J}
    (gap,) = bench.receipt("a")["gaps"]
    assert gap["cause"] == "the machine was suspended for 3600.0 s"
    assert gap["start"] < gap["end"]
    assert bench.receipt("over")["gaps"] == []
    assert bench.node.snapshot().suspended_ns == 3600 * 10**9
    bench.restart()
    assert bench.receipt("a")["gaps"] == [gap]
    bench.clock.unix_ns += 600 * 10**9
    bench.tick()
    assert [g["cause"] for g in bench.receipt("a")["gaps"][1:]] == [
        "wall time moved by +600.0 s: the machine was paused, or its clock set"
    ]


def test_a_suspended_nodes_power_is_learnt_awake(bench: FoundBench) -> None:
    books = bench.open().books
    books.idle = IdlePowers({})  # the bench has it configured
    for _ in range(15):
        bench.suspend(60)
        bench.tick(1, 10_000_000)
    learnt = bench.node.books.idle.of_use["cpu"].idle
    assert learnt is not None
    assert learnt.power_uw == pytest.approx(10_000_000, rel=0.01)


def test_by_how_much_ticks_begin_late_is_shown(bench: FoundBench) -> None:
    bench.open()
    bench.tick()
    for late_ns in (0, 5, 7_000_000):
        bench.clock.pass_(1)
        bench.node.tick(late=late_ns > 1000, late_ns=late_ns)
    snapshot = bench.node.snapshot()
    assert list(snapshot.agent_late_ns) == [0, 5, 7_000_000]
    assert snapshot.agent_ticks_late == 1


def test_a_cgroup_that_is_gone_between_two_ticks_was_billed_until_the_last_one(bench: FoundBench) -> None:
    bench.open("[export]\nhold_s = 3\n")
    bench.tick()
    for round_ in range(3):
        bench.find("night", "/jobs/night")
        bench.sim.use("/jobs/night", 100)
        bench.tick()
        bench.lose("/jobs/night")
        bench.tick()
        assert bench.receipt("night")["cpu_s"] == pytest.approx(0.1 * (round_ + 1))
        bench.page()
        for _ in range(5):
            bench.tick()
        page = bench.page()
        assert {s.labels["job_id"] for s in page if "job_id" in s.labels} == {"_retired"}
        bench.forget("night")
    assert Decimal(bench.receipt("night")["energy_uj"]) / 10**6 == total(
        bench.page(), "wattribute_job_energy_joules_total", job_id="_retired"
    )
