"""`wattribute product compare`: after how many jobs re-use beats from-scratch, and what would turn the answer."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from wattribute.agent.cli import write_file
from wattribute.agent.cli.amounts import Amount, Amounts
from wattribute.agent.cli.compare_words import Found, document, plot_of, show
from wattribute.agent.cli.product_words import ProductId, config_option
from wattribute.agent.config import Config, load
from wattribute.agent.core.break_even import Comparison, Cost
from wattribute.agent.core.compared import (
    CostOf,
    Making,
    Terms,
    Unit,
    Work,
    jobs_per_day,
    making_of,
    terms_of,
    times,
    work_of,
)
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.core.lineage import Book, book
from wattribute.agent.core.provenance import registry
from wattribute.agent.core.ranges import Range
from wattribute.agent.core.records import JobRecord
from wattribute.exporters import plots

if TYPE_CHECKING:
    from wattribute.agent.archive import Archive

FEW_JOBS = 3
Side = Literal["reuse", "scratch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for on the command line."""

    ids: dict[Side, str]
    unit: Unit
    cost_of: CostOf
    epc: dict[Side, Range | None]
    cost: dict[Side, Range | None]
    epc_parent: Range | None
    w1: Fraction | None
    rate: Fraction | None


@dataclass(slots=True, kw_only=True)
class Records:
    """What the archive has of two products."""

    book: Book
    creation: dict[str, Terms]
    work: dict[Side, Work | None]
    billed_at: Fraction


@dataclass(slots=True)
class Remarks:
    """What a reader should know of the figures."""

    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@click.command("compare")
@click.argument("reuse", type=ProductId())
@click.argument("scratch", type=ProductId())
@click.option(
    "--jobs-per-day", "rate", type=Amount(above=True), help="Expected rate, for N* in days  [default: as seen]"
)
@click.option("--cost-reuse", type=Amounts(), help="Cost per job of REUSE  [default: the mean of its jobs]")
@click.option("--cost-scratch", type=Amounts(), help="Cost per job of SCRATCH  [default: the mean of its jobs]")
@click.option("--epc-reuse", type=Amounts(), help="What REUSE took to make, less what it inherits  [default: its EPC]")
@click.option("--epc-scratch", type=Amounts(), help="What SCRATCH took to make; 0: it is there  [default: its EPC]")
@click.option("--epc-parent", type=Amounts(), help="EPC of what REUSE was made from, of which it inherits w1.")
@click.option("--w1", type=Amount(high=1), help="The part of it that REUSE inherits  [default: as registered]")
@click.option(
    "--cost-of",
    type=click.Choice(["jsc", "asc", "asce"]),
    default="jsc",
    show_default=True,
    help="What a job costs: JSC, ASC with its hardware, or ASC^e (less the product's own EPC, which is up front).",
)
@click.option("--unit", type=click.Choice(["g", "kWh"]), default="g", show_default=True, help="Unit of all costs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw cumulative costs into this SVG file."
)
@config_option
def command(
    reuse: str,
    scratch: str,
    rate: Fraction | None,
    cost_reuse: Range | None,
    cost_scratch: Range | None,
    epc_reuse: Range | None,
    epc_scratch: Range | None,
    epc_parent: Range | None,
    w1: Fraction | None,
    cost_of: CostOf,
    unit: Unit,
    as_json: bool,
    plot: Path | None,
    file: Path | None,
) -> None:
    """After how many jobs the product REUSE, made from another, beats SCRATCH, made from scratch.

    N* = (w1 * EPC of the parent + what REUSE took - EPC of SCRATCH) / (cost per job of SCRATCH - that of REUSE), with
    what would turn the answer. Costs are the archive's or given by hand, as a number or LOW:CENTRAL:HIGH.

    \b
    Example:
      wattribute product compare distilbert bert --jobs-per-day 400
      wattribute product compare distilbert bert --unit kWh --epc-reuse 168 --epc-scratch 0 \\
        --cost-reuse 0.015 --cost-scratch 0.025
    """
    if reuse == scratch:
        raise click.UsageError("REUSE and SCRATCH are the same product.")
    asked = Asked(
        ids={"reuse": reuse, "scratch": scratch},
        unit=unit,
        cost_of=cost_of,
        epc={"reuse": epc_reuse, "scratch": epc_scratch},
        cost={"reuse": cost_reuse, "scratch": cost_scratch},
        epc_parent=epc_parent,
        w1=w1,
        rate=rate,
    )
    found = _found(asked, file)
    if plot is not None:
        write_file(plot, plots.svg(plot_of(found)))
    if as_json:
        click.echo(json.dumps(document(found), indent=2, ensure_ascii=False))
        return
    show(found, width=shutil.get_terminal_size((100, 24)).columns)
    for warning in found.warnings:
        click.echo(f"wattribute: warning: {warning}", err=True)


