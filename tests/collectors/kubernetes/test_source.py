"""Pods become jobs: what they are called, when the kubelet is asked, and what happens when it fails."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.cgroups import FakeCgroups
from tests.doubles.listed_tree import FIXTURES, ListedTree

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import CgroupTree, FoundJob, JobSource, Reservation
from wattribute.agent.identity import fit, problem
from wattribute.collectors.cgroup import Tree
from wattribute.collectors.kubernetes import KubernetesJobs, PodLabels
from wattribute.collectors.kubernetes.paths import pod_uid

S = 1_000_000_000
AGENT = "d2f4c6b8-90ab-4cde-8f01-23456789abcd"
VLLM = "0f0e2c34-9a41-4c1b-8a4e-5b2a7a1d0c01"
ANSWER = json.loads((FIXTURES / "kubelet" / "pods.json").read_text())


class Node:
    """A tree, a kubelet that answers what it is told to, and a clock that is moved by hand."""

    def __init__(self, tree: CgroupTree, answer: object = ANSWER, own_group: str = "") -> None:
        self.tree = tree
        self.answer = answer
        self.down = ""
        self.asked_ns: list[int] = []
        self.now_ns = 100 * S
        self.source: JobSource = KubernetesJobs(
            tree, self, PodLabels(), own_group=own_group, clock=lambda: self.now_ns, fit=fit
        )

    def pods(self) -> object:
        self.asked_ns.append(self.now_ns)
        if self.down:
            raise SensorUnavailable(self.down, "mend it")
        return self.answer

    def jobs(self, after_s: float = 1.0) -> dict[str, FoundJob]:
        """What is told, by the pod's uid."""
        self.now_ns += int(after_s * S)
        return {pod_uid(job.group.path): job for job in self.source.jobs()}

    def told(self, after_s: float = 1.0) -> dict[str, FoundJob] | str:
        """The same, or why nothing is."""
        try:
            return self.jobs(after_s)
        except SensorUnavailable as error:
            return error.cause


def path(uid: str) -> str:
    return f"/kubepods/burstable/pod{uid}"


def pod(uid: str, name: str = "", **more: Any) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "namespace": "n", "name": name or uid, **more}}


@pytest.mark.parametrize("driver", ["systemd", "cgroupfs"])
def test_each_pod_is_a_cgroup_of_its_owners_job(driver: str) -> None:
    tree = ListedTree(f"kubepods_{driver}.txt")
    node = Node(tree, own_group=tree.group_of(4006))
    jobs = node.jobs()
    assert {uid[:8]: job.job_id for uid, job in jobs.items()} == {
        "0f0e2c34": "serving/vllm",
        "1b0fd0c2": "nlp/finetune-8",
        "5f3b8d0a": "nightly-evaluation",
        "c1d5a9e7": "serving/qdrant",
        "e4b6a1c9": "kube-system/cilium",
        "9e107d9d": "default/debug",
        "3a7f5c10": "nlp/bert-ddp",
        "6d1c2b3a": "data/etl",
        "a8b7c6d5": "nlp/sweep",
        "b5b2b6a0": "kube-system/kube-apiserver-gpu-node-3",
    }
    assert AGENT not in jobs, "the agent's own pod is no job"
    assert [job.job_id for job in jobs.values()].count("serving/vllm") == 2
    assert len(node.asked_ns) == 1
    vllm = jobs[VLLM]
    assert vllm == FoundJob(
        job_id="serving/vllm",
        group=vllm.group,
        origin="kubernetes",
        uid=1000,
        product_id="llama-3-8b",
        uses=("k8s-prod", "vector-store"),
        labels={
            "app": "vllm",
            "pod-template-hash": "6c7f9d8b5d",
            "wattribute.io/product": "llama-3-8b",
            "k8s.namespace": "serving",
            "k8s.owner_kind": "Deployment",
        },
        reserved=Reservation(4000, 16 * 2**30),
        info=(
            {
                "pod_uid": VLLM,
                "pod_namespace": "serving",
                "pod_name": "vllm-6c7f9d8b5d-x2x7k",
                "container_name": "vllm",
                "owner_kind": "Deployment",
                "owner_name": "vllm",
            },
        ),
    )
    qdrant = jobs["c1d5a9e7-2b0f-4f47-9a6c-61f7b3d2a4e8"]
    assert [info["container_name"] for info in qdrant.info] == ["qdrant", "exporter"]


@pytest.mark.parametrize("hierarchy", ["v1", "v2"])
def test_in_a_tree_of_files(hierarchy: Any, tmp_path: Path) -> None:
    with FakeCgroups(tmp_path, hierarchy) as fake:
        fake.make(f"/kubepods/pod{VLLM}/{'a' * 64}")
        fake.make(f"/kubepods/burstable/pod{AGENT}/{'b' * 64}")
        fake.put(77, f"/kubepods/burstable/pod{AGENT}/{'b' * 64}")
        tree = Tree(fake.cgroup, fake.proc)
        node = Node(tree, own_group=tree.group_of(77))
        assert {uid: job.job_id for uid, job in node.jobs().items()} == {VLLM: "serving/vllm"}


