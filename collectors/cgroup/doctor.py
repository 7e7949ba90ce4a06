"""What `doctor` says of cgroups: which hierarchy counts CPU time, whether it can be read, and what would mend it."""

import os
from pathlib import Path

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Finding
from wattribute.collectors.cgroup.tree import Tree

_SOURCE = "cgroup"
_WHOLE_TREE = "docker run --pid=host --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:ro ... wattribute agent"


def findings(cgroup: Path, proc: Path) -> list[Finding]:
    """One Finding. Raises nothing."""
    try:
        tree = Tree(cgroup, proc)
        groups = tree.children("/")
    except SensorUnavailable as error:
        return [Finding(source=_SOURCE, path=str(cgroup), ok=False, why=error.cause, fix=error.fix)]
    file, resolution = ("cpuacct.usage", "1 ns") if tree.hierarchy == "v1" else ("cpu.stat", "1 us")
    unreadable = [_why_not(f"{tree.top}{group.path}/{file}") for group in groups]
    if groups and all(unreadable):
        return [
            Finding(source=_SOURCE, path=str(tree.top), ok=False, why=unreadable[0], fix="run the agent as root"),
        ]
    return [
        Finding(
            source=_SOURCE,
            path=str(tree.top),
            ok=True,
            why="; ".join(_notes(tree)),
            resolution=resolution,
            value=f"cgroups at the top: {len(groups)}",
            fix="" if tree.layout.is_node else _WHOLE_TREE,
        )
    ]


def _why_not(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return f"{path}: {os.strerror(error.errno or 0)}"
    return ""


def _notes(tree: Tree) -> list[str]:
    notes = [f"{tree.hierarchy}, cpuacct" if tree.hierarchy == "v1" else tree.hierarchy]
    if tree.layout.hybrid:
        other = "v2" if tree.hierarchy == "v1" else "v1"
        notes[0] += f" of a hybrid: jobs that have a cgroup in {other} alone aren't seen"
    if tree.memory_top is None:
        notes.append("no memory controller: memory isn't known per job")
    if not tree.layout.is_node:
        notes.append("a container's part of the tree: jobs outside it aren't seen")
    return notes
