"""`product compare`: by hand, and from an archive of real rows."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.archive.rows import chain, told, window

from wattribute.agent.archive import open_archive
from wattribute.agent.cli import main
from wattribute.agent.config.schema import Agent, Config

DISTILBERT = (
    *("distilbert", "bert", "--unit", "kWh", "--epc-reuse", "168", "--epc-scratch", "0"),
    *("--cost-reuse", "0.015", "--cost-scratch", "0.025"),
)
MNIST = ("xception", "cnn", "--unit", "kWh", "--epc-reuse", "0.136", "--epc-scratch", "0.005")
G = 10**9
DAY_S = 86_400


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def invoke(state: Path, *words: str, **more: str) -> Result:
    env = {
        "HOME": str(state.parent),
        "WATTRIBUTE_CONFIG": None,
        "WATTRIBUTE_AGENT__STATE_DIR": str(state),
        "WATTRIBUTE_AGENT__SOCKET": str(state / "agent.sock"),
        "COLUMNS": "140",
    }
    return CliRunner(env=env | more).invoke(main, words)


def compare(state: Path, *words: str, **more: str) -> Result:
    return invoke(state, "product", "compare", *words, **more)


def told_of(state: Path, *words: str) -> dict[str, Any]:
    result = compare(state, *words, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def job(
    job_id: str, product: str, role: str, hours: float, /, *, ended: bool = True, **content: int
) -> tuple[Any, ...]:
    """The rows of a job of one window, `hours` after the first; grams of operation and so on."""
    start = round(hours * 3600)
    facts = {
        "product_id": product,
        "role": role,
        "started_unix_ns": start * 10**9,
        "ended_unix_ns": (start + 300) * 10**9 if ended else None,
    }
    joules = content.pop("joules", 0)
    return (
        window(job_id, at=start, direct__measured=joules * 10**6),
        told(job_id, node="n1", at=start, facts=facts, **{name: grams * G for name, grams in content.items()}),
    )


@pytest.fixture
def recorded(state: Path) -> Path:
    """bert (declared, 1 kg), distil (half of it, 200 g operation and 100 g hardware), small (600 g from scratch)."""
    rows = [
        *job("make-distil", "distil", "creation", 0, operation=150, cooling=50, hardware=100, joules=3_600_000),
        *job("make-small", "small", "creation", 0, operation=600, joules=7_200_000),
    ]
    for i in range(4):
        rows += job(
            f"d{i}", "distil", "use", 1 + 6 * i, operation=2, hardware=1, joules=3600, product=5, tax__product__distil=5
        )
        rows += job(f"s{i}", "small", "use", 2 + 6 * i, operation=2, cooling=1, hardware=3, joules=7200)
    rows += job("still", "small", "use", 3, ended=False, operation=1000)
    with open_archive(Config(agent=Agent(state_dir=str(state)))) as archive:
        archive.deliver("n1", "windows", chain(rows))
    for words in (
        ("bert", "--kind", "model", "--epc-kg", "1", "--epc-low-kg", "0.9", "--epc-high-kg", "1.2"),
        ("distil", "--kind", "model", "--parent", "bert=0.5"),
        ("small", "--kind", "model"),
    ):
        added = invoke(state, "product", "add", *words)
        assert added.exit_code == 0, added.output
    return state


def test_distilbert_against_bert_pays_back_after_16_800_passes(state: Path) -> None:
    found = told_of(state, *DISTILBERT, "--jobs-per-day", "400")
    assert (found["verdict"], found["jobs"], found["whole_job"], found["days"]) == ("after", 16_800, 16_801, 42)
    assert found["bounds"]["best"] == found["bounds"]["worst"]
    result = compare(state, *DISTILBERT, "--jobs-per-day", "400")
    assert "after N* = 16,800 jobs: from job 16,801 on" in result.stdout
    assert "42 days" in result.stdout
    assert not state.exists()  # nothing is looked up


def test_mnist_with_transfer_learning_loses_by_27_2_times(state: Path) -> None:
    result = compare(state, *MNIST, "--cost-reuse", "1", "--cost-scratch", "1")
    assert "Never: re-use costs 27.2 times as much up front and the same per job." in result.stdout
    found = told_of(state, *MNIST, "--cost-reuse", "1", "--cost-scratch", "1")
    assert (found["verdict"], found["jobs"], found["days"]) == ("never", None, None)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (("1", "2", "600", "1"), "only until N* = 599 jobs: job 598 is the last"),
        (("599.5", "2", "600", "1"), "only until N* = 0.5 jobs: one job is too many"),
        (("1", "1", "2", "2"), "Always: re-use costs no more"),
        (("1", "1", "1", "1"), "Always: the two cost the same"),
        (("1", "1", "0", "0"), "Never: re-use costs more up front and more per job."),
    ],
)
def test_every_verdict_in_words(state: Path, figures: tuple[str, ...], said: str) -> None:
    options = ("--epc-reuse", "--cost-reuse", "--epc-scratch", "--cost-scratch")
    given = [word for pair in zip(options, figures, strict=True) for word in pair]
    result = compare(state, "a", "b", *given)
    assert result.exit_code == 0
    assert said in result.stdout


def test_what_is_inherited_by_hand(state: Path) -> None:
    """(0.5 * 1000 + 300 - 600) / (3 - 2)"""
    found = told_of(
        state, "a", "b", "--epc-reuse", "300", "--epc-parent", "1000", "--w1", "0.5",
        "--epc-scratch", "600", "--cost-reuse", "2", "--cost-scratch", "2.5:3:4",
    )  # fmt: skip
    assert found["jobs"] == 200
    assert found["bounds"]["best"]["jobs"] == 100
    assert found["bounds"]["worst"]["jobs"] == 400
    assert [row["verdict"] for row in found["sensitivity"]["w1"]] == ["always", "always", "after", "after", "after"]
    # Given as figures, EPC stays as it is; a JSC given moves with the grid.
    assert [row["jobs"] for row in found["sensitivity"]["grid"]] == [4000, 400, 200, 100]
    assert found["sensitivity"]["utilisation"] == []
    assert found["turns"] == [{"assumption": "w1", "at": 0.3, "below": "always", "above": "after"}]


def test_from_the_records(recorded: Path) -> None:
    found = told_of(recorded, "distil", "small")
    assert found["jobs"] == 200  # (0.5 * 1000 + 300 - 600) / (3 - 2)
    assert found["bounds"]["best"]["jobs"] == 150
    assert found["bounds"]["worst"]["jobs"] == 300
    assert found["reuse"]["parents"] == {"bert": 0.5}
    assert found["reuse"]["inherited"] == {"low": 450, "central": 500, "high": 600}
    assert (found["reuse"]["jobs"], found["scratch"]["jobs"]) == (4, 4)  # what still runs isn't counted
    # 8 jobs from hour 1 to hour 20 and 5 minutes
    assert found["jobs_per_day"] == pytest.approx(8 * DAY_S / (19 * 3600 + 300))
    assert found["days"] == pytest.approx(200 / found["jobs_per_day"])
    grid = {row["value"]: row["jobs"] for row in found["sensitivity"]["grid"]}
    # What was declared or is hardware stays: 0.5 * 1000 + 200 k + 100 - 600 k over k.
    assert grid == {0.05: pytest.approx(11_600), 0.5: 800, 1: 200, 2: None}
    busy = [row["jobs"] for row in found["sensitivity"]["utilisation"]]
    assert busy == [
        pytest.approx(100 + 100 / 0.3),
        pytest.approx(100 + 100 / 0.45),
        pytest.approx(100 + 100 / 0.6),
        200,
    ]
    assert {tip["assumption"]: tip["at"] for tip in found["turns"]} == {"w1": 0.3, "grid": 1.5}


def test_the_page_from_the_records(recorded: Path) -> None:
    result = compare(recorded, "distil", "small", "--jobs-per-day", "10")
    out = result.stdout
    assert result.exit_code == 0
    assert result.stderr == ""
    for said in (
        "inherited from bert",
        "w1 = 0.5 of 1,000 (900 to 1,200)",
        "mean JSC of 4 jobs (2 to 2)",
        "At 10 jobs a day (given) that is 20 days.",
        "re-use is ahead after 150 jobs at best, after 300 jobs at worst",
        'What turns the answer: w1 = 0.3; below, "always", above, "after".',
        'What turns the answer: grid x 1.5; below, "after", above, "always".',
        "hardware busy 0.3 of its time",
        "cumulative cost, g CO2e",
    ):
        assert said in out, said


@pytest.mark.parametrize(("cost_of", "jobs"), [("jsc", 200), ("asc", 200 / 3), ("asce", 200 / 3)])
def test_what_a_job_costs(recorded: Path, cost_of: str, jobs: float) -> None:
    """ASC has 1 and 3 g of hardware too; ASC^e less distil's own EPC, which is up front already."""
    assert told_of(recorded, "distil", "small", "--cost-of", cost_of)["jobs"] == pytest.approx(jobs)


