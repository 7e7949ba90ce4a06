"""Which hierarchy is chosen, what is in it, and what is set aside for its groups."""

import errno
import os
from pathlib import Path

import pytest
from tests.doubles.cgroups import FakeCgroups

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import NOTHING_RESERVED, CgroupTree, Reservation
from wattribute.collectors.cgroup import Tree
from wattribute.collectors.cgroup.limits import count_cpus
from wattribute.collectors.process.node import is_root_v1, is_root_v2

GIB = 1 << 30


def chosen(cgroup: Path) -> tuple[str, Path]:
    tree = Tree(cgroup, cgroup.parent / "proc")
    return tree.hierarchy, tree.top.relative_to(cgroup)


def hybrid(folder: Path) -> tuple[FakeCgroups, FakeCgroups]:
    v1, v2 = FakeCgroups(folder / "v1", "v1"), FakeCgroups(folder / "v2", "v2")
    (v1.cgroup / "unified").symlink_to(v2.cgroup)
    return v1, v2


def test_the_fake_tops_are_the_nodes_own(fake: FakeCgroups) -> None:
    top = fake.folder("/")
    assert is_root_v1(top) if fake.hierarchy == "v1" else is_root_v2(top)
    fake.make("/a")
    assert Tree(fake.cgroup, fake.proc).layout.is_node


def test_v2_and_v1_are_told_apart(tmp_path: Path) -> None:
    with FakeCgroups(tmp_path / "a", "v2") as v2, FakeCgroups(tmp_path / "b", "v1") as v1:
        v2.make("/memory")  # a group's name says nothing of controllers
        assert chosen(v2.cgroup) == ("v2", Path())
        assert chosen(v1.cgroup) == ("v1", Path("cpuacct"))
        (v1.cgroup / "cpuacct").rename(v1.cgroup / "cpu,cpuacct")
        assert chosen(v1.cgroup) == ("v1", Path("cpu,cpuacct"))


def test_a_hybrid_counts_by_cpuacct_unless_that_is_bare(tmp_path: Path) -> None:
    v1, v2 = hybrid(tmp_path)
    with v1, v2:
        assert chosen(v1.cgroup) == ("v1", Path("cpuacct"))
        v2.make("/system.slice/a.service")
        assert chosen(v1.cgroup) == ("v2", Path("unified"))
        v1.make("/slurm/uid_0/job_1")
        assert chosen(v1.cgroup) == ("v1", Path("cpuacct"))
        (v1.cgroup / "cpuacct").rename(tmp_path / "unmounted")
        assert chosen(v1.cgroup) == ("v2", Path("unified"))


def test_v2_of_a_hybrid_takes_limits_and_memory_where_they_are(tmp_path: Path) -> None:
    v1, v2 = hybrid(tmp_path)
    with v1, v2:
        v2.make("/a")
        v1.make("/a")
        v1.limit("/a", cpus_milli=1500, memory_bytes=GIB)
        (v1.cgroup / "cpuacct").rename(tmp_path / "unmounted")
        tree = Tree(v1.cgroup, v1.proc)
        assert tree.hierarchy == "v2"
        assert tree.memory_top == v1.cgroup / "memory"
        assert tree.reserved("/a") == Reservation(1500, GIB)


