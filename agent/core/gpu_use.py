"""What happened on each GPU since its energy was last read: SM time by job, and who held which part of it.

Times in nanoseconds, parts in ppb of one GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from wattribute.agent.core.attribution import PPB, Demand
from wattribute.agent.core.claims import Entry
from wattribute.agent.core.model import SM_NS_SLOT, Interval


@dataclass(slots=True)
class GpuUse:
    """One GPU's use since its energy was last read: SM time by job, and who held which part of it (ppb)."""

    jobs_ns: dict[str, int] = field(default_factory=dict)
    other_ns: int = 0
    held_ppb: dict[str, int] = field(default_factory=dict)
    foreign_ppb: int = 0
    unallocated_ppb: int = 0

    @property
    def any(self) -> bool:
        """Whether anything used or held it."""
        return bool(self.held_ppb or self.foreign_ppb or self.jobs_ns or self.other_ns)


class GpuUses:
    """All GPUs of a node."""

    def __init__(self) -> None:
        self._seen: dict[str, GpuUse] = {}
        self._holders: dict[str, GpuUse] = {}

    def see(
        self,
        device: str,
        jobs_ns: Mapping[str, int],
        other_ns: int,
        held_ppb: Mapping[str, int],
        foreign_ppb: int,
        unallocated_ppb: int,
    ) -> None:
        """What one read of a GPU's processes told; see Books.see_gpu."""
        seen = self._seen.setdefault(device, GpuUse())
        for job_id, busy_ns in jobs_ns.items():
            seen.jobs_ns[job_id] = seen.jobs_ns.get(job_id, 0) + busy_ns
        seen.other_ns += other_ns
        # Who held it at the start of the window and now; each counts for as long as it lived.
        seen.held_ppb |= held_ppb
        seen.foreign_ppb = max(seen.foreign_ppb, foreign_ppb)
        seen.unallocated_ppb = unallocated_ppb
        self._holders[device] = GpuUse(
            held_ppb=dict(held_ppb), foreign_ppb=foreign_ppb, unallocated_ppb=unallocated_ppb
        )

    def of(self, device: str) -> GpuUse:
        """What was seen of one GPU since its energy was last read."""
        return self._seen.get(device, GpuUse())

    def close(self, device: str, jobs: Mapping[str, Entry]) -> None:
        """Its energy was read: the SM time is counted, and another window begins."""
        for job_id, busy_ns in self.of(device).jobs_ns.items():
            if job_id in jobs:
                jobs[job_id].values[SM_NS_SLOT] += busy_ns
        # Who holds it now held it at the start of the next window.
        now = self._holders.get(device, GpuUse())
        self._seen[device] = replace(now, jobs_ns={}, held_ppb=dict(now.held_ppb))

    def holders(self, jobs: Mapping[str, Entry]) -> dict[str, dict[str, int]]:
        """Who among some jobs holds which part of each GPU now: GPU -> job id -> ppb."""
        return {
            gpu: {job_id: ppb for job_id, ppb in now.held_ppb.items() if job_id in jobs}
            for gpu, now in self._holders.items()
        }


def gpu_demand(seen: GpuUse, interval: Interval, jobs: Mapping[str, Entry]) -> Demand:
    """Who used and who held a GPU during one interval of its energy."""
    present = {j: _present(jobs[j], interval) for j in seen.held_ppb if j in jobs}
    claims = {j: ppb * seen.held_ppb[j] // PPB for j, ppb in present.items() if ppb}
    use_ns = {job_id: busy_ns for job_id, busy_ns in seen.jobs_ns.items() if busy_ns and job_id in jobs}
    other_ns = seen.other_ns + sum(seen.jobs_ns.values()) - sum(use_ns.values())
    if not use_ns and not other_ns:
        # A context that holds a GPU without using it keeps it awake: its holders pay, by what they hold.
        use_ns, other_ns = claims, seen.foreign_ppb
    return Demand(
        use_ns=use_ns,
        present_ppb=present,
        claim_ppb=claims,
        other_ns=other_ns,
        foreign_claim_ppb=seen.foreign_ppb,
        unallocated_ppb=seen.unallocated_ppb,
    )


def _present(entry: Entry, interval: Interval) -> int:
    end_ns = interval.end_ns if entry.ended_ns is None else min(interval.end_ns, entry.ended_ns)
    lived_ns = end_ns - max(interval.start_ns, entry.started_ns)
    return max(0, lived_ns) * PPB // (interval.end_ns - interval.start_ns)
