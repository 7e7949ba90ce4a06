"""What `doctor` says of Kubernetes."""

import os
from pathlib import Path

from tests.collectors.kubernetes.server import Server
from tests.doubles.listed_tree import FIXTURES, ListedTree

from wattribute.agent.core.model import Finding
from wattribute.collectors.kubernetes import Kubelet, findings

PODS = ListedTree("kubepods_systemd.txt")


def kubelet(server: Server, token: Path) -> Kubelet:
    return Kubelet(server.url(), token_file=str(token), uid=os.getuid())


def test_a_node_without_pods_asks_nobody(server: Server, token: Path) -> None:
    assert findings(ListedTree("slurm_v1.txt"), kubelet(server, token)) == [
        Finding(source="kubernetes", path="", ok=False, why="no pods here")
    ]
    assert server.asked == []


def test_pods_that_the_kubelet_tells(server: Server, token: Path) -> None:
    server.answer = (FIXTURES / "kubelet" / "pods.json").read_bytes()
    assert findings(PODS, kubelet(server, token)) == [
        Finding(
            source="kubernetes",
            path=server.url(),
            ok=True,
            why="told by the kubelet",
            value="cgroups of pods: 12, known: 12",
        )
    ]


def test_a_kubelet_that_refuses_has_a_fix(server: Server, token: Path) -> None:
    server.status, server.answer = 403, b"Forbidden (user=system:serviceaccount:a:b, verb=get, resource=nodes)"
    (found,) = findings(PODS, kubelet(server, token))
    assert not found.ok and "cgroups of pods: 12, which are told by their uids alone" in found.why
    assert "--serviceaccount=a:b" in found.fix


def test_another_nodes_kubelet_is_no_use(server: Server, token: Path) -> None:
    (found,) = findings(PODS, kubelet(server, token))
    assert not found.ok and "knows none of them" in found.why
    assert found.fix == "set kubernetes.kubelet to this node's kubelet"
