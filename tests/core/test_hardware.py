"""Embodied carbon: shares by holding, busy seconds, exact sums, and the band that a hardware term lies in."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.attribution import PPB
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.hardware import EXACT, Component, Hardware
from wattribute.agent.core.units import NG_PER_G, NS_PER_S, RATE_DENOMINATOR, YEAR_S, g_of, ng_from_g, ng_from_kg

SERVER = Component(ng_from_kg(1200), 4 * YEAR_S, low_ng=ng_from_kg(634), high_ng=ng_from_kg(2102))
GPUS = Component(ng_from_kg(164), 4 * YEAR_S, True, Fraction(8), low_ng=ng_from_kg(128), high_ng=ng_from_kg(575))

HOUR_NS = 3600 * NS_PER_S
ALL = {"a": PPB}


def grams(numerator: int) -> float:
    return g_of(numerator // RATE_DENOMINATOR)


def test_the_papers_five_minutes() -> None:
    parts, left = Hardware([Component(ng_from_g(10_000), 3 * YEAR_S)]).split(300 * NS_PER_S, ALL, ALL, {})
    assert parts["a"] / RATE_DENOMINATOR / NG_PER_G == pytest.approx(0.031709791983764585, rel=1e-12)
    assert left == 0


def test_count_multiplies() -> None:
    eight = Hardware([Component(ng_from_kg(164), YEAR_S, True, Fraction(8))])
    once = Hardware([Component(ng_from_kg(1312), YEAR_S, True)])
    held = {"gpu": ALL}
    assert eight.split(HOUR_NS, {}, {}, held) == once.split(HOUR_NS, {}, {}, held)


def test_half_a_component_of_a_shared_machine() -> None:
    half = Hardware([Component(ng_from_kg(1200), 4 * YEAR_S, count=Fraction(1, 2))])
    parts, _ = half.split(HOUR_NS, ALL, ALL, {})
    assert grams(parts["a"]) == pytest.approx(600_000 / (4 * 8760), rel=1e-9)


@pytest.mark.parametrize(
    ("years", "utilisation", "grams_per_hour"), [(5, "0.6", 76.1), (3, "0.3", 253.7), (4, "0.45", 126.8)]
)
def test_wu_and_others_per_busy_hour(years: int, utilisation: str, grams_per_hour: float) -> None:
    """2,000 kg a GPU server, 3 to 5 years, 30 to 60 % busy: 76.1 to 253.7 g per busy hour."""
    part = Component(ng_from_kg(2000), years * YEAR_S, utilisation=Fraction(utilisation))
    parts, left = Hardware([part]).split(HOUR_NS, ALL, ALL, {})
    assert grams(parts["a"]) == pytest.approx(grams_per_hour, abs=0.05)
    assert left == 0


def test_an_idle_hour_of_busy_time_costs_nobody_anything() -> None:
    busy = Component(ng_from_kg(2000), 4 * YEAR_S, utilisation=Fraction(1, 2))
    assert Hardware([busy]).split(HOUR_NS, {}, {}, {}) == ({}, 0)


def test_busy_time_beside_the_calendar() -> None:
    """The server by calendar and GPUs by busy time: half of the server's is left, nothing of the GPUs'."""
    both = Hardware([SERVER, Component(ng_from_kg(8 * 164), 4 * YEAR_S, True, utilisation=Fraction(1, 2))])
    parts, left = both.split(HOUR_NS, {}, {}, {"gpu-0": ALL, "gpu-1": {}})
    server_g, gpus_g = 1200 / (4 * 8.760), 8 * 164 / (4 * 8.760)
    assert grams(parts["a"]) == pytest.approx(server_g / 2 + gpus_g / 2 * 2, rel=1e-9)
    assert grams(left) == pytest.approx(server_g / 2, rel=1e-9)


def test_gpus_that_nobody_sees_are_held_by_nobody() -> None:
    parts, left = Hardware([SERVER, GPUS]).split(HOUR_NS, ALL, ALL, {})
    assert grams(parts["a"]) == pytest.approx(1200 / (4 * 8.760), rel=1e-9)
    assert grams(left) == pytest.approx(1312 / (4 * 8.760), rel=1e-9)


def test_a_cpu_node_is_shared_by_the_mean_of_cpu_and_memory() -> None:
    parts, left = Hardware([SERVER]).split(HOUR_NS, {"a": PPB // 2}, {"a": PPB // 4}, {})
    assert parts["a"] * 5 == pytest.approx(left * 3, rel=1e-9)


def test_the_band_of_one_kind_is_its_bounds() -> None:
    assert Hardware([SERVER]).band() == (Fraction(634, 1200), Fraction(2102, 1200))


def test_the_band_holds_jobs_with_and_without_gpus() -> None:
    low, high = Hardware([SERVER, GPUS]).band()
    assert low == Fraction(634, 1200)
    assert high == Fraction(2102 + 8 * 575, 1200 + 8 * 164)


def test_no_hardware_and_hardware_without_bounds_have_no_width() -> None:
    assert Hardware([]).band() == EXACT
    assert Hardware([Component(0, YEAR_S)]).band() == EXACT
    assert Hardware([Component(ng_from_kg(1), YEAR_S)]).band() == EXACT


def test_bounds_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        Hardware([Component(10, YEAR_S, low_ng=11)])


def test_mass_is_bounded() -> None:
    assert SERVER.mass == Bounded(ng_from_kg(634), ng_from_kg(1200), ng_from_kg(2102))


PARTS = st.builds(
    lambda mass, life, gpu, count, u: Component(
        mass, life, gpu, Fraction(count, 4), None if u is None else Fraction(u, 10), mass // 2, 3 * mass
    ),
    st.integers(0, 10**16),
    st.integers(1, 10**9),
    st.booleans(),
    st.integers(1, 64),
    st.none() | st.integers(1, 10),
)
CLAIMS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2 * PPB), max_size=4)


@given(
    st.lists(PARTS, max_size=4),
    st.integers(0, 10**13),
    CLAIMS,
    CLAIMS,
    st.dictionaries(st.sampled_from("wxyz"), CLAIMS, max_size=4),
)
def test_what_is_split_is_all_of_the_calendar_and_no_more_of_the_busy(
    components: list[Component],
    duration_ns: int,
    cpu_ppb: dict[str, int],
    memory_ppb: dict[str, int],
    gpu_holders: dict[str, dict[str, int]],
) -> None:
    def whole(*, busy: bool) -> int:
        chosen = [c for c in components if (c.utilisation is not None) == busy]
        return sum(round(c.rates()[1]) for c in chosen) * duration_ns

    parts, left = Hardware(components).split(duration_ns, cpu_ppb, memory_ppb, gpu_holders)
    assert left >= 0
    assert all(part >= 0 for part in parts.values())
    assert whole(busy=False) <= sum(parts.values()) + left <= whole(busy=False) + whole(busy=True)
    calendar = [c for c in components if c.utilisation is None]
    alone, alone_left = Hardware(calendar).split(duration_ns, cpu_ppb, memory_ppb, gpu_holders)
    assert sum(alone.values()) + alone_left == whole(busy=False)
    assert left == alone_left  # what is paid by busy time leaves nothing
    assert all(parts[job_id] >= part for job_id, part in alone.items())


@given(st.lists(PARTS, max_size=4))
def test_the_band_holds_one(components: list[Component]) -> None:
    low, high = Hardware(components).band()
    assert 0 <= low <= 1 <= high
