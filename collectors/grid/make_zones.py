"""Writes zones.csv. By hand, when the sources have new figures:

    python -m wattribute.collectors.grid.make_zones REGIONS.csv YEAR

REGIONS.csv is data/yearly/YEAR.csv of github.com/GoogleCloudPlatform/region-carbon-info (Apache-2.0); countries and US
states come from the data files of the installed CodeCarbon. Not a part of what runs.
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import astuple
from decimal import Decimal
from importlib import metadata
from pathlib import Path

from wattribute.agent.core.intensity import WORLD_G_PER_KWH
from wattribute.collectors.grid.codecarbon import CC_BY, GOOGLE, countries, data_folder, us_states
from wattribute.collectors.grid.tables import COLUMNS, WORLD, ZONES, Zone

WORLDS = (
    Zone(
        key=WORLD,
        kind="world",
        name="World",
        g_per_kwh=Decimal(WORLD_G_PER_KWH["lifecycle"]),
        factor_type="lifecycle",
        year=2023,
        source="Ember, Global Electricity Review 2024",
        licence=CC_BY,
    ),
    Zone(
        key=WORLD,
        kind="world",
        name="World",
        g_per_kwh=Decimal(WORLD_G_PER_KWH["direct"]),
        factor_type="direct",
        year=2018,
        source="IEA, Global Energy and CO2 Status Report 2019",
        licence="a single published figure",
    ),
)
FIGURE = "Grid carbon intensity (gCO2eq / kWh)"


def google_regions(path: Path, year: int) -> Iterator[Zone]:
    """Direct ("operational") figures of Google Cloud's regions that have a public location."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            if row["Location"] != "N/A":
                yield Zone(
                    key=row["Google Cloud Region"],
                    kind="cloud-region",
                    name=f"Google Cloud, {row['Location']}",
                    g_per_kwh=Decimal(row[FIGURE]),
                    factor_type="direct",
                    year=year,
                    source=GOOGLE,
                    licence="Apache-2.0",
                )


def main(regions: str, year: str) -> None:
    """Write the table over the one that is there."""
    folder = data_folder()
    if folder is None:
        raise SystemExit("CodeCarbon isn't installed. Fix: pip install codecarbon")
    via = f"CodeCarbon {metadata.version('codecarbon')}"
    rest = [*countries(folder, via), *us_states(folder, via), *google_regions(Path(regions), int(year))]
    order = ("country", "us-state", "cloud-region")
    rest.sort(key=lambda zone: (order.index(zone.kind), zone.key, zone.factor_type))
    with ZONES.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(astuple(zone) for zone in (*WORLDS, *rest))


if __name__ == "__main__":
    main(*sys.argv[1:])
