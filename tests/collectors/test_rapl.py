"""The RAPL collector against real files: layouts, identities, faults, and what a read costs."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from tests.doubles.powercap import AMD_RANGE_UJ, INTEL_RANGE_UJ, PowercapTree, unprivileged

from wattribute.agent.core.counters import between
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import EnergyReading, Fault, Finding, Interval, Reading
from wattribute.agent.core.units import NS_PER_S
from wattribute.collectors.rapl import RaplCollector


class Clock:
    """A clock that moves by a microsecond per look, and by hand."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sys_dir() -> Iterator[Path]:
    """A directory that everybody may enter, unlike tmp_path: for reads as nobody."""
    path = Path(tempfile.mkdtemp(prefix="wattribute-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["links", "nested"])
def tree(sys_dir: Path, request: pytest.FixtureRequest) -> Iterator[PowercapTree]:
    with PowercapTree(sys_dir, links=request.param == "links") as tree:
        yield tree


@pytest.fixture
def collect(clock: Clock) -> Iterator[Callable[[PowercapTree], RaplCollector]]:
    made: list[RaplCollector] = []

    def start(tree: PowercapTree) -> RaplCollector:
        made.append(RaplCollector(tree.root, clock))
        return made[-1]

    yield start
    for collector in made:
        collector.close()


Start = Callable[[PowercapTree], RaplCollector]


def energy(readings: Sequence[Reading]) -> dict[str, int]:
    return {r.domain.id: r.energy_uj for r in readings if isinstance(r, EnergyReading)}


def kinds(readings: Sequence[Reading]) -> dict[str, str]:
    return {r.domain.id: r.domain.kind for r in readings if isinstance(r, EnergyReading)}


def faults(readings: Sequence[Reading]) -> dict[str, Fault]:
    return {r.domain.id: r for r in readings if isinstance(r, Fault)}


def test_sockets_with_their_memory(tree: PowercapTree, collect: Start) -> None:
    for n in range(2):
        tree.add_package(n, energy_uj=(n + 1) * 1_000_000)
    readings = collect(tree).read()
    assert energy(readings) == {
        "package-0": 1_000_000,
        "package-0-dram": 1_000_000,
        "package-1": 2_000_000,
        "package-1-dram": 2_000_000,
    }
    assert kinds(readings)["package-1-dram"] == "dram"
    assert all(isinstance(r, EnergyReading) and r.wraps_at_uj == INTEL_RANGE_UJ for r in readings)
    assert all(isinstance(r, EnergyReading) and r.quality == "measured" for r in readings)


def test_each_zone_has_its_own_time_just_after_its_read(tree: PowercapTree, collect: Start) -> None:
    tree.add_package(0)
    tree.add_package(1)
    times = [r.at_ns for r in collect(tree).read()]
    assert times == sorted(set(times))


def test_dies_are_domains_of_their_own(tree: PowercapTree, collect: Start) -> None:
    for die in range(2):
        tree.add_package(0, die=die, energy_uj=100 + die)
    assert energy(collect(tree).read()) == {
        "package-0-die-0": 100,
        "package-0-die-0-dram": 100,
        "package-0-die-1": 101,
        "package-0-die-1-dram": 101,
    }


def test_amd_has_packages_alone_and_no_power_limits(tree: PowercapTree, collect: Start) -> None:
    tree.add_package(0, vendor="amd", energy_uj=5)
    (reading,) = collect(tree).read()
    assert isinstance(reading, EnergyReading)
    assert (reading.domain.id, reading.energy_uj, reading.wraps_at_uj) == ("package-0", 5, AMD_RANGE_UJ)
    assert reading.ceiling_uw == 1_000_000_000


def test_memory_that_is_no_part_of_a_package(tree: PowercapTree, collect: Start) -> None:
    tree.add_package(0, vendor="amd", energy_uj=5)
    tree.add_zone("dram", energy_uj=6)
    readings = collect(tree).read()
    assert energy(readings) == {"package-0": 5, "dram": 6}
    assert kinds(readings)["dram"] == "dram"


def test_psys_is_kept_apart_and_parts_of_a_package_are_not_read(tree: PowercapTree, collect: Start) -> None:
    below = tree.add_package(0, energy_uj=10)
    tree.add_zone("uncore", parent=below.package, energy_uj=3)
    tree.add_zone("psys", energy_uj=50)
    tree.add_zone("npu", energy_uj=1)
    assert kinds(collect(tree).read()) == {"package-0": "cpu", "package-0-dram": "dram", "psys": "psys"}


def test_a_zone_under_mmio_as_well_counts_once(tree: PowercapTree, collect: Start) -> None:
    tree.add_package(0, mmio=True, energy_uj=999)
    tree.add_package(0, energy_uj=10)
    assert energy(collect(tree).read()) == {"package-0": 10, "package-0-dram": 10}


def test_mmio_serves_where_the_register_can_not_be_read_and_stays(
    tree: PowercapTree, collect: Start, clock: Clock
) -> None:
    below = tree.add_package(0, dram=False, energy_uj=10)
    tree.add_package(0, dram=False, mmio=True, energy_uj=999)
    below.package.block()
    collector = collect(tree)
    assert energy(collector.read()) == {"package-0": 999}
    below.package.unblock()
    clock.now_ns += 60 * NS_PER_S
    assert energy(collector.read()) == {"package-0": 999}  # the two count from different starts


def test_the_register_is_not_left_for_mmio_once_it_was_read(tree: PowercapTree, collect: Start) -> None:
    below = tree.add_package(0, energy_uj=10)
    tree.add_package(0, dram=False, mmio=True, energy_uj=999)
    collector = collect(tree)
    collector.read()
    below.package.block()
    readings = collector.read()
    assert "package-0" in faults(readings)
    assert energy(readings) == {"package-0-dram": 10}


def test_namesakes_are_told_apart_and_keep_their_names(tree: PowercapTree, collect: Start, clock: Clock) -> None:
    first = tree.add_package(0, energy_uj=1)
    tree.add_package(0, energy_uj=2)
    collector = collect(tree)
    expected = {"package-0": 1, "package-0-dram": 1, "package-0-zone-1": 2, "package-0-zone-1-dram": 2}
    assert energy(collector.read()) == expected
    first.package.vanish()
    clock.now_ns += 60 * NS_PER_S
    readings = collector.read()
    assert energy(readings) == {"package-0-zone-1": 2, "package-0-zone-1-dram": 2}
    assert set(faults(readings)) == {"package-0", "package-0-dram"}
    first.package.return_()
    clock.now_ns += 60 * NS_PER_S
    assert energy(collector.read()) == expected


def test_dies_that_mirror_their_sockets_counter_count_once_on_amd(tree: PowercapTree, collect: Start) -> None:
    tree.say_cpu("amd")
    for die in range(2):
        tree.add_package(0, die=die, vendor="amd", energy_uj=68_000_000)
    tree.add_package(1, die=0, vendor="amd", energy_uj=68_000_000)
    tree.add_package(1, die=1, vendor="amd", energy_uj=70_000_000)
    collector = collect(tree)
    assert set(energy(collector.read())) == {"package-0-die-0", "package-1-die-0", "package-1-die-1"}
    whys = [finding.why for finding in collector.findings() if "die-1" in finding.why]
    assert whys[0] == "package-0-die-1: the same counter as intel-rapl:0, not counted again"


@pytest.mark.parametrize(("vendor", "uj"), [("intel", 68_000_000), ("amd", 0)])
def test_equal_dies_are_no_mirrors_elsewhere_or_at_zero(
    tree: PowercapTree, collect: Start, vendor: str, uj: int
) -> None:
    tree.say_cpu(vendor)
    for die in range(2):
        tree.add_package(0, die=die, vendor="amd", energy_uj=uj)
    assert len(collect(tree).read()) == 2


@pytest.mark.parametrize(
    ("name", "limits_uw", "ceiling_uw"),
    [
        ("package-0", (250_000_000, 300_000_000), 600_000_000),
        ("package-0", (5_000_000,), 400_000_000),
        ("package-0", (4_095_000_000,), 2_000_000_000),
        ("package-0", (), 1_000_000_000),
        ("dram", (0,), 400_000_000),
        ("dram", (30_000_000,), 200_000_000),
        ("psys", (100_000_000,), 1_000_000_000),
    ],
)
def test_plausible_power_follows_the_power_limits(
    tree: PowercapTree, collect: Start, name: str, limits_uw: tuple[int, ...], ceiling_uw: int
) -> None:
    tree.add_zone(name, limits_uw=limits_uw)
    (reading,) = collect(tree).read()
    assert isinstance(reading, EnergyReading)
    assert reading.ceiling_uw == ceiling_uw


@pytest.mark.parametrize("range_uj", [None, 0])
def test_a_range_that_is_missing_or_zero_is_none_and_noted(
    tree: PowercapTree, collect: Start, range_uj: int | None
) -> None:
    tree.add_zone("package-0", range_uj=range_uj, energy_uj=3)
    collector = collect(tree)
    (reading,) = collector.read()
    assert isinstance(reading, EnergyReading)
    assert reading.wraps_at_uj is None
    (finding,) = collector.findings()
    assert finding.ok
    assert "wrap range" in finding.why


def test_wraps_and_resets_pass_through_for_the_core_to_judge(tree: PowercapTree, collect: Start, clock: Clock) -> None:
    zone = tree.add_package(0, dram=False, energy_uj=INTEL_RANGE_UJ - 40).package
    collector = collect(tree)
    (before,) = collector.read()
    clock.now_ns += NS_PER_S
    zone.add(100)
    (after,) = collector.read()
    assert isinstance(before, EnergyReading)
    assert isinstance(after, EnergyReading)
    assert after.energy_uj == 60
    interval = between(before, after)
    assert isinstance(interval, Interval)
    assert interval.energy_uj == 100
    zone.reset()
    assert energy(collector.read()) == {"package-0": 0}


def test_a_read_opens_and_lists_nothing(tree: PowercapTree, collect: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    zones = [tree.add_package(n) for n in range(2)]
    collector = collect(tree)
    collector.read()
    before = open_descriptors()
    calls: list[str] = []
    for name in ("open", "stat", "scandir", "listdir", "fstat"):
        monkeypatch.setattr(os, name, lambda *_, name=name, **__: calls.append(name))
    for _ in range(3):
        for below in zones:
            below.package.add(7)
            assert below.dram is not None
            below.dram.add(7)
        assert len(collector.read()) == 4
    monkeypatch.undo()
    assert calls == []
    assert open_descriptors() == before


def open_descriptors() -> set[int]:
    found = set()
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the listing's own
            os.fstat(fd)
            found.add(fd)
    return found


def test_descriptors_are_not_inherited_and_given_back(tree: PowercapTree, clock: Clock) -> None:
    tree.add_package(0)
    before = open_descriptors()
    collector = RaplCollector(tree.root, clock)
    opened = open_descriptors() - before
    assert len(opened) == 2
    assert not any(os.get_inheritable(fd) for fd in opened)
    collector.close()
    collector.close()
    assert open_descriptors() == before
    with pytest.raises(SensorUnavailable, match="closed"):
        collector.read()


BAD = [b"", b"abc\n", b"-5\n", b"1.5\n", b"nan\n", b"9" * 80, b"262143328851\n", b"\xff\n"]


@pytest.mark.parametrize("content", BAD)
def test_a_bad_value_is_a_fault_of_its_zone_alone(
    tree: PowercapTree, collect: Start, clock: Clock, content: bytes
) -> None:
    below = tree.add_package(0, energy_uj=10)
    collector = collect(tree)
    collector.read()
    below.package.garble(content)
    readings = collector.read()
    assert energy(readings) == {"package-0-dram": 10}
    fault = faults(readings)["package-0"]
    assert str(below.package.key) in fault.cause
    assert fault.fix
    below.package.restore()
    clock.now_ns += 2 * NS_PER_S
    assert energy(collector.read()) == {"package-0": 10, "package-0-dram": 10}


def test_a_zone_vanishes_and_returns(tree: PowercapTree, collect: Start, clock: Clock) -> None:
    tree.add_package(0, energy_uj=10)
    second = tree.add_package(1, energy_uj=20)
    collector = collect(tree)
    collector.read()
    second.package.vanish()
    readings = collector.read()
    assert energy(readings) == {"package-0": 10, "package-0-dram": 10}
    assert set(faults(readings)) == {"package-1", "package-1-dram"}
    assert "gone" in faults(readings)["package-1"].cause
    assert faults(readings)["package-1"].fix == "sudo modprobe intel_rapl_msr"
    assert {domain for domain, read in collector.devices().items() if not read} == set(faults(readings))
    second.package.add(5)
    second.package.return_()
    clock.now_ns += 2 * NS_PER_S
    assert energy(collector.read())["package-1"] == 25


def test_files_that_are_unlinked_or_swapped_are_noticed_though_they_still_read(
    tree: PowercapTree, collect: Start, clock: Clock
) -> None:
    below = tree.add_package(0, energy_uj=10)
    collector = collect(tree)
    collector.read()
    new = below.package.directory / "new"
    new.write_text("12\n")
    new.replace(below.package.path)
    assert energy(collector.read())["package-0"] == 12
    below.package.path.unlink()
    assert "package-0" in faults(collector.read())
    below.package.path.write_text("13\n")
    clock.now_ns += 2 * NS_PER_S
    assert energy(collector.read())["package-0"] == 13


def test_a_lost_zone_is_looked_for_ever_less_often(
    tree: PowercapTree, collect: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add_package(0)
    second = tree.add_package(1, dram=False)
    collector = collect(tree)
    collector.read()
    second.package.vanish()
    tries: list[float] = []
    scan = collector._scan

    def counted() -> None:
        tries.append(round(clock.now_ns / NS_PER_S))
        scan()

    monkeypatch.setattr(collector, "_scan", counted)
    for _ in range(40):
        assert "package-1" in faults(collector.read())
        clock.now_ns += NS_PER_S
    assert tries == [1, 3, 7, 15, 23, 31, 39]


def test_a_fifo_in_the_counters_place_does_not_hang(tree: PowercapTree, collect: Start, clock: Clock) -> None:
    below = tree.add_package(0, energy_uj=10)
    collector = collect(tree)
    collector.read()
    below.package.block()
    assert faults(collector.read())["package-0"].cause.endswith("is a FIFO, not a counter")
    assert "FIFO" in faults(collect(tree).read())["package-0"].cause
    below.package.unblock()
    clock.now_ns += 2 * NS_PER_S
    assert energy(collector.read())["package-0"] == 10


def test_a_directory_in_the_counters_place_is_refused(tree: PowercapTree, collect: Start) -> None:
    below = tree.add_package(0)
    below.package.path.unlink()
    below.package.path.mkdir()
    assert "package-0" in faults(collect(tree).read())


def test_kept_descriptors_outlive_the_rights_and_new_ones_are_denied(
    tree: PowercapTree, collect: Start, clock: Clock
) -> None:
    below = tree.add_package(0, energy_uj=10)
    collector = collect(tree)
    below.package.deny()
    with unprivileged():
        assert energy(collector.read())["package-0"] == 10
        below.package.add(1)
        assert energy(collector.read())["package-0"] == 11
        assert energy(collector.read())["package-0"] == 11  # unchanged, so its path is looked at
    below.package.vanish()
    below.package.return_()
    below.package.deny()
    assert below.dram is not None
    below.dram.allow()
    with unprivileged():
        clock.now_ns += 2 * NS_PER_S
        readings = collector.read()
        fault = faults(readings)["package-0"]
        assert "Permission denied (owner uid" in fault.cause
        assert "mode 0000; we are uid" in fault.cause
        assert energy(readings) == {"package-0-dram": 10}
    below.package.allow()
    clock.now_ns += 10 * NS_PER_S
    with unprivileged():
        assert energy(collector.read())["package-0"] == 11


def test_an_old_descriptor_serves_again_where_the_path_is_denied(
    tree: PowercapTree, collect: Start, clock: Clock
) -> None:
    below = tree.add_package(0, energy_uj=10)
    collector = collect(tree)
    below.package.deny()
    below.package.garble(b"EIO\n")
    with unprivileged():
        assert "package-0" in faults(collector.read())
    below.package.restore()
    clock.now_ns += 2 * NS_PER_S
    with unprivileged():
        assert energy(collector.read())["package-0"] == 10


def test_with_every_zone_lost_the_source_is_unavailable_and_comes_back_at_once(
    tree: PowercapTree, collect: Start
) -> None:
    below = tree.add_package(0, energy_uj=10)
    collector = collect(tree)
    collector.read()
    below.package.vanish()
    for _ in range(3):
        with pytest.raises(SensorUnavailable) as caught:
            collector.read()
        assert "gone" in caught.value.cause
        assert "(and 1 more)" in caught.value.cause
        assert caught.value.fix == "sudo modprobe intel_rapl_msr"
    below.package.return_()
    assert energy(collector.read()) == {"package-0": 10, "package-0-dram": 10}


def test_a_tree_that_appears_later_is_found(tree: PowercapTree, collect: Start) -> None:
    collector = collect(tree)
    with pytest.raises(SensorUnavailable):
        collector.read()
    tree.add_package(0, energy_uj=10)
    assert energy(collector.read()) == {"package-0": 10, "package-0-dram": 10}


def test_links_in_a_circle_end(sys_dir: Path, clock: Clock) -> None:
    with PowercapTree(sys_dir) as tree:
        below = tree.add_package(0, energy_uj=10)
        (below.package.directory / "intel-rapl:0").symlink_to(below.package.directory)
        (below.package.directory / "intel-rapl").symlink_to(sys_dir / "class" / "powercap")
        collector = RaplCollector(sys_dir, clock)
        assert energy(collector.read()) == {"package-0": 10, "package-0-dram": 10}
        collector.close()


def test_findings_are_the_same_zones_in_the_same_order(tree: PowercapTree, collect: Start) -> None:
    for n in range(11):
        tree.add_package(n, dram=False, energy_uj=n)
    keys = [Path(finding.path).parent.name for finding in collect(tree).findings()]
    assert keys[:4] == ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0"]
    assert keys[-1] == "intel-rapl:10:0"
    assert all(isinstance(finding, Finding) for finding in collect(tree).findings())
