"""GPUs that a scheduler gave to jobs, by the files that its prolog writes for dcgm-exporter (collectors/gpu_map).

A job there holds its GPU, whether it has made a context yet or not; and what nobody can be found for on a GPU that was
given to one job alone is that job's.
"""

from collections.abc import Callable, Mapping, Sequence

from wattribute.agent.core.model import Clock, SourceHealth
from wattribute.agent.registry import Registry
from wattribute.agent.sources import Source
from wattribute.collectors.gpu_map import GpuMap

DEADLINE_NS = 5_000_000_000


class _Lines:
    """The map as a source reads it: a line per GPU."""

    name = "gpu-map"

    def __init__(self, files: GpuMap) -> None:
        self._files = files

    def read(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        return list(self._files.read().items())

    def close(self) -> None:
        self._files.close()


class AllottedGpus:
    """Which jobs a GPU was given to. `indices` gives each GPU's UUID by the index that NVML knows it by."""

    def __init__(
        self, files: GpuMap, indices: Callable[[], Mapping[int, str]], clock: Clock, *, threaded: bool = True
    ) -> None:
        self._source = Source(_Lines(files), clock, deadline_ns=DEADLINE_NS, threaded=threaded)
        self._indices = indices
        self._by_device: dict[str, tuple[str, ...]] = {}

    def request(self) -> None:
        """Ask for the files as they are now."""
        self._source.request()

    def collect(self, patience_ns: int) -> None:
        """Take them in; unreadable ones say what they said last."""
        lines = self._source.collect(patience_ns)
        if not self._source.answered_well:
            return
        uuids = self._indices()
        by_device: dict[str, tuple[str, ...]] = {}
        for name, job_ids in lines:
            device = uuids.get(int(name.partition(".")[0]))  # `2.0` is a part of GPU 2
            if device is not None:
                by_device[device] = tuple(dict.fromkeys((*by_device.get(device, ()), *job_ids)))
        self._by_device = by_device

    def jobs(self, device: str, registry: Registry) -> list[str]:
        """The running jobs that a GPU was given to: by their ids, or by Slurm's numbers."""
        wanted = self._by_device.get(device, ())
        if not wanted:
            return []
        of_slurm = {
            row["slurm_job_id"]: job_id
            for job_id, live in registry.jobs.items()
            if live.running
            for found in live.found.values()
            if found.origin == "slurm"  # a session's own word for it could be anybody's
            for row in found.info
        }
        named = [name if name in registry.jobs else of_slurm.get(name, "") for name in wanted]
        return [job_id for job_id in dict.fromkeys(named) if job_id and registry.jobs[job_id].running]

    def health(self) -> SourceHealth:
        """Whether the files can be read."""
        return self._source.health()

    def close(self) -> None:
        """Give the folder back."""
        self._source.close()