def _found(asked: Asked, file: Path | None) -> Found:
    """The comparison that was asked for. Raises WattributeError, click.UsageError."""
    if asked.epc["reuse"] is not None and (asked.w1 is None) != (asked.epc_parent is None):
        raise click.UsageError(
            "with --epc-reuse, what REUSE inherits is --w1 times --epc-parent: give both, or neither if it inherits "
            "nothing."
        )
    remarks = Remarks()
    records = None
    if None in (*asked.epc.values(), *asked.cost.values()):
        records = _records(load(file, os.environ, {}).config, asked)
    tune, parents = _reuse(asked, records, remarks)
    comparison = Comparison(
        tune=tune,
        parents=tuple(parents.values()),
        scratch=_scratch(asked, records, remarks),
        reuse_job=_per_job(asked, records, "reuse", remarks),
        scratch_job=_per_job(asked, records, "scratch", remarks),
        billed_at=records.billed_at if records else Fraction(1),
    )
    product = records.book.products.get(asked.ids["reuse"]) if records else None
    rate, rate_from = asked.rate, "given"
    if rate is None and records is not None:
        rate = jobs_per_day(*records.work.values())
        rate_from = _rate_words(records)
    if not parents:
        remarks.notes.append("nothing is inherited, so that w1 plays no part")
    if asked.unit == "kWh":
        remarks.notes.append("in kWh neither the grid nor the making of hardware plays a part")
    return Found(
        reuse=asked.ids["reuse"],
        scratch=asked.ids["scratch"],
        unit=asked.unit,
        cost_of=asked.cost_of,
        comparison=comparison,
        parents={parent: weight for parent, (weight, _) in parents.items()},
        rate=rate,
        rate_from=rate_from if rate is not None else "",
        jobs={side: _count(asked, records, side) for side in asked.ids},
        by_hand={side: epc is not None for side, epc in asked.epc.items()},
        lifetime_s=product.lifetime_s if product else None,
        warnings=tuple(remarks.warnings),
        notes=tuple(remarks.notes),
    )


def _records(config: Config, asked: Asked) -> Records:
    from wattribute.agent.archive import open_archive
    from wattribute.agent.wiring import products

    with open_archive(config) as archive:
        creation: dict[str, Terms] = {}

        def counted(jobs: Iterable[JobRecord]) -> Iterable[JobRecord]:
            for job in jobs:
                creation[job.product_id] = creation.get(job.product_id, Terms()) + terms_of(job)
                yield job

        try:
            folded = registry(event for _, event in archive.events())
            found = book(folded, counted(archive.jobs(role="creation")), products(config))
        except ValueError as error:
            raise WattributeError(f"{archive.name}: {error}") from error
        work = {side: _work(archive, product_id, asked) for side, product_id in asked.ids.items()}
    utilisations = {part.utilisation or 1.0 for part in config.embodied}
    billed_at = Fraction(str(utilisations.pop())) if len(utilisations) == 1 else Fraction(1)
    return Records(book=found, creation=creation, work=work, billed_at=billed_at)


def _work(archive: "Archive", product_id: str, asked: Asked) -> Work | None:
    return work_of(archive.jobs(product_id=product_id, role="use"), asked.unit, asked.cost_of)


