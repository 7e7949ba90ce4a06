"""Writes deploy/grafana/{fleet,node,job,product}.json of the source tree: `python -m wattribute.exporters.grafana`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wattribute.exporters.grafana import fleet, job, node, product

MADE: dict[str, Callable[[], dict[str, Any]]] = {
    "fleet": fleet.dashboard,
    "node": node.dashboard,
    "job": job.dashboard,
    "product": product.dashboard,
}
FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana"


def written(dashboard: dict[str, Any]) -> str:
    """The text of a dashboard's file: keys in order, so that a change shows as what it is."""
    return json.dumps(dashboard, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, make in MADE.items():
        (FOLDER / f"{name}.json").write_text(written(make()), encoding="utf-8")
