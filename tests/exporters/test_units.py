"""Unit traps: grams, kilograms and tonnes of one job agree in every format, to the last digit."""

import csv
import dataclasses
import importlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.exporters.sheets import NOW, S, job, job_sheet, node_sheet, product_sheet, products

from wattribute.agent.core.model import Term
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.units import NG_PER_G, UJ_PER_KWH
from wattribute.exporters.codecarbon_csv import COLUMNS, codecarbon_csv
from wattribute.exporters.cyclonedx import cyclonedx
from wattribute.exporters.ghg import ghg
from wattribute.exporters.model_card import model_card
from wattribute.exporters.report.data import to_dict
from wattribute.exporters.report.exact import json_text
from wattribute.exporters.report.sheet import Sheet
from wattribute.exporters.sci import jobs_served, sci

yaml: Any = importlib.import_module("yaml")


def exact(value: Any) -> Any:
    """As its JSON text has it, with every digit."""
    return json.loads(json_text(value), parse_float=Decimal, parse_int=Decimal)


def card(sheet: Sheet) -> dict[str, Any]:
    first, text, last = model_card(sheet).split("---\n")
    assert (first, last) == ("", "")
    loaded: dict[str, Any] = yaml.safe_load(text)["co2_eq_emissions"]
    return loaded


def card_grams(sheet: Sheet) -> Decimal:
    """The number as it is written: a YAML reader makes a float of it."""
    (line,) = [line for line in model_card(sheet).splitlines() if line.startswith("  emissions: ")]
    return Decimal(line.removeprefix("  emissions: "))


def rows(sheet: Sheet) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(codecarbon_csv(sheet))))


def consumptions(sheet: Sheet) -> list[dict[str, Any]]:
    model = exact(cyclonedx(sheet))["components"][0]["modelCard"]
    found: list[dict[str, Any]] = model["considerations"]["environmentalConsiderations"]["energyConsumptions"]
    return found


def grams_in_every_format(record: JobRecord) -> dict[str, Fraction]:
    """Operation with cooling, from each format's own unit to grams."""
    sheet = job_sheet(record, uncertainty=None)
    said, score, split = exact(to_dict(sheet)), exact(sci(sheet, "job", Decimal(1))), exact(ghg(sheet))
    return {
        "json, g": Fraction(said["total"]["gco2e"]["jsc"]),
        "model card, g": Fraction(card_grams(sheet)),
        "codecarbon, kg": Fraction(Decimal(rows(sheet)[0]["emissions"])) * 1000,
        "cyclonedx, t": Fraction(consumptions(sheet)[0]["co2CostEquivalent"]["value"]) * 1_000_000,
        "sci, g": Fraction(score["operational_gco2e"]),
        "ghg, t": Fraction(split["scope_2"]["location_based_tco2e"]) * 1_000_000,
    }


def test_one_job_has_the_same_mass_in_every_format() -> None:
    found = grams_in_every_format(job())
    assert found == dict.fromkeys(found, Fraction(133_333_332_223, NG_PER_G))


@given(st.integers(0, 10**21), st.integers(0, 10**21))
def test_any_job_has_the_same_mass_in_every_format(operation: int, cooling: int) -> None:
    found = grams_in_every_format(replace(job(), terms_ng={"operation": operation, "cooling": cooling}, taxes_ng={}))
    assert found == dict.fromkeys(found, Fraction(operation + cooling, NG_PER_G))


@given(st.integers(1, 10**18), st.sampled_from(["1", "1.08", "1.58"]))
def test_any_job_has_the_same_energy_in_every_format(energy_uj: int, pue: str) -> None:
    terms: dict[Term, int] = {"operation": 10**12, "cooling": int(10**12 * (Decimal(pue) - 1))}
    record = replace(job(), energy_uj={("cpu", "direct", "measured"): energy_uj}, terms_ng=terms)
    sheet = job_sheet(record, uncertainty=None, pue=Decimal(pue))
    with_cooling = Fraction(energy_uj, UJ_PER_KWH) * Fraction(pue)
    found = {
        "codecarbon": Decimal(rows(sheet)[0]["energy_consumed"]),
        "codecarbon, cpu": Decimal(rows(sheet)[0]["cpu_energy"]),
        "cyclonedx": Decimal(consumptions(sheet)[0]["activityEnergyCost"]["value"]),
        "sci": Decimal(exact(sci(sheet, "job", Decimal(1)))["e_kwh"]),
        "ghg": Decimal(exact(ghg(sheet))["energy_with_cooling_kwh"]),
    }
    assert len(set(found.values())) == 1
    assert abs(Fraction(found["sci"]) - with_cooling) <= Fraction(1, 2 * 10**15)
    assert round(Fraction(exact(ghg(sheet))["energy_kwh"]) * UJ_PER_KWH) == energy_uj


