"""Where a kubelet puts its pods in the cgroup tree, by either of its two drivers.

cgroupfs    /kubepods/podUID (Guaranteed), /kubepods/burstable/podUID, /kubepods/besteffort/podUID
systemd     /kubepods.slice/kubepods-podU_I_D.slice, /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod..
Both may lie below `--cgroup-root` (kind: /kubelet/kubepods, /kubelet.slice/kubelet-kubepods.slice) or below the service
that the kubelet runs in (/system.slice/k3s.service/kubepods). A static pod's UID is the hash of its manifest.
Source: pkg/kubelet/cm (pod_container_manager_linux.go, cgroup_manager_linux.go) of Kubernetes; systemd.slice(5).

Users' slices, containers and virtual machines aren't looked into: who owns such a cgroup can make any name in it.
"""

import re

_UID = r"([0-9A-Za-z_-]{1,64})"
_ABOVE = (
    r"(?!/(?:user\.slice|machine\.slice|docker|libpod_parent|lxc[^/]*|slurm[^/]*)(?:/|$))"
    r"(?:/(?!kubepods(?:/|\.slice))[^/]+(?<!\.scope)){0,3}"
)
_PLAIN = r"/kubepods(?:/(?:burstable|besteffort))?"
# A slice's name repeats those above it.
_SLICES = r"/(?P<top>(?:[^/]+-)?kubepods)\.slice(?:/(?P<qos>(?P=top)-(?:burstable|besteffort))\.slice)?"
_HOLDS_PODS = re.compile(rf"{_ABOVE}(?:{_PLAIN}|{_SLICES})")
_MAY_HOLD = re.compile(rf"{_ABOVE}")
_POD = re.compile(rf"{_ABOVE}{_PLAIN}/pod{_UID}")
_POD_SLICE = re.compile(rf"{_ABOVE}{_SLICES}/(?:(?P=qos)|(?P=top))-pod(?P<uid>{_UID})\.slice")


def pod_uid(path: str) -> str:
    """The UID in a pod's cgroup path, as the kubelet tells it; "" for any other cgroup."""
    if match := _POD.fullmatch(path):
        return match[1]
    if match := _POD_SLICE.fullmatch(path):
        return match["uid"].replace("_", "-")
    return ""


def is_pod(path: str) -> bool:
    """Whether this is a pod's cgroup, and not one of its containers'."""
    return pod_uid(path) != ""


def holds_pods(path: str) -> bool:
    """Whether pods are made right below this cgroup."""
    return _HOLDS_PODS.fullmatch(path) is not None


def may_hold_pods(path: str) -> bool:
    """Whether pods may lie anywhere below this cgroup."""
    return holds_pods(path) or _MAY_HOLD.fullmatch(path) is not None
