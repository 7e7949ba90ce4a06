"""Closed rows as nodes make them, chained."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from wattribute.agent.ledger.schema import CorrectionRow, Row, WindowRow, chained

S = 1_000_000_000
EPOCH = "5b3c0f9e-0000-4000-8000-000000000001/1"
Chained = list[tuple[int, Row, bytes]]


def chain(rows: Iterable[Row], after: Chained | None = None) -> Chained:
    """Rows with positions and hashes, going on from others."""
    position, head = (after[-1][0], after[-1][2]) if after else (0, bytes(32))
    made: Chained = []
    for row in rows:
        position, head = position + 1, chained(head, row)
        made.append((position, row, head))
    return made


def window(
    job_id: str = "j", domain: str = "cpu", *, node: str = "n1", at: int = 0, epoch: str = EPOCH, **amounts: int
) -> WindowRow:
    """A window of 300 s that starts at `at` seconds; `direct__measured=5` is 5 uJ."""
    content = {name.replace("__", "."): amount for name, amount in amounts.items()}
    return WindowRow(node, epoch, at * S, job_id, domain, (at + 300) * S, _json(content), "" if domain else _json({}))


def told(job_id: str = "j", *, node: str = "n1", at: int = 0, facts: Mapping[str, Any], **amounts: int) -> WindowRow:
    """The row without a domain, which says whose job it is."""
    row = window(job_id, "", node=node, at=at)
    content = {name.replace("__", "."): amount for name, amount in amounts.items()}
    return row._replace(content=_json(content), prices=_json(facts))


def correction(
    job_id: str = "j", *, node: str = "n1", start: int = 0, at: int = 1000, product: str = "p",
    term: str = "operation", cause: str = "intensity", delta: int = 1,
) -> CorrectionRow:  # fmt: skip
    """A correction of a window that starts at `start` seconds."""
    return CorrectionRow(
        node, EPOCH, job_id, product, term, cause, start * S, at * S, (start + 300) * S, delta, "settled"
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
