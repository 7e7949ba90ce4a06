"""`dashboards export`: the committed files, byte for byte, wherever they are wanted."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wattribute.agent.cli import main
from wattribute.agent.cli.dashboards import NAMES

COMMITTED = Path(__file__).resolve().parents[2] / "deploy" / "grafana"


def export(*words: str) -> Result:
    return CliRunner().invoke(main, ["dashboards", "export", *words])


def test_it_writes_all_of_them_and_says_where(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "boards"
    done = export(str(folder))
    assert done.exit_code == 0, done.output
    assert done.output.split() == [str(folder / f"{name}.json") for name in NAMES]
    assert {path.name for path in folder.iterdir()} == {path.name for path in COMMITTED.glob("*.json")}
    for path in folder.iterdir():
        assert path.read_bytes() == (COMMITTED / path.name).read_bytes()
        assert path.stat().st_mode & 0o444 == 0o444  # Grafana runs as another user


def test_it_replaces_older_ones_and_has_a_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert export().exit_code == 0
    old = tmp_path / "wattribute-dashboards" / "job.json"
    old.write_text("{}")
    assert export().exit_code == 0
    assert old.read_bytes() == (COMMITTED / "job.json").read_bytes()


def test_one_of_them_can_be_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert export("--stdout", "node").output == (COMMITTED / "node.json").read_text()
    assert list(tmp_path.iterdir()) == []
    assert export("--stdout", "nodes").exit_code == 2


def test_a_folder_that_can_not_be_made_is_one_line_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = export(str(tmp_path / "file" / "boards"))
    assert done.exit_code == 1
    assert done.output.startswith(
        f"wattribute: error: can't make the folder {tmp_path}/file/boards: Not a directory. Fix: "
    )
    assert done.output.count("\n") == 1
