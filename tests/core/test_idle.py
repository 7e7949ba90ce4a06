"""Learning idle power from laws that are known: how far off it may be, what it must not claim, what it keeps."""

import json
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.idle import FORGET_SAMPLES, GPU_ENOUGH, SETTLED_NS, IdleOfGpu, IdleOfUse
from wattribute.agent.core.units import NS_PER_S

S = NS_PER_S
W = 1_000_000
CPUS = 16
Law = Callable[[float], float]
"""Watts by the part of the capacity in use, 0..1."""


def watch(learner: IdleOfUse, law: Law, uses: list[float], *, noise_w: float = 0.0, seed: int = 0) -> IdleOfUse:
    """One window of a second for each use."""
    random = Random(seed)
    for use in uses:
        energy_uj = max(0, round((law(use) + random.gauss(0, noise_w)) * W))
        learner.see(energy_uj, round(use * CPUS * S), S, CPUS)
    return learner


def uses(seed: int, many: int, low: float, high: float) -> list[float]:
    random = Random(seed)
    return [random.uniform(low, high) for _ in range(many)]


def straight(use: float) -> float:
    return 60 + 140 * use


def test_a_straight_line_is_found_within_the_bounds_that_are_stated() -> None:
    """Bounds of 95 %: of 100 nodes a few may be outside of them, none by far."""
    outside = 0
    for seed in range(100):
        learnt = watch(IdleOfUse(), straight, uses(seed, 300, 0.1, 0.9), noise_w=2.0, seed=seed).idle
        assert learnt is not None
        assert learnt.method == "extrapolated"
        assert 0 < learnt.within_uw < 0.02 * 130 * W
        error_uw = abs(learnt.power_uw - 60 * W)
        outside += error_uw > learnt.within_uw
        assert error_uw <= 3 * learnt.within_uw
    assert outside <= 12


def test_without_noise_the_line_is_exact() -> None:
    learnt = watch(IdleOfUse(), straight, uses(0, 60, 0.2, 0.9)).idle
    assert learnt is not None
    assert learnt.power_uw == pytest.approx(60 * W, abs=200)


def test_too_much_noise_is_not_believed() -> None:
    assert watch(IdleOfUse(), straight, uses(0, 60, 0.4, 0.6), noise_w=15).idle is None


@pytest.mark.parametrize("use", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("jitter", [0.0, 1e-6, 1e-3, 5e-3])
@pytest.mark.parametrize("noise_w", [0.0, 0.1])
def test_a_constant_load_tells_nothing(use: float, jitter: float, noise_w: float) -> None:
    """What its use seems to vary by is how it was read (a tick, a moment): power doesn't follow, nor is it idle."""
    random = Random(7)
    seen = [min(1.0, use + random.uniform(-jitter, jitter)) for _ in range(FORGET_SAMPLES + 400)]
    assert watch(IdleOfUse(), lambda _: straight(use), seen, noise_w=noise_w).idle is None


@given(
    st.floats(0, 200), st.floats(0, 500), st.floats(0.3, 1.0), st.lists(st.floats(0.02, 1.0), min_size=30, max_size=80)
)
def test_a_law_that_bends_is_flagged_and_never_above_what_was_seen(
    idle_w: float, more_w: float, exponent: float, seen: list[float]
) -> None:
    """The line of a concave law meets no use above the law's own."""

    def law(use: float) -> float:
        return float(idle_w + more_w * use**exponent)

    learnt = watch(IdleOfUse(), law, seen).idle
    if learnt is not None:
        assert learnt.method == "extrapolated"
        assert 0 <= learnt.power_uw <= min(round(law(use) * W) for use in seen)


def test_a_quiet_node_is_observed_and_what_ran_is_taken_off() -> None:
    learner = watch(IdleOfUse(), straight, uses(1, 300, 0.1, 0.9), noise_w=1)
    loaded = learner.idle
    watch(learner, straight, uses(2, 20, 0.0, 0.009), noise_w=0.2, seed=2)
    quiet = learner.idle
    assert loaded is not None
    assert quiet is not None
    assert (loaded.method, quiet.method) == ("extrapolated", "observed")
    assert quiet.power_uw == pytest.approx(60 * W, rel=0.003)
    assert quiet.within_uw < 0.3 * W


def test_a_node_is_quiet_only_after_a_while() -> None:
    learner = watch(IdleOfUse(), straight, [0.001] * 9)
    assert learner.idle is None
    watch(learner, straight, [0.001])
    assert learner.idle is not None
    assert learner.idle.power_uw == pytest.approx(60 * W, rel=0.003)


def test_short_windows_are_joined_over_a_counters_steps() -> None:
    """A counter that moves every 100 ms, read every 60: single windows would have 0 W or twice the power."""
    learner, at_ms, shown_uj = IdleOfUse(), 0, 0
    for _ in range(400):
        at_ms += 60
        counter_uj = at_ms // 100 * 100 * 60 * 1000
        learner.see(counter_uj - shown_uj, 0, 60_000_000, CPUS)
        shown_uj = counter_uj
    assert learner.idle is not None
    assert learner.idle.power_uw == pytest.approx(60 * W, rel=0.01)


def test_one_wrong_window_is_forgotten_in_the_end() -> None:
    """A counter that stood still for a second isn't the lowest power for good."""
    learner = watch(IdleOfUse(), straight, uses(1, 100, 0.1, 0.9))
    watch(learner, lambda use: 0.0, [0.5])
    watch(learner, straight, uses(2, 2 * FORGET_SAMPLES, 0.1, 0.9))
    assert learner.idle is not None
    assert learner.idle.power_uw == pytest.approx(60 * W, rel=0.01)


def test_another_law_takes_the_place_of_the_one_before() -> None:
    learner = watch(IdleOfUse(), straight, uses(1, FORGET_SAMPLES, 0.1, 0.9))
    watch(learner, lambda use: 30 + 140 * use, uses(2, 12 * FORGET_SAMPLES, 0.1, 0.9))
    assert learner.idle is not None
    assert learner.idle.power_uw == pytest.approx(30 * W, rel=0.02)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 300)), max_size=60), st.integers(0, 60))
