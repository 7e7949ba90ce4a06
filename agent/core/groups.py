"""CPU time of watched cgroups, each nanosecond billed once: the arithmetic, fed with what the counters said.

A cgroup's counter holds all that ever ran in it and below it. What is billed apart is taken off: watched cgroups below
it, and watched process trees whose root lives in it (the innermost wins). A process that left its tree's cgroup for
another watched one follows the new one. Units: nanoseconds; paths start with `/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattribute.agent.core.model import GroupId, ProcessId


@dataclass(slots=True, eq=False)
class Group:
    """One watched cgroup: what its counter said last, what of it others are billed for, and what is its own."""

    id: GroupId
    counter_ns: int
    outer: "Group | None" = None
    gross_ns: int = 0
    taken_ns: int = 0
    own_ns: int = 0
    trees: dict[ProcessId, int] = field(default_factory=dict)


class GroupAccount:
    """All watched cgroups. `own_ns` of each is cumulative from 0 at its watch and never falls."""

    def __init__(self) -> None:
        self.groups: dict[GroupId, Group] = {}
        self.homes: dict[ProcessId, Group] = {}  # watched tree -> the innermost watched cgroup of its root
        self._by_path: dict[str, Group] = {}

    def watch(self, group: GroupId, counter_ns: int, since_ns: int) -> None:
        """Start with a counter that stands at `counter_ns` now; what it gained since `since_ns` is the group's.

        A path that was made anew takes the place of the one before, whose account stands still.
        """
        node = self.groups[group] = Group(group, counter_ns)
        self._by_path[group.path] = node
        node.outer = self.around(group.path)
        grown_ns = node.gross_ns = max(0, counter_ns - since_ns)
        prefix = group.path + "/"
        for other in self.groups.values():
            if other.id.path.startswith(prefix) and other.outer is node.outer:
                other.outer = node
                if grown_ns:
                    node.taken_ns += other.gross_ns
        node.own_ns = max(0, grown_ns - node.taken_ns)
        if node.outer is not None:
            node.outer.taken_ns += grown_ns - node.taken_ns

    def unwatch(self, group: GroupId) -> None:
        """Stop: what lives on in it falls to the enclosing one."""
        node = self.groups.pop(group, None)
        if node is None:
            return
        if self._by_path.get(group.path) is node:
            del self._by_path[group.path]
        for other in self.groups.values():
            if other.outer is node:
                other.outer = node.outer
        for tree, seen_ns in node.trees.items():
            del self.homes[tree]
            if node.outer is not None:
                node.outer.trees[tree] = seen_ns
                self.homes[tree] = node.outer

    def around(self, path: str) -> Group | None:
        """The innermost watched cgroup that encloses a path, itself not counted."""
        while path:
            path = path.rpartition("/")[0]
            if path in self._by_path:
                return self._by_path[path]
        return None

    def holding(self, path: str) -> Group | None:
        """The innermost watched cgroup that a process of cgroup `path` is in."""
        return self._by_path.get(path) or self.around(path)

    def enter(self, tree: ProcessId, path: str, billed_ns: int = 0) -> Group | None:
        """A tree whose root lives in `path` was billed for `billed_ns` so far; returns whose part the rest is."""
        node = self.holding(path)
        before = self.homes.get(tree)
        if node is None or node is before:
            return node
        if before is not None:
            billed_ns = before.trees.pop(tree)
        node.trees[tree] = billed_ns
        self.homes[tree] = node
        return node

    def leave(self, tree: ProcessId, billed_ns: int) -> None:
        """A tree isn't watched any more, after `billed_ns` in all."""
        node = self.homes.pop(tree, None)
        if node is not None:
            node.taken_ns += billed_ns - node.trees.pop(tree)

    def read(self, counters_ns: Mapping[GroupId, int], trees_ns: Mapping[ProcessId, int]) -> None:
        """Take in the counters, and what each tree has been billed for."""
        for group, node in self.groups.items():
            counter_ns = counters_ns.get(group, node.counter_ns)
            grown_ns = counter_ns - node.counter_ns
            if grown_ns > 0:
                node.counter_ns = counter_ns
                node.gross_ns += grown_ns
                if node.outer is not None:
                    node.outer.taken_ns += grown_ns
        for node in self.groups.values():
            if node.trees:
                for tree, seen_ns in node.trees.items():
                    billed_ns = trees_ns.get(tree, seen_ns)
                    node.taken_ns += billed_ns - seen_ns
                    node.trees[tree] = billed_ns
            # What others are billed for may be learnt before the counter moves: the own time then stands still.
            own_ns = node.gross_ns - node.taken_ns
            if own_ns > node.own_ns:
                node.own_ns = own_ns
