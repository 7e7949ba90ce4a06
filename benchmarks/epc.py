"""How long the EPC of a large graph of products takes, beside a naive computation of the same.

    python -m benchmarks.epc [--products 100000] [--edges 300000] [--naive 40]

The naive way goes through all ancestors of each product by itself, without keeping what it found; it is timed on a
smaller graph of the same shape (`--naive` products) where both are compared, since on the whole it would take hours.
"""

import argparse
import random
import sys
import time
from collections.abc import Mapping
from fractions import Fraction

from wattribute.agent.core.products import Product, epcs, given, own_parts


def graph(products: int, edges: int, seed: int = 4) -> dict[str, Product]:
    """Products in layers of random parents, mostly recent ones; each gives at most all of itself to its children."""
    chance = random.Random(seed)
    parents: list[dict[str, Fraction]] = [{} for _ in range(products)]
    left = [10**6] * products
    made = 0
    while made < edges:
        child = chance.randrange(1, products)
        parent = chance.randrange(max(0, child - 1000), child)
        weight = chance.randint(1, 10**5)
        if f"p{parent}" not in parents[child] and left[parent] >= weight:
            left[parent] -= weight
            parents[child][f"p{parent}"] = Fraction(weight, 10**6)
            made += 1
    order = list(range(products))
    chance.shuffle(order)
    return {
        f"p{number}": Product(
            id=f"p{number}",
            epc_low_ng=8 * 10**14,
            epc_own_ng=10**15 + number,
            epc_high_ng=13 * 10**14,
            parents=parents[number],
        )
        for number in order
    }


def naive(product_id: str, products: Mapping[str, Product]) -> Fraction:
    """EPC as the formula is written, each ancestor as often as there are ways to it."""
    product = products[product_id]
    return Fraction(product.epc_own_ng or 0) + sum(
        (weight * naive(parent, products) for parent, weight in product.parents.items()), Fraction(0)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--edges", type=int, default=300_000)
    parser.add_argument("--naive", type=int, default=40)
    arguments = parser.parse_args()

    products = graph(arguments.products, arguments.edges)
    began_s = time.perf_counter()
    found = epcs(products)
    parts = own_parts(products)
    took_s = time.perf_counter() - began_s
    print(f"{len(products):,} products, {arguments.edges:,} edges: EPC and own parts of all in {took_s:.2f} s")

    began_s = time.perf_counter()
    inherited: dict[str, int] = {}
    for epc in found.values():
        for parent, part in epc.inherited.items():
            assert part is not None
            inherited[parent] = inherited.get(parent, 0) + part.central
    for product_id, epc in found.items():
        assert epc.total is not None
        whole_ng = epc.total.central
        own_ng = int(whole_ng * parts[product_id])
        assert inherited.get(product_id, 0) + own_ng <= whole_ng, product_id
    assert all(weight <= 1 for weight in given(products.values()).values())
    print(f"inherited + own users' part <= EPC for each of them (checked in {time.perf_counter() - began_s:.2f} s)")

    small = graph(arguments.naive, 3 * arguments.naive)
    sys.setrecursionlimit(10_000)
    began_s = time.perf_counter()
    expected = {product_id: naive(product_id, small) for product_id in small}
    naive_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    small_found = epcs(small)
    small_s = time.perf_counter() - began_s
    worst = 0.0
    for product_id, whole in expected.items():
        total = small_found[product_id].total
        assert total is not None
        worst = max(worst, abs(float((total.central - whole) / whole)))
    print(
        f"naive, {arguments.naive} products: {naive_s:.4f} s against {small_s:.6f} s, {naive_s / small_s:,.0f} times; "
        f"largest relative difference {worst:.1e}"
    )


if __name__ == "__main__":
    main()
