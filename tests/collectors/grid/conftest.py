"""The server that plays every provider, and no proxy between it and us."""

from collections.abc import Iterator

import pytest
from tests.doubles.grid_server import GridServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GridServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with GridServer() as running:
        yield running
