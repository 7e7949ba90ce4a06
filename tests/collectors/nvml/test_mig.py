"""MIG: the parts of a board that processes hold and the SM time they make, which add up to the board."""

from itertools import pairwise

import pytest
from tests.collectors.nvml.pick import S, busy, energies, faults, held, usage
from tests.doubles.nvml import GpuDouble, Instance, NvmlDouble, Process

from wattribute.agent.core.model import ProcessId
from wattribute.collectors.nvml import NvmlCollector

MS = 1_000_000
PPB = 1_000_000_000
A, B, C = ProcessId(100, 7), ProcessId(101, 7), ProcessId(102, 7)
BY_ACTIVITY = "energy counter, MIG: by slices and GPM activity"
BY_PRESENCE = "energy counter, MIG: by slices of instances with a process"
BY_HOLDERS = "energy counter, no SM time per process: equal parts of holders"


@pytest.fixture
def board(driver: NvmlDouble) -> GpuDouble:
    """An H100 cut into 3g, 2g and 1g, with 42, 28 and 14 SMs; one slice is nobody's, and the 1g has no process."""
    gpu = driver.gpus[0]
    gpu.mig()
    gpu.gpm()
    gpu.instances(Instance(1, 3, 42), Instance(2, 2, 28), Instance(9, 1, 14))
    gpu.processes(Process(100, instance=0), Process(101, instance=0), Process(102, 7 << 30, instance=1))
    return gpu


def test_all_parts_held_and_not_held_are_the_board(board: GpuDouble, collector: NvmlCollector) -> None:
    readings = collector.read()
    assert len(energies(readings)) == 1
    parts = held(readings)
    assert parts == {
        A: pytest.approx(PPB * 3 / 14, abs=1),
        B: pytest.approx(PPB * 3 / 14, abs=1),
        C: pytest.approx(PPB * 2 / 7, abs=1),
        "unallocated": pytest.approx(PPB / 7, abs=1),
    }
    empty_ppb = PPB - sum(part for part in parts.values() if part is not None)
    assert empty_ppb == pytest.approx(PPB / 7, abs=1)
    assert usage(readings)[C].memory_bytes == 7 << 30
    assert {reading.device for reading in usage(readings).values()} == {board.uuid}
    assert not faults(readings)