def test_in_kwh_from_the_records(recorded: Path) -> None:
    """bert is declared in kg, which is no energy: that has to be said."""
    refused = compare(recorded, "distil", "small", "--unit", "kWh")
    assert refused.exit_code == 1
    assert "'bert'" in refused.stderr
    assert "grams only" in refused.stderr
    found = told_of(recorded, "distil", "small", "--unit", "kWh", "--epc-parent", "4")
    assert found["reuse"]["upfront"]["central"] == 0.5 * 4 + 1
    assert found["scratch"]["upfront"]["central"] == 2
    assert found["jobs"] == (3 - 2) / (0.002 - 0.001)
    assert found["sensitivity"]["grid"] == []


def test_another_weight(recorded: Path) -> None:
    assert told_of(recorded, "distil", "small", "--w1", "1")["jobs"] == 700
    assert told_of(recorded, "distil", "small", "--w1", "0")["verdict"] == "always"


def test_data_sets_keep_their_weights(recorded: Path) -> None:
    invoke(recorded, "product", "add", "corpus", "--kind", "dataset", "--epc-kg", "0.1")
    parents = ("--parent", "bert=0.5", "--parent", "corpus=1")
    assert invoke(recorded, "product", "add", "distil", "--update", *parents).exit_code == 0
    found = told_of(recorded, "distil", "small")
    assert found["jobs"] == 300
    assert found["reuse"]["parents"] == {"bert": 0.5}
    assert [row["reuse_upfront"] for row in found["sensitivity"]["w1"]] == [400, 650, 900, 1150, 1400]


