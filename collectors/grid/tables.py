"""The bundled table of zones: countries, US states and cloud regions, each figure with its kind, year and source.

Direct and life-cycle figures of one zone are two rows, never one. Written by make_zones.py; units: g CO2e/kWh.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

from wattribute.agent.core.intensity import About, FactorType, valued
from wattribute.agent.core.model import CarbonIntensity

Kind = Literal["world", "country", "us-state", "cloud-region"]
COLUMNS = ("key", "also", "kind", "name", "g_per_kwh", "factor_type", "year", "source", "licence")
ZONES = Path(__file__).with_name("zones.csv")
WORLD = "WORLD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One figure of one zone. `also` is a second key (a country's three-letter code)."""

    key: str
    also: str = ""
    kind: Kind
    name: str
    g_per_kwh: Decimal
    factor_type: FactorType
    year: int
    source: str
    licence: str

    def intensity(self, quality: str = "static") -> CarbonIntensity:
        """As a value that is in force for good."""
        about = About(
            zone=self.key,
            provider="table",
            method=f"average, {self.factor_type}",
            year=self.year,
            source=self.source,
            licence=self.licence,
        )
        return valued(about, float(self.g_per_kwh), quality)


class Table:
    """Zones by key, in whichever case it is written, and by factor type."""

    def __init__(self, zones: Iterable[Zone]) -> None:
        self.zones = tuple(zones)
        self._by_key: dict[str, dict[FactorType, Zone]] = {}
        for zone in self.zones:
            for key in filter(None, (zone.key, zone.also)):
                self._by_key.setdefault(key.casefold(), {})[zone.factor_type] = zone

    def kinds(self, key: str) -> Mapping[FactorType, Zone]:
        """What there is of a zone, by factor type; empty for an unknown one."""
        return self._by_key.get(key.casefold(), {})

    def find(self, key: str, factor_type: FactorType) -> Zone | None:
        """A zone's figure of one factor type, or None."""
        return self.kinds(key).get(factor_type)

    def names(self) -> dict[str, str]:
        """All that a zone may be called, with its key: keys, second keys and names."""
        return {word: zone.key for zone in self.zones for word in (zone.key, zone.also, zone.name) if word}


@cache
def bundled() -> Table:
    """The table of this package."""
    with ZONES.open(newline="", encoding="utf-8") as lines:
        return Table(
            Zone(
                key=row["key"],
                also=row["also"],
                kind=row["kind"],
                name=row["name"],
                g_per_kwh=Decimal(row["g_per_kwh"]),
                factor_type=row["factor_type"],
                year=int(row["year"]),
                source=row["source"],
                licence=row["licence"],
            )
            for row in _rows(lines)
        )


def _rows(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    return csv.DictReader(lines)
