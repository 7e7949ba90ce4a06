"""Ex-ante estimates: each formula by hand, bounds, and what can't be."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core import estimate as e
from wattribute.agent.core.ranges import NIL, Range, exact

amounts = st.integers(0, 10**9).map(lambda thousandths: Fraction(thousandths, 1000))
ranges = st.tuples(amounts, amounts, amounts).map(lambda values: Range(*sorted(values)))
above_zero = ranges.map(lambda values: values + Range.of(1))


def test_the_paper_s_chain() -> None:
    """3.6 J an inference at PUE 1.5; 10 epochs of 100,000 samples; 20 trials; a million inferences; 500 g/kWh."""
    one_kwh = e.inference_kwh(Range.of("3.6"), Range.of("1.5"))
    assert one_kwh == Range.of("1.5e-6")
    training = e.training_kwh(one_kwh, Range.of(100_000), Range.of(10), Range.of(5))
    assert training == Range.of("7.5")  # no PUE a second time
    search = e.search_kwh([training] * 20)
    assert search == Range.of(150)
    assert e.lifecycle_kwh(search, training, one_kwh, Range.of(10**6)) == Range.of(159)
    assert e.lifecycle_kwh(search, None, one_kwh, Range.of(10**6)) == Range.of("151.5")
    assert e.co2e_kg(Range.of(159), Range.of(500)) == Range.of("79.5")


def test_no_trials_cost_nothing() -> None:
    assert e.search_kwh([]) == NIL


def test_theta_by_default_is_the_paper_s_with_the_flop_count_below() -> None:
    assert e.training_kwh(Range.of(1), Range.of(1), Range.of(1)) == Range.of(3, 5, 5)
    assert e.theta(Range.of("0.75")) == Range.of(4)
    assert e.theta(Range.of(0)) == Range.of(1)


def llm(**changes: Range) -> e.Llm:
    values = {
        "parameters": Range.of(10**9),
        "devices": Range.of(8),
        "peak_flops": Range.of(10**14),
        "efficiency": Range.of("0.5"),
        "power_w": Range.of(400),
        "pue": Range.of("1.2"),
    }
    return e.Llm(**(values | changes))


def test_an_llm_by_hand() -> None:
    """6 * 1e9 * 1e10 = 6e19 FLOPs at 5e13/s per device: 1.2e6 device-seconds of 400 W."""
    model = llm()
    flops = model.training_flops(Range.of(10**10))
    assert flops == Range.of(6 * 10**19)
    assert model.days(flops) == Range.of(Fraction(1_200_000, 8 * 86_400))
    assert model.energy_kwh(flops) == Range.of(Fraction(1_200_000 * 400, 3_600_000) * exact("1.2"))
    assert model.inference_flops(Range.of(10**10)) == Range.of(2 * 10**19)


@pytest.mark.parametrize(
    ("parameters_b", "tokens_b", "g_per_kwh", "pue", "power_w", "peak", "efficiency", "devices", "tonnes", "delta"),
    [
        # MLCarbon's data/database.csv (Apache-2.0), and the deviations that its tutorial prints: T5, GPT-3, GShard and
        # Switch (mixtures of experts: their dense base models' parameters), XLM.
        (11, 600, 545, "1.12", 310, 123, "0.37", 512, "46.7", -0.020633627830577428),
        (175, 300, 429, "1.1", 330, 125, "0.197", 10_000, "552.1", 0.00225442863749592),
        ("2.3", 1000, 177, "1.09", 288, 123, "0.39", 1000, "4.3", 0.03259653562546361),
        ("7.41", 2000, 330, "1.1", 245, 123, "0.28", 1000, "59.1", 0.07924249927778426),
        ("0.55", 7000, 413, "1.1", 342, 125, "0.212", 512, "39", -0.0353542815674891),
    ],
)
def test_the_models_of_mlcarbon(
    parameters_b: str | int,
    tokens_b: int,
    g_per_kwh: int,
    pue: str,
    power_w: int,
    peak: int,
    efficiency: str,
    devices: int,
    tonnes: str,
    delta: float,
) -> None:
    model = llm(
        parameters=Range.of(exact(parameters_b) * 10**9),
        devices=Range.of(devices),
        peak_flops=Range.of(peak * 10**12),
        efficiency=Range.of(efficiency),
        power_w=Range.of(power_w),
        pue=Range.of(pue),
    )
    mass = e.co2e_kg(model.energy_kwh(model.training_flops(Range.of(tokens_b * 10**9))), Range.of(g_per_kwh))
    assert float(e.deviation(mass, exact(tonnes) * 1000)) == pytest.approx(delta, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": Range.of(0)},
        {"devices": NIL},
        {"peak_flops": NIL},
        {"efficiency": NIL},
        {"efficiency": Range.of("1.01")},
        {"pue": Range.of("0.99")},
    ],
)
def test_an_llm_that_can_t_be(change: dict[str, Range]) -> None:
    with pytest.raises(ValueError, match=r"above 0|at most 1|at least 1"):
        llm(**change)


def test_what_can_t_be() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        e.inference_kwh(Range.of(1), Range.of("0.5", 1, 2))
    with pytest.raises(ValueError, match="below 1"):
        e.training_kwh(Range.of(1), Range.of(1), Range.of(1), Range.of("0.5"))
    with pytest.raises(ValueError, match="part of the whole"):
        e.theta(Range.of(1))
    with pytest.raises(ValueError, match="above 0"):
        e.deviation(Range.of(1), Fraction(0))


@pytest.mark.parametrize("wrong", [(-1,), (2, 1, 3), (1, 3, 2), ("nan",), ("1e301",), ("1e-999999999",)])
def test_ranges_that_can_t_be(wrong: tuple[str | int, ...]) -> None:
    with pytest.raises(ValueError, match=r"low|number"):
        Range.of(*wrong)


@given(ranges, above_zero)
def test_arithmetic_of_ranges_holds_every_value_within(a: Range, b: Range) -> None:
    for x in (a.low, a.central, a.high):
        for y in (b.low, b.central, b.high):
            assert (a + b).low <= x + y <= (a + b).high
            assert (a * b).low <= x * y <= (a * b).high
            assert (a / b).low <= x / y <= (a / b).high


@given(ranges, ranges, above_zero, above_zero, above_zero)
def test_a_life_is_the_sum_of_its_parts(search: Range, one: Range, samples: Range, epochs: Range, uses: Range) -> None:
    training = e.training_kwh(one, samples, epochs)
    assert e.lifecycle_kwh(search, training, one, uses) == e.lifecycle_kwh(search, None, one, uses) + training


def test_a_range_divided_by_what_may_be_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="may be 0"):
        Range.of(1) / Range.of(0, 1, 2)


def test_how_a_range_is_written() -> None:
    assert str(Range.of("0.5")) == "0.5"
    assert str(Range.of(3, 4, 5)) == "3:4:5"
