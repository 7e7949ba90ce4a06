"""The cgroup tree that counts CPU time, read-only: its groups, who is in them, and what is set aside for them.

Sources: cgroups(7), cgroup_namespaces(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cpuacct.rst.
"""

import errno
import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import GroupId, Reservation
from wattribute.collectors.cgroup.layout import find_layout
from wattribute.collectors.cgroup.limits import Limits


class Tree:
    """A `CgroupTree`. Keeps no file and no state that changes: any thread may ask.

    Raises SensorUnavailable where no hierarchy counts CPU time. `hierarchy` and `top` tell which one was chosen (see
    `layout`), `memory_top` where memory.stat files are (None: no memory controller).
    """

    def __init__(self, cgroup: Path, proc: Path) -> None:
        self.layout = find_layout(cgroup)
        self.hierarchy = self.layout.hierarchy
        self.top = self.layout.top
        self.memory_top = self.layout.memory_top
        self._top = str(self.top)
        self._proc = str(proc)
        self._limits = Limits(self.layout, proc)
        self._namespace = self._find_namespace()

    def children(self, path: str) -> Sequence[GroupId]:
        """The cgroups right below one."""
        below = path if path.endswith("/") else f"{path}/"
        try:
            with os.scandir(self._top + path) as entries:
                return [GroupId(below + e.name, e.inode()) for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR):
                return ()
            # What can't be listed isn't empty: jobs would be ended.
            raise SensorUnavailable(f"{self._top}{path}: {error.strerror}", "run the agent as root") from error

    def owner(self, path: str) -> int:
        """Whose folder it is; -1 where it is gone."""
        try:
            return os.stat(self._top + path).st_uid  # noqa: PTH116 - as below
        except OSError:
            return -1

    def links(self, path: str) -> int:
        """By the folder's link count, which has one for each folder in it, and two of its own (not on every disk)."""
        try:
            return max(-1, os.stat(self._top + path).st_nlink - 2)  # noqa: PTH116 - a Path costs three times the call
        except OSError:
            return -1

    def pids(self, path: str, most: int) -> Sequence[int]:
        """Up to `most` processes of a cgroup and of those below it, the nearest first."""
        found: dict[int, None] = {}
        for group in self._walk(path):
            for pid in self._procs(group):
                if len(found) >= most:
                    return list(found)
                found[pid] = None
        return list(found)

    def reserved(self, path: str) -> Reservation:
        """The least of cpuset, CPU quota and memory limit, those of the cgroups above it included."""
        return self._limits.reserved(path)

    def group_of(self, pid: int) -> str:
        """The path of a process's cgroup; "" where process or cgroup isn't there, or the cgroup isn't in this tree."""
        shown = self._shown(str(pid))
        if not shown:
            return ""
        path = posixpath.normpath(self._namespace + shown)
        # What was removed is shown with " (deleted)" after it, which is a name that a cgroup may have, too.
        return path if Path(self._top + path).is_dir() else ""

    def _shown(self, pid: str) -> str:
        """A process's path as /proc shows it: from the root of our cgroup namespace, so that `/../../a` is possible."""
        try:
            with open(f"{self._proc}/{pid}/cgroup", "rb") as file:
                lines = file.read().split(b"\n")
        except OSError:
            return ""
        for line in lines[:-1]:
            _, controllers, path = line.split(b":", 2)  # names may hold colons
            if (b"cpuacct" in controllers.split(b",")) if self.hierarchy == "v1" else not controllers:
                return os.fsdecode(path)
        return ""

    def _find_namespace(self) -> str:
        """Where in the tree our cgroup namespace's root is: "" for the top, as it is outside of containers.

        A container that sees the node's whole tree may have a namespace of its own; the tree tells where we are in it.
        """
        try:
            own = os.fspath(Path(self._proc, "self").readlink())
        except OSError:
            return ""
        shown = posixpath.normpath(self._shown(own) or "/")
        if not own.isdigit() or int(own) in self._procs(shown):
            return ""
        here = next((group for group in self._walk("/") if int(own) in self._procs(group)), "")
        below = shown.rstrip("/")
        return here.removesuffix(below) if here.endswith(below) else ""

    def _walk(self, path: str) -> Iterator[str]:
        """A cgroup and all below it, level by level."""
        pending = [path]
        for group in pending:
            yield group
            pending += [child.path for child in self.children(group)]

    def _procs(self, path: str) -> Iterator[int]:
        """Processes of one cgroup. A threaded one doesn't tell (EOPNOTSUPP): they are told above it."""
        with suppress(OSError), open(f"{self._top}{path}/cgroup.procs", "rb") as lines:
            for line in lines:
                if pid := int(line):  # 0 is one of a pid namespace that we don't see
                    yield pid
