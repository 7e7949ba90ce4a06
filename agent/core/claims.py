"""Who used the CPUs and the memory of a node between two moments, and what part of them each job claims.

A claim is what was reserved (Slurm allocation, Kubernetes requests, cpuset or quota), else the capacity used in the
window; of memory, what is resident. A job inside another takes its claim off what the nearest one around it reserved,
so that nothing is reserved twice. Parts per billion of the node, times the part of the window that the job lived
(formulas.md, "Claim").
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from wattribute.agent.core.attribution import PPB, Demand
from wattribute.agent.core.found import NOTHING_RESERVED, Reservation
from wattribute.agent.core.model import SLOTS, Job, Term

DEPTH_MAX = 8
"""So many jobs inside each other are looked at: whoever names parents could name them in a circle."""


@dataclass(slots=True)
class Entry:
    """One job's running totals. `base_ns` is its CPU time when this segment began."""

    job: Job
    started_ns: int
    values: list[int] = field(default_factory=lambda: [0] * SLOTS)
    taxes_ng: dict[tuple[str, Term], int] = field(default_factory=dict)
    base_ns: int = 0
    ended_ns: int | None = None
    memory_bytes: int = 0
    reserved: Reservation = NOTHING_RESERVED
    gpus: dict[str, None] = field(default_factory=dict)
    inside: str | None = None  # whose cgroup it turned out to live in, where that was found after it had begun
    changed: bool = True


@dataclass(frozen=True, slots=True)
class Use:
    """Cumulative CPU time of everything at one moment, and for how long the machine had slept by then, in ns."""

    at_ns: int
    node_ns: int
    overhead_ns: int
    agent_ns: int
    jobs_ns: dict[str, int]
    asleep_ns: int = 0


class Demands(NamedTuple):
    """One window's use, with claims by CPU time and by memory; `late_ns`: use that was learnt after it happened."""

    by_cpu: Demand
    by_memory: Demand
    late_ns: int


def demands(before: Use, now: Use, jobs: Mapping[str, Entry], cpus: int, memory_bytes: int, late_ns: int) -> Demands:
    """Who used what from `before` to `now`; `late_ns` is what the window before learnt late, of unregistered use."""
    window_ns = max(1, now.at_ns - before.at_ns)
    capacity_ns = window_ns * cpus
    use_ns: dict[str, int] = {}
    present: dict[str, int] = {}
    by_cpu: dict[str, int] = {}
    by_memory: dict[str, int] = {}
    inside: dict[str, str] = {}
    before_ns, now_ns, before_at_ns = before.jobs_ns, now.jobs_ns, before.at_ns
    for job_id, entry in jobs.items():
        used_ns = now_ns[job_id] - before_ns.get(job_id, entry.base_ns)
        if entry.ended_ns is None and entry.started_ns <= before_at_ns:
            here = PPB
        else:
            end_ns = now.at_ns if entry.ended_ns is None else min(now.at_ns, entry.ended_ns)
            lived_ns = end_ns - max(before_at_ns, entry.started_ns)
            if lived_ns <= 0 and used_ns <= 0:
                continue
            here = max(0, lived_ns) * PPB // window_ns
        present[job_id] = here
        if used_ns > 0:
            use_ns[job_id] = used_ns
        reserved = entry.reserved
        if reserved is NOTHING_RESERVED:
            if used_ns > 0:
                by_cpu[job_id] = min(PPB, used_ns * PPB // capacity_ns)
            by_memory[job_id] = min(here, here * entry.memory_bytes // memory_bytes)
        else:
            by_cpu[job_id], by_memory[job_id] = _reserved(entry, used_ns, here, capacity_ns, cpus, memory_bytes)
        parent = entry.job.parent_job_id or entry.inside
        if parent is not None:
            inside[job_id] = parent
    if inside:
        _part(by_cpu, inside, jobs, lambda reserved: reserved.exclusive or reserved.cpus_milli is not None)
        _part(by_memory, inside, jobs, lambda reserved: reserved.exclusive or reserved.memory_bytes is not None)
    overhead_ns = max(0, now.overhead_ns - before.overhead_ns)
    other_ns = now.node_ns - before.node_ns - sum(use_ns.values()) - overhead_ns - late_ns
    cpu = Demand(
        use_ns=use_ns,
        present_ppb=present,
        claim_ppb=by_cpu,
        overhead_ns=overhead_ns,
        other_ns=max(0, other_ns),
    )
    memory = replace(cpu, claim_ppb=by_memory, idle_use=by_memory)
    return Demands(cpu, memory, max(0, -other_ns))


def _reserved(entry: Entry, used_ns: int, here: int, capacity_ns: int, cpus: int, memory_bytes: int) -> tuple[int, int]:
    reserved = entry.reserved
    if reserved.exclusive:
        return here, here
    if reserved.cpus_milli is None:
        by_cpu = min(PPB, max(0, used_ns) * PPB // capacity_ns)
    else:
        by_cpu = min(here, here * reserved.cpus_milli // (cpus * 1000))
    held_bytes = entry.memory_bytes if reserved.memory_bytes is None else reserved.memory_bytes
    return by_cpu, min(here, here * held_bytes // memory_bytes)


def _part(
    claims: dict[str, int],
    inside: Mapping[str, str],
    jobs: Mapping[str, Entry],
    reserves: Callable[[Reservation], bool],
) -> None:
    """Take each claim off the nearest one around it that is a reservation: own use never holds that of others."""
    whole = dict(claims)
    for job_id, outer in inside.items():
        for _ in range(DEPTH_MAX):
            if outer not in jobs:
                break
            if reserves(jobs[outer].reserved):
                if outer in claims:
                    claims[outer] = max(0, claims[outer] - whole.get(job_id, 0))
                break
            outer = jobs[outer].job.parent_job_id or jobs[outer].inside or ""
