"""GPU jobs on a node, through the stand-in driver: holders, strangers, a lost GPU, a process that dies."""

from collections.abc import Iterator

import pytest
from tests.agent.test_node import bench, workers
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.nvml import MissingCompiler, NvmlDouble, Process, Sample, in_process
from tests.e2e.running import total

from wattribute.agent import wiring
from wattribute.collectors.nvml import NvmlCollector

__all__ = ["bench", "workers"]  # fixtures

GPU_LOST = 15


@pytest.fixture
def driver(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[NvmlDouble]:
    """Two H100s at 100 W each, whose clock goes with the node's."""
    try:
        double = in_process()
    except MissingCompiler as missing:
        pytest.skip(str(missing))
    double.reset(2)
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