def _reuse(asked: Asked, records: Records | None, remarks: Remarks) -> tuple[Cost, dict[str, tuple[Fraction, Cost]]]:
    """What REUSE took to make by itself, and the weight and EPC of each parent that w1 is about."""
    by_hand = None if asked.epc_parent is None else Cost(fixed=asked.epc_parent)
    epc = asked.epc["reuse"]
    if epc is not None:
        assert by_hand is None or asked.w1 is not None
        return Cost(fixed=epc), {} if by_hand is None or asked.w1 is None else {"its parent": (asked.w1, by_hand)}
    assert records is not None
    product_id = asked.ids["reuse"]
    product = records.book.products.get(product_id)
    registered = product.parents if product else {}
    kinds = {parent: records.book.products[parent].kind for parent in registered if parent in records.book.products}
    # The paper's w1 is about the model that is re-used; data sets keep their weights.
    reused = [parent for parent in registered if kinds.get(parent) == "model"] or list(registered)
    given = {}
    if by_hand is not None:
        if len(reused) > 1:
            raise click.UsageError(
                f"--epc-parent: {product_id!r} was made from {len(reused)} products ({', '.join(reused)})."
            )
        given = dict.fromkeys(reused, by_hand)
    making = _making(asked, records, "reuse", given)
    _remark_running(records, product_id, remarks)
    parents = {parent: making.parents[parent] for parent in reused}
    if not reused and by_hand is not None:
        if asked.w1 is None:
            raise click.UsageError(f"{product_id!r} has no parent in the registry: --epc-parent needs --w1.")
        parents = {"its parent": (asked.w1, by_hand)}
    elif not reused and asked.w1 is not None:
        raise click.UsageError(f"{product_id!r} has no parent in the registry: --w1 needs --epc-parent.")
    tune = making.own
    for parent, (weight, cost) in making.parents.items():
        if parent not in parents:
            tune += times(cost, weight)
    if asked.w1 is not None:
        parents = {parent: (asked.w1, cost) for parent, (_, cost) in parents.items()}
    return tune, parents


def _scratch(asked: Asked, records: Records | None, remarks: Remarks) -> Cost:
    epc = asked.epc["scratch"]
    if epc is not None:
        return Cost(fixed=epc)
    assert records is not None
    making = _making(asked, records, "scratch", {})
    _remark_running(records, asked.ids["scratch"], remarks)
    return making.whole


def _making(asked: Asked, records: Records, side: Side, given: dict[str, Cost]) -> Making:
    try:
        return making_of(records.book, records.creation, asked.ids[side], asked.unit, given)
    except WattributeError as error:
        parent = " (what it was made from: --epc-parent)" if side == "reuse" else ""
        raise WattributeError(f"{error}. Or give its EPC by hand: --epc-{side}{parent}") from error


def _remark_running(records: Records, product_id: str, remarks: Remarks) -> None:
    recorded = records.book.recorded.get(product_id)
    if recorded is not None and recorded.running:
        remarks.warnings.append(f"{product_id} is still being made ({recorded.running[0]} runs): its EPC will be more")


def _per_job(asked: Asked, records: Records | None, side: Side, remarks: Remarks) -> Cost:
    by_hand = asked.cost[side]
    if by_hand is not None:
        # A JSC is energy at the grid's price; of the others the parts aren't known.
        moves = asked.unit == "g" and asked.cost_of == "jsc"
        return Cost(operation=by_hand) if moves else Cost(fixed=by_hand)
    assert records is not None
    work, product_id = records.work[side], asked.ids[side]
    if work is None:
        raise WattributeError(
            f"product {product_id!r} has no ended job of role use in the archive. Give the cost per job: --cost-{side}"
        )
    if work.jobs < FEW_JOBS:
        remarks.warnings.append(
            f"the cost per job of {product_id} stands on {work.jobs} job{'s'[: work.jobs - 1]} only"
        )
    return work.mean


def _count(asked: Asked, records: Records | None, side: Side) -> Work | None:
    return records.work[side] if records is not None and asked.cost[side] is None else None


def _rate_words(records: Records) -> str:
    known = [work for work in records.work.values() if work is not None]
    if not known:
        return ""
    span_ns = max(work.last_unix_ns for work in known) - min(work.first_unix_ns for work in known)
    days = span_ns / (86_400 * 10**9)
    short = ", which is short" if days < 1 else ""
    return f"seen: {sum(work.jobs for work in known):,} jobs of both in {days:.3g} days{short}"
