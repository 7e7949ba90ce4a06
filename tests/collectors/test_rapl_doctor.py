"""What doctor says of RAPL: every zone, why it can't be read, and a command that mends it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.powercap import INTEL_RANGE_UJ, NOBODY, PowercapTree, unprivileged

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.collectors.rapl import RaplCollector, probe
from wattribute.collectors.rapl.files import parse_uj


@pytest.fixture
def tree() -> Iterator[PowercapTree]:
    root = Path(tempfile.mkdtemp(prefix="wattribute "))  # a space: commands must quote
    root.chmod(0o755)
    with PowercapTree(root) as tree:
        yield tree
    shutil.rmtree(root)


def test_a_readable_zone(tree: PowercapTree) -> None:
    tree.add_package(0, dram=False, energy_uj=42)
    package, core = probe(tree.root)
    assert package.ok
    assert package.path == str(tree.root / "class/powercap/intel-rapl:0/energy_uj")
    assert (package.value, package.wraps_at_uj, package.quality) == ("42 uJ", INTEL_RANGE_UJ, "measured")
    assert "1 uJ" in package.resolution
    assert package.fix == ""
    assert core.ok
    assert core.why == "core: not counted, it is part of its package"


def test_the_second_way_to_a_counter_is_shown_as_such(tree: PowercapTree) -> None:
    tree.add_package(0, dram=False)
    tree.add_package(0, dram=False, mmio=True)
    assert probe(tree.root)[-1].why == "package-0: the same counter as intel-rapl:0, not counted again"


def test_the_command_for_a_denied_counter_works(tree: PowercapTree) -> None:
    for n in range(2):
        below = tree.add_package(n, energy_uj=42)
        for zone in (below.package, below.dram):
            assert zone is not None
            zone.deny()
    with unprivileged():
        findings = [finding for finding in probe(tree.root) if not finding.ok]
    assert len(findings) == 4
    assert {finding.fix for finding in findings} == {findings[0].fix}  # one command for all zones
    uid = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert f"mode 0000; we are uid {uid})" in findings[0].why
    assert "udev" in findings[0].fix
    command = findings[0].fix.removeprefix("sudo ")
    subprocess.run(command, shell=True, check=True)
    with unprivileged():
        assert all(finding.ok for finding in probe(tree.root))
    assert os.stat(tree.zones[0].path).st_mode & 0o077 == 0  # to us alone


@pytest.mark.parametrize(
    ("vendor", "hypervisor", "cause", "fix"),
    [
        ("intel", False, "no RAPL zone", "sudo modprobe intel_rapl_msr"),
        ("amd", False, "no RAPL zone", "sudo modprobe intel_rapl_msr"),
        ("intel", True, "the hypervisor hides RAPL", "run the agent on the host"),
        ("arm", False, "this CPU has no RAPL", 'rapl = "off"'),
        (None, False, "no RAPL zone", "sudo modprobe intel_rapl_msr"),
    ],
)
def test_without_zones_the_cause_depends_on_the_machine(
    tree: PowercapTree, vendor: str | None, hypervisor: bool, cause: str, fix: str
) -> None:
    if vendor:
        tree.say_cpu(vendor, hypervisor=hypervisor)
    (finding,) = probe(tree.root)
    assert not finding.ok
    assert cause in finding.why
    assert fix in finding.fix
    with pytest.raises(SensorUnavailable) as caught:
        RaplCollector(tree.root, lambda: 0).read()
    assert (caught.value.cause, caught.value.fix) == (finding.why, finding.fix)


def test_no_directory_at_all(tmp_path: Path) -> None:
    (finding,) = probe(tmp_path / "absent")
    assert not finding.ok
    assert str(tmp_path / "absent") in finding.why


def test_a_tree_that_a_container_masks(tree: PowercapTree) -> None:
    tree.add_package(0)
    tree.close()
    shutil.rmtree(tree.root / "devices" / "virtual" / "powercap")
    first, *zones = probe(tree.root)
    assert "masked" in first.why
    assert "-v /sys:/host/sys:ro" in first.fix
    assert len(zones) == 3
    assert not any(zone.ok for zone in zones)


def test_zones_that_say_nothing_countable(tree: PowercapTree) -> None:
    tree.add_zone("core")
    tree.add_zone("package-0\nrm -rf")
    first, core, odd = probe(tree.root)
    assert "no package, dram or psys zone" in first.why
    assert core.ok
    assert "kind isn't known" in odd.why


@given(st.integers(min_value=0, max_value=2**64 - 1), st.text(" \t\n", max_size=8), st.integers(0, 5))
def test_a_number_parses_whatever_its_padding(value: int, space: str, zeros: int) -> None:
    line = (space + "0" * zeros + str(value) + space).encode()
    assert parse_uj(line, None, "p") == value


@given(st.binary(max_size=80), st.one_of(st.none(), st.integers(min_value=1, max_value=2**64)))
def test_any_bytes_are_microjoules_within_range_or_unavailable(line: bytes, wraps_at_uj: int | None) -> None:
    try:
        value = parse_uj(line, wraps_at_uj, "p")
    except SensorUnavailable as error:
        assert error.cause.startswith("p ")
    else:
        assert line.strip().isdigit()
        assert 0 <= value <= (wraps_at_uj or 2**64 - 1)


@pytest.mark.parametrize("line", [b"", b"\n", b"-1", b"+1", b"1_0", b"0x10", b"1e3", b"\xd9\xa3", b"1 2", b"1\x00"])
def test_what_int_might_take_is_refused(line: bytes) -> None:
    with pytest.raises(SensorUnavailable):
        parse_uj(line, None, "p")
