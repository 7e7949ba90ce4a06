"""Products as they are declared, with all that follows from them alone: what a node needs to go on under them.

It may be made in steps, between which whoever makes it does something else: a registry may have very many products.
"""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TypeVar

from wattribute.agent.core.model import ProductTotals
from wattribute.agent.core.product_account import ProductAccount
from wattribute.agent.core.products import Epc, Product, epcs, own_parts

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Something that is made in steps of a millisecond or so."""

AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """By product id. `parts`: central EPC (own, inherited) in ng; `own_parts`: what own users recover of it;
    `unused`: what is shown of a product that no job here has used.
    """

    products: Mapping[str, Product]
    epcs: Mapping[str, Epc]
    parts: Mapping[str, tuple[int | None, int | None]]
    own_parts: Mapping[str, Fraction]
    unused: Mapping[str, ProductTotals]


def declared_in_steps(products: Iterable[Product]) -> Steps[Declared]:
    """Raises ValueError where products inherit in a circle (it names it)."""
    by_id = {product.id: product for product in products}
    found = epcs(by_id)
    yield
    parts: dict[str, tuple[int | None, int | None]] = {}
    unused: dict[str, ProductTotals] = {}
    nobodys = ProductAccount()
    for some in pieces(by_id.values()):
        for product in some:
            parts[product.id] = own_and_inherited = found[product.id].parts
            unused[product.id] = nobodys.totals(product.id, product, own_and_inherited, 0)
        yield
    return Declared(products=by_id, epcs=found, parts=parts, own_parts=own_parts(by_id), unused=unused)


def declared(products: Iterable[Product]) -> Declared:
    """All of it at once. Raises ValueError where products inherit in a circle."""
    return at_once(declared_in_steps(products))


def at_once(steps: Steps[T]) -> T:
    """What steps come to."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            made: T = done.value
            return made


def pieces(things: Iterable[T]) -> Iterable[list[T]]:
    """All of them, as many at a time as a step takes."""
    left = iter(things)
    return iter(lambda: list(islice(left, AT_ONCE)), [])


__all__ = ["Declared", "Steps", "at_once", "declared", "declared_in_steps", "pieces"]
