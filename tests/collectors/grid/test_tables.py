"""The bundled table and CodeCarbon's: kinds kept apart, every figure with its year, source and licence."""

import json
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.intensity import MOST_G_PER_KWH, WORLD_G_PER_KWH, FactorType, g_per_kwh_of_lb_per_mwh
from wattribute.collectors.grid import codecarbon
from wattribute.collectors.grid.codecarbon import data_folder, installed, read
from wattribute.collectors.grid.iso import ISO2
from wattribute.collectors.grid.make_zones import google_regions
from wattribute.collectors.grid.tables import WORLD, Table, bundled


@pytest.mark.parametrize(
    ("zone", "factor_type", "g_per_kwh", "year"),
    [
        ("FR", "lifecycle", "56.039", 2023),
        ("FRA", "lifecycle", "56.039", 2023),
        ("deu", "lifecycle", "380.95", 2023),
        ("US", "lifecycle", "369.473", 2023),
        ("US", "direct", "349.66710055508", 2023),
        ("US-CA", "direct", "179.06420631253", 2023),
        ("us-dc", "direct", "179.17397566607", 2023),
        ("europe-west9", "direct", "15.83", 2025),
        ("me-central1", "direct", "370", 2025),
        ("WORLD", "lifecycle", "480", 2023),
        ("WORLD", "direct", "475", 2018),
    ],
)
def test_a_zone_is_found_by_its_kind_of_factor(zone: str, factor_type: FactorType, g_per_kwh: str, year: int) -> None:
    found = bundled().find(zone, factor_type)
    assert found is not None
    assert (found.g_per_kwh, found.year) == (Decimal(g_per_kwh), year)
    value = found.intensity()
    assert (value.quality, value.method, value.year) == ("static", f"average, {factor_type}", year)


@pytest.mark.parametrize(
    ("zone", "factor_type"), [("FR", "direct"), ("US-CA", "lifecycle"), ("europe-west9", "lifecycle")]
)
def test_one_kind_is_never_given_for_the_other(zone: str, factor_type: FactorType) -> None:
    assert bundled().find(zone, factor_type) is None
    assert len(bundled().kinds(zone)) == 1


def test_every_figure_can_be_one_and_says_where_it_is_from() -> None:
    zones = bundled().zones
    assert len(zones) > 300
    assert len({(zone.key, zone.factor_type) for zone in zones}) == len(zones)
    for zone in zones:
        assert 0 < zone.g_per_kwh <= MOST_G_PER_KWH, zone
        assert 2009 <= zone.year <= 2025 and zone.source and zone.licence, zone
        if zone.kind == "country":
            assert len(zone.key) == 2 and len(zone.also) == 3
    by_kind = {kind: [zone for zone in zones if zone.kind == kind] for kind in ("country", "us-state", "cloud-region")}
    assert {zone.factor_type for zone in by_kind["us-state"] + by_kind["cloud-region"]} == {"direct"}
    assert len(by_kind["us-state"]) == 51
    assert min(zone.g_per_kwh for zone in by_kind["country"]) == 20  # Lesotho
    assert max(zone.g_per_kwh for zone in by_kind["country"]) == Decimal("1306.025")  # Turkmenistan
    for factor_type, g_per_kwh in WORLD_G_PER_KWH.items():
        assert bundled().kinds(WORLD)[factor_type].g_per_kwh == g_per_kwh


def test_country_codes_are_one_to_one() -> None:
    assert len(set(ISO2.values())) == len(ISO2)
    assert all(len(three) == 3 and len(two) == 2 for three, two in ISO2.items())


def test_the_bundled_figures_are_those_of_the_installed_codecarbon() -> None:
    """Its own file, read without importing it; what moved there since the table was made shows here."""
    table = installed()
    for zone in bundled().zones:
        if zone.kind in ("country", "us-state"):
            theirs = table.find(zone.key, zone.factor_type)
            assert theirs is not None and theirs.g_per_kwh == zone.g_per_kwh, zone


def test_codecarbons_slips_dont_come_through() -> None:
    table = installed()
    assert table.kinds("CAF") == {}  # 0 g/kWh: no data
    assert table.kinds("me-cenrtal1") == {} and table.find("me-central1", "direct") is not None
    assert table.kinds("CA-ON") == {} and table.kinds("ontario") == {}  # combustion alone
    assert table.kinds("SE4") == {}  # a lower bound
    assert table.find("northamerica-northeast1", "lifecycle") is None  # 2 g/kWh: less than any life cycle


def test_reading_codecarbons_tables_doesnt_import_it() -> None:
    before = "codecarbon" in sys.modules
    installed()
    assert ("codecarbon" in sys.modules) is before


def folder(tmp_path: Path, states: object, countries: object) -> Path:
    (tmp_path / "private_infra" / "2016").mkdir(parents=True)
    (tmp_path / "cloud").mkdir()
    (tmp_path / "private_infra" / "2016" / "usa_emissions.json").write_text(json.dumps(states))
    (tmp_path / "private_infra" / "global_energy_mix.json").write_text(json.dumps(countries))
    (tmp_path / "cloud" / "impact.csv").write_text("provider,region,city,country_name,impact\naws,x,,,1\n")
    return tmp_path


FRANCE = {"FRA": {"carbon_intensity": 56.0, "country_name": "France", "year": 2023}}


def test_an_older_release_has_the_year_in_the_folders_name(tmp_path: Path) -> None:
    states = {"ohio": {"regionCode": "OH", "emissions": 1000, "unit": "lbs/MWh"}}
    table = Table(read(folder(tmp_path, states, FRANCE), "CodeCarbon 2"))
    ohio = table.find("US-OH", "direct")
    assert ohio is not None
    assert (ohio.year, Fraction(ohio.g_per_kwh)) == (2016, g_per_kwh_of_lb_per_mwh(1000))
    assert [zone.key for zone in table.zones] == ["FR", "US-OH"]


def test_states_in_another_unit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"_unit": {"emissions": "kg/MWh"}, "ohio": {"regionCode": "OH", "emissions": 1}}
    place = folder(tmp_path, states, FRANCE)
    monkeypatch.setattr(codecarbon, "data_folder", lambda: place)
    with pytest.raises(ConfigError, match=r"isn't in lb/MWh.*carbon.table = \"bundled\""):
        installed()


@pytest.mark.parametrize(
    ("states", "countries"),
    [
        ({}, {}),
        ([], FRANCE),
        ({"ohio": {}}, FRANCE),
        ({}, {"FRA": {"carbon_intensity": "x"}}),
        ({}, []),
        ({}, {"FRA": 5}),
    ],
)
def test_files_of_another_shape_are_a_clear_error(
    states: object, countries: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(tmp_path, states, countries)
    monkeypatch.setattr(codecarbon, "data_folder", lambda: place)
    try:
        installed()
    except ConfigError as error:
        assert "aren't as expected" in str(error)
    else:
        assert (states, countries) == ({}, {})


def test_without_codecarbon_the_fix_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_folder() is not None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'wattribute\[codecarbon\]'"):
        installed()


def test_regions_without_a_public_place_stay_out(tmp_path: Path) -> None:
    path = tmp_path / "2025.csv"
    path.write_text(
        "Google Cloud Region,Location,Google CFE,Grid carbon intensity (gCO2eq / kWh)\n"
        "europe-west5,N/A,0.7,275.81\neurope-west6,Zürich,0.97,21.2\n"
    )
    assert [(zone.key, zone.name, zone.g_per_kwh) for zone in google_regions(path, 2025)] == [
        ("europe-west6", "Google Cloud, Zürich", Decimal("21.2"))
    ]
