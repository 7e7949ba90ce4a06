"""Contexts and SM time per process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.collectors.nvml.pick import S, busy, energies, faults
from tests.doubles.nvml import NvmlDouble, Process, Sample

from wattribute.agent.core.model import ProcessId
from wattribute.agent.core.model import UsageReading as Usage
from wattribute.collectors.nvml import NvmlCollector
from wattribute.collectors.nvml import usage as sm
from wattribute.collectors.nvml.processes import HIDDEN, Processes
from wattribute.collectors.nvml.usage import SmTime


def test_contexts_are_told_with_their_memory(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].processes(Process(100, 5 << 30), Process(101, None), Process(102, 1 << 20, graphics=True))
    readings = [reading for reading in collector.read() if isinstance(reading, Usage)]
    assert [(r.consumer, r.memory_bytes, r.busy_ns, r.device, r.domain_kind) for r in readings] == [
        (ProcessId(100, 7), 5 << 30, 0, driver.gpus[0].uuid, "gpu"),
        (ProcessId(101, 7), None, 0, driver.gpus[0].uuid, "gpu"),
        (ProcessId(102, 7), 1 << 20, 0, driver.gpus[0].uuid, "gpu"),
    ]


def test_a_process_that_computes_and_draws_counts_once(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].processes(Process(100, 1 << 30), Process(100, 1 << 30, graphics=True))
    assert list(busy(collector.read())) == [ProcessId(100, 7)]


def test_busy_time_follows_sm_use_and_no_sample_counts_twice(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].processes(Process(100, sm_percent=60), Process(101, sm_percent=20))
    collector.read()
    for _ in range(10):
        driver.advance(S)
        collector.read()
        collector.read()  # nothing new: NOT_FOUND
    spent = busy(collector.read())
    assert spent[ProcessId(100, 7)] == pytest.approx(6 * S, rel=0.02)
    assert spent[ProcessId(100, 7)] == 3 * spent[ProcessId(101, 7)]


def test_samples_from_before_the_first_read_are_not_ours(driver: NvmlDouble, collector: NvmlCollector) -> None:
    gpu = driver.gpus[0]
    gpu.processes(Process(100))
    gpu.samples(Sample(150, 500_000, 90), *(Sample(100, 1_000_000 * second, 90) for second in range(1, 10)))
    assert busy(collector.read()) == {ProcessId(100, 7): 0}
    driver.advance(S)
    assert busy(collector.read()) == {ProcessId(100, 7): 0}
    gpu.samples(Sample(100, 9_000_000, 90), Sample(100, 10_000_000, 50))
    driver.advance(S)
    assert busy(collector.read()) == {ProcessId(100, 7): S // 2}


def test_an_answer_of_success_without_samples_is_no_error(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].processes(Process(100))
    driver.gpus[0].samples(success_when_empty=True)
    for _ in range(2):
        readings = collector.read()
        assert busy(readings) == {ProcessId(100, 7): 0}
        assert not faults(readings)
        driver.advance(S)


def test_garbage_samples_are_dropped(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].processes(Process(100))
    collector.read()
    driver.advance(S)
    driver.gpus[0].samples(Sample(0, 5_000_000, 50), Sample(100, 5_000_000, 4321))
    assert busy(collector.read()) == {ProcessId(100, 7): 0}


def test_an_idle_stretch_is_not_credited_to_who_comes_after(driver: NvmlDouble, collector: NvmlCollector) -> None:
    gpu = driver.gpus[0]
    gpu.processes(Process(100))
    gpu.samples(Sample(100, 1_000_000, 50))
    collector.read()
    driver.advance(60 * S - S)
    collector.read()
    driver.advance(S)
    gpu.samples(Sample(100, 61_000_000, 50))
    assert busy(collector.read())[ProcessId(100, 7)] <= S


def test_a_process_that_just_left_keeps_its_last_samples(
    driver: NvmlDouble, collector: NvmlCollector, alive: dict[int, int]
) -> None:
    gpu = driver.gpus[0]
    gpu.processes(Process(100))
    gpu.samples(Sample(100, 1_000_000, 50))
    collector.read()
    driver.advance(S)
    del alive[100]
    gpu.processes()
    gpu.samples(Sample(100, 2_000_000, 50))
    assert busy(collector.read()) == {ProcessId(100, 7): S // 2}
    driver.advance(S)
    assert busy(collector.read()) == {}


def test_a_pid_we_cannot_see_is_nobody_known(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].processes(Process(645400, sm_percent=100))
    collector.read()
    driver.advance(S)
    assert busy(collector.read()) == {ProcessId(645400, HIDDEN): pytest.approx(S, rel=0.11)}


def test_a_sample_alone_never_bills_an_unrelated_process(driver: NvmlDouble, collector: NvmlCollector) -> None:
    """Newer drivers translate the pids of contexts into our namespace, but not those of samples."""
    gpu = driver.gpus[0]
    gpu.processes(Process(100))
    gpu.samples()
    collector.read()
    driver.advance(S)
    gpu.samples(Sample(150, 1_000_000, 50))  # 150 lives here too, but holds no context
    assert busy(collector.read()) == {ProcessId(100, 7): 0, ProcessId(150, HIDDEN): S // 2}


def test_a_recycled_pid_does_not_inherit(driver: NvmlDouble, collector: NvmlCollector, alive: dict[int, int]) -> None:
    driver.gpus[0].processes(Process(100, sm_percent=100))
    collector.read()
    driver.advance(S)
    collector.read()
    alive[100] = 8
    driver.advance(S)
    spent = busy(collector.read())
    assert spent[ProcessId(100, 8)] == 0
    assert ProcessId(100, 7) not in spent
    assert spent[ProcessId(100, HIDDEN)] > 0, "whose the samples of that second were can't be known"


def test_a_process_is_identified_once_a_read_however_many_gpus_it_holds(driver: NvmlDouble) -> None:
    driver.count(4)
    asked: list[int] = []

    def identify(pid: int) -> ProcessId:
        asked.append(pid)
        return ProcessId(pid, 1)

    for gpu in driver.gpus:
        gpu.processes(Process(100))
    collector = NvmlCollector(clock=driver.now_ns, identify=identify, library=str(driver.library))
    assert len(collector.read()) == 8
    collector.close()
    assert asked == [100]


def test_more_contexts_than_a_list_holds_at_first(driver: NvmlDouble, collector: NvmlCollector) -> None:
    collector.read()
    driver.gpus[0].processes(*(Process(100 + n) for n in range(32)))
    driver.advance(S)
    assert len(busy(collector.read())) == 32


@pytest.mark.parametrize("function", ["compute", "graphics", "utilization"])
@pytest.mark.parametrize("code", [3, 4, 13, 999])
def test_energy_is_read_even_if_its_users_are_not(
    driver: NvmlDouble, collector: NvmlCollector, function: str, code: int
) -> None:
    driver.gpus[0].processes(Process(100, sm_percent=50))
    driver.gpus[0].fail(function, code)
    readings = collector.read()
    assert energies(readings)
    assert len(faults(readings)) == 1
    asked = driver.calls(function)
    driver.advance(S)
    readings = collector.read()
    assert energies(readings)
    assert not faults(readings), "told once"
    assert driver.calls(function) == asked, "probed once"


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20_000_000), st.integers(0, 130)), max_size=40))
def test_busy_time_never_falls_nor_exceeds_the_wall(answers: list[tuple[int, int, int]]) -> None:
    account = SmTime("GPU-x", Processes(lambda pid: ProcessId(pid, 1)))
    contexts: dict[int, int | None] = {1: None, 2: None}
    last: dict[ProcessId, int] = {}
    account.advance(0, contexts, [])
    for second, start in enumerate(range(0, len(answers), 4), 1):
        batch = [sm.Sample(*answer) for answer in answers[start : start + 4]]
        now = busy(account.advance(second * S, contexts, batch))
        for consumer, busy_ns in now.items():
            assert last.get(consumer, 0) <= busy_ns <= second * S
        last = now


def test_who_leaves_and_returns_starts_anew() -> None:
    account = SmTime("GPU-x", Processes(lambda pid: ProcessId(pid, 1)))
    account.advance(0, {1: None}, [sm.Sample(1, 1_000_000, 0)])
    (first,) = account.advance(S, {1: None}, [sm.Sample(1, 2_000_000, 100)])
    assert first.busy_ns == S
    (left,) = account.advance(2 * S, {}, [])
    assert (left.busy_ns, left.held_ppb) == (S, 0)
    assert account.advance(3 * S, {}, []) == []
    (again,) = account.advance(4 * S, {1: None}, [])
    assert again.busy_ns == 0


def test_where_stamps_are_in_step_a_process_without_one_was_idle() -> None:
    """B is busy in every third tick: what lies between is not its, though it is shorter than some driver's period."""
    time = SmTime("GPU-x", Processes(lambda pid: ProcessId(pid, 1)))
    contexts: dict[int, int | None] = {1: None, 2: None}
    time.advance(0, contexts, [])
    for tick in range(1, 301):
        samples = [sm.Sample(1, tick * 300_000, 50)]
        if tick % 3 == 0:
            samples.append(sm.Sample(2, tick * 300_000, 50))
        for hundred in range(3):
            spent = busy(time.advance((3 * tick + hundred) * S // 10, contexts, samples if hundred == 0 else []))
    assert spent[ProcessId(1, 1)] == pytest.approx(45 * S, rel=0.01)
    assert spent[ProcessId(2, 1)] == pytest.approx(15 * S, rel=0.02)
