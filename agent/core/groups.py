"""CPU time of watched cgroups, each nanosecond billed once: the arithmetic, fed with what the counters said.

A cgroup's counter holds all that ever ran in it and below it. What is billed apart is taken off: watched cgroups below
it, and watched process trees whose root lives in it (the innermost wins). A process that left its tree's cgroup for
another watched one follows the new one. Units: nanoseconds; paths start with `/`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(slots=True, eq=False)
class Home:
    """Where a watched tree's root lives, what the tree has been billed for, and whose account that is taken off."""

    path: str
    billed_ns: int
    group: Group | None


@dataclass(slots=True)
class Enclosure:
    """The cgroup right above watched ones. The kernel takes a counter away with its cgroup, but what it held stays in
    this one: what was used between the last read and the removal can be told from it, where nothing else runs here.
    """

    path: str
    counter_ns: int
    theirs_ns: int = 0  # what is known of it since the last read: of watched ones, and of those made since then
    known: bool = False  # nothing came since the last read whose use until then isn't known
    restless: int = RESTLESS_READS  # reads until nothing has run here for long enough beside the watched ones

    def settle(self, counter_ns: int, gone: int) -> int:
        """Take in a read. Returns what the one that is gone had left."""
        gained_ns = counter_ns - self.counter_ns
        left_ns = gained_ns - self.theirs_ns
        known, self.known = self.known, True
        self.counter_ns, self.theirs_ns = counter_ns, 0
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
        self.homes: dict[ProcessId, Home] = {}
        self.enclosures: dict[str, Enclosure] = {}
        self._by_path: dict[str, Group] = {}

    def watch(self, group: GroupId, counter_ns: int, since_ns: int) -> None:
        """Start with a counter that stands at `counter_ns` now; what it gained since `since_ns` is the group's.

        The next read tells how much of that is its own: what lives in it may be watched only after it. A path that was
        made anew takes the place of the one before, whose account stands still. Watched ones `below` it are to be
        advanced first: the new counter doesn't have what they used until now.
        """
        node = self.groups[group] = Group(group, counter_ns)
        before, self._by_path[group.path] = self._by_path.get(group.path), node
        self._tell(group.path, counter_ns)
        if since_ns:
            self._doubt(group.path)
        node.outer = self.around(group.path)
        grown_ns = node.gross_ns = max(0, counter_ns - since_ns)
        for inner in self.below(group.path):
            other = self.groups[inner]
            if other.outer in (node.outer, before):
                self._tell(inner.path, self._cover(other))
                other.outer = node
                if grown_ns:
                    node.taken_ns += other.gross_ns
        if node.outer is not None:
            node.outer.taken_ns += grown_ns - node.taken_ns

    def unwatch(self, group: GroupId) -> None:
        """Stop: what lives on in it falls to the enclosing one."""
        node = self.groups.pop(group, None)
        if node is None:
            return
        # What was billed in it isn't billed once more around it; what wasn't falls to what is around it.
        self._grow(node, node.own_ns + node.taken_ns - node.gross_ns)
        if not self.groups:
            self._doubt("")  # nobody reads on
        if self._by_path.get(group.path) is node:
            del self._by_path[group.path]
        for other in self.groups.values():
            if other.outer is node:
                other.outer = self.around(other.id.path)
        for home in self.homes.values():
            if home.group is node:
                home.group = self.holding(home.path)

    def enclose(self, path: str, counter_ns: int) -> None:
        """Watch the cgroup above some, for what is left in it by those that go."""
        self.enclosures[path] = Enclosure(path, counter_ns)
        self._doubt(path)

    def below(self, path: str) -> list[GroupId]:
        """The watched cgroups inside another."""
        return [group for group in self.groups if group.path.startswith(path + "/")]

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
        if before is not None:
            if before.group is node:
                billed_ns = before.billed_ns
            else:
                self._bill(before, billed_ns)
        self.homes[tree] = Home(path, billed_ns, node)
        return node

    def leave(self, tree: ProcessId, billed_ns: int) -> None:
        """A tree isn't watched any more, after `billed_ns` in all."""
        home = self.homes.pop(tree, None)
        if home is not None:
            self._bill(home, billed_ns)

    def advance(self, group: GroupId, counter_ns: int) -> None:
        """A counter stands there now."""
        node = self.groups[group]
        grown_ns = counter_ns - node.counter_ns
        if grown_ns <= 0:
            return
        node.counter_ns = counter_ns
        self._grow(node, grown_ns)
        self._tell(group.path, grown_ns)

    def read(
        self,
        counters_ns: Mapping[GroupId, int],
        trees_ns: Mapping[ProcessId, int],
        above_ns: Mapping[str, int],
        gone: Collection[GroupId] = (),
    ) -> None:
        """Take in the counters, what each tree has been billed for, and the counters of the enclosures."""
        for group, node in self.groups.items():
            counter_ns = counters_ns.get(group, 0)
            if counter_ns > node.counter_ns:
                self.advance(group, counter_ns)
        for tree, home in self.homes.items():
            billed_ns = trees_ns.get(tree, home.billed_ns)
            if billed_ns > home.billed_ns:
                self._bill(home, billed_ns)
        left = sorted([self.groups[group] for group in gone if group in self.groups], key=lambda n: -len(n.id.path))
        self._settle(above_ns, left)
        for node in left:
            self._cover(node)
        for node in self.groups.values():
            # What others are billed for may be learnt before the counter moves: the own time then stands still.
            own_ns = node.gross_ns - node.taken_ns
            if own_ns > node.own_ns:
                node.own_ns = own_ns

    def _settle(self, above_ns: Mapping[str, int], gone: Sequence[Group]) -> None:
        """The innermost first: what an enclosure gained is one of those of the enclosure around it."""
        for path in sorted(above_ns, key=len, reverse=True):
            enclosure = self.enclosures[path]
            gained_ns = above_ns[path] - enclosure.counter_ns
            left = [node for node in gone if _above(node.id.path) == path]
            left_ns = enclosure.settle(above_ns[path], len(left))
            if left_ns:
                self._grow(left[0], left_ns)
            self._tell(path, gained_ns, self.holding(path))

    def _cover(self, node: Group) -> int:
        """What was billed in a cgroup was used in it, whatever its counter had time to show: none around pays again.

        Returns how much that is.
        """
        hidden_ns = max(0, node.own_ns + node.taken_ns - node.gross_ns)
        self._grow(node, hidden_ns)
        return hidden_ns

    def _bill(self, home: Home, billed_ns: int) -> None:
        """A tree has been billed for so much now."""
        grown_ns, home.billed_ns = billed_ns - home.billed_ns, billed_ns
        if home.group is not None:
            home.group.taken_ns += grown_ns
        self._tell(f"{home.path}/.", grown_ns, home.group)

    def _tell(self, path: str, used_ns: int, watched: Group | None = None) -> None:
        """The enclosure of `path` has what was used there, and knows of it now; `watched` may have told it."""
        enclosure = self._enclosing(path)
        if enclosure is not None and (watched is None or len(watched.id.path) <= len(enclosure.path)):
            enclosure.theirs_ns += used_ns

    def _doubt(self, path: str) -> None:
        """Nobody looked there until now: what the enclosures around and in it gained isn't known to be anybody's."""
        for enclosure in self.enclosures.values():
            if f"{enclosure.path}/".startswith(f"{path}/") or path.startswith(f"{enclosure.path}/"):
                enclosure.known = False

    def _enclosing(self, path: str) -> Enclosure | None:
        """The innermost enclosure around a path, itself not counted."""
        while path:
            path = path.rpartition("/")[0]
            if path in self.enclosures:
                return self.enclosures[path]
        return None

    @staticmethod
    def _grow(node: Group, grown_ns: int) -> None:
        node.gross_ns += grown_ns
        if node.outer is not None:
            node.outer.taken_ns += grown_ns


def _above(path: str) -> str:
    return path.rpartition("/")[0]