@pytest.mark.parametrize(
    ("names", "cause", "fix"),
    [
        ((), "no cgroup tree at {0}", "mount -t cgroup2 cgroup2 {0}"),
        (("memory",), "neither cpuacct nor v2", "mkdir -p {0}/unified && mount -t cgroup2 cgroup2 {0}/unified"),
    ],
)
def test_without_a_tree_the_fix_is_a_command(names: tuple[str, ...], cause: str, fix: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    with pytest.raises(SensorUnavailable) as raised:
        Tree(tmp_path, tmp_path)
    assert cause.format(tmp_path) in raised.value.cause
    assert raised.value.fix == fix.format(tmp_path)
    assert raised.value.absent


def test_children_are_the_groups_right_below(fake: FakeCgroups, tree: Tree) -> None:
    protocol: CgroupTree = tree
    pod = fake.make("/kubepods.slice/kubepods-pod1.slice")
    box = fake.make("/kubepods.slice/kubepods-pod1.slice/cri-containerd-a:b.scope")
    strange = fake.make("/sp ace\udcff")
    top = protocol.children("/")
    assert strange in top
    assert {one.path for one in top} == {"/kubepods.slice", strange.path}
    assert protocol.children("/kubepods.slice") == [pod]
    assert protocol.children(pod.path) == [box]
    assert protocol.children(box.path) == []
    assert list(protocol.children("/nowhere")) == []
    assert box.inode == fake.folder(box.path).stat().st_ino


def test_a_group_made_anew_is_another(fake: FakeCgroups, tree: Tree) -> None:
    old = fake.make("/a")
    fake.remove("/a")
    assert list(tree.children("/")) == []
    new = fake.make("/a")
    assert tree.children("/") == [new]
    assert new.inode != old.inode


def test_pids_come_from_below_too_and_once_each(fake: FakeCgroups, tree: Tree) -> None:
    fake.make("/a/b/c")
    fake.make("/other")
    for pid, path in ((1, "/"), (10, "/a"), (11, "/a"), (12, "/a/b"), (13, "/a/b/c"), (14, "/other")):
        fake.put(pid, path)
    assert tree.pids("/a", 100) == [10, 11, 12, 13]
    assert tree.pids("/a", 3) == [10, 11, 12]
    assert list(tree.pids("/a", 0)) == []
    assert tree.pids("/a/b/c", 100) == [13]
    assert list(tree.pids("/nowhere", 100)) == []
    (fake.folder("/a/b") / "cgroup.procs").write_text("0\n12\n10\n")  # another pid namespace's, and one moving
    assert tree.pids("/a", 100) == [10, 11, 12, 13]


def test_group_of_a_process(fake: FakeCgroups, tree: Tree) -> None:
    for i, path in enumerate(("/", "/a/b", "/a:0::/x", "/x (deleted)", "/a\rb")):
        fake.make(path)
        fake.put(100 + i, path)
        assert tree.group_of(100 + i) == path
    assert tree.group_of(99) == ""
    fake.make("/gone")
    fake.put(50, "/gone")
    shown = (fake.proc / "50" / "cgroup").read_text()
    fake.end(50)
    assert tree.group_of(50) == ""
    fake.remove("/gone")
    (fake.proc / "50").mkdir()
    (fake.proc / "50" / "cgroup").write_text(shown.replace("/gone", "/gone (deleted)"))
    assert tree.group_of(50) == ""


def test_group_of_a_hybrids_process_is_that_of_the_chosen_hierarchy(tmp_path: Path) -> None:
    v1, v2 = hybrid(tmp_path)
    with v1, v2:
        v1.make("/slurm/job_1")
        v1.make("/system.slice/slurmd.service")
        v1.put(7, "/slurm/job_1")
        line = (v1.proc / "7" / "cgroup").read_text().replace("0::/", "0::/system.slice/slurmd.service")
        (v1.proc / "7" / "cgroup").write_text(f"12:name=systemd:/system.slice/slurmd.service\n{line}")
        assert Tree(v1.cgroup, v1.proc).group_of(7) == "/slurm/job_1"


def test_paths_shown_from_within_a_namespace_are_put_right(fake: FakeCgroups) -> None:
    """An agent in a pod that sees the node's tree, in a cgroup namespace of its own."""
    for pid, path, shown in (
        (1, "/init.scope", "/../../../init.scope"),
        (20, "/kubepods/pod1/agent", "/"),
        (21, "/kubepods/pod1/agent/sub", "/sub"),
        (22, "/kubepods/pod1/beside", "/../beside"),
        (23, "/kubepods/pod2/box", "/../../pod2/box"),
    ):
        fake.make(path)
        fake.put(pid, path)
        file = fake.proc / str(pid) / "cgroup"
        # The v1 top's 0:: line isn't asked.
        file.write_text(file.read_text().replace(path + "\n", shown + "\n"))
    for own in ("20", "21"):
        (fake.proc / "self").unlink(missing_ok=True)
        (fake.proc / "self").symlink_to(own)
        tree = Tree(fake.cgroup, fake.proc)
        assert [tree.group_of(pid) for pid in (1, 20, 21, 22, 23)] == [
            "/init.scope",
            "/kubepods/pod1/agent",
            "/kubepods/pod1/agent/sub",
            "/kubepods/pod1/beside",
            "/kubepods/pod2/box",
        ]


def test_without_a_limit_nothing_is_reserved(fake: FakeCgroups, tree: Tree) -> None:
    fake.make("/a")
    assert tree.reserved("/a") == NOTHING_RESERVED
    assert tree.reserved("/") == NOTHING_RESERVED
    assert tree.reserved("/nowhere") == NOTHING_RESERVED


def test_quota_cpuset_and_memory_limit(fake: FakeCgroups, tree: Tree) -> None:
    fake.make("/a")
    fake.limit("/a", cpus_milli=2500)
    assert tree.reserved("/a") == Reservation(2500, None)
    fake.limit("/a", memory_bytes=GIB)
    assert tree.reserved("/a") == Reservation(None, GIB)
    fake.limit("/a", cpuset="0-3,8")
    assert tree.reserved("/a") == Reservation(5000, None)
    fake.limit("/a", cpus_milli=2500, cpuset="0-3,8", memory_bytes=GIB)
    assert tree.reserved("/a") == Reservation(2500, GIB)
    fake.limit("/a", cpus_milli=7500, cpuset="0-3,8", memory_bytes=GIB)
    assert tree.reserved("/a") == Reservation(5000, GIB)
    fake.limit("/a")
    assert tree.reserved("/a") == NOTHING_RESERVED


def test_the_limits_of_what_is_above_bound_it(fake: FakeCgroups, tree: Tree) -> None:
    fake.make("/pod/box/inner")
    fake.limit("/pod", cpus_milli=4000, memory_bytes=2 * GIB)
    fake.limit("/pod/box", cpuset="0-7", memory_bytes=GIB)
    fake.limit("/pod/box/inner", cpus_milli=9000, memory_bytes=3 * GIB)
    assert tree.reserved("/pod/box/inner") == Reservation(4000, GIB)
    assert tree.reserved("/pod") == Reservation(4000, 2 * GIB)


def test_what_is_not_less_than_the_node_is_nothing(fake: FakeCgroups) -> None:
    (fake.proc / "meminfo").write_text(f"MemTotal:       {8 * GIB // 1024} kB\nMemFree: 1 kB\n")
    tree = Tree(fake.cgroup, fake.proc)
    fake.make("/a")
    fake.limit("/a", cpus_milli=64_000, cpuset="0-63", memory_bytes=8 * GIB)
    assert tree.reserved("/a") == NOTHING_RESERVED
    fake.limit("/a", cpus_milli=63_999, memory_bytes=8 * GIB - 4096)
    assert tree.reserved("/a") == Reservation(63_999, 8 * GIB - 4096)


def test_without_a_cpuset_controller_proc_tells_the_nodes_cpus(fake: FakeCgroups) -> None:
    (fake.proc / "stat").write_text("cpu  9 9\ncpu0 1 1\ncpu1 1 1\nintr 5\n")
    fake.make("/a")
    fake.limit("/a", cpus_milli=2000)
    for folder in (fake.folder("/", "cpuset"), fake.folder("/a", "cpuset")):
        for file in folder.glob("cpuset.*"):
            file.unlink()
    tree = Tree(fake.cgroup, fake.proc)
    assert tree.reserved("/a") == NOTHING_RESERVED
    fake.limit("/a", cpus_milli=1999)
    assert tree.reserved("/a").cpus_milli == 1999


def test_v1_groups_that_other_hierarchies_lack_have_nothing(tmp_path: Path) -> None:
    with FakeCgroups(tmp_path, "v1") as fake:
        fake.make("/a")
        for controller in ("cpu", "cpuset", "memory"):
            fake.folder("/a", controller).rename(tmp_path / f"{controller}-away")
        assert Tree(fake.cgroup, fake.proc).reserved("/a") == NOTHING_RESERVED


@pytest.mark.parametrize(("text", "count"), [("", 0), ("0", 1), ("0-3,8", 5), ("0,2,4-5,128-255", 132)])
def test_cpu_lists_are_counted(text: str, count: int) -> None:
    assert count_cpus(text) == count


def test_of_the_real_one_we_are_in_a_group() -> None:
    try:
        tree = Tree(Path("/sys/fs/cgroup"), Path("/proc"))
    except SensorUnavailable:
        pytest.skip("no cgroup can be made here")
    path = tree.group_of(os.getpid())
    assert path.startswith("/")
    assert os.getpid() in tree.pids(path, 1 << 22)


def test_a_folder_that_can_not_be_listed_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeCgroups(tmp_path) as cgroups:
        cgroups.make("/jobs/a")
        tree = Tree(cgroups.cgroup, cgroups.proc)

        def full(path: str) -> None:
            raise OSError(errno.EMFILE, "Too many open files", path)

        monkeypatch.setattr(os, "scandir", full)
        with pytest.raises(SensorUnavailable):
            tree.children("/jobs")
        monkeypatch.undo()
        assert [group.path for group in tree.children("/jobs")] == ["/jobs/a"]
        assert tree.children("/none") == ()
        assert tree.owner("/jobs/a") == os.getuid()
        assert tree.owner("/none") == -1
