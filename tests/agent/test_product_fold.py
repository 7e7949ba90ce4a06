"""Products folded beside the loop are those that are folded at once."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattribute.agent.core.declared import declared
from wattribute.agent.core.products import Product
from wattribute.agent.core.provenance import registry
from wattribute.agent.product_fold import SMALL, Folded, ProductFold, hash_of

CONFIGURED = Product(id="product-3", epc_own_ng=5)


def event(number: int, **more: Any) -> Mapping[str, Any]:
    parents = {f"product-{number - 1}": "0.25"} if number % 3 == 2 else {}
    masses = [10**12, 2 * 10**12, 3 * 10**12]
    return {
        "event": "add",
        "id": f"product-{number}",
        "parents": parents,
        "epc_ng": masses,
        "lifetime_s": 10**8,
        **more,
    }


def folded(fold: ProductFold) -> Folded:
    until_s = time.monotonic() + 30
    while (found := fold.take()) is None:
        assert time.monotonic() < until_s
        time.sleep(0.001)
    return found


def check(found: Folded, events: list[tuple[int, Mapping[str, Any]]]) -> None:
    effective = registry(one for _, one in events).effective([CONFIGURED])
    assert found.declared == declared(effective.values())
    assert list(found.declared.products) == list(effective)
    assert found.about.keys() == effective.keys()
    assert found.hash == hash_of(map(repr, effective.values()))


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.sampled_from((0, 1, SMALL, SMALL + 1, SMALL + 150)), min_size=1, max_size=4),
    st.booleans(),
)
def test_whatever_was_folded_before(lengths: list[int], at_once: bool) -> None:
    """More events, fewer of them, others: each comes to what it would come to alone."""
    fold = ProductFold([CONFIGURED], alone=False)
    for turn, length in enumerate(lengths):
        changed = dict(enumerate([event(turn, version=f"{turn}")] if turn % 2 else []))
        events = [(number + 1, changed.get(number, event(number))) for number in range(length)]
        fold.begin(events, wait=at_once)
        check(folded(fold), events)


def test_what_changes_meanwhile_is_folded_next() -> None:
    fold = ProductFold([CONFIGURED], alone=False)
    events = [(number + 1, event(number)) for number in range(2 * SMALL)]
    fold.begin(events)
    fold.begin([*events, (9999, event(5000))])
    until_s = time.monotonic() + 30
    while "product-5000" not in folded(fold).declared.products:
        assert time.monotonic() < until_s


@pytest.mark.parametrize("count", [1, 2 * SMALL])
def test_what_cannot_be_read_changes_nothing_and_what_comes_after_is_read(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    fold = ProductFold([], alone=False)
    events = [(number + 1, event(number)) for number in range(count)]
    fold.begin([*events, (9998, {"event": "add"})])
    until_s = time.monotonic() + 30
    while f"product event {count + 1} " not in caplog.text:
        assert time.monotonic() < until_s
        time.sleep(0.001)
    assert fold.take() is None
    fold.begin([*events, (9998, event(5000))])
    assert "product-5000" in folded(fold).declared.products


def test_a_fleet_that_nobody_counts_is_counted_by_its_concurrency() -> None:
    fold = ProductFold([replace(CONFIGURED, scope="fleet", concurrency_ppm=1)], alone=True)
    fold.begin([])
    assert folded(fold).declared.products["product-3"].scope is None
