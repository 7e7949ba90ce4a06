"""Presence and remainders against the same sums done the long way, in exact fractions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.concurrency import Presence, Remainders

S = 10**9
STEPS = st.lists(
    st.tuples(
        st.integers(0, 10**10),  # time that passes, ns
        st.sampled_from(["enter", "leave", "split", "split", "outside"]),
        st.sampled_from(["a", "b", "c", "d"]),
        st.integers(1, 10**6),  # weight
        st.integers(0, 10**12),  # amount, ng
        st.sampled_from([0, 1, 2]),  # how much of it is of a declared rate: none, half, all
    ),
    max_size=40,
)


class Model:
    """The same in fractions: every stretch between two events by itself."""

    def __init__(self, declared: int, outside: int | None) -> None:
        self.declared, self.outside = declared, outside
        self.weights: dict[str, int] = {}
        self.window: dict[str, Fraction] = {}
        self.elsewhere = Fraction(0)
        self.length_ns = 0

    def divisor(self) -> int:
        return 0 if self.outside is None else max(self.declared, self.outside, sum(self.weights.values()))

    def pass_(self, passed_ns: int) -> None:
        divisor = self.divisor()
        self.length_ns += passed_ns
        if self.outside is None and not self.weights:
            self.elsewhere += passed_ns
        if divisor:
            for payer, weight in self.weights.items():
                self.window[payer] = self.window.get(payer, Fraction(0)) + Fraction(passed_ns * weight, divisor)
            self.elsewhere += Fraction(passed_ns * (divisor - sum(self.weights.values())), divisor)

    def close(self) -> tuple[dict[str, Fraction], Fraction]:
        """The parts of 1: by payer, and elsewhere."""
        divisor = self.divisor()
        if self.length_ns:
            shares = {payer: part / self.length_ns for payer, part in self.window.items()}
            elsewhere = self.elsewhere / self.length_ns
        elif divisor:
            shares = {payer: Fraction(weight, divisor) for payer, weight in self.weights.items()}
            elsewhere = Fraction(divisor - sum(self.weights.values()), divisor)
        else:
            shares, elsewhere = {}, Fraction(0)
        self.window, self.elsewhere, self.length_ns = {}, Fraction(0), 0
        return shares, elsewhere


@given(steps=STEPS, declared=st.sampled_from([0, 1, 10**6]), outside=st.sampled_from([0, None, 10**5, 10**9]))
def test_parts_are_the_amount_and_each_payers_is_the_exact_integral(
    steps: list[tuple[int, str, str, int, int, int]], declared: int, outside: int | None
) -> None:
    presence, remainders, model = Presence(0, declared, outside), Remainders(), Model(declared, outside)
    due: dict[str, Fraction] = {}
    paid: dict[str, int] = {}
    now_ns = 0
    for passed_ns, action, name, weight, amount_ng, of_rate in steps:
        now_ns += passed_ns
        model.pass_(passed_ns)
        if action == "enter":
            presence.enter(name, weight, now_ns)
            model.weights[name] = weight
        elif action == "leave":
            presence.leave(name, now_ns)
            model.weights.pop(name, None)
        elif action == "outside":
            model.outside = None if weight % 3 == 0 else weight
            presence.set_outside(model.outside, now_ns)
        else:
            presence.advance(now_ns)
            abroad_ng = amount_ng * of_rate // 2
            parts = remainders.split(amount_ng, presence.shares(), abroad_ng)
            presence.close()
            assert sum(parts.payers.values()) + parts.untaxed_ng + parts.elsewhere_ng == amount_ng
            assert min([*parts.payers.values(), parts.untaxed_ng, parts.elsewhere_ng]) >= 0
            shares, elsewhere = model.close()
            assert sum(shares.values()) + elsewhere <= 1
            for payer, share in shares.items():
                due[payer] = due.get(payer, Fraction(0)) + amount_ng * share
            due["elsewhere"] = due.get("elsewhere", Fraction(0)) + abroad_ng * elsewhere
            for payer, part_ng in (*parts.payers.items(), ("elsewhere", parts.elsewhere_ng)):
                paid[payer] = paid.get(payer, 0) + part_ng
            for payer, exact in due.items():
                # Nobody's own remainder is lost at its leaving: it is counted again when the name comes back.
                assert abs(paid.get(payer, 0) - exact) < 1 + sum(a == "leave" for _, a, *_ in steps)


@given(
    ticks=st.lists(st.tuples(st.integers(20, 10**9), st.integers(1, 10**9)), min_size=1, max_size=60),
    weights=st.lists(st.integers(1, 3), min_size=1, max_size=8),
)
def test_whoever_stays_is_within_a_nanogram_after_any_number_of_ticks(
    ticks: list[tuple[int, int]], weights: list[int]
) -> None:
    presence, remainders = Presence(0), Remainders()
    for number, weight in enumerate(weights):
        presence.enter(f"job-{number}", weight, 0)
    paid = [0] * len(weights)
    whole_ng = now_ns = 0
    for amount_ng, passed_ns in ticks:
        now_ns += passed_ns
        whole_ng += amount_ng
        presence.advance(now_ns)
        parts = remainders.split(amount_ng, presence.shares())
        presence.close()
        assert parts.untaxed_ng == 0
        for number in range(len(weights)):
            paid[number] += parts.payers.get(f"job-{number}", 0)
        for number, weight in enumerate(weights):
            assert abs(paid[number] - Fraction(whole_ng * weight, sum(weights))) < 1


@given(ticks=st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=60), amount_ng=st.integers(0, 3))
def test_a_trickle_below_a_nanogram_each_is_never_more_than_it_is(ticks: list[list[str]], amount_ng: int) -> None:
    """Who is ahead and stops paying leaves others behind: for a while, and by little."""
    presence, remainders = Presence(0), Remainders()
    due: dict[str, Fraction] = {}
    paid: dict[str, int] = {}
    before: list[str] = []
    for second, present in enumerate(ticks):
        for payer in before:
            presence.leave(payer, second * S)
        for payer in present:
            presence.enter(payer, 1, second * S)
        before = present
        presence.advance((second + 1) * S)
        parts = remainders.split(amount_ng, presence.shares())
        presence.close()
        assert sum(parts.payers.values()) + parts.untaxed_ng == amount_ng
        assert min([*parts.payers.values(), parts.untaxed_ng]) >= 0
        for payer in present:
            due[payer] = due.get(payer, Fraction(0)) + Fraction(amount_ng, len(present))
        for payer, part_ng in parts.payers.items():
            paid[payer] = paid.get(payer, 0) + part_ng
    assert sum(paid.values()) <= amount_ng * len(ticks)


def test_time_with_nobody_present_is_nobodys() -> None:
    presence = Presence(0)
    presence.enter("a", 1, 3 * S)
    presence.advance(4 * S)
    assert Remainders().split(400, presence.shares()) == ({"a": 100}, 300, 0)


def test_those_that_left_within_the_tick_pay_their_part_of_it() -> None:
    presence, remainders = Presence(0), Remainders()
    presence.enter("a", 1, 0)
    presence.leave("a", S)
    presence.enter("b", 1, S)
    presence.advance(4 * S)
    assert remainders.split(400, presence.shares()) == ({"a": 100, "b": 300}, 0, 0)
    presence.close()
    presence.advance(8 * S)
    assert remainders.split(400, presence.shares()) == ({"b": 400}, 0, 0)


def test_a_changed_weight_closes_a_segment_and_opens_another() -> None:
    presence = Presence(0)
    presence.enter("a", 1, 0)
    presence.enter("b", 1, 0)
    presence.enter("a", 3, 2 * S)
    presence.advance(4 * S)
    assert Remainders().split(800, presence.shares()).payers == {"a": 200 + 300, "b": 200 + 100}


@pytest.mark.parametrize(
    ("declared", "outside", "abroad_ng", "parts"),
    [
        (0, 0, 0, ({"a": 1000}, 0, 0)),
        (10, 0, 1000, ({"a": 200}, 0, 800)),  # a declared rate: the others' nodes book theirs
        (10, 0, 0, ({"a": 200}, 800, 0)),  # metered here: nobody else knows of it
        (10, 0, 400, ({"a": 200}, 480, 320)),
        (1, 0, 1000, ({"a": 1000}, 0, 0)),  # more than was declared
        (0, 4, 1000, ({"a": 500}, 0, 500)),
        (0, 1, 1000, ({"a": 1000}, 0, 0)),  # a count that is behind
        (10, None, 1000, ({}, 1000, 0)),  # nobody answers: no local count instead
    ],
)
def test_what_falls_to_payers_elsewhere(
    declared: int, outside: int | None, abroad_ng: int, parts: tuple[dict[str, int], int, int]
) -> None:
    presence = Presence(0, declared, outside)
    presence.enter("a", 2, 0)
    presence.advance(S)
    assert Remainders().split(1000, presence.shares(), abroad_ng) == parts


def test_a_moment_is_split_by_who_is_present_in_it() -> None:
    presence, remainders = Presence(5), Remainders()
    assert remainders.split(10, presence.shares()) == ({}, 10, 0)
    presence.enter("a", 1, 5)
    presence.enter("b", 4, 5)
    assert remainders.split(10, presence.shares()) == ({"a": 2, "b": 8}, 0, 0)


def test_earlier_moments_and_strangers_change_nothing() -> None:
    presence = Presence(10 * S)
    presence.enter("a", 1, 4 * S)
    presence.leave("b", 5 * S)
    presence.advance(11 * S)
    assert presence.window_ns == (10 * S, 11 * S)
    assert Remainders().split(7, presence.shares()) == ({"a": 7}, 0, 0)


def test_a_node_of_a_fleet_without_payers_books_nothing_of_a_declared_rate() -> None:
    """Each of a thousand nodes would count it in full as untaxed; what was metered here is untaxed here."""
    presence, remainders = Presence(0, 0, None), Remainders()
    presence.advance(10 * S)
    assert not presence.nobodys
    assert remainders.split(100, presence.shares(), 60) == ({}, 40, 60)
    presence.close()
    presence.enter("a", 1, 10 * S)
    presence.advance(20 * S)
    assert remainders.split(100, presence.shares(), 60) == ({}, 100, 0), "who is here can't be charged by a guess"
