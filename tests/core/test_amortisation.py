"""Product tax by units served, against exact fractions: what falls due, who pays it, what changes in mid-life."""

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_taxes import DAWN, S, World

from wattribute.agent.core.model import Job, Role
from wattribute.agent.core.products import MICRO, Product
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.core.units import YEAR_S, ng_from_g

G = ng_from_g(1)
LLM = Product(
    id="llm", kind="model", epc_own_ng=1000 * G, unit="token", expected_micro_units=10_000 * MICRO, amortise="units"
)
CHILD = Product(id="child", parents={"llm": Fraction(1, 2)})


class Serving(World):
    """Taxes with a clock, and jobs that tell what they have served."""

    def serve(self, job_id: str, **units: float) -> None:
        counts = {unit: round(count * MICRO) for unit, count in units.items()}
        self.taxes.served(self.jobs[job_id], counts, DAWN + self.now_ns)

    def paid(self, job_id: str, product_id: str = "llm") -> int:
        return self.owed[job_id, product_id, "product"]

    def due(self, product_id: str = "llm") -> dict[str, int]:
        return dict(self.totals(product_id).amortised_ng)

    def restart(self) -> None:
        """Through what is saved, as JSON has it."""
        saved = json.loads(json.dumps([self.taxes.save(), self.taxes.save_retraining(), self.taxes.served_chunks()]))
        products = self.taxes.products.values()
        self.taxes = Taxes(products, self.now_ns)
        for job in self.jobs.values():
            self.taxes.enter(job, self.now_ns, first=False)
        self.taxes.restore_served(saved[2])
        self.taxes.restore(saved[0], saved[1], self.now_ns)
        self.taxes.settle(self.now_ns, DAWN + self.now_ns, {})


