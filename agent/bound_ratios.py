"""How far off JSC^e and ASC^e of each job may be, for the page: bounds over the central figure, in parts per million.

As ratios they change slowly: they are worked out once a minute for a job, and once more at its end, so that a page of
thousands of jobs costs no more for them. Receipts have them in grams, and as they are now.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.live import LiveJob
from wattribute.agent.statement import uncertainty_of
from wattribute.agent.view import View

EVERY_NS = 60 * NS_PER_S
AT_ONCE = 200  # 50 us each: a restart with thousands of held jobs must not hold up the loop

Ratios: TypeAlias = Mapping[tuple[str, str], int]
"""By sum (jsce, asce) and end (low, high); a sum that has no bounds, or is 0 yet, isn't there."""


class BoundRatios:
    """Keeps the ratios of the jobs that are known."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int | None, int, Ratios]] = {}  # until when they hold, revision, ratios

    def of(self, jobs: Mapping[str, LiveJob], view: View, about: Mapping[str, Any]) -> Mapping[str, Ratios]:
        """Of the jobs that `view` names. At most AT_ONCE are worked out; the others keep theirs, or have none yet."""
        left, known, now_ns = AT_ONCE, {}, view.at_ns
        for job_id, row in view.rows.items():
            if row.folded or (live := jobs.get(job_id)) is None:
                continue
            until_ns, revision, ratios = self._known.get(job_id, (0, 0, {}))
            stale = revision != live.revision or (until_ns is not None and (now_ns >= until_ns or not live.running))
            if stale and left:
                left -= 1
                until_ns, ratios = (now_ns + EVERY_NS if live.running else None), _ratios(live, about)
                revision = live.revision
            known[job_id] = until_ns, revision, ratios
        self._known = known
        return {job_id: ratios for job_id, (_, _, ratios) in known.items() if ratios}


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
