"""What the records of two products come to as the costs of a break-even: up front from EPC, per job from jobs of use.

In grams a cost is taken apart into what moves with the grid and what with utilisation, as far as jobs were measured
here; declared and entered figures move with neither. In kWh neither plays a part. Pure: records in, costs out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.break_even import Cost
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.core.lineage import Book
from wattribute.agent.core.products import parents_first
from wattribute.agent.core.ranges import Range
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.units import DAY_S, NG_PER_G, NS_PER_S, UJ_PER_KWH

Unit = Literal["g", "kWh"]
CostOf = Literal["jsc", "asc", "asce"]


@dataclass(frozen=True, slots=True)
class Terms:
    """Nanograms of a job, or of many, by what they move with; and microjoules."""

    operation: int = 0
    hardware: int = 0
    fixed: int = 0
    energy_uj: int = 0

    def __add__(self, other: "Terms") -> "Terms":
        return Terms(
            self.operation + other.operation,
            self.hardware + other.hardware,
            self.fixed + other.fixed,
            self.energy_uj + other.energy_uj,
        )


def terms_of(job: JobRecord, cost_of: CostOf = "asce") -> Terms:
    """A job's cost. Of ASC^e the job's own product's EPC is left out where it is work on behalf of a user.

    That is the up-front side of a break-even already. Platform and retraining taxes are somebody's operation.
    """
    ng = job.terms_ng
    operation, hardware, fixed = ng.get("operation", 0) + ng.get("cooling", 0), 0, 0
    if cost_of != "jsc":
        hardware = ng.get("hardware", 0)
    if cost_of == "asce":
        operation += ng.get("platform", 0) + ng.get("retraining", 0)
        hardware += ng.get("overhead_hardware", 0)
        own = job.taxes_ng.get((job.product_id, "product"), 0) if job.role == "use" else 0
        fixed = ng.get("product", 0) - own
    return Terms(operation, hardware, fixed, sum(job.energy_uj.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a product's ended jobs of use cost: their mean, the least and the most, how many, and from when to when."""

    mean: Cost
    least: Fraction
    most: Fraction
    jobs: int
    first_unix_ns: int
    last_unix_ns: int


def work_of(jobs: Iterable[JobRecord], unit: Unit, cost_of: CostOf) -> Work | None:
    """The mean cost of a job; None without an ended job. Raises WattributeError where corrections made it negative."""
    total, costs = Terms(), []
    first, last = [], []
    for job in jobs:
        if job.role != "use" or job.ended_unix_ns is None:
            continue
        terms = terms_of(job, cost_of)
        total += terms
        costs.append(_plain(terms, unit))
        first.append(job.started_unix_ns)
        last.append(job.ended_unix_ns)
    if not costs:
        return None
    return Work(
        mean=_cost(total, unit, len(costs)),
        least=min(costs),
        most=max(costs),
        jobs=len(costs),
        first_unix_ns=min(first),
        last_unix_ns=max(last),
    )


