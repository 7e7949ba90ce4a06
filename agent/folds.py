"""Series that left the page, kept as sums: `_retired` for jobs past their hold, `_overflow` for those past the cap.

Nothing is lost: a job's totals move here in the same snapshot in which its own series leave. A job that comes back
later shows what it uses from then on (its receipt has the whole), since what was folded stays in the fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from wattribute.agent.core.model import EXPORTED_SLOTS, Job, JobTotals, Role
from wattribute.agent.live import OVERFLOW, RETIRED

FoldKey = tuple[str, str, Role]  # (_retired | _overflow, product, role)


@dataclass(slots=True)
class Folds:
    """Sums by fold, product and role."""

    values: dict[FoldKey, list[int]] = field(default_factory=dict)

    def add(self, name: str, job: Job, values: Sequence[int]) -> FoldKey:
        """Add a job's exported totals (from slot 0) to a fold."""
        key = (name, job.product_id, job.role)
        sums = self.values.setdefault(key, [0] * EXPORTED_SLOTS)
        for slot in range(EXPORTED_SLOTS):
            sums[slot] += values[slot]
        return key


def folded(name: str, product_id: str, role: Role, values: Sequence[int]) -> JobTotals:
    """One folded row."""
    job = Job(id=name, product_id=product_id, role=role)
    return JobTotals(job=job, values=values, running=False, info=False)


def fold_name(*, overflow: bool) -> str:
    """Where a job's totals go when its series leave."""
    return OVERFLOW if overflow else RETIRED
