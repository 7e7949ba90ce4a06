"""The powercap double itself: its truth is exact, and what it writes is never torn."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.powercap import CpuLaw, PowercapTree, node_cpu_ns, pids_cpu_ns

ROOT = Path(__file__).resolve().parents[2]


@given(st.lists(st.integers(min_value=0, max_value=10_000), max_size=20), st.integers(min_value=1, max_value=5_000))
def test_a_counter_is_the_truth_modulo_its_range(steps: list[int], range_uj: int) -> None:
    with tempfile.TemporaryDirectory() as root, PowercapTree(Path(root)) as tree:
        zone = tree.add_zone("package-0", range_uj=range_uj)
        for step in steps:
            zone.add(step)
        assert zone.true_uj == sum(steps)
        assert int(zone.path.read_text()) == zone.energy_uj == sum(steps) % range_uj


def test_a_line_keeps_its_length_and_its_file(tmp_path: Path) -> None:
    with PowercapTree(tmp_path) as tree:
        zone = tree.add_package(0).package
        before = os.stat(zone.path)
        zone.energy_uj = 10**11
        after = os.stat(zone.path)
        assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)


def test_a_law_of_time_loses_no_microjoule(tmp_path: Path) -> None:
    with PowercapTree(tmp_path) as tree:
        below = tree.add_package(0)
        assert below.dram is not None
        with tree.running({below.package: lambda _: 33.333333, below.dram: lambda t_s: 100.0 * t_s}) as writer:
            time.sleep(0.05)
        duration_ns = round(writer.seconds * 1e9)
        assert below.package.true_uj == 33_333_333 * duration_ns // 10**9
        assert abs(below.dram.true_uj - 50e6 * writer.seconds**2) < 0.01 * below.dram.true_uj
        assert int(below.package.path.read_text()) == below.package.true_uj


def test_a_law_of_cpu_time_follows_a_real_process(tmp_path: Path) -> None:
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        law = CpuLaw(idle_w=10.0, w_per_core=20.0, cpu_ns=pids_cpu_ns([burner.pid]))
        with PowercapTree(tmp_path) as tree:
            zone = tree.add_package(0).package
            with tree.running({zone: law}) as writer:
                time.sleep(0.2)
    finally:
        burner.kill()
        burner.wait()
    assert law.used_ns > 0
    assert zone.true_uj == (10_000_000 * round(writer.seconds * 1e9) + 20_000_000 * law.used_ns) // 10**9


def test_a_process_that_is_gone_keeps_its_last_cpu_time() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    read = pids_cpu_ns([child.pid])
    first_ns = read()
    child.wait()
    assert read() == first_ns


def test_the_nodes_cpu_time_is_summed_from_ticks_where_cgroups_do_not_tell(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  10 1 5 1000 7 2 3 0 0 0\ncpu0 1 1 1 1\n")
    assert node_cpu_ns(tmp_path / "absent", stat)() == 21 * 10**9 // os.sysconf("SC_CLK_TCK")
    usage = tmp_path / "cpuacct.usage"
    usage.write_text("123\n")
    assert node_cpu_ns(usage)() == 123


def test_the_command_prints_the_truth(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.doubles.powercap", str(tmp_path)]
    command += ["--idle-w", "10", "--w-per-core", "20", "--dram-w", "3", "--pids", str(os.getpid()), "--seconds", "0.1"]
    for _ in range(2):  # over what an earlier run left
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        truth = json.loads(done.stdout)
        package, dram = truth["zones"]
        shown = (tmp_path / "class/powercap/intel-rapl:0/energy_uj").read_text()
        assert int(shown) == package["true_uj"]
        duration_ns = round(truth["seconds"] * 1e9)
        assert package["true_uj"] == (10_000_000 * duration_ns + 20_000_000 * package["cpu_ns"]) // 10**9
        assert dram["true_uj"] == 3_000_000 * duration_ns // 10**9
