"""What `doctor` says of cgroups."""

from pathlib import Path

from tests.doubles.cgroups import FakeCgroups

from wattribute.agent.core.model import Finding
from wattribute.collectors.cgroup import findings


def test_a_tree_is_told_with_its_resolution(fake: FakeCgroups) -> None:
    fake.make("/a/b")
    v1 = fake.hierarchy == "v1"
    assert findings(fake.cgroup, fake.proc) == [
        Finding(
            source="cgroup",
            path=str(fake.folder("/")),
            ok=True,
            why="v1, cpuacct" if v1 else "v2",
            resolution="1 ns" if v1 else "1 us",
            value="cgroups at the top: 1",
        )
    ]


def test_no_tree_has_a_fix(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, tmp_path)
    assert not found.ok
    assert found.fix == f"mount -t cgroup2 cgroup2 {tmp_path}"


def test_a_containers_part_and_a_lack_of_memory_are_told(fake: FakeCgroups) -> None:
    top = fake.folder("/")
    if fake.hierarchy == "v1":
        (top / "release_agent").unlink()
        (fake.cgroup / "memory").rename(fake.cgroup.parent / "unmounted")
    else:
        (top / "cgroup.type").write_text("domain\n")
        (top / "cgroup.controllers").write_text("cpu\n")
    (found,) = findings(fake.cgroup, fake.proc)
    assert found.ok
    assert "a container's part of the tree" in found.why
    assert "memory isn't known per job" in found.why
    assert "--cgroupns=host" in found.fix


def test_a_hybrid_says_what_it_does_not_see(tmp_path: Path) -> None:
    with FakeCgroups(tmp_path / "v1", "v1") as v1, FakeCgroups(tmp_path / "v2", "v2") as v2:
        (v1.cgroup / "unified").symlink_to(v2.cgroup)
        (found,) = findings(v1.cgroup, v1.proc)
        assert found.why == "v1, cpuacct of a hybrid: jobs that have a cgroup in v2 alone aren't seen"
        v2.make("/a")
        (found,) = findings(v1.cgroup, v1.proc)
        assert found.why == "v2 of a hybrid: jobs that have a cgroup in v1 alone aren't seen"


def test_counters_that_cannot_be_opened_are_not_ok(fake: FakeCgroups) -> None:
    fake.make("/a")
    file = fake.folder("/a") / ("cpu.stat" if fake.hierarchy == "v2" else "cpuacct.usage")
    file.rename(file.with_name("away"))
    (found,) = findings(fake.cgroup, fake.proc)
    assert not found.ok
    assert found.why == f"{file}: No such file or directory"
    assert found.fix
