"""`jobs` and `receipt` on a machine without an agent: what processes have left in the state directory."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from wattribute.agent.cli import main
from wattribute.agent.receipts import blank
from wattribute.agent.stored import GONE, ReceiptFiles


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def invoke(state: Path, *words: str) -> Result:
    env = {
        "HOME": str(state.parent),
        "XDG_STATE_HOME": None,
        "WATTRIBUTE_CONFIG": None,
        "WATTRIBUTE_AGENT__STATE_DIR": str(state),
        "WATTRIBUTE_AGENT__SOCKET": str(state / "agent.sock"),
        "COLUMNS": "200",
    }
    return CliRunner(env=env).invoke(main, words)


def leave(state: Path, job_id: str, process: str, started_at: str, energy_uj: int) -> None:
    used = {"started_at": started_at, "ended_at": started_at, "duration_s": 1.0, "energy_uj": energy_uj}
    assert ReceiptFiles(state, process).save(blank(job_id, **used))


def test_no_jobs_yet(state: Path) -> None:
    result = invoke(state, "jobs")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "wattribute run" in result.stderr
    assert invoke(state, "jobs", "--json").stdout == "[]\n"


def test_jobs_are_listed_by_their_start(state: Path) -> None:
    leave(state, "second", "1", "2026-01-02T00:00:00Z", 3_000_000)
    leave(state, "first", "1", "2026-01-01T00:00:00Z", 2_000_000)
    lines = invoke(state, "jobs").output.splitlines()
    assert [line.split()[0] for line in lines] == ["JOB", "first", "second"]
    assert [receipt["job_id"] for receipt in json.loads(invoke(state, "jobs", "--json").output)] == ["first", "second"]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"energy_uj": "x"},
        {"started_at": 5},
        {"started_at": "2026-99-01T00:00:00Z"},
        {"uses": "a"},
        {"quality": {}},
        {"gco2e": []},
        {"notes": None},
        {"bounds": {"jsce": [1], "asce": None}},
    ],
)
def test_a_spoilt_receipt_hides_no_other(state: Path, spoilt: dict[str, Any]) -> None:
    leave(state, "good", "1", "2026-01-01T00:00:00Z", 2_000_000)
    assert ReceiptFiles(state, "2").save({**blank("bad", started_at="2026-01-01T00:00:00Z"), **spoilt})
    result = invoke(state, "jobs")
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()] == ["JOB", "good"]


def test_the_parts_of_a_job_add_up(state: Path) -> None:
    leave(state, "ranks", "1", "2026-01-01T00:00:00Z", 2_000_000)
    leave(state, "ranks", "2", "2026-01-01T00:00:00Z", 3_000_000)
    receipt = json.loads(invoke(state, "receipt", "ranks", "--json").output)
    assert receipt["energy_uj"] == 5_000_000
    assert "ranks" in invoke(state, "receipt", "ranks").output


def test_a_killed_process_ended_with_its_last_word(state: Path) -> None:
    for job_id, age_s in (("killed", 130), ("alive", 40)):
        running = {"started_at": "2026-01-01T00:00:00Z", "duration_s": 30.0, "energy_uj": 1, "settled": False}
        assert ReceiptFiles(state, job_id).save(blank(job_id, **running))
        written_s = time.time() - age_s
        for path in (state / "receipts").iterdir():
            if json.loads(path.read_text())["job_id"] == job_id:
                os.utime(path, (written_s, written_s))
    killed = json.loads(invoke(state, "receipt", "killed", "--json").output)
    assert killed["ended_at"] is not None and GONE in killed["notes"] and not killed["settled"]
    assert json.loads(invoke(state, "receipt", "alive", "--json").output)["ended_at"] is None


def test_an_unknown_job_is_exit_1(state: Path) -> None:
    result = invoke(state, "receipt", "nobody")
    assert result.exit_code == 1
    assert result.stderr == "wattribute: error: no job 'nobody' is known here. See: wattribute jobs\n"


def test_a_file_that_is_no_receipt_is_passed_over(state: Path) -> None:
    (state / "receipts").mkdir(parents=True)
    (state / "receipts" / "a.json").write_text('{"schema": "wattribute.receipt/1", "job_id": "half"}')
    (state / "receipts" / "b.json").write_text("not JSON")
    assert invoke(state, "jobs", "--json").stdout == "[]\n"
