"""`wattribute ledger`: what it says of a sound ledger and of one that isn't; exports go out and come in again."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.agent.test_ledger import S, commit, open_ledger, totals
from tests.agent.test_ledger_verify import edited, written

from wattribute.agent.archive import open_archive
from wattribute.agent.cli import main
from wattribute.agent.config import load
from wattribute.agent.core.records import JobRecord
from wattribute.agent.ledger.batch import Batch, Close, JobRow
from wattribute.agent.ledger.files import DATABASE

TABLES = ("windows", "gaps", "corrections")


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    monkeypatch.setenv("WATTRIBUTE_CONFIG", str(tmp_path / "empty.toml"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def here(sound: Path, tmp_path: Path) -> Path:
    state_dir = tmp_path / "here"
    state_dir.mkdir()
    shutil.copy(sound / DATABASE, state_dir / DATABASE)
    return state_dir


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def ledger(what: str, state_dir: Path, *more: str | Path) -> Result:
    return CliRunner().invoke(main, ["ledger", what, "--state-dir", str(state_dir), *map(str, more)])


def good(what: str, state_dir: Path, *more: str | Path) -> str:
    result = ledger(what, state_dir, *more)
    assert result.exit_code == 0, result.output
    return result.stdout


def jobs(state_dir: Path) -> dict[str, JobRecord]:
    with open_archive(load(None, {}, {"agent.state_dir": str(state_dir)}).config, pull=False) as archive:
        return {job.id: job for job in archive.jobs()}


def put(state_dir: Path, sql: str) -> None:
    connection = sqlite3.connect(state_dir / "archive.db", isolation_level=None)
    connection.execute(sql)
    connection.close()


# verify


def test_a_sound_ledger(here: Path) -> None:
    assert good("verify", here).splitlines()[0] == f"{here / DATABASE}: 30 rows, sound"
    said = json.loads(good("verify", here, "--json"))
    assert said["sound"] is True
    assert [(head["table"], head["rows"]) for head in said["stores"][0]["heads"]] == [
        ("windows", 21),
        ("gaps", 6),
        ("corrections", 3),
    ]
    assert not (here / "archive.db").exists(), "nothing is made"


def test_a_changed_row_is_named_and_the_exit_code_says_so(sound: Path, here: Path) -> None:
    edited(sound, here, lambda c: c.execute("UPDATE windows SET job_id = 'x' WHERE position = 4") and None)  # type: ignore[arg-type]
    result = ledger("verify", here)
    assert result.exit_code == 1
    assert "wrong: the chain of windows breaks at position 4 (node n, epoch " in result.stdout
    assert "job_id was changed: 'b' fits its hash, 'x' doesn't" in result.stdout
    said = json.loads(ledger("verify", here, "--json").stdout)
    first = said["stores"][0]["problems"][0]
    assert (said["sound"], first["table"], first["position"], first["column"]) == (False, "windows", 4, "job_id")
    assert (first["job_id"], first["window_start"]) == ("x", "2025-10-09T08:53:20.000000Z")
    heads = ledger("verify", here, "--head")
    assert heads.exit_code == 1
    assert "wrong: " in heads.stderr
    assert all(len(line.split(" ")) == 5 for line in heads.stdout.splitlines())


def test_heads_kept_elsewhere_find_a_chain_made_anew(here: Path, elsewhere: Path, tmp_path: Path) -> None:
    good("export", here, "-o", tmp_path / "x.csv")  # makes the archive
    kept = tmp_path / "heads.txt"
    kept.write_text(good("verify", here, "--head"))
    assert [line.split(" ", 1)[1] for line in kept.read_text().splitlines()] == [
        "21 ledger windows n",
        "6 ledger gaps n",
        "3 ledger corrections n",
        "3 archive/3 corrections n",
        "6 archive/2 gaps n",
        "21 archive/1 windows n",
    ]
    assert f"{kept}: 6 heads, all in their chains" in good("verify", here, "--against", kept)
    anew = open_ledger(elsewhere)
    row = JobRow.of("a", totals(direct=3), {}, S)
    commit(anew, Batch(seq=1, at_unix_ns=2 * S, jobs=[row], closes=[Close.of("a", 2 * S, totals(direct=3))]))
    anew.close()
    good("verify", elsewhere)
    result = ledger("verify", elsewhere, "--against", kept)
    assert result.exit_code == 1
    assert "had the head " in result.stdout
    assert "after 21 rows, and has no such row: it was cut off or made anew" in result.stdout


def test_heads_of_an_archive_that_is_gone_are_missed(here: Path, tmp_path: Path) -> None:
    good("export", here, "-o", tmp_path / "x.csv")
    kept = tmp_path / "heads.txt"
    kept.write_text(good("verify", here, "--head"))
    for path in here.glob("archive.db*"):
        path.unlink()
    result = ledger("verify", here, "--against", kept)
    assert result.exit_code == 1
    assert result.stdout.count("and has no such row: it was cut off or made anew") == 3
    good("export", here, "-o", tmp_path / "x.csv")
    (here / DATABASE).unlink()
    assert ledger("verify", here, "--against", kept).stdout.count("(ledger, node n) had the head") == 3


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (f"{'0' * 64} 0 elsewhere windows n", "line 1: not a"),
        ("", "holds no heads"),
        ("x 1 ledger windows n", "line 1: not a line of"),
        ("ab 1 ledger windows n", "line 1"),
    ],
)
def test_what_holds_no_heads_is_refused(here: Path, tmp_path: Path, lines: str, says: str) -> None:
    (tmp_path / "heads.txt").write_text(lines)
    result = ledger("verify", here, "--against", tmp_path / "heads.txt")
    assert result.exit_code == 1
    assert says in result.stderr


def test_the_archive_is_verified_too(here: Path, tmp_path: Path) -> None:
    good("export", here, "-o", tmp_path / "x.csv")
    put(here, "UPDATE windows SET content = '{\"direct.measured\":7}' WHERE position = 4")
    result = ledger("verify", here)
    assert result.exit_code == 1
    assert f"{here / DATABASE}: 30 rows, sound" in result.stdout
    assert "wrong: windows of n: chain 1 breaks at position 4" in result.stdout


def test_without_a_ledger(elsewhere: Path) -> None:
    result = ledger("verify", elsewhere)
    assert result.exit_code == 1
    assert "there is no ledger in" in result.stderr


# export and import of ledgers


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_out_and_in_again(here: Path, elsewhere: Path, tmp_path: Path, form: str) -> None:
    files = [tmp_path / f"{table}.{form}" for table in TABLES]
    for local in ([], ["--local"]):
        for table, path in zip(TABLES, files, strict=True):
            good("export", here, "--table", table, "-o", path, *local)
    said = json.loads(good("import", elsewhere, "--json", "--dry-run", *files))
    assert [one["added"] for one in said] == [21, 6, 3]
    assert jobs(elsewhere) == {}
    assert "21 rows of windows of 1 node, chains sound: 21 added" in good("import", elsewhere, *files)
    again = json.loads(good("import", elsewhere, "--json", *files))
    assert [(one["added"], one["known"], one["refused"]) for one in again] == [(0, 21, 0), (0, 6, 0), (0, 3, 0)]
    assert jobs(elsewhere) == jobs(here)
    assert "30 rows, sound" in good("verify", elsewhere)
    assert list(tmp_path.glob(".*partial")) == []


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_table_without_rows_goes_out_and_in(elsewhere: Path, here: Path, tmp_path: Path, form: str) -> None:
    good("export", elsewhere, "--table", "gaps", "-o", tmp_path / f"gaps.{form}")
    good("export", here, "-o", tmp_path / f"windows.{form}")
    files = (tmp_path / f"gaps.{form}", tmp_path / f"windows.{form}")
    assert [one["added"] for one in json.loads(good("import", elsewhere, "--json", *files))] == [0, 21]
    assert f"gaps.{form}: 0 rows of gaps of 0 nodes, chains sound: nothing added" in good("import", elsewhere, files[0])


def test_an_export_to_stdout_is_that_of_a_file(here: Path, tmp_path: Path) -> None:
    good("export", here, "-o", tmp_path / "x.csv")
    result = CliRunner().invoke(main, ["ledger", "export", "--state-dir", str(here)])
    assert result.stdout_bytes == (tmp_path / "x.csv").read_bytes()
    assert good("export", here, "--format", "jsonl").count("\n") == 22


def test_what_is_no_file_is_written_to_and_stays(here: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    good("export", here, "--table", "gaps", "-o", tmp_path / "pipe")
    assert os.read(reader, 1 << 16).decode().splitlines() == good("export", here, "--table", "gaps").splitlines()
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    assert ledger("export", here, "--format", "parquet", "-o", tmp_path / "pipe").exit_code == 2


def test_a_stretch_of_time_follows_what_is_there(here: Path, elsewhere: Path, tmp_path: Path) -> None:
    first, rest = tmp_path / "first.csv", tmp_path / "rest.csv"
    good("export", here, "--to", "2025-10-09T08:58:20Z", "-o", first)
    good("export", here, "--from", "2025-10-09T08:58:20Z", "-o", rest)
    refused = ledger("import", elsewhere, rest)
    assert refused.exit_code == 1
    assert "begins at position 8 (node n, " in refused.stderr
    assert "Fix: export without --from and --to" in refused.stderr
    assert "7 added" in good("import", elsewhere, first)
    assert "14 added" in good("import", elsewhere, rest)
    assert "21 known" in good("import", elsewhere, "--dry-run", _exported(here, tmp_path))


def _exported(state_dir: Path, tmp_path: Path) -> Path:
    good("export", state_dir, "-o", tmp_path / "all.csv")
    return tmp_path / "all.csv"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.replace('{""direct.measured"":40}', '{""direct.measured"":41}', 1), "breaks at position 4 (node"),
        (lambda t: "".join(t.splitlines(True)[:-1]), "ends at 20 of 21 rows"),
        (lambda t: "".join([*t.splitlines(True)[:5], *t.splitlines(True)[6:]]), "position 4 is missing"),
        (lambda t: t.replace("row,1,1,", "row,2,1,"), "chain 2 has no head"),
        (lambda t: "".join(t.splitlines(True)[:2]), "of chain 1, which has 21 rows, there is none"),
        (lambda t: t.replace('""schema"":2', '""schema"":3'), "newer wattribute"),
        (lambda t: re.sub(r"(row,1,5,.*,)[0-9a-f]{64},", r"\1zz,", t), "breaks at position 5 "),
    ],
)  # fmt: skip
def test_a_broken_export_is_refused_whole(
    here: Path, elsewhere: Path, tmp_path: Path, edit: Callable[[str], str], says: str
) -> None:
    path = _exported(here, tmp_path)
    path.write_bytes(edit(path.read_bytes().decode()).encode())
    result = ledger("import", elsewhere, path)
    assert result.exit_code == 1
    assert says in result.stderr
    assert jobs(elsewhere) == {}


def _head(**changed: object) -> Callable[[dict[str, Any]], None]:
    def change(head: dict[str, Any]) -> None:
        for name, value in changed.items():
            (head["about"] if name in head["about"] else head)[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_head(schema="x"), "a head's schema can't be 'x'"),
        (_head(parent=1), "a head's parent can't be 1"),
        (_head(parent=[]), "a head's parent can't be []"),
        (_head(forked_after=-1), "a head's forked_after can't be -1"),
        (_head(position=10**30), "a head's position can't be 1000"),
        (_head(hash=None), "a head's hash can't be nothing"),
        (_head(hash="x"), "nothing is imported"),
        (_head(node_id=5), "a head's node_id can't be 5"),
        (_head(node_id="other"), "chain 1 is called that of 'other', and is one of 'n'"),
    ],
)
def test_a_head_that_cannot_be_is_refused(
    here: Path, elsewhere: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    export = tmp_path / "x.jsonl"
    good("export", here, "-o", export)
    first, *rest = export.read_text().splitlines()
    head = json.loads(first)
    change(head)
    export.write_text("\n".join([json.dumps(head), *rest]))
    result = ledger("import", elsewhere, export)
    assert result.exit_code == 1
    assert says in result.stderr
    export.write_text("\n".join([first, first, *rest]))
    assert "two of its chains have the same number" in ledger("import", elsewhere, export).stderr


def test_chains_that_forked_go_out_and_in(here: Path, elsewhere: Path, tmp_path: Path) -> None:
    """A ledger restored from a backup goes on otherwise: both are kept, each row once."""
    backup = (here / DATABASE).read_bytes()
    for boot, direct in (("one", 5), ("two", 7)):
        (here / DATABASE).write_bytes(backup)
        going_on = open_ledger(here, boot_id=boot)
        end = 1_760_002_000 * S
        row = JobRow.of(f"late {boot}", totals(direct=direct), {}, end - S)
        commit(
            going_on,
            Batch(seq=1, at_unix_ns=end, jobs=[row], closes=[Close.of(f"late {boot}", end, totals(direct=direct))]),
        )
        going_on.close()
        _exported(here, tmp_path)
        (here / DATABASE).unlink()
    path = _exported(here, tmp_path)
    assert "added" in good("import", elsewhere, path)
    assert jobs(elsewhere).keys() == {"a/é", "b", "late one", "late two"}
    assert {job: record.energy_uj for job, record in jobs(elsewhere).items()} == {
        job: record.energy_uj for job, record in jobs(here).items()
    }
    assert "nothing added" in good("import", elsewhere, path)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--format", "parquet"], "give -o FILE"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "--from is not before --to"),
        (["--from", "monday"], "monday"),
        (["--table", "doors"], "doors"),
    ],
)
def test_wrong_usage_of_export(here: Path, more: list[str], says: str) -> None:
    result = ledger("export", here, *more)
    assert result.exit_code == 2
    assert says in result.stderr


def test_an_export_that_cannot_be_written_leaves_nothing(here: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    for path in (tmp_path / "x.csv", tmp_path / "absent" / "x.parquet"):
        result = ledger("export", here, "-o", path)
        assert result.exit_code == 1
        assert "can't be written" in result.stderr
    assert list(tmp_path.glob(".*")) == []


# CodeCarbon

COLUMNS_3 = (
    "timestamp,project_name,run_id,experiment_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,"
    "cpu_energy,gpu_energy,ram_energy,energy_consumed,water_consumed,country_name,country_iso_code,region,gpu_model,"
    "codecarbon_version,pue,wue"
)
COLUMNS_2 = (
    "timestamp,project_name,run_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,cpu_energy,"
    "gpu_energy,ram_energy,energy_consumed,country_name,country_iso_code,region,os"
)
COLUMNS_1 = "timestamp,experiment_id,project_name,duration,emissions,energy_consumed,country_name,country_iso_code"
DEFAULTS = {
    "timestamp": "2025-03-01T10:00:00", "project_name": "bert", "run_id": "r1", "experiment_id": "e1",
    "duration": "3600.5", "emissions": "0.000123456789", "cpu_energy": "0.0425", "gpu_energy": "0.1",
    "ram_energy": "0.003", "energy_consumed": "0.1455", "country_iso_code": "FRA",
}  # fmt: skip


def emissions(path: Path, *lines: dict[str, str], columns: str = COLUMNS_3) -> Path:
    names = columns.split(",")
    rows = [",".join({**DEFAULTS, **line}.get(name, "") for name in names) for line in lines or ({},)]
    path.write_text("\n".join([columns, *rows, ""]))
    return path


def test_an_emissions_csv_becomes_jobs_in_exact_integers(elsewhere: Path, tmp_path: Path) -> None:
    path = emissions(tmp_path / "emissions.csv", {}, {"run_id": "r2", "pue": "1.5", "gpu_model": "1 x NVIDIA A100"})
    said = json.loads(good("import", elsewhere, "--product", "bert-ft", "--role", "creation", "--json", path))
    assert said[0]["added"] == ["codecarbon-r1", "codecarbon-r2"]
    assert "nothing added, 2 known before" in good(
        "import", elsewhere, "--product", "bert-ft", "--role", "creation", path
    )
    found = jobs(elsewhere)
    assert found["codecarbon-r1"] == JobRecord(
        id="codecarbon-r1",
        product_id="bert-ft",
        role="creation",
        nodes=("codecarbon-r1",),
        started_unix_ns=1_740_819_599_500_000_000,
        ended_unix_ns=1_740_823_200_000_000_000,
        energy_uj={
            ("cpu", "direct", "modelled"): 153_000_000_000,
            ("gpu", "direct", "modelled"): 360_000_000_000,
            ("dram", "direct", "modelled"): 10_800_000_000,
        },
        terms_ng={"operation": 123_456_789},
        source="codecarbon",
    )
    assert found["codecarbon-r2"].terms_ng == {"operation": 82_304_526, "cooling": 41_152_263}
    assert found["codecarbon-r2"].energy_uj["gpu", "direct", "measured"] == 240_000_000_000
    assert "16 rows" not in good("verify", elsewhere)


@pytest.mark.parametrize(("columns", "job_id"), [(COLUMNS_2, "codecarbon-r1"), (COLUMNS_1, "codecarbon-e1")])
def test_older_columns(elsewhere: Path, tmp_path: Path, columns: str, job_id: str) -> None:
    good("import", elsewhere, emissions(tmp_path / "e.csv", columns=columns))
    found = jobs(elsewhere)[job_id]
    assert sum(found.energy_uj.values()) == 523_800_000_000
    if columns == COLUMNS_1:
        assert found.energy_uj == {("rest", "direct", "modelled"): 523_800_000_000}


def test_lines_of_one_run_are_its_running_total(elsewhere: Path, tmp_path: Path) -> None:
    first = {"emissions": "1e-05", "duration": "10", "timestamp": "2025-03-01T10:00:00"}
    more = {"emissions": "1.5e-05", "duration": "20", "timestamp": "2025-03-01T10:00:10", "cpu_energy": "0.0525",
            "energy_consumed": "0.1555"}  # fmt: skip
    path = emissions(tmp_path / "e.csv", first)
    good("import", elsewhere, path)
    assert "1 longer than before" in good("import", elsewhere, emissions(path, first, first, more))
    assert "1 known before" in good("import", elsewhere, path)
    assert "1 known before" in good("import", elsewhere, emissions(path, first)), "an older copy"
    job = jobs(elsewhere)["codecarbon-r1"]
    assert (job.terms_ng, job.energy_uj["cpu", "direct", "modelled"]) == ({"operation": 15_000_000}, 189_000_000_000)
    assert (job.ended_unix_ns or 0) - job.started_unix_ns == 20 * S
    assert "sound" in good("verify", elsewhere)


def test_tasks_are_jobs_of_their_own_and_never_counted_beside_the_whole(elsewhere: Path, tmp_path: Path) -> None:
    columns = "task_name," + COLUMNS_2
    tasks = emissions(tmp_path / "tasks.csv", {"task_name": "load"}, {"task_name": "fit"}, columns=columns)
    good("import", elsewhere, tasks)
    assert jobs(elsewhere).keys() == {"codecarbon-r1-load", "codecarbon-r1-fit"}
    other = tmp_path / "other"
    other.mkdir()
    good("import", other, emissions(tmp_path / "e.csv"))
    refused = ledger("import", other, tasks)
    assert refused.exit_code == 1
    assert "'codecarbon-r1' is in the archive as a whole" in refused.stderr
    late = ledger("import", elsewhere, emissions(tmp_path / "e.csv"))
    assert late.exit_code == 1
    assert "2 tasks of 'codecarbon-r1' ('codecarbon-r1/fit', ...) are in the archive already" in late.stderr
    both = emissions(tmp_path / "both.csv", {"run_id": "r3", "task_name": "fit"}, {"run_id": "r3"}, columns=columns)
    refused = ledger("import", elsewhere, both)
    assert refused.exit_code == 1
    assert "the file has 'codecarbon-r3' as a whole, and 'codecarbon-r3-fit', which is a part of it" in refused.stderr
    assert jobs(elsewhere).keys() == {"codecarbon-r1-load", "codecarbon-r1-fit"}
    assert "2 known before" in good("import", elsewhere, tasks)
    twice = emissions(tmp_path / "tasks.csv", {"task_name": "fit"}, {"task_name": "fit"}, columns=columns)
    assert "line 3, column task_name" in ledger("import", elsewhere, twice).stderr


def test_a_job_id_of_ones_own(elsewhere: Path, here: Path, tmp_path: Path) -> None:
    path = emissions(tmp_path / "e.csv")
    good("import", elsewhere, "--job-id", "mine", path)
    assert jobs(elsewhere).keys() == {"mine"}
    taken = ledger("import", here, "--job-id", "b", path)
    assert taken.exit_code == 1
    assert "'b' is a job of n already" in taken.stderr
    two = emissions(tmp_path / "two.csv", {}, {"run_id": "r2"})
    assert "--job-id names one job, and" in ledger("import", elsewhere, "--job-id", "x", two).stderr
    for wrong in ("_x", ""):
        assert ledger("import", elsewhere, "--job-id", wrong, path).exit_code == 2
    export = _exported(here, tmp_path)
    assert ledger("import", elsewhere, "--product", "p", export).exit_code == 2


def test_other_figures_of_a_known_run_are_refused(elsewhere: Path, tmp_path: Path) -> None:
    good("import", elsewhere, emissions(tmp_path / "e.csv"))
    for other in ([], ["--product", "p"]):
        changed = {"emissions": "1" if not other else DEFAULTS["emissions"]}
        path = emissions(tmp_path / "e.csv", {"run_id": "new"}, changed)
        result = ledger("import", elsewhere, *other, path)
        assert result.exit_code == 1
        assert "was imported before with other figures, or for another product: nothing is imported" in result.stderr
    assert jobs(elsewhere).keys() == {"codecarbon-r1"}
    assert "sound" in good("verify", elsewhere)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"emissions": "nan"}, "line 2, column emissions: 'nan' is no number"),
        ({"emissions": ""}, "line 2, column emissions: '' is no number"),
        ({"cpu_energy": "-0.1"}, "line 2, column cpu_energy: -0.1 is below 0"),
        ({"emissions": '"0,5"'}, "line 2, column emissions: '0,5' has a decimal comma. Fix: save it with points"),
        ({"emissions": "0,5"}, "line 2: 23 fields, and the header has 22"),
        ({"emissions": "1e99"}, "line 2, column emissions: 1e99 is more than there can be"),
        ({"emissions": "1e9"}, "line 2, column emissions: 1e9 is more than there can be"),
        ({"duration": "inf"}, "line 2, column duration: 'inf' isn't a number"),
        ({"timestamp": "yesterday"}, "line 2, column timestamp: 'yesterday' isn't a time"),
        ({"run_id": "", "experiment_id": ""}, "line 2, column run_id: it is empty"),
        ({"run_id": "x" * 200}, "line 2: 'codecarbon-"),
        ({"pue": "0.5"}, "line 2, column pue: 0.5 is below 1"),
        ({"energy_consumed": "0.1"}, "line 2, column energy_consumed: it is less than its parts"),
        ({"codecarbon_version": "wattribute 1"}, "a report of wattribute's, whose jobs are in its ledger already"),
    ],
)
def test_a_bad_line_is_told_by_line_and_column(
    elsewhere: Path, tmp_path: Path, line: dict[str, str], says: str
) -> None:
    result = ledger("import", elsewhere, emissions(tmp_path / "e.csv", line, {"run_id": "good"}))
    assert result.exit_code == 1
    assert says in result.stderr
    assert jobs(elsewhere) == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (COLUMNS_3.encode() + b"\n", "has a header and no runs"),
        (COLUMNS_3.replace(",", ";").encode() + b"\n", "separated by semicolons. Fix: save it with commas"),
        (COLUMNS_3.replace(",", "\t").encode() + b"\n", "separated by tabs"),
        (b"timestamp,run_id,duration,emissions\n", "line 1: no column energy_consumed"),
        (COLUMNS_3.encode() + b",emissions\n", "line 1: column emissions is there twice"),
        (COLUMNS_3.encode() + b"\n\xff\xfe", "isn't UTF-8"),
        (COLUMNS_3.encode() + b'\n"open', "line 2: "),
        (b"garbage", "it isn't an emissions.csv"),
        (b"\x7fELF\x02\r\0\r garbage", "is neither an export of wattribute's nor an emissions.csv of CodeCarbon"),
    ],
)
def test_what_is_no_emissions_csv(elsewhere: Path, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "e.csv").write_bytes(content)
    result = ledger("import", elsewhere, tmp_path / "e.csv")
    assert result.exit_code == 1
    assert says in result.stderr


def test_a_byte_order_mark_is_passed_over(elsewhere: Path, tmp_path: Path) -> None:
    path = emissions(tmp_path / "e.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert "1 added" in good("import", elsewhere, path)


def test_help_has_every_part() -> None:
    shown: Any = CliRunner().invoke(main, ["ledger", "--help"]).output
    assert all(name in shown for name in ("verify", "export", "import"))


def test_the_way_to_verify_by_hand_is_right(here: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
    program = page.partition("### By hand")[2].partition("```python\n")[2].partition("```")[0]
    good("export", here, "--local", "-o", tmp_path / "windows.jsonl")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == good("verify", here, "--head").split(" ")[0], done.stderr


def test_an_archive_that_is_away_does_not_hide_the_nodes_own_ledger(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    config = tmp_path / "w.toml"
    config.write_text(f'[agent]\nstate_dir = "{tmp_path}"\n[ledger]\nurl = "postgresql://u@127.0.0.1:9/x"\n')
    result = CliRunner().invoke(main, ["ledger", "verify", "--config", str(config), "--json"])
    assert result.exit_code == 1
    node, archive = json.loads(result.stdout)["stores"]
    assert (node["problems"], len(node["heads"])) == ([], 3)
    assert "it wasn't checked" in archive["problems"][0]["problem"]
