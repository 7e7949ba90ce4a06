"""Whether what was read is a receipt, key for key: a file that an editor or a disk spoilt hides no other job."""

from datetime import datetime
from typing import Any

import msgspec

_Interval = tuple[float, float] | None


class _Tax(msgspec.Struct):
    product_id: str
    term: str
    gco2e: float


class _Boundary(msgspec.Struct):
    included: list[str]
    missing: list[str]


class _Quality(msgspec.Struct):
    measured: float
    integrated: float
    modelled: float


class _Bounds(msgspec.Struct):
    jsce: _Interval
    asce: _Interval
    jsc: _Interval = None
    asc: _Interval = None
    terms: dict[str, _Interval] = {}
    dominant: str | None = None


class _Receipt(msgspec.Struct):
    """`wattribute.receipt/1`; keys of later versions are passed over."""

    job_id: str
    product_id: str
    uses: list[str]
    role: str
    phase: str
    node: str
    members: int
    expected_nodes: int
    parent_job_id: str | None
    started_at: datetime | None
    ended_at: datetime | None
    duration_s: float | None
    cpu_s: float | None
    gpu_sm_s: float | None
    energy_uj: int | None
    energy_j: dict[str, dict[str, float] | None]
    quality: _Quality
    method: dict[str, str]
    boundary: _Boundary
    policy: dict[str, str]
    pue: float | None
    intensity: dict[str, Any] | None
    gco2e: dict[str, float | None]
    taxes: list[_Tax]
    bounds: _Bounds
    basis: str
    settled: bool
    revision: int
    labels: dict[str, str]
    gaps: list[Any]
    notes: list[str]


def is_receipt(part: object) -> bool:
    """Whether it can be shown, and added to other parts of its job."""
    try:
        msgspec.convert(part, _Receipt)
    except msgspec.ValidationError:
        return False
    return True


__all__ = ["is_receipt"]
