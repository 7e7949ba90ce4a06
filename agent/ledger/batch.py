"""What is handed to the ledger at one tick: packed values, checked when they are made, so that a commit can't choke.

Integers are microjoules, nanograms and nanoseconds; a total that doesn't fit 64 bits is refused, never clamped.
"""

import functools
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.schema import NODE_KEY

MOST_CLOSES = 20_000
MOST_GAPS = 10_000
INT64_MAX = (1 << 63) - 1


def pack(totals: Sequence[int]) -> bytes:
    """Signed 64-bit integers, little endian. Raises LedgerError for one that doesn't fit."""
    try:
        return _integers(len(totals)).pack(*totals)
    except struct.error:
        wide = next((value for value in totals if not -INT64_MAX <= value <= INT64_MAX), "something else")
        raise LedgerError(f"a total isn't an integer of 64 bits: {wide}. Fix: report it") from None


def unpack(packed: bytes) -> list[int]:
    """What `pack` was given. Raises ValueError where the bytes aren't whole integers."""
    if len(packed) % 8:
        raise ValueError(f"{len(packed)} bytes aren't whole 64-bit integers")
    return list(_integers(len(packed) // 8).unpack(packed))


@functools.lru_cache(maxsize=256)
def _integers(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}q")  # more than twice as fast as array('q', list)


def dump(value: object) -> str:
    """Compact ASCII JSON, keys in their own order. Raises LedgerError for what JSON can't say."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise LedgerError(f"the ledger can't keep {type(value).__name__}: {error}") from error


class JobRow(NamedTuple):
    """One changed job. With `meta` the job is (or is again) live; without it only its totals are replaced.

    `since_unix_ns` is where its first window, or that of a new segment, starts; 0: at the batch.
    """

    key: str
    totals: bytes
    meta: str | None = None
    since_unix_ns: int = 0

    @classmethod
    def of(
        cls, key: str, totals: Sequence[int], meta: Mapping[str, Any] | None = None, since_unix_ns: int = 0
    ) -> "JobRow":
        """A row from plain values. A key with a leading `_` is a sum of other rows. Raises LedgerError."""
        if meta is None:
            return cls(key, pack(totals))
        return cls(_text(key), pack(totals), dump(meta), since_unix_ns)


class Close(NamedTuple):
    """Closes a job's open window at a moment, with the totals that it had then and the prices that applied."""

    key: str
    end_unix_ns: int
    totals: bytes
    prices: str = ""

    @classmethod
    def of(cls, key: str, end_unix_ns: int, totals: Sequence[int], prices: str = "") -> "Close":
        """A close from plain values. Raises LedgerError, also for a folded row: its parts have the windows."""
        if key.startswith("_") and key != NODE_KEY:
            raise LedgerError(f"{key!r} is a sum of other rows and has no windows of its own")
        return cls(_text(key), end_unix_ns, pack(totals), prices)


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRow:
    """A stretch whose energy isn't known exactly (`upper_uj` None: no bound), and what was booked for it."""

    kind: str
    id: str
    start_unix_ns: int
    end_unix_ns: int
    cause: str
    lower_uj: int
    upper_uj: int | None
    booked_uj: int

    def __post_init__(self) -> None:
        pack([self.start_unix_ns, self.end_unix_ns, self.lower_uj, self.upper_uj or 0, self.booked_uj])


class Correction(NamedTuple):
    """Nanograms that are added to a job's term after the fact: see schema.CorrectionRow."""

    job_id: str
    product_id: str
    term: str
    cause: str
    window_start_unix_ns: int
    window_end_unix_ns: int
    delta_ng: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Everything of one tick, committed together or not at all.

    `seq` counts up within a run. `prices` is what windows still open are closed with at the next start. `state` holds
    JSON texts (see `dump`), replaced by name. `forget` takes jobs out of what `restore` gives; they can still be
    looked up.
    """

    seq: int
    at_unix_ns: int
    prices: str = ""
    jobs: Sequence[JobRow] = ()
    state: Mapping[str, str] = field(default_factory=dict)
    closes: Sequence[Close] = ()
    gaps: Sequence[GapRow] = ()
    corrections: Sequence[Correction] = ()
    forget: Sequence[str] = ()


def merge(old: Batch, new: Batch) -> Batch:
    """One batch that does what `old` and then `new` would have done.

    Bounded, for a disk that stays full for days: past MOST_CLOSES a job's windows become one longer window, past
    MOST_GAPS the gaps of a domain with one cause become one row. No energy is lost by either.
    """
    jobs = {row.key: row for row in old.jobs}
    for row in new.jobs:
        before = jobs.get(row.key)
        if before is not None:
            meta = before.meta if row.meta is None else row.meta
            row = JobRow(row.key, row.totals, meta, before.since_unix_ns or row.since_unix_ns)
        jobs[row.key] = row
    back = {row.key for row in new.jobs if row.meta is not None}
    closes = [*old.closes, *new.closes]
    if len(closes) > MOST_CLOSES:
        closes = list({close.key: close for close in closes}.values())
    gaps = [*old.gaps, *new.gaps]
    if len(gaps) > MOST_GAPS:
        gaps = _joined(gaps)
    return Batch(
        seq=new.seq,
        at_unix_ns=new.at_unix_ns,
        prices=new.prices,
        jobs=list(jobs.values()),
        state={**old.state, **new.state},
        closes=closes,
        gaps=gaps,
        corrections=[*old.corrections, *new.corrections],
        forget=list(dict.fromkeys([*(key for key in old.forget if key not in back), *new.forget])),
    )


def _joined(gaps: Sequence[GapRow]) -> list[GapRow]:
    joined: dict[tuple[str, str, str], GapRow] = {}
    for gap in gaps:
        known = joined.get((gap.kind, gap.id, gap.cause))
        if known is not None:
            bounded = known.upper_uj is not None and gap.upper_uj is not None
            gap = GapRow(
                kind=gap.kind,
                id=gap.id,
                start_unix_ns=min(known.start_unix_ns, gap.start_unix_ns),
                end_unix_ns=max(known.end_unix_ns, gap.end_unix_ns),
                cause=gap.cause,
                lower_uj=known.lower_uj + gap.lower_uj,
                upper_uj=(known.upper_uj or 0) + (gap.upper_uj or 0) if bounded else None,
                booked_uj=known.booked_uj + gap.booked_uj,
            )
        joined[gap.kind, gap.id, gap.cause] = gap
    return list(joined.values())


def _text(key: str) -> str:
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise LedgerError(f"not a text that can be stored: {key!r}") from error
    return key
