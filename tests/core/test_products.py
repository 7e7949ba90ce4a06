"""EPC over random provenance graphs: exact against fractions, conserved in integers, however deep; cycles are named."""

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.declared import declared
from wattribute.agent.core.products import (
    Frozen,
    Product,
    epcs,
    find_cycle,
    missing,
    own_part,
    own_parts,
    parents_first,
)
from wattribute.agent.core.products import given as given_by
from wattribute.agent.core.units import ng_from_g, ng_from_kg

Graph = dict[str, Product]


@st.composite
def graphs(draw: st.DrawFn, least_ng: int = 0, most_ng: int = 10**15) -> Graph:
    """Products in a random order, each with some earlier ones as parents, none of which gives more than all of it."""
    own_ng = st.integers(least_ng, most_ng)
    count = draw(st.integers(1, 12))
    left = [Fraction(1)] * count
    products = []
    for number in range(count):
        parents: dict[str, Fraction] = {}
        for parent in draw(st.sets(st.integers(0, number - 1), max_size=4)) if number else ():
            weight = Fraction(draw(st.integers(0, 10**12)), 10**12) * left[parent]
            weight = Fraction(int(weight * 10**12), 10**12)
            left[parent] -= weight
            parents[f"p{parent}"] = weight
        low, central, high = sorted(draw(st.tuples(own_ng, own_ng, own_ng)))
        products.append(Product(id=f"p{number}", epc_low_ng=low, epc_own_ng=central, epc_high_ng=high, parents=parents))
    return {product.id: product for product in draw(st.permutations(products))}


def by_formula(products: Mapping[str, Product]) -> dict[str, Fraction]:
    """EPC(m) = own + sum of w_p * EPC(p), in fractions."""
    whole: dict[str, Fraction] = {}
    for product_id in sorted(products, key=lambda name: int(name[1:])):
        product = products[product_id]
        inherited = sum((weight * whole[parent] for parent, weight in product.parents.items()), Fraction(0))
        whole[product_id] = Fraction(product.epc_own_ng or 0) + inherited
    return whole


@given(graphs())
def test_what_children_inherit_and_own_users_recover_is_never_more_than_the_epc(products: Graph) -> None:
    found = epcs(products)
    parts = own_parts(products)
    for product_id, epc in found.items():
        assert epc.total is not None
        borne = [
            part
            for child in found.values()
            for parent, part in child.inherited.items()
            if parent == product_id and part is not None
        ]
        users = epc.total.part(parts[product_id].numerator, parts[product_id].denominator)
        for bound in ("low", "central", "high"):
            assert sum(getattr(part, bound) for part in [*borne, users]) <= getattr(epc.total, bound)


@given(graphs(10**15, 10**18))
def test_epc_is_the_formulas(products: Graph) -> None:
    found, exact = epcs(products), by_formula(products)
    for product_id, whole in exact.items():
        total = found[product_id].total
        assert total is not None
        assert 0 <= whole - total.central <= whole / 10**12


@given(graphs())
def test_the_parts_of_an_epc_are_its_sum_and_its_bounds_hold_it(products: Graph) -> None:
    parts = declared(products.values()).parts
    for product_id, epc in epcs(products).items():
        own, brought, total = epc.own, epc.brought, epc.total
        assert own is not None and brought is not None and total is not None
        assert own + brought == total == sum((part for part in epc.inherited.values() if part), own)
        assert parts[product_id] == (own.central, brought.central)
        assert total.low <= total.central <= total.high


@given(graphs(), st.integers(0, 11))
def test_without_one_products_own_epc_exactly_its_descendants_are_unknown(products: Graph, which: int) -> None:
    unknown = f"p{which % len(products)}"
    products[unknown] = Product(id=unknown, parents=products[unknown].parents)
    for product_id, epc in epcs(products).items():
        lacks = missing(product_id, products)
        assert lacks in ((), (unknown,))
        assert (epc.total is None) == (lacks == (unknown,))


@given(graphs())
def test_parents_come_first(products: Graph) -> None:
    ordered = parents_first(products)
    assert sorted(ordered) == sorted(products)
    place = {product_id: number for number, product_id in enumerate(ordered)}
    assert all(place[parent] < place[one.id] for one in products.values() for parent in one.parents)


@given(graphs())
def test_own_parts_are_own_part(products: Graph) -> None:
    parts = own_parts(products)
    assert parts == {product_id: own_part(product_id, products.values()) for product_id in products}
    gave = given_by(products.values())
    assert all(parts[product_id] + gave.get(product_id, 0) == 1 for product_id in products)


def test_the_worked_example_of_a_parent_that_gave_half_of_itself() -> None:
    products = {
        "bert": Product(id="bert", epc_own_ng=ng_from_g(1000)),
        "distil": Product(id="distil", epc_own_ng=0, parents={"bert": Fraction(1, 2)}),
    }
    found = epcs(products)
    assert found["distil"].inherited == {"bert": Bounded.exactly(ng_from_g(500))}
    assert own_parts(products)["bert"] * ng_from_g(1000) == ng_from_g(500)


