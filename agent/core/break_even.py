"""After how many jobs re-use beats from-scratch, exactly, and how the answer moves with what was assumed.

N* = (w1 * EPC(m') + EPC(tune) - EPC(scratch)) / (c_scratch - c_reuse), c = cost per job; one unit throughout (grams,
kWh, joules). Source: formulas.md, "Break-even"; "Towards a Methodology and Framework for AI Sustainability Metrics",
section 2.4 (EPC(m) and its tax weight w1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import Literal

from wattribute.agent.core.ranges import NIL, Number, Range, exact

Verdict = Literal["after", "until", "always", "never"]
Assumption = Literal["w1", "grid", "utilisation"]

STEPS: Mapping[Assumption, tuple[Fraction, ...]] = {
    "w1": tuple(map(Fraction, ("0", "0.25", "0.5", "0.75", "1"))),
    "grid": tuple(map(Fraction, ("0.05", "0.5", "1", "2"))),
    "utilisation": tuple(map(Fraction, ("0.3", "0.45", "0.6", "1"))),  # 0.3 to 0.6: fleets as they are, Wu et al. 2021
}


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Re-use is ahead `after` N* jobs, `until` N* jobs, `always` (at no number behind) or `never`; N* is `jobs`."""

    verdict: Verdict
    jobs: Fraction | None = None

    @property
    def whole_job(self) -> int | None:
        """The first whole job with which re-use is ahead (`after`), or the last (`until`); at N* itself both are even.

        `until` less than one job it is 0: ahead before any job is done, and with none.
        """
        if self.jobs is None:
            return None
        return floor(self.jobs) + 1 if self.verdict == "after" else ceil(self.jobs) - 1

    def days(self, jobs_per_day: Fraction) -> Fraction | None:
        """N* at a rate of jobs; None where there is no N*."""
        return None if self.jobs is None else self.jobs / jobs_per_day


