"""Energy and averaged power, per GPU as it is found."""

from itertools import pairwise

import pytest
from tests.collectors.nvml.pick import S, energies, energy, faults, powers
from tests.doubles.nvml import NvmlDouble

from wattribute.agent.core.counters import between
from wattribute.agent.core.model import Fault, Gap, Interval
from wattribute.collectors.nvml import NvmlCollector


def test_constant_power_is_counted_exactly_over_many_reads(driver: NvmlDouble, collector: NvmlCollector) -> None:
    gpu = driver.gpus[0]
    gpu.power_w = 300
    first = last = energy(collector, gpu)
    total_uj = 0
    for _ in range(1000):
        driver.advance(3_000_000)
        now = energy(collector, gpu)
        step = between(last, now)
        assert isinstance(step, Interval)
        assert step.quality == "measured"
        total_uj += step.energy_uj
        last = now
    assert total_uj == last.energy_uj - first.energy_uj == 300 * 3 * 1_000_000
    assert last.energy_uj == gpu.energy_uj // 1000 * 1000


def test_power_and_energy_agree_when_power_changes(driver: NvmlDouble, collector: NvmlCollector) -> None:
    gpu = driver.gpus[0]
    before = energy(collector, gpu)
    for power_w in (70, 700, 350.5):
        gpu.power_w = power_w
        driver.advance(2 * S)
    assert energy(collector, gpu).energy_uj - before.energy_uj == 2 * (70_000_000 + 700_000_000 + 350_500_000)


def test_energy_beyond_32_bits_of_millijoules_passes_intact(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].energy_uj = 5_000_000_000_000_123 * 1000
    assert energy(collector, driver.gpus[0]).energy_uj == 5_000_000_000_000_123 * 1000


def test_a_counter_that_moves_every_100_ms_loses_nothing(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.refresh(100_000_000)
    gpu = driver.gpus[0]
    gpu.power_w = 700
    gpu.energy_uj = 0
    readings = [energy(collector, gpu)]
    for _ in range(100):
        driver.advance(30_000_000)
        readings.append(energy(collector, gpu))
    steps = [between(before, now) for before, now in pairwise(readings)]
    assert all(isinstance(step, Interval) for step in steps)
    assert 0 <= gpu.energy_uj - readings[-1].energy_uj <= 70_000_000
    assert sum(step.energy_uj for step in steps if isinstance(step, Interval)) == readings[-1].energy_uj


def test_ceiling_is_twice_the_board_limit_but_never_low(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(3)
    driver.gpus[0].model("NVIDIA B200", (10, 0), limit_w=1000)
    driver.gpus[1].model("Tesla T4", (7, 5), limit_w=70)
    driver.gpus[2].fail("limit", 3)
    ceilings = [reading.ceiling_uw for reading in energies(collector.read()).values()]
    assert ceilings == [2_000_000_000, 1_500_000_000, 1_500_000_000]


def test_a_counter_reset_is_a_gap_with_bounds(driver: NvmlDouble, collector: NvmlCollector) -> None:
    gpu = driver.gpus[0]
    driver.advance(100 * S)
    before = energy(collector, gpu)
    gpu.energy_uj = 0
    driver.advance(S)
    step = between(before, energy(collector, gpu))
    assert isinstance(step, Gap)
    assert (step.cause, step.lower_uj) == ("reset", 100_000_000)


def test_without_counter_the_averaged_field_is_integrated(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].fail("energy", 3)
    driver.gpus[0].power_w = 123.456
    readings = collector.read()
    assert not energies(readings)
    assert [(power.power_uw, power.quality) for power in powers(readings)] == [(123_456_000, "integrated")]
    assert not faults(readings)


def test_each_gpu_is_probed_for_itself(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.count(2)
    driver.gpus[1].fail("energy", 13)  # the same model, but a driver without the symbol
    readings = collector.read()
    assert list(energies(readings)) == [driver.gpus[0].uuid]
    assert [power.domain.id for power in powers(readings)] == [driver.gpus[1].uuid]


def test_probing_happens_once(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].fail("energy", 3)
    collector.read()
    asked = driver.calls("energy")
    for _ in range(5):
        driver.advance(S)
        collector.read()
    assert driver.calls("energy") == asked


@pytest.mark.parametrize(
    ("capability", "version", "expected"),
    [((8, 6), "525.60.13", True), ((9, 0), "550.54.15", True), ((8, 9), "530.41.03", False), ((8, 0), "550.1", False)],
    ids=["GA102", "H100", "Ada on 530", "A100"],
)
def test_power_usage_counts_only_where_it_is_an_average(
    driver: NvmlDouble, collector: NvmlCollector, capability: tuple[int, int], version: str, expected: bool
) -> None:
    gpu = driver.gpus[0]
    gpu.model("a GPU", capability)
    driver.driver(version)
    gpu.fail("energy", 3)
    gpu.fail_fields(3)  # the call succeeds, its value doesn't
    readings = collector.read()
    assert bool(powers(readings)) is expected
    if not expected:
        assert "isn't integrated" in faults(readings)[0].cause
        assert not faults(collector.read()), "told once"


def test_a_vgpu_guest_without_any_power_is_a_fault(driver: NvmlDouble, collector: NvmlCollector) -> None:
    for function in ("energy", "fields", "power"):
        driver.gpus[0].fail(function, 3)
    assert "vGPU" in faults(collector.read())[0].cause


def test_the_field_values_own_return_code_is_checked_each_time(driver: NvmlDouble, collector: NvmlCollector) -> None:
    gpu = driver.gpus[0]
    gpu.fail("energy", 3)
    assert powers(collector.read())
    driver.advance(S)
    gpu.fail_fields(16)
    readings = collector.read()
    assert not powers(readings)
    assert "reset" in faults(readings)[0].cause


@pytest.mark.parametrize("value_type", [1, 2, 3, 4, 5])
def test_the_field_value_is_read_by_its_type(driver: NvmlDouble, collector: NvmlCollector, value_type: int) -> None:
    driver.gpus[0].fail("energy", 3)
    driver.gpus[0].field_type(value_type)
    assert powers(collector.read())[0].power_uw == 100_000_000


def test_a_field_value_of_unknown_type_is_not_guessed(driver: NvmlDouble, collector: NvmlCollector) -> None:
    driver.gpus[0].model("A100", (8, 0))
    driver.gpus[0].fail("energy", 3)
    driver.gpus[0].field_type(42)
    assert not powers(collector.read())


def test_a_counter_that_failed_once_is_not_given_up_for_power(driver: NvmlDouble, collector: NvmlCollector) -> None:
    gpu = driver.gpus[0]
    collector.read()
    gpu.fail("energy", 3)
    driver.advance(S)
    assert [type(reading) for reading in collector.read()] == [Fault]
    gpu.fail("energy", 0)
    driver.advance(S)
    assert energies(collector.read())
