"""A `CgroupTree` of what a listing says: one cgroup a line with the processes in it, those above it implied."""

from collections.abc import Sequence
from pathlib import Path

from wattribute.agent.core.found import GroupId, Reservation

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


class ListedTree:
    """Cgroups come and go by hand; every look is counted."""

    def __init__(self, listing: str = "") -> None:
        self.inodes: dict[str, int] = {"/": 1}
        self.processes: dict[str, list[int]] = {}
        self.owners: dict[str, int] = {}
        self.reservations: dict[str, Reservation] = {}
        self.listed: list[str] = []
        self.asked_pids = 0
        self._below: dict[str, list[str]] = {"/": []}
        self._made = 1
        if listing:
            for line in (FIXTURES / "cgroups" / listing).read_text().splitlines():
                path, *pids = line.split()
                self.add(path, *map(int, pids))

    def add(self, path: str, *pids: int) -> GroupId:
        above = path.rpartition("/")[0] or "/"
        if above not in self.inodes:
            self.add(above)
        if path not in self.inodes:
            self._made += 1
            self.inodes[path] = self._made
            self._below[path] = []
            self._below[above].append(path)
        self.processes.setdefault(path, []).extend(pids)
        return GroupId(path, self.inodes[path])

    def remove(self, path: str) -> None:
        for child in tuple(self._below[path]):
            self.remove(child)
        self._below[path.rpartition("/")[0] or "/"].remove(path)
        del self.inodes[path], self._below[path]
        self.processes.pop(path, None)

    def children(self, path: str) -> Sequence[GroupId]:
        self.listed.append(path)
        return [GroupId(child, self.inodes[child]) for child in self._below.get(path, ())]

    def owner(self, path: str) -> int:
        return self.owners.get(path, 0)

    def links(self, path: str) -> int:
        return len(self._below.get(path, ()))

    def pids(self, path: str, most: int) -> Sequence[int]:
        self.asked_pids += 1
        found, groups = list[int](), [path]
        for group in groups:
            found += self.processes.get(group, ())
            groups += self._below.get(group, ())
        return found[:most]

    def reserved(self, path: str) -> Reservation:
        return self.reservations.get(path, Reservation())

    def group_of(self, pid: int) -> str:
        return next((path for path, pids in self.processes.items() if pid in pids), "")
