"""CPU time of the node and of its overhead cgroups, from trees of files as the kernel lays them out."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import ProcessId
from wattribute.agent.core.trees import Tree
from wattribute.collectors.process.ends import Ends
from wattribute.collectors.process.node import REFRESH_NS, NodeTime
from wattribute.collectors.process.overhead import RETRY_NS, OverheadTime
from wattribute.collectors.process.procfs import ProcFs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

US = 1_000
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK") if sys.platform == "linux" else 0


class Files:
    """A proc and a cgroup tree made by hand, and a clock."""

    def __init__(self, path: Path) -> None:
        self.proc, self.cgroup = path / "proc", path / "cgroup"
        self.now_ns = 0
        self.kernel = ProcFs(Path("/proc"))
        self.node: NodeTime | None = None
        self.put("proc/stat", "cpu  10 1 20 900 50 3 4 5 6 7\ncpu0 1 1\n")

    def put(self, name: str, text: str) -> None:
        path = self.proc.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def v2(self, *names: str) -> None:
        self.put("cgroup/cgroup.controllers", "cpu\n")
        self.put("cgroup/cgroup.procs", "")
        for name in names:
            self.usage(name, 0)

    def usage(self, name: str, usage_usec: int) -> None:
        self.put(f"cgroup/{name}/cpu.stat", f"usage_usec {usage_usec}\nuser_usec 1\n")

    def remove(self, name: str) -> None:
        (self.cgroup / name / "cpu.stat").unlink()
        (self.cgroup / name).rmdir()

    def open(self) -> NodeTime:
        self.node = NodeTime(self.proc, self.cgroup, self.kernel, lambda: self.now_ns)
        return self.node

    def close(self) -> None:
        self.kernel.close()
        if self.node is not None:
            self.node.close()
            self.node.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    files = Files(tmp_path)
    yield files
    files.close()


@pytest.mark.parametrize("controller", ["cpuacct", "cpu,cpuacct"])
def test_v1_counts_nanoseconds(files: Files, controller: str) -> None:
    files.put(f"cgroup/{controller}/cpuacct.usage", "123456789\n")
    node = files.open()
    assert node.method == "cpuacct"
    assert node.read_ns() == 123456789
    files.put(f"cgroup/{controller}/cpuacct.usage", "123456799\n")
    assert node.read_ns() == 123456799


def test_v1_of_a_container_is_not_the_nodes(files: Files) -> None:
    files.put("cgroup/cpuacct/cpuacct.usage", "5\n")
    files.put("cgroup/cpuacct/cgroup.procs", "1\n")
    assert files.open().method == "proc-stat"


def test_v2_sums_first_level_children_and_never_falls(files: Files) -> None:
    files.v2("system.slice", "user.slice")
    files.usage("system.slice", 1000)
    files.usage("system.slice/inner", 777)
    node = files.open()
    assert node.method == "cgroup2"
    assert node.read_ns() == 1000 * US
    files.usage("user.slice", 500)
    assert node.read_ns() == 1500 * US
    files.remove("user.slice")
    files.usage("kubepods", 40)
    files.now_ns += REFRESH_NS
    assert node.read_ns() == 1540 * US
    files.usage("user.slice", 30)  # the name came back: another cgroup
    files.usage("system.slice", 1001)
    files.now_ns += REFRESH_NS
    assert node.read_ns() == 1571 * US


def test_v2_adds_the_processes_of_the_root(files: Files) -> None:
    files.v2("system.slice")
    files.put("cgroup/cgroup.procs", f"{os.getpid()}\n{2**22 - 1}\n")
    node = files.open()
    before_ns = time.process_time_ns()
    first_ns = node.read_ns()
    assert before_ns <= first_ns <= time.process_time_ns()
    end_ns = time.process_time_ns() + 20_000_000
    while time.process_time_ns() < end_ns:
        pass
    files.now_ns += REFRESH_NS
    assert node.read_ns() - first_ns >= 20_000_000
    files.put("cgroup/cgroup.procs", "")
    files.now_ns += REFRESH_NS
    assert node.read_ns() >= first_ns + 20_000_000


@pytest.mark.parametrize("absent", ["nothing", "a container's", "no children"])
def test_ticks_are_the_last_resort(files: Files, absent: str) -> None:
    if absent == "a container's":
        files.v2("system.slice")
        files.put("cgroup/cgroup.type", "domain\n")
    elif absent == "no children":
        files.v2()
    node = files.open()
    assert node.method == "proc-stat"
    assert node.read_ns() == (10 + 1 + 20 + 3 + 4) * TICK_NS
    files.put("proc/stat", "cpu  9 1 20 900 50 3 4 5 6 7\n")
    assert node.read_ns() == (10 + 1 + 20 + 3 + 4) * TICK_NS  # /proc/stat is known to fall


def test_nothing_to_count_with_is_refused(files: Files) -> None:
    (files.proc / "stat").unlink()
    with pytest.raises(SensorUnavailable, match=r"/stat"):
        files.open()


def test_the_real_node_counts_what_we_use() -> None:
    kernel = ProcFs(Path("/proc"))
    node = NodeTime(Path("/proc"), Path("/sys/fs/cgroup"), kernel, lambda: 0)
    try:
        first_ns = node.read_ns()
        subprocess.run([sys.executable, "-S", "-c", "sum(range(3_000_000))"], check=True)
        assert node.read_ns() - first_ns >= (0 if node.method == "proc-stat" else 10_000_000)
    finally:
        node.close()
        kernel.close()


@pytest.fixture
def overhead(files: Files) -> Iterator[OverheadTime]:
    overhead = OverheadTime(
        files.proc, files.cgroup, ["system.slice", "init.scope", "system.slice/sub"], lambda: files.now_ns
    )
    yield overhead
    overhead.close()


def test_overhead_is_its_cgroups_once_each(files: Files, overhead: OverheadTime) -> None:
    files.usage("system.slice", 100)
    files.usage("system.slice/sub", 60)
    assert overhead.read_ns([]) == 100 * US
    files.usage("init.scope", 7)
    assert overhead.read_ns([]) == 100 * US
    files.now_ns += RETRY_NS
    assert overhead.read_ns([]) == 107 * US


def test_jobs_in_overhead_cgroups_are_not_overhead(files: Files, overhead: OverheadTime) -> None:
    files.usage("system.slice", 100)
    files.put("proc/70/cgroup", "0::/system.slice/docker-1.scope\n")
    files.put("proc/71/cgroup", "5:name=systemd:/user.slice\n0::/user.slice\n")
    files.put("proc/72/cgroup", "0::/system.slicers\n")
    inside, outside, other = (Tree(ProcessId(pid, 1), None) for pid in (70, 71, 72))
    trees = [inside, outside, other]
    for tree in trees:
        overhead.enter(tree.root)
    assert overhead.read_ns(trees) == 100 * US
    files.usage("system.slice", 150)
    inside.billed_ns, outside.billed_ns, other.billed_ns = 30 * US, 1000 * US, 1000 * US
    assert overhead.read_ns(trees) == 120 * US
    inside.billed_ns = 60 * US  # learnt late: held back from what comes
    assert overhead.read_ns(trees) == 120 * US
    files.usage("system.slice", 200)
    overhead.leave(inside.root, 70 * US)
    assert overhead.read_ns([outside, other]) == 130 * US


def test_without_overhead_cgroups_nothing_is_read(files: Files) -> None:
    none = OverheadTime(files.proc, files.cgroup, [], lambda: 0)
    assert none.read_ns([]) == 0
    assert not none.holds(os.getpid())
    none.close()


def test_ends_keep_within_half_of_the_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (2, 2))
    ends = Ends()
    try:
        assert ends.add(ProcessId(os.getpid(), 1))
        assert not ends.add(ProcessId(os.getppid(), 1))
        ends.discard(ProcessId(os.getpid(), 1))
        assert not ends.add(ProcessId(2**22 - 1, 1))  # nobody
        assert ends.ended() == []
    finally:
        ends.close()
