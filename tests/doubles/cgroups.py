"""A cgroup tree in real files that is driven by hand: v2, or v1's cpuacct, cpu, cpuset and memory.

Counters are hierarchical as the kernel's are: what is added to a group is added to all above it, and stays there when
the group is removed. `add_ns` and `set_memory` only note; `flush` writes what changed, at fixed width into kept files,
so that a reader with a kept descriptor sees it move. What files can't do: the kernel answers ENODEV on a kept
descriptor of a removed group; here it shows the last value for ever.
"""

import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wattribute.agent.core.found import GroupId

PERIOD_US = 100_000
V1_UNLIMITED = 9_223_372_036_854_771_712  # LONG_MAX in whole pages
V1 = ("cpuacct", "cpu", "cpuset", "memory")


@dataclass(slots=True)
class _Group:
    """What a group and those below it used and hold; `pids` and `own_bytes` are its own."""

    id: GroupId
    usage_fd: int
    memory_fd: int
    usage_ns: int = 0
    memory_bytes: int = 0
    own_bytes: int = 0
    inside: int = 0
    pids: set[int] = field(default_factory=set)


class FakeCgroups:
    """A tree below `folder`: `cgroup` stands for /sys/fs/cgroup, `proc` for /proc. `cpus` are the node's.

    The top looks like the node's own root. A context manager that gives the descriptors back; the files stay.
    """

    def __init__(self, folder: Path, hierarchy: Literal["v1", "v2"] = "v2", cpus: int = 64) -> None:
        self.cgroup = folder / "cgroup"
        self.proc = folder / "proc"
        self.hierarchy = hierarchy
        self._removed = folder / "removed"
        self._numbers = itertools.count()
        self._cpus = f"0-{cpus - 1}"
        self._groups: dict[str, _Group] = {}
        self._home: dict[int, str] = {}
        self._added_ns: dict[str, int] = {}
        self._memory_changed: set[str] = set()
        _raise_limit()
        self.proc.mkdir(parents=True)
        self._removed.mkdir()
        self._create("/")
        if hierarchy == "v1":
            for controller in V1:
                (self.cgroup / controller / "release_agent").write_text("\n")

    def make(self, path: str) -> GroupId:
        """Makes a group, and those above it that aren't there; the one that is there otherwise."""
        for one in reversed([path, *_above(path)]):
            if one not in self._groups:
                self._create(one)
        return self._groups[path].id

    def add_ns(self, path: str, ns: int) -> None:
        """The group used so much CPU time; seen after `flush`."""
        self._added_ns[path] = self._added_ns.get(path, 0) + ns

    def set_memory(self, path: str, memory_bytes: int) -> None:
        """The group's own processes hold so much; seen after `flush`."""
        group = self._groups[path]
        grown, group.own_bytes = memory_bytes - group.own_bytes, memory_bytes
        for one in (path, *_above(path)):
            self._groups[one].memory_bytes += grown
            self._memory_changed.add(one)

    def flush(self) -> None:
        """Writes what changed, the groups before those above them."""
        changed: set[str] = set()
        for path, ns in self._added_ns.items():
            for one in (path, *_above(path)):
                self._groups[one].usage_ns += ns
                changed.add(one)
        self._added_ns.clear()
        for path in sorted(changed, reverse=True):
            self._write_usage(self._groups[path])
        for path in sorted(self._memory_changed, reverse=True):
            self._write_memory(self._groups[path])
        self._memory_changed.clear()

    def usage_ns(self, path: str) -> int:
        """What was added to the group and those below it, up to the last `flush`."""
        return self._groups[path].usage_ns

    def put(self, pid: int, path: str) -> None:
        """The process lives in the group now, wherever it was before."""
        self.end(pid)
        self._home[pid] = path
        self._groups[path].pids.add(pid)
        self._count(path, 1)
        (self.proc / str(pid)).mkdir(exist_ok=True)
        self._show(pid, path)

    def end(self, pid: int) -> None:
        """The process exits, if it was there."""
        path = self._home.pop(pid, None)
        if path is not None:
            self._groups[path].pids.discard(pid)
            self._count(path, -1)
            shutil.rmtree(self.proc / str(pid))

    def limit(
        self, path: str, *, cpus_milli: int | None = None, memory_bytes: int | None = None, cpuset: str = ""
    ) -> None:
        """Sets all limits of the group; None and "" for none."""
        quota_us = -1 if cpus_milli is None else cpus_milli * PERIOD_US // 1000
        if self.hierarchy == "v2":
            self._put(path, "cpu.max", f"{'max' if quota_us < 0 else quota_us} {PERIOD_US}")
            self._put(path, "cpuset.cpus", cpuset)
            self._put(path, "memory.max", "max" if memory_bytes is None else str(memory_bytes))
        else:
            self._put(path, "cpu.cfs_quota_us", str(quota_us))
            self._put(path, "cpu.cfs_period_us", str(PERIOD_US))
            self._put(path, "cpuset.cpus", cpuset or self._cpus)
            self._put(path, "memory.limit_in_bytes", str(V1_UNLIMITED if memory_bytes is None else memory_bytes))

    def remove(self, path: str) -> None:
        """Removes a group without groups and processes below it (else OSError, EBUSY). Its use stays in those above.

        The folder is moved away: its inode stays taken, so that one made anew has another, as the kernel's have.
        """
        group = self._groups[path]
        if group.inside or any(one.startswith(f"{path}/") for one in self._groups):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
        self.set_memory(path, 0)
        self.flush()
        self._close(self._groups.pop(path))
        for folder in self._folders(path):
            folder.rename(self._removed / str(next(self._numbers)))

    def close(self) -> None:
        """Gives the descriptors back."""
        for group in self._groups.values():
            self._close(group)
        self._groups.clear()

    def __enter__(self) -> "FakeCgroups":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def folder(self, path: str, controller: str = "cpuacct") -> Path:
        """A group's folder; in v1 that of one controller."""
        return (self.cgroup if self.hierarchy == "v2" else self.cgroup / controller) / path.lstrip("/")

    def _folders(self, path: str) -> list[Path]:
        return [self.folder(path)] if self.hierarchy == "v2" else [self.folder(path, one) for one in V1]

    def _create(self, path: str) -> None:
        for folder in self._folders(path):
            folder.mkdir(parents=True)
            (folder / "cgroup.procs").write_text("")
        if self.hierarchy == "v2":
            self._put(path, "cgroup.controllers", "cpuset cpu memory pids")
            self._put(path, "cpuset.cpus.effective", self._cpus)
            if path != "/":
                self._put(path, "cgroup.type", "domain")
                self._put(path, "cgroup.events", "populated 0\nfrozen 0")
        if path != "/":
            self.limit(path)
        elif self.hierarchy == "v1":
            self._put(path, "cpuset.cpus", self._cpus)
        usage = self.folder(path) / ("cpu.stat" if self.hierarchy == "v2" else "cpuacct.usage")
        memory = self.folder(path, "memory") / "memory.stat"
        group = _Group(GroupId(path, self.folder(path).stat().st_ino), _writable(usage), _writable(memory))
        self._groups[path] = group
        self._write_usage(group)
        self._write_memory(group)

    def _put(self, path: str, file: str, text: str) -> None:
        controller = file.partition(".")[0]
        (self.folder(path, controller) / file).write_text(f"{text}\n")

    def _count(self, path: str, more: int) -> None:
        pids = "".join(f"{pid}\n" for pid in sorted(self._groups[path].pids))
        for folder in self._folders(path):
            (folder / "cgroup.procs").write_text(pids)
        for one in (path, *_above(path)):
            group = self._groups[one]
            before, group.inside = group.inside, group.inside + more
            if bool(before) != bool(group.inside) and self.hierarchy == "v2" and one != "/":
                self._put(one, "cgroup.events", f"populated {int(group.inside > 0)}\nfrozen 0")

    def _show(self, pid: int, path: str) -> None:
        lines = [] if self.hierarchy == "v2" else [f"{i}:{one}:{path}\n" for i, one in enumerate(V1, 1)]
        lines.append(f"0::{path if self.hierarchy == 'v2' else '/'}\n")
        (self.proc / str(pid) / "cgroup").write_text("".join(lines))

    def _write_usage(self, group: _Group) -> None:
        if self.hierarchy == "v1":
            os.pwrite(group.usage_fd, b"%020d\n" % group.usage_ns, 0)
        else:
            us = group.usage_ns // 1000
            os.pwrite(group.usage_fd, b"usage_usec %020d\nuser_usec %020d\nsystem_usec 0\n" % (us, us), 0)

    def _write_memory(self, group: _Group) -> None:
        # A little page cache with it, which is no job's.
        line = (
            b"anon %020d\nfile 4096\nshmem 0\n"
            if self.hierarchy == "v2"
            else b"cache 4096\nrss 0\ntotal_cache 4096\ntotal_rss %020d\ntotal_shmem 0\ntotal_mapped_file 4096\n"
        )
        os.pwrite(group.memory_fd, line % group.memory_bytes, 0)

    @staticmethod
    def _close(group: _Group) -> None:
        os.close(group.usage_fd)
        os.close(group.memory_fd)


def _above(path: str) -> Iterator[str]:
    """All groups above one, the top last."""
    while len(path) > 1:
        path = path.rpartition("/")[0] or "/"
        yield path


def _writable(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)


def _raise_limit() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
