"""What every process collector offers of the process trees that it follows, and which of them it has parted with."""

from collections.abc import Iterable

from wattribute.agent.core.following import Follower
from wattribute.agent.core.model import ProcessId
from wattribute.agent.core.trees import Member


class FollowedTrees:
    """By its `_follower`. What it has parted with is followed on, for nobody: it is billed elsewhere."""

    _follower: Follower

    def __init__(self) -> None:
        self._parted: set[ProcessId] = set()

    def members(self) -> Iterable[Member]:
        """The live processes of all watched trees, without what was parted with."""
        parted = self._parted
        live = list(self._follower.account.live.values())
        return [m for m in live if m.tree.root not in parted] if parted else live

    def part(self, process: ProcessId) -> None:
        """From now on a process of a tree, with what descends from it, is billed elsewhere, and here to nobody."""
        if process not in self._follower.account.trees:
            self._parted.add(process)
            self._follower.watch(process)

    def _forget_parted(self) -> None:
        """As long as something of it lives, it isn't to fall back to the tree around it."""
        trees = self._follower.account.trees
        for root in [root for root in self._parted if not trees[root].members]:
            self._parted.discard(root)
            self._follower.unwatch(root)

    def identify(self, pid: int) -> ProcessId | None:
        """Who has this pid now; None where nobody has, or nobody that we may see."""
        return self._follower.identify(pid)

    def recall(self, pid: int) -> ProcessId | None:
        """Who in a watched tree had this pid at the last read; None: nobody, and `identify` may know."""
        return self._follower.recall(pid)

    def root_of(self, pid: int) -> ProcessId | None:
        """The watched root that a process belongs to."""
        return self._follower.root_of(pid)

    def busy_ns(self, root: ProcessId) -> int:
        """Cumulative CPU time of a root's tree by the clocks of its known processes: cheap, for exact moments."""
        return self._follower.busy_ns(root)

    def tree_ns(self, root: ProcessId) -> int:
        """Own and reaped time of the root's live subtree, as far as it is accounted for: to be saved for `since_ns`."""
        return self._follower.tree_ns(root)

    def trees_ns(self) -> dict[ProcessId, int]:
        """What `tree_ns` says, for every watched root."""
        return self._follower.trees_ns()

    def settle_reaped(self, root: ProcessId, reaped_ns: int) -> bool:
        """The root's exact getrusage(RUSAGE_CHILDREN), at its end: believed within what its ticks leave open."""
        return self._follower.settle_reaped(root, reaped_ns)
