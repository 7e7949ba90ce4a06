"""CPU time of cgroups against a kernel made up of numbers: each nanosecond is billed once, to the innermost."""

from collections.abc import Mapping
from random import Random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattribute.agent.core.groups import RESTLESS_READS, STRAY_NS, GroupAccount
from wattribute.agent.core.model import GroupId, ProcessId

MS = 1_000_000
TOP = "/t"
PATHS = (TOP, "/t/a", "/t/b", "/t/a/x", "/t/a/x/1")
TREES = (ProcessId(1, 1), ProcessId(2, 2))

Since = Literal["birth", "now"]


class Cgroups:
    """Cgroups with hierarchical counters, the trees in them, and an account that follows both as `Groups` does."""

    def __init__(self, *paths: str) -> None:
        self.account = GroupAccount()
        self.counters: dict[str, int] = {}
        self.billed: dict[ProcessId, int] = {}  # by the trees' own clocks, which are right
        self.homes: dict[ProcessId, str] = {}
        self.closed: dict[GroupId, int] = {}  # own times of those that aren't watched any more, summed
        self.floors: dict[GroupId, int] = {}
        self._ids: dict[str, GroupId] = {}
        self._fresh: set[str] = set()  # made since the last read
        self._above: dict[str, GroupId] = {}
        self._gone: list[GroupId] = []
        self._inodes = 0
        self._last: dict[GroupId, int] = {}
        self._seen: dict[ProcessId, int] = {}  # what trees had been billed for at the last read
        self._base: dict[ProcessId, int] = {}  # what trees had been billed for when this agent began
        for path in paths:
            self.make(path)

    # What happens

    def make(self, path: str) -> None:
        above = path.rpartition("/")[0]
        if path not in self.counters and (above in self.counters or path == TOP):
            self._inodes += 1
            self._ids[path] = GroupId(path, self._inodes)
            self.counters[path] = 0
            self._fresh.add(path)

    def remove(self, path: str) -> None:
        inside = any(other.startswith(path + "/") for other in self.counters)
        if path == TOP or path not in self.counters or inside or path in self.homes.values():
            return
        del self.counters[path]
        self._fresh.discard(path)
        group = self._ids.pop(path)
        if group in self.account.groups:
            self._gone.append(group)
        if self._above.get(path) == group:
            del self._above[path], self.account.enclosures[path]

    def run(self, path: str, ns: int) -> None:
        while path:
            if path in self.counters:
                self.counters[path] += ns
            path = path.rpartition("/")[0]

    def run_tree(self, tree: ProcessId, ns: int) -> None:
        if tree in self.homes:
            self.run(self.homes[tree], ns)
            self.billed[tree] += ns

    # What the agent does

    def watch(self, path: str, since: Since = "now") -> GroupId | None:
        group = self._ids.get(path)
        if group is None or group in self.account.groups:
            return group
        counter_ns = self.counters[path]
        self._watch(group, 0 if since == "birth" or path in self._fresh else counter_ns)
        return group

    def _watch(self, group: GroupId, since_ns: int) -> None:
        path, above = group.path, group.path.rpartition("/")[0]
        if above in self.counters and above not in self._above:
            self._above[above] = self._ids[above]
            self.account.enclose(above, self.counters[above])
        for inner in self.account.below(path):
            self.account.advance(inner, self.counters.get(inner.path, 0) if self._is_there(inner) else 0)
        self.account.watch(group, self.counters[path], since_ns)
        for tree, home in self.homes.items():
            if home == path or home.startswith(path + "/"):
                seen_ns = self._told_ns(tree) if since_ns == self.counters[path] else self._seen.get(tree, 0)
                self.account.enter(tree, home, seen_ns)

    def unwatch(self, group: GroupId) -> None:
        if group in self.account.groups:
            self.closed[group] = self.closed.get(group, 0) + self.account.groups[group].own_ns
            self.account.unwatch(group)
            self.floors.pop(group, None)

    def enter(self, tree: ProcessId, path: str) -> None:
        if tree not in self.homes and path in self.counters:
            self.homes[tree] = path
            self.billed.setdefault(tree, 0)
            self._base.setdefault(tree, 0)
            self.account.enter(tree, path, self._told_ns(tree))

    def leave(self, tree: ProcessId) -> None:
        if self.homes.get(tree) in self._fresh:
            self.read()  # its start asked for a tick: by now no cgroup that it lives in is news
        if self.homes.pop(tree, None) is not None:
            self.account.leave(tree, self._told_ns(tree))

    def read(self) -> None:
        """As at a tick: all counters, then the accounts of what is gone are closed."""
        for group, node in self.account.groups.items():
            self._last[group] = self.counters[group.path] if self._is_there(group) else node.counter_ns
        above_ns = {path: self.counters[path] for path in self._above}
        told = {tree: ns - self._base[tree] for tree, ns in self.billed.items()}
        self.account.read(self._last, told, above_ns, self._gone)
        self._fresh.clear()
        self._seen = told
        for group in self._gone:
            self.unwatch(group)
        self._gone = []
        self.check()

    def restart(self, away: Mapping[str, int], order: Random) -> None:
        """Another agent goes on from what this one read last; it finds cgroups and trees in whatever order."""
        self.read()
        saved = {group: node.counter_ns for group, node in self.account.groups.items()}
        before, homes = dict(self.billed), self.homes
        for group in saved:
            self.unwatch(group)
        for path, ns in away.items():
            self.run(path, ns)
        for tree in homes:
            self.run_tree(tree, 7 * MS)
        self.account, self._above, self.homes, self._seen = GroupAccount(), {}, {}, {}
        self._base = dict(self.billed)  # what a tree used meanwhile is told by the first read
        found: list[GroupId | ProcessId] = [*saved, *homes]
        order.shuffle(found)
        for each in found:
            if isinstance(each, GroupId):
                self._watch(each, saved[each])
            else:
                self.enter(each, homes[each])
        self._base = before
        self.read()

    def _told_ns(self, tree: ProcessId) -> int:
        return self.billed[tree] - self._base[tree]

    def _is_there(self, group: GroupId) -> bool:
        return self._ids.get(group.path) == group

    def id_of(self, path: str) -> GroupId | None:
        return self._ids.get(path)

    # What must be so

    def own_ns(self, path: str) -> int:
        return self.account.groups[self._ids[path]].own_ns

    def billed_ns(self) -> int:
        return (
            sum(node.own_ns for node in self.account.groups.values())
            + sum(self.closed.values())
            + sum(self.billed.values())
        )

    def check(self) -> None:
        assert self.billed_ns() <= self.counters[TOP]
        for group, node in self.account.groups.items():
            assert node.own_ns >= self.floors.get(group, 0) >= 0
            self.floors[group] = node.own_ns


