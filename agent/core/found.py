"""Jobs that nobody registers: what a source found them by, and what it knows about them.

A found job is one cgroup or several with the same job id. A cgroup is known by its path and its directory's inode: one
made anew under the same path is another. Paths are those below the top of the cgroup tree and start with `/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from wattribute.agent.core.model import GroupId as GroupId
from wattribute.agent.core.model import Origin, Role


class Reservation(NamedTuple):
    """What was set aside for a job: thousandths of a CPU, bytes of memory; None: nothing, it claims what it uses."""

    cpus_milli: int | None = None
    memory_bytes: int | None = None
    exclusive: bool = False


NOTHING_RESERVED = Reservation()


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """One cgroup of a job. Where several have the same `job_id` they are one job, which ends with the last.

    `product_id` and `phase` are "" where the source doesn't know them (then the rules, then the defaults decide).
    `unit` is the systemd unit. `info` is what joins the job to other exporters' series: label -> value, all of one
    origin (contract, section 5: wattribute_job_slurm_info, wattribute_job_kubernetes_info), one mapping per series.
    """

    job_id: str
    group: GroupId
    origin: Origin
    uid: int = 0
    product_id: str = ""
    uses: tuple[str, ...] = ()
    role: Role = "use"
    phase: str = ""
    nodes: int = 1
    unit: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    reserved: Reservation = NOTHING_RESERVED
    info: tuple[Mapping[str, str], ...] = ()


class CgroupTree(Protocol):
    """The cgroup tree that counts CPU time (v2, v1 cpuacct, or both in a hybrid), read-only. Nothing here raises
    OSError: a cgroup that isn't there (any more) is empty.
    """

    def children(self, path: str) -> Sequence[GroupId]:
        """The cgroups right below one (`/` is the top). Raises SensorUnavailable where they can't be listed."""
        ...

    def owner(self, path: str) -> int:
        """The uid that a cgroup's folder belongs to: of one that was delegated, its user's; -1 where it is gone."""
        ...

    def links(self, path: str) -> int:
        """How many cgroups are right below one, cheaply; -1 where that isn't known."""
        ...

    def pids(self, path: str, most: int) -> Sequence[int]:
        """Up to `most` processes of a cgroup and of those below it."""
        ...

    def reserved(self, path: str) -> Reservation:
        """What cpuset, CPU quota and memory limit set aside, where they are less than the node."""
        ...

    def group_of(self, pid: int) -> str:
        """The path of a process's cgroup; "" where it isn't there."""
        ...


class JobSource(Protocol):
    """Finds jobs of one kind. `jobs` is called about once a second, in a thread of its own, and tells all that are
    there; it raises SensorUnavailable where it can't look (it will be called again). `close` may be called twice.
    """

    @property
    def name(self) -> str: ...
    def jobs(self) -> Sequence[FoundJob]: ...
    def close(self) -> None: ...


JobEnvironment = Callable[[int], Mapping[str, str]]
"""The environment that a process was started with (/proc/PID/environ); {} where it can't be read."""