def test_two_hundred_of_ten_thousand_units_of_half_an_epc_of_1000_g_owe_10_g() -> None:
    world = Serving(LLM, CHILD)
    world.job("a", product_id="llm")
    world.job("idle", product_id="llm")
    world.serve("a", token=200, request=3)
    world.tick()
    assert world.paid("a") == 10 * G
    assert world.taxes.product_price("llm") == ("token", Fraction(G, 20))
    assert not world.paid("idle"), "nothing falls to time"
    assert world.due() == {"units": 10 * G}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["serve", "serve", "serve", "tick", "restart", "expect", "give"]),
        st.integers(0, 3),  # which job
        st.integers(0, 3 * 10**9),  # millionths of a unit
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(steps=STEPS, epc_ng=st.integers(0, 10**13), expected=st.integers(1, 10**10), lifetime_s=st.sampled_from([0, 20]))
def test_any_course_of_arrivals_bills_what_the_formula_says_to_the_nanogram(
    steps: list[tuple[str, int, int]], epc_ng: int, expected: int, lifetime_s: int
) -> None:
    world = Serving(replace(LLM, epc_own_ng=epc_ng, expected_micro_units=expected, lifetime_s=lifetime_s or None))
    for number in range(4):
        world.job(f"job-{number}", "llm")
    world.tick(0)
    stock_ng, served, since = epc_ng, 0, (0, 0)
    exact = dict.fromkeys(world.jobs, Fraction(0))
    reports = dict.fromkeys(world.jobs, 0)
    for action, which, amount in [*steps, ("tick", 0, 0)]:
        left_ng, left = max(0, stock_ng - since[1]), max(0, expected - since[0])
        if action == "serve":
            job_id = f"job-{which}"
            world.taxes.served(world.jobs[job_id], {"token": amount}, DAWN + world.now_ns)
            paying = max(0, min(served + amount, expected) - served)
            served += amount
            if left:
                exact[job_id] += Fraction(left_ng * paying, left)
            reports[job_id] += 1
            continue
        recovered_ng = since[1] + (left_ng * min(served - since[0], left) // left if left else 0)
        world.tick()
        assert world.overhead("llm", "product") == recovered_ng == world.due()["units"]
        if action == "restart":
            world.restart()
        elif action == "expect":
            changed, expected = expected != max(1, amount), max(1, amount)
            since = (served, recovered_ng) if changed else since
            product = replace(world.taxes.products["llm"], expected_micro_units=expected)
            world.taxes.declare({**world.taxes.products, "llm": product}.values(), world.now_ns)
        elif action == "give":
            before_ng, stock_ng = stock_ng, int(epc_ng * Fraction(3 - which, 3))
            since = (served, recovered_ng) if stock_ng != before_ng else since
            child = Product(id="child", parents={"llm": Fraction(which, 3)})
            world.taxes.declare([world.taxes.products["llm"], child], world.now_ns)
        assert world.overhead("llm", "product") <= max(stock_ng, recovered_ng)
    assert sum(world.paid(job_id) for job_id in world.jobs) == world.overhead("llm", "product")
    for job_id, due in exact.items():
        assert abs(world.paid(job_id) - due) <= reports[job_id]
    assert not lifetime_s or world.due()["time"] == epc_time(world, epc_ng, steps, lifetime_s)


def epc_time(world: Serving, epc_ng: int, steps: list[tuple[str, int, int]], lifetime_s: int) -> int:
    """What would be due by time, where nothing of the stock was given away; else it is taken as it is."""
    if any(action in ("give", "restart", "expect") for action, _, _ in steps):
        return world.due()["time"]
    return epc_ng * world.now_ns // (lifetime_s * S)


def test_past_what_was_expected_nothing_more_is_due() -> None:
    world = Serving(LLM)
    world.job("a", product_id="llm")
    world.serve("a", token=9_999.5)
    world.tick()
    assert world.paid("a") == 1000 * G - G // 20
    world.job("b", product_id="llm")
    world.serve("a", token=1)
    world.serve("b", token=10**6)
    world.tick()
    world.restart()
    world.serve("b", token=10**6)
    world.tick()
    assert world.due() == {"units": 1000 * G}
    assert (world.paid("a"), world.paid("b")) == (1000 * G, 0)
    assert world.taxes.product_price("llm") == ("token", Fraction(0))


def test_what_was_recovered_stays_and_the_rest_falls_on_the_rest() -> None:
    world = Serving(LLM)
    world.job("a", product_id="llm")
    world.serve("a", token=2500)
    world.tick()
    world.serve("a", token=2500)  # until the change, at the price before it
    world.taxes.declare([replace(LLM, expected_micro_units=6000 * MICRO)], world.now_ns)
    assert world.taxes.product_price("llm") == ("token", Fraction(G, 2))
    world.serve("a", token=500)
    world.tick()
    assert world.paid("a") == 750 * G
    # A child takes half of the EPC: more than that was recovered already.
    world.taxes.declare([replace(LLM, expected_micro_units=6000 * MICRO), CHILD], world.now_ns)
    world.serve("a", token=500)
    world.tick()
    assert world.paid("a") == 750 * G
    assert world.taxes.product_price("llm") == ("token", Fraction(0))


def test_both_ways_are_reckoned_and_one_is_billed() -> None:
    by_time = replace(LLM, amortise="time", lifetime_s=1000)
    world = Serving(by_time, replace(LLM, id="by-units", lifetime_s=1000))
    world.job("a", "llm", "by-units")
    for _ in range(10):
        world.serve("a", token=10)
        world.tick()
    due = {"time": 10 * G, "units": 10 * G}
    assert world.due("llm") == world.due("by-units") == due
    world.serve("a", token=100)
    world.tick(0)
    world.restart()
    assert world.paid("a", "llm") == 10 * G
    assert world.paid("a", "by-units") == 20 * G
    assert world.due("llm") == world.due("by-units") == {"time": 10 * G, "units": 20 * G}
    assert world.taxes.product_price("llm") is None
    world.end("a")
    world.tick(5)  # nobody is there: untaxed by time, nothing by units
    assert world.totals("llm").untaxed_ng == {"product": 5 * G}
    assert world.totals("by-units").untaxed_ng == {}
    assert world.due("by-units") == {"time": 15 * G, "units": 20 * G}


def test_a_product_that_changes_its_way_recovers_no_more_than_its_epc() -> None:
    by_time = replace(LLM, amortise="time", lifetime_s=100)
    world = Serving(by_time)
    world.job("a", "llm")
    world.tick(10)
    world.taxes.declare([replace(LLM, lifetime_s=100)], world.now_ns)
    world.serve("a", token=8000)
    world.tick(10)
    assert world.paid("a") == 100 * G + 720 * G
    world.taxes.declare([by_time], world.now_ns)
    world.tick(10)
    assert world.paid("a") == 920 * G
    world.restart()
    world.tick(70)
    assert world.paid("a") == world.overhead("llm", "product") == 1000 * G
    assert world.due() == {"time": 380 * G, "units": 720 * G}, "time went on beside"


@pytest.mark.parametrize(
    ("role", "product_id", "uses", "pays"),
    [
        ("use", "llm", (), True),
        ("use", "chat", (), True),  # which runs on it
        ("use", "other", ("llm",), True),
        ("platform", "llm", (), False),
        ("retraining", "llm", (), False),
        ("creation", "llm", (), False),
        ("creation", "child", ("llm",), False),  # its EPC comes in by weight
        ("creation", "chat", (), False),
    ],
)
def test_whom_units_are_billed_to(role: Role, product_id: str, uses: tuple[str, ...], pays: bool) -> None:
    world = Serving(LLM, replace(CHILD, parents={"llm": Fraction(0)}), Product(id="chat", runs_on=("llm",)))
    world.job("a", *uses, product_id=product_id, role=role)
    world.serve("a", token=10)
    world.tick()
    if product_id == "chat" and role == "creation":
        pays = True  # it makes something else than a child of it
    assert world.paid("a") == (G if pays else 0)
    assert world.due()["units"] == (G if pays else 0)


def test_units_of_another_name_and_a_product_that_isnt_deployed_owe_nothing() -> None:
    world = Serving(
        LLM, replace(LLM, id="later", deployed_unix_ns=DAWN + 10 * S), replace(LLM, id="open", status="open")
    )
    world.job("a", "llm", "later", "open", product_id="old")
    world.serve("a", image=7, request=9)
    world.tick()
    assert not world.owed
    world.serve("a", token=10)
    world.tick()
    assert {key[1]: ng for key, ng in world.owed.items()} == {"llm": G}
    world.tick(20)
    world.serve("a", token=10)
    world.taxes.declare([replace(LLM, status="retired"), world.taxes.products["later"]], world.now_ns)
    world.serve("a", token=10)
    world.tick()
    assert {key[1]: ng for key, ng in world.owed.items()} == {"llm": 2 * G, "later": 2 * G}
    assert world.taxes.product_price("llm") is None
    assert world.due() == {"units": 2 * G}


def test_a_job_that_ended_pays_what_it_told_until_it_was_settled() -> None:
    world = Serving(LLM)
    job = world.job("a", product_id="llm")
    world.tick()
    world.end("a")
    world.taxes.served(job, {"token": 10 * MICRO}, DAWN + world.now_ns)
    world.tick()
    assert world.paid("a") == G


def test_the_state_of_an_older_version_has_recovered_by_time() -> None:
    by_time = replace(LLM, amortise="time", lifetime_s=1000)
    world = Serving(by_time)
    job = world.job("a", "llm")
    world.tick(100)
    older: dict[str, Any] = {product_id: row[:5] for product_id, row in world.taxes.save().items()}
    world.taxes = Taxes([LLM], world.now_ns)
    world.taxes.enter(job, 0, first=False)
    world.taxes.restore(older, None, world.now_ns)
    assert world.due() == {"time": 100 * G, "units": 0}
    world.serve("a", token=5000)
    world.tick()
    assert world.paid("a") == 100 * G + 450 * G
    assert world.due() == {"time": 100 * G, "units": 450 * G}


def test_an_unknown_epc_is_told_of_and_bills_nothing_until_it_is_known() -> None:
    unknown = replace(LLM, epc_own_ng=None)
    world = Serving(unknown)
    job = world.job("a", product_id="llm")
    assert world.taxes.missing_epc(job) == ("llm",)
    assert Taxes([replace(unknown, amortise="time")], 0).missing_epc(job) == ()
    world.serve("a", token=10)
    world.tick()
    assert world.due() == {}
    world.taxes.declare([LLM], world.now_ns)
    world.serve("a", token=10)
    world.tick()
    assert world.due() == {"units": G}


def test_a_product_that_nobody_declared_counts_nothing() -> None:
    world = Serving(Product(id="other", lifetime_s=YEAR_S))
    world.job("a", "tag")
    world.serve("a", token=10)
    world.tick()
    assert not world.owed
    assert world.taxes.product_price("tag") is None
    assert Taxes([], 0).product_price("nobody") is None
    assert Job(id="a").weight_ppm == MICRO
