"""`wattribute report` over an archive as nodes fill it: jobs, a product with a lineage, nodes; formats and errors."""

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.archive.rows import chain, told, window

from wattribute.agent.archive import open_archive
from wattribute.agent.cli import main
from wattribute.agent.cli.report import unix_ns
from wattribute.agent.config.schema import Agent, Config
from wattribute.agent.ledger.schema import Row
from wattribute.agent.receipts import blank
from wattribute.agent.stored import ReceiptFiles

DAY = 86_400
START = 1_780_000_000  # s; 2026-05-28
S = 1_000_000_000
TERMS: dict[str, Any] = {"operation": 100_000_000_001, "cooling": 20_000_000_000, "hardware": 5_000_000_003}
REQUESTS: dict[str, Any] = {
    "units.request.bert": 40_000_000, "units.token.bert": 8_000_000_000, "units.token.bert.acme": 2_000_000_000,
    "request.uj.bert": 2_000_000_000_000, "request.uj.bert.acme": 400_000_000_001,
    "request.operation.bert": 80_000_000_000, "request.product.bert.acme": 7_000_000_007,
    "idle.uj.bert": 900_000_000_000, "idle.hardware.bert": 5_000_000_003, "request.uj.bert%2E2": 5,
}  # fmt: skip
CONFIG = """
[carbon]
zone = "FR"
pue = 1.2
[[product]]
id = "corpus"
kind = "dataset"
epc_kgco2e = 40
lifetime_years = 5
scope = "node"
[[product]]
id = "bert"
kind = "model"
epc_kgco2e = 12
epc_kgco2e_low = 9
epc_kgco2e_high = 30
lifetime_years = 2
concurrency = 10
deployed = 2026-05-01
parents = [ { id = "corpus", weight = 0.25 } ]
"""


