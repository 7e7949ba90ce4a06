"""Splits the energy of one domain and window over the jobs by integer weights; every sum is exact.

E = idle + active. Active energy follows use (CPU time, SM time) over everything that ran: jobs get `direct`, system
daemons and the agent form the overhead pool, the rest is unregistered. Idle energy and the pool are then split by
policy (formulas.md, "Direct, idle, overhead"). Energy in microjoules, use in nanoseconds, claims in parts per billion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wattribute.agent.core.model import Policy, Reason

PPB = 1_000_000_000


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` in proportion to `weights` (integers >= 0, not all 0) by largest remainder; the parts sum to it.

    Equal remainders go to the earlier weight. Raises ZeroDivisionError where all weights are 0.
    """
    weight_sum = sum(weights)
    products = [total * weight for weight in weights]
    parts = [product // weight_sum for product in products]
    left = total - sum(parts)
    if left:
        rests = [product % weight_sum for product in products]
        for i in sorted(range(len(rests)), key=rests.__getitem__, reverse=True)[:left]:
            parts[i] += 1
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Who used and who holds one domain during a window; all mappings are by job id.

    `use_ns` holds only jobs that used it; `present_ppb` every job with the part of the window that it lived;
    `claim_ppb` the part of the domain that each holds (times presence), `foreign_claim_ppb` what unregistered
    processes hold, `unallocated_ppb` what was never given out (slices of a GPU of which no instance was made: their
    idle part is nobody's, whatever the policy). `overhead_ns` is the use of system daemons and the agent, `other_ns`
    that of everything else. `idle_use` stands for `use_ns` where idle power has a use of its own (resident memory).
    """

    use_ns: Mapping[str, int]
    present_ppb: Mapping[str, int]
    claim_ppb: Mapping[str, int]
    overhead_ns: int = 0
    other_ns: int = 0
    foreign_claim_ppb: int = 0
    unallocated_ppb: int = 0
    idle_use: Mapping[str, int] | None = None


@dataclass(slots=True)
class Split:
    """Microjoules by job and by reason; together they are the energy that was split."""

    direct: dict[str, int] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)
    overhead: dict[str, int] = field(default_factory=dict)
    unattributed: dict[Reason, int] = field(default_factory=dict)
    pool_uj: int = 0  # what system daemons and the agent used, before it was split

    def leave(self, reason: Reason, energy_uj: int) -> None:
        """Book energy that no job pays for."""
        if energy_uj:
            self.unattributed[reason] = self.unattributed.get(reason, 0) + energy_uj


def split(energy_uj: int, idle_uj: int, demand: Demand, idle_policy: Policy, overhead_policy: Policy) -> Split:
    """Split one domain's energy of one window; `idle_uj` of it is idle (capped at the energy itself)."""
    result = Split()
    idle_uj = min(idle_uj, energy_uj)
    active_uj = energy_uj - idle_uj
    pool_uj = 0
    if active_uj:
        jobs = list(demand.use_ns)
        weights = [*demand.use_ns.values(), demand.overhead_ns, demand.other_ns]
        if any(weights):
            *direct, pool_uj, other_uj = apportion(active_uj, weights)
            result.pool_uj = pool_uj
            result.direct = dict(zip(jobs, direct, strict=True))
            result.leave("unregistered", other_uj)
        else:
            # Nothing ran: whatever was drawn, however much the configured idle power says, was idle.
            idle_uj += active_uj
    if pool_uj:
        result.overhead, left_uj, foreign_uj = _by_policy(pool_uj, overhead_policy, demand, demand.use_ns)
        result.leave("overhead", left_uj + foreign_uj)
    if idle_uj and demand.unallocated_ppb:
        unallocated_uj = idle_uj * demand.unallocated_ppb // PPB
        result.leave("unallocated", unallocated_uj)
        idle_uj -= unallocated_uj
    if idle_uj:
        use = demand.use_ns if demand.idle_use is None else demand.idle_use
        result.idle, left_uj, foreign_uj = _by_policy(idle_uj, idle_policy, demand, use)
        unreserved = idle_policy == "reserved" and bool(demand.present_ppb)
        result.leave("unreserved" if unreserved else "idle", left_uj)
        result.leave("unregistered", foreign_uj)
    return result


def _by_policy(
    energy_uj: int, policy: Policy, demand: Demand, use: Mapping[str, int]
) -> tuple[dict[str, int], int, int]:
    """(by job, left over, held by unregistered processes); the three sum to `energy_uj`."""
    foreign_ppb = 0
    if policy == "unattributed":
        return {}, energy_uj, 0
    if policy == "reserved":
        weights, foreign_ppb = demand.claim_ppb, demand.foreign_claim_ppb
    else:
        weights = demand.present_ppb if policy == "equal" else use
    weight_sum = sum(weights.values()) + foreign_ppb
    if not weight_sum:
        return {}, energy_uj, 0
    # Claims are parts of the whole domain: what nobody claims stays over, over-commitment scales to 1.
    unclaimed_ppb = max(0, PPB - demand.unallocated_ppb - weight_sum) if policy == "reserved" else 0
    *parts, foreign_uj, left_uj = apportion(energy_uj, [*weights.values(), foreign_ppb, unclaimed_ppb])
    return dict(zip(weights, parts, strict=True)), left_uj, foreign_uj
