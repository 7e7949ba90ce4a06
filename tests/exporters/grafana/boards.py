"""The dashboards as they are committed, for the tests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wattribute.exporters.grafana.queries import panels

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "grafana"
NAMES = ("fleet", "node", "job", "product")
BOARDS: dict[str, dict[str, Any]] = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in NAMES}
UIDS = {f"wattribute-{name}" for name in NAMES}


def drawn() -> Iterator[tuple[str, Any]]:
    """(dashboard, panel) of every panel that shows data."""
    for name, board in BOARDS.items():
        yield from ((name, panel) for panel in panels(board) if panel["type"] not in ("row", "text"))