def test_the_papers_formula_is_a_special_case() -> None:
    """EPC(m) = ASC^e(j) + w1 * EPC(m') + w2 * (EPC(d1) + EPC(d2)): one weight for the model, one for all data sets."""
    w1, w2 = Fraction(3, 10), Fraction(1, 8)
    asce, model, data = ng_from_kg(12), ng_from_kg(650), (ng_from_kg(40), ng_from_kg(3))
    products = {
        "m": Product(id="m", epc_own_ng=asce, parents={"m'": w1, "d1": w2, "d2": w2}),
        "m'": Product(id="m'", epc_own_ng=model),
        "d1": Product(id="d1", epc_own_ng=data[0]),
        "d2": Product(id="d2", epc_own_ng=data[1]),
    }
    assert epcs(products)["m"].total == Bounded.exactly(int(asce + w1 * model + w2 * sum(data)))


def test_a_frozen_product_stays_when_its_parent_moves() -> None:
    frozen = Frozen(own=Bounded(1, 2, 3), inherited={"parent": Bounded.exactly(40)})
    parent = Product(id="parent", epc_own_ng=1000)
    child = Product(id="child", epc_own_ng=99, parents={"parent": Fraction(1, 2)}, frozen=frozen)
    grandchild = Product(id="grandchild", epc_own_ng=0, parents={"child": Fraction(1)})
    found = epcs({"grandchild": grandchild, "child": child, "parent": parent})
    assert found["child"].own == Bounded(1, 2, 3)
    assert found["child"].brought == Bounded.exactly(40)
    assert found["child"].total == found["grandchild"].total == Bounded(41, 42, 43)
    assert epcs({"child": child})["child"].total == Bounded(41, 42, 43)  # even where its parent is gone


def test_an_unknown_parent_is_missing_and_never_nothing() -> None:
    products = {
        "a": Product(id="a", epc_own_ng=5, parents={"gone": Fraction(0), "b": Fraction(1)}),
        "b": Product(id="b", epc_own_ng=None),
        "c": Product(id="c", epc_own_ng=1, parents={"a": Fraction(1)}),
    }
    found = epcs(products)
    assert found["a"].inherited == {"gone": None, "b": None}
    assert (found["a"].own, found["a"].brought, found["a"].total) == (Bounded.exactly(5), None, None)
    assert found["c"].total is None
    assert sorted(missing("c", products)) == ["b", "gone"]
    assert declared(products.values()).parts == {"a": (5, None), "b": (None, 0), "c": (1, None)}


@settings(deadline=None)
@given(st.integers(0, 40))
def test_a_cycle_is_named(length: int) -> None:
    ring = {
        f"p{number}": Product(id=f"p{number}", epc_own_ng=1, parents={f"p{(number + 1) % (length + 1)}": Fraction(1)})
        for number in range(length + 1)
    }
    ring["outside"] = Product(id="outside", parents={"p0": Fraction(0)})
    with pytest.raises(ValueError, match="products inherit in a circle: p") as caught:
        epcs(ring)
    walked = str(caught.value).partition(": ")[2].split(" -> ")
    assert walked[0] == walked[-1]
    assert len(walked) == length + 2
    assert all(after in ring[before].parents for before, after in pairwise(walked))


def test_a_long_chain_and_a_wide_lattice_are_done_in_one_pass() -> None:
    chain = {"p0": Product(id="p0", epc_own_ng=7)}
    for number in range(1, 20_000):
        chain[f"p{number}"] = Product(id=f"p{number}", epc_own_ng=1, parents={f"p{number - 1}": Fraction(1)})
    backwards = dict(reversed(chain.items()))
    assert epcs(backwards)["p19999"].total == Bounded.exactly(7 + 19_999)
    assert find_cycle({one.id: tuple(one.parents) for one in backwards.values()}) == []
    # Each of the two in a row stands on both of the row before: 2 ** 60 ways from top to bottom.
    lattice = {"0a": Product(id="0a", epc_own_ng=2**70), "0b": Product(id="0b", epc_own_ng=2**70)}
    for row in range(1, 61):
        for side in "ab":
            parents = {f"{row - 1}a": Fraction(1, 2), f"{row - 1}b": Fraction(1, 2)}
            lattice[f"{row}{side}"] = Product(id=f"{row}{side}", epc_own_ng=0, parents=parents)
    assert epcs(lattice)["60a"].total == Bounded.exactly(2**70)


@given(st.dictionaries(st.integers(0, 8).map(str), st.lists(st.integers(0, 8).map(str), max_size=4).map(tuple)))
def test_find_cycle_finds_one_where_there_is_one(edges: dict[str, tuple[str, ...]]) -> None:
    circle = find_cycle(edges)
    left = {node: set(onward) & edges.keys() for node, onward in edges.items()}
    while free := [node for node, onward in left.items() if not onward]:
        for node in free:
            del left[node]
        left = {node: onward - set(free) for node, onward in left.items()}
    assert bool(circle) == bool(left)
    if circle:
        assert circle[0] == circle[-1]
        assert all(after in edges[before] for before, after in pairwise(circle))
