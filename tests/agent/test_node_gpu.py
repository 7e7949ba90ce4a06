"""GPU jobs on a node, through the stand-in driver: holders, strangers, a lost GPU, a process that dies."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.agent.test_node import bench, workers
from tests.doubles.found_bench import FoundBench
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.nvml import GpuDouble, Instance, MissingCompiler, NvmlDouble, Process, Sample, in_process
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import total

from wattribute.agent import wiring
from wattribute.agent.core.idle_powers import IdlePowers
from wattribute.agent.core.model import Policy
from wattribute.collectors.nvml import NvmlCollector

__all__ = ["bench", "workers"]  # fixtures

GPU_LOST = 15


@pytest.fixture
def driver(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[NvmlDouble]:
    """Two H100s at 100 W each, whose clock goes with the node's."""
    yield from drive(bench, monkeypatch, 2)


@pytest.fixture
def found(tmp_path: Path) -> Iterator[FoundBench]:
    """A node whose processes live in simulated cgroups."""
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = FoundBench(tmp_path, tree.add_package())
        yield made
        made.close()


@pytest.fixture
def board(found: FoundBench, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuDouble]:
    """An H100 of that node, at 100 W."""
    for double in drive(found, monkeypatch, 1):
        yield double.gpus[0]


def drive(bench: Bench, monkeypatch: pytest.MonkeyPatch, gpus: int) -> Iterator[NvmlDouble]:
    try:
        double = in_process()
    except MissingCompiler as missing:
        pytest.skip(str(missing))
    double.reset(gpus)
    double.freeze()
    library = str(double.library)
    monkeypatch.setattr(
        wiring, "_nvml", lambda config, clock, identify: NvmlCollector(clock.monotonic_ns, identify, library=library)
    )
    bench.clock.on_pass = double.advance
    bench.open(collectors='modelled = "off"\nnvml = "auto"')
    bench.tick()
    yield double
    double.reset()


def gpu_j(bench: Bench) -> tuple[float, float, float]:
    """Joules of GPUs: job a's, strangers', nobody's."""
    page = bench.page()
    nobody = "wattribute_node_unattributed_joules_total"
    return (
        float(total(page, "wattribute_job_energy_joules_total", domain="gpu", job_id="a")),
        float(total(page, nobody, domain="gpu", reason="unregistered")),
        float(total(page, nobody, domain="gpu", reason="idle")),
    )


def test_who_holds_a_gpu_pays_for_it(bench: Bench, workers: list[Worker], driver: NvmlDouble) -> None:
    worker, stranger, _ = workers
    gpu = driver.gpus[0]
    gpu.processes(Process(worker.pid))
    bench.start("a", worker.pid)
    bench.tick()
    assert gpu_j(bench) == (105, 0, 105)
    gpu.processes(Process(worker.pid), Process(stranger.pid))
    bench.tick()
    assert gpu_j(bench) == (155, 50, 205)
    gpu.break_down(GPU_LOST)
    for _ in range(4):
        bench.tick()
    assert gpu_j(bench)[:2] == (155, 50)
    gpu.break_down(0)
    for _ in range(9):
        bench.tick()
        bench.page()
    assert gpu_j(bench) == (805, 700, 1505)  # what it counted while it was lost is in the next window
    bench.restart()
    bench.tick()
    assert sum(gpu_j(bench)) == 3210


