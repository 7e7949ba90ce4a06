"""All CPU time of the node, in nanoseconds: the divisor that decides the last percent, so not in ticks if possible.

`cpuacct.usage` of the root (v1) is exact. The root's cpu.stat of v2 counts ticks, as /proc/stat does: so those of its
first-level children are summed, and the clocks of the processes that live in the root itself (kernel threads). A root
without children (a container's, a machine without systemd) is left to /proc/stat: short processes would be missed.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.following import Kernel

REFRESH_NS = 900_000_000
NodeMethod = Literal["cpuacct", "cgroup2", "proc-stat"]


class CounterFile:
    """A kept file with a counter in its first line: `123` or `usage_usec 123`. `scale` makes it nanoseconds."""

    def __init__(self, path: Path, scale: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._scale = scale
        self.seen_ns = 0

    def read_ns(self) -> int:
        """Cumulative; OSError where the cgroup is gone, ValueError where it isn't a counter."""
        line = os.pread(self._fd, 64, 0).partition(b"\n")[0]
        self.seen_ns = max(self.seen_ns, int(line.rpartition(b" ")[2]) * self._scale)
        return self.seen_ns

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)


class NodeTime:
    """Cumulative CPU time of everything that runs on the node; never falls, whatever cgroups come and go."""

    def __init__(self, proc: Path, cgroup: Path, kernel: Kernel, now_ns: Callable[[], int]) -> None:
        self._cgroup = cgroup
        self._kernel = kernel
        self._now_ns = now_ns
        self._total_ns = 0
        self._refreshed_ns: int | None = None
        self._children: dict[tuple[str, int], CounterFile] = {}
        self._own_ns: dict[int, int] = {}
        self._file: CounterFile | None = None
        self._proc_stat = -1
        self._read, self.method = self._open(proc)

    def _open(self, proc: Path) -> tuple[Callable[[], int], NodeMethod]:
        for controller in ("cpuacct", "cpu,cpuacct"):
            folder = self._cgroup / controller
            if (folder / "cpuacct.usage").exists() and is_root_v1(folder):
                self._file = CounterFile(folder / "cpuacct.usage", 1)
                return self._file.read_ns, "cpuacct"
        for folder in (self._cgroup, self._cgroup / "unified"):
            if is_root_v2(folder) and any(folder.glob("*/cpu.stat")):
                self._cgroup = folder
                return self._sum_cgroups, "cgroup2"
        try:
            self._proc_stat = os.open(proc / "stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SensorUnavailable(f"{proc}/stat: {error.strerror}", "mount /proc, or set paths.proc") from error
        return self._count_ticks, "proc-stat"

    def read_ns(self) -> int:
        """Nanoseconds since about the boot; with cgroup2, of the cgroups that are there, plus what went since."""
        self._total_ns = max(self._total_ns, self._read())
        return self._total_ns

    def _count_ticks(self) -> int:
        # user nice system idle iowait irq softirq; guest time is in user already, steal is somebody else's.
        fields = os.pread(self._proc_stat, 256, 0).split(b"\n", 1)[0].split()
        ticks = sum(int(fields[i]) for i in (1, 2, 3, 6, 7))
        return ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))

    def _sum_cgroups(self) -> int:
        now_ns = self._now_ns()
        grown_ns = 0
        if self._refreshed_ns is None or now_ns - self._refreshed_ns >= REFRESH_NS:
            self._refreshed_ns = now_ns
            self._refresh()
            grown_ns = self._run_root()
        for key, file in list(self._children.items()):
            seen_ns = file.seen_ns
            try:
                grown_ns += file.read_ns() - seen_ns
            except OSError:  # ENODEV: removed; what it had stays counted
                self._children.pop(key).close()
        return self._total_ns + grown_ns

    def _refresh(self) -> None:
        with os.scandir(self._cgroup) as entries:
            found = {(e.name, e.inode()) for e in entries if e.is_dir(follow_symlinks=False)}
        for key in found - self._children.keys():
            try:
                self._children[key] = CounterFile(self._cgroup / key[0] / "cpu.stat", 1000)
            except OSError:
                continue
        for key in self._children.keys() - found:
            self._children.pop(key).close()
        try:
            pids = {int(pid) for pid in (self._cgroup / "cgroup.procs").read_bytes().split()}
        except OSError:
            pids = set()
        for pid in self._own_ns.keys() - pids:
            del self._own_ns[pid]
        for pid in pids - self._own_ns.keys():
            try:
                own_ns = self._kernel.clock_ns(self._kernel.clock_id(pid))
            except OSError:
                continue
            # One that came over from a child cgroup has its past counted there already.
            self._own_ns[pid] = 0 if self._total_ns == 0 else own_ns

    def _run_root(self) -> int:
        used_ns = 0
        for pid, seen_ns in list(self._own_ns.items()):
            try:
                own_ns = self._kernel.clock_ns(self._kernel.clock_id(pid))
            except OSError:
                del self._own_ns[pid]
                continue
            self._own_ns[pid] = own_ns
            used_ns += max(0, own_ns - seen_ns)
        return used_ns

    def close(self) -> None:
        """Give all files back."""
        for file in self._children.values():
            file.close()
        self._children.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._proc_stat >= 0:
            os.close(self._proc_stat)
            self._proc_stat = -1


def is_root_v1(folder: Path) -> bool:
    """Whether a v1 hierarchy's top is the node's: in a container it is the container's, without a release_agent."""
    return (folder / "release_agent").exists() or not (folder / "cgroup.procs").exists()


def is_root_v2(folder: Path) -> bool:
    """Whether a folder is the node's root cgroup: only that one has no cgroup.type (cgroups(7))."""
    return (folder / "cgroup.controllers").exists() and not (folder / "cgroup.type").exists()
