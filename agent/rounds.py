"""Reads all that a node looks at, in rounds: each is asked before any is waited for, none for longer than a tick may.

Sensors answer with readings; what tells of jobs (found cgroups, allotted GPUs, engines) keeps its answers to itself.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from wattribute.agent.core.model import (
    Clock,
    Domain,
    EnergyReading,
    PowerReading,
    Reading,
    SourceHealth,
    UsageReading,
)
from wattribute.agent.live import LiveJob
from wattribute.agent.serving import Serving
from wattribute.agent.sources import Source
from wattribute.agent.wiring import Sensors

if TYPE_CHECKING:
    from wattribute.agent.allotted import AllottedGpus
    from wattribute.agent.engines import Engines
    from wattribute.agent.finding import FoundJobs


class Read(NamedTuple):
    """What one round brought. `owner`: which source read a domain; `stepped_ns`: when counters last stepped, or 0."""

    energy: list[EnergyReading | PowerReading]
    usage: list[UsageReading]
    owner: Mapping[Domain, Source[Reading]]
    stepped_ns: int


class Rounds:
    """The sensors of a node, and whatever tells of its jobs; it closes them."""

    def __init__(
        self,
        sensors: Sensors,
        clock: Clock,
        found: "FoundJobs | None",
        allotted: "AllottedGpus | None",
        engines: "Engines | None",
    ) -> None:
        self._sources = sensors.sources
        self._clock = clock
        self._allotted = allotted
        self._engines = engines
        self._found = found
        self._finders = [part for part in (found, allotted) if part is not None]
        self._sensed = {r.domain.kind for r in sensors.first if r.quality != "modelled"}

    def step(self, at_step: Callable[[], None], wake: Callable[[], None]) -> bool:
        """Ask for a read at the counters' next step, where sources have one: see Source.request_fresh."""
        stepping = [source for source in self._sources if source.fresh]
        for source in stepping:
            source.request_fresh(at_step, wake)
        return bool(stepping)

    @property
    def stepped(self) -> bool:
        """Whether nothing that `step` asked for is outstanding."""
        return all(source.answered for source in self._sources if source.fresh)

    def read(self, began_ns: int, patience_ns: int, jobs: Mapping[str, LiveJob], serving: Serving) -> Read:
        """One round, which began at `began_ns`. What is late comes with the next."""
        for source in self._sources:
            source.request()
        for part in self._finders:
            part.request()
        if self._engines is not None:
            self._engines.request()
        energy: list[EnergyReading | PowerReading] = []
        owner = {}
        usage: list[UsageReading] = []
        for source in self._sources:
            waited_ns = self._clock.monotonic_ns() - began_ns
            for reading in source.collect(max(0, patience_ns - waited_ns)):
                if isinstance(reading, EnergyReading | PowerReading):
                    energy.append(reading)
                    owner[reading.domain] = source
                elif isinstance(reading, UsageReading):
                    usage.append(reading)
        energy = self._without_doubles(energy)
        stepped_ns = max((r.at_ns for r in energy if owner[r.domain].fresh), default=0)
        for part in self._finders:
            part.collect(max(0, patience_ns - (self._clock.monotonic_ns() - began_ns)))
        if self._engines is not None:
            self._engines.collect(jobs, serving)
        return Read(energy, usage, owner, stepped_ns)

    def health(self) -> list[SourceHealth]:
        """Of each sensor."""
        return [source.health() for source in self._sources]

    def finders_health(self) -> list[SourceHealth]:
        """Of what looks for jobs, and for what they serve."""
        found = [] if self._found is None else self._found.health()
        if self._allotted is not None:
            found.append(self._allotted.health())
        if self._engines is not None:
            found += self._engines.health()
        return found

    def close(self) -> None:
        """Give everything back."""
        for source in self._sources:
            source.close()
        for part in (*self._finders, self._engines):
            if part is not None:
                part.close()

    def _without_doubles(self, energy: list[EnergyReading | PowerReading]) -> list[EnergyReading | PowerReading]:
        """A sensor that answers after all takes the place of the model: its first reading begins where that ends."""
        kept = [r for r in energy if r.quality != "modelled" or r.domain.kind not in self._sensed]
        self._sensed.update(r.domain.kind for r in kept if r.quality != "modelled")
        return kept


__all__ = ["Read", "Rounds"]
