"""Energy is priced on the boundaries of the price itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.accounting import Price
from wattribute.agent.core.prices import PriceSeries

HOUR_NS = 3600 * 10**9
DAY = PriceSeries([(0, Price(100, 10)), (HOUR_NS, Price(300, 30)), (2 * HOUR_NS, Price(200, 20))])


@pytest.mark.parametrize(
    ("start_h", "end_h", "expected"),
    [(0.0, 1.0, 100), (0.5, 1.5, 200), (0.0, 2.0, 200), (1.0, 2.0, 300), (0.0, 3.0, 200), (5.0, 6.0, 200), (1, 1, 300)],
)
def test_a_window_across_steps_weighs_each_by_its_time(start_h: float, end_h: float, expected: int) -> None:
    price = DAY.over(round(start_h * HOUR_NS), round(end_h * HOUR_NS))
    assert price == Price(expected, expected // 10)


def test_before_the_first_step_the_first_price_counts() -> None:
    later = PriceSeries([(HOUR_NS, Price(5, 0)), (2 * HOUR_NS, Price(7, 0))])
    assert later.over(0, HOUR_NS // 2) == later.at(0) == Price(5, 0)
    assert later.over(0, HOUR_NS) == Price(5, 0)


@pytest.mark.parametrize("starts", [[], [5, 5], [5, 4]])
def test_steps_that_do_not_rise_are_refused(starts: list[int]) -> None:
    with pytest.raises(ValueError, match="each later"):
        PriceSeries((start, Price(1, 1)) for start in starts)


steps = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 10**12)), min_size=1, max_size=6)


@given(steps, st.integers(0, 200), st.integers(1, 200))
def test_the_mean_lies_between_the_steps_and_splits_where_the_time_does(
    parts: list[tuple[int, int]], start_ns: int, length_ns: int
) -> None:
    at, rising = 0, []
    for gap, price in parts:
        at += gap
        rising.append((at, Price(price, price // 2)))
    series = PriceSeries(rising)
    end_ns = start_ns + length_ns
    exact = sum(series.at(moment).operation for moment in range(start_ns, end_ns))
    assert abs(series.over(start_ns, end_ns).operation * length_ns - exact) <= length_ns / 2
