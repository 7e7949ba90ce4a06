"""pyRAPL reads fixed paths, so the real library runs in a mount namespace where the double stands at /sys."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Domain, EnergyReading
from wattribute.collectors.pyrapl import PyRaplCollector

ROOT = Path(__file__).resolve().parents[2]

# tmpfs hides the machine's own tree; two sockets are told by a CPU directory of our own.
MOUNTS = """
set -e
mount --make-rprivate /
mount -t tmpfs none /sys/devices/system/cpu
mount -t tmpfs none /sys/class
mkdir -p /sys/class/powercap
exec "$0" -W ignore -c "$1"
"""

PROGRAM = """
import itertools, json
from pathlib import Path
from tests.doubles.powercap import PowercapTree
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.collectors.pyrapl import PyRaplCollector

def machine(sockets):
    cpu = Path("/sys/devices/system/cpu")
    (cpu / "present").write_text(f"0-{{sockets - 1}}\\n" if sockets > 1 else "0\\n")
    for n in range(sockets):
        (cpu / f"cpu{{n}}" / "topology").mkdir(parents=True, exist_ok=True)
        (cpu / f"cpu{{n}}" / "topology" / "physical_package_id").write_text(f"{{n}}\\n")

def read(collector):
    try:
        return [[r.domain.kind, r.domain.id, r.at_ns, r.energy_uj, r.wraps_at_uj] for r in collector.read()]
    except SensorUnavailable as error:
        return [error.cause, error.fix]

tree = PowercapTree(Path("/sys"), links=False)
collector = PyRaplCollector(itertools.count(1).__next__)
answers = []
{body}
print(json.dumps(answers))
"""


def in_namespace(body: str) -> Any:
    """Run a body of Python with the double at /sys, `answers` being what it gives back."""
    flags = ["-m"] if _may("-m") else ["-r", "-m"]
    if not _may(*flags):
        pytest.skip("missing: mount namespaces")
    program = PROGRAM.format(body=body)
    command = ["unshare", *flags, "sh", "-c", MOUNTS, sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _may(*flags: str) -> bool:
    try:
        script = "mount -t tmpfs none /sys/class"
        return subprocess.run(["unshare", *flags, "sh", "-c", script], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_two_sockets_with_their_memory() -> None:
    answers = in_namespace("""
machine(2)
tree.add_package(0, energy_uj=1_000_000)
second = tree.add_package(1, energy_uj=2_000_000)
answers.append(read(collector))
second.package.add(123)
answers.append(read(collector))
""")
    assert answers[0] == [
        ["cpu", "package-0", 1, 1_000_000, None],
        ["dram", "package-0-dram", 1, 1_000_000, None],
        ["cpu", "package-1", 1, 2_000_000, None],
        ["dram", "package-1-dram", 1, 2_000_000, None],
    ]
    assert answers[1][2] == ["cpu", "package-1", 2, 2_000_123, None]


def test_a_package_without_memory_zone() -> None:
    answers = in_namespace("""
machine(1)
tree.add_package(0, vendor="amd", energy_uj=7)
answers.append(read(collector))
""")
    assert answers == [[["cpu", "package-0", 1, 7, None]]]


def test_it_opens_again_after_a_bad_number() -> None:
    answers = in_namespace("""
machine(1)
below = tree.add_package(0, energy_uj=5)
read(collector)
below.package.garble(b"abc\\n")
answers.append(read(collector))
below.package.restore()
answers.append(read(collector))
collector.close()
collector.close()
answers.append(read(collector))
""")
    assert "could not convert string to float" in answers[0][0]
    assert answers[1][0][3] == 5
    assert answers[2] == ["the rapl collector is closed", ""]


@pytest.mark.parametrize(
    ("sockets", "zones"),
    [
        (1, "tree.add_package(0, die=0); tree.add_package(0, die=1)"),
        (2, "tree.add_package(0)"),
        (1, ""),
    ],
    ids=["dies", "fewer packages than sockets", "no tree"],
)
def test_a_layout_that_pyrapl_does_not_know_is_unavailable(sockets: int, zones: str) -> None:
    cause, fix = in_namespace(f"machine({sockets})\n{zones}\nanswers.extend(read(collector))")
    assert cause.startswith("pyRAPL: ")
    assert "powercap" in fix


def test_without_a_tree_the_real_library_is_unavailable_and_not_a_crash() -> None:
    if Path("/sys/class/powercap/intel-rapl:0").exists():
        pytest.skip("this machine has RAPL")
    collector = PyRaplCollector(lambda: 0)
    with pytest.raises(SensorUnavailable), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collector.read()
    collector.close()


def test_without_the_extra_the_fix_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyRAPL", None)
    with pytest.raises(SensorUnavailable) as caught:
        PyRaplCollector(lambda: 0)
    assert caught.value.fix == "pip install 'wattribute[pyrapl]'"


class PyRAPLException(Exception):
    pass


def library(values: list[float], error: Exception | None = None) -> ModuleType:
    """A module with pyRAPL's sensor interface, for what its files can't be made to hold."""

    class Sensor:
        _device_api: dict[int, Any] = {}  # noqa: RUF012

        def energy(self) -> list[float]:
            if error is not None:
                raise error
            return values

    module = ModuleType("pyRAPL")
    vars(module).update(Sensor=Sensor, PyRAPLException=PyRAPLException)
    return module


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e300, -5.0])
def test_what_is_no_counter_is_left_out(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyRAPL", library([value, 12.0]))
    domain = Domain(kind="dram", id="package-0-dram")
    expected = EnergyReading(domain=domain, at_ns=9, energy_uj=12, ceiling_uw=400_000_000)
    assert PyRaplCollector(lambda: 9).read() == [expected]
    monkeypatch.setitem(sys.modules, "pyRAPL", library([value]))
    with pytest.raises(SensorUnavailable):
        PyRaplCollector(lambda: 9).read()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), IndexError("list"), PyRAPLException()])
def test_every_error_of_the_library_is_unavailable(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyRAPL", library([], error))
    with pytest.raises(SensorUnavailable) as caught:
        PyRaplCollector(lambda: 0).read()
    assert "powercap" in caught.value.fix
