"""CPU time and memory of watched cgroups: cumulative nanoseconds from kept files, resident bytes when asked.

A cgroup's counter holds those of the cgroups below it, and what exited. v1's cpuacct.usage is nanoseconds, v2's
cpu.stat begins with `usage_usec N` and is there without any controller. Sources: cgroup-v1/cpuacct.rst, cgroup-v2.rst.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from wattribute.agent.core.found import GroupId
from wattribute.collectors.cgroup.tree import Tree

LINE_MAX = 40
SPARE_FILES = 256  # left to the rest of the process: sockets, the ledger, sensors
_USEC = len("usage_usec ")


class _Counter:
    """A watched cgroup's counter; `fd` is -1 where the file isn't kept."""

    __slots__ = ("fd", "gone", "seen_ns")

    def __init__(self, fd: int, seen_ns: int) -> None:
        self.fd = fd
        self.seen_ns = seen_ns
        self.gone = False


class GroupUsage:
    """Usage of the watched cgroups of a tree. For one thread.

    Keeps one descriptor per cgroup, raising the soft limit (RLIMIT_NOFILE) when it must; a cgroup past that is opened
    at each read. An empty cgroup is still there (a service may fill it again); only a removed one is gone.
    """

    def __init__(self, tree: Tree) -> None:
        self._top = str(tree.top)
        self._memory_top = tree.memory_top
        self._file, self._parse = _FORMATS[tree.hierarchy]
        self._counters: dict[GroupId, _Counter] = {}
        self._gone: list[GroupId] = []
        self._kept = 0
        self._room = _room()

    def watch(self, group: GroupId) -> int | None:
        """Its usage now, in ns; None where it isn't there any more (another may be, at the same path)."""
        counter = self._counters.get(group)
        if counter is None:
            try:
                fd, seen_ns = self._open(group)
            except OSError:
                return None
            if self._kept >= self._room:
                self._raise_limit()
            if self._kept < self._room:
                self._kept += 1
            else:
                os.close(fd)
                fd = -1
            counter = self._counters[group] = _Counter(fd, seen_ns)
        else:
            self._refresh(group, counter)
        return None if counter.gone else counter.seen_ns

    def unwatch(self, group: GroupId) -> None:
        """Forget it; nothing where it isn't watched."""
        counter = self._counters.pop(group, None)
        if counter is None:
            return
        self._close(counter)
        if group in self._gone:
            self._gone.remove(group)

    def read(self) -> dict[GroupId, int]:
        """Cumulative ns of all that are watched, in a new dict; never falling, the last value for what is gone."""
        pread, parse = os.pread, self._parse
        seen_ns = {}
        for group, counter in self._counters.items():  # _refresh, in place: this is what a tick does most
            try:
                now_ns = parse(pread(counter.fd, LINE_MAX, 0))
            except OSError:  # removed, or its file isn't kept
                now_ns = self._refresh(group, counter)
            if now_ns > counter.seen_ns:
                counter.seen_ns = now_ns
            seen_ns[group] = counter.seen_ns
        return seen_ns

    def usage_ns(self, group: GroupId) -> int:
        """Cumulative ns of one, read now. Raises KeyError where it isn't watched."""
        return self._refresh(group, self._counters[group])

    def gone(self) -> list[GroupId]:
        """Those found removed since the last call: each is told once, and stays watched."""
        gone, self._gone = self._gone, []
        return gone

    def memory_bytes(self, group: GroupId) -> int | None:
        """Memory that its processes keep resident; None where there is no memory controller, or it is gone.

        v2: anon + shmem; v1: total_rss (which is anonymous memory) + total_shmem (Linux 4.12; before, less). Page
        cache isn't counted, mapped or not: the kernel takes it back at will, and files are shared. By path alone.
        """
        if self._memory_top is None:
            return None
        try:
            with open(f"{self._memory_top}{group.path}/memory.stat", "rb") as lines:
                stat = dict(line.split(maxsplit=1) for line in lines)
        except OSError:
            return None
        anonymous, shared = (b"total_rss", b"total_shmem") if b"total_rss" in stat else (b"anon", b"shmem")
        return int(stat.get(anonymous, 0)) + int(stat.get(shared, 0))

    def close(self) -> None:
        """Give all files back; may be called twice."""
        for counter in self._counters.values():
            self._close(counter)
        self._counters.clear()

    def _refresh(self, group: GroupId, counter: _Counter) -> int:
        try:
            if counter.fd >= 0:
                now_ns = self._parse(os.pread(counter.fd, LINE_MAX, 0))
            elif counter.gone:
                return counter.seen_ns
            else:
                fd, now_ns = self._open(group)
                os.close(fd)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENOENT):
                counter.gone = True
                self._gone.append(group)
                self._close(counter)
            return counter.seen_ns  # else a later read catches up: it is cumulative
        if now_ns > counter.seen_ns:
            counter.seen_ns = now_ns
        return counter.seen_ns

    def _open(self, group: GroupId) -> tuple[int, int]:
        """An open counter and its value in ns; ENOENT where the path leads to another cgroup."""
        folder = self._top + group.path
        fd = self._open_file(f"{folder}/{self._file}")
        try:
            value_ns = self._parse(os.pread(fd, LINE_MAX, 0))
            # After the open: if ours is there now, none was there before it under this path but ours.
            if Path(folder).stat().st_ino != group.inode:
                raise FileNotFoundError(errno.ENOENT, "another cgroup", folder)
        except BaseException:
            os.close(fd)
            raise
        return fd, value_ns

    def _open_file(self, path: str) -> int:
        while True:
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.EMFILE or not (self._raise_limit() or self._give_one_back()):
                    raise

    def _raise_limit(self) -> bool:
        """Whether there may be more open files than before."""
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == hard:
            return False
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # fs.nr_open is less by now
            return False
        self._room = _room()
        return True

    def _give_one_back(self) -> bool:
        """The rest of the process has used up what was left to it."""
        kept = next((counter for counter in self._counters.values() if counter.fd >= 0), None)
        if kept is None:
            return False
        self._close(kept)
        self._room = self._kept
        return True

    def _close(self, counter: _Counter) -> None:
        if counter.fd >= 0:
            os.close(counter.fd)
            counter.fd = -1
            self._kept -= 1


def _room() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES


def _v2_ns(line: bytes) -> int:
    return int(line[_USEC : line.index(b"\n")]) * 1000


_FORMATS: dict[str, tuple[str, Callable[[bytes], int]]] = {"v1": ("cpuacct.usage", int), "v2": ("cpu.stat", _v2_ns)}