def test_no_text_has_the_noise_of_a_float() -> None:
    sheet = job_sheet(replace(job(), terms_ng={"operation": 100_000_000, "cooling": 200_000_000}, taxes_ng={}))
    assert "  emissions: 0.3\n" in model_card(sheet)
    assert rows(sheet)[0]["emissions"] == "0.0003"
    assert '"value": 0.0000003,' in json_text(cyclonedx(sheet))
    for text in (model_card(sheet), codecarbon_csv(sheet), json_text(ghg(sheet)), json_text(to_dict(sheet))):
        assert "30000000000000004" not in text


# Hugging Face: grams


def test_a_model_card_is_in_grams() -> None:
    """The trap: CodeCarbon's figure is kilograms, and public cards state it as if it were grams."""
    sheet = job_sheet(replace(job(), terms_ng={"operation": 83_524 * NG_PER_G}, taxes_ng={}))
    assert card(sheet)["emissions"] == 83_524
    assert rows(sheet)[0]["emissions"] == "83.524"


def test_a_model_card_says_what_is_known_and_nothing_else() -> None:
    full = card(product_sheet())
    assert full["training_type"] == "fine-tuning"
    assert full["geographical_location"] == "FR"
    assert full["hardware_used"] == "8 x H100"
    assert full["source"].startswith("wattribute 1.2.3: ")
    bare = job_sheet(hardware=(), intensity=replace(job_sheet().intensity, zone=""))
    assert set(card(bare)) == {"emissions", "source"}


def test_a_products_card_is_about_its_creation_jobs() -> None:
    made = [record for record in product_sheet().runs if record.role == "creation"]
    jsc_ng = sum(record.terms_ng["operation"] + record.terms_ng["cooling"] for record in made)
    assert Fraction(card_grams(product_sheet())) == Fraction(jsc_ng, NG_PER_G)
    known = products()
    known["bert-tuned"] = replace(known["bert-tuned"], parents={})
    assert card(product_sheet(known))["training_type"] == "pre-training"
    with pytest.raises(ValueError, match="no creation job"):
        model_card(replace(product_sheet(), groups=product_sheet().groups[2:]))
    with pytest.raises(ValueError, match="a node has no model card"):
        model_card(node_sheet())


@given(st.text(min_size=1, max_size=60))
def test_any_text_survives_a_model_card(text: str) -> None:
    sheet = job_sheet(hardware=(text,))
    if any(0xD800 <= ord(char) < 0xE000 for char in text):
        return  # no text: half a character
    assert card(sheet)["hardware_used"] == text


# CodeCarbon: kilograms


def test_the_columns_are_codecarbons_and_in_its_order() -> None:
    package = importlib.util.find_spec("codecarbon")
    assert package is not None and package.origin is not None
    source = Path(package.origin).parent / "output_methods" / "emissions_data.py"  # importing it runs nvidia-smi
    namespace: dict[str, Any] = {"__name__": "emissions_data"}
    exec(compile(source.read_text(), str(source), "exec"), namespace)
    assert [field.name for field in dataclasses.fields(namespace["EmissionsData"])] == list(COLUMNS)


def test_pandas_reads_the_csv_as_codecarbon_does(tmp_path: Path) -> None:
    pandas: Any = importlib.import_module("pandas")
    path = tmp_path / "emissions.csv"
    path.write_text(codecarbon_csv(product_sheet()))
    frame = pandas.read_csv(path)
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame.run_id) == [record.id for record in product_sheet().runs]
    for column in ("duration", "emissions", "emissions_rate", "cpu_power", "gpu_energy", "energy_consumed", "pue"):
        assert frame[column].dtype.kind in "if"
        assert frame[column].notna().all()
    assert frame.emissions.sum() == pytest.approx(product_sheet().total.sums_ng()["jsc"] / 1e12, rel=1e-12)
    assert (frame.emissions / frame.duration).tolist() == pytest.approx(frame.emissions_rate.tolist(), rel=1e-12)


def test_no_cell_of_the_csv_is_a_formula() -> None:
    (row,) = rows(job_sheet(job("@SUM(A1)", product_id="=cmd|' /C calc'!A0")))
    assert (row["run_id"], row["project_name"]) == ("'@SUM(A1)", "'=cmd|' /C calc'!A0")


def test_a_csv_row() -> None:
    (row,) = rows(job_sheet())
    assert row["timestamp"] == "2025-08-17T19:13:20"
    assert row["duration"] == "18000"
    assert row["emissions"] == "0.133333332223"
    assert Decimal(row["cpu_power"]) == Decimal(row["cpu_energy"]) * 3_600_000 / 18_000
    assert Decimal(row["ram_energy"]) > 0  # theirs is ram, ours dram
    assert row["pue"] == "1.08"
    assert (row["country_iso_code"], row["cpu_model"], row["water_consumed"]) == ("", "", "")


