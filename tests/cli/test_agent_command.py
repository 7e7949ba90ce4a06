"""`agent`: what is refused before anything starts."""

import pytest
from click.testing import CliRunner

from wattribute.agent.cli import main


def refused(*words: str) -> str:
    result = CliRunner(env={"WATTRIBUTE_CONFIG": None}).invoke(main, ["agent", *words])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_the_network_needs_allow_insecure() -> None:
    assert "--allow-insecure" in refused("--listen", "0.0.0.0:19917")


def test_a_listen_address_that_can_not_be_names_the_flag() -> None:
    assert refused("--listen", "localhost").startswith("wattribute: error: --listen: ")


def test_a_missing_configuration_file() -> None:
    assert "can't be read" in refused("--config", "/nonexistent.toml")


def test_elsewhere_than_on_linux_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    result = CliRunner().invoke(main, ["agent"])
    assert result.exit_code == 1
    assert "Linux only" in result.stderr
