"""Groups of our own in this machine's real cgroup tree."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from wattribute.agent.core.found import GroupId
from wattribute.collectors.cgroup import Tree

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def mounted() -> dict[str, Path]:
    """The hierarchies that count CPU time here, and what a tree of each is opened with."""
    found = {"v1": CGROUP} if any((CGROUP / one).is_dir() for one in ("cpuacct", "cpu,cpuacct")) else {}
    v2 = next((one for one in (CGROUP, CGROUP / "unified") if (one / "cgroup.controllers").exists()), None)
    return found | ({"v2": v2} if v2 else {})


class RealGroups:
    """Groups below one of a unique name, with what controllers there are. Raises OSError where we mayn't."""

    def __init__(self, cgroup: Path, hierarchy: Literal["v1", "v2"]) -> None:
        self.name = f"wattribute-test-{os.getpid()}"
        top = cgroup
        if hierarchy == "v1":
            top = next(top for name in ("cpuacct", "cpu,cpuacct") if (top := cgroup / name).is_dir())
        (top / self.name).mkdir()
        self._bases = [top / self.name]
        try:
            self.tree = Tree(cgroup, PROC)  # only now: of a hybrid it takes the one with groups
            assert self.tree.hierarchy == hierarchy
            for folder in dict.fromkeys(path.resolve() for path in self.tree.layout.v1.values()):
                if folder != top.resolve():
                    (folder / self.name).mkdir()
                    self._bases.append(folder / self.name)
            if hierarchy == "v2":
                for controller in ("cpu", "cpuset", "memory"):
                    with suppress(OSError):  # ENOENT: not handed down from the top
                        (self._bases[0] / "cgroup.subtree_control").write_text(f"+{controller}")
        except BaseException:
            self.close()
            raise

    def make(self, name: str) -> GroupId:
        for base in self._bases:
            (base / name).mkdir()
        return next(one for one in self.tree.children(f"/{self.name}") if one.path == f"/{self.name}/{name}")

    def put(self, pid: int, name: str) -> None:
        for base in self._bases:
            with suppress(OSError):  # ENOSPC: a cpuset of v1 without CPUs
                (base / name / "cgroup.procs").write_text(str(pid))

    def set(self, name: str, file: str, text: str) -> bool:
        """Writes a limit; whether there is such a file."""
        for base in self._bases:
            for folder in (base, base / name) if file.startswith("cpuset.") else (base / name,):
                if (folder / file).exists():
                    (folder / file).write_text(text)
                    if folder.name == name:
                        return True
        return False

    def remove(self, name: str) -> None:
        for base in self._bases:
            (base / name).rmdir()

    def close(self) -> None:
        for base in self._bases:
            for folder in [*_folders(base), base]:
                folder.rmdir()


def _folders(base: Path) -> Iterator[Path]:
    yield from (folder for folder in base.iterdir() if folder.is_dir())
