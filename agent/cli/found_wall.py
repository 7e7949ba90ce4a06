"""What `doctor` finds of the whole-node sensor that `collectors.wall` names."""

from pathlib import Path

from wattribute.agent.config import Config
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Clock, EnergyReading, Finding
from wattribute.agent.wall import bmc, the_psys


def finding_of_wall(config: Config, clock: Clock) -> Finding:
    """One reading of it. Raises nothing."""
    sensor = config.collectors.wall
    try:
        if sensor == "psys":
            return _of_psys(config, clock)
        if sensor == "hwmon":
            from wattribute.collectors.wall.hwmon import HwmonWall

            chip = HwmonWall(Path(config.paths.sys), clock.monotonic_ns, config.wall.chip)
            try:
                return chip.finding()
            finally:
                chip.close()
        asked = bmc(config, clock)
        try:
            return asked.finding()
        finally:
            asked.close()
    except SensorUnavailable as error:
        return Finding(source="wall", path=sensor, ok=False, why=error.cause, fix=error.fix)


def _of_psys(config: Config, clock: Clock) -> Finding:
    from wattribute.collectors.rapl import RaplCollector

    rapl = RaplCollector(Path(config.paths.sys), clock.monotonic_ns)
    try:
        readings = {r.domain: r for r in rapl.read() if isinstance(r, EnergyReading)}
    finally:
        rapl.close()
    reading = readings[the_psys(list(readings))]
    return Finding(
        source="wall",
        path=reading.domain.id,
        ok=True,
        why="the whole platform, by RAPL's psys zone: readable",
        wraps_at_uj=reading.wraps_at_uj,
        value=f"{reading.energy_uj} uJ",
        quality="measured",
    )


__all__ = ["finding_of_wall"]
