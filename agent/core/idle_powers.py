"""The idle part of a window's energy: by the power that is configured, else by what was learnt.

Of packages and of memory it is learnt of all of a kind together, of GPUs of each by itself. Units: microwatts,
microjoules, nanoseconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from wattribute.agent.core.claims import Use
from wattribute.agent.core.idle import IdleOfGpu, IdleOfUse
from wattribute.agent.core.model import DomainKind, Interval, Quality
from wattribute.agent.core.units import energy_over


class IdlePowers:
    """Of one node. `given_uw`: the power per domain by kind and quality; what isn't given is learnt."""

    def __init__(self, given_uw: Mapping[tuple[DomainKind, Quality], int]) -> None:
        self._given_uw = given_uw
        self.of_use: dict[DomainKind, IdleOfUse] = {}
        self.of_gpus: dict[str, IdleOfGpu] = {}

    def energy_uj(
        self,
        kind: DomainKind,
        quality: Quality,
        intervals: Sequence[Interval],
        before: Use,
        now: Use,
        *,
        domains: int,
        cpus: int,
    ) -> int:
        """Of some intervals of one kind, from `before` to `now`; `domains`: how many of them answer, >= 1."""
        asleep_ns = now.asleep_ns - before.asleep_ns
        given_uw = self._given_uw.get((kind, quality))
        if given_uw is not None:
            awake = [max(0, i.end_ns - i.start_ns - asleep_ns) for i in intervals]
            pairs = zip(intervals, awake, strict=True)
            return sum(min(i.energy_uj, energy_over(given_uw, awake_ns)) for i, awake_ns in pairs)
        energy_uj = sum(i.energy_uj for i in intervals)
        awake_ns = max(0, now.at_ns - before.at_ns - asleep_ns)
        learner = self.of_use.setdefault(kind, IdleOfUse())
        if len(intervals) == domains and awake_ns:
            learner.see(energy_uj, max(0, now.node_ns - before.node_ns), awake_ns, cpus)
        if learner.idle is None:
            return 0
        return energy_over(learner.idle.power_uw * len(intervals) // domains, awake_ns)

    def energy_of_gpu_uj(self, interval: Interval, asleep_ns: int, *, held: bool) -> int:
        """Of a GPU's interval; `held`: somebody had a context on it."""
        awake_ns = max(0, interval.end_ns - interval.start_ns - asleep_ns)
        idle_uw = self._given_uw.get(("gpu", interval.quality))
        if idle_uw is None:
            learner = self.of_gpus.setdefault(interval.domain.id, IdleOfGpu())
            learner.see(interval.energy_uj, interval.end_ns - awake_ns, interval.end_ns, held=held)
            idle_uw = 0 if learner.idle is None else learner.idle.power_uw
        return energy_over(idle_uw, awake_ns)

    def save(self) -> dict[str, Any]:
        """What was learnt, as plain JSON values."""
        return {
            "idle": {kind: learner.save() for kind, learner in self.of_use.items()},
            "idle_gpus": {device: learner.save() for device, learner in self.of_gpus.items()},
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `save` gave; an older version's may have nothing."""
        self.of_use = {kind: IdleOfUse.restore(values) for kind, values in saved.get("idle", {}).items()}
        self.of_gpus = {gpu: IdleOfGpu.restore(values) for gpu, values in saved.get("idle_gpus", {}).items()}


__all__ = ["IdlePowers"]
