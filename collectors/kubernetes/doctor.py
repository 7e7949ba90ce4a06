"""What `doctor` says of Kubernetes: whether pods run here, whether the kubelet tells of them, and what mends it."""

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import CgroupTree
from wattribute.agent.core.model import Finding
from wattribute.agent.core.search import GroupSearch
from wattribute.collectors.kubernetes.kubelet import Kubelet
from wattribute.collectors.kubernetes.paths import holds_pods, is_pod, may_hold_pods, pod_uid
from wattribute.collectors.kubernetes.pods import PodLabels, read_pods

_SOURCE = "kubernetes"


def findings(tree: CgroupTree, kubelet: Kubelet) -> list[Finding]:
    """One Finding. The kubelet is asked only where there are pods. Raises nothing."""
    groups = GroupSearch(tree, wanted=is_pod, enter=may_hold_pods, keep=holds_pods).groups()
    uids = {pod_uid(group.path) for group in groups}
    if not uids:
        return [Finding(source=_SOURCE, path="", ok=False, why="no pods here")]
    seen = f"cgroups of pods: {len(uids)}"
    try:
        told = read_pods(kubelet.pods(), uids, PodLabels())
    except SensorUnavailable as error:
        why = f"{error.cause}; {seen}, which are told by their uids alone"
        return [Finding(source=_SOURCE, path=kubelet.url, ok=False, why=why, fix=error.fix)]
    if not told:
        return [
            Finding(
                source=_SOURCE,
                path=kubelet.url,
                ok=False,
                why=f"{seen}, and the kubelet that answers knows none of them",
                fix="set kubernetes.kubelet to this node's kubelet",
            )
        ]
    return [
        Finding(
            source=_SOURCE, path=kubelet.url, ok=True, why="told by the kubelet", value=f"{seen}, known: {len(told)}"
        )
    ]
