"""CodeCarbon's tables, read as data files: importing the package takes 289 ms and runs nvidia-smi.

What they don't say of themselves is said here: country figures are life-cycle ones (Our World in Data, Ember), those
of US states direct ones in lb/MWh (EPA eGRID), those of cloud regions Google's "operational gross emissions", direct.
Not taken over: figures of 0 (a country without data), the Canadian mixes (combustion alone, called life-cycle
elsewhere), the bidding zones (lower bounds of one factor set), a region's misspelt name.
"""

import csv
import importlib.util
import json
from collections.abc import Iterator
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any

from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.intensity import MOST_G_PER_KWH, g_per_kwh_of_lb_per_mwh
from wattribute.collectors.grid.iso import ISO2
from wattribute.collectors.grid.tables import Table, Zone

CC_BY = "CC BY 4.0"
OWID = "Our World in Data from Ember and the Energy Institute"
GOOGLE = "Google Cloud region-carbon-info, grid carbon intensity (operational)"
MISSPELT = {"me-cenrtal1": "me-central1"}
CLOUD_YEAR = 2023
POUNDS = ("lbs/mwh", "lb/mwh")
_FIX = "pip install 'wattribute[codecarbon]', or set carbon.table = \"bundled\""


def installed() -> Table:
    """The tables of the installed CodeCarbon. Raises ConfigError with the fix where it isn't, or isn't as expected."""
    folder = data_folder()
    if folder is None:
        raise ConfigError(f'carbon.table = "codecarbon": CodeCarbon isn\'t installed. Fix: {_FIX}')
    try:
        return Table(read(folder, f"CodeCarbon {metadata.version('codecarbon')}"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ConfigError(
            f'carbon.table = "codecarbon": the files in {folder} aren\'t as expected: {error!r:.200}. Fix: {_FIX}'
        ) from error


def data_folder() -> Path | None:
    """Where the data files of the installed CodeCarbon are; None where it isn't installed."""
    spec = importlib.util.find_spec("codecarbon")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (Path(place) / "data").is_dir():
            return Path(place) / "data"
    return None


def read(folder: Path, via: str) -> Iterator[Zone]:
    """All zones of a data folder; `via` names the release. Raises OSError, ValueError and the like."""
    yield from countries(folder, via)
    yield from us_states(folder, via)
    yield from _cloud_regions(folder, via)


def countries(folder: Path, via: str) -> Iterator[Zone]:
    """Life-cycle figures by country, each with the year of its data."""
    for iso3, entry in _json(folder / "private_infra" / "global_energy_mix.json").items():
        g_per_kwh = entry.get("carbon_intensity")
        if g_per_kwh and 0 < g_per_kwh <= MOST_G_PER_KWH:
            yield Zone(
                key=ISO2.get(iso3, iso3),
                also=iso3,
                kind="country",
                name=entry["country_name"],
                g_per_kwh=Decimal(str(g_per_kwh)),
                factor_type="lifecycle",
                year=int(entry["year"]),
                source=f"{OWID}, via {via}",
                licence=CC_BY,
            )


def us_states(folder: Path, via: str) -> Iterator[Zone]:
    """Direct figures of US states (US-CA), and of the whole (US), converted from lb/MWh."""
    found = sorted((folder / "private_infra").glob("*/usa_emissions.json"))
    if not found:
        raise ValueError("no usa_emissions.json")
    entries = _json(found[-1])
    told = entries.get("_source") or {"name": "EPA eGRID", "year": found[-1].parent.name}
    units = entries.get("_unit", {}).get("emissions", "lbs/MWh")
    for name, entry in entries.items():
        if name.startswith("_"):
            continue
        if str(entry.get("unit", units)).lower() not in POUNDS:
            raise ValueError(f"{found[-1].name}: {name} isn't in lb/MWh")
        state = str(entry.get("regionCode", ""))
        exact = g_per_kwh_of_lb_per_mwh(entry["emissions"])
        yield Zone(
            key="US" if name == "usa" else f"US-{state}",
            also="USA" if name == "usa" else "",
            kind="country" if name == "usa" else "us-state",
            name="United States" if name == "usa" else name.title().replace(" Of ", " of "),
            g_per_kwh=Decimal(exact.numerator) / Decimal(exact.denominator),
            factor_type="direct",
            year=int(told["year"]),
            source=f"{told['name']}, via {via}",
            licence="US public domain",
        )


def _cloud_regions(folder: Path, via: str) -> Iterator[Zone]:
    with (folder / "cloud" / "impact.csv").open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            if row["provider"] == "gcp":
                yield Zone(
                    key=MISSPELT.get(row["region"], row["region"]),
                    kind="cloud-region",
                    name=f"Google Cloud, {row['city'] or row['country_name']}",
                    g_per_kwh=Decimal(row["impact"]),
                    factor_type="direct",
                    year=CLOUD_YEAR,
                    source=f"{GOOGLE}, via {via}",
                    licence="Apache-2.0",
                )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
