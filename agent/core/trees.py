"""CPU time of process trees, each nanosecond billed once: the arithmetic, fed with what was seen of the kernel.

A tree is a watched root process and what descends from it, less the trees of other watched roots (innermost wins).
Per process the kernel tells `own` time and `reaped` time: that of the children it waited for. own + reaped over the
LIVE tree is conserved when a child is reaped, and that is all that is used here. Units: nanoseconds.

    total   = sum of own + reaped over a tree's live members
    surplus = total - what of it has been accounted for (billed, or there before the watch)

Own time is billed as it passes: total grows, surplus doesn't change. Reaped time goes to the surplus; a death takes
the dead's own + reaped out of it, and its reaper's reaped time brings them back. What stays above 0 is CPU time that
nobody has seen running, and is billed. A surplus below 0 is a debt:
- reaped time is told in two floored ticks, so it may come back up to two ticks short until later reaping shows it;
- the reaper sits in an enclosing tree: the debt there cancels what it brings back (never billed to the outer again);
- the dead was reaped by nobody who is watched (a daemon, adopted by init): the debt is forgiven.

Invariant: the sum of `billed_ns` over all trees, ever, is at most the CPU time truly used by their processes since
they were watched (but for up to two ticks per process of children reaped before), and no `billed_ns` ever falls.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from wattribute.agent.core.model import ProcessId


class Sample(NamedTuple):
    """A process at one moment; `reaped_ns` was read before `own_ns`."""

    id: ProcessId
    own_ns: int
    reaped_ns: int
    memory_bytes: int = 0


@dataclass(slots=True, eq=False)
class Member:
    """A live process of a tree. `parent`: it was seen to have children. The last three fields are the feeder's."""

    id: ProcessId
    tree: "Tree"
    own_ns: int
    reaped_ns: int
    memory_bytes: int = 0
    parent: bool = False
    clock_id: int = 0
    checked_own_ns: int = -1
    due_ns: int = 0


@dataclass(slots=True, eq=False)
class Tree:
    """One watched root's account."""

    root: ProcessId
    outer: "Tree | None"
    members: dict[int, Member] = field(default_factory=dict)
    inner: dict[ProcessId, "Tree"] = field(default_factory=dict)
    billed_ns: int = 0
    total_ns: int = 0
    surplus_ns: int = 0
    memory_bytes: int = 0
    regained_ns: int | None = None

    def family(self) -> Iterable["Tree"]:
        """The tree and all that are nested in it."""
        yield self
        for tree in self.inner.values():
            yield from tree.family()

    def enclosing(self) -> Iterable["Tree"]:
        """The tree and all that it is nested in, outwards."""
        tree: Tree | None = self
        while tree is not None:
            yield tree
            tree = tree.outer


