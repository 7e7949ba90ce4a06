"""What a job is, as the closed row without a domain says it; and the same job on several nodes made one.

Rows come from nodes of any version: what a row doesn't say, or says in another type, has its default.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from wattribute.agent.core.model import ROLES, Role
from wattribute.agent.core.records import SOURCES, Source

_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one node's latest row says of a job."""

    product_id: str = "default"
    uses: tuple[str, ...] = ()
    role: Role = "use"
    phase: str = ""
    user: str = ""
    weight_ppm: int = 1_000_000
    expected_nodes: int = 1
    started_unix_ns: int = 0
    ended_unix_ns: int | None = None
    source: Source = "agent"
    slurm: Mapping[str, str] = field(default_factory=dict)


NOTHING_SAID = Facts()


def parse(body: str) -> Mapping[str, Any]:
    """The JSON object in a row's `prices`; empty where there is none."""
    try:
        said = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def facts_of(said: Mapping[str, Any]) -> Facts:
    """The facts in it."""
    role, uses = said.get("role"), said.get("uses")
    ended = said.get("ended_unix_ns")
    slurm = said.get("slurm")
    return Facts(
        product_id=_text(said, "product_id") or "default",
        uses=tuple(use for use in uses if isinstance(use, str)) if isinstance(uses, list) else (),
        role=cast(Role, role) if role in ROLES else "use",
        phase=_text(said, "phase"),
        user=_text(said, "user"),
        weight_ppm=_number(said, "weight_ppm", 1_000_000),
        expected_nodes=_number(said, "nodes", _number(said, "expected_nodes", 1)),
        started_unix_ns=_number(said, "started_unix_ns", 0),
        ended_unix_ns=_number(said, "ended_unix_ns", 0) if ended is not None else None,
        source=cast(Source, said.get("source")) if said.get("source") in SOURCES else "agent",
        slurm={name: text for name, text in slurm.items() if isinstance(text, str)} if isinstance(slurm, dict) else {},
    )


def is_provisional(said: Mapping[str, Any]) -> bool:
    """Whether a window was booked at a carbon intensity that a final one may follow."""
    return said.get("final") is False


def joined(found: Iterable[tuple[int, Facts]]) -> Facts:
    """One job's facts from those of its nodes (with the end of the row that each is from): the latest say what it is.

    It began when its first member did, and has ended when the last has. Its weight is shared by its nodes.
    """
    ordered = sorted(found, key=lambda pair: pair[0])
    if len(ordered) == 1:
        return ordered[0][1]
    latest = ordered[-1][1]
    starts = [facts.started_unix_ns for _, facts in ordered if facts.started_unix_ns]
    ends = [facts.ended_unix_ns for _, facts in ordered]
    return Facts(
        product_id=latest.product_id,
        uses=latest.uses,
        role=latest.role,
        phase=latest.phase,
        user=latest.user,
        weight_ppm=sum(facts.weight_ppm for _, facts in ordered),
        expected_nodes=max(facts.expected_nodes for _, facts in ordered),
        started_unix_ns=min(starts, default=0),
        ended_unix_ns=None if None in ends else max((end for end in ends if end is not None), default=None),
        source=latest.source,
        # A node of an older version doesn't say it.
        slurm=next((facts.slurm for _, facts in reversed(ordered) if facts.slurm), {}),
    )


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    return value if isinstance(value, str) else ""


def _number(said: Mapping[str, Any], name: str, default: int) -> int:
    value = said.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX else default
