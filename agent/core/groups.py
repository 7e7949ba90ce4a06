"""CPU time of watched cgroups, each nanosecond billed once: the arithmetic, fed with what the counters said.

A cgroup's counter holds all that ever ran in it and below it. What is billed apart is taken off: watched cgroups below
it, and watched process trees whose root lives in it (the innermost wins). A process that left its tree's cgroup for
another watched one follows the new one. Units: nanoseconds; paths start with `/`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from wattribute.agent.core.model import GroupId, ProcessId

RESTLESS_READS = 3
STRAY_NS = 2_000_000
"""Two counters aren't read at the same moment: this much may seem to have run beside the watched ones."""


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


@dataclass(slots=True)
class Enclosure:
    """The cgroup right above watched ones. The kernel takes a counter away with its cgroup, but what it held stays in
    this one: what was used between the last read and the removal can be told from it, where nothing else runs here.
    """

    path: str
    counter_ns: int
    new_ns: int = 0  # what cgroups made since the last read had used when they were found
    known: bool = False  # nothing came since the last read whose use until then isn't known
    restless: int = RESTLESS_READS  # reads until nothing has run here for long enough beside the watched ones

    def settle(self, counter_ns: int, theirs_ns: int, gone: int) -> int:
        """Take in a read: `theirs_ns` is what the watched ones gained. Returns what the one that is gone had left."""
        gained_ns = counter_ns - self.counter_ns
        left_ns = gained_ns - theirs_ns - self.new_ns
        known, self.known = self.known, True
        self.counter_ns, self.new_ns = counter_ns, 0
        if not known:
            return 0
        if gone == 1 and not self.restless and left_ns > 0:
            return left_ns
        if gone:
            return 0
        quiet = left_ns <= max(STRAY_NS, gained_ns // 1000)
        self.restless = max(0, self.restless - 1) if quiet else RESTLESS_READS
        return 0


class GroupAccount:
    """All watched cgroups. `own_ns` of each is cumulative from 0 at its watch and never falls."""

    def __init__(self) -> None:
        self.groups: dict[GroupId, Group] = {}
        self.homes: dict[ProcessId, Group] = {}  # watched tree -> the innermost watched cgroup of its root
        self.enclosures: dict[str, Enclosure] = {}
        self._by_path: dict[str, Group] = {}

    def watch(self, group: GroupId, counter_ns: int, since_ns: int) -> None:
        """Start with a counter that stands at `counter_ns` now; what it gained since `since_ns` is the group's.

        A path that was made anew takes the place of the one before, whose account stands still.
        """
        node = self.groups[group] = Group(group, counter_ns)
        self._by_path[group.path] = node
        enclosure = self.enclosures.get(_above(group.path))
        if enclosure is not None:
            enclosure.new_ns += counter_ns
            enclosure.known = enclosure.known and since_ns == 0
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

    def enclose(self, path: str, counter_ns: int) -> None:
        """Watch the cgroup above some, for what is left in it by those that go."""
        self.enclosures[path] = Enclosure(path, counter_ns)

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

    def read(
        self,
        counters_ns: Mapping[GroupId, int],
        trees_ns: Mapping[ProcessId, int],
        above_ns: Mapping[str, int],
        gone: Collection[GroupId] = (),
    ) -> None:
        """Take in the counters, what each tree has been billed for, and the counters of the enclosures."""
        theirs_ns = dict.fromkeys(above_ns, 0)
        for group, node in self.groups.items():
            counter_ns = counters_ns.get(group, node.counter_ns)
            grown_ns = counter_ns - node.counter_ns
            if grown_ns > 0:
                node.counter_ns = counter_ns
                self._grow(node, grown_ns)
                above = _above(group.path)
                if above in theirs_ns:
                    theirs_ns[above] += grown_ns
        self._settle(theirs_ns, above_ns, [self.groups[group] for group in gone if group in self.groups])
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

    def _settle(self, theirs_ns: dict[str, int], above_ns: Mapping[str, int], gone: Sequence[Group]) -> None:
        """The innermost first: what an enclosure gained is one of those of the enclosure around it."""
        for path in sorted(above_ns, key=len, reverse=True):
            enclosure = self.enclosures[path]
            gained_ns = above_ns[path] - enclosure.counter_ns
            left = [node for node in gone if _above(node.id.path) == path]
            left_ns = enclosure.settle(above_ns[path], theirs_ns[path], len(left))
            if left_ns:
                self._grow(left[0], left_ns)
            outer = _above(path)
            if outer in theirs_ns:
                theirs_ns[outer] += gained_ns

    @staticmethod
    def _grow(node: Group, grown_ns: int) -> None:
        node.gross_ns += grown_ns
        if node.outer is not None:
            node.outer.taken_ns += grown_ns


def _above(path: str) -> str:
    return path.rpartition("/")[0]