class TreeAccount:
    """All watched trees. Nothing here reads a clock or a file."""

    def __init__(self) -> None:
        self.trees: dict[ProcessId, Tree] = {}
        self.live: dict[int, Member] = {}

    def watch(self, root: ProcessId, subtree: Iterable[Sample], since_ns: int | None = None) -> list[Member]:
        """Start a tree with all of `subtree` that no nested root has; what was used until now isn't its own.

        Members of the enclosing tree move, brought up to date for its sake first. `since_ns` is what `accounted_ns`
        told before a restart: the growth since then is the tree's. Returns the members that were not known before.
        """
        known_root = self.live.get(root.pid)
        outer = known_root.tree if known_root is not None and known_root.id == root else None
        tree = self.trees[root] = Tree(root, outer)
        joined, pids = [], set()
        for sample in subtree:
            pids.add(sample.id.pid)
            member = self.live.get(sample.id.pid)
            if member is None:
                joined.append(self.join(tree, sample))
            elif member.tree is outer:
                self.run(member, sample.own_ns)
                self.reap(member, sample.reaped_ns)
                self._move(member, tree)
        for other in list(self.trees.values()):
            if other is not tree and other.outer is outer and other.root.pid in pids:
                self._nest(other, tree)
        self._nest(tree, outer)
        if since_ns is not None:
            self._regain(tree, since_ns)
        return joined

    def unwatch(self, root: ProcessId) -> None:
        """End a tree: what remains of it, debts included, falls to the enclosing one or is forgotten."""
        tree = self.trees.pop(root, None)
        if tree is None:
            return
        outer = tree.outer
        if outer is not None:
            outer.surplus_ns += tree.surplus_ns
            tree.surplus_ns = 0
            del outer.inner[root]
        for member in list(tree.members.values()):
            if outer is not None:
                self._move(member, outer)
            else:
                del self.live[member.id.pid]
        for inner in list(tree.inner.values()):
            inner.outer = None
            self._nest(inner, outer)

    def join(self, tree: Tree, sample: Sample) -> Member:
        """A process enters a tree: what it used until now isn't the tree's."""
        member = Member(sample.id, tree, sample.own_ns, sample.reaped_ns, sample.memory_bytes)
        tree.members[sample.id.pid] = self.live[sample.id.pid] = member
        tree.memory_bytes += sample.memory_bytes
        tree.total_ns += sample.own_ns + sample.reaped_ns
        return member

    def fork(self, tree: Tree, sample: Sample) -> Member:
        """A new process in a tree: all that it has used is the tree's."""
        member = self.join(tree, sample)
        tree.billed_ns += sample.own_ns
        tree.surplus_ns += sample.reaped_ns
        return member

    def run(self, member: Member, own_ns: int) -> None:
        """A process ran on: billed at once. A clock that went back is another process's, and not for this call."""
        used_ns = own_ns - member.own_ns
        if used_ns > 0:
            member.own_ns = own_ns
            member.tree.total_ns += used_ns
            member.tree.billed_ns += used_ns

    def reap(self, member: Member, reaped_ns: int) -> bool:
        """A process's reaped time as read now, a lower bound of the truth; True where it tells something new."""
        new_ns = reaped_ns - member.reaped_ns
        if new_ns <= 0:
            return False
        member.reaped_ns = reaped_ns
        member.tree.total_ns += new_ns
        member.tree.surplus_ns += new_ns
        return True

    def size(self, member: Member, memory_bytes: int) -> None:
        """A process's resident memory as read now."""
        member.tree.memory_bytes += memory_bytes - member.memory_bytes
        member.memory_bytes = memory_bytes

    def die(self, member: Member) -> int:
        """A process was reaped, or its pid is another's now. Returns what its reaper may bring back, at least."""
        tree = member.tree
        known_ns = member.own_ns + member.reaped_ns
        # What others died owing may be hidden in the reaped time that this one was never asked for again.
        hidden_ns = max(0, -tree.surplus_ns) if member.parent else 0
        tree.total_ns -= known_ns
        tree.surplus_ns -= known_ns
        tree.memory_bytes -= member.memory_bytes
        del tree.members[member.id.pid], self.live[member.id.pid]
        return known_ns + hidden_ns

    def bill(self, tree: Tree) -> int:
        """Bill what is above 0 in a tree and those nested in it, less their debts; returns the debt that remains."""
        debt_ns = sum([self.bill(inner) for inner in tree.inner.values()]) if tree.inner else 0
        due_ns = tree.surplus_ns - debt_ns
        if due_ns > 0:
            tree.billed_ns += due_ns
            tree.surplus_ns -= due_ns
        return max(0, -due_ns)

    def forgive(self, tree: Tree, slack_ns: int, limbo_ns: Mapping[Tree, int]) -> None:
        """Pass on debts that floored ticks can't explain: to the enclosing tree, where the time must have gone, or off.

        `slack_ns` is the most that one process's reaped time can be short; `limbo_ns` what `die` told of those that
        died too late for their reapers' figures to have been read since.
        """
        for inner in tree.inner.values():
            self.forgive(inner, slack_ns, limbo_ns)
        if tree.surplus_ns >= 0:
            return
        reapers = sum(member.parent for member in tree.members.values())
        allowed_ns = slack_ns * reapers + limbo_ns.get(tree, 0)
        excess_ns = -tree.surplus_ns - allowed_ns
        if excess_ns > 0:
            tree.surplus_ns += excess_ns
            if tree.outer is not None:
                tree.outer.surplus_ns -= excess_ns

    def accounted_ns(self, tree: Tree) -> int:
        """What of the live subtree's own + reaped time has been accounted for: to be saved, for `since_ns`."""
        inner_ns = sum([self.accounted_ns(inner) for inner in tree.inner.values()]) if tree.inner else 0
        return tree.total_ns - tree.surplus_ns + inner_ns

    @staticmethod
    def _move(member: Member, to: Tree) -> None:
        tree, known_ns = member.tree, member.own_ns + member.reaped_ns
        tree.total_ns -= known_ns
        tree.memory_bytes -= member.memory_bytes
        del tree.members[member.id.pid]
        member.tree = to
        to.total_ns += known_ns
        to.memory_bytes += member.memory_bytes
        to.members[member.id.pid] = member

    @staticmethod
    def _nest(tree: Tree, outer: Tree | None) -> None:
        if tree.outer is not None:
            tree.outer.inner.pop(tree.root, None)
        tree.outer = outer
        if outer is not None:
            outer.inner[tree.root] = tree

    def _regain(self, tree: Tree, since_ns: int) -> None:
        whole_ns = sum(each.total_ns for each in tree.family())
        grown_ns = tree.regained_ns = whole_ns - since_ns
        # An enclosing tree that came back too has this growth in its own: each keeps what its inner ones don't.
        tree.surplus_ns += grown_ns - sum(inner.regained_ns or 0 for inner in tree.inner.values())
        if tree.outer is not None and tree.outer.regained_ns is not None:
            tree.outer.surplus_ns -= grown_ns
