"""Any course of events on a node: jobs that overlap, nest, come back and fold, kills, reboots, other configurations.

Every page that is looked at adds up and never falls; what products billed is what jobs paid.
"""

import random

import pytest
from tests.agent.test_node import bench, workers
from tests.doubles.node_bench import Bench, Worker
from tests.e2e.running import total

from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import ProcessId, Role
from wattribute.agent.requests import JobEnd, JobStart, Peer

__all__ = ["bench", "workers"]  # fixtures

FEW = "[export]\nhold_s = 2\nmax_jobs = 4\n"
PRODUCTS = """
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
runs_on = ["platform", "elsewhere"]
parents = [{ id = "base", weight = 0.5 }]
[[product]]
id = "base"
kind = "model"
scope = "node"
epc_kgco2e = 100
lifetime_years = 4
[[product]]
id = "elsewhere"
concurrency = 3
overhead_g_per_min = 7
"""
CONFIGURATIONS = (
    FEW,
    FEW + PRODUCTS,
    FEW + PRODUCTS.replace('runs_on = ["platform", "elsewhere"]', ""),
    FEW + PRODUCTS.replace("480", "100").replace("60", "90"),
)
KINDS: dict[str, tuple[str, Role, tuple[str, ...]]] = {
    "a": ("platform", "platform", ()),
    "b": ("model", "creation", ("base",)),
    "c": ("model", "use", ()),
    "d": ("undeclared", "use", ("platform", "model")),
    "e": ("elsewhere", "retraining", ()),
    "f": ("default", "use", ()),
    "g": ("base", "use", ("elsewhere",)),
}
STEPS = ["start"] * 5 + ["end"] * 5 + ["tick"] * 6 + ["burn"] * 4 + ["kill"] * 2 + ["configure", "reboot"]


class Course:
    """One random course of events; `members` are those that are open, with their processes."""

    def __init__(self, node_bench: Bench, processes: list[Worker], seed: int) -> None:
        self._bench = node_bench
        self._processes = processes
        self._random = random.Random(seed)
        self._members: dict[tuple[str, str], int] = {}

    def step(self) -> None:
        """Do one thing, and look at the page half of the time."""
        bench, choose = self._bench, self._random.choice
        match choose(STEPS):
            case "start":
                self._start(choose(list(KINDS)), choose(["m", "n"]), choose(self._processes).pid)
            case "end" if self._members:
                (job_id, token), pid = choose(list(self._members.items()))
                bench.node.end(JobEnd(id=1, job_id=job_id, member=token), Peer(pid, 0, 0))
                del self._members[job_id, token]
            case "burn":
                choose(self._processes).burn(0.002)
            case "kill":
                bench.restart()
            case "configure":
                bench.restart(choose(CONFIGURATIONS))
            case "reboot":
                bench.reboot()
            case _:
                bench.tick(choose([0.05, 0.5, 1, 2.5]))
        # An end that the ledger was never told of is undone by a kill.
        live = bench.node.registry.jobs.items()
        # Jobs that run on the machine itself may be found beside those of the test.
        members = [(job_id, token, p) for job_id, job in live for token, p in job.members.items()]
        self._members = {(job_id, token): p.pid for job_id, token, p in members if isinstance(p, ProcessId)}
        if self._random.random() < 0.5:
            self._look()

    def _start(self, job_id: str, token: str, pid: int) -> None:
        product_id, role, uses = KINDS[job_id]
        parents = [None, *(job for (job, _), other in self._members.items() if other == pid)]
        request = JobStart(
            id=1,
            job_id=job_id,
            member=token,
            pid=pid,
            product_id=product_id,
            role=role,
            uses=uses,
            weight=self._random.choice([1, 2]),
            nodes=self._random.choice([1, 3]),
            parent_job_id=self._random.choice(parents),
        )
        try:
            self._bench.node.start(request, Peer(pid, 0, 0))
        except Refused:
            assert (job_id, token) in self._members
        self._bench.forget(job_id)

    def _look(self) -> None:
        page = self._bench.page()
        for term in ("platform", "product"):
            paid = total(page, "wattribute_job_co2e_grams_total", term=term)
            assert paid == total(page, "wattribute_product_billed_grams_total", term=term)
        for domain in ("cpu", "dram"):
            used = total(page, "wattribute_job_energy_joules_total", domain=domain)
            assert used == total(page, "wattribute_product_energy_joules_total", domain=domain)


@pytest.mark.parametrize("seed", range(3))
def test_any_course_of_events_adds_up_and_never_falls(bench: Bench, workers: list[Worker], seed: int) -> None:
    bench.open(FEW + PRODUCTS)
    bench.tick()
    course = Course(bench, workers, seed)
    for _ in range(100):
        course.step()
