"""What is set aside for a cgroup: the least of cpuset, CPU quota and memory limit, its own or an ancestor's.

Sources: cgroup-v2.rst (cpu.max, cpuset.cpus, memory.max), sched-bwc.rst, cgroup-v1/cpusets.rst and memory.rst. In v1
the group is looked up under the same path in the hierarchies of cpu, cpuset and memory.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from wattribute.agent.core.found import NOTHING_RESERVED, Reservation
from wattribute.collectors.cgroup.layout import Layout

UNLIMITED = 1 << 62  # above any real limit; v1's memory.limit_in_bytes without one is about 2**63


class Limits:
    """Reads limits; what isn't less than the node has (when it was opened) is none."""

    def __init__(self, layout: Layout, proc: Path) -> None:
        self._v2 = str(layout.top) if layout.hierarchy == "v2" else ""
        self._v1 = {controller: str(folder) for controller, folder in layout.v1.items()}
        self._node_milli = 1000 * (self._top_cpus() or _online_cpus(proc)) or UNLIMITED
        self._node_bytes = _memory_bytes(proc) or UNLIMITED

    def reserved(self, path: str) -> Reservation:
        """What is set aside for the group at `path`."""
        cpus_milli, memory_bytes = self._node_milli, self._node_bytes
        while len(path) > 1:
            cpus_milli = min((cpus_milli, *self._cpus_milli(path)))
            memory_bytes = min((memory_bytes, *self._limits_bytes(path)))
            path = path.rpartition("/")[0]
        if cpus_milli == self._node_milli and memory_bytes == self._node_bytes:
            return NOTHING_RESERVED
        return Reservation(
            cpus_milli if cpus_milli < self._node_milli else None,
            memory_bytes if memory_bytes < self._node_bytes else None,
        )

    def _cpus_milli(self, path: str) -> Iterator[int]:
        if self._v2:
            yield _quota_milli(*_words(f"{self._v2}{path}/cpu.max"))
            yield 1000 * count_cpus(_text(f"{self._v2}{path}/cpuset.cpus")) or UNLIMITED
        if folder := self._v1.get("cpu"):
            quota_us, period_us = f"{folder}{path}/cpu.cfs_quota_us", f"{folder}{path}/cpu.cfs_period_us"
            yield _quota_milli(*_words(quota_us), *_words(period_us))
        if folder := self._v1.get("cpuset"):
            yield 1000 * count_cpus(_text(f"{folder}{path}/cpuset.cpus")) or UNLIMITED

    def _limits_bytes(self, path: str) -> Iterator[int]:
        if self._v2:
            yield _number(_text(f"{self._v2}{path}/memory.max"))
        if folder := self._v1.get("memory"):
            yield _number(_text(f"{folder}{path}/memory.limit_in_bytes"))

    def _top_cpus(self) -> int:
        if folder := self._v1.get("cpuset"):
            return count_cpus(_text(f"{folder}/cpuset.cpus"))
        return count_cpus(_text(f"{self._v2}/cpuset.cpus.effective")) if self._v2 else 0


def count_cpus(text: str) -> int:
    """How many CPUs a list names: `0-3,8` is 5, nothing is 0 (cpuset(7), List format)."""
    count = 0
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def _quota_milli(quota_us: str = "max", period_us: str = "") -> int:
    """Thousandths of a CPU; v2 says `max` and v1 -1 where there is no quota."""
    if not quota_us.isdigit() or not period_us.isdigit():
        return UNLIMITED
    return int(quota_us) * 1000 // int(period_us)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else UNLIMITED


def _text(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 65536).decode().strip()
    except OSError:  # ENODEV: removed meanwhile
        return ""
    finally:
        os.close(fd)


def _words(path: str) -> list[str]:
    return _text(path).split()


def _online_cpus(proc: Path) -> int:
    """The lines cpu0, cpu1, .. of /proc/stat; 0 where it isn't there."""
    try:
        with open(proc / "stat", "rb") as lines:
            return sum(line[:3] == b"cpu" and line[3:4].isdigit() for line in lines)
    except OSError:
        return 0


def _memory_bytes(proc: Path) -> int:
    """MemTotal of /proc/meminfo, its first line; 0 where it isn't there."""
    words = _text(f"{proc}/meminfo").split(maxsplit=2)
    return 1024 * int(words[1]) if words[:1] == ["MemTotal:"] else 0
