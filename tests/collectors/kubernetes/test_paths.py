"""Which cgroups are pods, under either driver and below any root of the kubelet's."""

import pytest
from tests.doubles.listed_tree import ListedTree

from wattribute.agent.core.rules import plain
from wattribute.agent.core.search import GroupSearch
from wattribute.collectors.kubernetes.paths import holds_pods, is_pod, may_hold_pods, pod_uid

UID = "0f0e2c34-9a41-4c1b-8a4e-5b2a7a1d0c01"
UID_ = UID.replace("-", "_")
HASH = "b5b2b6a0f4b9e3c1d7a8e6f5c4d3b2a1"

PODS = {
    f"/kubepods/pod{UID}": UID,
    f"/kubepods/burstable/pod{UID}": UID,
    f"/kubepods/besteffort/pod{HASH}": HASH,
    f"/kubepods.slice/kubepods-pod{UID_}.slice": UID,
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice": UID,
    f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{HASH}.slice": HASH,
    f"/kubelet/kubepods/burstable/pod{UID}": UID,
    f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice": UID,
    f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice": UID,  # noqa: E501
    f"/k3s/kubepods/besteffort/pod{UID}": UID,
    f"/system.slice/k3s.service/kubepods/burstable/pod{UID}": UID,
    f"/system.slice/kubelet.service/kubepods.slice/kubepods-pod{UID_}.slice": UID,
    f"/a.slice/a-b.slice/a-b-c.slice/a-b-c-kubepods.slice/a-b-c-kubepods-pod{UID_}.slice": UID,
}

OTHERS = [
    "/",
    "/kubepods",
    "/kubepods/burstable",
    "/kubepods/pod",
    f"/pod{UID}",
    f"/kubepods/guaranteed/pod{UID}",
    f"/kubepods/burstable/pod{UID}/{'a' * 64}",
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-besteffort-pod{UID_}.slice",
    f"/kubepods.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{'a' * 64}.scope",
    f"/kubepods/pod{'a' * 65}",
    f"/kubepods/pod{UID}\n",
    # Whoever owns one of these can make what he likes in it.
    f"/user.slice/user-1000.slice/user@1000.service/kubepods/pod{UID}",
    f"/user.slice/kubepods/pod{UID}",
    f"/machine.slice/libpod-{'a' * 64}.scope/kubepods/pod{UID}",
    f"/system.slice/docker-{'a' * 64}.scope/kubelet/kubepods/pod{UID}",
    f"/docker/{'a' * 64}/kubepods/pod{UID}",
    f"/lxc.payload.guest/kubepods/pod{UID}",
    f"/slurm_node1/uid_1000/job_1/kubepods/pod{UID}",
]


@pytest.mark.parametrize("path", PODS)
def test_a_pod_is_known_and_looked_for(path: str) -> None:
    assert pod_uid(path) == PODS[path]
    folder = path.rpartition("/")[0]
    assert holds_pods(folder)
    while folder:
        assert may_hold_pods(folder) and not is_pod(folder)
        folder = folder.rpartition("/")[0]


@pytest.mark.parametrize("path", OTHERS)
def test_nothing_else_is(path: str) -> None:
    assert pod_uid(path) == ""


def test_rules_see_both_drivers_alike() -> None:
    systemd, cgroupfs = (
        {plain(group.path) for group in search(ListedTree(f"kubepods_{driver}.txt")).groups()}
        for driver in ("systemd", "cgroupfs")
    )
    assert systemd == cgroupfs and len(systemd) == 12


@pytest.mark.parametrize("driver", ["systemd", "cgroupfs"])
def test_between_two_walks_only_kubepods_are_listed(driver: str) -> None:
    tree = ListedTree(f"kubepods_{driver}.txt")
    pods = search(tree)
    found = pods.groups()
    tree.listed.clear()
    assert set(pods.groups()) == set(found)
    assert len(tree.listed) == 4, "the top, and kubepods with its two classes"


@pytest.mark.parametrize("path", PODS)
def test_the_first_pod_in_a_new_root_is_seen_at_once(path: str) -> None:
    tree = ListedTree()
    pods = search(tree)
    tree.add(path.rpartition("/")[0])
    assert pods.groups() == []
    group = tree.add(path)
    assert pods.groups() == [group]
    tree.remove(path)
    assert pods.groups() == []


def search(tree: ListedTree) -> GroupSearch:
    return GroupSearch(tree, wanted=is_pod, enter=may_hold_pods, keep=holds_pods)
