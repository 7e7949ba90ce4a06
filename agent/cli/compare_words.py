"""A break-even for people and for programs: the answer, what it stands on, and what would turn it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import click

from wattribute.agent.cli import print_table
from wattribute.agent.cli.amounts import floats, shown, spread
from wattribute.agent.cli.product_words import years
from wattribute.agent.core.break_even import (
    AS_IT_IS,
    Answer,
    Assumption,
    BreakEven,
    Comparison,
    Cost,
    Tip,
    sensitivity,
    tipping_points,
)
from wattribute.agent.core.compared import CostOf, Unit, Work
from wattribute.agent.core.ranges import NIL, Range
from wattribute.agent.core.units import DAY_S
from wattribute.exporters.plots import Line, Plot, text

SCHEMA = "wattribute.compare/1"
ASSUMPTIONS: tuple[Assumption, ...] = ("w1", "grid", "utilisation")
LABELS = {"w1": "w1 = {}", "grid": "grid x {}", "utilisation": "hardware busy {} of its time"}
REMARKS = {Fraction("0.05"): " (a clean one)", Fraction(2): " (a dirty one)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A comparison, and where its figures come from. `jobs`: of what jobs a cost is the mean; None: given by hand.

    `parents`: what REUSE was made from, with the weights that count. `rate` is jobs a day, None: not known.
    """

    reuse: str
    scratch: str
    unit: Unit
    cost_of: CostOf
    comparison: Comparison
    parents: Mapping[str, Fraction]
    rate: Fraction | None
    rate_from: str
    jobs: Mapping[str, Work | None]
    by_hand: Mapping[str, bool]
    lifetime_s: int | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def plot_of(found: Found) -> Plot:
    """Both cumulative costs: to twice N* and beyond its upper bound, or until running costs what making did."""
    answer = found.comparison.answer()
    marks = [verdict.jobs for verdict in (answer.central, answer.worst, answer.best) if verdict.jobs]
    if answer.central.jobs:
        jobs = min(max(2 * answer.central.jobs, *marks), 5 * answer.central.jobs)
    else:
        upfront = max(answer.reuse_upfront.central, answer.scratch_upfront.central)
        per_job = max(answer.reuse_job.central, answer.scratch_job.central)
        jobs = 2 * upfront / per_job if upfront and per_job else Fraction(100)
    return Plot(
        title=f"{found.reuse} (re-use) against {found.scratch} (from scratch)",
        unit="g CO2e" if found.unit == "g" else found.unit,
        jobs=float(jobs),
        reuse=Line(name=found.reuse, upfront=_three(answer.reuse_upfront), per_job=_three(answer.reuse_job)),
        scratch=Line(name=found.scratch, upfront=_three(answer.scratch_upfront), per_job=_three(answer.scratch_job)),
        mark=float(answer.central.jobs) if answer.central.jobs else None,
    )


def show(found: Found, *, width: int) -> None:
    """Print it for people."""
    answer = found.comparison.answer()
    unit = "g CO2e" if found.unit == "g" else found.unit
    click.echo(f"{found.reuse} (re-use) against {found.scratch} (from scratch), in {unit}\n")
    print_table([("", found.reuse, found.scratch, ""), *_costs(found, answer)], width=width, wrap_last=False)
    click.echo()
    for line in _answer(found, answer):
        click.echo(line)
    click.echo()
    click.echo(text(plot_of(found), width=min(width, 100)))
    rows = list(_sensitivity(found, answer))
    if len(rows) > 1:
        click.echo()
        header = ("IF", "RE-USE UP FRONT", "PER JOB", "SCRATCH UP FRONT", "PER JOB", "RE-USE IS AHEAD", "DAYS")
        print_table([header, *rows], width=width, wrap_last=False)
    click.echo()
    for line in _turns(found):
        click.echo(line)
    for note in found.notes:
        click.echo(f"Note: {note}.")