def test_a_process_that_dies_between_two_reads_pays_what_it_used(
    bench: Bench, workers: list[Worker], driver: NvmlDouble
) -> None:
    worker, gpu = workers[0], driver.gpus[0]
    gpu.processes(Process(worker.pid))
    bench.start("a", worker.pid)
    bench.tick()
    before_j, _, _ = gpu_j(bench)
    gpu.samples(Sample(worker.pid, driver.now_ns() // 1000 + 400_000, 90))
    gpu.processes()
    worker.kill()
    bench.tick(0.5)
    assert bench.receipt("a")["ended_at"]
    assert gpu_j(bench)[0] == before_j + 50
    bench.tick()
    assert gpu_j(bench)[0] == before_j + 50
    used_s = bench.receipt("a")["gpu_sm_s"]
    bench.restart()
    assert bench.receipt("a")["gpu_sm_s"] == used_s > 0
    assert total(bench.page(), "wattribute_job_gpu_info", job_id="a", gpu_uuid=gpu.uuid) == 1


def job_j(bench: Bench, job_id: str, **labels: str) -> float:
    """Joules of GPUs of a job."""
    return float(total(bench.page(), "wattribute_job_energy_joules_total", domain="gpu", job_id=job_id, **labels))


def test_a_process_that_nobody_registered_holds_its_gpu_for_the_job_whose_cgroup_it_lives_in(
    found: FoundBench, board: GpuDouble
) -> None:
    found.find("pod", "/pods/p/c")
    found.tick()
    server, stranger = found.sim.fork("/pods/p/c"), found.sim.fork("/system.slice/wattribute.service")
    board.processes(Process(server.pid))
    found.tick()
    before = job_j(found, "pod")
    found.tick()
    assert job_j(found, "pod") - before == 100
    board.processes(Process(server.pid), Process(stranger.pid))
    found.tick()
    assert job_j(found, "pod") - before == 150
    session = found.sim.fork("/pods/p/c", server)
    found.start("inside", session.pid)
    board.processes(Process(session.pid))
    found.tick()
    found.tick()
    inside, before = job_j(found, "inside"), job_j(found, "pod")
    found.tick()
    assert (job_j(found, "inside") - inside, job_j(found, "pod") - before) == (100, 0)
    found.page()


def test_what_a_removed_cgroup_used_of_a_gpu_is_still_its_jobs(found: FoundBench, board: GpuDouble) -> None:
    found.find("pod", "/pods/p/c")
    server = found.sim.fork("/pods/p/c")
    board.processes(Process(server.pid, sm_percent=80))
    for _ in range(4):
        found.tick()
    before = job_j(found, "pod")
    board.processes()
    found.lose("/pods/p/c")
    found.tick(0.5)
    assert found.receipt("pod")["ended_at"]
    assert job_j(found, "pod") - before == 50
    found.tick()
    assert job_j(found, "pod") - before == 50
    found.page()


def cut(bench: FoundBench, board: GpuDouble, idle: Policy) -> None:
    """Seven slices: a (found) has an instance of 3, b (registered) one of 1, one of 2 has no process, 1 is left."""
    rules = bench.node.books.rules
    bench.node.books.rules = replace(rules, idle=idle)
    bench.node.books.idle = IdlePowers({**rules.idle_uw, ("gpu", "measured"): 70_000_000})
    board.mig()
    board.gpm()
    board.instances(Instance(1, 3, 42, 0.5), Instance(2, 2, 28), Instance(3, 1, 14, 1.0))
    bench.find("a", "/jobs/a")
    bench.sim.make("/user.slice")
    a, b = bench.sim.fork("/jobs/a"), bench.sim.fork("/user.slice")
    board.processes(Process(a.pid, instance=0), Process(b.pid, instance=2))
    bench.tick()
    bench.start("b", b.pid)
    for _ in range(3):
        bench.tick()


@pytest.mark.parametrize(
    ("policy", "a_j", "b_j", "reason"),
    [
        ("reserved", 30, 10, "unreserved"),
        ("equal", 30, 30, "idle"),
        ("usage", 36, 24, "idle"),
        ("unattributed", 0, 0, "idle"),
    ],
)
def test_a_cut_board_sums_to_its_counter_by_every_policy(
    found: FoundBench, board: GpuDouble, policy: Policy, a_j: float, b_j: float, reason: str
) -> None:
    """SM time, by activity: half of a's 42 SMs and all of b's 14, so 3 to 2; idle 70 of 100 W, a seventh nobody's."""

    def look() -> dict[str, float]:
        page = found.page()
        jobs, nobodys = "wattribute_job_energy_joules_total", "wattribute_node_unattributed_joules_total"
        of_jobs = {
            f"{job} {share}": float(total(page, jobs, domain="gpu", job_id=job, share=share))
            for job in "ab"
            for share in ("direct", "idle")
        }
        reasons = ("unallocated", "unreserved", "idle", "unregistered")
        left = {each: float(total(page, nobodys, domain="gpu", reason=each)) for each in reasons}
        whole = float(total(page, "wattribute_node_energy_joules_total", domain="gpu"))
        return of_jobs | left | {"board": whole}

    cut(found, board, policy)
    before = look()
    for _ in range(10):
        found.tick()
    after = look()
    gained = {key: (after[key] - before[key]) / 10 for key in after}
    expected = dict.fromkeys(gained, 0.0)
    expected |= {"board": 100, "unallocated": 10, "a direct": 18, "b direct": 12, "a idle": a_j, "b idle": b_j}
    expected[reason] = 60 - a_j - b_j
    assert gained == pytest.approx(expected, abs=1e-5)


def test_the_making_of_a_cut_board_follows_what_is_held_of_it(found: FoundBench, board: GpuDouble) -> None:
    cut(found, board, "reserved")

    def grams(**labels: str) -> float:
        return float(total(found.page(), "wattribute_job_co2e_grams_total", term="hardware", **labels))

    before = grams(job_id="a"), grams(job_id="b"), float(total(found.page(), "wattribute_node_co2e_grams_total"))
    whole = total(found.page(), "wattribute_node_co2e_grams_total", term="hardware")
    for _ in range(100):
        found.tick(2)
    node_g = float(total(found.page(), "wattribute_node_co2e_grams_total", term="hardware") - whole)
    assert grams(job_id="a") - before[0] == pytest.approx(node_g * 3 / 7, rel=1e-4)
    assert grams(job_id="b") - before[1] == pytest.approx(node_g / 7, rel=1e-4)
