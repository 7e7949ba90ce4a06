"""What is booked after the fact: rows of the ledger and revisions of receipts, never a counter that was shown."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wattribute.agent.ledger.batch import Correction
    from wattribute.agent.live import LiveJob
    from wattribute.agent.settlement import Settled


class Corrections:
    """Corrections since the last batch, and their sums by product and term, signed ng. `position` and `until_unix_ns`:
    see settlement.Settled.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        """Go on from what `state` gave."""
        known = saved or {"position": 0, "sums": []}
        self.position: int = known["position"]
        self.until_unix_ns: int = known.get("until_unix_ns", 0)
        self.sums_ng: dict[tuple[str, str], int] = {(product, term): ng for product, term, ng in known["sums"]}
        self._waiting: list[Correction] = []
        self._changed = False

    def settle(self, found: "Settled", jobs: "Mapping[str, LiveJob]") -> None:
        """Take in what was settled; `jobs` are those whose receipts are in memory."""
        touched = set()
        for correction in found.corrections:
            self._waiting.append(correction)
            key = (correction.product_id, correction.term)
            self.sums_ng[key] = self.sums_ng.get(key, 0) + correction.delta_ng
            live = jobs.get(correction.job_id)
            if live is not None:
                live.correct(*key, correction.delta_ng)
                touched.add(correction.job_id)
        for job_id in touched:
            jobs[job_id].corrected += 1
        self.position = found.position
        self.until_unix_ns = max(self.until_unix_ns, found.until_unix_ns)
        self._changed = True

    def add(self, correction: "Correction") -> None:
        """A row that no job in memory and no gauge shows: its counterpart is in a fold already."""
        self._waiting.append(correction)

    def take(self) -> "tuple[list[Correction], dict[str, Any] | None]":
        """What the next batch writes: the rows, and the state where it has changed."""
        rows, self._waiting = self._waiting, []
        changed, self._changed = self._changed, False
        sums = [[*key, ng] for key, ng in self.sums_ng.items()]
        state = {"position": self.position, "until_unix_ns": self.until_unix_ns, "sums": sums}
        return rows, state if changed else None
