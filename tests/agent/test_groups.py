"""Found cgroups over the process trees in them, read by the real collectors from a node that is moved by hand."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from tests.doubles.found_node import MS, FoundNode

from wattribute.agent.core.model import GroupId, ProcessId
from wattribute.agent.groups import RECHECK_NS, Groups
from wattribute.collectors.cgroup import GroupUsage, Tree, usage
from wattribute.collectors.process import ProcessCollector

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

S = 1_000_000_000


class Bench:
    """An agent's eyes on such a node. Nothing is billed but what `read` tells."""

    def __init__(self, node: FoundNode) -> None:
        self.node = node
        self.now_ns = 1000 * S
        self.ns: dict[object, int] = {}
        self.memory: dict[object, int] = {}
        self._open()

    def _open(self) -> None:
        cgroups = self.node.cgroups
        cgroups.flush()
        self.tree = Tree(cgroups.cgroup, cgroups.proc)
        self.usage = GroupUsage(self.tree)
        overhead = ("system.slice",)
        self.cpu = ProcessCollector(
            cgroups.proc, cgroups.cgroup, lambda: self.now_ns, overhead, os.getpid(), self.node.kernel
        )
        self.groups = Groups(self.tree, self.usage, self.cpu, overhead, lambda: self.now_ns)

    def watch(self, path: str, since_ns: int | None = None) -> GroupId:
        self.node.cgroups.flush()
        group = self.node.make(path)
        assert self.groups.watch(group, since_ns) is not None
        return group

    def enter(self, pid: int) -> ProcessId:
        """As the registry does for a job that begins."""
        root = self.cpu.identify(pid)
        assert root is not None
        self.cpu.watch(root)
        self.groups.enter(root)
        return root

    def leave(self, root: ProcessId) -> None:
        self.groups.leave(root, self.cpu.busy_ns(root))
        self.cpu.unwatch(root)

    def read(self, seconds: float = 1) -> None:
        """A tick: what each has been billed for, and the node."""
        self.now_ns += round(seconds * S)
        self.node.cgroups.flush()
        for reading in self.groups.read():
            assert reading.busy_ns >= self.ns.get(reading.consumer, 0), reading
            self.ns[reading.consumer] = reading.busy_ns
            if reading.memory_bytes is not None:
                self.memory[reading.consumer] = reading.memory_bytes

    def ms(self, consumer: object) -> float:
        return self.ns.get(consumer, 0) / MS

    def close(self) -> None:
        self.groups.close()
        self.cpu.close()


