"""What a node's wall meter saw beyond cpu, dram and gpu: a counter of its own, in exact integers.

A window of rest spans whole readings of the wall meter. It closes once every part has been read up to its end, and
once it isn't negative. What the wall sees meanwhile is kept beside it, so that a part that is always late holds up
nothing for good. Units: microjoules, CLOCK_BOOTTIME nanoseconds.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wattribute.agent.core.model import (
    QUALITIES,
    Domain,
    DomainKind,
    EnergyReading,
    Gap,
    GapCause,
    Interval,
    Quality,
)
from wattribute.agent.core.units import NS_PER_S, j_of

PARTS: tuple[DomainKind, ...] = ("cpu", "dram", "gpu")

TOGETHER_NS = NS_PER_S // 20
"""Sensors that are read in one tick: one reading this little before another is of the same moment."""

DISAGREE_NS = 900 * NS_PER_S
"""So long a window may stay open because the parts counted more than the wall: counters move in steps, meters lag."""

AWAITED_NS = 60 * NS_PER_S
"""So long a part that was there before a restart is waited for: a driver may be late. Then it is in the rest."""

POINTS = 1024  # of a part, while no wall reading comes: 17 minutes of seconds


@dataclass(slots=True)
class _Part:
    """One cpu, dram or gpu domain: its energy since it was first seen, as points of time and energy."""

    quality: Quality
    points: deque[tuple[int, int]]
    broken_ns: int  # what it used before isn't known exactly
    base_uj: int = 0  # at the start of the window

    def at(self, at_ns: int) -> int:
        """Its energy at a moment, by the straight line between the two readings around it."""
        later_ns, later_uj = self.points[-1]
        for ns, uj in reversed(self.points):
            if ns <= at_ns:
                if at_ns >= later_ns:
                    return later_uj
                return uj + (later_uj - uj) * (at_ns - ns) // (later_ns - ns)
            later_ns, later_uj = ns, uj
        return later_uj

    def forget(self, before_ns: int) -> None:
        while len(self.points) > 1 and self.points[1][0] <= before_ns:
            self.points.popleft()


@dataclass(slots=True)
class _Window:
    """From one wall reading to a later one; `cause`: why what lies between isn't known, "" where it is."""

    start_ns: int
    end_ns: int
    wall_uj: int = 0
    quality: Quality = "measured"
    cause: GapCause | None = None

    def join(self, later: "_Window") -> None:
        """Take in what came right after it."""
        self.end_ns = later.end_ns
        self.wall_uj += later.wall_uj
        self.quality = _worse(self.quality, later.quality)
        self.cause = self.cause or later.cause

    def save(self) -> list[Any]:
        return [self.start_ns, self.end_ns, self.wall_uj, self.quality, self.cause]


