"""From NVML's processes to jobs: who used which GPU since the last read, and who holds it."""

from collections.abc import Iterable, Sequence

from wattribute.agent.core.books import Books
from wattribute.agent.core.model import EnergyReading, PowerReading, ProcessId, UsageReading
from wattribute.agent.registry import CpuTime, Registry


class GpuProcesses:
    """Remembers each consumer's SM time, and the root it belonged to, for as long as NVML reports it."""

    def __init__(self, cpu: CpuTime, registry: Registry) -> None:
        self._cpu = cpu
        self._registry = registry
        self._busy_ns: dict[tuple[str, ProcessId], int] = {}
        self._roots: dict[ProcessId, ProcessId] = {}

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
            holders: list[str] = []
            other_ns = foreign = 0
            for reading in readings:
                consumer = reading.consumer
                if not isinstance(consumer, ProcessId):
                    continue
                used_ns = max(0, reading.busy_ns - busy_before.get((device, consumer), 0))
                self._busy_ns[device, consumer] = reading.busy_ns
                # A process that is gone by now belongs to whom it belonged to when it was last seen; one that isn't
                # in our process namespace (start unknown) is nobody's: its pid may be somebody else's here.
                known = consumer.start_ticks >= 0
                root = (self._cpu.root_of(consumer.pid) or roots_before.get(consumer)) if known else None
                jobs = self._registry.jobs_of(root) if root is not None else []
                if root is not None:
                    self._roots[consumer] = root
                if not jobs:
                    other_ns += used_ns
                    foreign += 1
                    continue
                holders += jobs
                for job_id in jobs:
                    jobs_ns[job_id] = jobs_ns.get(job_id, 0) + used_ns // len(jobs)
            books.see_gpu(device, jobs_ns, other_ns, holders, foreign)