DID = ("make", "remove", "run", "watch", "unwatch", "enter", "tree", "leave", "read", "restart")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(DID),
        st.sampled_from(PATHS),
        st.sampled_from(TREES),
        st.integers(0, 50) | st.integers(0, 20_000),
    ),
    min_size=10,
    max_size=60,
)
SOME = st.lists(st.sampled_from(PATHS), unique=True)


def happen(world: Cgroups, steps: list[tuple[str, str, ProcessId, int]], *, removals: bool) -> None:
    for what, path, tree, amount in steps:
        ns = amount * MS // 10
        match what:
            case "make":
                world.make(path)
            case "remove" if removals:
                world.remove(path)
            case "run" if path in world.counters:
                world.run(path, ns)
            case "watch":
                world.watch(path)
            case "unwatch" if path != TOP and (group := world.id_of(path)):
                world.unwatch(group)
            case "enter":
                world.enter(tree, path)
            case "tree":
                world.run_tree(tree, ns)
            case "leave":
                world.leave(tree)
            case "restart":
                world.restart({path: ns} if path in world.counters else {}, Random(amount))
            case "read":
                world.read()
    world.read()


@settings(max_examples=500)
@given(watched=SOME, steps=STEPS)
def test_no_nanosecond_is_billed_twice_and_no_own_time_falls(
    watched: list[str], steps: list[tuple[str, str, ProcessId, int]]
) -> None:
    world = Cgroups(*PATHS)
    for path in watched:
        world.watch(path)
    happen(world, steps, removals=True)


@settings(max_examples=300)
@given(watched=SOME, steps=STEPS)
def test_none_is_lost_while_nothing_is_removed(
    watched: list[str], steps: list[tuple[str, str, ProcessId, int]]
) -> None:
    world = Cgroups(*PATHS)
    for path in (*watched, TOP):
        world.watch(path)
    happen(world, steps, removals=False)
    assert world.billed_ns() == world.counters[TOP]


def quiet(world: Cgroups) -> None:
    """Enough reads in which nothing runs beside the watched ones, for what is left to be believed."""
    for _ in range(RESTLESS_READS + 1):
        world.read()