@dataclass(slots=True)
class Rest:
    """The rest of one node, as the domain `domain`; `wall` is the meter that sees all of it.

    Over any time in which nothing broke: wall = parts + rest + what is in the open window; after a disagreement
    `disagreed_uj` is what the parts had counted beyond the wall. `settle_ns`: how long the meter may take to answer.
    """

    domain: Domain
    wall: Domain
    settle_ns: int = 0
    energy_uj: int = 0
    disagreed_uj: int = 0
    _window: _Window | None = None
    _beyond: _Window | None = None  # what the wall saw after the window's end, while a part wasn't read up to there
    _parts: dict[Domain, _Part] = field(default_factory=dict)
    _begun: bool = False
    _awaited: set[Domain] = field(default_factory=set)  # parts of before a restart, not read since
    _awaited_ns: int = 0  # from when on

    def note(self, outcome: Interval | Gap) -> None:
        """Take in what a reading came to, of whatever domain."""
        stale = isinstance(outcome, Gap) and outcome.cause == "stale"
        if outcome.domain == self.wall and not stale:
            self._note_wall(outcome)
        elif outcome.domain.kind in PARTS and not stale:
            self._note_part(outcome)

    def close(self) -> EnergyReading | Gap | None:
        """The window's end, where it has come: the counter's new reading, or a gap; None while it stays open."""
        window = self._window
        if window is None:
            return None
        if not self._begun:  # where the counter starts
            self._begun = True
            return self._reading(window.end_ns, self._worst(window.quality))
        beyond = self._beyond
        if beyond is not None and (self._read(beyond.end_ns) or self._forgotten(window.end_ns)):
            self._join(window, beyond)
        end_ns = window.end_ns
        if end_ns <= window.start_ns or not self._read(end_ns):
            return None
        counted_uj = sum(part.at(end_ns) - part.base_uj for part in self._parts.values())
        cause = window.cause
        if cause is None and any(part.broken_ns > window.start_ns + TOGETHER_NS for part in self._parts.values()):
            cause = "absent"
        left_uj = window.wall_uj - counted_uj
        if cause is None and left_uj < 0:
            if end_ns - window.start_ns < DISAGREE_NS:
                if self._beyond is not None:
                    self._join(window, self._beyond)
                return None
            self.disagreed_uj -= left_uj
            cause = "implausible"
        quality = self._worst(window.quality)
        self._begin(end_ns, self._beyond)
        if cause is not None:
            return Gap(
                domain=self.domain,
                start_ns=window.start_ns,
                end_ns=end_ns,
                cause=cause,
                lower_uj=0,
                upper_uj=None,
                quality=quality,
            )
        self.energy_uj += left_uj
        return self._reading(end_ns, quality)

    def notes(self) -> list[str]:
        """What a receipt says where the sensors contradict each other."""
        if not self.disagreed_uj:
            return []
        return [
            f"cpu, dram and gpu counted {j_of(self.disagreed_uj):.0f} J more than the wall meter saw "
            f"({self.domain.id}) over times of {DISAGREE_NS // (60 * NS_PER_S)} minutes: those have no rest"
        ]

    def _note_wall(self, outcome: Interval | Gap) -> None:
        window = self._window
        if window is None:
            self._begin(outcome.end_ns)
            self._window = _Window(outcome.end_ns, outcome.end_ns, quality=outcome.quality)
            return
        seen = _Window(outcome.start_ns, outcome.end_ns, quality=outcome.quality)
        if isinstance(outcome, Interval):
            seen.wall_uj = outcome.energy_uj
        else:  # `first`: it went on from before this agent, but for the meter
            seen.cause = "absent" if outcome.cause == "first" else outcome.cause
        if self._beyond is not None:
            self._beyond.join(seen)
        elif window.end_ns > window.start_ns:
            self._beyond = replace(seen, start_ns=window.end_ns)
        else:
            window.join(seen)
        if self._awaited:
            self._await(outcome.end_ns)

    def _await(self, now_ns: int) -> None:
        """What was there before a restart and hasn't been read for a while is gone: from here on it is in the rest."""
        self._awaited_ns = self._awaited_ns or now_ns
        if now_ns - self._awaited_ns < AWAITED_NS:
            return
        for domain in self._awaited:
            self._parts.pop(domain, None)
        self._awaited.clear()
        for window in (self._window, self._beyond):
            if window is not None:
                window.cause = window.cause or "absent"

    def _read(self, at_ns: int) -> bool:
        """Whether every part has been read up to a moment."""
        return all(part.points[-1][0] >= at_ns - TOGETHER_NS for part in self._parts.values())

    def _forgotten(self, at_ns: int) -> bool:
        """Whether it can't be told any more what a part had used by a moment."""
        return any(part.points[0][0] > at_ns for part in self._parts.values())

    def _join(self, window: _Window, beyond: _Window) -> None:
        window.join(beyond)
        self._beyond = None

    def _note_part(self, outcome: Interval | Gap) -> None:
        self._awaited.discard(outcome.domain)
        part = self._parts.get(outcome.domain)
        new = part is None
        if part is None:
            part = _Part(outcome.quality, deque([(outcome.start_ns, 0)], maxlen=POINTS), outcome.start_ns)
            self._parts[outcome.domain] = part
            if outcome.quality != "modelled":  # whose place a sensor has taken
                kind = outcome.domain.kind
                gone = [d for d, p in self._parts.items() if d.kind == kind and p.quality == "modelled"]
                for domain in gone:
                    del self._parts[domain]
        part.quality = outcome.quality
        if isinstance(outcome, Interval):
            part.points.append((outcome.end_ns, part.points[-1][1] + outcome.energy_uj))
        else:
            part.points.append((outcome.end_ns, part.points[-1][1] + outcome.lower_uj))
            part.broken_ns = outcome.end_ns
        if new and self._window is not None:  # it may have gone on from before this agent, and before the window
            part.base_uj, part.broken_ns = part.at(self._window.start_ns), outcome.end_ns

    def _begin(self, at_ns: int, window: _Window | None = None) -> None:
        self._window, self._beyond = window or _Window(at_ns, at_ns), None
        for part in self._parts.values():
            part.base_uj = part.at(at_ns)
            part.forget(at_ns)

    def _worst(self, quality: Quality) -> Quality:
        for part in self._parts.values():
            quality = _worse(quality, part.quality)
        return quality

    def _reading(self, at_ns: int, quality: Quality) -> EnergyReading:
        return EnergyReading(domain=self.domain, at_ns=at_ns, energy_uj=self.energy_uj, quality=quality)

    def save(self) -> dict[str, Any]:
        """As plain JSON values."""
        window, beyond = self._window, self._beyond
        return {
            "domain": self.domain.id,
            "energy_uj": self.energy_uj,
            "disagreed_uj": self.disagreed_uj,
            "window": window and window.save(),
            "beyond": beyond and beyond.save(),
            "parts": [[d.kind, d.id, p.quality, p.broken_ns, p.base_uj, *p.points[-1]] for d, p in self._parts.items()],
        }

    def restore(self, saved: Mapping[str, Any], *, same_boot: bool) -> None:
        """Go on from what `save` gave; a window goes on only within a boot, and with the same meter."""
        self.disagreed_uj = saved["disagreed_uj"]
        if not same_boot or saved["domain"] != self.domain.id or saved["window"] is None:
            return
        self.energy_uj, self._begun = saved["energy_uj"], True
        self._window = _Window(*saved["window"])
        self._beyond = saved["beyond"] and _Window(*saved["beyond"])
        self._parts = {
            Domain(kind=kind, id=part_id): _Part(quality, deque([(at_ns, uj)], maxlen=POINTS), broken_ns, base_uj)
            for kind, part_id, quality, broken_ns, base_uj, at_ns, uj in saved["parts"]
        }
        self._awaited = set(self._parts)


def _worse(one: Quality, other: Quality) -> Quality:
    return max(one, other, key=QUALITIES.index)


__all__ = ["DISAGREE_NS", "PARTS", "Rest"]
