"""What a platform's energy turned out to cost otherwise reaches those who paid for it: corrections of their tax.

A correction of a platform job's window is spread as its product's tax was in that stretch of time: over the payers'
windows that overlap it, by what they were billed; the part that nobody was there for stays nobody's. Nanograms.
"""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from wattribute.agent.core.attribution import apportion
from wattribute.agent.ledger.batch import Correction
from wattribute.agent.ledger.schema import NODE_KEY, WindowRow

TERM = "platform"


class Billed(NamedTuple):
    """What a product billed for its platform in a stretch of time, by job, and what of it was untaxed."""

    by_job: dict[str, int]
    untaxed_ng: int


def billed(rows: Iterable[WindowRow], product_id: str, start_unix_ns: int, end_unix_ns: int) -> Billed:
    """From the rows with domain "" that overlap a stretch: each counts by how much of it lies in there."""
    by_job: dict[str, int] = {}
    untaxed_ng = 0
    for row in rows:
        start, end = max(row.window_start_unix_ns, start_unix_ns), min(row.window_end_unix_ns, end_unix_ns)
        if start >= end:
            continue
        of_node = row.job_id == NODE_KEY
        whole_ng = json.loads(row.content).get(f"{'untaxed' if of_node else 'tax'}.{TERM}.{product_id}", 0)
        part_ng = whole_ng * (end - start) // (row.window_end_unix_ns - row.window_start_unix_ns)
        if of_node:
            untaxed_ng += part_ng
        elif part_ng:
            by_job[row.job_id] = by_job.get(row.job_id, 0) + part_ng
    return Billed(by_job, untaxed_ng)


def corrections(
    found: Billed, product_id: str, start_unix_ns: int, end_unix_ns: int, delta_ng: int, detail: str
) -> Iterator[Correction]:
    """Spread what a platform job's window was corrected by; what isn't yielded was untaxed."""
    weights = [*found.by_job.values(), found.untaxed_ng]
    if not found.by_job or not delta_ng:
        return
    sign = 1 if delta_ng > 0 else -1
    for job_id, part_ng in zip(found.by_job, apportion(abs(delta_ng), weights), strict=False):
        if part_ng:
            yield Correction(job_id, product_id, TERM, "intensity", start_unix_ns, end_unix_ns, sign * part_ng, detail)