def test_a_node_without_pods_asks_nobody() -> None:
    tree = ListedTree("slurm_v1.txt")
    node = Node(tree)
    assert [node.jobs() for _ in range(20)] == [{}] * 20
    assert node.asked_ns == []
    node.source.close()
    node.source.close()


def test_known_pods_are_not_asked_for_again() -> None:
    node = Node(ListedTree("kubepods_systemd.txt"))
    first = node.jobs()
    assert all(node.jobs() == first for _ in range(50))
    assert len(node.asked_ns) == 1


def test_a_new_pod_is_told_in_the_same_call_and_a_gone_one_no_more() -> None:
    tree = ListedTree()
    tree.add(path("a"))
    node = Node(tree, {"items": [pod("a"), pod("b")]})
    assert set(node.jobs()) == {"a"}
    tree.add(path("b"))
    assert set(node.jobs()) == {"a", "b"}
    tree.remove(path("a"))
    assert set(node.jobs()) == {"b"}
    before = node.jobs()["b"]
    tree.remove(path("b"))
    tree.add(path("b"))
    node.answer = {"items": [pod("b", labels={"wattribute.io/job": "renamed"})]}
    after = node.jobs()["b"]
    assert (before.job_id, after.job_id) == ("n/b", "renamed"), "one made anew is asked for anew"


def test_labels_never_change_under_a_running_job() -> None:
    tree = ListedTree()
    tree.add(path("a"))
    node = Node(tree, {"items": [pod("a", labels={"app": "x"})]})
    before = node.jobs()["a"]
    node.answer = {"items": [pod("a", labels={"app": "y"}), pod("b")]}
    tree.add(path("b"))
    assert node.jobs()["a"] is before


def test_it_asks_once_a_second_at_most_however_often_it_is_called() -> None:
    tree = ListedTree()
    node = Node(tree, {"items": [pod(f"{n}") for n in range(1000)]})
    for number in range(200):
        tree.add(path(f"{number}"))
        node.jobs(0.05)
    span_s = (node.asked_ns[-1] - node.asked_ns[0]) / S
    assert len(node.asked_ns) - 1 <= span_s + 0.1
    assert len(node.jobs(1)) == 200


def test_a_tick_that_comes_early_costs_a_pod_no_second() -> None:
    tree = ListedTree()
    node = Node(tree, {"items": [pod(f"{n}") for n in range(100)]})
    for number in range(100):
        tree.add(path(f"{number}"))
        assert len(node.jobs(0.95 if number % 2 else 1.05)) == number + 1


def test_a_pod_that_the_kubelet_does_not_know_is_told_by_its_uid_after_30_s() -> None:
    tree = ListedTree()
    tree.add(path("a"))
    tree.add(path("orphan"))
    node = Node(tree, {"items": [pod("a")]})
    assert [set(node.jobs()) for _ in range(30)] == [{"a"}] * 30
    orphan = node.jobs()["orphan"]
    assert (orphan.job_id, orphan.origin, orphan.info) == ("pod-orphan", "kubernetes", ({"pod_uid": "orphan"},))
    assert orphan.labels == {"k8s.unknown": "the kubelet didn't tell of this pod"}
    waits_s = [round((b - a) / S) for a, b in zip(node.asked_ns, node.asked_ns[1:], strict=False)]
    assert waits_s == [1, 2, 4, 8], "asked less and less often"
    node.answer = {"items": [pod("a"), pod("orphan")]}
    assert node.jobs()["orphan"] is orphan, "it has a name by now, and keeps the one it was told by"
    assert len(node.asked_ns) == 5


def test_a_failing_kubelet_is_said_and_hides_no_pod() -> None:
    tree = ListedTree()
    tree.add(path("a"))
    node = Node(tree, {"items": [pod("a"), pod("b")]})
    node.jobs()
    node.down = "no answer"
    assert set(node.jobs()) == {"a"}, "nobody needs it"
    tree.add(path("b"))
    tree.add(path("c"))
    for _ in range(5):
        assert node.told() == "no answer"
    tree.add(path("d"))
    tree.remove(path("c"))
    assert node.told() == "no answer"
    tree.remove(path("a"))
    assert node.told() == {}, "there is news"
    assert node.told() == "no answer"
    jobs = node.jobs(25)
    assert {uid: job.job_id for uid, job in jobs.items()} == {"b": "pod-b"}
    jobs = node.jobs(30)
    assert {uid: job.job_id for uid, job in jobs.items()} == {"b": "pod-b", "d": "pod-d"}
    assert node.told() == jobs, "nobody waits any more"


