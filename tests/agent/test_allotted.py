"""GPUs that a scheduler's files give to jobs (dcgm-exporter's --hpc-job-mapping-dir), on a node with two GPUs."""

from pathlib import Path

import pytest
from tests.agent.test_node import bench, workers
from tests.agent.test_node_gpu import driver, gpu_j
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.nvml import NvmlDouble, Process

__all__ = ["bench", "driver", "workers"]  # fixtures


@pytest.fixture
def folder(bench: Bench, driver: NvmlDouble, tmp_path: Path) -> Path:
    folder = tmp_path / "mapping"
    folder.mkdir()
    folder.chmod(0o755)
    bench.kill()
    bench.open(f'[jobs]\ngpu_map_dir = "{folder}"')
    bench.tick(0)
    return folder


def give(folder: Path, name: str, *job_ids: str) -> None:
    (folder / name).write_text("".join(f"{job_id}\n" for job_id in job_ids))


def test_a_job_holds_the_gpu_that_it_was_given_before_it_has_a_context(
    bench: Bench, workers: list[Worker], folder: Path
) -> None:
    bench.start("a", workers[0].pid)
    bench.tick()
    before = gpu_j(bench)[0]
    give(folder, "1", "a")
    bench.tick()
    bench.tick()
    assert gpu_j(bench)[0] - before >= 100
    (folder / "1").unlink()
    bench.tick()
    bench.tick()
    held = gpu_j(bench)[0]
    bench.tick()
    assert gpu_j(bench)[0] == held


def test_a_stranger_on_a_gpu_of_one_job_works_for_it_and_of_two_for_nobody(
    bench: Bench, workers: list[Worker], driver: NvmlDouble, folder: Path
) -> None:
    worker, other, stranger = workers
    bench.start("a", worker.pid)
    bench.start("b", other.pid)
    driver.gpus[0].processes(Process(stranger.pid))
    give(folder, "0", "a")
    bench.tick()
    bench.tick()
    a_j, strangers_j, _ = gpu_j(bench)
    assert a_j >= 100
    give(folder, "0", "a", "b")
    bench.tick()
    bench.tick()
    assert gpu_j(bench)[1] > strangers_j


def test_files_that_anybody_may_write_are_not_believed(bench: Bench, workers: list[Worker], folder: Path) -> None:
    bench.start("a", workers[0].pid)
    give(folder, "0", "a")
    (folder / "0").chmod(0o666)
    bench.tick()
    bench.tick()
    assert gpu_j(bench)[0] == 0


def test_a_folder_that_is_gone_is_told_and_costs_nothing_else(bench: Bench, folder: Path) -> None:
    folder.rmdir()
    bench.tick()
    bench.tick()
    health = {each["source"]: each for each in bench.node.health()["sources"]}
    assert not health["gpu-map"]["up"]
    assert "mkdir" in health["gpu-map"]["fix"]
