"""What psutil tells: the host's facts, our own memory, and who used the CPU where there is no Linux /proc.

psutil is imported inside a function: on Linux, the tick doesn't need it, and it costs 15 ms and 4 MB.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattribute.agent.core.followed import FollowedTrees
from wattribute.agent.core.following import Follower, Stat
from wattribute.agent.core.model import Account, ProcessId, UsageReading

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class HostFacts:
    """`cpus` are the logical CPUs that are online; `cpu_model` is the CPU's name as its maker spells it, or "".

    `packages` is None in a virtual machine: what it shows as sockets is the hypervisor's choice.
    """

    cpu_model: str
    cpus: int
    memory_bytes: int
    packages: int | None


def _psutil() -> Any:
    import psutil  # type: ignore[import-untyped]

    return psutil


def host_facts(proc: Path = Path("/proc")) -> HostFacts:
    """What this machine is."""
    psutil = _psutil()
    model, packages = _linux_cpu(proc) if sys.platform == "linux" else (_other_cpu(), 1)
    return HostFacts(
        cpu_model=model,
        cpus=psutil.cpu_count(logical=True) or 1,
        memory_bytes=psutil.virtual_memory().total,
        packages=packages,
    )


def resident_bytes() -> int:
    """Our own resident memory."""
    return int(_psutil().Process().memory_info().rss)


def _linux_cpu(proc: Path) -> tuple[str, int | None]:
    try:
        text = (proc / "cpuinfo").read_text()
    except OSError:
        return "", 1
    fields: dict[str, set[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), set()).add(value.strip())
    model = min(fields.get("model name", {""}))
    virtual = any("hypervisor" in flags.split() for flags in fields.get("flags", ()))
    return model, None if virtual else max(1, len(fields.get("physical id", ())))


def _other_cpu() -> str:
    if sys.platform == "darwin":
        import subprocess

        try:
            done = subprocess.run(
                ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, timeout=2
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip()
    if sys.platform == "win32":
        import winreg

        try:
            with winreg.OpenKey(
                winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
            ) as processor:
                return str(winreg.QueryValueEx(processor, "ProcessorNameString")[0]).strip()
        except OSError:
            return ""
    return ""


class _Processes:
    """The `Kernel` that psutil makes of any system. Reaped children's time isn't told by macOS and Windows."""

    slack_ns: int | None = None
    ascending = False

    def __init__(self) -> None:
        self._psutil = _psutil()
        self._known: dict[int, Any] = {}
        self._reads = 0

    def clock_id(self, pid: int) -> int:
        """The pid."""
        return pid

    def clock_ns(self, pid: int) -> int:
        """User and system time; ProcessLookupError where it is gone, a zombie, or not ours to see."""
        try:
            times = self._process(pid).cpu_times()
        except self._psutil.Error as error:
            raise ProcessLookupError(pid) from error
        return int((times.user + times.system) * NS_PER_S)

    def last_pid(self) -> int:
        """Nobody tells, so each time may have brought a new one."""
        self._reads += 1
        return self._reads

    def pids(self) -> Sequence[int]:
        """All processes; those that left are forgotten."""
        pids: list[int] = self._psutil.pids()
        for pid in self._known.keys() - set(pids):
            del self._known[pid]
        return pids

    def stat(self, pid: int) -> Stat | None:
        """A process's parent, start in hundredths of a second, and memory; None where it is gone or not ours."""
        try:
            process = self._psutil.Process(pid)
            with process.oneshot():
                self._known[pid] = process
                return Stat(
                    parent_pid=process.ppid(),
                    start_ticks=round(process.create_time() * 100),
                    reaped_ns=0,
                    memory_bytes=process.memory_info().rss,
                )
        except self._psutil.Error:
            return None

    def has_ended(self, root: ProcessId) -> bool:
        """Whether a process is gone, another's by now, or a zombie."""
        try:
            process = self._psutil.Process(root.pid)
            started = round(process.create_time() * 100)
            return bool(started != root.start_ticks or process.status() == self._psutil.STATUS_ZOMBIE)
        except self._psutil.Error:
            return True

    def busy_ns(self) -> int:
        """CPU time of the whole machine: what isn't idle or waiting; guests are in user already."""
        times = self._psutil.cpu_times()
        names = ("user", "nice", "system", "irq", "softirq", "interrupt", "dpc")
        return int(sum(getattr(times, name, 0.0) for name in names) * NS_PER_S)

    def is_there(self, pid: int) -> bool:
        """Whether a process has this pid."""
        return bool(self._psutil.pid_exists(pid))

    def _process(self, pid: int) -> Any:
        process = self._known.get(pid)
        if process is None:
            process = self._known[pid] = self._psutil.Process(pid)
        return process


class PortableProcessCollector(FollowedTrees):
    """ProcessCollector's interface wherever psutil runs: coarser clocks, and dearer to read.

    Children that live and die between two reads count only where their parent tells of them (`settle_reaped`).
    `clock` is nanoseconds. There are no cgroups, so `overhead` is the agent alone, unless a job has it in its tree.
    """

    name = "process"
    node_method = "psutil"

    def __init__(self, clock: Callable[[], int], own_pid: int) -> None:
        super().__init__()
        self._clock = clock
        self._own_pid = own_pid
        self._kernel = _Processes()
        self._follower = Follower(self._kernel, clock)
        self._node_ns = 0
        self._own_seen_ns = 0
        self._own_used_ns = 0
        self._told: set[ProcessId] = set()

    def read(self) -> list[UsageReading]:
        """One reading per root, then `node`, `overhead` and `agent`."""
        trees = list(self._follower.read())
        at_ns = self._clock()
        own_ns = self._own_ns()
        accounts: list[tuple[Account, int]] = [("node", self.node_ns()), ("overhead", own_ns), ("agent", own_ns)]
        return [
            *(
                UsageReading(
                    domain_kind="cpu",
                    consumer=tree.root,
                    at_ns=at_ns,
                    busy_ns=tree.billed_ns,
                    memory_bytes=tree.memory_bytes,
                )
                for tree in trees
            ),
            *(UsageReading(domain_kind="cpu", consumer=who, at_ns=at_ns, busy_ns=ns) for who, ns in accounts),
        ]

    def node_ns(self) -> int:
        """All CPU time of the machine until now, cumulative."""
        self._node_ns = max(self._node_ns, self._kernel.busy_ns())
        return self._node_ns

    def watch(self, root: ProcessId, since_ns: int | None = None, reaped_ns: int | None = None) -> None:
        """Follow a process and what descends from it, from 0; see ProcessCollector."""
        self._follower.watch(root, since_ns, reaped_ns)

    def unwatch(self, root: ProcessId) -> None:
        """Stop; what lives on falls to an enclosing watched root, if there is one."""
        self._follower.unwatch(root)
        self._told.discard(root)

    def gone(self) -> list[ProcessId]:
        """Watched roots that ended since the last call."""
        ended = [root for root in self._follower.account.trees if root not in self._told]
        ended = [root for root in ended if self._kernel.has_ended(root)]
        self._follower.gone()  # the same ones, later
        self._told.update(ended)
        return ended

    def close(self) -> None:
        """Nothing is kept open."""

    def _own_ns(self) -> int:
        own_ns = time.process_time_ns()
        if self._own_pid not in self._follower.account.live:
            self._own_used_ns += own_ns - self._own_seen_ns
        self._own_seen_ns = own_ns
        return self._own_used_ns
