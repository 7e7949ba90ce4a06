"""One PostgreSQL for all tests here, an empty database for each; and the same tests against SQLite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.postgres import Postgres, running
from wattribute.agent.archive import Archive, open_archive
from wattribute.agent.config.schema import Agent, Config, Ledger


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user who runs the tests has measured isn't theirs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Its commits aren't synced: tests of durability start their own."""
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    """A configuration whose archive is empty."""
    agent = Agent(state_dir=str(tmp_path / "state"))
    if request.param == "sqlite":
        return Config(agent=agent)
    server: Postgres = request.getfixturevalue("postgres")
    return Config(agent=agent, ledger=Ledger(url=server.url(server.new_database())))


@pytest.fixture
def archive(config: Config) -> Iterator[Archive]:
    with open_archive(config) as opened:
        yield opened
