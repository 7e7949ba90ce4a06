"""ec(j): the hardware's embodied carbon, written off over its life and shared by who holds it.

A GPU falls to who holds a context on it; the rest of a GPU node by GPUs held, of a CPU node by the mean of CPU and
memory share; unclaimed time is an unattributed account (formulas.md, "Embodied"; paper, section 2.1). A component with
a utilisation u is paid by busy time alone, TE / (LT * u) a second, and leaves nothing unattributed (Wu et al. 2021).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from wattribute.agent.core.attribution import PPB
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.units import RATE_SCALE

Band = tuple[Fraction, Fraction]
"""Between which multiples of a central value the true one lies: (low <= 1, high >= 1)."""

EXACT: Band = (Fraction(1), Fraction(1))


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the node: what one cost to make (ng CO2e), its life in seconds, whether it is GPUs (all of them).

    `low_ng` and `high_ng`, where they are known, are the bounds of `embodied_ng`. `count`: how many of it there are.
    `utilisation`: the part of its life that it is expected to be busy, whose seconds then pay for all of it.
    """

    embodied_ng: int
    lifetime_s: int
    gpu: bool = False
    count: Fraction = Fraction(1)
    utilisation: Fraction | None = None
    low_ng: int | None = None
    high_ng: int | None = None

    @property
    def mass(self) -> Bounded:
        """What one of it cost to make; raises ValueError where the bounds don't hold the central figure."""
        low_ng = self.embodied_ng if self.low_ng is None else self.low_ng
        return Bounded(low_ng, self.embodied_ng, self.embodied_ng if self.high_ng is None else self.high_ng)

    def rates(self) -> tuple[Fraction, Fraction, Fraction]:
        """(low, central, high) of what all of it costs, in ng per 1e9 s, of the calendar or of busy time."""
        busy = Fraction(1) if self.utilisation is None else self.utilisation
        each = self.count * RATE_SCALE / (self.lifetime_s * busy)
        mass = self.mass
        return mass.low * each, mass.central * each, mass.high * each


class Hardware:
    """The node's embodied carbon as rates (ng per 1e9 s): of all its GPUs together and of the rest, by calendar or
    by busy time.
    """

    def __init__(self, components: Iterable[Component]) -> None:
        self._rest_rate = self._gpu_rate = self._busy_rest_rate = self._busy_gpu_rate = 0
        bounds: dict[bool, list[Fraction]] = {False: [Fraction(0)] * 3, True: [Fraction(0)] * 3}
        for part in components:
            rates = part.rates()
            rate = round(rates[1])
            if part.utilisation is not None:
                self._busy_gpu_rate += rate * part.gpu
                self._busy_rest_rate += rate * (not part.gpu)
            elif part.gpu:
                self._gpu_rate += rate
            else:
                self._rest_rate += rate
            bounds[part.gpu] = [held + more for held, more in zip(bounds[part.gpu], rates, strict=True)]
        self._band = _band_of(bounds[False], [rest + gpu for rest, gpu in zip(*bounds.values(), strict=True)])

    def band(self) -> Band:
        """Between which multiples of a job's `hardware` the true figure lies.

        Whoever holds GPUs pays for all components in one proportion, who doesn't see any for the rest alone: the
        wider of the two counts.
        """
        return self._band

    def split(
        self,
        duration_ns: int,
        cpu_ppb: Mapping[str, int],
        memory_ppb: Mapping[str, int],
        gpu_holders: Mapping[str, Mapping[str, int]],
    ) -> tuple[dict[str, int], int]:
        """(by job, unclaimed) for one window, as rate * ns (see units.RATE_DENOMINATOR).

        They sum to all that the window costs: the whole of what is paid by the calendar, and of what is paid by busy
        time as much as was busy. `cpu_ppb` and `memory_ppb` are the jobs' claims, as those of idle power;
        `gpu_holders`: GPU -> job id -> ppb of it held.
        """
        whole = (self._rest_rate + self._gpu_rate) * duration_ns
        shares: dict[str, int] = {}
        shared, busy = whole, (self._busy_rest_rate + self._busy_gpu_rate) * duration_ns
        if gpu_holders:
            for held in gpu_holders.values():
                for job_id, ppb in held.items():
                    shares[job_id] = shares.get(job_id, 0) + ppb // len(gpu_holders)
        else:
            # Without a GPU in sight, configured ones are held by nobody.
            shared, busy = self._rest_rate * duration_ns, self._busy_rest_rate * duration_ns
            for job_id, memory in memory_ppb.items():
                cpu = cpu_ppb.get(job_id, 0)
                shares[job_id] = ((cpu if cpu < PPB else PPB) + (memory if memory < PPB else PPB)) // 2
        scale = max(PPB, sum(shares.values()))  # over-commitment scales to 1
        parts = {job_id: shared * share // scale for job_id, share in shares.items() if share}
        left = whole - sum(parts.values())
        if busy:
            parts = {job_id: part + busy * shares[job_id] // scale for job_id, part in parts.items()}
        return parts, left


def _band_of(*pools: list[Fraction]) -> Band:
    """The widest of some (low, central, high), as multiples of the central one; what is nothing has no width."""
    known = [(low / central, high / central) for low, central, high in pools if central]
    return min((low for low, _ in known), default=Fraction(1)), max((high for _, high in known), default=Fraction(1))
