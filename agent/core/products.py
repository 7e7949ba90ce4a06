"""Products: what jobs stand on. EPC over the provenance graph, how it is amortised, and who pays whom.

EPC(m) = own + sum over parents p of w_p * EPC(p). A parent's own users recover 1 - the weights that it gave away, so
that what is recovered plus what is inherited is at most EPC (formulas.md, "Embodied").
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from wattribute.agent.core.model import Job

ProductKind = Literal["platform", "model", "dataset", "service", "undeclared"]
Status = Literal["open", "frozen", "retired"]
Scope = Literal["node", "fleet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A declared product. Rates are nanograms per 1e9 s, masses nanograms; None is not known, never 0.

    `concurrency_ppm` is the declared weight of its concurrent payers everywhere, in millionths; 0: none declared.
    An `open` product is still being made: its EPC is taxed from deployment on. `scope`: whose jobs its payers are.
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


def epc_parts(products: Mapping[str, Product]) -> dict[str, tuple[int | None, int | None]]:
    """(own, inherited) EPC of each product, ng, recursively; None where it or an ancestor's isn't known.

    Inherited is 0 for a product without parents. Raises ValueError for a cycle (it names the path).
    """
    whole_of: dict[str, Fraction | None] = {}
    parts: dict[str, tuple[int | None, int | None]] = {}

    def visit(product_id: str, path: tuple[str, ...]) -> Fraction | None:
        if product_id in path:
            circle = (*path[path.index(product_id) :], product_id)
            raise ValueError("products inherit in a circle: " + " -> ".join(circle))
        if product_id in whole_of or product_id not in products:
            return whole_of.get(product_id)
        product = products[product_id]
        inherited: Fraction | None = Fraction(0)
        for parent, weight in product.parents.items():
            whole = visit(parent, (*path, product_id))
            inherited = None if whole is None or inherited is None else inherited + weight * whole
        known = product.epc_own_ng is not None and inherited is not None
        parts[product_id] = (product.epc_own_ng, None if inherited is None else round(inherited))
        whole_of[product_id] = Fraction(product.epc_own_ng or 0) + (inherited or 0) if known else None
        return whole_of[product_id]

    for product_id in products:
        visit(product_id, ())
    return parts


def own_part(product_id: str, products: Iterable[Product]) -> Fraction:
    """u_p: the part of a product's EPC that its own users recover; the rest was given to its children by weight."""
    given = sum((child.parents.get(product_id, Fraction(0)) for child in products), Fraction(0))
    return max(Fraction(0), 1 - given)


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
