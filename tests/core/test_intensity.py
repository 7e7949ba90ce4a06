"""Carbon intensity over time: conversions, mixes, what is in force when, and what is final."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.accounting import EMISSION_FACTORS, Price, accrue_energy, mix_intensity
from wattribute.agent.core.intensity import (
    DIRECT_FACTORS,
    LIFECYCLE_RANGES,
    About,
    FactorType,
    Reported,
    Status,
    Timeline,
    band_of,
    final_price,
    g_per_kwh_of_lb_per_mwh,
    in_force,
    merged,
    mix_bounds,
    price_of,
    pue_at,
    ratios,
    rfc3339,
    unix_ns_of,
    used_pues,
    valued,
)
from wattribute.agent.core.model import SLOTS

H = 3600 * 10**9
ABOUT = About(zone="DE", provider="test", method="average, lifecycle")
FALLBACK = valued(ABOUT, 480.0, "default", final=False)


def hour(at: int, g_per_kwh: float, status: Status = "final", hours: int = 1) -> Reported:
    return Reported(at * H, (at + hours) * H, g_per_kwh, status, 0)


@pytest.mark.parametrize(
    ("lb_per_mwh", "g_per_kwh"),
    [
        ("0", "0"),
        ("1", "0.45359237"),
        ("1000", "453.59237"),
        ("394.769", "179.06420631253"),  # eGRID2023, California
        ("52.239", "23.69521181643"),  # Vermont
        ("1968.869", "893.06395592953"),  # West Virginia
        ("770.884", "349.66710055508"),  # the United States
        ("870", "394.6253619"),  # WattTime's own example
    ],
)
def test_pounds_per_mwh_are_grams_per_kwh_exactly(lb_per_mwh: str, g_per_kwh: str) -> None:
    assert g_per_kwh_of_lb_per_mwh(lb_per_mwh) == Fraction(g_per_kwh)


@pytest.mark.parametrize("text", ["", "x", "1e", "nan", "inf"])
def test_what_is_no_number_of_pounds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid literal"):
        g_per_kwh_of_lb_per_mwh(text)


def test_every_fuel_has_its_range_around_its_median() -> None:
    assert LIFECYCLE_RANGES.keys() == EMISSION_FACTORS.keys()
    for fuel, median in EMISSION_FACTORS.items():
        assert LIFECYCLE_RANGES[fuel][0] <= median <= LIFECYCLE_RANGES[fuel][1], fuel
    assert DIRECT_FACTORS.keys() <= EMISSION_FACTORS.keys()
    assert all(low <= used <= high for low, used, high in DIRECT_FACTORS.values())


MIX = [("coal", 0.8), ("solar", 0.2)]


@pytest.mark.parametrize(
    ("mix", "factor_type", "low", "central", "high"),
    [
        (MIX, "lifecycle", "595.6", "665.6", "764"),
        (MIX, "direct", "608", "608", "749.6"),
        ([("gas", 1.0)], "direct", "370", "370", "651"),
        ([("oil", 1.0)], "direct", "406", "406", "935"),
        ([("nuclear", 0.5), ("hydro", 0.5)], "direct", "0", "0", "0"),
        ([("hydro", 1.0)], "lifecycle", "1", "24", "2200"),
    ],
)
def test_a_mix_has_its_bounds_and_its_kind(
    mix: list[tuple[str, float]], factor_type: FactorType, low: str, central: str, high: str
) -> None:
    assert mix_bounds(mix, factor_type) == (Fraction(low), Fraction(central), Fraction(high))


@given(st.dictionaries(st.sampled_from(sorted(EMISSION_FACTORS)), st.decimals(0, 1, places=3), min_size=1))
def test_a_life_cycle_mix_is_that_of_the_accounting_and_a_direct_one_is_never_above(mix: dict[str, object]) -> None:
    parts = [(fuel, float(str(part))) for fuel, part in mix.items()]
    low, central, high = mix_bounds(parts, "lifecycle")
    assert central == mix_intensity(parts)
    assert low <= central <= high
    assert mix_bounds(parts, "direct")[1] <= central


@pytest.mark.parametrize(
    ("text", "unix_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-31T13:00:00Z", 1_769_864_400 * 10**9),
        ("2026-01-31T13:00:00+01:00", 1_769_860_800 * 10**9),
        ("2026-01-31T13:00Z", 1_769_864_400 * 10**9),
        ("2026-01-31T13:00:00.123456Z", 1_769_864_400_123_456_000),
        ("1969-12-31T23:59:59Z", -(10**9)),
    ],
)
def test_a_time_with_its_offset_is_a_moment(text: str, unix_ns: int) -> None:
    assert unix_ns_of(text) == unix_ns
    assert unix_ns_of(rfc3339(unix_ns)) == unix_ns


@pytest.mark.parametrize("text", ["2026-01-31T13:00:00", "2026-01-31", "2026-01-31 13:00"])
def test_a_time_without_an_offset_is_refused_with_the_fix(text: str) -> None:
    with pytest.raises(ValueError, match="2026-01-31T13:00:00Z for UTC"):
        unix_ns_of(text)


@pytest.mark.parametrize("text", ["", "now", "2026-13-01T00:00:00Z", "1700000000", "0001-01-01T00:00:00+23:59"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time|out of range|no offset"):
        unix_ns_of(text)
        unix_ns_of(rfc3339(unix_ns_of(text)) + "!")


def test_a_moment_beyond_the_calendar_is_still_said() -> None:
    assert rfc3339(2**62).startswith("2116") and rfc3339(2**70).startswith("9999") and rfc3339(-(2**70))[0] == "0"


statuses = st.sampled_from(["final", "estimated", "forecast"])
reports = st.lists(
    st.builds(
        lambda start, length, g, status: Reported(start, start + length, float(g), status, 0),
        st.integers(0, 60),
        st.integers(1, 20),
        st.integers(0, 1500),
        statuses,
    ),
    max_size=12,
)


@given(reports, reports, st.integers(0, 40))
def test_merged_values_are_in_order_without_overlaps_and_final_ones_stay(
    known: list[Reported], news: list[Reported], keep_from: int
) -> None:
    once = merged((), known, 0)
    both = merged(once, news, keep_from)
    for result in (once, both):
        assert all(one.valid_from_unix_ns < one.valid_until_unix_ns for one in result)
        assert all(a.valid_until_unix_ns <= b.valid_from_unix_ns for a, b in pairwise(result))
    assert all(one.valid_until_unix_ns > keep_from for one in both)
    assert merged(both, both, keep_from) == both
    final_news = {one.valid_from_unix_ns for one in news if one.status == "final"}
    if not final_news:
        for one in once:
            if one.status == "final" and one.valid_until_unix_ns > keep_from:
                assert one in both


def test_an_estimate_gives_way_to_a_later_one_and_to_the_final_value_and_that_to_no_estimate() -> None:
    first = merged((), [hour(0, 100, "estimated"), hour(1, 110, "estimated")], 0)
    second = merged(first, [hour(0, 90, "final"), hour(1, 120, "estimated")], 0)
    assert [(one.g_per_kwh, one.status) for one in second] == [(90, "final"), (120, "estimated")]
    third = merged(second, [hour(0, 500, "estimated"), hour(1, 130, "final")], 0)
    assert [(one.g_per_kwh, one.status) for one in third] == [(90, "final"), (130, "final")]
    assert merged(third, [], 1 * H) == third[1:]


def qualities(timeline: Timeline, *hours: float) -> list[tuple[float, str]]:
    return [(one.gco2e_per_kwh, one.quality) for one in (timeline.at(round(at * H)) for at in hours)]


def test_what_is_late_is_held_on_then_stale_then_gives_way() -> None:
    timeline = in_force([hour(10, 300)], ABOUT, fallback=FALLBACK, grace_ns=H // 4, stale_ns=6 * H)
    assert qualities(timeline, 9.9, 10, 10.99, 11, 11.24, 11.25, 16.99, 17, 1000) == [
        (480, "default"),
        (300, "final"),
        (300, "final"),
        (300, "estimated"),
        (300, "estimated"),
        (300, "stale"),
        (300, "stale"),
        (480, "default"),
        (480, "default"),
    ]
    assert [timeline.at(round(at * H)).final for at in (10, 11, 12, 17)] == [True, False, False, False]


def test_a_hole_is_bridged_by_what_was_before_it_until_that_is_stale() -> None:
    reported = [hour(0, 100), hour(2, 200, "forecast"), hour(20, 300)]
    timeline = in_force(reported, ABOUT, fallback=FALLBACK, grace_ns=H // 4, stale_ns=6 * H)
    assert qualities(timeline, 0, 1, 1.5, 2, 3, 8.99, 9, 20) == [
        (100, "final"),
        (100, "estimated"),
        (100, "stale"),
        (200, "forecast"),
        (200, "estimated"),
        (200, "stale"),
        (480, "default"),
        (300, "final"),
    ]


def test_without_a_fallback_the_nearest_row_holds_on_flagged() -> None:
    timeline = in_force([hour(5, 100), hour(6, 200)], ABOUT, fallback=None)
    assert qualities(timeline, 0, 5, 6.5, 7, 99) == [
        (100, "stale"),
        (100, "final"),
        (200, "final"),
        (200, "stale"),
        (200, "stale"),
    ]


def test_nothing_known_is_the_fallback() -> None:
    assert qualities(in_force([], ABOUT, fallback=FALLBACK, grace_ns=1, stale_ns=2), -5, 0, 5) == [(480, "default")] * 3


@given(reports, reports, st.integers(0, 60), st.integers(0, 60))
def test_what_was_in_force_stays_so_and_the_rest_is_news(
    known: list[Reported], news: list[Reported], opened: int, since: int
) -> None:
    now = opened + since
    before = in_force(merged((), known, 0), ABOUT, fallback=FALLBACK, grace_ns=2, stale_ns=5)
    after = in_force(merged((), news, 0), ABOUT, fallback=FALLBACK, grace_ns=2, stale_ns=5)
    joined = after.used(before, opened, now)
    for moment in range(-2, 140):
        assert joined.at(moment) == (before if opened <= moment < now else after).at(moment), moment


pues = st.lists(st.tuples(st.integers(0, 60), st.sampled_from([1.0, 1.1, 1.5])), min_size=1, max_size=6).map(
    lambda rows: sorted(dict(rows).items())
)


@given(pues, pues, st.integers(0, 60), st.integers(0, 60))
def test_a_pue_that_was_used_stays_too(
    new: list[tuple[int, float]], booked: list[tuple[int, float]], opened: int, since: int
) -> None:
    now = opened + since
    joined = used_pues(new, booked, opened, now)
    assert all(a[0] < b[0] for a, b in pairwise(joined))
    for moment in range(opened, 140):
        assert pue_at(joined, moment) == pue_at(booked if moment < now else new, moment), moment


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 1500)), min_size=1, max_size=8),
    pues,
    st.integers(0, 60),
    st.integers(1, 60),
    st.integers(1, 10**9),
)
def test_energy_costs_the_sum_of_what_it_costs_between_the_series_own_boundaries(
    parts: Sequence[tuple[int, int]], pue: list[tuple[int, float]], start: int, length: int, power_uw: int
) -> None:
    """Over the whole at once, or cut at every boundary: the same grams, but for the price's own rounding."""
    at, reported = 0, []
    for steps, g_per_kwh in parts:
        reported.append(Reported(at * H, (at + steps) * H, float(g_per_kwh), "final", 0))
        at += steps
    prices = in_force(reported, ABOUT, fallback=FALLBACK, grace_ns=H, stale_ns=4 * H).prices(
        [(moment * H, ratio) for moment, ratio in pue]
    )
    end = start + length
    whole = prices.over(start * H, end * H)
    cut = [prices.over(moment * H, (moment + 1) * H) for moment in range(start, end)]  # every boundary is an hour
    assert abs(whole.operation * length - sum(price.operation for price in cut)) <= length / 2
    assert abs(whole.cooling * length - sum(price.cooling for price in cut)) <= length / 2
    one, many = [0] * SLOTS, [0] * SLOTS
    in_one = accrue_energy(one, power_uw * length, whole)
    in_parts = [accrue_energy(many, power_uw, price) for price in cut]
    slack = 2 + power_uw * length // (2 * 3_600_000 * 10**6) + 1
    assert abs(in_one[0] - sum(ng for ng, _ in in_parts)) <= slack
    assert abs(in_one[1] - sum(ng for _, ng in in_parts)) <= slack


