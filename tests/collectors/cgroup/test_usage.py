"""CPU time and memory of watched groups, from files."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.cgroups import FakeCgroups

from wattribute.agent.core.found import GroupId
from wattribute.collectors.cgroup import GroupUsage, Tree

US = 1_000
MIB = 1 << 20


@pytest.fixture
def usage(tree: Tree) -> Iterator[GroupUsage]:
    usage = GroupUsage(tree)
    yield usage
    usage.close()
    usage.close()


def test_counters_hold_what_is_below_them(fake: FakeCgroups, usage: GroupUsage) -> None:
    pod, box = fake.make("/pods/pod1"), fake.make("/pods/pod1/box")
    fake.add_ns(box.path, 7_000 * US)
    fake.flush()
    assert usage.watch(pod) == 7_000 * US
    assert usage.watch(box) == 7_000 * US
    fake.add_ns(box.path, 2 * US)
    fake.add_ns(pod.path, 1 * US)
    assert usage.read() == {pod: 7_000 * US, box: 7_000 * US}
    fake.flush()
    before = usage.read()
    assert before == {pod: 7_003 * US, box: 7_002 * US}
    fake.add_ns(box.path, 10**15)
    fake.flush()
    assert usage.read()[box] == 7_002 * US + 10**15
    assert before[box] == 7_002 * US  # each read's own
    fake.remove(box.path)
    assert fake.usage_ns("/") == fake.usage_ns(pod.path) == 7_003 * US + 10**15


def test_the_resolution_is_the_hierarchys(fake: FakeCgroups, usage: GroupUsage) -> None:
    group = fake.make("/a")
    usage.watch(group)
    for _ in range(3):
        fake.add_ns("/a", 1_999)
        fake.flush()
    assert usage.read() == {group: 5_997 if fake.hierarchy == "v1" else 5_000}


def test_usage_never_falls(fake: FakeCgroups, usage: GroupUsage) -> None:
    group = fake.make("/a")
    fake.add_ns("/a", 9_000)
    fake.flush()
    usage.watch(group)
    fake.add_ns("/a", -4_000)
    fake.flush()
    assert usage.read() == {group: 9_000}
    assert usage.usage_ns(group) == 9_000


def test_usage_of_one_is_read_now(fake: FakeCgroups, usage: GroupUsage) -> None:
    group = fake.make("/a")
    usage.watch(group)
    fake.add_ns("/a", 5_000)
    fake.flush()
    assert usage.usage_ns(group) == 5_000
    with pytest.raises(KeyError):
        usage.usage_ns(GroupId("/b", 1))


def test_a_group_is_its_inode_too(fake: FakeCgroups, usage: GroupUsage) -> None:
    old = fake.make("/a")
    fake.remove("/a")
    assert usage.watch(old) is None
    new = fake.make("/a")
    assert usage.watch(old) is None
    assert usage.watch(new) == 0
    assert usage.read() == {new: 0}
    assert usage.gone() == []


def test_an_empty_group_is_still_there(fake: FakeCgroups, usage: GroupUsage) -> None:
    group = fake.make("/a")
    usage.watch(group)
    fake.put(9, "/a")
    fake.end(9)
    if fake.hierarchy == "v2":
        assert "populated 0" in (fake.folder("/a") / "cgroup.events").read_text()
    assert usage.read() == {group: 0}
    assert usage.gone() == []


def test_a_removed_group_keeps_its_value_and_is_told_once(
    fake: FakeCgroups, usage: GroupUsage, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, left = fake.make("/gone"), fake.make("/left")
    fake.add_ns("/gone", 3_000)
    fake.flush()
    usage.watch(gone)
    usage.watch(left)
    _removed_as_by_the_kernel(fake, gone, monkeypatch)
    fake.add_ns("/left", 1_000)
    fake.flush()
    assert usage.read() == {gone: 3_000, left: 1_000}
    assert usage.gone() == [gone]
    assert usage.gone() == []
    assert usage.read()[gone] == usage.usage_ns(gone) == 3_000
    assert usage.gone() == []
    assert usage.watch(gone) is None
    usage.unwatch(gone)
    usage.unwatch(gone)
    assert usage.read() == {left: 1_000}


def test_a_group_that_is_forgotten_is_not_told(
    fake: FakeCgroups, usage: GroupUsage, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = fake.make("/a")
    usage.watch(group)
    _removed_as_by_the_kernel(fake, group, monkeypatch)
    usage.read()
    usage.unwatch(group)
    assert usage.gone() == []


def _removed_as_by_the_kernel(fake: FakeCgroups, group: GroupId, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept descriptors answer ENODEV."""
    file = (fake.folder(group.path) / ("cpu.stat" if fake.hierarchy == "v2" else "cpuacct.usage")).stat().st_ino
    pread = os.pread

    def answer(fd: int, n: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == file:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return pread(fd, n, offset)

    fake.remove(group.path)
    monkeypatch.setattr(os, "pread", answer)


def test_a_read_that_fails_otherwise_is_made_up_for(
    fake: FakeCgroups, usage: GroupUsage, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = fake.make("/a")
    usage.watch(group)
    fake.add_ns("/a", 4_000)
    fake.flush()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "?")))
        assert usage.read() == {group: 0}
    assert usage.gone() == []
    assert usage.read() == {group: 4_000}