def facts(product: str, role: str = "use", phase: str = "", ended: bool = True) -> dict[str, object]:
    return {
        "product_id": product, "role": role, "phase": phase, "user": "ada", "uses": [],
        "started_unix_ns": START * S, "ended_unix_ns": (START + 300) * S if ended else None,
    }  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a configuration, and an archive that one node has delivered three jobs to."""
    (tmp_path / "c.toml").write_text(CONFIG)
    tax: dict[str, Any] = {"product": 7_000_000_007, "tax__product__bert": 7_000_000_007}
    rows = [
        told("tune", at=START, facts=facts("bert", "creation", "training"), **TERMS),
        window("tune", at=START, direct__measured=3_000_000_000_000),
        told("serve", at=START, facts=facts("bert", "use", "inference"), **TERMS, **tax),
        window("serve", at=START, direct__measured=2_000_000_000_000, idle__measured=1_000_000_000_001),
        window("serve", "gpu", at=START, direct__integrated=600_000_000_000),
        told("open", at=START, facts=facts("notes", ended=False), **TERMS),
        window("open", at=START, direct__modelled=5),
        told("_node", at=START, facts={}, operation=300_000_000_103, cooling=60_000_000_000, hardware=15_000_000_009,
             unattributed__idle__operation=100, **REQUESTS),
        window("_node", at=START, node__measured=6_000_000_000_011, unattributed__idle=5),
        window("_node", "gpu", at=START, node__integrated=600_000_000_000),
    ]  # fmt: skip
    with open_archive(Config(agent=Agent(state_dir=str(tmp_path / "state")))) as archive:
        archive.deliver("n1", "windows", chain(rows))
    return tmp_path


def report(place: Path, *words: str) -> Result:
    env = {
        "HOME": str(place),
        "XDG_STATE_HOME": None,
        "WATTRIBUTE_CONFIG": None,
        "WATTRIBUTE_AGENT__STATE_DIR": str(place / "state"),
        "WATTRIBUTE_AGENT__SOCKET": str(place / "agent.sock"),
    }
    return CliRunner(env=env).invoke(main, ["report", *words, "--config", str(place / "c.toml")])


def good(place: Path, *words: str) -> str:
    result = report(place, *words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_jobs_sheet_is_markdown(place: Path) -> None:
    text = good(place, "job", "serve")
    assert text.startswith("# Carbon data sheet: job serve\n")
    assert "| ASC^e |" in text and "132.000000011" in text
    assert "| bert    | product tax |  7 g | 7.000000007 |" in text
    assert "| user" in text and "ada" in text
    assert "zone" in text and "FR" in text


def test_the_suffix_decides_the_format_and_an_option_more(place: Path) -> None:
    for name, start in (
        ("a.html", "<!doctype html>"),
        ("a.HTM", "<!doctype"),
        ("a.json", "{"),
        ("a.csv", "timestamp,"),
        ("a.md", "# Carbon"),
        ("a", "# Carbon"),
    ):
        assert good(place, "job", "serve", "-o", str(place / name)) == ""
        assert (place / name).read_text().startswith(start)
    good(place, "job", "serve", "--model-card", "-o", str(place / "a.md"))
    assert (place / "a.md").read_text() == (
        "---\nco2_eq_emissions:\n  emissions: 120.000000001\n"
        f'  source: "{_version()}: operation and cooling (JSC) of one job, grams CO2e; hardware not included"\n'
        '  geographical_location: "FR"\n---\n'
    )
    assert good(place, "job", "serve", "-o", "-").startswith("# Carbon")
    refused = report(place, "job", "serve", "-o", str(place / "a.pdf"))
    assert refused.exit_code == 2
    assert "no format is written as .pdf: take .html, .htm, .json" in refused.output
    assert not (place / "a.pdf").exists()


def _version() -> str:
    from wattribute import __version__

    return f"wattribute {__version__}"


def test_one_mass_in_every_format(place: Path) -> None:
    said = json.loads(good(place, "job", "serve", "--json"), parse_float=Decimal)
    assert said["schema"] == "wattribute.report/1"
    assert said["total"]["gco2e"]["jsc"] == Decimal("120.000000001")
    (row,) = csv.DictReader(io.StringIO(good(place, "job", "serve", "--codecarbon-csv")))
    assert row["emissions"] == "0.120000000001"
    assert row["energy_consumed"] == "1.200000000000333"  # 3.6 MJ and a microjoule, with cooling
    bom = good(place, "job", "serve", "--cyclonedx")
    assert '"value": 0.000120000000001,' in bom
    split = json.loads(good(place, "job", "serve", "--ghg"), parse_float=Decimal)
    assert split["scope_2"]["location_based_tco2e"] == Decimal("0.000120000000001")
    score = json.loads(good(place, "job", "serve", "--sci", "--unit", "token=1000"), parse_float=Decimal)
    assert score["score_gco2e_per_unit"] == Decimal("0.125000000004")


def test_bounds_are_there_and_contain_the_value(place: Path) -> None:
    said = json.loads(good(place, "job", "serve", "--json"), parse_float=Decimal)
    for name in ("jsc", "jsce", "asc", "asce"):
        low, high = said["bounds"][name]
        assert low < said["total"]["gco2e"][name] < high
    assert said["bounds"]["dominant"]


def test_what_a_product_cost_is_read_from_its_creation_jobs(place: Path) -> None:
    """Without a declared EPC it is what its creation jobs cost: 125 g, and a quarter of the corpus."""
    config = (place / "c.toml").read_text()
    for line in ("epc_kgco2e = 12\n", "epc_kgco2e_low = 9\n", "epc_kgco2e_high = 30\n"):
        config = config.replace(line, "")
    (place / "c.toml").write_text(config)
    said = json.loads(good(place, "product", "bert", "--json"), parse_float=Decimal)
    assert said["epc"]["own_gco2e"]["central"] == Decimal("125.000000004")
    assert said["epc"]["creation_jobs"] == 1
    assert said["epc"]["own_gco2e"]["low"] < 100 < 150 < said["epc"]["own_gco2e"]["high"]
    assert said["epc"]["gco2e"]["central"] == Decimal("10125.000000004")
    assert json.loads(good(place, "job", "serve", "--json"))["bounds"]["asce"] is not None


def test_with_a_live_provider_the_bounds_are_those_of_an_estimate_too(place: Path) -> None:
    live = CONFIG.replace('zone = "FR"', 'provider = "uk"\nfactor_type = "direct"')
    (place / "c.toml").write_text(live)
    said = json.loads(good(place, "job", "serve", "--json"))
    low, high = said["bounds"]["terms"]["operation"]
    assert low <= said["total"]["gco2e"]["operation"] / 2
    assert high >= said["total"]["gco2e"]["operation"] * 2


def test_an_unknown_parent_leaves_the_epc_open_and_the_bounds_too(place: Path) -> None:
    (place / "c.toml").write_text(CONFIG.replace("epc_kgco2e = 40\n", ""))
    said = json.loads(good(place, "product", "bert", "--json"), parse_float=Decimal)
    assert said["epc"]["missing"] == ["corpus"]
    assert said["epc"]["gco2e"] is None
    assert json.loads(good(place, "job", "serve", "--json"))["bounds"]["asce"] is None
    assert "ASC^e is a lower bound" in good(place, "job", "serve")


def test_a_products_sheet(place: Path) -> None:
    text = good(place, "product", "bert")
    assert "| creation, training |" in text
    assert "| use, inference     |" in text
    assert "| bert    | corpus" in text  # the lineage
    assert "recovered so far" in text and "under-recovered" in text
    said = json.loads(good(place, "product", "bert", "--json"), parse_float=Decimal)
    assert said["epc"]["own_gco2e"] == {"low": 9000, "central": 12000, "high": 30000}
    assert said["epc"]["gco2e"]["central"] == 22000
    assert said["epc"]["recovered_gco2e"] == Decimal("7.000000007")
    assert said["epc"]["recovered"][-1]["gco2e"] == Decimal("7.000000007")
    assert said["billed"] == {"product": Decimal("7.000000007")}
    page = good(place, "product", "bert", "--html")
    assert page.count("<svg role") == 4  # terms, energy, lineage, recovery
    assert 'training_type: "fine-tuning"' in good(place, "product", "bert", "--model-card")


def test_a_products_requests_are_the_ledgers(place: Path) -> None:
    said = json.loads(good(place, "product", "bert", "--json"), parse_float=Decimal)["requests"]
    assert (said["requests"], said["units"]["token"]) == (40, 10_000)
    assert said["energy_j"] == Decimal("2400000.000001")
    assert said["idle"]["gco2e"]["asce"] == Decimal("5.000000003")
    assert said["per_unit"]["request"]["jsce_gco2e"] == 2
    assert said["per_unit"]["token"]["with_idle"]["asce_gco2e"] == Decimal("0.009200000001")
    assert [(one["tenant"], one["requests"], one["units"]["token"]) for one in said["tenants"]] == [
        ("", 40, 8000), ("acme", 0, 2000),
    ]  # fmt: skip
    text = good(place, "product", "bert")
    assert "## Requests" in text and "| acme " in text
    assert "## What it cost to make, by time and by units" in text
    other = json.loads(good(place, "product", "bert", "--json", "--from", "2027-01-01"))
    assert other["requests"] is None and other["amortised"]["served"] == 40
    assert json.loads(good(place, "product", "corpus", "--json"))["amortised"] is None


def test_a_product_that_is_written_off_by_units(place: Path) -> None:
    """12 kg and a quarter of 40 over 100,000 tokens, of which 10,000 were served: 2.2 kg are due."""
    by_units = 'amortise = "units"\nunit = "token"\nexpected_units = 100000\n'
    (place / "c.toml").write_text(CONFIG.replace("concurrency = 10\n", by_units))
    said = json.loads(good(place, "product", "bert", "--json", "--from", "2027-01-01"), parse_float=Decimal)
    assert (said["amortised"]["in_force"], said["amortised"]["served"]) == ("units", 10_000)
    assert said["amortised"]["units"] == {"due_gco2e": 2200, "gco2e_per_unit": Decimal("0.22")}
    assert said["amortised"]["time"]["due_gco2e"] is not None
    assert said["epc"]["expected_gco2e"] == 2200
    assert "10000 of 100000 expected token" in good(place, "product", "bert")


def test_a_score_per_unit_that_the_ledger_counted(place: Path) -> None:
    score = json.loads(good(place, "product", "bert", "--sci", "--unit", "token"), parse_float=Decimal)
    given = json.loads(good(place, "product", "bert", "--sci", "--unit", "token=10000"), parse_float=Decimal)
    assert score["functional_unit"] == {"name": "token", "count": 10_000, "source": "metered requests in the ledger"}
    assert given == score | {"functional_unit": score["functional_unit"] | {"source": "given"}}
    assert score["sci_for_ai"]["consumer"]["score_gco2e_per_unit"] == Decimal("0.0125000000004")
    assert score["asce"]["gco2e_per_unit"] == Decimal("0.0132000000011")
    assert score["asce"]["billed_to_requests_gco2e_per_unit"] == Decimal("0.0087000000007")


def test_a_tag_has_a_sheet_that_says_so(place: Path) -> None:
    assert "a tag that jobs carry" in good(place, "product", "notes")


def test_a_products_time_is_the_asked_for_one(place: Path) -> None:
    nothing = json.loads(good(place, "product", "bert", "--json", "--from", "2027-01-01"), parse_float=Decimal)
    assert nothing["total"]["jobs"] == 0
    assert nothing["epc"]["recovered_gco2e"] == Decimal("7.000000007")  # of its life
    text = good(place, "product", "bert", "--from", "2026-05-01T00:00:00+02:00", "--to", "2026-06-01")
    assert "2026-04-30 22:00:00 UTC to 2026-06-01 00:00:00 UTC" in text


def test_jobs_of_every_role_and_the_rest_are_the_nodes(place: Path) -> None:
    text = good(place, "node")
    assert "Jobs of every role and what nobody was billed for add up to what the nodes used, exactly." in text
    assert "ASC^e is a price, not an inventory" in text
    assert "375.000000112" in text
    assert "| nobody, idle" in text


def test_an_imported_job_isnt_priced_as_this_node_is(place: Path) -> None:
    with open_archive(Config(agent=Agent(state_dir=str(place / "state")))) as archive:
        said = {**facts("old"), "source": "codecarbon"}
        rows: list[Row] = [
            told("codecarbon-1", node="codecarbon-1", at=START, facts=said, operation=9_000, cooling=900),
            window("codecarbon-1", node="codecarbon-1", at=START, direct__measured=3_600_000),
        ]
        archive.deliver("codecarbon-1", "windows", chain(rows))
    said = json.loads(good(place, "job", "codecarbon-1", "--json"), parse_float=Decimal)
    assert (said["basis"], said["pue"], said["intensity"]["grid_zone"]) == ("CodeCarbon", None, "")
    (row,) = csv.DictReader(io.StringIO(good(place, "job", "codecarbon-1", "--codecarbon-csv")))
    assert (row["energy_consumed"], row["emissions"]) == ("0.0000011", "0.0000000099")
    text = good(place, "node")
    assert "1 job was imported or measured without an agent (9.9 µg): no node tells of that" in text
    assert "add up to what the nodes used, exactly" in text


def test_hours_of_a_node(place: Path) -> None:
    split = json.loads(good(place, "node", "--ghg", "--from", "2026-05-28", "--to", "2026-05-29"), parse_float=Decimal)
    assert len(split["hourly_kwh"]) == 24
    told = [hour for hour in split["hourly_kwh"] if hour["energy_kwh"] is not None]  # the others are unknown, not 0
    assert [(hour["from"][11:16], hour["energy_kwh"]) for hour in told] == [("20:00", split["energy_kwh"])]
    assert json.loads(good(place, "node", "--ghg", "--from", "2020-01-01"))["hourly_kwh"] == []


def test_a_job_without_an_agent_has_a_sheet(place: Path) -> None:
    grams = {
        **dict.fromkeys(blank("")["gco2e"], 0.0),
        **dict.fromkeys(("operation", "jsc", "jsce", "asc", "asce"), 0.0002),
    }
    receipt = blank(
        "laptop",
        started_at="2026-05-28T10:00:00.000000Z",
        ended_at="2026-05-28T10:00:10.500000Z",
        duration_s=10.5,
        cpu_s=3.25,
        energy_uj=1_500_000,
        energy_j={"cpu": {"direct": 1.5, "idle": 0.0, "overhead": 0.0}, "gpu": None},
        quality={"measured": 0.0, "integrated": 0.0, "modelled": 1.0},
        method={"cpu": "modelled: 20 W"},
        revision=1,
        gco2e=grams,
        pue=1.0,
        intensity={"gco2e_per_kwh": 480.0, "provider": "default", "method": "average, lifecycle", "quality": "default"},
    )
    assert ReceiptFiles(place / "state", "1").save(receipt)
    said = json.loads(good(place, "job", "laptop", "--json"), parse_float=Decimal)
    assert said["total"]["energy_uj"] == 1_500_000
    assert said["total"]["energy_j"] == [
        {"domain": "cpu", "share": "direct", "quality": "modelled", "energy_j": Decimal("1.5")}
    ]
    assert said["total"]["gco2e"]["asce"] == Decimal("0.0002")
    assert said["total"]["cpu_s"] == Decimal("3.25")
    assert said["basis"] == "in-process"
    assert said["intensity"]["quality"] == "default"


def test_a_product_whose_job_just_began_says_where_to_look(place: Path) -> None:
    running = blank("serve-chat", product_id="chat", started_at="2026-05-28T10:00:00.000000Z")
    assert ReceiptFiles(place / "state", "1").save(running)
    result = report(place, "product", "chat")
    assert result.exit_code == 1
    assert 'no row of product "chat" is closed yet' in result.stderr
    assert result.stderr.endswith("Until then: wattribute report job serve-chat\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["job", "serv"], 1, 'no job "serv" is known here. Did you mean "serve"?'),
        (["job", "nothing like it"], 1, "See: wattribute jobs"),
        (["product", "bertt"], 1, 'no product "bertt" is known. Did you mean "bert"?'),
        (["product", "zzz"], 1, "See: wattribute product list"),
        (["job", "serve", "--from", "2030-01-01"], 1, 'job "serve" used nothing in the asked-for time'),
        (["node", "--from", "2030-01-01"], 1, "no node has told anything of that time"),
        (["product", "corpus", "--cyclonedx"], 1, "a dataset has no ML-BOM"),
        (["product", "notes", "--model-card"], 1, "no creation job of product 'notes' is known"),
        (["product", "corpus", "--sci"], 1, "state the functional unit"),
        (["job", "serve", "--html", "--json"], 2, "one format at a time"),
        (["job", "serve", "--unit", "token=5"], 2, "--unit is for --sci"),
        (["job", "serve", "--sci", "--unit", "=5"], 2, "write NAME=COUNT"),
        (["job", "serve", "--sci", "--unit", "token="], 2, "is no number"),
        (["job", "serve", "--sci", "--unit", "token"], 1, "say how many this job served, --unit token=1000000"),
        (["product", "bert", "--sci", "--unit", "tokens"], 1, "no 'tokens' of product 'bert': it has request, token."),
        (["product", "corpus", "--sci", "--unit", "token"], 1, "no metered request of product 'corpus' is in the"),
        (["job", "serve", "--sci", "--unit", "token=0"], 2, "isn't above 0"),
        (["job", "serve", "--sci", "--unit", "token=many"], 2, "is no number"),
        (["job", "serve", "--sci", "--unit", "token=nan"], 2, "isn't above 0"),
        (["job", "serve", "--sci", "--unit", "token=1e999999"], 2, "beyond what can be"),
        (["job", "serve", "--market-g-per-kwh", "5"], 2, "is for --ghg"),
        (["job", "serve", "--ghg", "--market-g-per-kwh", "-5"], 2, "isn't at least 0"),
        (["job", "serve", "--from", "yesterday"], 2, "write 2026-01-31"),
        (["job", "serve", "--from", "2026-01-01T00:00:00"], 2, "has no offset"),
        (["job", "serve", "--from", "2026-01-02", "--to", "2026-01-01"], 2, "--from isn't before --to"),
        (["node", "--model-card"], 2, "No such option"),
        (["job", "serve", "-o", "/nowhere/at/all.md"], 1, "can't write /nowhere/at/all.md"),
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong(place: Path, words: list[str], code: int, said: str) -> None:
    result = report(place, *words)
    assert result.exit_code == code, result.output
    assert said in result.stderr.replace("\n", " ")
    assert result.stdout == ""


def test_a_file_is_replaced_whole_or_not_at_all(place: Path) -> None:
    path = place / "sheet.html"
    path.write_text("what was there")
    assert report(place, "job", "unknown", "-o", str(path)).exit_code == 1
    assert path.read_text() == "what was there"
    good(place, "job", "serve", "-o", str(path))
    assert path.read_text().endswith("</html>\n")
    assert sorted(one.name for one in place.iterdir() if one.name.startswith(".")) == []
    folder = report(place, "job", "serve", "-o", str(place))
    assert (folder.exit_code, "can't write" in folder.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-02T00:00:00Z", DAY),
        ("2026-05-28T20:26:40Z", START),
    ],
)
def test_times(text: str, seconds: int) -> None:
    assert unix_ns(text) == seconds * S
