"""From recorded answers of a kubelet to pods."""

import copy
import json
from typing import Any

import pytest
from tests.doubles.listed_tree import FIXTURES

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import NOTHING_RESERVED, Reservation
from wattribute.collectors.kubernetes.pods import LABELS, Pod, PodLabels, read_pods

GIB = 2**30
STATIC = "b5b2b6a0f4b9e3c1d7a8e6f5c4d3b2a1"


def recorded(name: str = "pods") -> Any:
    return json.loads((FIXTURES / "kubelet" / f"{name}.json").read_text())


def read(answer: Any) -> dict[str, Pod]:
    wanted = {item["metadata"]["uid"] for item in answer["items"]} | {STATIC}
    return {pod.name: pod for pod in read_pods(answer, wanted, PodLabels()).values()}


def one(**metadata: object) -> dict[str, Any]:
    return {"items": [{"metadata": {"uid": "u", "namespace": "n", "name": "p", **metadata}, "spec": {}}]}


def test_owners_requests_and_containers() -> None:
    pods = read(recorded())
    assert {pod.name: (pod.owner_kind, pod.owner_name, pod.containers, pod.reserved) for pod in pods.values()} == {
        "vllm-6c7f9d8b5d-x2x7k": ("Deployment", "vllm", ("vllm",), Reservation(4000, 16 * GIB)),
        "vllm-6c7f9d8b5d-q9wlm": ("Deployment", "vllm", ("vllm",), Reservation(4000, 16 * GIB)),
        "finetune-8-hk2pv": ("Job", "finetune-8", ("trainer",), Reservation(3500, 24 * GIB)),
        "evaluate-29540160-m8z5t": ("Job", "evaluate-29540160", ("evaluate",), NOTHING_RESERVED),
        "qdrant-0": ("StatefulSet", "qdrant", ("qdrant", "exporter"), Reservation(600, 10**9 + 64 * 2**20)),
        "cilium-7l4jx": ("DaemonSet", "cilium", ("cilium-agent",), Reservation(100, 10 * 2**20)),
        "wattribute-agent-5tqzd": ("DaemonSet", "wattribute-agent", ("agent",), Reservation(50, 64 * 2**20)),
        "debug": ("", "", ("shell",), NOTHING_RESERVED),
        "bert-ddp-worker-0": ("PyTorchJob", "bert-ddp", ("pytorch",), Reservation(8000, 128 * GIB)),
        "etl-7d5c9c66f9-b2k4n": ("Deployment", "etl", ("etl", "proxy"), Reservation(1950, 2424 * 2**20)),
        "sweep-2kq7z": ("Job", "sweep", ("tune", "logs"), Reservation(6000, 12 * GIB)),
        "kube-apiserver-gpu-node-3": ("", "", ("kube-apiserver",), Reservation(250, None)),
    }


def test_what_labels_and_annotations_say() -> None:
    pods = read(recorded())
    vllm = pods["vllm-6c7f9d8b5d-x2x7k"]
    assert (vllm.namespace, vllm.product, vllm.uses) == ("serving", "llama-3-8b", "k8s-prod, vector-store")
    assert (vllm.run_as_user, vllm.labels["app"]) == (1000, "vllm")
    assert pods["evaluate-29540160-m8z5t"].job == "nightly-evaluation"
    assert pods["finetune-8-hk2pv"].phase == "training"
    (pod,) = read(one(labels={"j": "of-label"}, annotations={"j": "x", "p": "a/b"})).values()
    assert pod.job == ""
    (pod,) = read_pods(
        one(labels={"j": "of-label"}, annotations={"j": "x", "p": "a/b"}), {"u"}, PodLabels("j", "p")
    ).values()
    assert (pod.job, pod.product) == ("of-label", "a/b")


def test_a_static_pod_is_found_by_its_hash_and_by_its_mirror() -> None:
    by_hash = read_pods(recorded(), {STATIC}, PodLabels())[STATIC]
    mirror = read_pods(recorded("mirror"), {STATIC}, PodLabels())[STATIC]
    assert mirror == by_hash
    assert (mirror.owner_kind, mirror.name) == ("", "kube-apiserver-gpu-node-3")


