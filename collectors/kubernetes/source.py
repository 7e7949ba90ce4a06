"""Pods of this node, each a cgroup of a job; what they are called is the kubelet's to say.

A pod's cgroup is there before its containers run, and the kubelet knows of the pod before it makes the cgroup, so the
first answer nearly always tells. A pod that it doesn't tell of is held back for PATIENCE_NS, because a job's id and
labels never change, and then told by its uid alone; its CPU time is that of the cgroup, which counts from the start.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import CgroupTree, FoundJob, GroupId
from wattribute.agent.core.rules import unit_of
from wattribute.agent.core.search import GroupSearch
from wattribute.agent.core.units import NS_PER_S
from wattribute.collectors.kubernetes.paths import holds_pods, is_pod, may_hold_pods, pod_uid
from wattribute.collectors.kubernetes.pods import Pod, PodLabels, read_pods
from wattribute.collectors.kubernetes.shape import text

PATIENCE_NS = 30 * NS_PER_S
ASK_EVERY_NS = NS_PER_S
JITTER_NS = NS_PER_S // 10  # of the tick, which must not cost a new pod a second
FIRST_WAIT_NS = NS_PER_S  # then twice as long each time: a pod is asked for six times at most


class TellsPods(Protocol):
    """The kubelet, or what stands for it."""

    def pods(self) -> object:
        """A PodList as JSON. Raises SensorUnavailable."""
        ...


class _Held(NamedTuple):
    """A pod that nobody told of yet: since when, when to ask again, and how long to wait after that."""

    since_ns: int
    due_ns: int
    wait_ns: int = FIRST_WAIT_NS


class KubernetesJobs:
    """Finds them. The pods of one owner (Job, Deployment, StatefulSet ..) are one job, `NAMESPACE/OWNER`.

    `own_group` is the agent's own cgroup: its pod is no job, its use is overhead. `clock` is monotone (ns), `fit` makes
    an id a valid one.
    """

    name = "kubernetes"

    def __init__(
        self,
        tree: CgroupTree,
        kubelet: TellsPods,
        labels: PodLabels,
        *,
        own_group: str,
        clock: Callable[[], int],
        fit: Callable[[str], str],
    ) -> None:
        self._tree = tree
        self._kubelet = kubelet
        self._labels = labels
        self._own_group = f"{own_group}/"
        self._clock = clock
        self._fit = fit
        self._search = GroupSearch(tree, wanted=is_pod, enter=may_hold_pods, keep=holds_pods)
        self._known: dict[GroupId, FoundJob] = {}
        self._jobs: list[FoundJob] = []
        self._held: dict[GroupId, _Held] = {}
        self._next_ns = 0
        self._failure: SensorUnavailable | None = None

    def jobs(self) -> Sequence[FoundJob]:
        """Those that are there and known. Asks the kubelet, and so may block, only while a pod isn't known.

        Raises SensorUnavailable while pods wait for a kubelet that fails, unless there is news of others.
        """
        now_ns = self._clock()
        # The kubelet's cgroups are root's: somebody to whom a cgroup was delegated could make one in a pod's name.
        found = [group for group in self._search.groups() if group in self._known or self._tree.owner(group.path) == 0]
        groups = [group for group in found if not self._own_group.startswith(f"{group.path}/")]
        known = {group: self._known[group] for group in groups if group in self._known}
        held = {group: self._held.get(group) or _Held(now_ns, now_ns) for group in groups if group not in known}
        pods = self._ask(held, now_ns)
        for group, one in tuple(held.items()):
            pod = pods.get(pod_uid(group.path))
            if pod is not None:
                known[group] = self._told(group, pod)
            elif now_ns - one.since_ns >= PATIENCE_NS:
                known[group] = self._untold(group)
            else:
                continue
            del held[group]
        news = known.keys() != self._known.keys()
        self._known, self._held = known, held
        if news:
            self._jobs = list(known.values())
        if not held:
            self._failure = None
        if self._failure is not None and not news:
            raise SensorUnavailable(self._failure.cause, self._failure.fix)
        return self._jobs

    def close(self) -> None:
        """Nothing is held open."""

    def _ask(self, held: dict[GroupId, _Held], now_ns: int) -> dict[str, Pod]:
        """What the kubelet says of those held back, if one of them is due and it wasn't asked within a second."""
        due = [group for group, one in held.items() if now_ns >= one.due_ns]
        if not due or now_ns < self._next_ns:
            return {}
        self._next_ns = max(self._next_ns, now_ns - JITTER_NS) + ASK_EVERY_NS
        for group in due:
            one = held[group]
            held[group] = _Held(one.since_ns, now_ns + one.wait_ns - JITTER_NS, 2 * one.wait_ns)
        try:
            pods = read_pods(self._kubelet.pods(), {pod_uid(group.path) for group in held}, self._labels)
        except SensorUnavailable as error:
            self._failure = error
            return {}
        self._failure = None
        return pods

    def _told(self, group: GroupId, pod: Pod) -> FoundJob:
        labels = {**pod.labels, "k8s.namespace": pod.namespace}
        if pod.owner_kind:
            labels["k8s.owner_kind"] = pod.owner_kind
        uses = (name.strip() for name in pod.uses.split(","))
        return FoundJob(
            job_id=self._fit(pod.job or f"{pod.namespace}/{pod.owner_name or pod.name}"),
            group=group,
            origin="kubernetes",
            uid=pod.run_as_user,
            product_id=self._fit(pod.product) if pod.product else "",
            uses=tuple(dict.fromkeys(self._fit(name) for name in uses if name)),
            phase=pod.phase[:256],
            unit=unit_of(group.path),
            labels=labels,
            reserved=pod.reserved,
            info=tuple(_info(pod, container) for container in pod.containers or ("",)),
        )

    def _untold(self, group: GroupId) -> FoundJob:
        uid = pod_uid(group.path)
        return FoundJob(
            job_id=self._fit(f"pod-{uid}"),
            group=group,
            origin="kubernetes",
            unit=unit_of(group.path),
            labels={"k8s.unknown": "the kubelet didn't tell of this pod"},
            info=({"pod_uid": text(uid)},),
        )


def _info(pod: Pod, container: str) -> dict[str, str]:
    return {
        "pod_uid": pod.uid,
        "pod_namespace": pod.namespace,
        "pod_name": pod.name,
        "container_name": container,
        "owner_kind": pod.owner_kind,
        "owner_name": pod.owner_name,
    }
