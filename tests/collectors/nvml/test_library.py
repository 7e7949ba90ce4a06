"""The driver library, its binding, other processes, and a real GPU."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from tests.doubles.nvml import SONAME, MissingCompiler, NvmlDouble

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.collectors.nvml import NvmlCollector
from wattribute.collectors.nvml.library import official

REPO = Path(__file__).resolve().parents[3]


def test_no_library_is_one_clear_message() -> None:
    with pytest.raises(SensorUnavailable, match=r"no NVIDIA driver library.*Fix: install the NVIDIA driver"):
        NvmlCollector(clock=time.monotonic_ns, identify=lambda pid: None, library="/nowhere/libnvidia-ml.so.1")


def test_the_unofficial_pynvml_is_refused() -> None:
    module = types.ModuleType("pynvml")
    module.__path__, module.__file__ = ["/x/pynvml"], "/x/pynvml/__init__.py"
    with pytest.raises(SensorUnavailable, match="pip uninstall -y pynvml"):
        official(module)


def _run(code: str, env: dict[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | env, cwd=REPO, capture_output=True, text=True, check=True
    ).stdout


def test_importing_the_collector_imports_no_binding() -> None:
    assert _run("import sys, wattribute.collectors.nvml; print('pynvml' in sys.modules)", {}) == "False\n"


def test_another_process_finds_the_double_by_its_soname(tmp_path: Path) -> None:
    try:
        double = NvmlDouble(tmp_path, gpus=16)
    except MissingCompiler as missing:
        pytest.skip(str(missing))
    with double:
        found = _run(
            "import time; from wattribute.collectors.nvml import probe\n"
            "for finding in probe(clock=time.monotonic_ns): print(finding.path, finding.ok)",
            double.env,
        )
        assert found.splitlines() == [f"{gpu.uuid} True" for gpu in double.gpus]


def test_the_double_s_command_prepares_a_folder(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.doubles.nvml",
        "--dir",
        str(tmp_path),
        "--gpus",
        "2",
        "--process",
        "0:42:10:50",
    ]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if "missing: cc" in done.stderr:
        pytest.skip("missing: cc")
    assert f"LD_LIBRARY_PATH={tmp_path}" in done.stdout
    assert (tmp_path / SONAME).exists()


@pytest.mark.gpu
def test_a_real_gpu_counts_energy() -> None:
    """In a process of its own, because this one may have the double loaded for good."""
    code = """
import ctypes, time
try:
    ctypes.CDLL("libnvidia-ml.so.1")
except OSError:
    raise SystemExit(print("no GPU"))
from wattribute.agent.core.model import EnergyReading, PowerReading
from wattribute.collectors.nvml import NvmlCollector
collector = NvmlCollector(clock=time.monotonic_ns, identify=lambda pid: None)
before = collector.read(); time.sleep(1); after = collector.read(); collector.close()
kinds = (EnergyReading, PowerReading)
a, b = ([r for r in rs if isinstance(r, kinds)] for rs in (before, after))
assert a and len(a) == len(b), (before, after)
for x, y in zip(a, b):
    watts = (y.energy_uj - x.energy_uj) / 1e6 if isinstance(y, EnergyReading) else y.power_uw / 1e6
    assert 1 < watts < 2000, (x, y)
print("ok")
"""
    answer = _run(code, {"LD_LIBRARY_PATH": ""}).strip()
    if answer == "no GPU":
        pytest.skip("no NVIDIA GPU here")
    assert answer == "ok"