def test_the_innermost_watched_cgroup_is_billed_and_a_tree_by_itself() -> None:
    world = Cgroups(*PATHS)
    for path in ("/t", "/t/a", "/t/a/x/1"):
        world.watch(path)
    world.enter(TREES[0], "/t/a/x")
    for path in PATHS:
        world.run(path, 10 * MS)
    world.run_tree(TREES[0], 5 * MS)
    world.read()
    assert [world.own_ns(path) // MS for path in ("/t", "/t/a", "/t/a/x/1")] == [20, 20, 10]
    group = world.id_of("/t/a")
    assert group is not None
    world.unwatch(group)
    world.run("/t/a/x", 3 * MS)
    world.run_tree(TREES[0], 7 * MS)
    world.read()
    assert [world.own_ns(path) // MS for path in ("/t", "/t/a/x/1")] == [23, 10]
    world.leave(TREES[0])
    world.run("/t/a/x", MS)
    world.read()
    assert world.own_ns("/t") == 24 * MS


def test_only_what_a_cgroup_uses_from_its_watch_on_is_its_own_unless_it_is_new() -> None:
    world = Cgroups(TOP)
    world.watch(TOP)
    world.make("/t/old")
    world.run("/t/old", 5 * MS)
    world.read()
    world.make("/t/new")
    world.run("/t/new", 3 * MS)
    world.watch("/t/old")
    world.watch("/t/new")
    world.run("/t/old", MS)
    world.read()
    assert [world.own_ns(path) // MS for path in ("/t", "/t/old", "/t/new")] == [5, 1, 3]


def test_what_a_removed_cgroup_used_since_the_last_read_is_told_by_the_one_above_it() -> None:
    world = Cgroups(TOP, "/t/a", "/t/b")
    last = world.watch("/t/a")
    world.watch("/t/b")
    assert last is not None
    quiet(world)
    world.run("/t/b", 9 * MS)
    world.run("/t/a", 40 * MS)
    world.remove("/t/a")
    world.read()
    assert world.closed[last] == 40 * MS
    assert world.own_ns("/t/b") == 9 * MS


@pytest.mark.parametrize("why", ["others run beside it", "two go at once", "too early", "one beside it wasn't watched"])
def test_what_may_be_anybodys_is_not_told(why: str) -> None:
    world = Cgroups(TOP, "/t/a", "/t/b")
    last = world.watch("/t/a")
    other = world.watch("/t/b")
    assert last is not None
    assert other is not None
    if why == "one beside it wasn't watched":
        world.unwatch(other)
    if why == "too early":
        world.read()
    else:
        quiet(world)
    if why == "others run beside it":
        world.run(TOP, 2 * STRAY_NS)
        world.read()
    if why == "two go at once":
        world.remove("/t/b")
    if why == "one beside it wasn't watched":
        world.run("/t/b", 5 * MS)
        world.watch("/t/b")
    world.run("/t/a", 40 * MS)
    world.remove("/t/a")
    world.read()
    assert world.closed[last] == 0


def test_a_tree_beside_a_removed_cgroup_keeps_its_time_to_itself() -> None:
    world = Cgroups(TOP, "/t/a")
    last = world.watch("/t/a")
    assert last is not None
    world.enter(TREES[0], TOP)
    quiet(world)
    world.run_tree(TREES[0], 30 * MS)
    world.run("/t/a", 2 * MS)
    world.remove("/t/a")
    world.read()
    assert world.closed[last] == 2 * MS


def test_a_tree_that_ended_in_a_removed_cgroup_is_not_billed_to_the_one_around_it_again() -> None:
    world = Cgroups(TOP, "/t/a")
    world.watch(TOP)
    world.watch("/t/a")
    world.enter(TREES[0], "/t/a")
    world.read()
    world.run_tree(TREES[0], 30 * MS)
    world.leave(TREES[0])
    world.remove("/t/a")
    world.read()
    world.run(TOP, MS)
    world.read()
    assert world.own_ns(TOP) == MS


@pytest.mark.parametrize("seed", range(8))
def test_after_a_restart_each_has_its_own_of_the_time_between(seed: int) -> None:
    """In whatever order they are found again; what lives inside may come before or after."""
    world = Cgroups(*PATHS)
    world.watch(TOP)
    world.watch("/t/a/x")
    world.enter(TREES[0], "/t/a/x/1")
    world.read()
    world.restart({TOP: 2 * MS, "/t/a/x": 5 * MS}, Random(seed))
    assert [world.own_ns(path) // MS for path in ("/t", "/t/a/x")] == [2, 5]
    assert world.billed_ns() == world.counters[TOP] == 14 * MS


def test_one_made_anew_under_the_same_path_is_another() -> None:
    world = Cgroups(TOP, "/t/a", "/t/a/x")
    before = world.watch("/t/a")
    world.run("/t/a", 3 * MS)
    world.read()
    world.remove("/t/a/x")
    world.remove("/t/a")
    for path in ("/t/a", "/t/a/x"):
        world.make(path)
    world.run("/t/a/x", 5 * MS)
    world.run("/t/a", 2 * MS)
    world.watch("/t/a/x")  # the inner one is found first
    world.watch("/t/a")
    world.read()
    assert before is not None
    assert before not in world.account.groups
    assert [world.own_ns(path) // MS for path in ("/t/a", "/t/a/x")] == [2, 5]
    assert world.closed[before] == 3 * MS