def test_few_jobs_are_a_warning(recorded: Path) -> None:
    rows = [*job("t0", "tiny", "use", 0, operation=3), *job("m", "tiny", "creation", 0, operation=1)]
    with open_archive(Config(agent=Agent(state_dir=str(recorded)))) as archive:
        archive.deliver("n2", "windows", chain([row._replace(node_id="n2") for row in rows]))
    assert invoke(recorded, "product", "add", "tiny").exit_code == 0
    result = compare(recorded, "distil", "tiny")
    assert result.exit_code == 0
    assert "the cost per job of tiny stands on 1 job only" in result.stderr
    assert told_of(recorded, "distil", "tiny")["warnings"] == ["the cost per job of tiny stands on 1 job only"]


def test_past_its_lifetime(recorded: Path) -> None:
    changed = invoke(recorded, "product", "add", "distil", "--update", "--lifetime-years", "1", "--concurrency", "1")
    assert changed.exit_code == 0, changed.output
    slow = compare(recorded, "distil", "small", "--jobs-per-day", "0.5")
    assert "past the lifetime of distil (1 year)" in slow.stdout
    assert told_of(recorded, "distil", "small", "--jobs-per-day", "0.5")["past_lifetime"] is True
    assert told_of(recorded, "distil", "small", "--jobs-per-day", "1")["past_lifetime"] is False


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("distil", "nobody"), 1, "no product 'nobody' is registered"),
        (("nobody", "small"), 1, "no product 'nobody' is registered"),
        (("distil", "bert"), 1, "product 'bert' has no ended job of role use in the archive. Give the cost per job"),
        (("distil", "distil"), 2, "the same product"),
        (("distil", "small", "--w1", "1.5"), 2, "1.5 is above 1"),
        (("distil", "small", "--cost-reuse", "-1"), 2, "-1 isn't at least 0"),
        (("distil", "small", "--cost-reuse", "1,5"), 2, "a dot, no thousands separators"),
        (("distil", "small", "--cost-reuse", "3:2:1"), 2, "aren't in this order"),
        (("distil", "small", "--cost-reuse", "1:2"), 2, "LOW:CENTRAL:HIGH"),
        (("distil", "small", "--cost-reuse", "1e999999999"), 2, "isn't a number"),
        (("distil", "small", "--cost-reuse", "1e31"), 2, "beyond what can be"),
        (("distil", "small", "--cost-reuse", "1." + "0" * 400 + "1"), 2, "more digits than any figure"),
        (("distil", "small", "--jobs-per-day", "0"), 2, "0 isn't above 0"),
        (("distil", "small", "--epc-reuse", "1", "--w1", "0.5"), 2, "--w1 times --epc-parent"),
        (("small", "distil", "--w1", "0.5"), 2, "has no parent in the registry: --w1 needs --epc-parent"),
        (("small", "distil", "--epc-parent", "5"), 2, "--epc-parent needs --w1"),
        (("distil", "small", "--plot", "/nowhere/at/all.svg"), 1, "can't write /nowhere/at/all.svg"),
    ],
)
def test_what_is_refused(recorded: Path, words: tuple[str, ...], code: int, said: str) -> None:
    result = compare(recorded, *words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in " ".join(result.stderr.split())


def test_a_parent_of_unknown_cost_is_no_zero(recorded: Path) -> None:
    invoke(recorded, "product", "add", "secret", "--kind", "model")
    invoke(recorded, "product", "add", "distil", "--update", "--parent", "secret=1")
    result = compare(recorded, "distil", "small")
    assert result.exit_code == 1
    assert "what making product 'secret' cost isn't known" in result.stderr
    assert told_of(recorded, "distil", "small", "--epc-parent", "1000")["jobs"] == 700


def test_the_drawing_needs_no_other_file(state: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "out.svg"
    options = ("--epc-reuse", "150:168:200", "--epc-scratch", "0", "--cost-reuse", "0.015", "--cost-scratch", "0.025")
    assert compare(state, "<distil&bert>", "bert", *options, "--plot", str(drawn)).exit_code == 0
    root = ET.fromstring(drawn.read_text(encoding="utf-8"))
    words = " ".join(text for text in root.itertext())
    assert "<distil&bert> (re-use) against bert (from scratch)" in words
    assert "16,800 jobs" in words
    assert len(root.findall("{http://www.w3.org/2000/svg}polygon")) == 1
    assert not [value for one in root.iter() for name, value in one.attrib.items() if "href" in name or "url" in value]


@pytest.mark.parametrize("width", [40, 80, 140, 300])
def test_the_terminal_s_width_is_kept_by_the_drawing(state: Path, width: int) -> None:
    out = compare(state, *DISTILBERT, COLUMNS=str(width)).stdout
    drawing = out[out.index("cumulative cost") :].splitlines()[:17]
    assert max(map(len, drawing)) <= min(width, 100)
    assert "33,600 jobs" in drawing[-1]
    assert out.isascii()
