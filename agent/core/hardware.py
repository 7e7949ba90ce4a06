"""ec(j): the hardware's embodied carbon, written off over its life and shared by who holds it.

A GPU falls to who holds a context on it; the rest of a GPU node by GPUs held, of a CPU node by the mean of CPU and
memory share; unclaimed time is an unattributed account (formulas.md, "Embodied"; paper, section 2.1).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from wattribute.agent.core.attribution import PPB
from wattribute.agent.core.units import rate_from_stock


class Component(NamedTuple):
    """A part of the node: its embodied carbon in nanograms, its life in seconds, whether it is GPUs (all of them)."""

    embodied_ng: int
    lifetime_s: int
    gpu: bool = False


class Hardware:
    """The node's embodied carbon as two rates (ng per 1e9 s): that of all its GPUs together, and the rest."""

    def __init__(self, components: Iterable[Component]) -> None:
        self._rest_rate = self._gpu_rate = 0
        for part in components:
            rate = rate_from_stock(part.embodied_ng, part.lifetime_s)
            if part.gpu:
                self._gpu_rate += rate
            else:
                self._rest_rate += rate

    def split(
        self,
        duration_ns: int,
        cpu_ppb: Mapping[str, int],
        memory_ppb: Mapping[str, int],
        gpu_holders: Mapping[str, Mapping[str, int]],
    ) -> tuple[dict[str, int], int]:
        """(by job, unclaimed) for one window, as rate * ns (see units.RATE_DENOMINATOR); they sum to all of it.

        `cpu_ppb` and `memory_ppb` are the jobs' claims, as those of idle power; `gpu_holders`: GPU -> job id -> ppb of
        it held.
        """
        whole = (self._rest_rate + self._gpu_rate) * duration_ns
        shares: dict[str, int] = {}
        shared = whole
        if gpu_holders:
            for held in gpu_holders.values():
                for job_id, ppb in held.items():
                    shares[job_id] = shares.get(job_id, 0) + ppb // len(gpu_holders)
        else:
            # Without a GPU in sight, configured ones are held by nobody.
            shared = self._rest_rate * duration_ns
            for job_id, memory in memory_ppb.items():
                cpu = cpu_ppb.get(job_id, 0)
                shares[job_id] = ((cpu if cpu < PPB else PPB) + (memory if memory < PPB else PPB)) // 2
        scale = max(PPB, sum(shares.values()))  # over-commitment scales to 1
        parts = {job_id: shared * share // scale for job_id, share in shares.items() if share}
        return parts, whole - sum(parts.values())
