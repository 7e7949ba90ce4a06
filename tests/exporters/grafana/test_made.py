"""The committed dashboards are what the generator makes, and nothing gets lost in the SDK's own types."""

import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from tests.exporters.grafana.boards import BOARDS, FOLDER, NAMES, ROOT

from wattribute.exporters.grafana.__main__ import MADE, written

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_file_is_what_is_made(name: str) -> None:
    assert set(MADE) == set(NAMES)
    assert (FOLDER / f"{name}.json").read_text() == written(MADE[name]()), "run: python -m wattribute.exporters.grafana"


@pytest.mark.parametrize("name", NAMES)
def test_the_package_has_the_same_files(name: str) -> None:
    shipped = ROOT / "exporters" / "grafana" / "dashboards" / f"{name}.json"
    assert shipped.resolve() == FOLDER / f"{name}.json"


@pytest.mark.parametrize("name", NAMES)
def test_the_types_of_grafana_hold_every_key(name: str) -> None:
    register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(BOARDS[name]), cls=JSONEncoder))
    assert list(lost(BOARDS[name], again)) == []


def test_a_key_that_grafana_does_not_know_is_seen() -> None:
    misspelt = {**BOARDS["node"], "tittle": "x", "panels": [{"type": "row", "titel": "x"}]}
    register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(misspelt), cls=JSONEncoder))
    assert {"/tittle", "/panels/0/titel"} <= set(lost(misspelt, again))


def lost(before: Any, after: Any, at: str = "") -> Iterator[str]:
    """Where `after` lacks, or has otherwise, what is in `before`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(value, after[key], f"{at}/{key}")
            else:
                yield f"{at}/{key}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{at}/{number}")
    elif before != after:
        yield at