@pytest.fixture(params=["v1", "v2"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    # No file is kept open, so that a removed cgroup is gone for a reader, as it is for the kernel's.
    monkeypatch.setattr(usage, "_room", lambda: 0)
    hierarchy: Literal["v1", "v2"] = request.param
    node = FoundNode(tmp_path / "node", hierarchy)
    made = Bench(node)
    yield made
    made.close()
    node.close()


def test_without_cgroups_there_is_nothing_but_processes(bench: Bench) -> None:
    worker = bench.node.fork("/user.slice") if bench.node.make("/user.slice") else None
    assert worker is not None
    root = bench.enter(worker.pid)
    bench.node.burn(worker, 30)
    bench.read()
    assert bench.ms(root) == 30
    assert not any(isinstance(consumer, GroupId) for consumer in bench.ns)


def test_a_tree_inside_is_billed_by_itself_and_what_is_beside_it_to_the_cgroup(bench: Bench) -> None:
    group = bench.watch("/jobs/a")
    worker = bench.node.fork("/jobs/a")
    root = bench.enter(worker.pid)
    assert bench.groups.owner_of(worker.pid) == group
    for _ in range(5):
        bench.node.burn(worker, 20)
        bench.node.use("/jobs/a", 5)
        bench.read()
    assert (bench.ms(root), bench.ms(group)) == (100, 25)
    bench.leave(root)
    bench.node.burn(worker, 40)
    bench.read()
    assert (bench.ms(root), bench.ms(group)) == (100, 65)


def test_a_cgroup_found_after_the_tree_in_it_takes_none_of_the_trees_time(bench: Bench) -> None:
    bench.node.make("/jobs/a")
    worker = bench.node.fork("/jobs/a")
    root = bench.enter(worker.pid)
    bench.node.burn(worker, 500)
    bench.read()
    bench.node.burn(worker, 70)
    group = bench.watch("/jobs/a")
    bench.node.burn(worker, 30)
    bench.node.use("/jobs/a", 8)
    bench.read()
    assert (bench.ms(root), bench.ms(group)) == (600, 8)


def test_a_new_cgroup_has_all_of_its_time_but_for_the_tree_that_began_in_it(bench: Bench) -> None:
    bench.watch("/jobs/other")
    bench.read()
    bench.node.make("/jobs/a")
    worker = bench.node.fork("/jobs/a")
    root = bench.enter(worker.pid)
    bench.node.burn(worker, 70)
    bench.node.use("/jobs/a", 8)
    group = bench.watch("/jobs/a", 0)
    bench.node.burn(worker, 30)
    bench.read()
    assert (bench.ms(root), bench.ms(group)) == (100, 8)


def test_a_process_that_moves_to_another_jobs_cgroup_is_billed_there_from_then_on(bench: Bench) -> None:
    first, second = bench.watch("/jobs/first"), bench.watch("/jobs/second")
    shell = bench.node.fork("/jobs/first")
    root = bench.enter(shell.pid)
    child = bench.node.fork("/jobs/first", shell)
    bench.node.burn(child, 50)
    bench.read()
    bench.node.move(child, "/jobs/second")
    bench.read(RECHECK_NS / S)  # looked at again by now
    bench.node.burn(child, 200)
    bench.node.burn(shell, 10)
    bench.read()
    assert (bench.ms(root), bench.ms(first), bench.ms(second)) == (60, 0, 200)


def test_a_child_that_starts_in_another_jobs_cgroup_is_billed_once(bench: Bench) -> None:
    second = bench.watch("/jobs/second")
    bench.node.make("/user.slice")
    shell = bench.node.fork("/user.slice")
    root = bench.enter(shell.pid)
    bench.read()
    child = bench.node.fork("/jobs/second", shell)
    bench.node.burn(child, 30)
    bench.read()
    for _ in range(5):
        bench.node.burn(child, 30)
        bench.read()
    assert bench.ms(root) + bench.ms(second) == 180
    assert bench.ms(second) >= 150


def test_what_a_removed_cgroup_used_since_the_last_read_is_credited(bench: Bench) -> None:
    group = bench.watch("/jobs/a")
    bench.watch("/jobs/b")
    for _ in range(5):
        bench.node.use("/jobs/a", 100)
        bench.node.use("/jobs/b", 10)
        bench.read()
    bench.node.use("/jobs/a", 77)
    bench.node.use("/jobs/b", 10)
    bench.node.remove("/jobs/a")
    bench.read()
    assert bench.ms(group) == 577
    assert bench.groups.gone() == [group]
    assert bench.groups.gone() == []


def test_a_removed_enclosure_costs_nothing_for_ever(bench: Bench) -> None:
    """Every pod has a folder of its own around its container."""
    for n in range(5):
        group = bench.watch(f"/pods/pod{n}/c")
        bench.read()
        bench.node.remove(f"/pods/pod{n}/c")
        bench.node.remove(f"/pods/pod{n}")
        bench.read()
        for gone in bench.groups.gone():
            assert gone == group
            bench.groups.unwatch(gone)
    bench.watch("/pods/last/c")
    bench.read()
    assert {watched.path for watched in bench.usage.read()} <= {"/pods", "/pods/last", "/pods/last/c"}


@pytest.mark.parametrize("reads", [0, 1])
def test_what_ran_while_no_cgroup_was_watched_is_nobodys(bench: Bench, reads: int) -> None:
    first = bench.watch("/jobs/first")
    for _ in range(6):
        bench.read()
    bench.groups.unwatch(first)
    bench.node.use("/jobs", 5000)
    for _ in range(reads):
        bench.read()
    second = bench.watch("/jobs/second", 0)
    bench.node.remove("/jobs/second")
    bench.read()
    assert bench.ms(second) == 0


def test_jobs_among_the_system_daemons_are_no_overhead(bench: Bench) -> None:
    bench.node.make("/system.slice/sshd.service")
    bench.read()
    before = bench.ms("overhead")
    group = bench.watch("/system.slice/vllm.service", 0)
    bench.node.use("/system.slice/vllm.service", 300)
    bench.node.use("/system.slice/sshd.service", 20)
    bench.read()
    assert bench.ms(group) == 300
    assert bench.ms("overhead") - before == 20
    bench.groups.unwatch(group)
    bench.node.use("/system.slice/vllm.service", 40)
    bench.read()
    assert bench.ms("overhead") - before == 60
    assert bench.ms("node") == bench.node.cgroups.usage_ns("/") / MS


def test_after_a_restart_a_cgroup_goes_on_from_its_saved_counter_with_the_tree_in_it(bench: Bench) -> None:
    group = bench.watch("/jobs/a")
    worker = bench.node.fork("/jobs/a")
    root = bench.enter(worker.pid)
    bench.node.burn(worker, 20)
    bench.node.use("/jobs/a", 5)
    bench.read()
    counters, trees = bench.groups.counters_ns(), bench.cpu.trees_ns()
    bench.close()
    bench.node.burn(worker, 300)
    bench.node.use("/jobs/a", 50)
    for order in ("cgroup first", "tree first"):
        bench._open()
        bench.ns = {}
        if order == "cgroup first":
            assert bench.groups.watch(group, counters[group]) is not None
        bench.cpu.watch(root, since_ns=trees[root])
        bench.groups.enter(root)
        if order == "tree first":
            assert bench.groups.watch(group, counters[group]) is not None
        bench.read()
        assert (bench.ms(root), bench.ms(group)) == (300, 50)


def test_one_that_is_gone_is_not_watched_and_one_made_anew_is_another(bench: Bench) -> None:
    before = bench.watch("/jobs/a")
    bench.node.use("/jobs/a", 30)
    bench.read()
    bench.node.remove("/jobs/a")
    assert bench.groups.watch(GroupId("/jobs/a", before.inode)) is None
    after = bench.watch("/jobs/a", 0)
    assert after != before
    bench.node.use("/jobs/a", 7)
    bench.read()
    assert list(bench.groups.gone()) == [before]
    bench.groups.unwatch(before)
    bench.node.use("/jobs/a", 7)
    bench.read()
    assert (bench.ms(before), bench.ms(after)) == (30, 14)


def test_memory_is_what_nothing_inside_has_for_itself(bench: Bench) -> None:
    outer, inner = bench.watch("/jobs/a"), bench.watch("/jobs/a/x")
    bench.node.cgroups.set_memory("/jobs/a", 5000 << 20)
    bench.node.cgroups.set_memory("/jobs/a/x", 2000 << 20)
    worker = bench.node.fork("/jobs/a", memory_bytes=1000 << 20)
    root = bench.enter(worker.pid)
    for _ in range(2):
        bench.read()
    assert {key: bench.memory[key] >> 20 for key in (outer, inner, root)} == {outer: 4000, inner: 2000, root: 1000}
