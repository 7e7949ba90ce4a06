"""The RAPL collector: every domain's counter, each with its own time; a zone that fails is a Fault of its own."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Domain, EnergyReading, Fault, Finding, Reading
from wattribute.agent.core.units import NS_PER_S
from wattribute.collectors.rapl.counter import Counter
from wattribute.collectors.rapl.tree import Zone, cpu_here, no_zone, zones_below

RESOLUTION = "1 uJ units; the counter moves about every 1 ms"
FRESH_NS = 25_000_000  # real counters step about every 1 ms
FRESH_STEP_S = 0.0003
RETRY_NS = NS_PER_S
RETRY_MOST_NS = 8 * NS_PER_S

_DIE = re.compile(r"(package-\d+)-die-\d+")


class RaplCollector:
    """Reads every package, DRAM and psys zone below SYS/class/powercap; each reading carries its own time.

    It opens what it can at once and raises nothing then: what is wrong shows in `read`.
    """

    name = "rapl"

    def __init__(self, sys: Path, clock: Callable[[], int]) -> None:
        self._sys = sys
        self._clock = clock
        self._zones: list[Zone] = []
        self._ids: dict[tuple[str, str], str] = {}  # (key, name) -> id: a namesake keeps its own while others leave
        self._counters: dict[str, Counter] = {}
        self._mirrors: dict[str, str] = {}
        self._devices: dict[str, bool] = {}
        self._closed = False
        self._scan()

    def read(self) -> list[Reading]:
        """One EnergyReading or Fault per domain, in microjoules. Raises SensorUnavailable where none can be read."""
        if self._closed:
            raise SensorUnavailable("the rapl collector is closed")
        self._seek_lost()
        readings: list[Reading] = []
        alive = 0
        for counter in self._counters.values():
            if counter.lost and self._clock() < counter.retry_at_ns:
                readings.append(self._fault(counter))
                continue
            try:
                energy_uj = counter.read()
            except SensorUnavailable as error:
                counter.failure = (error.cause, error.fix)
                counter.wait_ns = min(2 * counter.wait_ns or RETRY_NS, RETRY_MOST_NS)
                counter.retry_at_ns = self._clock() + counter.wait_ns
                readings.append(self._fault(counter))
                continue
            reading = EnergyReading(
                domain=counter.domain,
                at_ns=self._clock(),
                energy_uj=energy_uj,
                wraps_at_uj=counter.wraps_at_uj,
                ceiling_uw=counter.ceiling_uw,
            )
            counter.wait_ns = 0
            alive += 1
            readings.append(reading)
        self._devices = {domain_id: not counter.lost for domain_id, counter in self._counters.items()}
        if not alive:
            raise self._nothing()
        return readings

    def devices(self) -> Mapping[str, bool]:
        """Each domain that was found, and whether it could be read last time. From any thread."""
        return self._devices

    def read_fresh(self) -> list[Reading]:
        """As `read`, once every package's counter has moved, or FRESH_NS are over.

        A counter shows what was used until its last step; read at the step it is true now. That matters at the start
        and end of short jobs (Haehnel et al., Measuring Energy Consumption for Short Code Paths Using RAPL, 2012).
        """
        until_ns = self._clock() + FRESH_NS
        readings = self.read()
        still = {r.domain: r.energy_uj for r in readings if isinstance(r, EnergyReading) and r.domain.kind == "cpu"}
        while still and self._clock() < until_ns:
            time.sleep(FRESH_STEP_S)
            readings = self.read()
            now_uj = {r.domain: r.energy_uj for r in readings if isinstance(r, EnergyReading)}
            still = {domain: energy_uj for domain, energy_uj in still.items() if now_uj.get(domain) == energy_uj}
        return readings

    def close(self) -> None:
        """Give the descriptors back; reading is over."""
        self._closed = True
        for counter in self._counters.values():
            counter.close()

    def findings(self) -> list[Finding]:
        """What `doctor` says: one Finding per zone, counted or not; and one in all where there is none to count."""
        findings = [self._finding(zone) for zone in self._zones]
        if not self._counters:
            nothing = self._nothing()
            path = str(self._sys / "class" / "powercap")
            findings.insert(0, Finding(source="rapl", path=path, ok=False, why=nothing.cause, fix=nothing.fix))
        return findings

    def _seek_lost(self) -> None:
        """Scan again where a lost zone is due for another try; with every zone lost it is the caller who backs off."""
        lost = [counter for counter in self._counters.values() if counter.lost]
        if len(lost) == len(self._counters):
            for counter in lost:
                counter.retry_at_ns = 0
            self._scan()
        elif lost and min(counter.retry_at_ns for counter in lost) <= self._clock():
            self._scan()

    def _scan(self) -> None:
        self._zones = zones_below(self._sys, self._ids)
        ways: dict[Domain, list[Zone]] = {}
        for zone in self._zones:
            if zone.domain is not None and zone.domain.id not in self._mirrors:
                ways.setdefault(zone.domain, []).append(zone)
        for domain, zones in ways.items():
            counter = self._counters.setdefault(domain.id, Counter(domain, zones[0]))
            if not counter.lost:
                continue
            if counter.last_uj < 0:
                _take_first(counter, zones)
            else:
                # Never from one way to the other: they count from different starts.
                counter.zone = next((zone for zone in zones if zone.control == counter.zone.control), counter.zone)
        if cpu_here(self._sys) in ("amd", "hygon"):
            self._drop_mirrors()

    def _drop_mirrors(self) -> None:
        """Forget dies that show their socket's one counter again, as Zen 1 and 2 do: summed they would count double."""
        kept: dict[str, list[Counter]] = {}
        for domain_id, counter in list(self._counters.items()):
            die = _DIE.fullmatch(counter.zone.name)
            if die is None or counter.lost:
                continue
            dies = kept.setdefault(die[1], [])
            first = next((other for other in dies if _same_meter(other, counter)), None)
            if first is None:
                dies.append(counter)
            else:
                self._mirrors[domain_id] = first.zone.key
                self._counters.pop(domain_id).close()

    def _fault(self, counter: Counter) -> Fault:
        cause, fix = counter.failure
        return Fault(domain=counter.domain, at_ns=self._clock(), cause=cause, fix=fix)

    def _nothing(self) -> SensorUnavailable:
        failures = [counter.failure for counter in self._counters.values()]
        if not failures:
            return no_zone(self._sys, self._zones)
        cause, fix = failures[0]
        return SensorUnavailable(cause + (f" (and {len(failures) - 1} more)" if failures[1:] else ""), fix)

    def _finding(self, zone: Zone) -> Finding:
        if zone.domain is None:
            return Finding(source="rapl", path=zone.path, ok=bool(zone.name), why=zone.why, fix=zone.fix)
        mirrored = self._mirrors.get(zone.domain.id)
        counted = mirrored or self._counters[zone.domain.id].zone.key
        if counted != zone.key:
            why = f"{zone.name}: the same counter as {counted}, not counted again"
            return Finding(source="rapl", path=zone.path, ok=True, why=why)
        counter = self._counters[zone.domain.id]
        try:
            energy_uj = counter.read()
        except SensorUnavailable as error:
            return Finding(source="rapl", path=zone.path, ok=False, why=f"{zone.name}: {error.cause}", fix=error.fix)
        return Finding(
            source="rapl",
            path=zone.path,
            ok=True,
            why=f"{zone.name}: readable"
            + ("" if counter.wraps_at_uj else ", but not its wrap range: a wrap will be a gap"),
            resolution=RESOLUTION,
            wraps_at_uj=counter.wraps_at_uj,
            value=f"{energy_uj} uJ",
            quality="measured",
        )


def probe(sys: Path) -> list[Finding]:
    """What `doctor` says of RAPL below `sys`, by the collector itself."""
    collector = RaplCollector(sys, lambda: 0)
    try:
        return collector.findings()
    finally:
        collector.close()


def _take_first(counter: Counter, zones: Sequence[Zone]) -> None:
    """Take the first way to a counter that can be read; where none does, the first of all."""
    for zone in zones:
        counter.close()
        counter.zone = zone
        try:
            counter.read()
        except SensorUnavailable:
            continue
        return
    counter.zone = zones[0]


def _same_meter(one: Counter, other: Counter) -> bool:
    """Whether a value read between two reads of another lies between them: by chance once in a million scans."""
    try:
        before, between, after = one.read(), other.read(), one.read()
    except SensorUnavailable:
        return False
    return 0 < before <= between <= after
