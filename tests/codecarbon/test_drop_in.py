"""A script that was written for CodeCarbon: the same arguments, columns and files, and nothing that ends it."""

import ast
import csv
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from pathlib import Path

import pytest

from wattribute.agent.codecarbon import settings
from wattribute.agent.codecarbon.data import EmissionsData, Prices, data_of, gpu_count
from wattribute.agent.codecarbon.file import write_row
from wattribute.agent.receipts import Receipt, blank
from wattribute.exporters.codecarbon_csv import COLUMNS

RUN = EmissionsData(timestamp="2026-01-02T03:04:05", project_name="p", run_id="r1", emissions=0.5)


def theirs(path: str) -> ast.Module:
    return ast.parse(Path(str(distribution("codecarbon").locate_file(path))).read_text(encoding="utf-8"))


def arguments(tree: ast.Module, name: str) -> list[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return arguments(ast.Module(node.body, []), "__init__")
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return [one.arg for one in (*node.args.args, *node.args.kwonlyargs) if one.arg not in ("self", "fn")]
    raise LookupError(name)


def test_arguments_are_codecarbons() -> None:
    tree = theirs("codecarbon/emissions_tracker.py")
    assert list(settings.ONLINE) == arguments(tree, "BaseEmissionsTracker")
    assert set(settings.OFFLINE) == set(arguments(tree, "OfflineEmissionsTracker"))
    known = {*settings.ONLINE, *settings.OFFLINE, "offline"}
    assert set(arguments(tree, "track_emissions")) <= known


def columns_of(name: str) -> list[str]:
    tree = theirs("codecarbon/output_methods/emissions_data.py")
    data = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return [one.target.id for one in data.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]


def test_columns_are_codecarbons() -> None:
    assert list(RUN.values) == columns_of("EmissionsData") == list(COLUMNS)


def test_every_argument_has_an_effect_or_says_why_not() -> None:
    sources = "".join(
        Path(str(settings.__file__)).with_name(name).read_text(encoding="utf-8") for name in ("tracker.py", "data.py")
    )
    used = {name for name in settings.ONLINE if re.search(rf"""['"]{name}['"]""", sources)}
    assert used | settings.INSTEAD.keys() | settings.WITHOUT_EFFECT == set(settings.ONLINE)


def receipt(**parts: object) -> Receipt:
    known = blank("j", **parts)
    return known if isinstance(known, Receipt) else Receipt(known)


USED = {
    "energy_uj": 3_600_000_000_000,
    "energy_j": {"cpu": {"direct": 1_800_000.0, "idle": 900_000.0, "overhead": 0.0}, "dram": {"direct": 900_000.0}},
    "gco2e": {"operation": 400.0, "cooling": 100.0, "jsc": 500.0},
}


@pytest.mark.parametrize(
    ("prices", "emitted_kg", "kwh"),
    [
        (Prices(), 0.5, 1.25),
        (Prices(pue=1.0), 0.4, 1.0),
        (Prices(g_per_kwh=56.0), 0.07, 1.25),
        (Prices(pue=1.5, g_per_kwh=100.0), 0.15, 1.5),
    ],
)
def test_a_receipt_in_their_terms(prices: Prices, emitted_kg: float, kwh: float) -> None:
    told = data_of([receipt(**USED)], run_id="r", project="p", duration_s=3600.0, prices=prices, about={})
    assert (told.emissions, told.energy_consumed) == pytest.approx((emitted_kg, kwh))
    assert told.cpu_energy == pytest.approx(0.75 * kwh)
    assert told.cpu_power == pytest.approx(750 * kwh)
    assert told.gpu_energy == told.gpu_power == (None if gpu_count() is None else 0.0)
    assert vars(told) == dict(told.values)


def test_what_is_not_known_of_a_part_is_not_known_of_the_run() -> None:
    parts = [receipt(**USED), receipt()]
    told = data_of(parts, run_id="r", project="p", duration_s=1.0, prices=Prices(g_per_kwh=1.0), about={})
    assert told.emissions is None and told.energy_consumed is None


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_rows_are_appended_replaced_and_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "emissions.csv"
    path.write_text("an,older,format\n1,2,3\n")
    write_row(path, RUN.values, update=False)
    assert (tmp_path / "emissions.csv.bak").read_text() == "an,older,format\n1,2,3\n"
    write_row(path, {**RUN.values, "run_id": "r2"}, update=False)
    write_row(path, {**RUN.values, "emissions": 0.75, "project_name": "=1+1"}, update=True)
    assert [(row["run_id"], row["emissions"], row["project_name"]) for row in rows(path)] == [
        ("r2", "0.5", "p"),
        ("r1", "0.75", "'=1+1"),
    ]
    assert rows(path)[0]["gpu_energy"] == ""
    assert sorted(child.name for child in tmp_path.iterdir()) == ["emissions.csv", "emissions.csv.bak"]


def test_a_file_that_others_wrote_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "emissions.csv"
    theirs = ["-73.58" if name == "longitude" else "x" for name in COLUMNS]
    path.write_text(",".join(COLUMNS) + "\r\n" + ",".join(theirs))  # edited: no end of line
    write_row(path, RUN.values, update=False)
    write_row(path, RUN.values, update=True)
    assert [(row["run_id"], row["longitude"]) for row in rows(path)] == [("x", "-73.58"), ("r1", "")]


def test_ranks_that_end_together_lose_no_row(tmp_path: Path) -> None:
    path, ranks = tmp_path / "emissions.csv", [f"r{at}" for at in range(8)]
    with ThreadPoolExecutor(len(ranks)) as pool:
        list(pool.map(lambda rank: write_row(path, {**RUN.values, "run_id": rank}, update=rank != "r3"), ranks))
    assert sorted(row["run_id"] for row in rows(path)) == ranks


@pytest.mark.parametrize(
    ("asked", "methods"),
    [
        (None, None),
        ([], set()),
        ("csv, logger", {"csv", "logger"}),
        ([settings.OutputMethod.CSV, "api"], {"csv", "api"}),
    ],
)
def test_output_methods_come_as_names_or_as_text(asked: object, methods: set[str] | None) -> None:
    assert settings.methods(asked) == methods


@pytest.mark.parametrize("value", ["-5", "nan", "inf", "x", [1]])
def test_a_number_that_can_not_be_is_ignored(value: object) -> None:
    assert settings.number({"pue": value}, "pue") is None


def test_their_settings_come_in_their_order(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "here"
    for place, text in ((home, "project_name = a\noutput_dir = b\nunknown = 1\n"), (folder, "output_dir = c\npue=1.5")):
        place.mkdir()
        (place / ".codecarbon.config").write_text(f"[codecarbon]\n{text}")
    environment = {"CODECARBON_OUTPUT_FILE": "d.csv", "codecarbon_PUE": "1.25"}
    asked = settings.effective({"pue": 1.1, "wue": None}, environment, [home, folder], settings.ONLINE)
    assert [asked[name] for name in ("project_name", "output_dir", "output_file", "pue")] == ["a", "c", "d.csv", 1.1]
    assert "unknown" not in asked and "wue" not in asked


@pytest.mark.parametrize(
    ("value", "on"), [("True", True), ("FALSE", False), ("no", False), (0, False), ("a-key", True)]
)
def test_a_switch_may_come_as_text(value: object, on: bool) -> None:
    assert settings.is_set(value) is on


SCRIPT = """
import asyncio, json, os
from wattribute.codecarbon import EmissionsTracker, OfflineEmissionsTracker, track_emissions

told = []
class Handler:
    def out(self, total, delta):
        told.append((total.emissions, delta.emissions))
        raise RuntimeError("a handler that fails")

class Quiet:
    def out(self, total, delta):
        pass

    def task_out(self, tasks, experiment):
        told.append([task.task_name for task in tasks])

    def exit(self):
        told.append("exit")

def work():
    return sum(i * i for i in range(1_500_000))

out = os.environ["OUT"]
tracker = EmissionsTracker("bert", 15, output_dir=out, output_handlers=[Handler(), Quiet()], newer_than_we=1, pue=2)
tracker.start()
work()
tracker.start_task("load")
work()
task = tracker.stop_task()
flushed = tracker.flush()
stopped = tracker.stop()
again = tracker.stop()
if not (child := os.fork()):
    os._exit(tracker.flush() is not None)
alone = os.waitpid(child, 0)[1]
tracker.start()
work()
more = tracker.stop()

@track_emissions(offline=True, country_iso_code="FRA", output_dir=out + "/missing")
async def main():
    work()
    return "done"

print(json.dumps([task.emissions, flushed, stopped, again, more, alone, told, asyncio.run(main()),
    tracker.final_emissions_data.energy_consumed, tracker.run_id]))
"""


def test_a_script_runs_as_it_did(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "OUT": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "WATTRIBUTE_AGENT__SOCKET": str(tmp_path / "none.sock"),
        "WATTRIBUTE_CARBON__INTENSITY_G_PER_KWH": "300",
    }
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    task, flushed, stopped, again, more, alone, told, answer, kwh, run_id = json.loads(run.stdout)
    assert 0 < task < flushed <= stopped == again < more and answer == "done" and alone == 0
    assert more == pytest.approx(kwh * 300 / 1000, abs=5e-12)  # grams are exact to a nanogram
    heard = [one for one in told if one in ("exit", ["load"])]
    assert heard == [["load"], ["load"], "exit", ["load"], "exit"]
    amounts = [one for one in told if one not in heard]
    assert [total for total, _ in amounts] == [flushed, stopped, more]
    assert sum(delta for _, delta in amounts) == pytest.approx(more)
    for said in ("newer_than_we isn't known", "Handler failed: a handler that fails", "writing the file failed"):
        assert said in run.stderr
    written = rows(tmp_path / "emissions.csv")
    assert [row["run_id"] for row in written] == 3 * [run_id]
    assert [float(row["emissions"]) for row in written] == [flushed, stopped, more]
    assert [float(row["duration"]) for row in written] == sorted(float(row["duration"]) for row in written)
    (tasks,) = rows(tmp_path / f"emissions_base_{run_id}.csv")
    assert (tasks["task_name"], float(tasks["emissions"])) == ("load", task)
    assert list(tasks) == columns_of("TaskEmissionsData")
