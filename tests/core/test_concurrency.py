"""The rate-over-weight integral against the same sum done the long way, in exact fractions."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.concurrency import SharedRate
from wattribute.agent.core.units import RATE_DENOMINATOR

STEPS = st.lists(
    st.tuples(
        st.integers(1, 10**10),  # time that passes, ns
        st.sampled_from(["enter", "leave", "settle", "rate"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 10**6),  # weight, or rate factor
    ),
    max_size=40,
)


@given(steps=STEPS, rate=st.integers(0, 10**19), concurrency=st.sampled_from([0, 1, 10**6]))
def test_owed_equals_the_exact_integral(steps: list[tuple[int, str, str, int]], rate: int, concurrency: int) -> None:
    shared = SharedRate(rate, 0, concurrency)
    weights: dict[str, int] = {}
    due: dict[str, Fraction] = {}
    paid: dict[str, int] = {}
    segments: dict[str, int] = {}
    untaxed, got_untaxed, now_ns = Fraction(0), 0, 0
    for passed_ns, action, name, number in steps:
        now_ns += passed_ns
        amount = Fraction(rate * passed_ns, RATE_DENOMINATOR)
        whole = sum(weights.values())
        for payer, weight in weights.items():
            due[payer] = due.get(payer, Fraction(0)) + amount * weight / max(whole, concurrency)
        if not whole and not concurrency:
            untaxed += amount
        if action == "enter":
            shared.enter(name, number, now_ns)
            segments[name] = segments.get(name, 0) + (name not in weights)
            weights.setdefault(name, number)
        elif action == "leave":
            paid[name] = paid.get(name, 0) + shared.leave(name, now_ns)
            weights.pop(name, None)
        elif action == "rate":
            rate = number * 10**12
            shared.set_rate(rate, now_ns)
        for payer, owed_ng in shared.settle(now_ns).items():
            paid[payer] = paid.get(payer, 0) + owed_ng
        got_untaxed += shared.untaxed_ng()
    for payer, exact in due.items():
        # What a payer leaves below a nanogram goes to untaxed, once a segment.
        assert -segments[payer] - 1 < paid.get(payer, 0) - exact <= 0
    assert got_untaxed >= 0
    billed = sum(paid.values()) + got_untaxed
    assert abs(billed - sum(due.values()) - untaxed) <= len(weights) + 2
