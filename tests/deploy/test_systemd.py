"""The files for systemd: systemd itself reads them, and says how exposed the service is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tools import require

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy/systemd"
MOST_EXPOSED = 3.0


@pytest.fixture
def analyze() -> str:
    return require("systemd-analyze")


@pytest.fixture(params=["root at first", "never root"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What `make install-systemd` lays down below a folder, with the program that the unit starts."""
    done = subprocess.run(
        [require("make"), "--silent", "install-systemd", f"DESTDIR={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if request.param == "never root":
        (drop_ins := tmp_path / "etc/systemd/system/wattribute.service.d").mkdir(parents=True)
        shutil.copy(FILES / "never-root.conf", drop_ins)
    program = tmp_path / "opt/wattribute/bin/wattribute"
    program.parent.mkdir(parents=True)
    shutil.copy(sys.executable, program)
    return tmp_path


def test_systemd_takes_the_unit_and_finds_it_little_exposed(analyze: str, installed: Path) -> None:
    system = installed / "usr/lib/systemd/system"
    for target in ("basic.target", "sysinit.target", "shutdown.target", "network.target", "multi-user.target"):
        (system / target).write_text("[Unit]\nDescription=a target of systemd's own\n")
    for slice_ in ("system.slice", "-.slice"):
        (system / slice_).write_text("[Unit]\nDescription=a slice of systemd's own\n")
    verified = subprocess.run(
        [analyze, "verify", "--man=no", f"--root={installed}", "wattribute.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    judged = subprocess.run(
        [analyze, "security", "--offline=true", f"--root={installed}", "wattribute.service"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"exposure level for wattribute.service: ([\d.]+)", judged.stdout)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED


@pytest.mark.skipif(os.geteuid() != 0, reason="missing: root")
@pytest.mark.parametrize("installed", ["root at first"], indirect=True)
def test_the_user_and_his_folder_are_made_as_systemd_reads_it(installed: Path) -> None:
    (installed / "etc").mkdir(exist_ok=True)
    for command in (
        [require("systemd-sysusers"), f"--root={installed}", "wattribute.conf"],
        [require("systemd-tmpfiles"), f"--root={installed}", "--create", "wattribute.conf"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    name, _, uid, gid, _, home, shell = (installed / "etc/passwd").read_text().strip().split(":")
    assert (name, home) == ("wattribute", "/var/lib/wattribute")
    assert shell.endswith("nologin")
    made = (installed / "var/lib/wattribute").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (int(uid), int(gid), 0o700)
    assert (installed / "etc/wattribute").is_dir()


@pytest.mark.parametrize("installed", ["root at first"], indirect=True)
def test_nothing_is_switched_on_by_installing(installed: Path) -> None:
    laid_down = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert laid_down == {
        "opt/wattribute/bin/wattribute",  # this test's
        "usr/lib/systemd/system/wattribute.service",
        "usr/lib/sysusers.d/wattribute.conf",
        "usr/lib/tmpfiles.d/wattribute.conf",
    }