def document(found: Found) -> dict[str, Any]:
    """It for programs."""
    comparison, answer = found.comparison, found.comparison.answer()
    return {
        "schema": SCHEMA,
        "unit": found.unit,
        "cost_of": found.cost_of,
        "reuse": {
            "product_id": found.reuse,
            "upfront": floats(answer.reuse_upfront),
            "inherited": floats(comparison.inherited()),
            "per_job": floats(answer.reuse_job),
            "parents": {parent: float(weight) for parent, weight in found.parents.items()},
            **_origin(found, "reuse"),
        },
        "scratch": {
            "product_id": found.scratch,
            "upfront": floats(answer.scratch_upfront),
            "per_job": floats(answer.scratch_job),
            **_origin(found, "scratch"),
        },
        "jobs_per_day": None if found.rate is None else float(found.rate),
        "jobs_per_day_from": found.rate_from,
        **_verdict(found, answer.central),
        "bounds": {"best": _verdict(found, answer.best), "worst": _verdict(found, answer.worst)},
        "sensitivity": {
            assumption: [
                {
                    "value": float(value),
                    "reuse_upfront": float(under.reuse_upfront.central),
                    "scratch_upfront": float(under.scratch_upfront.central),
                    "reuse_per_job": float(under.reuse_job.central),
                    "scratch_per_job": float(under.scratch_job.central),
                    **_verdict(found, under.central),
                }
                for value, under in sensitivity(comparison, assumption)
            ]
            for assumption in ASSUMPTIONS
        },
        "turns": [
            {"assumption": tip.assumption, "at": float(tip.at), "below": tip.below, "above": tip.above}
            for tip in _tips(comparison)
        ],
        "past_lifetime": _past_lifetime(found, answer.central),
        "warnings": list(found.warnings),
        "notes": list(found.notes),
    }


def ahead(verdict: BreakEven) -> str:
    """When re-use is ahead, in a few words."""
    return verdict.verdict if verdict.jobs is None else f"{verdict.verdict} {_jobs(verdict.jobs)}"


def _verdict(found: Found, verdict: BreakEven) -> dict[str, Any]:
    days = verdict.days(found.rate) if found.rate else None
    return {
        "verdict": verdict.verdict,
        "jobs": None if verdict.jobs is None else float(verdict.jobs),
        "whole_job": verdict.whole_job,
        "days": None if days is None else float(days),
    }


def _origin(found: Found, side: str) -> dict[str, Any]:
    work = found.jobs[side]
    return {
        "upfront_from": "by hand" if found.by_hand[side] else "registry",
        "per_job_from": "by hand" if work is None else "jobs",
        "jobs": None if work is None else work.jobs,
    }


def _costs(found: Found, answer: Answer) -> Iterator[tuple[str, str, str, str]]:
    comparison = found.comparison
    yield "up front", spread(answer.reuse_upfront), spread(answer.scratch_upfront), ""
    for parent, (weight, epc) in zip(found.parents, comparison.parents, strict=True):
        part = epc.under(AS_IT_IS) * weight
        yield f"  inherited from {parent}", spread(part), "", f"w1 = {shown(weight)} of {spread(epc.under(AS_IT_IS))}"
    whole = comparison.tune
    for weight, epc in comparison.parents:
        whole += Cost(operation=epc.operation * weight, hardware=epc.hardware * weight, fixed=epc.fixed * weight)
    if found.unit == "g":
        yield from _parts("up front", whole, comparison.scratch)
    yield "  from", _upfront_from(found, "reuse"), _upfront_from(found, "scratch"), ""
    yield "per job", spread(answer.reuse_job), spread(answer.scratch_job), ""
    if found.unit == "g":
        yield from _parts("per job", comparison.reuse_job, comparison.scratch_job)
    yield "  from", _work(found, "reuse"), _work(found, "scratch"), ""


def _parts(of: str, reuse: Cost, scratch: Cost) -> Iterator[tuple[str, str, str, str]]:
    """What a cost moves with, where it isn't all one thing."""
    for name, mine, other in (
        ("with the grid (operation)", reuse.operation, scratch.operation),
        ("with utilisation (hardware)", reuse.hardware, scratch.hardware),
        ("with neither (given as a figure)", reuse.fixed, scratch.fixed),
    ):
        if mine != NIL or other != NIL:
            yield f"  moves {name}", shown(mine.central), shown(other.central), ""


def _upfront_from(found: Found, side: str) -> str:
    return "by hand" if found.by_hand[side] else "registry"


