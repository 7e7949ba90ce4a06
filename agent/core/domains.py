"""The domains that are read: each with its last reading, and what everybody had used by then.

So a window of any length (a late sensor, a restart) is split by what was used in it. Units: microjoules, nanoseconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wattribute.agent.core.claims import Use
from wattribute.agent.core.counters import between, integrate
from wattribute.agent.core.model import Domain, DomainKind, EnergyReading, Gap, Interval, PowerReading, Quality


@dataclass(slots=True)
class _Last:
    reading: EnergyReading | PowerReading
    use: Use
    released: bool = False


class Domains:
    """Of one node, each from its first reading on."""

    def __init__(self) -> None:
        self._last: dict[Domain, _Last] = {}

    def advance(self, reading: EnergyReading | PowerReading, use: Use) -> tuple[Gap | Interval, Use]:
        """What a reading comes to, and the use at the one before; `use` is that at this one."""
        last = self._last.get(reading.domain)
        before = last.reading if last is not None else None
        if last is not None and last.released:
            reading = replace(reading, resumed=True)
        asleep_ns = use.asleep_ns - (use if last is None else last.use).asleep_ns
        if isinstance(reading, EnergyReading):
            outcome = between(before if isinstance(before, EnergyReading) else None, reading, asleep_ns)
        else:
            outcome = integrate(before if isinstance(before, PowerReading) else None, reading, asleep_ns)
        if not (isinstance(outcome, Gap) and outcome.cause == "stale"):
            self._last[reading.domain] = _Last(reading, use)
        return outcome, last.use if last is not None else use

    def qualities(self) -> dict[Domain, Quality]:
        """The domains that have been read, and how good their last reading was."""
        return {domain: last.reading.quality for domain, last in self._last.items()}

    def read_ns(self) -> dict[DomainKind, int]:
        """Until when the energy of each kind of domain is booked: its latest reading. A sensor may be late."""
        latest: dict[DomainKind, int] = {}
        for domain, last in self._last.items():
            latest[domain.kind] = max(last.reading.at_ns, latest.get(domain.kind, 0))
        return latest

    def read_since(self, at_ns: int, late_ns: int) -> bool:
        """Whether every domain has been read since `at_ns`; one last read before `late_ns` is left out."""
        return all(not late_ns <= last.reading.at_ns < at_ns for last in self._last.values())

    def count(self, kind: DomainKind, quality: Quality, late_ns: int) -> int:
        """How many of a kind are read so well, and have been since `late_ns`."""
        return sum(
            domain.kind == kind and last.reading.quality == quality and last.reading.at_ns >= late_ns
            for domain, last in self._last.items()
        )

    def uses(self) -> Iterable[Use]:
        """What the next windows begin at."""
        return (last.use for last in self._last.values())

    def give_up(self, kind: DomainKind) -> list[Domain]:
        """Somebody else has the domains of a kind until each is read again: that time is a gap, over a restart too.
        Returns those of which this is news.
        """
        news = [domain for domain, last in self._last.items() if domain.kind == kind and not last.released]
        for domain in news:
            self._last[domain].released = True
        return news

    def pass_over(self, gap: Gap, use: Use) -> None:
        """A counter that isn't read but worked out (rest) stood still in a gap; `use` is that at its end."""
        reading = replace(self._last[gap.domain].reading, at_ns=gap.end_ns)
        self._last[gap.domain] = _Last(reading, use)

    def save(self) -> list[list[Any]]:
        """The counters that go on without an agent, as plain JSON values."""
        return [
            [d.kind, d.id, last.reading.at_ns, last.reading.energy_uj, last.released]
            for d, last in self._last.items()
            if isinstance(last.reading, EnergyReading) and (last.reading.quality == "measured" or d.kind == "rest")
        ]

    def restore(self, saved: Sequence[Sequence[Any]], use: Use) -> None:
        """Go on from what `save` gave, on the same boot; `use` is that at the last tick."""
        for kind, domain_id, at_ns, energy_uj, *released in saved:  # an older version's has four
            domain = Domain(kind=kind, id=domain_id)
            reading = EnergyReading(domain=domain, at_ns=at_ns, energy_uj=energy_uj)
            self._last[domain] = _Last(reading, use, any(released))
