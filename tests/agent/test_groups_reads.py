"""Cgroups that are read each tick: new ones are asked for their memory at once, the others in turn, by the second."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.cgroups import FakeCgroups

from wattribute.agent.core.model import GroupId, UsageReading
from wattribute.agent.groups import SIZES_PER_S, Groups
from wattribute.collectors.cgroup import GroupUsage, Tree
from wattribute.collectors.process import ProcessCollector

MS = 1_000_000
JOBS = 3 * SIZES_PER_S


class _Node:
    """Found cgroups in a tree of files, read by the real collectors at moments set by hand."""

    def __init__(self, folder: Path) -> None:
        self.now_ns = 1000 * 1000 * MS
        self.tree = FakeCgroups(folder)
        tree = Tree(self.tree.cgroup, Path("/proc"))
        self.usage = GroupUsage(tree)
        cpu = ProcessCollector(Path("/proc"), self.tree.cgroup, self.clock, (), os.getpid())
        self.groups = Groups(tree, self.usage, cpu, (), self.clock)

    def clock(self) -> int:
        return self.now_ns

    def make(self, path: str) -> GroupId:
        group = self.tree.make(path)
        self.tree.set_memory(path, 4096)
        self.tree.flush()
        assert self.groups.watch(group) is not None
        return group

    def read(self, after_ms: int) -> dict[GroupId, UsageReading]:
        self.now_ns += after_ms * MS
        return {r.consumer: r for r in self.groups.read() if isinstance(r.consumer, GroupId)}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[_Node]:
    made = _Node(tmp_path)
    yield made
    made.groups.close()
    made.tree.close()


@pytest.mark.parametrize("interval_ms", [50, 100, 1000, 3000])
def test_sizes_are_asked_by_the_second(node: _Node, interval_ms: int) -> None:
    groups = [node.make(f"/job-{number}") for number in range(JOBS)]
    while node.groups._unsized:
        node.read(0)
    asked: list[GroupId] = []
    for _ in range(6000 // interval_ms):
        sizes = [r.consumer for r in node.read(interval_ms).values() if r.memory_bytes is not None]
        asked += [group for group in sizes if isinstance(group, GroupId)]
    assert len(asked) <= 6 * SIZES_PER_S
    if interval_ms <= 1000:
        assert set(asked) == set(groups)


def test_a_new_one_is_asked_at_once(node: _Node) -> None:
    for number in range(JOBS):
        node.make(f"/job-{number}")
    while node.groups._unsized:
        node.read(0)
    node.read(1000)
    new = node.make("/new")
    assert node.read(1)[new].memory_bytes == 4096


def test_only_what_has_changed_is_told(node: _Node) -> None:
    first, second = node.make("/a"), node.make("/b")
    assert node.read(1000).keys() == {first, second}
    node.tree.add_ns("/b", 5 * MS)
    node.tree.flush()
    told = node.read(1)
    assert told.keys() == {second}
    assert told[second].busy_ns == 5 * MS
    assert node.read(1) == {}
    node.groups.unwatch(second)
    assert node.groups._shown_ns.keys() == {node.groups._account.groups[first]}
