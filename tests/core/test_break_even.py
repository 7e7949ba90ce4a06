"""Break-even: the verdict against counting by hand, bounds, and what turns it."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.break_even import (
    STEPS,
    Assumption,
    BreakEven,
    Comparison,
    Cost,
    WhatIf,
    break_even,
    sensitivity,
    tipping_points,
)
from wattribute.agent.core.ranges import Range, exact

amounts = st.integers(0, 1000).map(lambda tenths: Fraction(tenths, 10))
job_counts = st.integers(0, 10_000)
parts = st.tuples(amounts, amounts, amounts).map(lambda values: Range(*sorted(values)))
costs = st.builds(Cost, operation=parts, hardware=parts, fixed=parts)
weights = st.integers(0, 20).map(lambda parts: Fraction(parts, 20))
ends = st.sampled_from(["low", "central", "high"])
comparisons = st.builds(
    Comparison,
    tune=costs,
    scratch=costs,
    reuse_job=costs,
    scratch_job=costs,
    parents=st.lists(st.tuples(weights, costs), max_size=2).map(tuple),
)


def ahead(verdict: BreakEven, jobs: int) -> bool:
    """What a verdict says of one number of jobs: re-use costs less."""
    if verdict.jobs is None:
        return verdict.verdict == "always"
    return jobs > verdict.jobs if verdict.verdict == "after" else jobs < verdict.jobs


@pytest.mark.parametrize(
    ("reuse", "scratch", "verdict", "jobs", "whole"),
    [
        (("168", "0.015"), ("0", "0.025"), "after", 16_800, 16_801),
        (("1", "2"), ("0", "5"), "after", Fraction(1, 3), 1),
        (("0", "5"), ("1", "2"), "until", Fraction(1, 3), 0),
        (("0", "5"), ("7", "2"), "until", Fraction(7, 3), 2),
        (("0", "5"), ("6", "2"), "until", 2, 1),
        (("0.136", "1"), ("0.005", "1"), "never", None, None),
        (("1", "2"), ("0", "1"), "never", None, None),
        (("1", "2"), ("1", "1"), "never", None, None),
        (("0", "1"), ("1", "2"), "always", None, None),
        (("1", "1"), ("1", "2"), "always", None, None),
        (("0", "1"), ("1", "1"), "always", None, None),
        (("1", "1"), ("1", "1"), "always", None, None),
    ],
)
def test_verdicts(
    reuse: tuple[str, str], scratch: tuple[str, str], verdict: str, jobs: Fraction | None, whole: int | None
) -> None:
    found = break_even(
        reuse_upfront=reuse[0], reuse_per_job=reuse[1], scratch_upfront=scratch[0], scratch_per_job=scratch[1]
    )
    assert (found.verdict, found.jobs, found.whole_job) == (verdict, jobs, whole)


def test_days_at_a_rate() -> None:
    assert BreakEven("after", Fraction(16_800)).days(Fraction(400)) == 42
    assert BreakEven("never").days(Fraction(400)) is None


def test_what_is_no_number_is_refused() -> None:
    for wrong in ("nan", "inf", "1,5", ""):
        with pytest.raises(ValueError, match="number"):
            break_even(reuse_upfront=wrong, scratch_upfront=0, reuse_per_job=0, scratch_per_job=0)


@given(amounts, amounts, amounts, amounts, job_counts)
def test_a_verdict_is_what_adding_up_shows(
    reuse: Fraction, reuse_job: Fraction, scratch: Fraction, scratch_job: Fraction, jobs: int
) -> None:
    found = break_even(
        reuse_upfront=reuse, scratch_upfront=scratch, reuse_per_job=reuse_job, scratch_per_job=scratch_job
    )
    ours, theirs = reuse + jobs * reuse_job, scratch + jobs * scratch_job
    if found.verdict == "always":
        assert ours <= theirs
    elif found.verdict == "never":
        assert ours >= theirs
    else:
        assert ahead(found, jobs) == (ours < theirs)
        assert found.jobs is not None and found.jobs > 0
        assert reuse + found.jobs * reuse_job == scratch + found.jobs * scratch_job
        whole = found.whole_job
        assert whole is not None
        assert ahead(found, whole)
        assert not ahead(found, whole - 1 if found.verdict == "after" else whole + 1)


@given(comparisons, st.tuples(ends, ends, ends, ends), job_counts)
def test_whatever_lies_within_the_bounds_lies_between_best_and_worst(
    comparison: Comparison, corner: tuple[str, str, str, str], jobs: int
) -> None:
    answer = comparison.answer()

    def at(*which: str) -> tuple[BreakEven, Fraction]:
        ranges = (answer.reuse_upfront, answer.scratch_upfront, answer.reuse_job, answer.scratch_job)
        ours, theirs, our_job, their_job = (getattr(one, end) for one, end in zip(ranges, which, strict=True))
        verdict = break_even(
            reuse_upfront=ours, scratch_upfront=theirs, reuse_per_job=our_job, scratch_per_job=their_job
        )
        return verdict, ours + jobs * our_job - theirs - jobs * their_job

    best, least = at("low", "high", "low", "high")
    worst, most = at("high", "low", "high", "low")
    assert (answer.best, answer.worst) == (best, worst)
    assert least <= at(*corner)[1] <= most


def simple(**changes: Cost) -> Comparison:
    """1,000 g inherited in half, 300 g to tune, 600 g from scratch; 2 against 3 g per job."""
    base = Comparison(
        tune=Cost(operation=Range.of(200), hardware=Range.of(100)),
        parents=((Fraction(1, 2), Cost(operation=Range.of(1000))),),
        scratch=Cost(operation=Range.of(600)),
        reuse_job=Cost(operation=Range.of(2)),
        scratch_job=Cost(operation=Range.of(3)),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_the_formula() -> None:
    """N* = (0.5 * 1000 + 300 - 600) / (3 - 2)"""
    answer = simple().answer()
    assert answer.central == answer.best == answer.worst == BreakEven("after", Fraction(200))
    assert simple().inherited() == Range.of(500)


def test_bounds_are_those_of_the_answer() -> None:
    wide = simple(tune=Cost(fixed=Range.of(200, 300, 400)), scratch_job=Cost(operation=Range.of("2.5", 3, 4)))
    answer = wide.answer()
    assert answer.best == BreakEven("after", Fraction(100, 2))
    assert answer.central == BreakEven("after", Fraction(200))
    assert answer.worst == BreakEven("after", Fraction(300) / Fraction(1, 2))
    assert simple(scratch_job=Cost(operation=Range.of(1, 3, 4))).answer().worst == BreakEven("never")


def test_what_moves_with_what() -> None:
    by_w1 = [answer.central for _, answer in sensitivity(simple(), "w1")]
    assert by_w1 == [
        BreakEven("always"),
        BreakEven("always"),
        BreakEven("after", Fraction(200)),
        BreakEven("after", Fraction(450)),
        BreakEven("after", Fraction(700)),
    ]
    grid = dict(sensitivity(simple(), "grid"))
    assert grid[Fraction(1)].central.jobs == 200
    assert grid[Fraction(2)].central.jobs == Fraction(2 * (500 + 200 - 600) + 100, 2)  # hardware stays
    assert grid[Fraction(1, 20)].central.jobs == (Fraction(100, 20) + 100) * 20
    busy = dict(sensitivity(simple(), "utilisation"))
    assert busy[Fraction(1)].central.jobs == 200
    assert busy[exact("0.3")].central.jobs == 100 + Fraction(100) / exact("0.3")


def test_what_plays_no_part_has_no_table() -> None:
    by_hand = simple(tune=Cost(operation=Range.of(300)))
    assert sensitivity(by_hand, "utilisation") == []
    assert sensitivity(Comparison(tune=Cost(), scratch=Cost(), reuse_job=Cost(), scratch_job=Cost()), "w1") == []


def test_what_turns_the_answer_is_found_exactly() -> None:
    (tip,) = tipping_points(simple(), "w1")
    assert (tip.at, tip.below, tip.above) == (Fraction(3, 10), "always", "after")
    assert tipping_points(simple(), "utilisation") == []
    # Hardware of 1 g per job against 1 g of operation saved: on half the grid re-use no longer saves anything.
    dear = simple(reuse_job=Cost(operation=Range.of(2), hardware=Range.of("0.5")))
    (grid,) = tipping_points(dear, "grid")
    assert (grid.at, grid.below, grid.above) == (Fraction(1, 2), "never", "after")
    (busy,) = tipping_points(dear, "utilisation")
    assert (busy.at, busy.below, busy.above) == (Fraction(1, 2), "never", "after")


@given(comparisons, st.sampled_from(sorted(STEPS)), st.integers(1, 999))
def test_between_tips_the_verdict_stays(comparison: Comparison, assumption: Assumption, thousandths: int) -> None:
    first, last = STEPS[assumption][0], STEPS[assumption][-1]
    value = first + (last - first) * Fraction(thousandths, 1000)
    tips = tipping_points(comparison, assumption)
    what_if = {"w1": WhatIf(w1=value), "grid": WhatIf(grid=value), "utilisation": WhatIf(utilisation=value)}
    verdict = comparison.answer(what_if[assumption]).central.verdict
    if any(tip.at == value for tip in tips) or _touches(comparison, what_if[assumption]):
        return
    below = [tip for tip in tips if tip.at < value]
    above = [tip for tip in tips if tip.at > value]
    if below:
        assert verdict == below[-1].above
    if above:
        assert verdict == above[0].below


def _touches(comparison: Comparison, what_if: WhatIf) -> bool:
    """Whether one of the differences is just nothing there."""
    answer = comparison.answer(what_if)
    return (
        answer.reuse_upfront.central == answer.scratch_upfront.central
        or answer.reuse_job.central == answer.scratch_job.central
    )
