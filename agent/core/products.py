"""Products: what jobs stand on. EPC over the provenance graph, how it is amortised, and who pays whom.

EPC(m) = own + sum over parents p of w_p * EPC(p). A parent's own users recover 1 - the weights that it gave away, so
that what is recovered plus what is inherited is at most EPC (formulas.md, "Embodied"). Masses are integer nanograms;
what a child inherits is rounded down, so that this holds in integers too. Nothing here recurses: chains may be long.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

from wattribute.agent.core.bounds import NOTHING, Bounded
from wattribute.agent.core.model import Job

ProductKind = Literal["platform", "model", "dataset", "service", "undeclared"]
Status = Literal["open", "frozen", "retired"]
Scope = Literal["node", "fleet"]
Amortise = Literal["time", "units"]
TaxBy = Literal["weight", "reserved", "units"]
REQUEST = "request"
"""The unit that every metered request is one of."""
MICRO = 1_000_000
"""Units are counted in integer millionths."""
WEIGHT_SCALE = 10**12
"""Weights are exact decimals of at most twelve places."""
_NONE, _ALL = Fraction(0), Fraction(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What a product's EPC was at deployment: its own part, and what came from each parent. It moves no more."""

    own: Bounded
    inherited: Mapping[str, Bounded] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A declared product. Rates are nanograms per 1e9 s, masses nanograms; None is not known, never 0.

    `concurrency_ppm` is the declared weight of its concurrent payers everywhere, in millionths; 0: none declared.
    An `open` product is still being made: its EPC is taxed from deployment on. `scope`: whose jobs its payers are.
    `epc_low_ng` and `epc_high_ng` bound `epc_own_ng` (None: as it is); `frozen` takes the place of all three.
    `tax_by` is what its platform is split by: weight, weight times claim, or weight times units served.
    `expected_micro_units` is how many millionths of its `unit` it is expected to serve in its life.
    """

    id: str
    kind: ProductKind = "service"
    runs_on: tuple[str, ...] = ()
    owners: tuple[str, ...] = ("root",)
    epc_own_ng: int | None = None
    lifetime_s: int | None = None
    overhead_rate: int = 0
    concurrency_ppm: int = 0
    parents: Mapping[str, Fraction] = field(default_factory=dict)
    status: Status = "frozen"
    deployed_unix_ns: int | None = None
    scope: Scope | None = None
    retraining_interval_s: int | None = None
    epc_low_ng: int | None = None
    epc_high_ng: int | None = None
    version: str = ""
    boundary: str = ""
    frozen: Frozen | None = None
    unit: str = REQUEST
    expected_micro_units: int | None = None
    amortise: Amortise = "time"
    tax_by: TaxBy = "weight"

    @property
    def own(self) -> Bounded | None:
        """What making it cost without its parents; None where that isn't known."""
        if self.frozen is not None:
            return self.frozen.own
        if self.epc_own_ng is None:
            return None
        low_ng = self.epc_own_ng if self.epc_low_ng is None else self.epc_low_ng
        high_ng = self.epc_own_ng if self.epc_high_ng is None else self.epc_high_ng
        return Bounded(low_ng, self.epc_own_ng, high_ng)

    @property
    def written_off(self) -> bool:
        """Whether its users pay its EPC from deployment on: over a lifetime, or over the units that it should serve."""
        return bool(self.expected_micro_units if self.amortise == "units" else self.lifetime_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epc:
    """One product's EPC: its own part, what its parents bring, and the sum; None where that isn't known.

    `above` are the parents' EPCs in the order of `product.parents`. The parts are made when they are asked for: graphs
    may be large.
    """

    product: Product
    total: Bounded | None
    above: tuple["Epc | None", ...] = ()

    @property
    def own(self) -> Bounded | None:
        """What making it cost without its parents."""
        return self.product.own

    @property
    def inherited(self) -> dict[str, Bounded | None]:
        """What each parent brings, rounded down."""
        if self.product.frozen is not None:
            return dict(self.product.frozen.inherited)
        parts = zip(self.product.parents.items(), self.above, strict=True)
        return {
            parent: None if epc is None or epc.total is None else epc.total.part(weight.numerator, weight.denominator)
            for (parent, weight), epc in parts
        }

    @property
    def parts(self) -> tuple[int | None, int | None]:
        """(own, inherited) central EPC, ng; inherited is 0 for a product without parents."""
        return _central(self.own), _central(self.brought)

    @property
    def brought(self) -> Bounded | None:
        """What all parents bring; nothing for a product without parents."""
        return _whole(NOTHING, self.product, self.above)


def epcs(products: Mapping[str, Product]) -> dict[str, Epc]:
    """The EPC of each product, in one pass from parents to children. Raises ValueError for a cycle (it names it).

    A product that isn't among them, and what descends from it, is not known. A frozen product stays as it is.
    """
    found: dict[str, Epc] = {}
    for product_id in parents_first(products):
        product = products[product_id]
        above = tuple(map(found.get, product.parents)) if product.parents and product.frozen is None else ()
        found[product_id] = Epc(product=product, total=_whole(product.own, product, above), above=above)
    return found


def _whole(own: Bounded | None, product: Product, above: Iterable[Epc | None]) -> Bounded | None:
    """An own part and what `Epc.inherited` tells one by one; with less to allocate."""
    if own is None:
        return None
    if product.frozen is not None:
        return sum(product.frozen.inherited.values(), own)
    low_ng, central_ng, high_ng = own.low, own.central, own.high
    for weight, epc in zip(product.parents.values(), above, strict=True):
        if epc is None or epc.total is None:
            return None
        total, numerator, denominator = epc.total, weight.numerator, weight.denominator
        low_ng += total.low * numerator // denominator
        central_ng += total.central * numerator // denominator
        high_ng += total.high * numerator // denominator
    return Bounded(low_ng, central_ng, high_ng)


def missing(product_id: str, products: Mapping[str, Product]) -> tuple[str, ...]:
    """The products whose own EPC isn't known, or that nobody declared, without which this one's can't be known."""
    seen = {product_id: None}
    for one in (queue := [product_id]):
        product = products.get(one)
        if product is not None and product.frozen is None:
            fresh = [parent for parent in product.parents if parent not in seen]
            seen.update(dict.fromkeys(fresh))
            queue.extend(fresh)
    return tuple(one for one in seen if one not in products or products[one].own is None)


def parents_first(products: Mapping[str, Product]) -> list[str]:
    """All ids, each after its parents. Raises ValueError for a cycle, which it names."""
    ordered: dict[str, None] = {}
    waiting: set[str] = set()
    for start in products:
        path = [start]
        while path:
            product_id = path[-1]
            pending = [one for one in products[product_id].parents if one in products and one not in ordered]
            if not pending:
                ordered[path.pop()] = None
            elif product_id in waiting:  # it came first among those that wait for it
                circle = find_cycle({one.id: one.parents for one in products.values()}, [product_id])
                raise ValueError("products inherit in a circle: " + " -> ".join(circle))
            else:
                waiting.add(product_id)
                path += pending
    return list(ordered)


def find_cycle(edges: Mapping[str, Iterable[str]], starts: Iterable[str] | None = None) -> list[str]:
    """One path that comes back to where it starts, e.g. [a, b, a]; empty where there is none. Linear, no recursion.

    `starts`: where to look from; everywhere without it.
    """
    finished: set[str] = set()
    for start in edges if starts is None else starts:
        if start in finished:
            continue
        path: dict[str, Iterator[str]] = {start: iter(edges[start])}
        while path:
            node = next(reversed(path))
            for other in path[node]:
                if other in path:
                    walked = list(path)
                    return [*walked[walked.index(other) :], other]
                if other not in finished:
                    path[other] = iter(edges.get(other, ()))
                    break
            else:
                finished.add(node)
                del path[node]
    return []


def given(products: Iterable[Product]) -> dict[str, Fraction]:
    """What each parent gave to its children, by weight; at most 1 where the products were checked."""
    scaled: dict[str, int] = {}
    others: dict[str, Fraction] = {}
    for child in products:
        for parent, weight in child.parents.items():
            times, rest = divmod(WEIGHT_SCALE, weight.denominator)
            if rest:
                others[parent] = others.get(parent, _NONE) + weight
            else:
                scaled[parent] = scaled.get(parent, 0) + weight.numerator * times
    gave = {parent: Fraction(weight, WEIGHT_SCALE) for parent, weight in scaled.items()}
    for parent, weight in others.items():
        gave[parent] = gave.get(parent, _NONE) + weight
    return gave


def own_parts(products: Mapping[str, Product]) -> dict[str, Fraction]:
    """u_p of each product, in one pass: the part of its EPC that its own users recover."""
    gave = given(products.values())
    return {product_id: max(_NONE, 1 - gave[product_id]) if product_id in gave else _ALL for product_id in products}


def own_part(product_id: str, products: Iterable[Product]) -> Fraction:
    """u_p: the part of a product's EPC that its own users recover; the rest was given to its children by weight."""
    return max(_NONE, 1 - given(products).get(product_id, _NONE))


def _central(value: Bounded | None) -> int | None:
    return None if value is None else value.central


def payees(job: Job, products: Mapping[str, Product]) -> tuple[str, ...]:
    """The declared products that a job pays: what it is work for, what it uses, and what those run on, each once.

    Platform, retraining and creation jobs of p never pay p itself (formulas.md, "Who doesn't pay").
    """
    seen: dict[str, None] = {}
    queue = [job.product_id, *job.uses]
    while queue:
        product_id = queue.pop(0)
        if product_id in seen or product_id not in products:
            continue
        seen[product_id] = None
        queue.extend(products[product_id].runs_on)
    if job.role != "use":
        seen.pop(job.product_id, None)
    return tuple(seen)


def counted_alone(product: Product) -> Product:
    """A product as a node has it that hears of no other: a declared `concurrency` stands for the fleet's weight."""
    return replace(product, scope=None) if product.scope == "fleet" and product.concurrency_ppm else product


def pays_epc(job: Job, payee: str, products: Mapping[str, Product]) -> bool:
    """Whether a job pays the product tax of `payee`: a creation job of m doesn't for a parent of m (it inherits)."""
    own = products.get(job.product_id)
    return not (job.role == "creation" and own is not None and payee in own.parents)
