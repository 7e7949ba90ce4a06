"""Tests of the middlewares begin in a process that has said nothing yet, on a machine without an agent."""

from pathlib import Path

import pytest

from wattribute.agent import process


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("WATTRIBUTE_AGENT__SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setattr(process, "_here", process.Process())
