"""Whose a context and a sample are: MPS servers, containers' pid namespaces; and the words for how it was counted."""

import threading
from pathlib import Path

import pytest
from tests.collectors.nvml.pick import S, busy, faults, held
from tests.doubles.nvml import Instance, NvmlDouble, Process, Sample

from wattribute.agent.core.model import ProcessId
from wattribute.collectors.nvml import NvmlCollector
from wattribute.collectors.nvml.processes import HIDDEN, Processes, command_in, in_nested_namespace

A, B, C = ProcessId(100, 7), ProcessId(101, 7), ProcessId(102, 7)


def name(proc: Path, pid: int, command: str) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "comm").write_text(command[:15] + "\n")


def open_collector(driver: NvmlDouble, proc: Path, *, nested: bool = False) -> NvmlCollector:
    return NvmlCollector(
        driver.now_ns,
        lambda pid: ProcessId(pid, 7) if pid < 200 else None,
        library=str(driver.library),
        proc=proc,
        nested=nested,
    )


def test_an_mps_server_is_its_clients(driver: NvmlDouble, tmp_path: Path) -> None:
    name(tmp_path, 100, "nvidia-cuda-mps-server")
    name(tmp_path, 101, "python")
    gpu = driver.gpus[0]
    gpu.processes(Process(100, sm_percent=60), Process(101), Process(102, sm_percent=20))
    collector = open_collector(driver, tmp_path)
    assert set(held(collector.read())) == {B, C}
    for _ in range(10):
        driver.advance(S)
        spent = busy(collector.read())
    assert spent == {B: pytest.approx(3 * S, rel=0.03), C: pytest.approx(5 * S, rel=0.03)}
    assert not faults(collector.read())


