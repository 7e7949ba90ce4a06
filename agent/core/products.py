"""Products: what jobs stand on. EPC over the provenance graph, how it is amortised, and who pays whom.

EPC(m) = own + sum over parents p of w_p * EPC(p). A parent's own users recover 1 - the weights that it gave away, so
that what is recovered plus what is inherited is at most EPC (formulas.md, "Embodied"). Masses are integer nanograms;
what a child inherits is rounded down, so that this holds in integers too. Nothing here recurses: chains may be long.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from wattribute.agent.core.bounds import NOTHING, Bounded
from wattribute.agent.core.model import Job

ProductKind = Literal["platform", "model", "dataset", "service", "undeclared"]
Status = Literal["open", "frozen", "retired"]
Scope = Literal["node", "fleet"]
WEIGHT_SCALE = 10**12
"""Weights are exact decimals of at most twelve places."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Epc:
    """One product's EPC: its own part, and what it inherits from each parent; None where that isn't known."""

    own: Bounded | None
    inherited: Mapping[str, Bounded | None] = field(default_factory=dict)

    @property
    def inherited_total(self) -> Bounded | None:
        """What all parents bring; nothing for a product without parents, None where a parent's EPC isn't known."""
        return _sum(self.inherited.values())

    @property
    def total(self) -> Bounded | None:
        """The EPC; None where a part of it isn't known."""
        return _sum((self.own, self.inherited_total))


def epcs(products: Mapping[str, Product]) -> dict[str, Epc]:
    """The EPC of each product, in one pass from parents to children. Raises ValueError for a cycle (it names it).

    A product that isn't among them, and what descends from it, is not known. A frozen product stays as it is.
    """
    found: dict[str, Epc] = {}
    whole_of: dict[str, Bounded | None] = {}
    for product_id in parents_first(products):
        product = products[product_id]
        inherited: dict[str, Bounded | None] = {}
        if product.frozen is not None:
            inherited.update(product.frozen.inherited)
        else:
            for parent, weight in product.parents.items():
                whole = whole_of.get(parent)
                inherited[parent] = None if whole is None else whole.part(weight.numerator, weight.denominator)
        found[product_id] = epc = Epc(own=product.own, inherited=inherited)
        whole_of[product_id] = epc.total
    return found


def epc_parts(products: Mapping[str, Product]) -> dict[str, tuple[int | None, int | None]]:
    """(own, inherited) central EPC of each product, ng; None where it or an ancestor's isn't known.

    Inherited is 0 for a product without parents. Raises ValueError for a cycle (it names the path).
    """
    return {
        product_id: (_central(epc.own), _central(epc.inherited_total)) for product_id, epc in epcs(products).items()
    }


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
    children: dict[str, list[str]] = {}
    waiting: dict[str, int] = {}
    ordered: list[str] = []
    for product_id, product in products.items():
        known = [parent for parent in product.parents if parent in products]
        for parent in known:
            children.setdefault(parent, []).append(product_id)
        if known:
            waiting[product_id] = len(known)
        else:
            ordered.append(product_id)
    for product_id in ordered:  # it grows meanwhile
        for child in children.get(product_id, ()):
            waiting[child] -= 1
            if not waiting[child]:
                del waiting[child]
                ordered.append(child)
    if waiting:
        circle = find_cycle({product_id: products[product_id].parents for product_id in waiting})
        raise ValueError("products inherit in a circle: " + " -> ".join(circle))
    return ordered


def find_cycle(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """One path that comes back to where it starts, e.g. [a, b, a]; empty where there is none. Linear, no recursion."""
    finished: set[str] = set()
    for start in edges:
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
                others[parent] = others.get(parent, Fraction(0)) + weight
            else:
                scaled[parent] = scaled.get(parent, 0) + weight.numerator * times
    return {
        parent: Fraction(scaled.get(parent, 0), WEIGHT_SCALE) + others.get(parent, Fraction(0))
        for parent in {**scaled, **others}
    }


def own_parts(products: Mapping[str, Product]) -> dict[str, Fraction]:
    """u_p of each product, in one pass: the part of its EPC that its own users recover."""
    gave = given(products.values())
    return {product_id: max(Fraction(0), 1 - gave.get(product_id, Fraction(0))) for product_id in products}


def own_part(product_id: str, products: Iterable[Product]) -> Fraction:
    """u_p: the part of a product's EPC that its own users recover; the rest was given to its children by weight."""
    return max(Fraction(0), 1 - given(products).get(product_id, Fraction(0)))


def _sum(values: Iterable[Bounded | None]) -> Bounded | None:
    total = NOTHING
    for value in values:
        if value is None:
            return None
        total += value
    return total


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


def pays_epc(job: Job, payee: str, products: Mapping[str, Product]) -> bool:
    """Whether a job pays the product tax of `payee`: a creation job of m doesn't for a parent of m (it inherits)."""
    own = products.get(job.product_id)
    return not (job.role == "creation" and own is not None and payee in own.parents)
