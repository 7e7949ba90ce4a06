"""Real cgroups of this machine: what they count is what their processes used."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.collectors.cgroup.real_groups import RealGroups

from wattribute.agent.core.found import Reservation
from wattribute.collectors.cgroup import GroupUsage

MS = 1_000_000
MIB = 1 << 20
BURNER = """
import sys, time
print(time.process_time_ns(), flush=True)
for line in sys.stdin:
    until = time.process_time() + float(line)
    while time.process_time() < until: pass
    print(time.process_time_ns(), flush=True)
"""


class Burner:
    """A process that burns CPU time when told to, and tells how much it has used in all."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", BURNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.used_ns = self._answer()

    def burn(self, cpu_s: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{cpu_s}\n")
        self._process.stdin.flush()
        self.used_ns = self._answer()

    def end(self) -> int:
        """All it ever used, by its parent's account, in ns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        _, status, rusage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return round((rusage.ru_utime + rusage.ru_stime) * 1e9)

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture
def burner() -> Iterator[Burner]:
    burner = Burner()
    yield burner
    if burner._process.returncode is None:
        burner.end()


def test_a_group_counts_what_its_process_used_since_it_came(real: RealGroups, burner: Burner) -> None:
    group = real.make("job")
    usage = GroupUsage(real.tree)
    assert usage.watch(group) == 0
    real.put(burner.pid, "job")
    came_ns = burner.used_ns
    assert real.tree.group_of(burner.pid) == group.path
    assert real.tree.pids(f"/{real.name}", 10) == [burner.pid]
    burner.burn(0.2)
    middle_ns = usage.read()[group]
    assert middle_ns == pytest.approx(burner.used_ns - came_ns, abs=5 * MS)
    burner.burn(0.1)
    used_ns = burner.end()
    counted_ns = usage.read()[group]
    assert counted_ns - middle_ns >= 99 * MS
    assert counted_ns == pytest.approx(used_ns - came_ns, abs=5 * MS)
    usage.close()


def test_a_removed_group_is_gone_and_another_of_its_name_is_another(real: RealGroups, burner: Burner) -> None:
    group = real.make("job")
    usage = GroupUsage(real.tree)
    usage.watch(group)
    real.put(burner.pid, "job")
    burner.burn(0.05)
    burner.end()
    counted_ns = usage.read()[group]
    assert counted_ns > 0
    assert usage.gone() == []  # empty, but there
    real.remove("job")
    assert usage.read() == {group: counted_ns}
    assert usage.gone() == [group]
    assert usage.read() == {group: counted_ns}
    assert usage.gone() == []
    assert usage.watch(group) is None
    again = real.make("job")
    assert again.path == group.path
    assert again != group
    usage.unwatch(group)
    assert usage.watch(group) is None
    assert usage.watch(again) == 0
    usage.close()


def test_a_process_whose_group_is_removed_is_nowhere(real: RealGroups) -> None:
    """A zombie may outlive its group: /proc shows it as deleted."""
    real.make("job")
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        real.put(child.pid, "job")
        assert real.tree.group_of(child.pid) == f"/{real.name}/job"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert list(real.tree.pids(f"/{real.name}/job", 10)) == []
        real.remove("job")
        # v1 takes an exiting process back to the top.
        assert real.tree.group_of(child.pid) in ("", "/")
    finally:
        child.communicate()


def test_many_groups_are_watched_at_once(real: RealGroups) -> None:
    groups = [real.make(f"job{i}") for i in range(50)]
    assert sorted(real.tree.children(f"/{real.name}")) == sorted(groups)
    usage = GroupUsage(real.tree)
    assert [usage.watch(group) for group in groups] == [0] * 50
    for i in range(0, 50, 2):
        real.remove(f"job{i}")
    assert usage.read() == dict.fromkeys(groups, 0)
    assert usage.gone() == groups[::2]
    usage.close()


def test_limits_are_read_as_the_kernel_shows_them(real: RealGroups) -> None:
    real.make("job")
    path = f"/{real.name}/job"
    assert real.tree.reserved(path) == Reservation()
    if real.tree.hierarchy == "v1":
        quota, cpuset = ("cpu.cfs_quota_us", "25000"), ("cpuset.cpus", "0")
        memory = ("memory.limit_in_bytes", str(8 * MIB))
    else:
        quota, cpuset, memory = ("cpu.max", "25000 100000"), ("cpuset.cpus", "0"), ("memory.max", str(8 * MIB))
    milli, limit = None, None
    if (os.cpu_count() or 1) > 1 and real.set("job", *cpuset):
        milli = 1000
        assert real.tree.reserved(path) == Reservation(milli, limit)
    if real.set("job", *memory):
        limit = 8 * MIB
        assert real.tree.reserved(path) == Reservation(milli, limit)
    if real.set("job", *quota):
        assert real.tree.reserved(path) == Reservation(250, limit)


def test_memory_is_what_the_process_wrote(real: RealGroups) -> None:
    group = real.make("job")
    usage = GroupUsage(real.tree)
    if usage.memory_bytes(group) is None:
        assert real.tree.memory_top is None or not real.set("job", "memory.max", "max")
        pytest.skip("no memory controller in this hierarchy")
    hold = "print(flush=True); input(); held = bytearray(b'x') * (64 << 20); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        real.put(child.pid, "job")
        child.stdin.write("\n")
        child.stdout.readline()
        held = usage.memory_bytes(group)
        child.stdin.write("\n")
    assert held is not None
    assert 60 * MIB <= held <= 80 * MIB
    usage.close()