FINALS = (hour(0, 100), hour(1, 200), hour(2, 300, "estimated"), hour(3, 400), hour(5, 500))


@pytest.mark.parametrize(
    ("start", "end", "g_per_kwh"),
    [
        (0, 1, 100),
        (0, 2, 150),
        (0.5, 1.5, 150),
        (1, 2, 200),
        (1, 1, 200),  # a moment
        (3, 4, 400),
        (1, 2.001, None),  # an estimate
        (2, 3, None),
        (3, 4.001, None),  # a hole
        (4, 5, None),
        (5, 6.5, None),  # beyond
        (-1, 0.5, None),
        (9, 10, None),
    ],
)
def test_a_price_is_final_when_every_period_that_it_overlaps_is(
    start: float, end: float, g_per_kwh: float | None
) -> None:
    price = final_price(FINALS, [(0, 1.5)], round(start * H), round(end * H))
    assert price == (None if g_per_kwh is None else price_of(g_per_kwh, 1.5))


def test_a_final_price_follows_the_pue_too() -> None:
    pue = [(0, 1.0), (round(0.5 * H), 2.0)]
    assert final_price(FINALS, pue, 0, H) == Price(100 * 10**9, 50 * 10**9)
    assert final_price((), pue, 0, H) is None


def test_prices_merge_the_steps_of_intensity_and_pue() -> None:
    prices = in_force([hour(0, 100), hour(1, 100), hour(2, 200)], ABOUT, fallback=None).prices(
        [(0, 1.0), (H // 2, 1.5), (H, 1.0)]
    )
    assert [prices.at(round(at * H)) for at in (0, 0.5, 1, 2)] == [
        price_of(100.0, 1.0),
        price_of(100.0, 1.5),
        price_of(100.0, 1.0),
        price_of(200.0, 1.0),
    ]


@pytest.mark.parametrize(
    ("quality", "method", "low", "high"),
    [
        ("default", "average, lifecycle", Fraction(20, 480), Fraction(1306, 480)),
        ("default", "average, direct", Fraction(0), Fraction(1306, 475)),
        ("final", "average, lifecycle", Fraction(410, 490), Fraction(650, 490)),
        ("final", "average, direct", Fraction(760, 937), Fraction(937, 760)),
        ("final", "marginal, direct", Fraction(1, 2), Fraction(2)),
        ("estimated", "average, lifecycle", Fraction(1, 2), Fraction(2)),
        ("static", "average, lifecycle", Fraction(1, 2), Fraction(2)),
    ],
)
def test_how_far_off_a_value_may_be_goes_by_its_quality(
    quality: str, method: str, low: Fraction, high: Fraction
) -> None:
    assert band_of(quality, method) == (low, high)


@pytest.mark.parametrize("quality", ["default", "final", "static", "stale"])
def test_a_values_bounds_are_its_ratios(quality: str) -> None:
    value = valued(ABOUT, 480.0, quality)
    assert value.low_g_per_kwh is not None and value.high_g_per_kwh is not None
    assert value.low_g_per_kwh <= value.gco2e_per_kwh <= value.high_g_per_kwh
    for told, exact in zip(ratios(value), band_of(quality, ABOUT.method), strict=True):
        assert abs(told - exact) < Fraction(1, 10**12)
    assert ratios(valued(ABOUT, 0.0, quality)) == (Fraction(1), Fraction(1))
