"""Which of the mounted hierarchies counts CPU time. One per node, chosen once:

- v2 where it is the whole tree;
- else v1's cpuacct: it counts nanoseconds, and Slurm and Docker put their jobs there on such nodes;
- in a hybrid, the v2 tree below `unified` (systemd's own) only where cpuacct has no group at all and v2 has some.
Groups that are in the other hierarchy alone aren't seen.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wattribute.agent.core.errors import SensorUnavailable


@dataclass(frozen=True, slots=True)
class Layout:
    """`top` is the chosen hierarchy's folder; `v1` has the folders of v1's cpu, cpuset and memory where mounted."""

    hierarchy: Literal["v1", "v2"]
    top: Path
    hybrid: bool
    v1: Mapping[str, Path]

    @property
    def memory_top(self) -> Path | None:
        """Where memory.stat is found; None where no hierarchy has the memory controller."""
        if "memory" in self.v1 or self.hierarchy == "v1":
            return self.v1.get("memory")
        try:
            return self.top if "memory" in (self.top / "cgroup.controllers").read_text().split() else None
        except OSError:
            return None

    @property
    def is_node(self) -> bool:
        """Whether the top is the node's: only that one has no cgroup.type (v2), or has a release_agent (v1)."""
        if self.hierarchy == "v2":
            return not (self.top / "cgroup.type").exists()
        return (self.top / "release_agent").exists()


def find_layout(cgroup: Path) -> Layout:
    """What is mounted at `cgroup`. Raises SensorUnavailable where nothing counts CPU time, or it can't be listed."""
    if (cgroup / "cgroup.controllers").exists():
        return _readable(Layout("v2", cgroup, False, {}))
    v1 = {name: folder for name in ("cpu", "cpuset", "memory") if (folder := _v1(cgroup, name, "cgroup.procs"))}
    cpuacct = _v1(cgroup, "cpuacct", "cpuacct.usage")
    unified = cgroup / "unified"
    hybrid = (unified / "cgroup.controllers").exists()
    if cpuacct and not (hybrid and not _has_groups(cpuacct) and _has_groups(unified)):
        return _readable(Layout("v1", cpuacct, hybrid, v1))
    if hybrid:
        return _readable(Layout("v2", unified, True, v1))
    if v1:
        fix = f"mkdir -p {unified} && mount -t cgroup2 cgroup2 {unified}"
        raise SensorUnavailable(f"{cgroup} has v1 hierarchies, but neither cpuacct nor v2", fix, absent=True)
    raise SensorUnavailable(f"no cgroup tree at {cgroup}", f"mount -t cgroup2 cgroup2 {cgroup}", absent=True)


def _v1(cgroup: Path, controller: str, file: str) -> Path | None:
    names = (controller, "cpu,cpuacct") if controller.startswith("cpu") and controller != "cpuset" else (controller,)
    return next((cgroup / name for name in names if (cgroup / name / file).exists()), None)


def _has_groups(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.is_dir(follow_symlinks=False) for entry in entries)
    except OSError:
        return False


def _readable(layout: Layout) -> Layout:
    try:
        os.scandir(layout.top).close()
    except OSError as error:
        raise SensorUnavailable(f"{layout.top}: {error.strerror}", "run the agent as root") from error
    return layout