def test_a_kubelet_that_comes_back_names_what_was_held() -> None:
    tree = ListedTree()
    tree.add(path("a"))
    node = Node(tree, {"items": [pod("a")]})
    node.down = "refused"
    assert [node.told() for _ in range(6)] == ["refused"] * 6
    node.down = ""
    waited_s = next(n for n in range(30) if node.told() != "refused")
    assert waited_s <= 8
    assert node.jobs()["a"].job_id == "n/a"


@pytest.mark.parametrize(
    ("metadata", "job_id"),
    [
        ({"labels": {"wattribute.io/job": "j"}}, "j"),
        ({"annotations": {"wattribute.io/job": "team/j"}}, "team/j"),
        ({"ownerReferences": [{"kind": "StatefulSet", "name": "db", "controller": True}]}, "n/db"),
        ({"ownerReferences": [{"kind": "RayCluster", "name": "ray", "controller": True}]}, "n/ray"),
        ({}, "n/a"),
    ],
)
def test_ids(metadata: dict[str, Any], job_id: str) -> None:
    tree = ListedTree()
    tree.add(path("a"))
    assert Node(tree, {"items": [pod("a", **metadata)]}).jobs()["a"].job_id == job_id


def test_long_and_odd_ids_are_fitted_and_stay_apart() -> None:
    tree = ListedTree()
    names = {"a": "x" * 250 + "a", "b": "x" * 250 + "b", "c": "_c\n"}
    for uid in names:
        tree.add(path(uid))
    answer = {"items": [pod(uid, name) for uid, name in names.items()]}
    answer["items"][2]["metadata"]["labels"] = {"wattribute.io/job": "_retired", "wattribute.io/product": "_x"}
    jobs = Node(tree, answer).jobs()
    ids = [job.job_id for job in jobs.values()]
    assert len(set(ids)) == 3
    assert [problem(one) for one in (*ids, jobs["c"].product_id)] == [None] * 4


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a", "Always"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def loose(keys: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """An object that has some of the keys, each of the shape that is looked for or of any other."""
    return st.fixed_dictionaries({}, optional={key: value | JSON for key, value in keys.items()})


TEXT = st.sampled_from(
    ["a", "b", "_", "x-1", "1", "-", "\udcff", "\n", "x" * 300, "1Gi", "1e999", "ReplicaSet", "Node"]
)
TEXTS = st.dictionaries(
    st.sampled_from(["wattribute.io/job", "wattribute.io/uses", "pod-template-hash", "cpu", "memory"]), TEXT | JSON
)
RESOURCES = loose({"requests": TEXTS})
CONTAINER = loose({"name": TEXT, "resources": RESOURCES, "restartPolicy": TEXT, "securityContext": TEXTS})
ITEM = loose(
    {
        "metadata": loose(
            {
                "uid": st.sampled_from(["a", "b"]),
                "namespace": TEXT,
                "name": TEXT,
                "labels": TEXTS,
                "annotations": TEXTS | st.fixed_dictionaries({"kubernetes.io/config.mirror": TEXT | JSON}),
                "ownerReferences": st.lists(loose({"kind": TEXT, "name": TEXT, "controller": st.booleans()})),
            }
        ),
        "spec": loose(
            {
                "containers": st.lists(CONTAINER, max_size=3),
                "initContainers": st.lists(CONTAINER, max_size=3),
                "overhead": TEXTS,
                "resources": RESOURCES,
                "securityContext": loose({"runAsUser": st.integers()}),
            }
        ),
    }
)


@settings(max_examples=300)
@given(st.lists(loose({"items": st.lists(ITEM, max_size=4)}) | JSON, min_size=1, max_size=3))
def test_whatever_it_answers_pods_are_told_or_it_is_unavailable(answers: list[object]) -> None:
    tree = ListedTree()
    tree.add(path("a"))
    tree.add(path("b"))
    node = Node(tree)
    told: dict[str, FoundJob] = {}
    for _, answer in zip(range(40), itertools.cycle(answers), strict=False):
        node.answer = answer
        said = node.told()
        if not isinstance(said, str):
            assert all(said[uid] is job for uid, job in told.items())
            told = said
    assert set(told) == {"a", "b"}
    for job in told.values():
        assert problem(job.job_id) is None and problem(job.product_id or "x") is None
        assert all(problem(name) is None for name in job.uses)
        texts = [*job.labels, *job.labels.values(), job.phase, *(value for one in job.info for value in one.values())]
        assert all(text.isprintable() and len(text) <= 256 for text in texts)
        assert 0 <= job.uid < 2**31


def test_a_pods_name_is_not_to_be_had_by_making_a_cgroup_of_it() -> None:
    """Whom a cgroup was delegated to owns what he makes in it; the kubelet's are root's."""
    tree = ListedTree()
    forged = f"/system.slice/bobs.service/kubepods/burstable/pod{VLLM}"
    tree.add(forged)
    tree.owners[forged] = 1000
    assert Node(tree).jobs() == {}
    tree.add(path(VLLM))
    assert [job.group.path for job in Node(tree).jobs().values()] == [path(VLLM)]