def test_an_annotation_never_takes_another_pods_place() -> None:
    answer = recorded()
    victim = answer["items"][0]["metadata"]["uid"]
    for place in (0, len(answer["items"])):
        forged = copy.deepcopy(answer["items"][7])
        forged["metadata"]["uid"] = "forged"
        forged["metadata"]["annotations"]["kubernetes.io/config.mirror"] = victim
        told = {"items": [*answer["items"][:place], forged, *answer["items"][place:]]}
        assert read_pods(told, {victim}, PodLabels())[victim].name == "vllm-6c7f9d8b5d-x2x7k"


@pytest.mark.parametrize(
    ("owners", "labels", "expected"),
    [
        ([{"kind": "ReplicaSet", "name": "web-5f", "controller": True}], {"pod-template-hash": "5f"}, "Deployment web"),
        ([{"kind": "ReplicaSet", "name": "web-5f", "controller": True}], {}, "ReplicaSet web-5f"),
        ([{"kind": "ReplicaSet", "name": "-5f", "controller": True}], {"pod-template-hash": "5f"}, "ReplicaSet -5f"),
        ([{"kind": "Job", "name": "a-5f", "controller": True}], {"pod-template-hash": "5f"}, "Job a-5f"),
        ([{"kind": "ConfigMap", "name": "c"}, {"kind": "Job", "name": "j", "controller": True}], {}, "Job j"),
        ([{"kind": "ConfigMap", "name": "c", "controller": "true"}], {}, " "),
        ([{"kind": "Node", "name": "n", "controller": True}], {}, " "),
        ([{"kind": "Job", "controller": True}], {}, " "),
    ],
)
def test_who_controls_a_pod(owners: list[object], labels: dict[str, str], expected: str) -> None:
    (pod,) = read(one(ownerReferences=owners, labels=labels)).values()
    assert f"{pod.owner_kind} {pod.owner_name}" == expected


@pytest.mark.parametrize(
    ("spec", "uid"),
    [
        ({}, 0),
        ({"securityContext": {"runAsUser": 1000}}, 1000),
        ({"securityContext": {"runAsUser": 1000}, "containers": [{}, {}]}, 1000),
        ({"containers": [{"securityContext": {"runAsUser": 7}}]}, 7),
        ({"containers": [{"securityContext": {"runAsUser": 7}}, {}]}, 0),
        ({"securityContext": {"runAsUser": 1}, "containers": [{"securityContext": {"runAsUser": 7}}]}, 7),
        ({"securityContext": {"runAsUser": 1000}, "hostUsers": False}, 0),
        ({"securityContext": {"runAsUser": True}}, 0),
        ({"securityContext": {"runAsUser": -1}}, 0),
        ({"securityContext": {"runAsUser": 2**31}}, 0),
        ({"securityContext": {"runAsUser": "1000"}}, 0),
    ],
)
def test_whose_a_pod_is(spec: dict[str, object], uid: int) -> None:
    answer = one()
    answer["items"][0]["spec"] = spec
    assert read(answer)["p"].run_as_user == uid


def test_labels_are_bounded() -> None:
    labels = {f"k{n}\n": "v" * 1000 for n in range(100)}
    (pod,) = read(one(labels=labels)).values()
    assert len(pod.labels) == LABELS
    assert pod.labels["k0?"] == "v" * 256


@pytest.mark.parametrize("items", [None, []])
def test_no_pods_are_none(items: object) -> None:
    assert read_pods({"items": items}, {"u"}, PodLabels()) == {}


@pytest.mark.parametrize("answer", [None, [], "", 1, {}, {"items": {}}, {"items": ""}, {"kind": "Status"}])
def test_what_is_no_list_of_pods(answer: object) -> None:
    with pytest.raises(SensorUnavailable, match="PodList"):
        read_pods(answer, {"u"}, PodLabels())
