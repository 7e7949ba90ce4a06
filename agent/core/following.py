"""Follows process trees through whatever tells about processes, in an order that never counts a nanosecond twice.

A kernel can't be seen at one moment, so the order matters: a process's reaped time is read BEFORE the clocks of those
that it may reap, and who is found dead after that read waits for the next (see `TreeAccount.forgive`). What is read is
what may have changed: membership when a pid was handed out, reaped time when a process ran (waiting for a child costs
CPU time of one's own). Orphans stay in the tree in which they were first seen. Units: nanoseconds.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from wattribute.agent.core.model import ProcessId
from wattribute.agent.core.trees import Member, Sample, Tree, TreeAccount

CALM_NS = 5_000_000_000
"""A process that ran but reaped nothing is asked this often, where no member of its tree died; memory is as old."""

LIST_NS = 30_000_000_000
PROBES_MAX = 256
"""Up to so many new pids are tried one by one, at half a microsecond each, for up to so long before a new listing."""

LATE_PIDS = 64
"""So many of the last pids, if they weren't there, are tried once more: a fork hands its pid out before it is done."""

SETTLE_SLACK_NS = 1_000_000
"""How far from the kernel's window a told reaped time may be: rounding, and what was reaped between two reads."""


class Stat(NamedTuple):
    """A process as the kernel describes it. `reaped_ns` may be floored to ticks."""

    parent_pid: int
    start_ticks: int
    reaped_ns: int
    memory_bytes: int


class Kernel(Protocol):
    """What tells about processes.

    `clock_ns(clock_id(pid))` is a process's own CPU time until it is reaped, then an OSError. `last_pid` changes
    whenever a process was made, and falls only when pids start over; `ascending`: it is the last one handed out, and
    new ones lie above. `slack_ns` is the most that a Stat's reaped time is short; None where that isn't told at all.
    """

    @property
    def ascending(self) -> bool: ...
    @property
    def slack_ns(self) -> int | None: ...
    @property
    def clock_ns(self) -> Callable[[int], int]: ...
    def clock_id(self, pid: int) -> int: ...
    def is_there(self, pid: int) -> bool: ...
    def last_pid(self) -> int: ...
    def pids(self) -> Sequence[int]: ...
    def stat(self, pid: int) -> Stat | None: ...