def test_memory_is_what_is_resident(fake: FakeCgroups, usage: GroupUsage) -> None:
    pod, box = fake.make("/pod"), fake.make("/pod/box")
    fake.set_memory("/pod/box", 5 * MIB)
    fake.set_memory("/pod", MIB)
    fake.flush()
    assert usage.memory_bytes(box) == 5 * MIB
    assert usage.memory_bytes(pod) == 6 * MIB
    fake.remove("/pod/box")
    assert usage.memory_bytes(box) is None
    assert usage.memory_bytes(pod) == MIB


def test_shared_memory_counts_and_page_cache_does_not(fake: FakeCgroups, usage: GroupUsage) -> None:
    group = fake.make("/a")
    (fake.folder("/a", "memory") / "memory.stat").write_text(
        "anon 100\nfile 70000\nfile_mapped 60000\nshmem 11\n"
        if fake.hierarchy == "v2"
        else "cache 70000\nrss 1\nshmem 1\nmapped_file 60000\n"
        "total_cache 70000\ntotal_rss 100\ntotal_shmem 11\ntotal_mapped_file 60000\n"
    )
    assert usage.memory_bytes(group) == 111


def test_without_a_memory_controller_memory_is_not_known(fake: FakeCgroups) -> None:
    group = fake.make("/a")
    if fake.hierarchy == "v2":
        (fake.folder("/") / "cgroup.controllers").write_text("cpu\n")
    else:
        (fake.cgroup / "memory").rename(fake.cgroup.parent / "unmounted")
    usage = GroupUsage(Tree(fake.cgroup, fake.proc))
    assert usage.watch(group) == 0
    assert usage.memory_bytes(group) is None
    usage.close()


SCARCE = """
import os, resource, sys
from pathlib import Path
from wattribute.collectors.cgroup import GroupUsage, Tree

folder, soft, hard, hog = Path(sys.argv[1]), *map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
tree = Tree(folder / "cgroup", folder / "proc")
usage = GroupUsage(tree)
groups = tree.children("/jobs")
hogs = []
assert sum(usage.watch(group) for group in groups[:100]) > 0
while hog:
    try:
        hogs.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
for group in groups[100:]:
    assert usage.watch(group) is not None
first = usage.read()
assert usage.read() == first and usage.gone() == []
before = len(os.listdir("/proc/self/fd")) if not hog else 0
usage.close()
kept = before - len(os.listdir("/proc/self/fd")) if not hog else 0
print(len(first), sum(first.values()), kept, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "hog", "kept", "limit"),
    [
        (300, 2000, 0, 400, 2000),  # raised
        (300, 300, 0, 44, 300),  # can't be: some are kept, the others opened at each read
        (100, 100, 0, 0, 100),
        (600, 600, 1, 0, 600),  # EMFILE: what is kept is given back for those that aren't
    ],
)
def test_descriptors_may_be_scarce(
    tmp_path: Path, fake: FakeCgroups, soft: int, hard: int, hog: int, kept: int, limit: int
) -> None:
    for i in range(400):
        fake.make(f"/jobs/{i}")
        fake.add_ns(f"/jobs/{i}", (i + 1) * US)
    fake.flush()
    done = subprocess.run(
        [sys.executable, "-c", SCARCE, str(fake.cgroup.parent), str(soft), str(hard), str(hog)],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["400", str(400 * 401 // 2 * US), str(kept), str(limit)]


def test_an_unkept_group_that_was_replaced_is_gone(fake: FakeCgroups, tree: Tree) -> None:
    usage = GroupUsage(tree)
    usage._room = 0
    usage._raise_limit = lambda: False  # type: ignore[method-assign]
    old = fake.make("/a")
    fake.add_ns("/a", 2_000)
    fake.flush()
    assert usage.watch(old) == 2_000
    fake.remove("/a")
    fake.make("/a")
    fake.add_ns("/a", 9_000)
    fake.flush()
    assert usage.read() == {old: 2_000}
    assert usage.gone() == [old]
    usage.close()