def _work(found: Found, side: str) -> str:
    work = found.jobs[side]
    if work is None:
        return "by hand"
    name = {"jsc": "JSC", "asc": "ASC", "asce": "ASC^e"}[found.cost_of] if found.unit == "g" else "energy"
    if work.jobs == 1:
        return f"{name} of 1 job"
    return f"mean {name} of {work.jobs:,} jobs ({shown(work.least)} to {shown(work.most)})"


def _answer(found: Found, answer: Answer) -> Iterator[str]:
    verdict = answer.central
    yield _sentence(answer)
    if found.rate is None:
        if verdict.jobs is not None:
            yield "In days: give the expected rate, --jobs-per-day."
    else:
        days = verdict.days(found.rate)
        rate = f"{shown(found.rate)} jobs a day ({found.rate_from})"
        yield f"At {rate} that is {shown(days)} days." if days is not None else f"The rate: {rate}."
    if _past_lifetime(found, verdict):
        yield f"That is past the lifetime of {found.reuse} ({years(found.lifetime_s)}): in its life re-use doesn't pay."
    if (answer.best, answer.worst) != (verdict, verdict):
        yield f"Within the bounds, re-use is ahead {ahead(answer.best)} at best, {ahead(answer.worst)} at worst."


def _sentence(answer: Answer) -> str:
    verdict = answer.central
    if answer.same:
        return "Always: the two cost the same, so that re-use never loses, nor gains."
    if verdict.verdict == "always":
        return "Always: re-use costs no more up front, and no more per job."
    if verdict.verdict == "never":
        upfront = _times(answer.reuse_upfront, answer.scratch_upfront)
        per_job = _times(answer.reuse_job, answer.scratch_job)
        return f"Never: re-use costs {upfront} up front and {per_job} per job."
    assert verdict.jobs is not None
    whole = Fraction(verdict.whole_job or 0)
    if verdict.verdict == "after":
        return f"Re-use is ahead after N* = {_jobs(verdict.jobs)}: from job {shown(whole)} on it has cost less."
    until = f"job {shown(whole)} is the last at which it has cost less" if whole else "one job is too many already"
    return f"Re-use is ahead only until N* = {_jobs(verdict.jobs)}: {until}. It costs more per job."


def _jobs(count: Fraction) -> str:
    return f"{shown(count)} job{'' if count == 1 else 's'}"


def _times(mine: Range, other: Range) -> str:
    if mine.central == other.central:
        return "the same"
    return f"{shown(mine.central / other.central)} times as much" if other.central else "more"


def _past_lifetime(found: Found, verdict: BreakEven) -> bool:
    days = verdict.days(found.rate) if found.rate else None
    return (
        verdict.verdict == "after"
        and days is not None
        and found.lifetime_s is not None
        and days * DAY_S > found.lifetime_s
    )


def _sensitivity(found: Found, actual: Answer) -> Iterator[tuple[str, ...]]:
    yield _row(found, "as it is", actual)
    for assumption in ASSUMPTIONS:
        for value, under in sensitivity(found.comparison, assumption):
            label = LABELS[assumption].format(shown(value))
            yield _row(found, label + (REMARKS.get(value, "") if assumption == "grid" else ""), under)


def _row(found: Found, label: str, answer: Answer) -> tuple[str, ...]:
    days = answer.central.days(found.rate) if found.rate else None
    return (
        label,
        shown(answer.reuse_upfront.central),
        shown(answer.reuse_job.central),
        shown(answer.scratch_upfront.central),
        shown(answer.scratch_job.central),
        ahead(answer.central),
        "" if days is None else shown(days),
    )


def _tips(comparison: Comparison) -> list[Tip]:
    return [
        tip
        for assumption in ASSUMPTIONS
        if comparison.matters(assumption)
        for tip in tipping_points(comparison, assumption)
    ]


def _turns(found: Found) -> Iterator[str]:
    varied = [assumption for assumption in ASSUMPTIONS if found.comparison.matters(assumption)]
    tips = _tips(found.comparison)
    if not varied:
        return
    if not tips:
        yield "Nothing within these steps turns the answer."
    for tip in tips:
        what = LABELS[tip.assumption].format(shown(tip.at))
        yield f'What turns the answer: {what}; below, "{tip.below}", above, "{tip.above}".'


def _three(value: Range) -> tuple[float, float, float]:
    return float(value.low), float(value.central), float(value.high)
