"""The node's own windows in the ledger: what it used, what nobody paid, what products left untaxed, and their requests.

They stand beside the jobs' windows under schema.NODE_KEY, so that closed rows by themselves add up to the node.
What metered requests were billed for is a part of what their jobs used: it is told once those jobs' rows are closed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from wattribute.agent.core.books import Books
from wattribute.agent.core.model import TERM_SLOT, ServedTotals, Term
from wattribute.agent.core.served_record import named
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.ledger.batch import INT64_MAX, Close, JobRow
from wattribute.agent.ledger.opening import SavedJob
from wattribute.agent.ledger.schema import NODE_KEY

NODE_TERMS: tuple[Term, ...] = ("operation", "cooling", "hardware")
AFTER_JOB_NS = 10 * NS_PER_S
"""A job's end closes the node's window too, so that a report has both, but not more often than this."""


class NodeWindow:
    """The open window of the node, and its totals by name: in the order in which they were first seen.

    A name that is gone (of a product that was taken out of the configuration) keeps its total, and none falls.
    """

    def __init__(self) -> None:
        self._totals: dict[tuple[str, str], int] = {}
        self._began_unix_ns = 0
        self._closed_unix_ns = 0
        self._end_unix_ns = 0
        self._restored = False
        self._pending = False
        self._whole = False

    def restore(self, saved: SavedJob) -> None:
        """Go on with the totals that the ledger has, from where it closed the last window."""
        self._restored = True
        for slot, (domain, name) in enumerate(saved.meta["names"]):
            self._totals[domain, name] = saved.totals[slot] if slot < len(saved.totals) else 0

    def due(self, unix_ns: int, next_end_unix_ns: int, *, job_closed: bool) -> bool:
        """Whether the window is to be closed: at its end, or soon after a job's."""
        if not self._end_unix_ns:
            self._began_unix_ns = unix_ns
            self._closed_unix_ns, self._end_unix_ns = unix_ns - AFTER_JOB_NS, next_end_unix_ns
        self._pending |= job_closed
        # A clock that was set back would leave it open for as long.
        self._whole = unix_ns >= self._end_unix_ns or next_end_unix_ns < self._end_unix_ns
        if self._whole or (self._pending and unix_ns - self._closed_unix_ns >= AFTER_JOB_NS):
            self._closed_unix_ns, self._end_unix_ns, self._pending = unix_ns, next_end_unix_ns, False
            return True
        return False

    def rows(self, books: Books, unix_ns: int, prices: str, served: Sequence[ServedTotals]) -> tuple[JobRow, Close]:
        """The node's totals as they are now, and the close of its window; `served`: of all products since ever.

        Where it closes early, after a job's end, windows of other jobs stay open: so do the requests of their products.
        """
        self._totals |= _amounts(books)
        still_open: set[str] = set() if self._whole else {entry.job.product_id for entry in books.jobs.values()}
        for product in served:
            if product.product_id not in still_open:
                self._totals |= {("", name): min(amount, INT64_MAX) for name, amount in named(product).items()}
        totals = list(self._totals.values())
        meta: Mapping[str, Any] = {"names": [list(name) for name in self._totals]}
        since_unix_ns = 0 if self._restored else self._began_unix_ns
        return JobRow.of(NODE_KEY, totals, meta, since_unix_ns), Close.of(NODE_KEY, unix_ns, totals, prices)


def _amounts(books: Books) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for (kind, _, quality), energy_uj in books.node_energy_uj.items():
        found[kind, f"node.{quality}"] = found.get((kind, f"node.{quality}"), 0) + energy_uj
    for (kind, reason), energy_uj in books.unattributed_uj.items():
        found[kind, f"unattributed.{reason}"] = energy_uj
    for term in NODE_TERMS:
        found["", term] = books.node_co2e_ng[term]
    for reason, values in books.unattributed.items():
        for name, total in _terms(reason, values):
            found["", name] = total
    for product in books.taxes.totals():
        for taxed, untaxed_ng in product.untaxed_ng.items():
            found["", f"untaxed.{taxed}.{product.id}"] = untaxed_ng
    return found


def _terms(reason: str, values: Sequence[int]) -> list[tuple[str, int]]:
    return [(f"unattributed.{reason}.{term}", values[TERM_SLOT[term]]) for term in NODE_TERMS]
