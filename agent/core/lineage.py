"""What the registry and the jobs' records come to: each product's EPC, what of it was recovered, where it came from.

Masses are integer nanograms CO2e with bounds. Pure: the moment is given.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from wattribute.agent.core.bounds import NOTHING, Bounded
from wattribute.agent.core.products import Epc, Product, ProductKind, Status, epcs, given, missing
from wattribute.agent.core.provenance import Registry
from wattribute.agent.core.records import JobRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What making a product has cost by the records: its creation jobs' ASC^e, and what was entered by hand.

    `unmeasured` are creation jobs whose energy nobody knows: without what is entered for them it is a lower bound.
    """

    jobs: Bounded = NOTHING
    job_count: int = 0
    running: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()
    entered: Bounded = NOTHING
    entered_count: int = 0

    @property
    def total(self) -> Bounded | None:
        """None where nothing was recorded."""
        return self.jobs + self.entered if self.job_count or self.entered_count else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """All products with what is known of their EPC. `declared`: which of them the configuration declares.

    `computed`: those whose own EPC is what was recorded, neither declared nor frozen.
    `given`: what each gave to its children by weight; `given_ng`: what they inherit of it; `recovered_ng`: the product
    tax that was billed for it.
    """

    products: Mapping[str, Product]
    epc: Mapping[str, Epc]
    recorded: Mapping[str, Recorded]
    registry: Registry
    declared: frozenset[str] = frozenset()
    computed: frozenset[str] = frozenset()
    given: Mapping[str, Fraction] = field(default_factory=dict)
    given_ng: Mapping[str, int] = field(default_factory=dict)
    recovered_ng: Mapping[str, int] = field(default_factory=dict)

    def missing(self, product_id: str) -> tuple[str, ...]:
        """Whose own EPC isn't known, so that this one's isn't."""
        return missing(product_id, self.products)


def asce(job: JobRecord) -> Bounded:
    """A job's ASC^e, ng: all its terms. The records hold no bounds of it."""
    return Bounded.exactly(sum(job.terms_ng.values()))


