"""Lost GPUs, reloaded drivers, refused permissions: cut as small as they are."""

import pytest
from tests.collectors.nvml.pick import S, energies, energy, faults
from tests.doubles.nvml import NvmlDouble

from wattribute.agent.core.counters import between
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Gap
from wattribute.collectors.nvml import NvmlCollector


@pytest.mark.parametrize("code", [15, 16])
def test_a_lost_gpu_leaves_the_others_alone_and_comes_back(
    driver: NvmlDouble, collector: NvmlCollector, code: int
) -> None:
    driver.count(3)
    collector.read()
    lost = driver.gpus[1]
    lost.break_down(code)
    driver.advance(S)
    readings = collector.read()
    assert [fault.domain.id for fault in faults(readings)] == [lost.uuid]
    assert faults(readings)[0].fix
    assert set(energies(readings)) == {driver.gpus[0].uuid, driver.gpus[2].uuid}
    assert [uuid for uuid, read in collector.devices().items() if not read] == [lost.uuid]
    lost.break_down(0)
    driver.advance(S)
    assert len(energies(collector.read())) == 3
    assert all(collector.devices().values())


def test_a_lost_gpu_is_asked_less_and_less(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    collector.read()
    driver.gpus[0].break_down(15)
    told = 0
    for _ in range(100):
        driver.advance(S)
        told += len(faults(collector.read()))
    assert told == 7  # at 1, 2, 4, 8, 16, 32 and 64 s


def test_a_gpu_lost_from_the_start_is_told_without_an_identity(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    driver.gpus[1].break_down(15)
    readings = collector.read()
    assert list(energies(readings)) == [driver.gpus[0].uuid]
    assert [fault.domain.id for fault in faults(readings)] == ["unidentified-1"]
    assert collector.devices() == {driver.gpus[0].uuid: True, "unidentified-1": False}
    driver.gpus[1].break_down(0)
    driver.advance(61 * S)
    collector.read()
    assert collector.devices() == dict.fromkeys([gpu.uuid for gpu in driver.gpus], True)


def test_one_gpu_answering_unknown_does_not_end_the_session(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    collector.read()
    driver.gpus[0].fail("energy", 999)
    driver.advance(S)
    readings = collector.read()
    assert driver.calls("init") == 1
    assert (len(energies(readings)), len(faults(readings))) == (1, 1)


def test_a_driver_reload_costs_no_read(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    driver.advance(50 * S)
    before = energy(collector, driver.gpus[0])
    driver.reload_driver()
    driver.advance(S)
    readings = collector.read()
    assert not faults(readings)
    assert len(energies(readings)) == 2
    step = between(before, energies(readings)[driver.gpus[0].uuid])
    assert isinstance(step, Gap)
    assert step.cause == "reset"


@pytest.mark.parametrize("code", [1, 9, 999])
def test_a_driver_that_stays_away_is_unavailable_until_it_is_back(
    driver: NvmlDouble, collector: NvmlCollector, code: int
) -> None:
    driver.count(2)
    collector.read()
    driver.fail("energy", code)
    driver.fail("init", 9)
    driver.advance(S)
    for _ in range(2):
        with pytest.raises(SensorUnavailable, match="modprobe nvidia"):
            collector.read()
    driver.fail("energy", 0)
    driver.fail("init", 0)
    assert len(energies(collector.read())) == 2


def test_a_driver_upgraded_under_us_asks_for_a_restart(driver: NvmlDouble, collector: NvmlCollector) -> None:
    collector.read()
    driver.fail("energy", 18)
    driver.fail("init", 18)
    driver.advance(S)
    with pytest.raises(SensorUnavailable, match="restart the agent"):
        collector.read()


def test_a_gpu_without_permission_is_told_once(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    driver.gpus[1].break_down(4)
    readings = collector.read()
    assert "usermod" in faults(readings)[0].fix
    driver.advance(61 * S)
    readings = collector.read()
    assert len(energies(readings)) == 1
    assert not faults(readings)


def test_permission_lost_later_is_told_once(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    collector.read()
    driver.gpus[1].break_down(4)
    told = 0
    for _ in range(30):
        driver.advance(S)
        told += len(faults(collector.read()))
    assert told == 1


def test_a_gpu_that_appears_is_found_within_a_minute(driver: NvmlDouble, collector: NvmlCollector) -> None:
    assert len(energies(collector.read())) == 1
    driver.count(2)
    driver.advance(59 * S)
    assert len(energies(collector.read())) == 1
    driver.advance(S)
    assert len(energies(collector.read())) == 2


def test_a_gpu_taken_out_is_dropped(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    gone = driver.gpus[1].uuid
    collector.read()
    driver.count(1)
    driver.advance(S)
    collector.read()  # its handle is void
    driver.advance(S)
    readings = collector.read()
    assert [(fault.domain.id, fault.cause) for fault in faults(readings)] == [
        (gone, "the GPU was taken out of the node")
    ]
    driver.advance(S)
    assert not faults(collector.read())
    assert collector.devices() == {driver.gpus[0].uuid: True, gone: False}
    collector.release()
    collector.read()
    assert collector.devices() == {driver.gpus[0].uuid: True}


def test_a_gpu_that_was_unbound_while_it_was_let_go_of_isnt_lost(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    collector.read()
    collector.release()
    driver.count(1)
    collector.read()
    assert collector.devices() == {driver.gpus[0].uuid: True}


def test_no_gpu_is_unavailable_and_found_when_it_comes(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(0)
    with pytest.raises(SensorUnavailable, match="no GPU"):
        collector.read()
    driver.count(1)
    assert energies(collector.read())


def test_a_slow_driver_makes_read_slow_but_right(driver: NvmlDouble, collector: NvmlCollector) -> None:
    collector.read()
    driver.delay("energy", 0.05)
    assert energies(collector.read())


def test_release_ends_the_session_and_read_takes_it_up(driver: NvmlDouble, collector: NvmlCollector) -> None:
    collector.read()
    collector.release()
    collector.close()
    assert driver.calls("shutdown") == 1
    assert energies(collector.read())
    assert driver.calls("init") == 2


def test_an_order_that_changes_moves_no_energy(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    driver.gpus[0].energy_uj, driver.gpus[1].energy_uj = 1_000_000, 2_000_000
    first, second = driver.gpus[0].uuid, driver.gpus[1].uuid
    before = energies(collector.read())
    driver.swap(0, 1)
    driver.reload_driver(keep_counters=True)
    after = energies(collector.read())
    assert {uuid: after[uuid].energy_uj for uuid in (first, second)} == {
        uuid: before[uuid].energy_uj for uuid in (first, second)
    }
