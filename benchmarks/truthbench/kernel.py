"""A kernel whose processes run when they are told to: pids, parents, CPU clocks, reaped time, exits, recycled pids.

It tells what Linux tells, as coarsely: the time of reaped children in whole ticks, user and system floored apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from wattribute.agent.core.following import Stat

TICK_NS = 10_000_000
INIT = 1


@dataclass(eq=False, slots=True)
class Process:
    """`own_ns` is its clock; `user_ns` and `system_ns` are its reaped children's. `player` is whose it is."""

    pid: int
    parent: "Process | None"
    start_ticks: int
    player: str
    memory_bytes: int = 0
    own_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    children: set["Process"] = field(default_factory=set)

    @property
    def reaped_ns(self) -> int:
        """Exactly, as getrusage(RUSAGE_CHILDREN) has it."""
        return self.user_ns + self.system_ns


class SimulatedKernel:
    """The processes of the simulated node; what the agent may ask of /proc and the CPU clocks."""

    ascending = True
    slack_ns: int | None = 2 * TICK_NS

    def __init__(self, agent_pid: int, pid_max: int) -> None:
        self._last_pid = INIT
        self._pid_max = pid_max
        self._processes: dict[int, Process] = {INIT: Process(INIT, None, 0, "")}
        self._add(agent_pid, "agent", 0, self._processes[INIT], 0)

    # What happens

    def fork(self, player: str, now_ns: int, parent: Process | None = None, memory_bytes: int = 0) -> Process:
        """A new process, of init by default; the next free pid, from the beginning again after the last."""
        pid = self._last_pid
        while True:
            pid = pid + 1 if pid < self._pid_max else 2
            if pid not in self._processes:
                break
        self._last_pid = pid
        return self._add(pid, player, now_ns, parent or self._processes[INIT], memory_bytes)

    def exit(self, process: Process) -> None:
        """It ends, its parent reaps it at once, and init adopts its children."""
        parent = process.parent
        assert parent is not None
        for child in process.children:
            child.parent = self._processes[INIT]
            self._processes[INIT].children.add(child)
        parent.children.discard(process)
        user_ns = process.own_ns * 7 // 10
        parent.user_ns += process.user_ns + user_ns
        parent.system_ns += process.system_ns + process.own_ns - user_ns
        del self._processes[process.pid]

    def alive(self) -> Iterator[Process]:
        """All processes but init."""
        return (process for process in self._processes.values() if process.pid != INIT)

    def __getitem__(self, pid: int) -> Process:
        return self._processes[pid]

    def _add(self, pid: int, player: str, now_ns: int, parent: Process, memory_bytes: int) -> Process:
        process = Process(pid, parent, now_ns // TICK_NS, player, memory_bytes)
        parent.children.add(process)
        self._processes[pid] = process
        return process

    # What it tells

    def clock_id(self, pid: int) -> int:
        """The pid."""
        return pid

    def clock_ns(self, pid: int) -> int:
        """CPU time of a process itself. Raises ProcessLookupError where there is none."""
        process = self._processes.get(pid)
        if process is None:
            raise ProcessLookupError(pid)
        return process.own_ns

    def is_there(self, pid: int) -> bool:
        """Whether a process has this pid."""
        return pid in self._processes

    def last_pid(self) -> int:
        """The last pid that was handed out."""
        return self._last_pid

    def pids(self) -> Sequence[int]:
        """All of them."""
        return list(self._processes)

    def stat(self, pid: int) -> Stat | None:
        """A process as its stat line has it."""
        process = self._processes.get(pid)
        if process is None:
            return None
        reaped_ns = (process.user_ns // TICK_NS + process.system_ns // TICK_NS) * TICK_NS
        parent_pid = process.parent.pid if process.parent is not None else 0
        return Stat(parent_pid, process.start_ticks, reaped_ns, process.memory_bytes)

    def has_ended(self, pid: int) -> bool:
        """Whether nobody has this pid: the dead are reaped at once here."""
        return pid not in self._processes

    def close(self) -> None:
        """Nothing is held."""