def test_what_has_no_sensor_is_empty_and_not_nothing() -> None:
    (row,) = rows(job_sheet(replace(job(), energy_uj={("cpu", "direct", "measured"): 5})))
    assert (row["gpu_energy"], row["gpu_power"], row["ram_energy"]) == ("", "", "")
    (unknown,) = rows(job_sheet(replace(job(), energy_uj={}, started_unix_ns=0, ended_unix_ns=None)))
    assert (unknown["energy_consumed"], unknown["duration"], unknown["emissions_rate"]) == ("", "", "")
    (nothing,) = rows(job_sheet(replace(job(), energy_uj={}, terms_ng={})))
    assert (nothing["emissions"], nothing["emissions_rate"]) == ("", "")
    (running,) = rows(job_sheet(replace(job(), started_unix_ns=NOW - 10 * S, ended_unix_ns=None)))
    assert running["duration"] == "10"


@pytest.mark.parametrize("name", ['a,"b"', "two\nlines", "1=1", "ünïcode 🦊"])
def test_any_id_survives_the_csv(name: str) -> None:
    (row,) = rows(job_sheet(replace(job(name), product_id=name)))
    assert (row["run_id"], row["project_name"]) == (name, name)


# CycloneDX: tonnes


@pytest.mark.parametrize("make", [job_sheet, product_sheet])
def test_the_ml_bom_is_valid(make: Callable[[], Sheet]) -> None:
    schema: Any = importlib.import_module("cyclonedx.schema")
    validation: Any = importlib.import_module("cyclonedx.validation.json")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(json_text(cyclonedx(make()))) is None


def test_a_wrong_ml_bom_would_be_seen() -> None:
    schema: Any = importlib.import_module("cyclonedx.schema")
    validation: Any = importlib.import_module("cyclonedx.validation.json")
    wrong = json_text(cyclonedx(job_sheet())).replace("tCO2eq", "kgCO2eq")
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(wrong) is not None


def test_an_ml_bom_is_in_tonnes_and_kilowatt_hours() -> None:
    sheet = job_sheet(replace(job(), terms_ng={"operation": 552_100_000 * NG_PER_G}, taxes_ng={}))
    (found,) = consumptions(sheet)
    assert found["co2CostEquivalent"] == {"value": Decimal("552.1"), "unit": "tCO2eq"}
    assert found["activityEnergyCost"]["unit"] == "kWh"
    assert "co2CostOffset" not in found


def test_activities_of_a_tuned_model() -> None:
    found = {one["activity"]: one for one in consumptions(product_sheet())}
    assert list(found) == ["fine-tuning", "design", "inference", "other"]  # retraining is tuning, too
    jobs = {name: one["properties"][0]["value"] for name, one in found.items()}
    assert jobs == {"fine-tuning": "2", "design": "1", "inference": "2", "other": "1"}


@pytest.mark.parametrize("kind", ["platform", "dataset"])
def test_what_is_no_model_has_no_ml_bom(kind: str) -> None:
    sheet = product_sheet()
    assert sheet.product is not None
    with pytest.raises(ValueError, match=f"a {kind} has no ML-BOM"):
        cyclonedx(replace(sheet, product=replace(sheet.product, kind=kind)))  # type: ignore[arg-type]


def test_the_serial_number_is_the_sheets() -> None:
    assert cyclonedx(job_sheet()) == cyclonedx(job_sheet())
    assert cyclonedx(job_sheet())["serialNumber"] != cyclonedx(job_sheet(job("other")))["serialNumber"]


# SCI: grams per unit


def test_the_sci_score_is_operation_and_hardware_per_unit() -> None:
    score = exact(sci(job_sheet(), "token", Decimal(1_000_000)))
    assert score["functional_unit"] == {"name": "token", "count": Decimal(1_000_000), "source": "given"}
    assert score["operational_gco2e"] == Decimal("133.333332223")
    assert score["embodied_gco2e"] == Decimal("31.709791983")
    assert score["score_gco2e_per_unit"] == Decimal("0.000165043124206")
    assert score["asce"]["gco2e"] == Decimal("192.333883553")
    assert "certificates" in score["market_instruments"]


def test_the_standards_own_example() -> None:
    """ISO/IEC 21031: 1,000 kg over 4 years, one hour of it: 28.54 g."""
    hour_ng = 1_000_000 * NG_PER_G // (4 * 8760)
    score = exact(sci(job_sheet(replace(job(), terms_ng={"hardware": hour_ng}, taxes_ng={})), "hour", Decimal(1)))
    assert round(score["score_gco2e_per_unit"], 2) == Decimal("28.54")


