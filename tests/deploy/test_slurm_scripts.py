"""Slurm's scripts: clean shell, and a job that starts and ends whatever becomes of wattribute."""

import subprocess
from pathlib import Path

import pytest
from tests.tools import require

FILES = Path(__file__).parents[2] / "deploy/slurm"
NAMES = ("prolog", "epilog", "task_epilog", "epilog_slurmctld")
HOSTILE = {"SLURM_JOB_ID": "42", "SLURM_JOB_NAME": "$(touch x)\n`touch x`\"'" + "n" * 9999, "SLURM_JOB_COMMENT": "';x"}


def script(name: str, folder: Path, patience_s: float = 0) -> Path:
    """A script as it is installed: with its own PATH, where `wattribute` is what the folder has under that name; with
    less patience than its own.
    """
    lines = (FILES / f"{name}.sh").read_text().splitlines()
    (at,) = [place for place, line in enumerate(lines) if line.startswith("PATH=")]
    lines[at] = f"PATH={folder}:/usr/bin:/bin"
    text = "\n".join([*lines, ""])
    assert text.count("timeout --kill-after=1 2 wattribute") == 1
    if patience_s:
        text = text.replace(" 2 wattribute", f" {patience_s} wattribute")
    (path := folder / f"{name}.sh").write_text(text)
    path.chmod(0o755)
    return path


def program(folder: Path, text: str) -> None:
    (folder / "wattribute").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "wattribute").chmod(0o755)


def outcomes(folder: Path, patience_s: float = 0, **more: str) -> dict[str, tuple[int, str, str]]:
    """Exit code, stdout and stderr of all scripts, run at once."""
    running = {
        name: subprocess.Popen(
            [script(name, folder, patience_s)],
            env={**HOSTILE, **more},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in NAMES
    }
    done = {name: (*one.communicate(timeout=60), one.returncode) for name, one in running.items()}
    return {name: (code, out, err) for name, (out, err, code) in done.items()}


def test_shellcheck_finds_nothing() -> None:
    paths = [str(FILES / f"{name}.sh") for name in NAMES]
    assert sorted(paths) == sorted(map(str, FILES.glob("*.sh")))
    done = subprocess.run([require("shellcheck"), *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_one_that_hangs_is_given_up_and_the_job_goes_on(tmp_path: Path) -> None:
    program(tmp_path, "echo out; echo err >&2; sleep 600")
    found = outcomes(tmp_path, patience_s=0.2)
    assert {name: (code, out) for name, (code, out, _) in found.items()} == dict.fromkeys(NAMES, (0, ""))
    assert found["task_epilog"][2] == "", "it would be in the job's output"
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", ["echo broken; exit 1", "kill -9 $$"])
def test_one_that_fails_fails_nothing(tmp_path: Path, text: str) -> None:
    program(tmp_path, text)
    assert {(code, out) for code, out, _ in outcomes(tmp_path).values()} == {(0, "")}


def test_without_wattribute_nothing_happens(tmp_path: Path) -> None:
    found = outcomes(tmp_path)
    assert {(code, out) for code, out, _ in found.values()} == {(0, "")}
    assert found["task_epilog"] == (0, "", "")


@pytest.mark.parametrize(("step", "shown"), [("", True), ("4294967291", True), ("0", False), ("4294967290", False)])
def test_the_receipt_is_of_the_batch_script_alone(tmp_path: Path, step: str, shown: bool) -> None:
    program(tmp_path, 'echo "$@"')
    assert outcomes(tmp_path, SLURM_STEP_ID=step)["task_epilog"] == (0, "", "\nslurm receipt\n" if shown else "")
