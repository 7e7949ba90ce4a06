"""The driver library, its binding, other processes, and a real GPU."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from tests.doubles.nvml import SONAME, Instance, MissingCompiler, NvmlDouble

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.collectors.nvml import NvmlCollector
from wattribute.collectors.nvml.library import official

REPO = Path(__file__).resolve().parents[3]
PROBE = "from tests.collectors.nvml import real_gpu; real_gpu.main({})"


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
def test_a_real_gpu() -> None:
    """In a process of its own, because this one may have the double loaded for good. Read what it prints (-s)."""
    answer = _run(PROBE.format(5), {"LD_LIBRARY_PATH": ""})
    if answer == "no GPU\n":
        pytest.skip("no NVIDIA GPU here")
    print(answer)


def test_what_a_real_gpu_is_asked_is_answered_by_the_double(tmp_path: Path) -> None:
    try:
        double = NvmlDouble(tmp_path, gpus=2)
    except MissingCompiler as missing:
        pytest.skip(str(missing))
    with double:
        double.gpus[1].mig()
        double.gpus[1].gpm()
        double.gpus[1].instances(Instance(1, 4, 56, 0.5))
        answer = _run(PROBE.format(0.2), double.env)
        uuid = double.gpus[1].uuid
    assert answer.count("counter / integrated power") == 2
    assert f"{uuid}: energy counter, MIG: by slices and GPM activity" in answer
    assert "nvmlGpmMigSampleGet" in answer
    assert "nvmlDeviceGetProcessUtilization: Not Supported" in answer, "under MIG"