def jobs_per_day(*works: Work | None) -> Fraction | None:
    """The rate at which jobs came, of all the work given, from the first start to the last end; None: nothing known."""
    known = [work for work in works if work is not None]
    if not known:
        return None
    span_ns = max(work.last_unix_ns for work in known) - min(work.first_unix_ns for work in known)
    return Fraction(sum(work.jobs for work in known) * DAY_S * NS_PER_S, span_ns) if span_ns > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What a product took to make: by itself, and the whole EPC of each parent with its weight."""

    own: Cost
    parents: Mapping[str, tuple[Fraction, Cost]]

    @property
    def whole(self) -> Cost:
        """All of it: EPC."""
        total = self.own
        for weight, cost in self.parents.values():
            total += times(cost, weight)
        return total


def making_of(
    found: Book, creation: Mapping[str, Terms], product_id: str, unit: Unit, given: Mapping[str, Cost] | None = None
) -> Making:
    """What a product took to make; `creation` is what creation jobs cost by product (ASC^e), `given` what is known
    better of some products' whole EPC. Raises WattributeError where a part of it isn't known.
    """
    known = dict(given or {})
    ancestors: dict[str, None] = {product_id: None}
    for one in (queue := [product_id]):
        if one in found.products:
            fresh = [
                parent for parent in found.products[one].parents if parent not in ancestors and parent not in known
            ]
            ancestors.update(dict.fromkeys(fresh))
            queue.extend(fresh)
    for one in ancestors:
        if one not in found.products:
            of = "" if one == product_id else f", of which {product_id!r} inherits"
            raise WattributeError(f"no product {one!r} is registered{of}. See: wattribute product list")
    making = Making(own=Cost(), parents={})
    for one in parents_first({one: found.products[one] for one in ancestors}):
        parents = {parent: (weight, known[parent]) for parent, weight in found.products[one].parents.items()}
        making = Making(own=_own(found, creation.get(one, Terms()), one, unit), parents=parents)
        if one == product_id:
            break
        known[one] = making.whole
    return making


def _own(found: Book, measured: Terms, product_id: str, unit: Unit) -> Cost:
    """What a product took by itself."""
    own = found.epc[product_id].own
    if own is None:
        raise WattributeError(
            f"what making product {product_id!r} cost isn't known: no creation job, no declared EPC and no entered cost"
        )
    recorded = found.recorded.get(product_id)
    measured_ng = measured.operation + measured.hardware + measured.fixed
    declared = found.products[product_id].frozen is None and (recorded is None or recorded.total != own)
    if unit == "kWh":
        if declared or recorded is None or recorded.entered_count or not recorded.job_count:
            raise WattributeError(
                f"what making product {product_id!r} cost is known in grams only (declared, or entered by hand)"
            )
        return Cost(fixed=Range.of(Fraction(measured.energy_uj, UJ_PER_KWH)))
    if declared or measured_ng > own.central or min(measured.operation, measured.hardware) < 0:
        return _spread(own, Terms(fixed=own.central))
    return _spread(
        own, Terms(measured.operation, measured.hardware, own.central - measured.operation - measured.hardware)
    )


def _spread(whole: Bounded, parts: Terms) -> Cost:
    """Bounds of the whole on its parts, each by the same factor; in grams."""
    if not whole.central:
        return Cost(fixed=_grams(whole, Fraction(1)))
    return Cost(
        operation=_grams(whole, Fraction(parts.operation, whole.central)),
        hardware=_grams(whole, Fraction(parts.hardware, whole.central)),
        fixed=_grams(whole, Fraction(parts.fixed, whole.central)),
    )


def _grams(whole: Bounded, part: Fraction) -> Range:
    return Range(*(part * Fraction(ng, NG_PER_G) for ng in (whole.low, whole.central, whole.high)))


def times(cost: Cost, factor: Fraction) -> Cost:
    """A multiple of a cost."""
    return Cost(operation=cost.operation * factor, hardware=cost.hardware * factor, fixed=cost.fixed * factor)


def _plain(terms: Terms, unit: Unit) -> Fraction:
    if unit == "kWh":
        return Fraction(terms.energy_uj, UJ_PER_KWH)
    return Fraction(terms.operation + terms.hardware + terms.fixed, NG_PER_G)


def _cost(total: Terms, unit: Unit, count: int) -> Cost:
    if min(total.operation, total.hardware, total.fixed, total.energy_uj) < 0:
        raise WattributeError("later corrections made what these jobs cost negative: give the cost per job by hand")
    if unit == "kWh":
        return Cost(fixed=Range.of(Fraction(total.energy_uj, UJ_PER_KWH * count)))
    values = (Range.of(Fraction(ng, NG_PER_G * count)) for ng in (total.operation, total.hardware, total.fixed))
    return Cost(**dict(zip(("operation", "hardware", "fixed"), values, strict=True)))
