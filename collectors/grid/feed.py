"""What every source of intensity gives: periods and values, or a reason why not; and what is believed of none."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.intensity import MOST_G_PER_KWH, About, Reported, rfc3339, unix_ns_of
from wattribute.agent.core.units import NS_PER_S

HOUR_NS = 3600 * NS_PER_S

SKEW_NS = 300 * NS_PER_S
"""So far ahead of this machine's clock a value may begin that isn't a forecast."""


class Unanswered(SensorUnavailable):
    """No usable answer. `reason` is one word, for a label; `retry_after_s` what the server asked for."""

    def __init__(self, reason: str, cause: str, fix: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(cause, fix)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a source said: periods in order, PUE steps, and what of it was refused by reason, with the last cause."""

    values: Sequence[Reported] = ()
    pues: Sequence[tuple[int, float]] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    why: str = ""


class Feed(Protocol):
    """A source of intensity (or of PUE alone).

    `every_s`: how often it is worth asking. `ahead_ns`: how far ahead it says anything. `settles`: whether its values
    become final. `whole`: each answer is all there is from the start on, not news. `fetch` blocks; it raises
    Unanswered.
    """

    about: About
    every_s: float
    ahead_ns: int
    settles: bool
    whole: bool

    def fetch(self, start_unix_ns: int, end_unix_ns: int, now_unix_ns: int) -> Answer: ...


def screened(values: Iterable[Reported], now_unix_ns: int, pues: Sequence[tuple[int, float]] = ()) -> Answer:
    """The values that can be believed. Raises Unanswered where none can, or where they aren't in order."""
    kept: list[Reported] = []
    refused: Counter[str] = Counter()
    why = ""
    last_ns: int | None = None
    for one in values:
        if last_ns is not None and one.valid_from_unix_ns <= last_ns:
            raise Unanswered("order", f"its values aren't in order of time at {rfc3339(one.valid_from_unix_ns)}")
        last_ns = one.valid_from_unix_ns
        reason, cause = _wrong(one, now_unix_ns)
        if reason:
            refused[reason] += 1
            why = cause
        else:
            kept.append(one)
    if not kept:
        if not refused:
            raise Unanswered("empty", "it has no values for that time")
        raise Unanswered(refused.most_common(1)[0][0], why)
    return Answer(values=kept, pues=pues, refused=refused, why=why)


def _wrong(one: Reported, now_unix_ns: int) -> tuple[str, str]:
    """Why a value can't be believed: a reason and a sentence; two empty strings for one that can."""
    when = rfc3339(one.valid_from_unix_ns)
    if not math.isfinite(one.g_per_kwh):
        return "nan", f"its value at {when} is no number"
    if not 0 <= one.g_per_kwh <= MOST_G_PER_KWH:
        return "range", f"its value at {when}, {one.g_per_kwh:g} g/kWh, is outside 0 to {MOST_G_PER_KWH}"
    if one.status != "forecast" and one.valid_from_unix_ns > now_unix_ns + SKEW_NS:
        return "future", f"its value of {when} is in the future: this machine's clock says {rfc3339(now_unix_ns)}"
    return "", ""


def moment(text: str) -> int:
    """A provider's time. Raises Unanswered."""
    try:
        return unix_ns_of(text)
    except ValueError as error:
        raise Unanswered("garbage", f"its answer has a time that is none: {error}") from None
