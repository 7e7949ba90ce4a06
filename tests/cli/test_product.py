"""`wattribute product ...` against a real archive: what each command writes and shows; bad input writes nothing."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.archive.rows import chain, told, window

from wattribute.agent.archive import Archive, open_archive
from wattribute.agent.cli import main, product_records
from wattribute.agent.cli.product import PARTS
from wattribute.agent.cli.product_lineage import drawn
from wattribute.agent.cli.product_words import mass, masses, years
from wattribute.agent.config import load
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.lineage import Edge, Node
from wattribute.agent.core.products import MICRO
from wattribute.agent.core.provenance import check
from wattribute.agent.core.units import DAY_S, NG_PER_G, YEAR_S
from wattribute.agent.ledger.schema import NODE_KEY

G = NG_PER_G
KG = 1000 * G


class Desk:
    """Someone at a terminal, with a configuration and an archive of their own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "w.toml"
        self.toml(
            '[[product]]\nid = "iks"\nkind = "platform"\nepc_kgco2e = 1000\nlifetime_years = 6\nconcurrency = 10\n'
        )
        self._rows = 0

    def toml(self, text: str) -> None:
        self.file.write_text(f'[agent]\nstate_dir = "{self.file.parent / "state"}"\n{text}')

    def ask(self, *words: str) -> Result:
        return CliRunner(env={"WATTRIBUTE_CONFIG": str(self.file)}).invoke(main, ["product", *words])

    def do(self, *words: str) -> str:
        result = self.ask(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refused(self, *words: str, code: int = 1) -> str:
        """What is said where a command isn't carried out; nothing is written."""
        before = self.events()
        result = self.ask(*words)
        assert result.exit_code == code, result.output
        assert self.events() == before
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return result.stderr

    def document(self, *words: str) -> Any:
        return json.loads(self.do(*words, "--json"))

    def archive(self) -> Archive:
        return open_archive(load(self.file, {}, {}).config)

    def events(self) -> list[tuple[int, dict[str, Any]]]:
        with self.archive() as archive:
            return archive.events()

    def ran(self, job_id: str, *, product: str, role: str = "use", ended: bool = True, **ng: int) -> None:
        """A job of which a node delivered one row."""
        facts = {"product_id": product, "role": role, "ended_unix_ns": 300 if ended else None}
        with self.archive() as archive:
            archive.deliver(
                f"node-{job_id}", "windows", chain([told(job_id, node=f"node-{job_id}", facts=facts, **ng)])
            )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def worked_example(desk: Desk) -> None:
    """A parent with an EPC of 1,000 g that gave a child half of itself."""
    desk.do("add", "bert", "--kind", "model", "--epc-kg", "1", "--lifetime-years", "3", "--scope", "fleet")
    desk.do("freeze", "bert", "--deployed", "2020-01-01")
    desk.do("add", "distil", "--parent", "bert=0.5")
    desk.do("cost", "distil", "--g", "0", "--note", "nothing more")


def test_the_worked_example(desk: Desk) -> None:
    worked_example(desk)
    bert, distil = desk.document("epc", "bert"), desk.document("epc", "distil")
    assert bert["recovery"]["own_users_gco2e"] == bert["inherited_by_children_gco2e"] == 500
    assert distil["gco2e"]["inherited"] == {"bert": {"low": 500, "central": 500, "high": 500}}
    assert distil["gco2e"]["total"]["central"] == 500


def test_the_papers_formula_from_creation_jobs_a_model_and_data_sets(desk: Desk) -> None:
    """EPC(m) = ASC^e(j) + w1 * EPC(m') + w2 * sum of EPC(d_i)."""
    for name, kg in (("m2", "650"), ("d1", "40"), ("d2", "3")):
        desk.do("add", name, "--epc-kg", kg)
    desk.do("add", "m", "--parent", "m2=0.3", "--parent", "d1=0.125", "--parent", "d2=0.125")
    desk.ran("tune", product="m", role="creation", operation=10 * KG, hardware=KG, platform=KG)
    desk.ran("serve", product="m", operation=99 * KG)
    found = desk.document("epc", "m")
    assert found["gco2e"]["total"]["central"] == pytest.approx(12_000 + 0.3 * 650_000 + 0.125 * 43_000, rel=1e-12)
    assert (found["creation_jobs"], found["basis"]) == (1, "recorded")


def test_list_has_those_of_the_configuration_and_of_the_registry(desk: Desk) -> None:
    assert [row["product_id"] for row in desk.document("list")] == ["iks"]
    desk.do("add", "wiki", "--kind", "dataset", "--version", "2020", "--epc-kg", "100", "--epc-low-kg", "80")
    desk.do("add", "bert", "--parent", "wiki=0.4", "--runs-on", "iks", "--owner", "ada", "--overhead-g-per-min", "0.5",
            "--concurrency", "2.5", "--retraining-interval-days", "7", "--boundary", "all of it")  # fmt: skip
    bert, iks, wiki = desk.document("list")
    assert (iks["where"], wiki["where"]) == ("configuration", "registry")
    assert wiki["epc_gco2e"] == {"low": 80_000, "central": 100_000, "high": 100_000}
    assert bert["parents"] == [{"id": "wiki", "weight": 0.4}]
    assert (bert["runs_on"], bert["owners"], bert["boundary"]) == (["iks"], ["ada"], "all of it")
    assert (bert["overhead_g_per_min"], bert["concurrency"]) == (0.5, 2.5)
    assert bert["retraining_interval_s"] == 7 * DAY_S
    assert (bert["epc_gco2e"], bert["missing"]) == (None, ["bert"])
    text = desk.do("list")
    assert "wiki 0.4" in text and "100 kg (80 kg to 100 kg)" in text and "unknown" in text


def test_list_of_nothing_says_how_to_begin(desk: Desk) -> None:
    desk.toml("")
    assert desk.document("list") == []
    assert "wattribute product add" in desk.ask("list").stderr


def test_the_configuration_counts_before_the_registry_and_list_says_so(desk: Desk) -> None:
    desk.do("add", "bert", "--epc-kg", "5")
    desk.toml('[[product]]\nid = "bert"\nepc_kgco2e = 7\nlifetime_years = 1\nscope = "node"\n')
    assert desk.document("show", "bert")["epc_gco2e"]["central"] == 7000
    assert "configuration (it counts before the registry's)" in desk.do("list")


def test_show_has_costs_children_and_history(desk: Desk) -> None:
    worked_example(desk)
    desk.do("add", "site", "--runs-on", "iks", "--concurrency", "3", "--overhead-g-per-min", "2", "--version", "v2")
    found = desk.document("show", "distil")
    assert [(cost["note"], cost["gco2e"]["central"]) for cost in found["costs"]] == [("nothing more", 0)]
    assert [event["event"] for event in found["history"]] == ["add", "cost"]
    assert desk.document("show", "bert")["children"] == [{"id": "distil", "weight": 0.5}]
    assert "made from    bert, weight 0.5" in desk.do("show", "distil")
    bert, site = desk.do("show", "bert"), desk.do("show", "site")
    assert "deployed     2020-01-01T00:00:00Z" in bert and "gave to      distil, weight 0.5" in bert
    assert "overhead     2 g a minute" in site and "(service v2, open)" in site and "concurrency  3" in site


def test_epc_shows_parts_bounds_and_what_is_late(desk: Desk) -> None:
    desk.do("add", "m", "--lifetime-years", "1", "--scope", "node")
    desk.ran("tune", product="m", role="creation", operation=500 * G)
    desk.ran("more", product="m", role="creation", ended=False, operation=100 * G)
    desk.do("cost", "m", "--person-days", "3", "--kg-per-day", "10", "--low", "20", "--high", "60", "--note", "labels")
    found = desk.document("epc", "m")
    assert found["gco2e"]["creation_jobs"]["central"] == 600
    assert found["gco2e"]["entered"] == {"low": 20_000, "central": 30_000, "high": 60_000}
    assert (found["creation_jobs"], found["creation_jobs_running"]) == (2, 1)
    frozen = desk.ask("freeze", "m")
    assert "creation jobs still run (more)" in frozen.stderr
    assert "EPC 30.6 kg (" in frozen.stdout
    desk.ran("late", product="m", role="creation", operation=400 * G)
    assert "shown as under-recorded, not billed" in desk.ask("cost", "m", "--g", "1", "--note", "late").stderr
    text = desk.do("epc", "m")
    assert "recorded by now" in text and "under-recorded by 401 g, not applied" in text
    assert desk.document("epc", "m")["gco2e"]["total"]["central"] == 30_600


def test_the_bounds_of_creation_jobs_are_those_of_the_configuration(desk: Desk) -> None:
    desk.do("add", "m")
    desk.ran("tune", product="m", role="creation", hardware=500 * G, operation=500 * G)
    assert desk.document("epc", "m")["gco2e"]["own"]["high"] > 2500  # energy modelled, the world's intensity
    server = '[[embodied]]\ncomponent = "server"\nkgco2e = 10\nkgco2e_low = 5\n'
    desk.toml(f"[carbon]\npue = 1\nintensity_g_per_kwh = 400\n{server}")
    own = desk.document("epc", "m")["gco2e"]["own"]
    assert own["low"] == pytest.approx(250 + 500 * 0.5 * 0.5)
    assert own["high"] == pytest.approx(500 + 500 * 2 * 2 * 1.05)


def test_epc_shows_what_was_recovered_and_fails_where_it_is_more_than_all(desk: Desk) -> None:
    worked_example(desk)
    desk.ran("user", product="bert", tax__product__bert=300 * G)
    found = desk.document("epc", "bert")["recovery"]
    assert (found["recovered_gco2e"], found["own_users_gco2e"], found["left_s"]) == (300, 500, 0)
    assert (found["expected_gco2e"], found["over_recovered_gco2e"]) == (500, -200)
    assert "under-recovered by 200 g" in desk.do("epc", "bert")
    desk.ran("another", product="bert", tax__product__bert=201 * G)
    result = desk.ask("epc", "bert", "--json")
    assert result.exit_code == 1
    assert "bear 1 g more than its EPC" in result.stderr
    assert json.loads(result.stdout)["recovery"]["excess_gco2e"] == 1
    assert "over-recovered by 1 g" in desk.ask("epc", "bert").stdout


def test_both_ways_of_writing_off_are_shown_where_units_are_declared(desk: Desk) -> None:
    desk.do("add", "llm", "--epc-kg", "1", "--amortise", "units", "--expected-units", "1e4", "--unit", "token")
    desk.do("add", "distil", "--parent", "llm=0.5", "--epc-kg", "0")
    assert "price" not in desk.do("freeze", "llm")
    text = desk.do("epc", "llm")
    assert "by units                 0.05 g per token, 10,000 expected (what its users pay)" in text
    assert "lifetime                 none\n" in text and "by time" not in text
    desk.do("add", "llm", "--update", "--expected-units", "20000")
    served = {"units.token.llm": 150 * MICRO, "units.token.llm.acme": 50 * MICRO, "units.request.llm": 9 * MICRO}
    with desk.archive() as archive:
        row = window(NODE_KEY, "", node="n1")._replace(content=json.dumps(served))
        archive.deliver("n1", "windows", chain([row]))
    desk.ran("server", product="llm", tax__product__llm=6 * G)
    text = desk.do("epc", "llm")
    assert "0.025 g per token, 20,000 expected, 200 served by its own jobs: 5 g due (what its users pay)" in text
    assert "expected by now          5 g: over-recovered by 1 g" in text
    found = desk.document("epc", "llm")
    assert found["amortised"] == desk.document("show", "llm")["amortised"] == {
        "in_force": "units", "unit": "token", "expected_units": 20_000, "served_units": 200, "gco2e_per_unit": 0.025,
        "due_by_time_gco2e": None, "due_by_units_gco2e": 5,
    }  # fmt: skip
    assert found["recovery"]["over_recovered_gco2e"] == 1
    assert "amortised    by units, 0.025 g per token" in desk.do("show", "llm")


def test_a_product_by_time_shows_what_its_units_would_cost(desk: Desk) -> None:
    desk.do("add", "llm", "--epc-kg", "365", "--lifetime-years", "1", "--scope", "node", "--expected-units", "0.5")
    desk.do("freeze", "llm", "--deployed", "2020-01-01")
    text = desk.do("epc", "llm")
    assert "by time                  1 kg a day: 365 kg due (what its users pay)" in text
    assert "by units                 7.3e+05 g per request, 0.5 expected (to compare)" in text
    assert desk.document("epc", "llm")["amortised"]["due_by_units_gco2e"] is None, "nobody tells what was served"
    assert desk.document("list")[-1]["expected_units"] == 0.5


def test_nothing_is_given_away_that_was_paid_already(desk: Desk) -> None:
    desk.do("add", "bert", "--epc-kg", "1", "--lifetime-years", "3", "--scope", "fleet", "--status", "frozen")
    desk.ran("user", product="bert", tax__product__bert=700 * G)
    said = desk.refused("add", "distil", "--parent", "bert=0.5")
    assert "have paid 700 g already; at most a weight of 0.3 is left" in said
    desk.do("add", "distil", "--parent", "bert=0.3")


def test_a_missing_epc_is_named_and_stops_freezing(desk: Desk) -> None:
    desk.do("add", "data")
    desk.do("add", "m", "--parent", "data=0.5")
    desk.do("cost", "m", "--g", "5", "--note", "x")
    assert 'nothing says what "data" cost to make' in desk.do("epc", "m")
    assert desk.document("epc", "m")["missing"] == ["data"]
    assert 'nothing says what "data" cost' in desk.refused("freeze", "m")


def test_lineage_is_a_tree_and_a_graph(desk: Desk) -> None:
    desk.do("add", "wiki", "--kind", "dataset", "--epc-kg", "100")
    desk.do("add", "books", "--epc-kg", "10")
    desk.do("add", "mix", "--epc-kg", "0", "--parent", "wiki=0.2", "--parent", "books=1")
    desk.do("add", "bert", "--epc-kg", "1", "--parent", "mix=0.5", "--parent", "wiki=0.4")
    desk.do("add", "distil", "--epc-kg", "0", "--parent", "bert=0.5", "--parent", "mix=0.1")
    assert desk.do("lineage", "distil").splitlines() == [
        "distil (service, EPC 31 kg)",
        "├─ bert (service, EPC 56 kg): weight 0.5 brings 28 kg",
        "│  ├─ mix (service, EPC 30 kg): weight 0.5 brings 15 kg",
        "│  │  ├─ wiki (dataset, EPC 100 kg): weight 0.2 brings 20 kg",
        "│  │  └─ books (service, EPC 10 kg): weight 1 brings 10 kg",
        "│  └─ wiki (dataset, EPC 100 kg): weight 0.4 brings 40 kg",
        "└─ mix (service, EPC 30 kg): weight 0.1 brings 3 kg (above)",
    ]
    assert "nothing was made from it" in desk.do("lineage", "distil", "--children")
    assert desk.do("lineage", "bert", "--children").splitlines()[-2:] == [
        "made from it:",
        "└─ distil (service, EPC 31 kg): weight 0.5 brings 28 kg",
    ]
    graph = desk.document("lineage", "bert", "--children")
    assert {node["id"]: node["depth"] for node in graph["nodes"]} == {
        "bert": 0, "mix": 1, "wiki": 2, "books": 2, "distil": -1,
    }  # fmt: skip
    edges = {(edge["parent"], edge["child"]): edge for edge in graph["edges"]}
    assert edges["mix", "bert"] == {
        "parent": "mix", "child": "bert", "weight": 0.5,
        "inherited_gco2e": {"low": 15_000, "central": 15_000, "high": 15_000},
    }  # fmt: skip


def test_a_long_lineage_is_drawn() -> None:
    nodes = {f"p{n}": Node(id=f"p{n}", kind="model", status="open", epc=None, depth=n) for n in range(5000)}
    branches = {
        f"p{n}": [(f"p{n + 1}", Edge(parent=f"p{n + 1}", child=f"p{n}", weight=Fraction(1), inherited=None))]
        for n in range(4999)
    }
    assert len(list(drawn("p0", nodes, branches))) == 5000


def test_costs_are_known_by_their_id(desk: Desk) -> None:
    desk.do("add", "m")
    bill = ("cost", "m", "--kgco2e", "4", "--note", "cloud bill", "--id", "bill-1")
    assert "known already" not in desk.do(*bill)
    assert "known already" in desk.do(*bill)
    assert len(desk.events()) == 2
    wrong = desk.refused("cost", "m", "--kgco2e", "5", "--note", "cloud bill", "--id", "bill-1")
    assert "another cost with the id \"bill-1\" (4 kg, 'cloud bill'); add --replace" in wrong
    desk.do("cost", "m", "--kgco2e", "5", "--note", "cloud bill", "--id", "bill-1", "--replace")
    assert desk.document("epc", "m")["gco2e"]["entered"]["central"] == 5000
    desk.do("cost", "m", "--g", "1", "--note", "a")
    desk.do("cost", "m", "--g", "1", "--note", "a")  # without an id each is one more
    assert desk.document("epc", "m")["gco2e"]["entered"]["central"] == 5002


def test_a_computed_epc_of_the_configuration_is_entered_and_frozen_here(desk: Desk) -> None:
    desk.toml('[[product]]\nid = "m"\nlifetime_years = 1\nscope = "node"\n')
    assert desk.document("show", "m")["status"] == "open"
    desk.do("cost", "m", "--g", "9", "--note", "x")
    desk.do("freeze", "m", "--deployed", "2026-03-01T12:00:00+02:00")
    found = desk.document("show", "m")
    assert (found["status"], found["deployed_at"]) == ("frozen", "2026-03-01T10:00:00Z")
    assert found["epc_gco2e"]["central"] == 9


def test_update_changes_what_is_given_and_nothing_else(desk: Desk) -> None:
    desk.do("add", "m", "--kind", "model", "--epc-kg", "3", "--parent", "iks=0.1", "--runs-on", "iks")
    desk.do("add", "m", "--update", "--version", "2", "--epc-computed", "--parent", "", "--runs-on", "")
    found = desk.document("show", "m")
    assert (found["kind"], found["version"], found["epc_gco2e"]) == ("model", "2", None)
    assert (found["parents"], found["runs_on"]) == ([], [])
    assert [event["event"] for event in found["history"]] == ["add", "set"]


def test_what_a_platform_is_split_by_is_shown_and_may_change(desk: Desk) -> None:
    desk.do("add", "gw", "--kind", "platform", "--scope", "node", "--tax-by", "units")
    assert "taxed by     units" in desk.do("show", "gw")
    found = desk.document("show", "gw")
    assert (found["tax_by"], found["history"][0]["tax_by"]) == ("units", "units")
    desk.do("add", "gw", "--update", "--tax-by", "weight")
    assert desk.document("show", "gw")["tax_by"] == "weight" and "taxed by" not in desk.do("show", "gw")


@pytest.mark.parametrize("status", ["frozen", "retired"])
def test_a_product_of_the_past_is_added_in_one_go(desk: Desk, status: str) -> None:
    desk.do("add", "old", "--epc-kg", "3", "--status", status, "--deployed", "2021-05-06")
    found = desk.document("show", "old")
    assert (found["status"], found["deployed_at"]) == (status, "2021-05-06T00:00:00Z")


def test_retiring_freezes_what_is_known(desk: Desk) -> None:
    desk.do("add", "m", "--epc-kg", "3")
    desk.do("add", "empty")
    desk.do("retire", "m")
    desk.do("retire", "empty")
    assert [event["event"] for event in desk.document("show", "m")["history"]] == ["add", "freeze", "retire"]
    assert [event["event"] for event in desk.document("show", "empty")["history"]] == ["add", "retire"]
    assert 'parent "m" is retired; nothing new stands on it' in desk.refused("add", "x", "--parent", "m=1")
    assert "is retired already" in desk.refused("retire", "m")


WRONG_USE = [
    (("add", "_m"), "it starts with '_'"),
    (("add", ""), "it is empty"),
    (("add", "m" * 129), "it has 129 characters"),
    (("add", "m", "--parent", "bert"), "isn't ID=WEIGHT"),
    (("add", "m", "--parent", "bert=half"), "is no number"),
    (("add", "m", "--parent", "bert=-0.5"), "isn't between 0 and 1"),
    (("add", "m", "--parent", "bert=1.5"), "isn't between 0 and 1"),
    (("add", "m", "--parent", "bert=nan"), "is no number"),
    (("add", "m", "--parent", "bert=0.5", "--parent", "bert=0.5"), "--parent bert is given twice"),
    (("add", "m", "--runs-on", "iks", "--runs-on", "iks"), "--runs-on iks is given twice"),
    (("add", "m", "--epc-kg", "-1"), "isn't at least 0"),
    (("add", "m", "--epc-kg", "nan"), "isn't a number"),
    (("add", "m", "--epc-kg", "1e16"), "is above"),
    (("add", "m", "--epc-low-kg", "1"), "need --epc-kg"),
    (("add", "m", "--epc-kg", "1", "--epc-low-kg", "2"), "aren't in that order"),
    (("add", "m", "--lifetime-years", "0"), "isn't above 0"),
    (("add", "m", "--lifetime-years", "1e-12", "--scope", "node"), "is below a second"),
    (("add", "m", "--concurrency", "0"), "at least 0.001"),
    (("add", "m", "--retraining-interval-days", "0"), "isn't at least"),
    (("add", "m", "--kind", "modle"), "is not one of"),
    (("add", "m", "--amortise", "use"), "is not one of"),
    (("add", "m", "--expected-units", "0"), "isn't at least 1e-06"),
    (("add", "m", "--unit", "_t"), "it starts with '_'"),
    (("add", "m", "--deployed", "2026-01-01"), "--deployed needs --status frozen or retired"),
    (("add", "m", "--status", "frozen", "--deployed", "soon"), "is no day"),
    (("add", "m", "--epc-computed"), "goes with --update"),
    (("add", "m", "--update"), "needs something to change"),
    (("add", "m", "--update", "--status", "frozen"), "doesn't change the status"),
    (("cost", "m"), "exactly one of --kgco2e, --g and --person-days"),
    (("cost", "m", "--g", "1", "--kgco2e", "1"), "exactly one of"),
    (("cost", "m", "--person-days", "3"), "go together"),
    (("cost", "m", "--g", "3", "--kg-per-day", "3"), "go together"),
    (("cost", "m", "--g", "1"), "--note needs a text"),
    (("cost", "m", "--g", "1", "--note", "two\nlines"), "--note needs a text"),
    (("cost", "m", "--g", "1", "--low", "2", "--note", "x"), "aren't in that order"),
    (("cost", "m", "--g", "1", "--note", "x", "--replace"), "needs the --id"),
    (("cost", "m", "--g", "1", "--note", "x", "--id", "_x"), "it starts with '_'"),
    (("freeze", "m", "--deployed", "yesterday"), "is no day"),
    (("shwo", "m"), "Did you mean 'show'?"),
]


@pytest.mark.parametrize(("words", "said"), WRONG_USE, ids=lambda value: " ".join(value)[:60])
def test_wrong_usage_is_exit_2_and_writes_nothing(words: tuple[str, ...], said: str, desk: Desk) -> None:
    assert said in desk.refused(*words, code=2)


REFUSED = [
    (("add", "iks"), "is declared in the configuration"),
    (("add", "bert"), "is registered already"),
    (("add", "m", "--parent", "bret=0.1"), 'isn\'t registered; did you mean "bert"?'),
    (("add", "m", "--parent", "m=0.1"), "can't be its own parent"),
    (("add", "m", "--parent", "bert=0.6"), "gave away all but 0.5 of its EPC"),
    (("add", "m", "--runs-on", "isk"), 'did you mean "iks"?'),
    (("add", "m", "--epc-kg", "1", "--lifetime-years", "1"), "would be billed in full by every node"),
    (("add", "m", "--tax-by", "units", "--scope", "fleet"), "take --scope node without --concurrency"),
    (("add", "iks2", "--tax-by", "reserved", "--concurrency", "2"), "taxes by reserved are split over the jobs of one"),
    (("add", "m", "--amortise", "units"), "say how many it is expected to serve in its life (--expected-units N)"),
    (("add", "bert", "--update", "--amortise", "units", "--expected-units", "5"), "its way of amortising it no longer"),
    (("add", "m", "--status", "frozen"), 'nothing says what "m" cost to make'),
    (("add", "nobody", "--update", "--version", "2"), "isn't registered"),
    (("add", "bert", "--update", "--version", "2"), "is frozen, so its version no longer changes"),
    (("add", "distil", "--update", "--parent", "distil=0.1"), "can't be its own parent"),
    (("add", "distil", "--update", "--epc-kg", "1"), "has costs entered by hand"),
    (("cost", "bert", "--g", "1", "--note", "x"), "has a declared EPC (with --epc-kg)"),
    (("cost", "iks", "--g", "1", "--note", "x"), "has a declared EPC (in the configuration)"),
    (("cost", "nobody", "--g", "1", "--note", "x"), "isn't registered"),
    (("cost", "distil", "--g", "1", "--note", "x", "--id", "y", "--replace"), "to replace"),
    (("freeze", "bert"), "is frozen already"),
    (("freeze", "iks"), "has its EPC declared in the configuration"),
    (("freeze", "nobody"), "isn't registered"),
    (("retire", "iks"), "is declared in the configuration"),
    (("retire", "nobody"), "isn't registered"),
    (("show", "brt"), 'product "brt" isn\'t known; did you mean "bert"?'),
    (("epc", "zzz"), "isn't known. See: wattribute product list"),
    (("lineage", "zzz"), "isn't known"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=lambda value: " ".join(value)[:60])
def test_what_breaks_a_rule_is_exit_1_and_writes_nothing(words: tuple[str, ...], said: str, desk: Desk) -> None:
    worked_example(desk)
    stderr = desk.refused(*words)
    assert said in stderr
    assert stderr.startswith("wattribute: error: ") and len(stderr.splitlines()) == 1


def test_a_cycle_is_named(desk: Desk) -> None:
    desk.do("add", "a", "--epc-kg", "1")
    desk.do("add", "b", "--epc-kg", "1", "--parent", "a=0.5")
    said = desk.refused("add", "a", "--update", "--parent", "b=0.5")
    assert 'product "a" would inherit from itself: a -> b -> a' in said


def test_two_at_once_both_get_in(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[int] = []

    def slow(*arguments: Any) -> None:
        check(*arguments)
        if not met:
            met.append(1)
            desk.do("add", "faster")

    monkeypatch.setattr(product_records, "check", slow)
    desk.do("add", "slower")
    assert [event["id"] for _, event in desk.events()] == ["faster", "slower"]


def test_the_slower_of_two_with_one_name_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[int] = []

    def slow(*arguments: Any) -> None:
        check(*arguments)
        if not met:
            met.append(1)
            desk.do("add", "same")

    monkeypatch.setattr(product_records, "check", slow)
    result = desk.ask("add", "same")
    assert result.exit_code == 1
    assert "registered already" in result.stderr
    assert len(desk.events()) == 1


def test_an_archive_that_takes_nothing_is_no_endless_loop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise LedgerError("disk full")

    monkeypatch.setattr(Archive, "append", full)
    assert "disk full" in desk.refused("add", "m")


def test_an_event_of_a_newer_version_is_said_not_skipped(desk: Desk) -> None:
    with desk.archive() as archive:
        archive.append([{"event": "rename", "id": "a"}], after=0)
    assert "Fix: use the version of wattribute that wrote it" in desk.refused("list")


def test_a_parent_that_left_the_configuration_is_missing(desk: Desk) -> None:
    desk.do("add", "m", "--epc-kg", "1", "--parent", "iks=0.1")
    desk.toml("")
    assert desk.document("epc", "m")["missing"] == ["iks"]
    assert "iks (not registered): weight 0.1 brings unknown" in desk.do("lineage", "m")
    desk.do("add", "m", "--update", "--version", "2")
    assert 'parent "iks" isn\'t registered' in desk.refused("add", "n", "--parent", "iks=0.1")


@pytest.mark.parametrize("part", PARTS)
def test_every_part_takes_a_configuration_file(part: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["product", part, "--config", str(tmp_path / "none.toml"), "a", "b"])
    assert result.exit_code == 2
    assert "No such option" not in result.output


@pytest.mark.parametrize(
    ("mass_ng", "words"),
    [(0, "0 g"), (1, "1e-09 g"), (999 * G, "999 g"), (KG, "1 kg"), (-2 * KG, "-2 kg"), (1234 * KG, "1,234 kg"),
     (10_000 * KG, "10 t"), (12_345_678 * KG, "12,346 t")],
)  # fmt: skip
def test_masses_in_words(mass_ng: int, words: str) -> None:
    assert mass(mass_ng) == words


def test_bounds_and_lifetimes_in_words() -> None:
    assert masses(None) == "unknown"
    assert masses(Bounded(G, 2 * G, 3 * G)) == "2 g (1 g to 3 g)"
    assert [years(None), years(DAY_S), years(2 * YEAR_S)] == ["none", "1 day", "2 years"]
