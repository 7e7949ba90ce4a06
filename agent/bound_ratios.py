"""How far off JSC^e and ASC^e of each job may be, for the page: bounds over the central figure, in parts per million.

As ratios they change slowly: they are worked out once a minute for a job, at its end, and a last time a minute later,
when its closing readings are in, so that a page of thousands of jobs costs no more for them. Receipts have them in
grams, and as they are now.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.live import LiveJob
from wattribute.agent.statement import uncertainty_of
from wattribute.agent.view import View

EVERY_NS = 60 * NS_PER_S
AT_ONCE = 200  # 50 us each: a restart with thousands of held jobs must not hold up the loop

Ratios: TypeAlias = Mapping[tuple[str, str], int]
"""By sum (jsce, asce) and end (low, high); a sum that has no bounds, or is 0 yet, isn't there."""


class _Known(NamedTuple):
    """As worked out when the job was `running`, or not; they hold until then, None: for good."""

    until_ns: int | None
    running: bool
    revision: int
    ratios: Ratios


_NEW = _Known(0, True, 0, {})


class BoundRatios:
    """Keeps the ratios of the jobs that are known."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def of(self, jobs: Mapping[str, LiveJob], view: View, about: Mapping[str, Any]) -> Mapping[str, Ratios]:
        """Of the jobs that `view` names. At most AT_ONCE are worked out; the others keep theirs, or have none yet."""
        left, known, now_ns = AT_ONCE, {}, view.at_ns
        for job_id, row in view.rows.items():
            if row.folded or (live := jobs.get(job_id)) is None:
                continue
            kept = self._known.get(job_id, _NEW)
            due = kept.until_ns is not None and (now_ns >= kept.until_ns or kept.running != live.running)
            if left and (due or kept.revision != live.revision):
                left -= 1
                last = not live.running and not kept.running
                kept = _Known(None if last else now_ns + EVERY_NS, live.running, live.revision, _ratios(live, about))
            known[job_id] = kept
        self._known = known
        return {job_id: kept.ratios for job_id, kept in known.items() if kept.ratios}


def _ratios(live: LiveJob, about: Mapping[str, Any]) -> Ratios:
    found = uncertainty_of(live, about)
    if found is None:
        return {}
    sums: tuple[tuple[str, Bounded | None], ...] = (("jsce", found.jsce), ("asce", found.asce))
    return {
        (name, end): round(1_000_000 * ng / bounded.central)
        for name, bounded in sums
        if bounded is not None and bounded.central > 0
        for end, ng in (("low", bounded.low), ("high", bounded.high))
    }