def test_an_mps_server_alone_holds_the_gpu_and_is_not_paid_twice(driver: NvmlDouble, tmp_path: Path) -> None:
    name(tmp_path, 100, "nvidia-cuda-mps-server")
    gpu = driver.gpus[0]
    gpu.processes(Process(100, sm_percent=50))
    collector = open_collector(driver, tmp_path)
    collector.read()
    for _ in range(4):
        driver.advance(S)
        alone_ns = busy(collector.read())[A]
    assert alone_ns == pytest.approx(2 * S, rel=0.05)
    gpu.processes(Process(100, sm_percent=50), Process(101))
    for _ in range(4):
        driver.advance(S)
        readings = collector.read()
        assert set(busy(readings)) == {B}
    assert busy(readings)[B] == pytest.approx(2 * S, rel=0.05)
    gpu.processes(Process(100))
    driver.advance(5 * S)
    collector.read()
    driver.advance(5 * S)
    assert busy(collector.read()) == {A: pytest.approx(0, abs=S // 2)}
    gpu.processes()
    driver.advance(S)
    collector.read()
    driver.advance(2 * S)
    assert busy(collector.read()) == {}


def test_an_mps_server_that_ends_before_its_clients_is_not_told(driver: NvmlDouble, tmp_path: Path) -> None:
    name(tmp_path, 100, "nvidia-cuda-mps-server")
    gpu = driver.gpus[0]
    gpu.processes(Process(100, sm_percent=50), Process(101))
    collector = open_collector(driver, tmp_path)
    for _ in range(3):
        driver.advance(S)
        collector.read()
    gpu.processes(Process(101))
    driver.advance(S // 2)
    assert set(busy(collector.read())) == {B}


def test_an_mps_server_in_a_mig_instance(driver: NvmlDouble, tmp_path: Path) -> None:
    name(tmp_path, 100, "nvidia-cuda-mps-server")
    gpu = driver.gpus[0]
    gpu.mig()
    gpu.instances(Instance(1, 4, 56))
    gpu.processes(*(Process(pid, instance=0) for pid in (100, 101, 102)))
    collector = open_collector(driver, tmp_path)
    collector.read()
    driver.advance(S)
    assert busy(collector.read()) == {B: S // 2, C: S // 2}


def test_names_are_read_once_a_process() -> None:
    asked: list[int] = []

    def command_of(pid: int) -> str:
        asked.append(pid)
        return "python"

    starts = {1: 1, 2: 1}
    processes = Processes(lambda pid: ProcessId(pid, starts[pid]) if pid in starts else None, command_of)
    for _ in range(3):
        processes.begin_read()
        assert processes.sort([1, 2, 3])[0] == {1: ProcessId(1, 1), 2: ProcessId(2, 1), 3: ProcessId(3, HIDDEN)}
    assert asked == [1, 2]
    starts[2] = 9
    processes.begin_read()
    processes.sort([1, 2])
    assert asked == [1, 2, 2]


def test_proc_names_processes_and_namespaces(tmp_path: Path) -> None:
    name(tmp_path, 5, "nvidia-cuda-mps-control")
    assert command_in(tmp_path)(5) == "nvidia-cuda-mps"
    assert command_in(tmp_path)(6) == ""
    assert not in_nested_namespace(tmp_path)
    (tmp_path / "self" / "ns").mkdir(parents=True)
    link = tmp_path / "self" / "ns" / "pid"
    link.symlink_to("pid:[4026531836]")
    assert not in_nested_namespace(tmp_path)
    link.unlink()
    link.symlink_to("pid:[4026532201]")
    assert in_nested_namespace(tmp_path)


@pytest.mark.parametrize("nested", [False, True])
def test_one_process_under_two_pids(driver: NvmlDouble, tmp_path: Path, nested: bool) -> None:
    """In a container newer drivers translate the pids of contexts, and not those of samples (HAMi-core#112)."""
    gpu = driver.gpus[0]
    gpu.processes(Process(100))
    collector = open_collector(driver, tmp_path, nested=nested)
    gpu.samples(Sample(645_400, 1_000_000, 50))
    collector.read()
    driver.advance(S)
    gpu.samples(Sample(645_400, 2_000_000, 50))
    spent = busy(collector.read())
    stranger = ProcessId(645_400, HIDDEN)
    assert spent == ({A: S // 2} if nested else {A: 0, stranger: S // 2})


def test_in_doubt_a_sample_is_nobodys_in_a_container_too(driver: NvmlDouble, tmp_path: Path) -> None:
    gpu = driver.gpus[0]
    gpu.processes(Process(100), Process(101))
    collector = open_collector(driver, tmp_path, nested=True)
    gpu.samples()
    collector.read()
    driver.advance(S)
    gpu.samples(Sample(500, 1_000_000, 50), Sample(501, 1_000_001, 40))
    spent = busy(collector.read())
    assert (spent[A], spent[B]) == (0, 0)
    assert spent[ProcessId(500, HIDDEN)] > 0
    driver.advance(S)
    gpu.samples(Sample(100, 2_000_000, 50), Sample(501, 2_000_000, 40))
    spent = busy(collector.read())
    assert spent[A] > 0
    assert spent[B] > 0, "the other one's own pid is known, so only one answer is left"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("", "energy counter, split by SM time"),
        ("utilization", "energy counter, no SM time per process: equal parts of holders"),
        ("energy", "averaged power (field), split by SM time"),
        ("fields", "averaged power, split by SM time"),
    ],
)
def test_the_method_of_each_number_in_words(
    driver: NvmlDouble, collector: NvmlCollector, function: str, words: str
) -> None:
    gpu = driver.gpus[0]
    if function in ("energy", "fields"):
        gpu.fail("energy", 3)
    if function:
        gpu.fail(function, 3)
    assert collector.methods() == {}
    collector.read()
    assert collector.methods() == {gpu.uuid: words}


@pytest.mark.parametrize("code", [3, 13])
def test_sm_time_that_ends_for_good_leaves_equal_parts(driver: NvmlDouble, collector: NvmlCollector, code: int) -> None:
    gpu = driver.gpus[0]
    gpu.processes(Process(100, sm_percent=50), Process(101))
    collector.read()
    gpu.fail("utilization", code)
    driver.advance(S)
    readings = collector.read()
    assert set(busy(readings)) == {A, B}
    assert "any more" in faults(readings)[0].cause
    assert collector.methods()[gpu.uuid] == "energy counter, no SM time per process: equal parts of holders"
    asked = driver.calls("utilization")
    driver.advance(S)
    assert not faults(collector.read())
    assert driver.calls("utilization") == asked


def test_methods_may_be_asked_by_another_thread(driver: NvmlDouble, collector: NvmlCollector) -> None:
    gpu = driver.gpus[0]
    stop = threading.Event()
    seen: set[str] = set()

    def ask() -> None:
        while not stop.is_set():
            seen.update(collector.methods().values())

    thread = threading.Thread(target=ask)
    thread.start()
    for step in range(200):
        driver.count(1 + step % 2)
        gpu.mig(step % 3 == 0)
        driver.advance(61 * S)
        collector.read()
    stop.set()
    thread.join()
    before = collector.methods()
    gpu.mig(not collector.methods()[gpu.uuid].endswith("process"))
    driver.advance(S)
    collector.read()
    assert before is not collector.methods(), "replaced, not changed"
    assert seen