def test_what_was_learnt_goes_on_from_where_it_was_saved(windows: list[tuple[float, float]], at: int) -> None:
    whole, first = IdleOfUse(), IdleOfUse()
    for n, (use, power_w) in enumerate(windows):
        if n == at:
            first = IdleOfUse.restore(json.loads(json.dumps(first.save())))
        for learner in (whole, first):
            learner.see(round(power_w * W), round(use * CPUS * S), S, CPUS)
    assert whole.idle == first.idle
    assert whole.save() == first.save()


def see_gpu(learner: IdleOfGpu, powers_w: list[float], *, held: bool = False, from_s: int = 0) -> int:
    """A window of a second for each power; returns when the last ends."""
    for n, power_w in enumerate(powers_w, start=from_s):
        learner.see(round(power_w * W), n * S, (n + 1) * S, held=held)
    return from_s + len(powers_w)


def test_a_gpu_without_contexts_is_observed_once_it_has_settled() -> None:
    learner = IdleOfGpu()
    at_s = see_gpu(learner, [300.0] * 60, held=True)
    at_s = see_gpu(learner, [120.0] * (SETTLED_NS // S), from_s=at_s)  # clocks and memory come down slowly
    at_s = see_gpu(learner, [70.0] * (GPU_ENOUGH - 1), from_s=at_s)
    assert learner.idle is None
    at_s = see_gpu(learner, [70.0], from_s=at_s)
    assert learner.idle is not None
    assert (learner.idle.power_uw, learner.idle.within_uw, learner.idle.method) == (70 * W, 0, "observed")
    at_s = see_gpu(learner, [400.0] * 100, held=True, from_s=at_s)
    see_gpu(learner, [110.0] * (SETTLED_NS // S), from_s=at_s)
    assert learner.idle.power_uw == 70 * W


def test_a_gpu_that_somebody_wakes_now_and_then_is_as_idle_as_its_lowest_tenth() -> None:
    learner, random = IdleOfGpu(), Random(3)
    see_gpu(learner, [70.0] * 30 + [random.choice([70.0, 70.5, 71.0, 140.0]) for _ in range(200)])
    assert learner.idle is not None
    assert learner.idle.power_uw == 70 * W
    assert learner.idle.within_uw >= W


def test_a_gpus_idle_power_is_kept() -> None:
    learner = IdleOfGpu()
    assert IdleOfGpu.restore(json.loads(json.dumps(learner.save()))).idle is None
    see_gpu(learner, [70.0] * 60)
    assert IdleOfGpu.restore(json.loads(json.dumps(learner.save()))).idle == learner.idle is not None
