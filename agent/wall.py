"""Opens the whole-node sensor that `collectors.wall` names; the rest of the node follows from it.

A meter may be slow (an ACPI method, a BMC): it has a thread of its own, and no tick waits for it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from wattribute.agent.config.schema import Config
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Clock, Collector, Domain, EnergyReading, Finding, PowerReading, Reading
from wattribute.agent.core.rest import Rest
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.sources import Source
from wattribute.agent.wiring import DEADLINE_NS, FIRST_READ_NS, Sensors

PATIENCE_NS = 2_000_000
"""A chip answers within this, so that its reading belongs to the tick; one that doesn't comes with the next."""

JITTER_NS = 50_000_000
"""A tick that comes this much too soon for a pace is the one that was meant."""

MISSED = 3
"""So many questions in a row may go unanswered before what lies between two powers isn't bridged."""

BEYOND: Mapping[str, Sequence[str]] = {"psys": ("psu",)}
"""What a sensor doesn't see of the node itself: psys is measured behind the power supply, or isn't known not to be."""

METHOD = "{}, less what cpu, dram and gpu counted; split as they are"
WORDS: Mapping[str, str] = {
    "psys": "powercap's psys",
    "hwmon": "a power meter of the node (hwmon)",
    "redfish": "the BMC (Redfish)",
    "ipmi": "the BMC (DCMI)",
}


class Bmc(Collector, Protocol):
    """What asks a BMC, and says of itself how that goes."""

    def finding(self) -> Finding: ...


class WallSource(Source[Reading]):
    """A Source that is asked every `pace_ns` at most, and waited for `PATIENCE_NS` at most."""

    def __init__(self, collector: Collector, clock: Clock, *, deadline_ns: int, pace_ns: int = 0) -> None:
        super().__init__(collector, clock, deadline_ns=deadline_ns)
        self._pace_ns = pace_ns
        self._due_ns = 0
        self._now_ns = clock.monotonic_ns
        self._arrived: list[Reading] = []

    def request(self, how: str = "now") -> None:
        """Ask, where it is time for that; what came since the last tick makes room for it."""
        self._arrived += super().collect(0)
        now_ns = self._now_ns()
        if now_ns >= self._due_ns or not self.up:  # one that failed has a pace of its own
            self._due_ns = now_ns + max(0, self._pace_ns - JITTER_NS)
            super().request(how)

    def collect(self, patience_ns: int) -> list[Reading]:
        """What has arrived."""
        arrived, self._arrived = self._arrived, []
        return arrived + super().collect(min(patience_ns, 0 if self._pace_ns else PATIENCE_NS))


def open_wall(config: Config, clock: Clock, sensors: Sensors) -> None:
    """Open what the configuration names, among the other sensors, which are open.

    Raises SensorUnavailable where it can't be opened. A BMC that doesn't answer now is asked again.
    """
    sensor = config.collectors.wall
    if sensor == "off":
        return
    settle_ns = 0
    if sensor == "psys":
        domain = the_psys([r.domain for r in sensors.first])
    elif sensor == "hwmon":
        domain = _open_hwmon(config, clock, sensors)
    else:
        domain = Domain(kind="psys", id=sensor)
        settle_ns = _open_bmc(config, clock, sensors)
    sensors.rest = Rest(domain=Domain(kind="rest", id=sensor), wall=domain, settle_ns=settle_ns)
    sensors.unseen = tuple(BEYOND.get(sensor, ()))
    sensors.method["rest"] = METHOD.format(WORDS[sensor])


def the_psys(domains: Sequence[Domain]) -> Domain:
    """RAPL's one platform zone. Raises SensorUnavailable where there is none, or more than one."""
    found = sorted({domain.id for domain in domains if domain.kind == "psys"})
    if not found:
        raise SensorUnavailable(
            "no psys zone among those of RAPL that can be read",
            'wattribute doctor lists them; most servers have none: collectors.wall = "hwmon", "redfish" or "ipmi"',
            absent=True,
        )
    if len(found) > 1:
        raise SensorUnavailable(
            f"{len(found)} psys zones ({', '.join(found)}), and nothing says whether they overlap",
            'collectors.wall = "hwmon", "redfish" or "ipmi"',
        )
    return Domain(kind="psys", id=found[0])


def bmc(config: Config, clock: Clock) -> Bmc:
    """What asks the BMC. Raises SensorUnavailable where what it needs can't be opened."""
    wall = config.wall
    bridge_ns = MISSED * _pace_ns(config) + _ns(wall.timeout_s)
    if config.collectors.wall == "ipmi":
        from wattribute.collectors.wall.ipmi import IpmiWall

        return IpmiWall(clock.monotonic_ns, timeout_s=wall.timeout_s, bridge_ns=bridge_ns)
    from wattribute.collectors.wall.redfish import RedfishWall, credentials

    return RedfishWall(
        wall.url,
        credentials(wall.credentials_file, os.environ),
        clock.monotonic_ns,
        ca_file=wall.ca_file,
        timeout_s=wall.timeout_s,
        bridge_ns=bridge_ns,
    )


def _open_hwmon(config: Config, clock: Clock, sensors: Sensors) -> Domain:
    from wattribute.collectors.wall.hwmon import DOMAIN, HwmonWall

    collector = HwmonWall(Path(config.paths.sys), clock.monotonic_ns, config.wall.chip)
    source = WallSource(collector, clock, deadline_ns=DEADLINE_NS)
    source.request()
    first = [r for r in Source.collect(source, FIRST_READ_NS) if isinstance(r, EnergyReading | PowerReading)]
    if not first:
        source.close()
        raise SensorUnavailable(f"wall: {source.why or 'no answer'}", source.fix)
    sensors.first += first
    sensors.sources.append(source)
    return DOMAIN


def _open_bmc(config: Config, clock: Clock, sensors: Sensors) -> int:
    timeout_ns, pace_ns = _ns(config.wall.timeout_s), _pace_ns(config)
    # It is asked with the others: what it told before their first reading would be a window without parts.
    source = WallSource(bmc(config, clock), clock, deadline_ns=2 * timeout_ns, pace_ns=pace_ns)
    sensors.sources.append(source)
    return 2 * pace_ns + timeout_ns


def _pace_ns(config: Config) -> int:
    return _ns(max(config.wall.interval_s, config.agent.interval_s))


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


__all__ = ["WallSource", "bmc", "open_wall", "the_psys"]
