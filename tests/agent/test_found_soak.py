"""Any course of events among found jobs: cgroups that come, nest, go and come anew, sessions in them, restarts, sleep.

Every page that is looked at adds up and never falls, and no nanosecond of CPU time is billed to two jobs.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from benchmarks.truthbench.kernel import Process
from tests.doubles.found_bench import FoundBench
from tests.doubles.found_node import unavailable
from tests.doubles.node_bench import S
from tests.doubles.powercap import PowercapTree

from wattribute.agent.core.errors import Refused
from wattribute.agent.core.found import Reservation
from wattribute.agent.core.model import CPU_NS_SLOT
from wattribute.agent.groups import RECHECK_NS
from wattribute.agent.ledger.reader import read_only

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

PATHS = ("/jobs/a", "/jobs/b", "/jobs/a/x", "/jobs/a/x/1", "/pods/p/c", "/system.slice/vllm.service")
CONFIGURATION = """
[export]
hold_s = 4
max_jobs = 6
[carbon]
intensity_g_per_kwh = 480
pue = 1.2
[[product]]
id = "platform"
kind = "platform"
scope = "node"
overhead_g_per_min = 60
[[product]]
id = "model"
kind = "model"
scope = "node"
epc_kgco2e = 1000
lifetime_years = 4
runs_on = ["platform"]
"""
STEPS = (
    ["find"] * 6
    + ["lose"] * 4
    + ["use"] * 8
    + ["burn"] * 4
    + ["fork"] * 2
    + ["session"] * 3
    + ["end", "exit", "forget", "fail", "restart", "sleep", "move"]
    + ["tick"] * 8
)


class Course:
    """One random course of events."""

    def __init__(self, bench: FoundBench, seed: int) -> None:
        self._bench = bench
        self._random = Random(seed)
        self._workers: dict[int, Process] = {}
        self._sessions: dict[tuple[str, str], int] = {}
        self._names: set[str] = set()
        self._folded: dict[str, list[int] | None] = {}

    def step(self) -> None:
        """Do one thing, and look at the page now and then."""
        bench, choose = self._bench, self._random.choice
        path = choose(PATHS)
        worker = choose(list(self._workers.values())) if self._workers else None
        match choose(STEPS):
            case "find":
                self._find(path)
            case "lose":
                self._lose(path)
            case "use":
                bench.sim.use(choose(list(bench.sim.cgroups._groups)), self._random.choice([1, 20, 300]))
            case "burn" if worker is not None:
                bench.sim.burn(worker, self._random.choice([1, 20, 300]))
            case "fork":
                home = choose([each for each in bench.sim.cgroups._groups if each != "/"])
                made = bench.sim.fork(home, memory_bytes=1 << self._random.randrange(20, 33))
                self._workers[made.pid] = made
            case "session" if worker is not None:
                self._session(worker)
            case "end" if self._sessions:
                (job_id, token), pid = choose(list(self._sessions.items()))
                if pid in self._workers and token in bench.node.registry.jobs[job_id].members:
                    bench.end(job_id, pid, token)
                del self._sessions[job_id, token]
            case "exit" if worker is not None:
                self._exit(worker.pid)
            case "move" if worker is not None:
                bench.sim.move(worker, choose([each for each in bench.sim.cgroups._groups if each != "/"]))
                bench.tick(RECHECK_NS / S)  # it is billed twice until it is looked at again, and less after that
            case "forget":
                bench.source.tell(*[found for found in bench.told.values() if self._random.random() < 0.5])
            case "fail":
                bench.source.error = choose([None, None, unavailable(), RuntimeError("a bug")])
            case "restart":
                bench.restart()
            case "sleep":
                bench.suspend(self._random.choice([0.2, 30]))
            case _:
                bench.tick(self._random.choice([0.05, 0.5, 1, 2.5]))
                if self._random.random() < 0.3:
                    bench.source.tell(*bench.told.values())
        if self._random.random() < 0.3:
            self._look()

    def look(self) -> None:
        """Once everything is read."""
        self._bench.tick()
        self._look()

    def _find(self, path: str) -> None:
        bench, choose = self._bench, self._random.choice
        job_id = choose(["one", "two", path[1:]])
        limits = [Reservation(1000), Reservation(memory_bytes=1 << 30), Reservation(exclusive=True)]
        reserved = choose([Reservation(), *limits])
        product_id = choose(["", "", "model", "tag"])
        uid = bench.peer_uid + choose([0, 0, 0, 1])
        if bench.source.error is None and path not in bench.sim.cgroups._groups:
            bench.find(job_id, path, reserved=reserved, product_id=product_id, uid=uid)
            bench.tick(0.05)  # what is recognised late has all of its past, though others may have had some of it

    def _lose(self, path: str) -> None:
        bench = self._bench
        there = bench.sim.cgroups._groups
        if path in there and not any(other.startswith(f"{path}/") for other in there):
            for pid in [pid for pid, home in bench.sim.homes.items() if home == path]:
                self._exit(pid)
            bench.lose(path)

    def _exit(self, pid: int) -> None:
        self._bench.sim.exit(self._workers.pop(pid))

    def _session(self, worker: Process) -> None:
        bench, choose = self._bench, self._random.choice
        job_id, token = choose(["one", "two", "own", "jobs/a"]), choose(["m", "n"])
        parents = [job for (job, _), pid in self._sessions.items() if pid == worker.pid]
        parent = choose([None, *parents])
        product_id = choose(["default", "model", "tag"])
        try:
            bench.start(job_id, worker.pid, token, product_id=product_id, parent_job_id=parent)
        except Refused:
            return
        bench.forget(job_id)
        self._sessions[job_id, token] = worker.pid

    def _look(self) -> None:
        bench = self._bench
        for name, live in bench.node.registry.jobs.items():
            if live.folded_values != self._folded.get(name):
                bench.forget(name)  # its series began anew
            self._folded[name] = live.folded_values
        self._names |= bench.node.registry.jobs.keys()
        bench.page()
        lives = [bench.node.registry.jobs.get(name) or bench.node.record.finished(name) for name in self._names]
        billed_ns = sum(live.entry.values[CPU_NS_SLOT] for live in lives if live is not None)
        assert billed_ns <= bench.sim.cgroups.usage_ns("/"), (billed_ns, bench.sim.cgroups.usage_ns("/"))


@pytest.fixture(params=["v1", "v2"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FoundBench]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = FoundBench(tmp_path, tree.add_package(), request.param)
        yield made
        made.close()
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []


@pytest.mark.parametrize("seed", range(4))
def test_any_course_of_events_adds_up_never_falls_and_bills_each_nanosecond_once(bench: FoundBench, seed: int) -> None:
    bench.open(CONFIGURATION)
    bench.tick()
    course = Course(bench, seed)
    for _ in range(150):
        course.step()
    course.look()
