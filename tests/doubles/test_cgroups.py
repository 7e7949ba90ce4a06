"""The fake cgroup tree is what a node's own looks like, to those who read the kernel's."""

import errno
import sys
from pathlib import Path
from typing import Literal

import pytest

from tests.doubles.cgroups import FakeCgroups
from wattribute.collectors.process.node import REFRESH_NS, NodeTime
from wattribute.collectors.process.procfs import ProcFs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

MS = 1_000_000
HIERARCHIES: tuple[Literal["v1", "v2"], ...] = ("v1", "v2")


@pytest.mark.parametrize("hierarchy", HIERARCHIES)
def test_the_node_counts_what_all_groups_used(tmp_path: Path, hierarchy: Literal["v1", "v2"]) -> None:
    now_ns = 0
    kernel = ProcFs(Path("/proc"))
    with FakeCgroups(tmp_path, hierarchy) as fake:
        fake.make("/system.slice")
        node = NodeTime(fake.proc, fake.cgroup, kernel, lambda: now_ns)
        assert node.method == ("cpuacct" if hierarchy == "v1" else "cgroup2")
        assert node.read_ns() == 0
        fake.make("/jobs/1")
        fake.add_ns("/jobs/1", 5 * MS)
        fake.add_ns("/system.slice", 2 * MS)
        fake.flush()
        now_ns += REFRESH_NS
        assert node.read_ns() == 7 * MS
        fake.remove("/jobs/1")
        fake.add_ns("/jobs", MS)
        fake.flush()
        assert node.read_ns() == fake.usage_ns("/") == 8 * MS
        node.close()
    kernel.close()


@pytest.mark.parametrize("hierarchy", HIERARCHIES)
def test_a_group_in_use_is_busy(tmp_path: Path, hierarchy: Literal["v1", "v2"]) -> None:
    with FakeCgroups(tmp_path, hierarchy) as fake:
        fake.make("/a/b")
        fake.put(7, "/a/b")
        for path in ("/a", "/a/b"):
            with pytest.raises(OSError) as raised:
                fake.remove(path)
            assert raised.value.errno == errno.EBUSY
        fake.put(7, "/")
        fake.remove("/a/b")
        fake.remove("/a")
        assert not fake.folder("/a").exists()
        fake.make("/a/b")
        fake.add_ns("/a/b", 1_000)
        fake.flush()
        assert fake.usage_ns("/a") == 1_000


def test_populated_follows_the_processes_below(tmp_path: Path) -> None:
    def populated(path: str) -> bool:
        return "populated 1\n" in (fake.folder(path) / "cgroup.events").read_text()

    with FakeCgroups(tmp_path, "v2") as fake:
        fake.make("/a/b")
        assert not populated("/a")
        fake.put(7, "/a/b")
        fake.put(8, "/a/b")
        assert populated("/a")
        assert populated("/a/b")
        fake.put(7, "/a")
        fake.end(8)
        assert populated("/a")
        assert not populated("/a/b")
        fake.end(7)
        assert not populated("/a")
