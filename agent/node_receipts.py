"""Receipts of a node's jobs as one peer may see them: of one job, or of all, made while the loop does other things."""

from collections.abc import Iterable, Iterator
from typing import Any

from wattribute.agent.climate import Climate
from wattribute.agent.commits import Commits
from wattribute.agent.core.claims import Entry
from wattribute.agent.core.model import Clock
from wattribute.agent.dues import Dues
from wattribute.agent.live import LiveJob
from wattribute.agent.node_about import About
from wattribute.agent.requests import Peer
from wattribute.agent.sight import Sight
from wattribute.agent.statement import receipt_of
from wattribute.agent.view import ShowWindow


class NodeReceipts:
    """What is told of jobs: by whom they are asked for, and by what is still awaited of them."""

    def __init__(
        self,
        climate: Climate,
        dues: Dues,
        commits: Commits,
        views: ShowWindow,
        sight: Sight,
        about: About,
        clock: Clock,
    ) -> None:
        self._climate = climate
        self._dues = dues
        self._commits = commits
        self._views = views
        self._sight = sight
        self._about = about
        self._clock = clock

    def of(self, live: LiveJob, peer: Peer | None) -> dict[str, Any]:
        """One job's, as it is now."""
        (receipt,) = self.all([live], peer)
        return receipt

    def all(self, lives: Iterable[LiveJob], peer: Peer | None) -> Iterator[dict[str, Any]]:
        """Those that the peer may know of, as they are at the moment of this call, whatever ticks come meanwhile.

        Each is made when it is asked for: thousands take half a second. What was added meanwhile to a job that has
        ended is in its receipt.
        """
        now_unix_ns, about, view = self._clock.time_ns(), self._about.now(), self._views.shown
        sees_all = self._sight.sees_all(peer)
        seen = [self._still(live) for live in lives if self._sight.may_see(live, peer)]

        def made() -> Iterator[dict[str, Any]]:
            for live, closed in seen:
                shown = live if sees_all else self._sight.shown(live, view)
                settled = closed and not self._dues.open(live) and not self._climate.provisional(live, now_unix_ns)
                yield receipt_of(shown, about, now_unix_ns=now_unix_ns, settled=settled, exact=live)

        return made()

    def _still(self, live: LiveJob) -> tuple[LiveJob, bool]:
        """A job that ticks don't change any more: a copy, unless its closing readings are in."""
        closed = not live.running and self._commits.settled(live)
        return (live, True) if closed else (_copy(live), False)


def _copy(live: LiveJob) -> LiveJob:
    """All that a receipt tells."""
    entry = live.entry
    return LiveJob(
        Entry(entry.job, entry.started_ns, entry.values.copy(), entry.taxes_ng.copy(), ended_ns=entry.ended_ns),
        live.uid,
        member_count=live.member_count,
        notes=live.notes.copy(),
        overlapped=live.overlapped,
        folded=live.folded,
        gaps=live.gaps.copy(),
        corrections_ng=live.corrections_ng.copy(),
        corrected=live.corrected,
        reopened=live.reopened,
        band=live.band,
    )


__all__ = ["NodeReceipts"]
