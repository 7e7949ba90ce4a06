"""Who used the CPU: one cumulative reading per watched process tree, and the node's, the overhead's and our own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from wattribute.agent.core.followed import FollowedTrees
from wattribute.agent.core.following import Follower, Kernel
from wattribute.agent.core.model import Account, ProcessId, UsageReading
from wattribute.collectors.process.ends import Ends
from wattribute.collectors.process.node import NodeTime
from wattribute.collectors.process.overhead import OverheadTime
from wattribute.collectors.process.procfs import ProcFs


class Processes(Kernel, Protocol):
    """A kernel that tells who ended, too: /proc, or one that is simulated."""

    def has_ended(self, pid: int) -> bool: ...
    def close(self) -> None: ...


class ProcessCollector(FollowedTrees):
    """CPU time of watched roots' trees (innermost root wins), in nanoseconds. Read inline: it never blocks.

    A root's `busy_ns` starts at 0 at the watch and never falls; each nanosecond is billed to one root, and the sum
    over roots is at most what was used (see core/trees.py for the proof, core/following.py for the order of reading).
    `clock` is CLOCK_BOOTTIME in ns. Raises SensorUnavailable without a /proc of our own process namespace.
    """

    name = "process"

    def __init__(
        self,
        proc: Path,
        cgroup: Path,
        clock: Callable[[], int],
        overhead_cgroups: Sequence[str],
        own_pid: int,
        kernel: Processes | None = None,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._own_pid = own_pid
        self._kernel: Processes = ProcFs(proc) if kernel is None else kernel
        self._follower = Follower(self._kernel, clock)
        self._node = NodeTime(proc, cgroup, self._kernel, clock)
        self.node_method = self._node.method
        self._overhead = OverheadTime(proc, cgroup, overhead_cgroups, clock)
        self._ends = Ends() if kernel is None else None
        self._untold: set[ProcessId] = set()
        self._own_inside = self._overhead.holds(own_pid)
        self._own_seen_ns = 0
        self._own_used_ns = 0

    def read(self) -> list[UsageReading]:
        """One reading per root, then `node`, `overhead` (the agent's own time in it, once) and `agent`."""
        trees = self._follower.read()
        at_ns = self._clock()
        readings = [
            UsageReading(
                domain_kind="cpu",
                consumer=tree.root,
                at_ns=at_ns,
                busy_ns=tree.billed_ns,
                memory_bytes=tree.memory_bytes,
            )
            for tree in trees
            if tree.root not in self._parted
        ]
        own_ns = self._own_ns()
        overhead_ns = self._overhead.read_ns(trees) + (0 if self._own_inside else own_ns)
        accounts: list[tuple[Account, int]] = [
            ("node", self._node.read_ns()),
            ("overhead", overhead_ns),
            ("agent", own_ns),
        ]
        readings += [
            UsageReading(domain_kind="cpu", consumer=account, at_ns=at_ns, busy_ns=busy_ns)
            for account, busy_ns in accounts
        ]
        return readings

    def node_ns(self) -> int:
        """All CPU time of the node until now, cumulative."""
        return self._node.read_ns()

    def watch(self, root: ProcessId, since_ns: int | None = None, reaped_ns: int | None = None) -> None:
        """Follow a process and what descends from it, from 0.

        `reaped_ns` is the root's own getrusage(RUSAGE_CHILDREN) now: a sharper base than the ticks of its stat line.
        `since_ns`, after a restart, is what `tree_ns` told: the first read has the growth since. Watch all such roots
        before that read. A root that isn't there any more reads 0 and is told by `gone`.
        """
        if root in self._follower.account.trees:
            return
        self._follower.watch(root, since_ns, reaped_ns)
        self._overhead.enter(root)
        if self._ends is None or not self._ends.add(root):
            self._untold.add(root)

    def unwatch(self, root: ProcessId) -> None:
        """Stop; what lives on of its tree falls to an enclosing watched root, if there is one."""
        self._overhead.leave(root, self._follower.busy_ns(root))
        self._follower.unwatch(root)
        if self._ends is not None:
            self._ends.discard(root)
        self._untold.discard(root)

    def gone(self) -> list[ProcessId]:
        """Watched roots that ended (zombies too), or whose pid is another's, since the last call."""
        gone = dict.fromkeys(self._follower.gone())
        if self._ends is not None:
            gone.update(dict.fromkeys(self._ends.ended()))
        self._forget_parted()
        for root in [root for root in self._untold if self._kernel.has_ended(root.pid)]:
            self._untold.discard(root)
            gone[root] = None
        return [root for root in gone if root not in self._parted]

    def close(self) -> None:
        """Give all files back; may be called twice."""
        if self._ends is not None:
            self._ends.close()
        self._overhead.close()
        self._node.close()
        self._kernel.close()

    def _own_ns(self) -> int:
        """Our own CPU time while no job had us in its tree: in-process, all that we use is the job's."""
        own_ns = self._kernel.clock_ns(self._kernel.clock_id(self._own_pid))
        if self._own_pid not in self._follower.account.live:
            self._own_used_ns += own_ns - self._own_seen_ns
        self._own_seen_ns = own_ns
        return self._own_used_ns