class Follower:
    """CPU time of watched trees, cumulative from 0 at the watch. `now_ns` is any monotone clock."""

    def __init__(self, kernel: Kernel, now_ns: Callable[[], int]) -> None:
        self.account = TreeAccount()
        self._kernel = kernel
        self._now_ns = now_ns
        self._parents: dict[int, int] = {}
        self._dead: set[int] = set()
        self._late: list[int] = []
        self._strays: dict[int, bool] = {}
        self._listed_ns = 0
        self._gone: dict[ProcessId, None] = {}
        self._hot: set[Tree] = set()
        self._limbo_ns: dict[Tree, int] = {}
        self._last_pid = -1
        self._dirty = False
        self._scanned_ns = now_ns()

    def read(self) -> Iterable[Tree]:
        """Bring all trees up to now.

        Reaped time is asked for at each read in which a process was made or died: learnt later, it would weigh in a
        window in which it didn't run, on those who did.
        """
        self._follow()
        self._run(self.account.live.values())
        now_ns = self._now_ns()
        if self._dirty or now_ns - self._scanned_ns >= CALM_NS:
            self._scan(now_ns)
        return self.account.trees.values()

    def identify(self, pid: int) -> ProcessId | None:
        """Who has this pid now; None: nobody."""
        stat = self._kernel.stat(pid)
        return None if stat is None else ProcessId(pid, stat.start_ticks)

    def watch(self, root: ProcessId, since_ns: int | None = None, reaped_ns: int | None = None) -> None:
        """Follow a process and all that descends from it. See `TreeAccount.watch`; `reaped_ns` as in settle_reaped."""
        if root in self.account.trees:
            return
        self._follow(listing_ns=CALM_NS)
        self._strays = dict.fromkeys(self._strays, True)  # wherever they turn up, it is with a past
        known = self.account.live.get(root.pid)
        if known is not None and known.id != root:
            self._bury(known)
        samples = self._sample_subtree(root.pid)
        if not samples or samples[-1].id != root:
            samples = []
            self._gone[root] = None
        elif reaped_ns is not None and self._is_credible(reaped_ns, samples[-1].reaped_ns):
            samples[-1] = samples[-1]._replace(reaped_ns=max(reaped_ns, samples[-1].reaped_ns))
        for member in self.account.watch(root, samples, since_ns):
            member.clock_id = self._kernel.clock_id(member.id.pid)
        for sample in samples:
            self._mark_parent(self._parents.get(sample.id.pid, 0))
        if since_ns is not None:
            self._scanned_ns = self._now_ns() - CALM_NS  # the growth is billed by the next read

    def unwatch(self, root: ProcessId) -> None:
        """Stop; what remains of the tree belongs to the enclosing one from now on, if there is one."""
        tree = self.account.trees.get(root)
        if tree is not None:
            self._hot.discard(tree)
            limbo_ns = self._limbo_ns.pop(tree, 0)
            if tree.outer is not None:
                self._limbo_ns[tree.outer] = self._limbo_ns.get(tree.outer, 0) + limbo_ns
                self._hot.add(tree.outer)
            self.account.unwatch(root)
        self._gone.pop(root, None)

    def busy_ns(self, root: ProcessId) -> int:
        """CPU time of a tree since its watch, by the clocks of its known processes alone; 0: not watched."""
        tree = self.account.trees.get(root)
        if tree is None:
            return 0
        self._run(tree.members.values())
        return tree.billed_ns

    def tree_ns(self, root: ProcessId) -> int:
        """What `watch` wants as `since_ns` after a restart, as of the last read; 0: not watched."""
        tree = self.account.trees.get(root)
        return 0 if tree is None else self.account.accounted_ns(tree)

    def trees_ns(self) -> dict[ProcessId, int]:
        """What `tree_ns` says, for every watched root."""
        account = self.account
        return {
            root: account.accounted_ns(tree) if tree.inner else tree.total_ns - tree.surplus_ns
            for root, tree in account.trees.items()
        }

    def recall(self, pid: int) -> ProcessId | None:
        """Who in a watched tree had this pid at the last read: no look at the kernel. None: nobody watched."""
        member = self.account.live.get(pid)
        return None if member is None else member.id

    def settle_reaped(self, root: ProcessId, reaped_ns: int) -> bool:
        """The root tells its exact reaped time. Believed where the kernel's own figure could be a floor of it.

        Reads the reaped time of the rest of the tree too, so that nothing stays behind at a job's end.
        """
        tree = self.account.trees.get(root)
        member = self.account.live.get(root.pid)
        if tree is None or member is None or member.id != root:
            return False
        self._run(tree.members.values())
        for other in list(tree.members.values()):
            if other is not member and other.own_ns != other.checked_own_ns:
                self._check(other, self._now_ns())
        stat = self._kernel.stat(root.pid)
        if stat is None or stat.start_ticks != root.start_ticks:
            return False
        told = self._is_credible(reaped_ns, stat.reaped_ns)
        self.account.reap(member, max(reaped_ns, stat.reaped_ns) if told else stat.reaped_ns)
        for each in list(tree.family()):
            self._run(each.members.values())  # who was in that figure isn't to be counted as alive
        self.account.bill(tree)
        return told

    def root_of(self, pid: int) -> ProcessId | None:
        """The watched root that a process belongs to."""
        if pid not in self.account.live:
            self._follow()
        member = self.account.live.get(pid)
        return None if member is None else member.tree.root

    def gone(self) -> list[ProcessId]:
        """Watched roots that were found reaped, or whose pid is another's, since the last call."""
        gone = list(self._gone)
        self._gone.clear()
        return gone

    # Membership

    def _follow(self, *, listing_ns: int = LIST_NS) -> None:
        """Take in who is new. `listing_ns`: the most that the list of all processes may be old, if any was made."""
        before, last_pid, late, strays = self._last_pid, self._kernel.last_pid(), self._late, self._strays
        if last_pid == before and not late and not strays:
            return
        self._last_pid, self._late, self._strays = last_pid, [], {}
        self._dirty = True
        if last_pid < before:
            # Pids started over: only now can one be another process's. The strangers are asked again below.
            for member in list(self.account.live.values()):
                if self.identify(member.id.pid) != member.id:
                    self._bury(member)
            self._parents = {pid: parent for pid, parent in self._parents.items() if pid in self.account.live}
        now_ns = self._now_ns()
        few = self._kernel.ascending and 0 <= last_pid - before <= PROBES_MAX
        if few and before >= 0 and now_ns - self._listed_ns < listing_ns:
            made = range(before + 1, last_pid + 1)
            found = {pid: False for pid in (*late, *made) if pid not in self._parents and self._kernel.is_there(pid)}
        else:
            self._listed_ns = now_ns
            found = self._list()
        self._take_in(found | strays, strays.keys())
        if self._kernel.ascending:
            recent = range(max(before, last_pid - LATE_PIDS) + 1, last_pid + 1)
            self._late = [pid for pid in recent if pid not in self._parents]

    def _list(self) -> dict[int, bool]:
        """Forget who is gone; returns newcomers, and orphans, who have a past: pid -> whether it was known before."""
        pids = self._kernel.pids()
        gone = self._parents.keys() - set(pids) | self._dead
        self._dead.clear()
        for pid in gone:
            self._parents.pop(pid, None)
            if pid in self.account.live:
                self._bury(self.account.live[pid])
        found = {pid: False for pid in pids if pid not in self._parents}
        return found | {pid: True for pid, parent in self._parents.items() if gone and parent in gone}

    def _take_in(self, pids: dict[int, bool], again: Collection[int]) -> None:
        """Read whose children they are, and put them into their parents' trees.

        One whose parent died meanwhile is asked for its next one the next time; once only where the parent was never
        seen, since some can't be (hidepid).
        """
        stats = {}
        for pid in pids:
            stat = self._kernel.stat(pid)
            if stat is not None:
                self._parents[pid] = stat.parent_pid
                stats[pid] = stat
                self._mark_parent(stat.parent_pid)
        for pid in stats:
            self._place(pid, stats, pids)
        for pid in stats:
            line = self._line(pid, stats)
            top = self._parents[line[-1]]
            unseen = top and top not in self._parents and pid not in again
            if pid not in self.account.live and (unseen or top in self._dead or top in self._strays):
                self._strays |= {each: pids[each] for each in line}

    def _place(self, pid: int, stats: dict[int, Stat], known: dict[int, bool]) -> None:
        """Put a newcomer into its parent's tree, its ancestors before it; one known before has a past of its own."""
        if pid in self.account.live:
            return
        line = self._line(pid, stats)
        parent = self.account.live.get(self._parents[line[-1]])
        if parent is None:
            return
        for pid in reversed(line):
            stat = stats[pid]
            own_ns = self._clock(pid)
            if own_ns is None:
                self._dead.add(pid)
                self._dirty = True
                return
            sample = Sample(ProcessId(pid, stat.start_ticks), own_ns, stat.reaped_ns, stat.memory_bytes)
            enter = self.account.join if known[pid] else self.account.fork
            enter(parent.tree, sample).clock_id = self._kernel.clock_id(pid)
            self._mark_parent(self._parents[pid])

    def _line(self, pid: int, stats: dict[int, Stat]) -> list[int]:
        """A newcomer and its ancestors that are newcomers too."""
        line = [pid]
        while (pid := self._parents[pid]) in stats and pid not in self.account.live and pid not in line:
            line.append(pid)
        return line

    def _mark_parent(self, pid: int) -> None:
        member = self.account.live.get(pid)
        if member is not None:
            member.parent = True
            member.due_ns = 0

    def _sample_subtree(self, root_pid: int) -> list[Sample]:
        """The root (last) and all that descends from it now; an orphan that a tree kept is not found."""
        pids = [root_pid]
        if root_pid in self._parents.values():
            children: dict[int, list[int]] = {}
            for pid, parent in self._parents.items():
                children.setdefault(parent, []).append(pid)
            for pid in pids:
                pids += children.get(pid, ())
        # Children before their parents: one that is reaped meanwhile is then in the base twice, never in the bill.
        samples = {}
        for pid in reversed(pids):
            stat = self._kernel.stat(pid)
            own_ns = self._clock(pid)
            if stat is not None and own_ns is not None:
                self._parents[pid] = stat.parent_pid
                samples[pid] = Sample(ProcessId(pid, stat.start_ticks), own_ns, stat.reaped_ns, stat.memory_bytes)
        mine = {root_pid}
        for pid in pids[1:]:
            if pid in samples and self._parents[pid] in mine:
                mine.add(pid)  # else it was adopted by another since
        return [sample for pid, sample in samples.items() if pid in mine]

    def _clock(self, pid: int) -> int | None:
        try:
            return self._kernel.clock_ns(self._kernel.clock_id(pid))
        except OSError:
            return None

    # Time

    def _run(self, members: Iterable[Member]) -> None:
        clock_ns = self._kernel.clock_ns
        dead = []
        for member in members:
            try:
                own_ns = clock_ns(member.clock_id)
            except OSError:
                dead.append(member)
                continue
            used_ns = own_ns - member.own_ns
            if used_ns > 0:  # TreeAccount.run, in place: this is what a tick does most
                member.own_ns = own_ns
                tree = member.tree
                tree.total_ns += used_ns
                tree.billed_ns += used_ns
            elif used_ns < 0:
                dead.append(member)  # another process's clock
        for member in dead:
            self._bury(member)

    def _bury(self, member: Member) -> None:
        tree = member.tree
        self._limbo_ns[tree] = self._limbo_ns.get(tree, 0) + self.account.die(member)
        self._hot.update(tree.enclosing())
        self._dead.add(member.id.pid)
        self._dirty = True
        if member.id in self.account.trees:
            self._gone[member.id] = None

    def _scan(self, now_ns: int) -> None:
        """Reaped time of whoever may have reaped, then the clocks of whoever may be in it, then the bill."""
        changed: set[Tree] = set()
        for member in list(self.account.live.values()):
            if member.own_ns == member.checked_own_ns or (member.due_ns > now_ns and member.tree not in self._hot):
                continue
            tree = member.tree
            if self._check(member, now_ns):
                changed.update(tree.enclosing())
        for tree in [tree for tree in changed if tree.outer is None]:
            for each in list(tree.family()):
                self._run(each.members.values())
        limbo_ns, self._limbo_ns = self._limbo_ns, {}
        for tree in [tree for tree in self.account.trees.values() if tree.outer is None]:
            if self._kernel.slack_ns is not None:
                self.account.forgive(tree, self._kernel.slack_ns, limbo_ns)
            self.account.bill(tree)
        self._hot = {each for tree in limbo_ns for each in tree.enclosing()}
        self._dirty = bool(limbo_ns)
        self._scanned_ns = now_ns

    def _check(self, member: Member, now_ns: int) -> bool:
        """Read a process's reaped time and memory; True where it has reaped."""
        member.checked_own_ns = member.own_ns
        stat = self._kernel.stat(member.id.pid)
        if stat is None or stat.start_ticks != member.id.start_ticks:
            self._bury(member)
            return False
        self.account.size(member, stat.memory_bytes)
        if self.account.reap(member, stat.reaped_ns):
            member.due_ns = 0
            return True
        member.due_ns = now_ns + CALM_NS
        return False

    def _is_credible(self, reaped_ns: int, told_ns: int) -> bool:
        slack_ns = self._kernel.slack_ns
        return reaped_ns - told_ns >= -SETTLE_SLACK_NS and (
            slack_ns is None or reaped_ns - told_ns <= slack_ns + SETTLE_SLACK_NS
        )
