"""The portable collector: the same interface through psutil, tried here on whatever system runs the tests."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from wattribute.agent.core.following import CALM_NS
from wattribute.agent.core.model import ProcessId
from wattribute.collectors.host import PortableProcessCollector, host_facts, resident_bytes

MS = 1_000_000
# psutil's clocks are ticks of 10 ms on Linux, two of them.
COARSE_NS = 25 * MS
BURN = (
    "import sys,time\n"
    "def burn(ms):\n e=time.process_time_ns()+ms*1000000\n while time.process_time_ns()<e: pass\n"
    " print(time.process_time_ns(),flush=True)\n"
    "burn(1); sys.stdin.readline(); burn(150); sys.stdin.readline()\n"
)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1

    def __call__(self) -> int:
        self.now_ns += CALM_NS
        return self.now_ns


@pytest.fixture
def collector() -> Iterator[PortableProcessCollector]:
    collector = PortableProcessCollector(Clock(), os.getpid())
    yield collector
    collector.close()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


def go_on(child: subprocess.Popen[str]) -> int:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return int(child.stdout.readline())


def read(collector: PortableProcessCollector) -> dict[object, int]:
    return {reading.consumer: reading.busy_ns for reading in collector.read()}


def test_a_child_is_counted_in_our_tree_and_alone_when_it_is_a_root(
    collector: PortableProcessCollector, child: subprocess.Popen[str]
) -> None:
    ours, its = collector.identify(os.getpid()), collector.identify(child.pid)
    assert ours is not None
    assert its is not None
    collector.watch(ours)
    assert collector.root_of(child.pid) == ours
    collector.watch(its)
    assert collector.root_of(child.pid) == its
    before = read(collector)
    used_ns = go_on(child)
    after = read(collector)
    assert after[its] - before[its] == pytest.approx(used_ns, abs=COARSE_NS)
    assert after[ours] - before[ours] <= 150 * MS
    assert after["node"] - before["node"] >= 150 * MS - COARSE_NS
    assert collector.busy_ns(its) >= after[its]
    assert collector.tree_ns(its) >= after[its]
    collector.unwatch(its)
    assert collector.root_of(child.pid) == ours


def test_a_root_that_ended_is_told_once(collector: PortableProcessCollector, child: subprocess.Popen[str]) -> None:
    its = collector.identify(child.pid)
    assert its is not None
    collector.watch(its)
    assert collector.gone() == []
    child.kill()
    child.wait()
    assert collector.gone() == [its]
    assert collector.gone() == []
    read(collector)
    assert collector.gone() == []


def test_another_process_under_the_same_pid_is_not_billed(
    collector: PortableProcessCollector, child: subprocess.Popen[str]
) -> None:
    its = collector.identify(child.pid)
    assert its is not None
    stale = ProcessId(child.pid, its.start_ticks - 100)
    collector.watch(stale)
    assert collector.gone() == [stale]
    go_on(child)
    assert read(collector)[stale] == 0


def test_a_parent_tells_of_children_that_nobody_saw(collector: PortableProcessCollector) -> None:
    ours = collector.identify(os.getpid())
    assert ours is not None
    collector.watch(ours, reaped_ns=5 * MS)
    before_ns = collector.busy_ns(ours)
    assert collector.settle_reaped(ours, 905 * MS)
    assert collector.busy_ns(ours) - before_ns >= 900 * MS


def test_our_own_time_is_overhead_unless_a_job_has_us(collector: PortableProcessCollector) -> None:
    before = read(collector)
    end_ns = time.process_time_ns() + 30 * MS
    while time.process_time_ns() < end_ns:
        pass
    after = read(collector)
    assert after["overhead"] == after["agent"]
    assert after["agent"] - before["agent"] >= 30 * MS
    ours = collector.identify(os.getpid())
    assert ours is not None
    collector.watch(ours)
    assert read(collector)["agent"] <= after["agent"] + 5 * MS


def test_nobody_has_such_a_pid(collector: PortableProcessCollector) -> None:
    assert collector.identify(2**22 - 1) is None
    assert collector.root_of(2**22 - 1) is None


def test_host_facts() -> None:
    facts = host_facts()
    assert facts.cpus >= 1
    assert facts.memory_bytes > 2**27
    assert facts.packages is None or facts.packages >= 1
    assert 2**20 < resident_bytes() < facts.memory_bytes


def test_psutil_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, wattribute.collectors.host; sys.exit('psutil' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
