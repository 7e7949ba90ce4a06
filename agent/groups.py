"""The cgroups that jobs were found by: what each used, less what is billed to jobs inside it by themselves.

Counters are read before the process trees' clocks, so that a tree is never taken off for time that its cgroup hasn't
shown yet for long (core/groups.py has the arithmetic).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import CgroupTree
from wattribute.agent.core.groups import Group, GroupAccount
from wattribute.agent.core.model import GroupId, ProcessId, Root, UsageReading
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.live import CpuTime

RECHECK_NS = 10_000_000_000
YOUNG_NS = 10_000_000_000
"""A process of a tree is asked at each read whether it was moved to another job's cgroup while it is so young, and
every RECHECK_NS after that: 20 us each. Who is moved is moved at once, as a rule (systemd-run, cgexec, a scheduler)."""

SIZES_PER_S = 16
"""So many cgroups are asked for their memory in a second, in turn: 15 us each. New ones are asked at once."""


class GroupCounters(Protocol):
    """Cumulative CPU time of watched cgroups (collectors/cgroup), in nanoseconds."""

    def watch(self, group: GroupId) -> int | None: ...
    def unwatch(self, group: GroupId) -> None: ...
    def read(self) -> Mapping[GroupId, int]: ...
    def gone(self) -> Sequence[GroupId]: ...
    def memory_bytes(self, group: GroupId) -> int | None: ...
    def close(self) -> None: ...


class _Looked(NamedTuple):
    """A process of a tree, where it was when it was last looked at: when it was first, and its CPU time at the last."""

    id: ProcessId
    first_ns: int
    own_ns: int


class Groups:
    """Watched cgroups over the node's process trees. `clock` is CLOCK_BOOTTIME in ns."""

    def __init__(
        self,
        tree: CgroupTree,
        counters: GroupCounters,
        cpu: CpuTime,
        overhead_cgroups: Sequence[str],
        clock: Callable[[], int],
    ) -> None:
        self.tree = tree
        self._counters = counters
        self._cpu = cpu
        self._clock = clock
        self._account = GroupAccount()
        self._overhead = [PurePosixPath("/", name) for name in overhead_cgroups]
        self._in_overhead: dict[GroupId, None] = {}
        self._taken_ns = 0  # of the overhead cgroups, by jobs that are over
        self._overhead_ns = 0
        self._shown_ns: dict[Group, int] = {}
        self._sizes: deque[GroupId] = deque()
        self._unsized = 0  # so many of them, on the left, were never asked
        self._sized_ns = 0
        self._whole_bytes: dict[GroupId, int] = {}  # their memory when they were last asked
        self._above: dict[str, GroupId] = {}  # the enclosures of watched cgroups, for as long as they are there
        self._gone: list[GroupId] = []
        self._checked: dict[int, _Looked] = {}
        self._recheck_ns = 0

    def watch(self, group: GroupId, since_ns: int | None = None) -> int | None:
        """Bill a cgroup from now on, or from when its counter stood at `since_ns`.

        Returns where the counter stands; None: it is gone.
        """
        counter_ns = self._counters.watch(group)
        if counter_ns is None:
            return None
        self._enclose(group)
        account = self._account
        for inner in account.below(group.path):
            if (inner_ns := self._counters.watch(inner)) is not None:
                account.advance(inner, inner_ns)
        account.watch(group, counter_ns, counter_ns if since_ns is None else min(since_ns, counter_ns))
        here = PurePosixPath(group.path)
        if any(name == here or name in here.parents for name in self._overhead):
            self._in_overhead[group] = None
        self._sizes.appendleft(group)
        self._unsized += 1
        for root, home in account.homes.items():
            if home.path == group.path or home.path.startswith(group.path + "/"):
                # With an earlier counter, the cgroup has what the tree used since then, too.
                account.enter(root, home.path, self._cpu.busy_ns(root) if since_ns is None else home.billed_ns)
        return counter_ns

    def unwatch(self, group: GroupId) -> None:
        """Stop billing a cgroup."""
        node = self._account.groups.get(group)
        if node is not None:
            self._shown_ns.pop(node, None)
            if group in self._in_overhead:
                del self._in_overhead[group]
                self._taken_ns += node.own_ns
        self._account.unwatch(group)
        if self._above.get(group.path) != group:
            self._counters.unwatch(group)
        if group in self._sizes:
            self._sizes.remove(group)
        self._whole_bytes.pop(group, None)

    def enter(self, root: ProcessId, billed_ns: int = 0) -> GroupId | None:
        """A process tree is watched: its time is taken off the cgroup that its root lives in, which is returned."""
        node = self._account.enter(root, self.tree.group_of(root.pid), billed_ns)
        return None if node is None else node.id

    def lodgers(self, group: GroupId) -> list[Root]:
        """The watched cgroups and process trees right inside one."""
        node = self._account.groups.get(group)
        inner: list[Root] = [each for each, other in self._account.groups.items() if other.outer is node]
        return inner + [tree for tree, home in self._account.homes.items() if home.group is node]

    def lodging_ns(self, group: GroupId) -> int:
        """What of a cgroup's counter is that of its lodgers."""
        node = self._account.groups.get(group)
        inner_ns = sum([other.counter_ns for other in self._account.groups.values() if other.outer is node])
        return inner_ns + sum([home.billed_ns for home in self._account.homes.values() if home.group is node])

    def around(self, group: GroupId) -> GroupId | None:
        """The innermost watched cgroup that encloses another."""
        node = self._account.around(group.path)
        return None if node is None else node.id

    def leave(self, root: ProcessId, billed_ns: int) -> None:
        """A process tree isn't watched any more."""
        self._account.leave(root, billed_ns)

    def own_ns(self, group: GroupId) -> int:
        """What a cgroup has been billed for, as of the last read."""
        node = self._account.groups.get(group)
        return 0 if node is None else node.own_ns

    def owner_of(self, pid: int) -> GroupId | None:
        """The innermost watched cgroup that a process lives in."""
        node = self._account.holding(self.tree.group_of(pid)) if self._account.groups else None
        return None if node is None else node.id

    def miss(self, groups: Sequence[GroupId]) -> None:
        """Cgroups that nobody tells of any more: the next read closes their accounts."""
        self._gone += groups

    def gone(self) -> Sequence[GroupId]:
        """Watched cgroups that were removed, or missed, until the last read."""
        gone, self._gone = self._gone, []
        return gone

    def counters_ns(self) -> dict[GroupId, int]:
        """Where each counter stood at the last read: what `watch` wants after a restart."""
        return {group: node.counter_ns for group, node in self._account.groups.items()}

    def read(self) -> list[UsageReading]:
        """What the process trees and the node used, with the cgroups whose own time or memory has changed."""
        groups = self._account.groups
        if not groups and not self._above and not self._taken_ns:
            return self._cpu.read()
        counters_ns = self._counters.read()
        for group in self._counters.gone():
            if group in groups and group not in self._gone:
                self._gone.append(group)
            if self._above.get(group.path) == group:
                del self._above[group.path], self._account.enclosures[group.path]
                if group not in groups:
                    self._counters.unwatch(group)
        readings = self._cpu.read()
        trees_ns = {r.consumer: r.busy_ns for r in readings if isinstance(r.consumer, ProcessId)}
        self._part_with_moved(trees_ns)
        above_ns = {path: counters_ns[group] for path, group in self._above.items() if group in counters_ns}
        self._account.read(counters_ns, trees_ns, above_ns, self._gone)
        taken_ns = self._taken_ns + sum([groups[group].own_ns for group in self._in_overhead])
        readings = [r if r.consumer != "overhead" else self._less(r, taken_ns) for r in readings]
        at_ns = readings[0].at_ns
        sizes = self._own_sizes(self._some_sizes(at_ns), readings)
        shown_ns = self._shown_ns
        for group, memory_bytes in sizes.items():
            own_ns = shown_ns[groups[group]] = groups[group].own_ns
            readings.append(UsageReading("cpu", group, at_ns, own_ns, memory_bytes))
        for group, node in groups.items():
            if node.own_ns != shown_ns.get(node):
                shown_ns[node] = node.own_ns
                readings.append(UsageReading("cpu", group, at_ns, node.own_ns))
        return readings

    def _enclose(self, group: GroupId) -> None:
        """Watch the cgroup above, too; not the top, where everything else runs."""
        above = group.path.rpartition("/")[0]
        if not above or above in self._above:
            return
        try:
            siblings = self.tree.children(above.rpartition("/")[0] or "/")
        except SensorUnavailable:
            return
        here = next((each for each in siblings if each.path == above), None)
        if here is None:
            return
        counter_ns = self._counters.watch(here)
        if counter_ns is not None:
            self._above[above] = here
            self._account.enclose(above, counter_ns)

    def _less(self, overhead: UsageReading, taken_ns: int) -> UsageReading:
        """System daemons' time without the jobs found among them; never falls."""
        self._overhead_ns = max(self._overhead_ns, overhead.busy_ns - taken_ns)
        return overhead._replace(busy_ns=self._overhead_ns)

    def _some_sizes(self, at_ns: int) -> dict[GroupId, int]:
        sizes = {}
        due = (at_ns - self._sized_ns) * SIZES_PER_S // NS_PER_S
        if due:
            self._sized_ns = at_ns
        due = min(max(due, self._unsized), SIZES_PER_S, len(self._sizes))
        self._unsized = max(0, self._unsized - due)
        for _ in range(due):
            group = self._sizes.popleft()
            memory_bytes = self._counters.memory_bytes(group)
            self._sizes.append(group)
            if memory_bytes is not None:
                sizes[group] = memory_bytes
        return sizes

    def _own_sizes(self, sizes: dict[GroupId, int], readings: Sequence[UsageReading]) -> dict[GroupId, int]:
        """What those have for themselves: a cgroup's memory holds that of all that lives below it, too."""
        if not sizes:
            return sizes
        self._whole_bytes.update(sizes)
        own = dict(sizes)
        account = self._account
        for group, node in account.groups.items():
            if node.outer is not None and node.outer.id in own:
                own[node.outer.id] -= self._whole_bytes.get(group, 0)
        for reading in readings if account.homes else ():
            home = account.homes.get(reading.consumer) if isinstance(reading.consumer, ProcessId) else None
            if home is not None and home.group is not None and home.group.id in own:
                own[home.group.id] -= reading.memory_bytes or 0
        return {group: max(0, memory_bytes) for group, memory_bytes in own.items()}

    def _part_with_moved(self, trees_ns: Mapping[ProcessId, int]) -> None:
        """Processes of trees that now live in another job's cgroup are billed there alone from now on.

        What their tree was billed for since they were last looked at is taken off the cgroup: it is billed once.
        """
        if not trees_ns:
            return
        now_ns = self._clock()
        again = now_ns - self._recheck_ns >= RECHECK_NS
        if again:
            self._recheck_ns = now_ns
        checked, self._checked = self._checked, {}
        for member in self._cpu.members():
            pid = member.id.pid
            known = checked.get(pid)
            if known is None or known.id != member.id:
                known = _Looked(member.id, now_ns, 0)
            elif not again and now_ns - known.first_ns >= YOUNG_NS:
                self._checked[pid] = known
                continue
            home = self._account.homes.get(member.tree.root)
            at_home = None if home is None else home.group
            here = self._account.holding(self.tree.group_of(pid))
            if here is None or here is at_home or (at_home and at_home.id.path.startswith(here.id.path + "/")):
                self._checked[pid] = known._replace(own_ns=member.own_ns)
                continue
            here.taken_ns += member.own_ns - known.own_ns
            self._cpu.part(member.id)

    def close(self) -> None:
        """Give all files back."""
        self._counters.close()
