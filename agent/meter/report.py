"""What the workers of one account tell together: who was served how much, and whose the busy time was."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one tenant ("": nobody in particular) was served over the account's life, by all workers."""

    tenant: str
    requests: int
    aborted: int
    units: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One batch of an account: cumulative counts, and the busy time since the report before.

    `until_ns` is CLOCK_BOOTTIME. `shares` are rows of (slot, place in `served`, weight * time in flight, busy time), in
    ns; the busy times of a slot sum to the time in which it had any request in flight.
    """

    until_ns: int
    shares: tuple[tuple[int, int, int, int], ...]
    served: tuple[Row, ...]
    workers: int
    in_flight: int


__all__ = ["Report", "Row"]
