"""Two readings: an interval, or the right name for why not."""

from dataclasses import replace

import pytest

from wattribute.agent.core.counters import between, integrate
from wattribute.agent.core.model import Domain, EnergyReading, Gap, Interval, PowerReading

PACKAGE = Domain(kind="cpu", id="package-0")
S = 1_000_000_000
RANGE_UJ = 262_143_328_850


def at(second: float, energy_uj: int, *, ceiling_w: int | None = 400, wraps: int | None = RANGE_UJ) -> EnergyReading:
    ceiling_uw = None if ceiling_w is None else ceiling_w * 1_000_000
    return EnergyReading(
        domain=PACKAGE, at_ns=round(second * S), energy_uj=energy_uj, wraps_at_uj=wraps, ceiling_uw=ceiling_uw
    )


def energy(before: EnergyReading, now: EnergyReading) -> int:
    outcome = between(before, now)
    assert isinstance(outcome, Interval)
    return outcome.energy_uj


def gap(before: EnergyReading | None, now: EnergyReading) -> Gap:
    outcome = between(before, now)
    assert isinstance(outcome, Gap)
    return outcome


def test_a_counter_that_rose() -> None:
    assert energy(at(0, 100), at(1, 50_000_100)) == 50_000_000


def test_a_counter_that_stood_still_used_nothing() -> None:
    assert energy(at(0, 100), at(1, 100)) == 0


def test_one_wrap_is_exact() -> None:
    before, now = at(0, RANGE_UJ - 10), at(1, 90_000_000)
    assert energy(before, now) == 90_000_010
    outcome = between(before, now)
    assert isinstance(outcome, Interval)
    assert outcome.wrapped


def test_a_reset_is_not_a_wrap() -> None:
    """A wrap from 1 kJ would mean 262 kJ in a second."""
    outcome = gap(at(0, 1_000_000_000), at(1, 30_000_000))
    assert (outcome.cause, outcome.lower_uj) == ("reset", 30_000_000)
    assert outcome.upper_uj == 500_000_000


def test_a_reset_of_a_counter_that_never_wraps() -> None:
    outcome = gap(at(0, 10**15, wraps=None, ceiling_w=None), at(1, 5, wraps=None, ceiling_w=None))
    assert (outcome.cause, outcome.lower_uj, outcome.upper_uj) == ("reset", 5, None)


def test_several_wraps_in_a_long_gap_are_bounds_and_never_a_guess() -> None:
    hour = gap(at(0, 100), at(3600, 200))
    assert hour.cause == "wrapped"
    assert hour.lower_uj == 100
    assert hour.upper_uj == 100 + 5 * RANGE_UJ  # 400 W for an hour: room for five


def test_a_jump_beyond_the_ceiling_is_refused() -> None:
    outcome = gap(at(0, 0), at(1, 10**12, wraps=None))
    assert (outcome.cause, outcome.lower_uj, outcome.upper_uj) == ("implausible", 0, 500_000_000)


def test_a_counter_that_moves_in_steps_is_believed_on_a_short_window() -> None:
    assert energy(at(0, 0), at(0.001, 40_000_000, ceiling_w=400)) == 40_000_000


@pytest.mark.parametrize("second", [1.0, 0.5])
def test_a_reading_that_is_not_newer_changes_nothing(second: float) -> None:
    assert gap(at(1, 100), at(second, 200)).cause == "stale"


def test_the_first_reading_holds_no_energy() -> None:
    outcome = gap(None, at(1, 10**9))
    assert (outcome.cause, outcome.lower_uj) == ("first", 0)


def power(second: float, watts: float) -> PowerReading:
    return PowerReading(domain=PACKAGE, at_ns=round(second * S), power_uw=round(watts * 1e6))


def test_power_is_integrated_by_trapezoid() -> None:
    outcome = integrate(power(0, 100), power(1, 300))
    assert isinstance(outcome, Interval)
    assert (outcome.energy_uj, outcome.quality) == (200_000_000, "integrated")


def test_constant_power_over_a_minute_is_exact() -> None:
    outcomes = [integrate(power(i, 300), power(i + 1, 300)) for i in range(60)]
    assert sum(o.energy_uj for o in outcomes if isinstance(o, Interval)) == 18_000_000_000


def test_power_is_not_bridged_over_a_gap() -> None:
    outcome = integrate(power(0, 100), power(10, 100))
    assert isinstance(outcome, Gap)
    assert (outcome.cause, outcome.upper_uj) == ("absent", None)


def test_a_suspend_between_two_powers_is_a_gap() -> None:
    """Nobody knows how much of that time was at which power, however long a slow meter's powers are bridged."""
    before, after = (replace(power(at, 100), bridge_ns=35 * S) for at in (0, 20))
    assert isinstance(integrate(before, after), Interval)
    assert isinstance(integrate(before, after, 1000), Interval)
    slept = integrate(before, after, 8 * S)
    assert isinstance(slept, Gap)
    assert (slept.cause, slept.upper_uj) == ("absent", None)


def resumed(before_uj: int, now_uj: int, seconds: int = 10) -> Gap:
    domain = Domain(kind="gpu", id="g")
    now = EnergyReading(domain=domain, at_ns=seconds * S, energy_uj=now_uj, ceiling_uw=100_000_000, resumed=True)
    outcome = between(EnergyReading(domain=domain, at_ns=0, energy_uj=before_uj), now)
    assert isinstance(outcome, Gap)
    return outcome


def test_nobody_looked_at_a_sensor_that_was_released() -> None:
    went_on = resumed(2_000_000_000, 2_500_000_000)
    assert (went_on.cause, went_on.lower_uj, went_on.upper_uj) == ("released", 500_000_000, 500_000_000)
    perhaps_reset = resumed(100_000_000, 600_000_000)
    assert (perhaps_reset.cause, perhaps_reset.lower_uj, perhaps_reset.upper_uj) == (
        "released",
        500_000_000,
        1_025_000_000,
    )
    assert resumed(0, 2_000_000_000).cause == "implausible"
    assert resumed(600_000_000, 500_000_000).cause == "reset"