def book(
    folded: Registry,
    jobs: Iterable[JobRecord] = (),
    declared: Iterable[Product] = (),
    *,
    cost_of: Callable[[JobRecord], Bounded] = asce,
) -> Book:
    """Every product with its EPC and what was recovered of it. Raises ValueError for a cycle.

    A product's own EPC is what it was frozen at, else the declared figure, else what was recorded; else unknown.
    """
    known = list(declared)
    products = folded.effective(known)
    recorded: dict[str, Recorded] = {}
    recovered_ng: dict[str, int] = {}
    for job in jobs:
        if job.role == "creation":
            so_far = recorded.get(job.product_id, Recorded())
            recorded[job.product_id] = replace(
                so_far,
                jobs=so_far.jobs + cost_of(job),
                job_count=so_far.job_count + 1,
                running=(*so_far.running, job.id) if job.ended_unix_ns is None else so_far.running,
                unmeasured=(*so_far.unmeasured, job.id) if job.cpu_ns and not job.energy_uj else so_far.unmeasured,
            )
        for (payee, term), billed_ng in job.taxes_ng.items():
            if term == "product":
                recovered_ng[payee] = recovered_ng.get(payee, 0) + billed_ng
    for product_id, costs in folded.costs.items():
        entered = NOTHING
        for cost in costs.values():
            entered += cost.mass
        so_far = recorded.get(product_id, Recorded())
        recorded[product_id] = replace(so_far, entered=entered, entered_count=len(costs))
    computed: set[str] = set()
    for product_id in recorded.keys() & products.keys():
        product, total = products[product_id], recorded[product_id].total
        if product.own is None and total is not None:
            computed.add(product_id)
            products[product_id] = replace(
                product, epc_low_ng=total.low, epc_own_ng=total.central, epc_high_ng=total.high
            )
    epc = epcs(products)
    given_ng: dict[str, int] = {}
    for one in epc.values():
        for parent, part in one.inherited.items():
            if part is not None:
                given_ng[parent] = given_ng.get(parent, 0) + part.central
    return Book(
        products=products,
        epc=epc,
        recorded=recorded,
        registry=folded,
        declared=frozenset(product.id for product in known),
        computed=frozenset(computed),
        given=given(products.values()),
        given_ng=given_ng,
        recovered_ng=recovered_ng,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How much of a product's EPC its own users have paid. None: not known, or not being written off.

    `stock_ng`: what is theirs to pay, u_p * EPC. `excess_ng`: by how much what was recovered and inherited is more than
    the EPC; 0 where all is well.
    """

    stock_ng: int | None
    recovered_ng: int
    expected_ng: int | None = None
    left_s: int | None = None
    excess_ng: int = 0

    @property
    def ahead_ng(self) -> int | None:
        """Recovered less what was expected by now: above 0 over-recovered, below under-recovered."""
        return None if self.expected_ng is None else self.recovered_ng - self.expected_ng


def recovery(found: Book, product_id: str, now_unix_ns: int) -> Recovery:
    """A product's recovery at a moment: expected is u_p * EPC * elapsed / LT, from deployment to the end of LT."""
    product, total = found.products[product_id], found.epc[product_id].total
    recovered_ng = found.recovered_ng.get(product_id, 0)
    if total is None:
        return Recovery(stock_ng=None, recovered_ng=recovered_ng)
    own_part = max(Fraction(0), 1 - found.given.get(product_id, Fraction(0)))
    stock_ng = total.central * own_part.numerator // own_part.denominator
    excess_ng = max(0, recovered_ng + found.given_ng.get(product_id, 0) - total.central)
    if not product.lifetime_s or product.deployed_unix_ns is None or product.status == "open":
        return Recovery(stock_ng=stock_ng, recovered_ng=recovered_ng, excess_ng=excess_ng)
    life_ns = product.lifetime_s * 10**9
    elapsed_ns = min(max(0, now_unix_ns - product.deployed_unix_ns), life_ns)
    return Recovery(
        stock_ng=stock_ng,
        recovered_ng=recovered_ng,
        expected_ng=stock_ng * elapsed_ns // life_ns,
        left_s=(life_ns - elapsed_ns) // 10**9,
        excess_ng=excess_ng,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A product in a graph of lineage. `depth`: the most steps from the product that was asked for.

    It is above 0 towards ancestors, below 0 towards descendants.
    """

    id: str
    kind: ProductKind
    status: Status
    epc: Bounded | None
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What a child inherits from a parent: a part of its EPC by weight, and how much that is."""

    parent: str
    child: str
    weight: Fraction
    inherited: Bounded | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a product came from (and, if asked for, what came from it): each product once, nearest first."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def lineage(found: Book, product_id: str, *, children: bool = False) -> Lineage:
    """The graph of a product's ancestors, and with `children` of its descendants. Raises KeyError for an unknown one.

    A parent that isn't registered is a node of kind "undeclared" without an EPC.
    """
    if product_id not in found.products:
        raise KeyError(product_id)
    depths = _depths(product_id, {one.id: tuple(one.parents) for one in found.products.values()})
    if children:
        below: dict[str, list[str]] = {}
        for one in found.products.values():
            for parent in one.parents:
                below.setdefault(parent, []).append(one.id)
        depths |= {other: -depth for other, depth in _depths(product_id, below).items()}
    nodes = [_node(found, one, depth) for one, depth in depths.items()]
    edges = []
    for child in depths:
        product = found.products.get(child)
        if product is not None and product.parents:
            inherited = found.epc[child].inherited
            edges += [
                Edge(parent=parent, child=child, weight=weight, inherited=inherited.get(parent))
                for parent, weight in product.parents.items()
                if parent in depths
            ]
    return Lineage(nodes=tuple(nodes), edges=tuple(edges))


def _node(found: Book, product_id: str, depth: int) -> Node:
    product = found.products.get(product_id)
    if product is None:
        return Node(id=product_id, kind="undeclared", status="open", epc=None, depth=depth)
    return Node(id=product_id, kind=product.kind, status=product.status, epc=found.epc[product_id].total, depth=depth)


def _depths(start: str, onward: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Everything that can be reached, nearest first, with the length of the longest way there. There is no cycle."""
    arrivals = {start: 0}
    for one in (queue := [start]):
        for other in onward.get(one, ()):
            if other not in arrivals:
                queue.append(other)
            arrivals[other] = arrivals.get(other, 0) + 1
    depths = {start: 0}
    for one in (ready := [start]):
        for other in onward.get(one, ()):
            depths[other] = max(depths.get(other, 0), depths[one] + 1)
            arrivals[other] -= 1
            if not arrivals[other]:
                ready.append(other)
    return dict(sorted(depths.items(), key=lambda item: item[1]))
