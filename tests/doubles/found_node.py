"""A node whose processes live in cgroups and run when they are told to, and a source that tells jobs of them.

Processes and files agree: what one uses is in its clock and in the counters of its cgroup and of all above it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.truthbench.kernel import Process, SimulatedKernel

from tests.doubles.cgroups import FakeCgroups
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import CgroupTree, FoundJob, GroupId

MS = 1_000_000
PID_MAX = 100_000


class FoundNode:
    """Below `folder`; its top looks like the node's own root. `now_ns` is when the next process is born."""

    def __init__(self, folder: Path, hierarchy: Literal["v1", "v2"] = "v2") -> None:
        self.cgroups = FakeCgroups(folder, hierarchy, cpus=4)
        self.kernel = SimulatedKernel(os.getpid(), PID_MAX)
        self.now_ns = 0
        self.homes: dict[int, str] = {}
        self.cgroups.make("/system.slice/wattribute.service")
        self._settle(self.kernel[os.getpid()], "/system.slice/wattribute.service", 0)

    def make(self, path: str) -> GroupId:
        """A cgroup, with those above it; the one that is there otherwise."""
        return self.cgroups.make(path)

    def remove(self, path: str) -> None:
        """Its processes end first."""
        for pid in [pid for pid, home in self.homes.items() if home == path]:
            self.exit(self.kernel[pid])
        self.cgroups.remove(path)

    def fork(
        self, path: str, parent: Process | None = None, *, uid: int | None = None, memory_bytes: int = 1 << 20
    ) -> Process:
        """A process in a cgroup; of this test's user unless it says otherwise."""
        child = self.kernel.fork("", self.now_ns, parent, memory_bytes)
        self._settle(child, path, os.getuid() if uid is None else uid)
        return child

    def move(self, process: Process, path: str) -> None:
        """It lives in another cgroup from now on."""
        self.homes[process.pid] = path
        self.cgroups.put(process.pid, path)

    def exit(self, process: Process) -> None:
        """It ends, and is reaped at once."""
        self.cgroups.end(process.pid)
        del self.homes[process.pid]
        self.kernel.exit(process)

    def burn(self, process: Process, ms: float) -> None:
        """A process runs."""
        process.own_ns += round(ms * MS)
        self.use(self.homes[process.pid], ms)

    def use(self, path: str, ms: float) -> None:
        """Something runs in a cgroup that is over before anybody can see it."""
        self.cgroups.add_ns(path, round(ms * MS))

    def close(self) -> None:
        self.cgroups.close()

    def _settle(self, process: Process, path: str, uid: int) -> None:
        self.move(process, path)
        folder = self.cgroups.proc / str(process.pid)
        (folder / "status").write_text("".join(f"{key}:\t{uid}\t{uid}\t{uid}\t{uid}\n" for key in ("Uid", "Gid")))


class ToldJobs:
    """A job source that tells what it is told to tell; `error` is raised instead. It looks at all of `tree` first."""

    def __init__(self, name: str = "told") -> None:
        self.name = name
        self.error: Exception | None = None
        self.asked = 0
        self.closed = 0
        self.tree: CgroupTree | None = None
        self._told: list[FoundJob] = []

    def tell(self, *found: FoundJob) -> None:
        """From now on these are there, and no others."""
        self._told = list(found)

    def jobs(self) -> Sequence[FoundJob]:
        self.asked += 1
        self._look("/")
        if self.error is not None:
            raise self.error
        return self._told

    def close(self) -> None:
        self.closed += 1

    def _look(self, path: str) -> None:
        for group in self.tree.children(path) if self.tree is not None else ():
            self._look(group.path)


def found_job(job_id: str, group: GroupId, **fields: Any) -> FoundJob:
    """One of this test's user, of origin cgroup, unless it says otherwise."""
    return FoundJob(**{"job_id": job_id, "group": group, "origin": "cgroup", "uid": os.getuid(), **fields})


def unavailable(cause: str = "it doesn't answer", fix: str = "start it") -> SensorUnavailable:
    return SensorUnavailable(cause, fix)