def test_slices_are_normalised_by_what_can_be_allocated(driver: NvmlDouble, collector: NvmlCollector) -> None:
    gpu = driver.gpus[0]
    gpu.mig(slices=4)  # an A30
    gpu.instances(*(Instance(n, 1, 14) for n in range(4)))
    gpu.processes(*(Process(100 + n, instance=n) for n in range(4)))
    parts = held(collector.read())
    assert [parts[ProcessId(100 + n, 7)] for n in range(4)] == [PPB // 4] * 4
    assert parts["unallocated"] == 0


def test_activity_of_an_instance_is_that_of_its_sms(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector
) -> None:
    board.activity(1, 0.5)
    board.activity(2, 1.0)
    assert set(busy(collector.read()).values()) == {0}
    for _ in range(10):
        driver.advance(S)
        spent = busy(collector.read())
    assert spent[A] + spent[B] == pytest.approx(5 * S * 42 / 84, abs=20)
    assert spent[A] == spent[B]
    assert spent[C] == pytest.approx(10 * S * 28 / 84, abs=20)
    assert collector.methods() == {board.uuid: BY_ACTIVITY}


def test_reads_closer_than_two_samples_may_be_lose_no_time(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector
) -> None:
    board.activity(2, 0.5)
    collector.read()
    driver.advance(150 * MS)
    grown_ns = [busy(collector.read())[C]]
    for _ in range(200):
        driver.advance(50 * MS)
        grown_ns.append(busy(collector.read())[C])
    assert grown_ns[-1] - grown_ns[0] == pytest.approx(5 * S * 28 / 84, abs=500)
    assert all(later > sooner for sooner, later in pairwise(grown_ns)), "no read without its part"
    assert driver.calls("gpm_sample") <= 3 * (200 // 3 + 3), "two samples are more than 100 ms apart"


def test_without_gpm_whoever_has_a_process_counts_as_busy(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector
) -> None:
    board.gpm(False)
    collector.read()
    driver.advance(S)
    readings = collector.read()
    assert busy(readings) == {A: S // 4, B: S // 4, C: pytest.approx(S / 3, abs=1)}
    assert not faults(readings), "an A100 has none: that is no fault"
    assert collector.methods() == {board.uuid: BY_PRESENCE}


@pytest.mark.parametrize(
    ("function", "code", "told"),
    [("gpm_support", 13, 0), ("gpm_support", 4, 1), ("gpm_sample", 4, 1), ("gpm_sample", 3, 1)],
)
def test_activity_that_is_refused_is_told_once_and_done_without(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector, function: str, code: int, told: int
) -> None:
    if function == "gpm_sample":
        collector.read()
    board.fail(function, code)
    driver.advance(S)
    readings = collector.read()
    before = busy(readings)[A]
    driver.advance(S)
    readings += collector.read()
    assert len(faults(readings)) == told
    assert busy(readings)[A] - before == S // 4
    driver.advance(S)
    assert not faults(collector.read())
    assert collector.methods() == {board.uuid: BY_PRESENCE}
    assert driver.calls("gpm_alloc") == driver.calls("gpm_free")


def test_activity_that_one_instance_lacks_is_used_for_none(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector
) -> None:
    board.activity(1, 0.1)
    board.fail_instance(1, "gpm_sample", 3)
    collector.read()
    driver.advance(S)
    assert busy(collector.read())[A] == S // 4, "half measured and half guessed would favour the guess"


def test_activity_that_fails_once_is_done_without_once(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector
) -> None:
    collector.read()
    board.fail("gpm_sample", 999)
    driver.advance(200 * MS)
    readings = collector.read()
    assert busy(readings)[A] == 50 * MS, "as if there were none"
    assert not faults(readings)
    board.fail("gpm_sample", 0)
    listed = driver.calls("mig_handle")
    driver.advance(200 * MS)
    assert busy(collector.read()) == busy(readings), "idle, and known to be"
    assert driver.calls("mig_handle") == listed + 7, "it may have been rebuilt"
    assert collector.methods() == {board.uuid: BY_ACTIVITY}


def test_activity_that_is_not_a_number_is_as_before(driver: NvmlDouble, board: GpuDouble) -> None:
    ours_ns = [S]
    collector = NvmlCollector(lambda: ours_ns[0], lambda pid: ProcessId(pid, 7), library=str(driver.library))
    board.activity(2, 0.5)
    collector.read()
    for step_ns in (S, 0):  # no time between two samples, by the driver's clock
        driver.advance(step_ns)
        ours_ns[0] += S
        readings = collector.read()
    assert busy(readings)[C] == pytest.approx(S * 28 / 84, abs=2)
    collector.close()


@pytest.mark.parametrize(("activity", "metric_error"), [(1.7, 0), (1.0, 3)], ids=["more than all", "another metric"])
def test_activity_is_capped_and_has_a_second_source(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector, activity: float, metric_error: int
) -> None:
    board.gpm(metric_error=metric_error)
    board.activity(2, activity)
    collector.read()
    driver.advance(S)
    assert busy(collector.read())[C] == pytest.approx(S / 3, abs=1)


def test_compute_instances_share_the_slices_of_their_gpu_instance_once(
    driver: NvmlDouble, collector: NvmlCollector
) -> None:
    gpu = driver.gpus[0]
    gpu.mig()
    gpu.gpm()
    gpu.instances(Instance(1, 4, 14, 0.5, 0), Instance(1, 4, 42, 0.5, 1), Instance(2, 3, 42, 1.0))
    gpu.processes(Process(100, instance=0), Process(101, instance=1), Process(102, instance=2))
    parts = held(collector.read())
    assert parts == {
        A: pytest.approx(PPB / 7, abs=2),
        B: pytest.approx(PPB * 3 / 7, abs=2),
        C: pytest.approx(PPB * 3 / 7, abs=2),
        "unallocated": 0,
    }
    assert sum(part for part in parts.values() if part is not None) == PPB
    driver.advance(S)
    spent = busy(collector.read())
    assert [spent[one] for one in (A, B, C)] == [pytest.approx(S * part, abs=3) for part in (7 / 98, 21 / 98, 42 / 98)]
    gpu.processes(Process(101, instance=1))
    driver.advance(S)
    collector.read()
    driver.advance(S)
    before = busy(collector.read())[B]
    driver.advance(S)
    readings = collector.read()
    assert busy(readings)[B] - before == pytest.approx(S * 28 / 98, abs=3), "the other one was idle: it had no process"
    assert held(readings)[B] == pytest.approx(PPB * 3 / 7, abs=2)


def test_who_leaves_pays_to_its_end_and_holds_no_more(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector
) -> None:
    board.activity(1, 1.0)
    collector.read()
    board.processes(Process(100, instance=0))
    driver.advance(S)
    readings = collector.read()
    assert busy(readings)[A] == busy(readings)[B] == S // 4
    assert held(readings)[A] == pytest.approx(PPB * 3 / 7, abs=1)
    assert held(readings)[B] == 0
    driver.advance(S)
    readings = collector.read()
    assert set(busy(readings)) == {A}
    assert busy(readings)[A] == S // 4 + S // 2


@pytest.mark.parametrize("reuse_handles", [False, True])
@pytest.mark.parametrize("after_ns", [100 * MS, S])
def test_instances_rebuilt_between_two_reads(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector, reuse_handles: bool, after_ns: int
) -> None:
    board.activity(1, 1.0)
    collector.read()
    driver.advance(S)
    before = busy(collector.read())
    board.instances(Instance(1, 1, 14), None, Instance(2, 4, 56, 1.0), reuse_handles=reuse_handles)
    board.processes(Process(101, instance=0), Process(100, instance=2))
    allocated = driver.calls("gpm_alloc")
    for _ in range(12):
        driver.advance(after_ns)
        readings = collector.read()
        now = busy(readings)
        assert all(now[one] >= before.get(one, 0) for one in now)
        before = now
    assert not faults(readings)
    assert driver.calls("gpm_alloc") - allocated == 4, "the same ids, but other instances"
    assert held(readings) == {
        A: pytest.approx(PPB * 4 / 7, abs=1),
        B: pytest.approx(PPB / 7, abs=1),
        "unallocated": pytest.approx(PPB * 2 / 7, abs=1),
    }
    driver.advance(S)
    grown = {one: busy_ns - before[one] for one, busy_ns in busy(collector.read()).items()}
    assert grown == {A: pytest.approx(S * 56 / 70, abs=2), B: 0}


@pytest.mark.parametrize("after_ns", [100 * MS, S])
def test_mig_switched_on_and_off_again(driver: NvmlDouble, collector: NvmlCollector, after_ns: int) -> None:
    gpu = driver.gpus[0]
    gpu.processes(Process(100, sm_percent=50, instance=0))
    gpu.instances(Instance(1, 7, 98))
    last_ns, told = 0, []
    for step in range(100):
        if step in (35, 65):
            gpu.mig(step == 35)
        readings = collector.read()
        told += faults(readings)
        assert energies(readings)
        spent_ns = busy(readings)[A]
        assert 0 <= spent_ns - last_ns <= after_ns + S
        last_ns = spent_ns
        driver.advance(after_ns)
        assert collector.methods()[gpu.uuid] in ("energy counter, split by SM time", BY_PRESENCE)
        if step not in (35, 65):  # at once, or with the next read
            assert (collector.methods()[gpu.uuid] == BY_PRESENCE) is (35 < step < 65)
    assert not told
    assert last_ns == pytest.approx((35 / 2 + 30 + 35 / 2) * after_ns, abs=4 * after_ns)


def test_processes_are_taken_from_the_board_where_mig_handles_have_none(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector
) -> None:
    for place in range(3):
        board.fail_instance(place, "compute", 3)
        board.fail_instance(place, "graphics", 3)
    readings = collector.read()
    assert set(busy(readings)) == {A, B, C}
    assert held(readings)[C] == pytest.approx(PPB * 2 / 7, abs=1)
    assert not faults(readings)
    board.fail("compute", 4)  # not even there
    driver.advance(S)
    readings = collector.read()
    assert [fault.domain.id for fault in faults(readings)] == [board.uuid]
    assert held(readings)["unallocated"] == pytest.approx(PPB / 7, abs=1)


@pytest.mark.parametrize("code", [4, 999])
def test_an_instance_that_cannot_be_read_leaves_the_others_alone(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector, code: int
) -> None:
    board.fail_instance(1, "compute", code)
    told = []
    for _ in range(30):
        readings = collector.read()
        told += faults(readings)
        assert set(busy(readings)) == {A, B}
        assert held(readings)["unallocated"] == pytest.approx(PPB / 7, abs=1), "its slices are somebody's"
        driver.advance(100 * MS)
    assert len(told) == 1
    assert "MIG-0-2-1" in told[0].cause
    assert driver.calls("mig_handle") <= 7 * (3 + 2), "not listed anew at each read"
    board.fail_instance(1, "compute", 0)
    assert set(busy(collector.read())) == {A, B, C}


def test_an_instance_that_cannot_be_looked_up_makes_the_rest_unknown_not_free(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector
) -> None:
    board.fail_instance(1, "attributes", 4)
    readings = collector.read()
    assert held(readings) == {A: pytest.approx(PPB * 3 / 14, abs=1), B: pytest.approx(PPB * 3 / 14, abs=1)}
    assert len(faults(readings)) == 1
    driver.advance(S)
    assert not faults(collector.read())


@pytest.mark.parametrize("code", [4, 13])
def test_a_driver_that_lists_no_instances_has_holders(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector, code: int
) -> None:
    board.fail("mig_count", code)
    readings = collector.read()
    assert held(readings) == {A: None, B: None, C: None}
    assert len(faults(readings)) == 1
    assert collector.methods() == {board.uuid: BY_HOLDERS}


def test_instances_are_listed_once_a_second(driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector) -> None:
    for _ in range(50):
        collector.read()
        driver.advance(100 * MS)
    assert driver.calls("mig_handle") == 7 * 5
    assert driver.calls("mig") <= 1 + 5


def test_what_nvml_allocates_is_given_back(driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector) -> None:
    for activity in (0.1, 0.2):
        collector.read()
        driver.advance(S)
        board.instances(Instance(1, 3, 42, activity), Instance(5, 4, 56))
    collector.read()
    collector.release()
    assert driver.calls("gpm_alloc") == driver.calls("gpm_free") > 0


def test_a_lost_board_in_mig_mode_comes_back(driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    collector.read()
    board.break_down(15)
    driver.advance(S)
    readings = collector.read()
    assert [fault.domain.id for fault in faults(readings)] == [board.uuid]
    assert set(energies(readings)) == {driver.gpus[1].uuid}
    board.break_down(0)
    driver.advance(2 * S)
    readings = collector.read()
    assert set(held(readings)) == {A, B, C, "unallocated"}
    driver.reload_driver()
    driver.advance(S)
    assert set(held(collector.read())) == {A, B, C, "unallocated"}


def test_a_board_beside_it_without_mig_is_split_by_sm_time(
    driver: NvmlDouble, board: GpuDouble, collector: NvmlCollector
) -> None:
    driver.count(2)
    other = driver.gpus[1]
    other.processes(Process(150, sm_percent=40))
    board.activity(2, 1.0)
    for _ in range(5):
        readings = collector.read()
        driver.advance(S)
    assert usage(readings)[ProcessId(150, 7)].device == other.uuid
    assert usage(readings)[ProcessId(150, 7)].held_ppb is None
    assert collector.methods() == {board.uuid: BY_ACTIVITY, other.uuid: "energy counter, split by SM time"}


def test_a_process_on_two_instances_is_told_once(board: GpuDouble, collector: NvmlCollector) -> None:
    board.processes(Process(100, 1 << 30, instance=0), Process(100, 2 << 30, instance=1))
    readings = [reading for reading in collector.read() if reading in usage([reading]).values()]
    assert [(r.consumer, r.memory_bytes) for r in usage(readings).values() if r.consumer == A] == [(A, 3 << 30)]
    assert held(readings)[A] == pytest.approx(PPB * 5 / 7, abs=1)
