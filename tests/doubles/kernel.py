"""A kernel with processes that run, fork, end, are reaped and adopted, between any two looks at it.

It keeps the truth beside what it tells: per watched root, the CPU time that its subtree used since the watch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from wattribute.agent.core.following import Stat
from wattribute.agent.core.model import ProcessId

TICK_NS = 10_000_000
INIT = 1


@dataclass(eq=False)
class Simulated:
    pid: int
    parent: int
    start: int
    own_ns: int = 0
    user_ns: int = 0  # of reaped children, in two parts that are floored apart, as in a stat line
    system_ns: int = 0
    zombie: bool = False
    subreaper: bool = False
    family: int | None = None  # start of the outermost watched root: whose account what it uses belongs to
    mortal: bool = True


@dataclass
class SimulatedKernel:
    """`mischief` is how many events happen, at most, before each answer."""

    random: Random
    mischief: int = 0
    slack_ns: int | None = 2 * TICK_NS
    ascending: bool = True
    pid_max: int = 400
    living_max: int = 30
    processes: dict[int, Simulated] = field(default_factory=dict)
    used_ns: dict[int, int] = field(default_factory=dict)
    now_ns: int = 1_000_000_000
    _last_pid: int = INIT
    _starts: int = 0

    def __post_init__(self) -> None:
        self.processes[INIT] = Simulated(INIT, 0, 0)

    # What happens

    def fork(self, parent: int, *, subreaper: bool = False) -> int | None:
        pid = self._last_pid
        for _ in range(self.pid_max):
            pid = pid + 1 if pid < self.pid_max else 2
            if pid not in self.processes:
                break
        else:
            return None
        self._last_pid = pid
        self._starts += 1
        child = Simulated(pid, parent, self._starts, subreaper=subreaper, family=self.processes[parent].family)
        self.processes[pid] = child
        self.run(parent, self.random.randrange(1, 200_000))
        return pid

    def run(self, pid: int, used_ns: int) -> None:
        process = self.processes[pid]
        process.own_ns += used_ns
        if process.family is not None:
            self.used_ns[process.family] += used_ns

    def exit(self, pid: int) -> None:
        process = self.processes[pid]
        self.run(pid, self.random.randrange(1, 100_000))
        process.zombie = True
        reaper = self._reaper(process)
        for other in self.processes.values():
            if other.parent == pid:
                other.parent = reaper

    def reap(self, pid: int) -> None:
        child = self.processes.pop(pid)
        parent = self.processes[child.parent]
        own_user_ns = self.random.randrange(child.own_ns + 1)
        parent.user_ns += child.user_ns + own_user_ns
        parent.system_ns += child.system_ns + child.own_ns - own_user_ns
        self.run(parent.pid, self.random.randrange(1, 50_000))

    def _reaper(self, process: Simulated) -> int:
        parent = self.processes[process.parent]
        while parent.pid != INIT and (not parent.subreaper or parent.zombie):
            parent = self.processes[parent.parent]
        return parent.pid

    def step(self) -> None:
        """One event, at random."""
        living = [p for p in self.processes.values() if not p.zombie]
        zombies = [p for p in self.processes.values() if p.zombie and p.mortal]
        kind = self.random.randrange(10)
        if kind < 4:
            self.run(self.random.choice(living).pid, self.random.choice([7, 3_000_000, 15_000_000, 40_000_000]))
        elif kind < 7:
            if len(self.processes) < self.living_max:
                self.fork(self.random.choice(living).pid, subreaper=self.random.random() < 0.2)
        elif kind < 8:
            mortal = [p for p in living if p.pid != INIT and p.mortal]
            if mortal:
                self.exit(self.random.choice(mortal).pid)
        elif zombies:
            self.reap(self.random.choice(zombies).pid)

    def watch(self, pid: int) -> None:
        """The truth of a watch: a nested one stays in its family's account."""
        process = self.processes[pid]
        if process.family is None:
            self.used_ns[process.start] = 0
            for other in self.processes.values():
                if self._descends(other, pid):
                    other.family = process.start

    def _descends(self, process: Simulated, pid: int) -> bool:
        while process.pid != pid:
            if process.pid == INIT:
                return False
            process = self.processes[process.parent]
        return True

    # What it tells

    def _meanwhile(self) -> None:
        for _ in range(self.random.randrange(self.mischief + 1)):
            self.step()

    def clock_id(self, pid: int) -> int:
        return pid

    def clock_ns(self, pid: int) -> int:
        self._meanwhile()
        if pid not in self.processes:
            raise ProcessLookupError(pid)
        return self.processes[pid].own_ns

    def is_there(self, pid: int) -> bool:
        self._meanwhile()
        return pid in self.processes

    def last_pid(self) -> int:
        self._meanwhile()
        return self._last_pid

    def pids(self) -> Sequence[int]:
        self._meanwhile()
        return list(self.processes)

    def stat(self, pid: int) -> Stat | None:
        self._meanwhile()
        process = self.processes.get(pid)
        if process is None:
            return None
        reaped_ns = (process.user_ns // TICK_NS + process.system_ns // TICK_NS) * TICK_NS
        return Stat(process.parent, process.start, reaped_ns, 4096)

    def id_of(self, pid: int) -> ProcessId:
        return ProcessId(pid, self.processes[pid].start)

    def clock(self) -> int:
        return self.now_ns
