"""What jobs owe to products, in nanograms by product and term, and how it is booked on a job."""

from collections.abc import Mapping

from wattribute.agent.core.model import TERM_SLOT, Term

MOST_NG = 1 << 61
"""About 2,300 t: a job owes no more by term, nor is more untaxed of a product. The ledger's totals have 64 bits."""

Owed = dict[tuple[str, Term], int]
"""Nanograms by product and term."""


def add_taxes(values: list[int], taxes_ng: Owed, owed: Mapping[tuple[str, Term], int]) -> Owed:
    """Book owed nanograms on a job: into its totals by term, and by product. Gives back what is past MOST_NG."""
    over: Owed = {}
    for (product_id, term), owed_ng in owed.items():
        total_ng = values[TERM_SLOT[term]] + owed_ng
        if total_ng > MOST_NG:
            over[product_id, term] = owed_ng
            continue
        values[TERM_SLOT[term]] = total_ng
        taxes_ng[product_id, term] = taxes_ng.get((product_id, term), 0) + owed_ng
    return over
