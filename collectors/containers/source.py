"""Containers that run beside Kubernetes, each a job that is named by its labels, its name, or its id.

Where the engines put them (ID: 64 hex digits):
    Docker       /docker/ID, /system.slice/docker-ID.scope, both below another parent with --cgroup-parent
    Podman       /machine.slice/libpod-ID.scope, /libpod_parent/libpod-ID; of a Quadlet UNIT.service/libpod-payload-ID;
                 of a pod one below, in machine-libpod_pod_POD.slice or POD
    containerd   /system.slice/nerdctl-ID.scope, /NAMESPACE/ID, /default/NAME (ctr)
    rootless     the same scopes below /user.slice/user-1000.slice/user@1000.service
Containers of pods (`kubepods`) are another source's; conmon, Podman's watcher, is no container.

A user makes cgroups of any name below his own slice, so a container there has no name of the system's engines: its
job is `ENGINE-UID-` and the id's beginning.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from wattribute.agent.core.found import CgroupTree, FoundJob, GroupId
from wattribute.agent.core.rules import unit_of
from wattribute.agent.core.search import GroupSearch
from wattribute.collectors.containers.engine import NoEngine, Told, containers

SOCKETS = ("/run/docker.sock", "/run/podman/podman.sock")
PATIENCE = 5  # calls, about a second each, that an engine may take to tell of a container
TEXT_CHARS = 256
SHORT_ID = 12  # as the engines' own listings show

_ID = r"([0-9a-f]{64})"
_FORMS = (
    ("docker", re.compile(rf".*/docker-{_ID}\.scope|/docker/{_ID}")),
    ("podman", re.compile(rf".*/libpod-(?:payload-)?{_ID}(?:\.scope)?")),
    ("containerd", re.compile(rf".*/nerdctl-{_ID}\.scope|/(?!libpod_parent/)[^/]+/{_ID}|/default/([^/]+)")),
)
_USER = re.compile(r"/user\.slice/user-(\d+)\.slice/.*")
_FOLDER = re.compile(r"/[^/]+(?<!\.scope)|/[^/]+\.slice(?:/[^/]+\.(?:slice|service))+|/libpod_parent/[^/]+")
_ELSEWHERE = re.compile(r"/(?:slurm|lxc).*|.*(?:kubepods|slurmstepd).*")  # LXC's guests make cgroups as they like


class ContainerJobs:
    """Finds them. The engines are asked when a container is new; without an answer its id is all that is known.

    A label `wattribute.io/job` names the job, else the container's name does (made anew under it, it is the same
    job); `wattribute.io/product`, `/phase` and `/uses` (with commas) say what it is. `fit` makes names valid ones.
    `own_group` is the agent's own cgroup: its container is no job, its use is overhead.
    """

    name = "containers"

    def __init__(
        self,
        tree: CgroupTree,
        sockets: Sequence[str] = SOCKETS,
        *,
        fit: Callable[[str], str],
        own_group: str = "",
    ) -> None:
        self._tree = tree
        self._own_group = f"{own_group}/"
        self._sockets = tuple(sockets)
        self._fit = fit
        self._search = GroupSearch(tree, wanted=_is_container, enter=_may_hold, keep=lambda path: path.count("/") == 1)
        self._known: dict[GroupId, FoundJob] = {}
        self._tries: dict[GroupId, int] = {}
        self._groups: list[GroupId] = []
        self._jobs: list[FoundJob] = []

    def jobs(self) -> Sequence[FoundJob]:
        """Those that are there. One in a new corner (a service, a user's slice) may be told ten calls late."""
        groups = self._search.groups()
        if groups is self._groups and not self._tries:
            return self._jobs
        known = {group: self._known[group] for group in groups if group in self._known}
        new = [group for group in groups if group not in known and not self._own_group.startswith(f"{group.path}/")]
        tries: dict[GroupId, int] = {}
        told: Mapping[str, Told] = {}
        final = True
        if any(_user(group.path) is None for group in new):
            told, final = self._ask()
        for group in new:
            engine, container = _container(group.path)
            user = _user(group.path)
            one = told.get(container) if user is None else None
            # containerd has no such interface: an engine that knows it (Docker with a parent of its own) says so.
            if one is None and user is None and not final and engine != "containerd":
                tries[group] = self._tries.get(group, 0) + 1
                if tries[group] <= PATIENCE:
                    continue
            known[group] = self._told(group, engine, container, user, one)
        self._known, self._tries, self._groups = known, tries, groups
        self._jobs = list(known.values())
        return self._jobs

    def close(self) -> None:
        """Nothing is held open."""

    def _ask(self) -> tuple[dict[str, Told], bool]:
        """What all engines know, and whether there is none that may know more in a moment."""
        told: dict[str, Told] = {}
        final = True
        for path in self._sockets:
            try:
                told |= containers(path)
                final = False  # a container's cgroup is there before it counts as running
            except NoEngine:
                continue
            except (OSError, ValueError):
                final = False
        return told, final

    def _told(self, group: GroupId, engine: str, container: str, user: int | None, told: Told | None) -> FoundJob:
        labels = told.labels if told else {}
        short = container[:SHORT_ID] if len(container) == 64 else container
        unnamed = f"{engine}-{short}" if user is None else f"{engine}-{user}-{short}"
        product = labels.get("wattribute.io/product", "")
        uses = (name.strip() for name in labels.get("wattribute.io/uses", "").split(","))
        return FoundJob(
            job_id=self._fit(labels.get("wattribute.io/job", "") or (told.name if told else "") or unnamed),
            group=group,
            origin="cgroup",
            uid=user or 0,
            product_id=self._fit(product) if product else "",
            uses=tuple(dict.fromkeys(self._fit(name) for name in uses if name)),
            phase=_text(labels.get("wattribute.io/phase", "")),
            unit=unit_of(group.path),
            labels={_text(key): _text(value) for key, value in labels.items()},
            reserved=self._tree.reserved(group.path),
        )


def _container(path: str) -> tuple[str, str]:
    """Engine and id of a container by its cgroup; "" and "" where it is none."""
    for engine, form in _FORMS:
        match = form.fullmatch(path)
        if match:
            return engine, next(group for group in match.groups() if group)
    return "", ""


def _is_container(path: str) -> bool:
    return not _ELSEWHERE.fullmatch(path) and _container(path) != ("", "")


def _may_hold(path: str) -> bool:
    return not _ELSEWHERE.fullmatch(path) and _FOLDER.fullmatch(path) is not None


def _user(path: str) -> int | None:
    """Whose slice a container is in; None for the system's own, and root's."""
    match = _USER.fullmatch(path)
    return (int(match[1]) or None) if match else None


def _text(value: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in value[:TEXT_CHARS])