def break_even(
    *, reuse_upfront: Number, scratch_upfront: Number, reuse_per_job: Number, scratch_per_job: Number
) -> BreakEven:
    """The verdict on four exact costs in one unit. Raises ValueError for what isn't a finite number."""
    upfront = exact(reuse_upfront) - exact(scratch_upfront)
    saved = exact(scratch_per_job) - exact(reuse_per_job)
    if upfront <= 0 <= saved:
        return BreakEven("always")
    if upfront >= 0 >= saved:
        return BreakEven("never")
    return BreakEven("after" if saved > 0 else "until", upfront / saved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A cost by what it moves with: `operation` with the grid, `hardware` with utilisation, `fixed` with neither."""

    operation: Range = NIL
    hardware: Range = NIL
    fixed: Range = NIL

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            operation=self.operation + other.operation,
            hardware=self.hardware + other.hardware,
            fixed=self.fixed + other.fixed,
        )

    def under(self, what_if: "WhatIf", billed_at: Fraction = Fraction(1)) -> Range:
        """All of it, were the assumptions these; `billed_at` is the utilisation that its hardware was billed at."""
        busier = Fraction(1) if what_if.utilisation is None else billed_at / what_if.utilisation
        return self.operation * what_if.grid + self.hardware * busier + self.fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """What is assumed; None is as it is. `w1`: one weight for every parent re-used. `grid`: times the carbon intensity
    of now. `utilisation`: the busy part of the hardware's time, which pays for all of it (TE / (LT * u) a busy second).
    """

    w1: Fraction | None = None
    grid: Fraction = Fraction(1)
    utilisation: Fraction | None = None


AS_IT_IS = WhatIf()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The costs under some assumptions, and the verdict on them: as given, and at the ends of their bounds.

    `best` and `worst` are for re-use: at any number of jobs, the difference of the two lies between theirs.
    """

    reuse_upfront: Range
    scratch_upfront: Range
    reuse_job: Range
    scratch_job: Range
    central: BreakEven
    best: BreakEven
    worst: BreakEven

    @property
    def same(self) -> bool:
        """Whether the two cost exactly the same."""
        return not any(_differences(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A product that re-uses others against one made from scratch.

    `parents`: weight and whole EPC of each product re-used (w1 and EPC(m')); `tune`: what else it took to make it;
    `scratch`: the EPC of the other. `reuse_job`, `scratch_job`: cost per job. `billed_at`: the utilisation at which
    hardware was billed; 1: by the calendar.
    """

    tune: Cost
    scratch: Cost
    reuse_job: Cost
    scratch_job: Cost
    parents: tuple[tuple[Fraction, Cost], ...] = ()
    billed_at: Fraction = Fraction(1)

    def inherited(self, what_if: WhatIf = AS_IT_IS) -> Range:
        """w1 * EPC(m')."""
        total = NIL
        for weight, epc in self.parents:
            total += epc.under(what_if, self.billed_at) * (weight if what_if.w1 is None else what_if.w1)
        return total

    def answer(self, what_if: WhatIf = AS_IT_IS) -> Answer:
        """The costs and N*, were the assumptions these."""
        tune, scratch, reuse_job, scratch_job = (
            cost.under(what_if, self.billed_at) for cost in (self.tune, self.scratch, self.reuse_job, self.scratch_job)
        )
        reuse = tune + self.inherited(what_if)

        def verdict(of_reuse: Callable[[Range], Fraction], of_scratch: Callable[[Range], Fraction]) -> BreakEven:
            return break_even(
                reuse_upfront=of_reuse(reuse),
                scratch_upfront=of_scratch(scratch),
                reuse_per_job=of_reuse(reuse_job),
                scratch_per_job=of_scratch(scratch_job),
            )

        return Answer(
            reuse_upfront=reuse,
            scratch_upfront=scratch,
            reuse_job=reuse_job,
            scratch_job=scratch_job,
            central=verdict(_central, _central),
            best=verdict(_low, _high),
            worst=verdict(_high, _low),
        )

    def matters(self, assumption: Assumption) -> bool:
        """Whether an assumption plays any part in the costs given."""
        if assumption == "w1":
            return any(epc.under(AS_IT_IS) != NIL for _, epc in self.parents)
        costs = (self.tune, self.scratch, self.reuse_job, self.scratch_job, *(epc for _, epc in self.parents))
        return any((cost.operation if assumption == "grid" else cost.hardware) != NIL for cost in costs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """The value of an assumption at which the verdict turns from `below` to `above`."""

    assumption: Assumption
    at: Fraction
    below: Verdict
    above: Verdict


def tipping_points(comparison: Comparison, assumption: Assumption) -> list[Tip]:
    """Where one assumption alone turns the verdict within its STEPS, in rising order.

    Costs are linear in w1, in the grid and in 1 / utilisation: the verdict turns where the difference of the up-front
    costs or of those per job is nothing.
    """
    first, last = STEPS[assumption][0], STEPS[assumption][-1]

    def under(value: Fraction) -> Answer:
        return comparison.answer(_with(assumption, value))

    x0, x1 = _line(first, assumption), _line(last, assumption)
    differences = zip(_differences(under(first)), _differences(under(last)), strict=True)
    roots = {_line(x0 - y0 * (x1 - x0) / (y1 - y0), assumption) for y0, y1 in differences if y0 * y1 < 0}
    marks = [first, *sorted(roots), last]
    verdicts = [under((low + high) / 2).central.verdict for low, high in pairwise(marks)]
    return [
        Tip(assumption=assumption, at=at, below=below, above=above)
        for at, below, above in zip(marks[1:-1], verdicts, verdicts[1:], strict=False)
        if below != above
    ]


def sensitivity(comparison: Comparison, assumption: Assumption) -> list[tuple[Fraction, Answer]]:
    """The answer at each step of one assumption, the others as they are; none where it plays no part."""
    if not comparison.matters(assumption):
        return []
    return [(step, comparison.answer(_with(assumption, step))) for step in STEPS[assumption]]


def _with(assumption: Assumption, value: Fraction) -> WhatIf:
    if assumption == "w1":
        return replace(AS_IT_IS, w1=value)
    return replace(AS_IT_IS, grid=value) if assumption == "grid" else replace(AS_IT_IS, utilisation=value)


def _line(value: Fraction, assumption: Assumption) -> Fraction:
    """An assumption's value to what costs are linear in, and back."""
    return 1 / value if assumption == "utilisation" else value


def _differences(answer: Answer) -> tuple[Fraction, Fraction]:
    """Re-use less from-scratch: up front, and per job."""
    return (
        answer.reuse_upfront.central - answer.scratch_upfront.central,
        answer.reuse_job.central - answer.scratch_job.central,
    )


def _low(costs: Range) -> Fraction:
    return costs.low


def _central(costs: Range) -> Fraction:
    return costs.central


def _high(costs: Range) -> Fraction:
    return costs.high
