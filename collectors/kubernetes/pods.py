"""From the kubelet's PodList to what a job is made of: pure, and safe with any JSON.

Source: the Kubernetes API reference (Pod v1 core, OwnerReference v1 meta).
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import Reservation
from wattribute.collectors.kubernetes.reserved import reservation
from wattribute.collectors.kubernetes.shape import items, mapping, text

LABELS = 64  # of one pod that are kept

# The uid under which the kubelet runs a static pod, in its mirror in the API.
_MIRRORS = "kubernetes.io/config.mirror"
_UID_MAX = 2**31 - 1  # the API's own limit


class PodLabels(NamedTuple):
    """Which of a pod's labels says what it is; where there is no such label, an annotation of that name does.

    `uses` is a list with commas, which an annotation alone can hold.
    """

    job: str = "wattribute.io/job"
    product: str = "wattribute.io/product"
    uses: str = "wattribute.io/uses"
    phase: str = "wattribute.io/phase"


class Pod(NamedTuple):
    """One pod. `owner_kind` and `owner_name` are "" for a bare or static one; `uid` is the kubelet's.

    `job`, `product`, `uses` and `phase` are what its labels or annotations say ("": nothing). `containers` are those
    that stay: init containers that end before the others start aren't among them.
    """

    uid: str
    namespace: str
    name: str
    owner_kind: str
    owner_name: str
    labels: Mapping[str, str]
    job: str
    product: str
    uses: str
    phase: str
    containers: tuple[str, ...]
    run_as_user: int
    reserved: Reservation


def read_pods(answer: object, wanted: Collection[str], says: PodLabels) -> dict[str, Pod]:
    """Those pods of a PodList whose uids are wanted. Raises SensorUnavailable where it is no PodList."""
    listed = mapping(answer).get("items", "")
    if not isinstance(listed, list | None):  # none at all is null
        raise SensorUnavailable("the kubelet's answer isn't a PodList", "point kubernetes.kubelet at a kubelet")
    pods: dict[str, Pod] = {}
    mirrors: dict[str, Pod] = {}
    for item in listed or ():
        metadata = mapping(mapping(item).get("metadata"))
        uid = metadata.get("uid")
        if isinstance(uid, str) and uid in wanted:
            pods[uid] = _read(uid, metadata, mapping(mapping(item).get("spec")), says)
        mirrored = mapping(metadata.get("annotations")).get(_MIRRORS)
        if isinstance(mirrored, str) and mirrored in wanted:
            mirrors[mirrored] = _read(mirrored, metadata, mapping(mapping(item).get("spec")), says)
    return mirrors | pods  # a uid of its own counts: anybody may write an annotation


def _read(uid: str, metadata: Mapping[str, object], spec: Mapping[str, object], says: PodLabels) -> Pod:
    labels, annotations = mapping(metadata.get("labels")), mapping(metadata.get("annotations"))
    job, product, uses, phase = (text(labels.get(key)) or text(annotations.get(key), 4096) for key in says)
    kind, owner = _owner(metadata, text(labels.get("pod-template-hash")))
    return Pod(
        uid=text(uid),
        namespace=text(metadata.get("namespace")),
        name=text(metadata.get("name")),
        owner_kind=kind,
        owner_name=owner,
        labels={text(key): text(value) for key, value in list(labels.items())[:LABELS]},
        job=job,
        product=product,
        uses=uses,
        phase=phase,
        containers=_containers(spec),
        run_as_user=_run_as_user(spec),
        reserved=reservation(spec),
    )


def _owner(metadata: Mapping[str, object], template_hash: str) -> tuple[str, str]:
    """What controls a pod: kind and name. A ReplicaSet that a Deployment made stands for the Deployment."""
    owners = [mapping(owner) for owner in items(metadata.get("ownerReferences"))]
    owner = next((owner for owner in owners if owner.get("controller") is True), {})
    kind, name = text(owner.get("kind")), text(owner.get("name"))
    if not kind or not name or kind == "Node":  # of a static pod's mirror
        return "", ""
    suffix = f"-{template_hash}"
    if kind == "ReplicaSet" and template_hash and name.endswith(suffix) and name != suffix:
        return "Deployment", name.removesuffix(suffix)
    return kind, name


def _containers(spec: Mapping[str, object]) -> tuple[str, ...]:
    lasting = [mapping(one) for one in items(spec.get("containers"))]
    lasting += [one for one in map(mapping, items(spec.get("initContainers"))) if one.get("restartPolicy") == "Always"]
    return tuple(dict.fromkeys(name for one in lasting if (name := text(one.get("name")))))


def _run_as_user(spec: Mapping[str, object]) -> int:
    """The uid that all containers run as, where the pod says so and it is the node's; else 0."""
    if spec.get("hostUsers") is False:
        return 0  # a uid in the pod's own user namespace
    of_pod = mapping(spec.get("securityContext")).get("runAsUser")
    contexts = [mapping(mapping(one).get("securityContext")) for one in items(spec.get("containers"))]
    uids = [context.get("runAsUser", of_pod) for context in contexts] or [of_pod]
    uid = uids[0]
    same = isinstance(uid, int) and not isinstance(uid, bool) and all(one == uid for one in uids)
    return uid if same and isinstance(uid, int) and 0 <= uid <= _UID_MAX else 0