def test_consumer_and_provider_have_their_own_jobs() -> None:
    score = exact(sci(product_sheet(), "request", Decimal(100)))["sci_for_ai"]
    assert (score["consumer"]["jobs"], score["provider"]["jobs"]) == (3, 3)
    assert score["provider"]["score_gco2e_per_unit"] is None
    whole = exact(sci(product_sheet(), "request", Decimal(100)))
    for name in ("operational_gco2e", "embodied_gco2e"):
        assert score["consumer"][name] + score["provider"][name] == whole[name]


def test_without_a_unit_it_is_a_job() -> None:
    assert jobs_served(job_sheet()) == ("job", Decimal(1))
    assert jobs_served(product_sheet()) == ("job", Decimal(2))
    with pytest.raises(ValueError, match="state the functional unit"):
        jobs_served(replace(product_sheet(), groups=product_sheet().groups[:2]))
    with pytest.raises(ValueError, match="above 0"):
        sci(job_sheet(), "token", Decimal(0))


# GHG Protocol: tonnes


def test_the_split_counts_what_was_caused_and_not_what_was_billed() -> None:
    split = exact(ghg(job_sheet()))
    assert split["scope_2"]["location_based_tco2e"] == Decimal("0.000133333332223")
    assert split["scope_3"]["category_2_capital_goods"]["tco2e"] == Decimal("0.000031709791983")
    assert split["scope_1"]["tco2e"] is None
    assert split["offsets_tco2e"] is None
    assert "0.000025" not in json_text(ghg(job_sheet()))  # the platform tax


def test_scope_2_by_market_needs_a_contract() -> None:
    none = exact(ghg(job_sheet()))["scope_2"]
    assert none["market_based_tco2e"] is None
    assert "--market-g-per-kwh" in none["market_based_note"]
    green = exact(ghg(job_sheet(), Decimal(0)))["scope_2"]
    assert green["market_based_tco2e"] == 0
    assert green["location_based_tco2e"] == none["location_based_tco2e"]
    energy_uj = sum(job().energy_uj.values())
    tonnes = exact(ghg(job_sheet(), Decimal("123.4")))["scope_2"]["market_based_tco2e"]
    exactly = Fraction(energy_uj, UJ_PER_KWH) * Fraction("1.08") * Fraction("123.4") / 1_000_000
    assert abs(Fraction(tonnes) - exactly) <= Fraction(1, 2 * 10**15)
    with pytest.raises(ValueError, match="at least 0"):
        ghg(job_sheet(), Decimal(-1))


@pytest.mark.parametrize(("factor_type", "contained"), [("lifecycle", True), ("direct", False), ("", None)])
def test_upstream_is_said_to_be_where_it_is(factor_type: str, contained: bool | None) -> None:
    sheet = job_sheet(intensity=replace(job_sheet().intensity, factor_type=factor_type))
    upstream = exact(ghg(sheet))["scope_3"]["category_3_fuel_and_energy"]
    assert upstream["contained_in_scope_2"] is contained
    assert upstream["tco2e"] is None


def test_hours_are_kept() -> None:
    hours = exact(ghg(node_sheet()))["hourly_kwh"]
    assert [hour["energy_kwh"] for hour in hours] == [1, 2, 3]
    assert hours[0]["from"].startswith("2025-08-17T14:13:20")


def test_energy_of_a_pue_that_varied_is_as_much_as_its_grams_say() -> None:
    record = replace(
        job(), energy_uj={("cpu", "direct", "measured"): UJ_PER_KWH}, terms_ng={"operation": 400, "cooling": 80}
    )
    assert job_sheet(record, pue=None, uncertainty=None).used_kwh(UJ_PER_KWH) == Fraction(6, 5)
    assert job_sheet(replace(record, terms_ng={}), pue=None, uncertainty=None).used_kwh(UJ_PER_KWH) == 1


def test_a_pue_that_was_configured_since_is_not_that_of_what_was_booked() -> None:
    terms: dict[Term, int] = {"operation": 400 * NG_PER_G, "cooling": 80 * NG_PER_G}
    record = replace(job(), energy_uj={("cpu", "direct", "measured"): UJ_PER_KWH}, terms_ng=terms, taxes_ng={})
    sheet = job_sheet(record, pue=Decimal("1.5"), uncertainty=None)
    assert rows(sheet)[0]["energy_consumed"] == "1.2"
    assert rows(sheet)[0]["pue"] == "1.2"
    assert exact(ghg(sheet, Decimal(100)))["scope_2"]["market_based_tco2e"] == Decimal("0.00012")
    score = exact(sci(sheet, "job", Decimal(1)))
    assert score["e_kwh"] * score["i_gco2e_per_kwh"] == score["operational_gco2e"] == 480
