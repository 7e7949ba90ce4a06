"""From NVML's processes to jobs: who used which GPU since the last read, and who holds it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from wattribute.agent.core.attribution import PPB
from wattribute.agent.core.books import Books
from wattribute.agent.core.model import EnergyReading, PowerReading, ProcessId, Root, UsageReading
from wattribute.agent.groups import Groups
from wattribute.agent.live import CpuTime
from wattribute.agent.registry import Registry

if TYPE_CHECKING:
    from wattribute.agent.allotted import AllottedGpus


class GpuProcesses:
    """Remembers each consumer's SM time, and the root it belonged to, for as long as NVML reports it."""

    def __init__(
        self,
        cpu: CpuTime,
        registry: Registry,
        groups: Groups | None = None,
        allotted: "AllottedGpus | None" = None,
    ) -> None:
        self._cpu = cpu
        self._registry = registry
        self._groups = groups
        self._allotted = allotted
        self._busy_ns: dict[tuple[str, ProcessId], int] = {}
        self._roots: dict[ProcessId, Root] = {}

    def feed(self, usage: Sequence[UsageReading], energy: Iterable[EnergyReading | PowerReading], books: Books) -> None:
        """Tell the books what one read of all GPUs said; a GPU that nobody uses is told too."""
        by_device: dict[str, list[UsageReading]] = {r.domain.id: [] for r in energy if r.domain.kind == "gpu"}
        for reading in usage:
            by_device.setdefault(reading.device, []).append(reading)
        if not by_device:
            return
        busy_before, roots_before = self._busy_ns, self._roots
        # A GPU that wasn't read this time keeps its consumers: their time since comes when it is read again.
        self._busy_ns = {key: ns for key, ns in busy_before.items() if key[0] not in by_device}
        self._roots = {}
        for device, readings in by_device.items():
            jobs_ns: dict[str, int] = {}
            shared: dict[str, int] = {}  # who holds the whole of it, beside others
            sliced: dict[str, int] = {}  # who holds a part of its own (MIG)
            other_ns = foreign = foreign_ppb = unallocated_ppb = 0
            given = [] if self._allotted is None else self._allotted.jobs(device, self._registry)
            if not any(reading.held_ppb is not None for reading in readings):
                shared = dict.fromkeys(given, 1)
            for reading in readings:
                consumer = reading.consumer
                if consumer == "unallocated":
                    unallocated_ppb = reading.held_ppb or 0
                if not isinstance(consumer, ProcessId):
                    continue
                used_ns = max(0, reading.busy_ns - busy_before.get((device, consumer), 0))
                self._busy_ns[device, consumer] = reading.busy_ns
                jobs = self._jobs_of(consumer, roots_before) or (given if len(given) == 1 else [])
                if not jobs:
                    other_ns += used_ns
                    foreign += reading.held_ppb is None
                    foreign_ppb += reading.held_ppb or 0
                    continue
                for job_id in jobs:
                    jobs_ns[job_id] = jobs_ns.get(job_id, 0) + used_ns // len(jobs)
                    if reading.held_ppb is None:
                        shared[job_id] = 1
                    elif reading.held_ppb:  # 0: it left, and its last use comes late
                        sliced[job_id] = sliced.get(job_id, 0) + reading.held_ppb // len(jobs)
            if shared or foreign:
                each_ppb = PPB // (len(shared) + bool(foreign))
                shared, foreign_ppb = dict.fromkeys(shared, each_ppb), foreign_ppb + each_ppb * bool(foreign)
            books.see_gpu(device, jobs_ns, other_ns, sliced | shared, foreign_ppb, unallocated_ppb)

    def _jobs_of(self, consumer: ProcessId, roots_before: dict[ProcessId, Root]) -> list[str]:
        """The jobs that a process works for: by its tree, else by its cgroup.

        One that is gone by now belongs to whom it belonged to when it was last seen; one that isn't in our process
        namespace (start unknown) is nobody's: its pid may be somebody else's here.
        """
        if consumer.start_ticks < 0:
            return []
        # Its tree is a look into a table; its cgroup is a look into /proc.
        for find in (self._cpu.root_of, self._owner_of, lambda _: roots_before.get(consumer)):
            root = find(consumer.pid)
            if root is not None and (jobs := self._registry.jobs_of(root)):
                self._roots[consumer] = root
                return jobs
        return []

    def _owner_of(self, pid: int) -> Root | None:
        return None if self._groups is None else self._groups.owner_of(pid)
