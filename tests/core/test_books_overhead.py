"""Books of a node whose own jobs keep products running: where their cost goes, and at which price."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.node_of_numbers import DAWN, PACKAGE, TAX_TERMS, S, World

from wattribute.agent.core.accounting import Price
from wattribute.agent.core.books import Books
from wattribute.agent.core.claims import Entry
from wattribute.agent.core.hardware import Component, Hardware
from wattribute.agent.core.model import CPU_NS_SLOT, TERM_SLOT, Domain, ProductTotals, Role, Term, energy_slot
from wattribute.agent.core.prices import PriceSeries
from wattribute.agent.core.products import Product
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.core.units import UJ_PER_KWH, YEAR_S, ng_from_kg, rate_from_g_per_min

IKS = Product(id="iks", retraining_interval_s=60)
SERVER = (Component(ng_from_kg(1200), 4 * YEAR_S),)
G_PER_KJ = 480 / 3600
"""At 480 g/kWh."""


def ng(entry: Entry, *terms: Term) -> int:
    return sum(entry.values[TERM_SLOT[term]] for term in terms)


def totals(world: World, product_id: str = "iks") -> ProductTotals:
    return next(row for row in world.books.taxes.totals() if row.id == product_id)


def overhead(world: World, term: Term, product_id: str = "iks") -> int:
    row = totals(world, product_id)
    return row.billed_ng.get(term, 0) + row.untaxed_ng.get(term, 0)


def test_what_a_platform_job_costs_is_paid_by_who_uses_the_platform() -> None:
    world = World(IKS, hardware=SERVER, pue=1.25)
    keeper = world.job("keeper", product_id="iks", role="platform")
    user = world.job("user", uses=("iks",), weight_ppm=3_000_000)
    other = world.job("other", product_id="iks")
    stranger = world.job("stranger")
    for _ in range(10):
        world.work(keeper, S)
        world.work(stranger, S)
        world.tick(cpu=2_000_000_000)
    jsc_ng = ng(keeper, "operation", "cooling")
    assert jsc_ng == pytest.approx(10 * G_PER_KJ * 1.25 * 10**9, rel=1e-9)
    assert ng(user, "platform") + ng(other, "platform") == jsc_ng == overhead(world, "platform")
    assert ng(user, "platform") == pytest.approx(jsc_ng * 3 / 4, abs=1)
    assert ng(user, "overhead_hardware") == pytest.approx(ng(keeper, "hardware") * 3 / 4, abs=1)
    assert overhead(world, "overhead_hardware") == ng(keeper, "hardware") > 0
    assert ng(keeper, *TAX_TERMS) == ng(stranger, *TAX_TERMS) == 0
    assert totals(world).untaxed_ng == {}


def test_energy_of_an_ended_platform_job_that_comes_late_is_billed_when_it_comes() -> None:
    """The package isn't read in the tick in which the keeper ends: its energy comes with the next."""
    world = World(IKS)
    keeper = world.job("keeper", product_id="iks", role="platform")
    early = world.job("early", product_id="iks")
    world.work(keeper, S)
    missing = world.counters.pop(PACKAGE)
    world.now_ns += S // 2
    world.end(keeper)
    world.tick(0.5)
    assert not world.books.settled(keeper)
    world.end(early)
    late = world.job("late", product_id="iks")
    world.books.forget_settled()
    world.counters[PACKAGE] = missing
    world.tick(cpu=1_000_000_000)
    assert ng(late, "platform") == ng(keeper, "operation") == pytest.approx(G_PER_KJ * 10**9)
    assert ng(early, "platform") == 0
    assert keeper in world.books.forget_settled()
    world.tick(cpu=1_000_000_000)
    assert overhead(world, "platform") == ng(keeper, "operation")


def test_a_job_stays_on_the_books_until_its_taxes_are_billed() -> None:
    world = World(replace(IKS, overhead_rate=rate_from_g_per_min(60)))
    world.counters = {}
    user = world.job("user", product_id="iks")
    world.now_ns += S
    world.end(user)
    assert not world.books.settled(user)
    assert world.books.forget_settled() == []
    world.tick(1)
    assert ng(user, "platform") == 10**9
    for _ in range(11):
        world.tick()
    assert world.books.forget_settled() == [user]


def test_a_job_that_becomes_anothers_platform_moves_its_cost_from_then_on() -> None:
    world = World(IKS, Product(id="other"))
    keeper = world.job("keeper", product_id="iks", role="platform")
    world.job("user", product_id="iks", uses=("other",))
    for product_id in ("other", "iks"):
        world.work(keeper, S)
        world.tick(cpu=1_000_000_000)
        world.books.rename(keeper, replace(keeper.job, product_id=product_id), world.now_ns)
    assert overhead(world, "platform") == overhead(world, "platform", "other") > 10**8


def test_retraining_is_billed_to_jobs_on_the_books_and_handed_out_for_the_others() -> None:
    world = World(IKS, hardware=SERVER)
    trainer = world.job("trainer", product_id="iks", role="retraining")
    gone = world.job("gone", uses=("iks",))
    world.work(trainer, S)
    world.tick(20, cpu=1_000_000_000)
    world.end(gone)
    for _ in range(3):
        world.tick(10, cpu=1_000_000)
        world.books.forget_settled()
    assert not world.books.holds(gone)
    assert world.books.taxes.open_retraining(gone.job)
    held = world.job("held", product_id="iks", weight_ppm=3_000_000)
    world.now_ns += 5 * S
    world.end(held)
    spent = ng(trainer, "operation"), ng(trainer, "hardware")
    world.tick(10, cpu=1_000_000)  # over the end of the minute
    (late,) = world.books.late
    assert (late.product_id, late.start_unix_ns, late.end_unix_ns) == ("iks", DAWN, DAWN + 60 * S)
    assert late.parts.keys() == {"gone"}
    assert sum(late.parts["gone"]) + ng(held, "retraining", "overhead_hardware") == pytest.approx(sum(spent), rel=1e-3)
    assert ng(held, "retraining") == pytest.approx(3 * late.parts["gone"][0], abs=2)
    assert held.taxes_ng["iks", "retraining"] == ng(held, "retraining")
    assert not world.books.taxes.open_retraining(gone.job)
    world.tick(60)
    # The rest of the last tick, and what came after it: nobody was served.
    assert overhead(world, "retraining") == ng(trainer, "operation")
    assert overhead(world, "overhead_hardware") == ng(trainer, "hardware")


def test_a_window_that_spans_a_change_of_price_costs_the_mean_by_time() -> None:
    steps = [(0, Price(100 * UJ_PER_KWH, 0)), (DAWN + 10 * S, Price(400 * UJ_PER_KWH, 40 * UJ_PER_KWH))]
    world = World(prices=PriceSeries(steps))
    a = world.job("a")
    world.work(a, S)
    world.tick(7, cpu=3)  # until 8 s
    assert ng(a, "operation", "cooling") == 300
    world.work(a, S)
    world.tick(8, cpu=4)  # 2 s at 100, 6 s at 440
    assert (ng(a, "operation"), ng(a, "cooling")) == (300 + 4 * 325, 4 * 30)
    world.tick(1, cpu=2)
    assert world.books.unattributed["idle"][TERM_SLOT["operation"]] == 0
    assert world.books.node_co2e_ng["operation"] == 300 + 4 * 325 + 2 * 400


def test_sensors_of_different_cadence_are_priced_by_their_own_windows() -> None:
    dram = Domain(kind="dram", id="package-0-dram")
    steps = [(0, Price(100 * UJ_PER_KWH, 0)), (DAWN + 2 * S, Price(500 * UJ_PER_KWH, 0))]
    world = World(prices=PriceSeries(steps))
    world.counters[dram] = 0
    world.tick()  # 2 s
    a = world.job("a")
    world.counters.pop(dram)
    world.now_ns -= S
    world.books = Books(world.books.rules, Hardware(()), Taxes((), 0), 0, world.books.prices)
    world.counters = {PACKAGE: 0, dram: 0}
    world.tick(0)
    world.books.open(a, first=True)
    missing = world.counters.pop(dram)
    world.work(a, S)
    world.tick(1, cpu=1)  # 1 s to 2 s: 100
    world.counters[dram] = missing
    world.work(a, S)
    world.tick(1, cpu=1, dram=1)  # the package's 2 s to 3 s: 500; the memory's 1 s to 3 s: 300
    assert ng(a, "operation") == 100 + 500 + 300
    assert a.values[energy_slot("dram", "direct", "measured")] == 1


def test_a_gap_has_the_price_of_its_time() -> None:
    world = World(prices=PriceSeries([(0, Price(UJ_PER_KWH, 0)), (DAWN + 5 * S, Price(9 * UJ_PER_KWH, 0))]))
    world.counters[PACKAGE] = 50
    world.tick(1, cpu=0)
    world.tick(1, cpu=0)
    world.counters[PACKAGE] = 0  # the counter starts over, at what cost isn't known
    world.books.tick(
        world.now_ns + S,
        {"node": 0, "overhead": 0, "agent": 0},
        [],
        unix_ns=DAWN + world.now_ns + S,
    )
    assert world.books.node_co2e_ng["operation"] == 50


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "end", "tick", "skip", "restart", "declare"]),
        st.integers(0, 5),
        st.integers(0, 4 * S),
        st.integers(0, 10**10),
        st.floats(0.01, 40),
    ),
    max_size=25,
)
ROLES: tuple[Role, ...] = ("use", "use", "platform", "retraining", "creation", "use")


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, pue=st.sampled_from([1.0, 1.37]), changing=st.booleans())
def test_in_any_course_of_events_taxes_move_what_products_own_jobs_cost(
    steps: list[tuple[str, int, int, int, float]], pue: float, changing: bool
) -> None:
    model = Product(id="model", runs_on=("iks",), retraining_interval_s=37, epc_own_ng=10**12, lifetime_s=200)
    model = replace(model, deployed_unix_ns=DAWN + 10 * S)
    prices = [(0, Price.of(Fraction(480), pue)), (DAWN + 30 * S, Price.of(Fraction(17), pue))]
    world = World(IKS, model, hardware=SERVER, pue=pue, prices=PriceSeries(prices) if changing else None)
    state: dict[str, object] = {}
    for action, which, cpu_ns, uj, seconds in [*steps, *[("tick", 0, 0, 0, 130.0)] * 2]:
        job_id = f"job-{which}"
        entry = world.entries.get(job_id)
        if action == "start":
            if entry is None:
                world.job(job_id, product_id=("iks", "model")[which % 2], role=ROLES[which])
            elif entry.ended_ns is not None:
                entry.started_ns = world.now_ns
                world.books.open(entry, first=False)
        elif entry is not None and entry.ended_ns is None:
            world.work(entry, cpu_ns)
            if action == "end":
                world.end(entry)
        if action == "declare":
            world.books.taxes.declare(list(world.books.taxes.products.values()), world.now_ns)
        world.node_ns += cpu_ns // 3
        if action != "skip":
            world.tick(seconds, cpu=uj)
            world.books.forget_settled()
        if action == "restart":
            state |= json.loads(json.dumps(world.books.taxes.served_chunks()))
            restart(world, state)
    for term, of in (("platform", "platform"), ("retraining", "retraining")):
        for product_id in ("iks", "model"):
            own = [e for e in world.entries.values() if e.job.product_id == product_id and e.job.role == of]
            assert overhead(world, term, product_id) == sum(ng(e, "operation", "cooling") for e in own)  # type: ignore[arg-type]
    for product_id in ("iks", "model"):
        own = [e for e in world.entries.values() if e.job.product_id == product_id and e.job.role in ROLES[2:4]]
        assert overhead(world, "overhead_hardware", product_id) == sum(ng(e, "hardware") for e in own)
    assert overhead(world, "product", "model") == 10**12 * min(max(0, world.now_ns - 10 * S), 200 * S) // (200 * S)


def restart(world: World, state: dict[str, object]) -> None:
    """Another agent goes on from what this one saved, on the same boot; late bills were taken."""
    saved = json.loads(json.dumps(world.books.save()))
    late, old = world.books.late, world.books
    products = old.taxes.products.values()
    world.books = Books(old.rules, Hardware(SERVER), Taxes(products, saved["at_ns"]), saved["at_ns"], old.prices)
    world.books.late = late
    for entry in world.entries.values():
        if entry.ended_ns is None:
            world.books.open(entry, first=False)
    world.books.restore(
        saved, same_boot=True, accounts_ns={"node": world.node_ns, "overhead": world.overhead_ns, "agent": 0}
    )
    world.books.taxes.restore_served(state)


def test_cpu_time_is_all_that_the_double_sets() -> None:
    """A job without any costs nothing, whatever it taxes."""
    world = World(IKS)
    keeper = world.job("keeper", product_id="iks", role="platform")
    world.tick(cpu=10**9)
    assert keeper.values[CPU_NS_SLOT] == overhead(world, "platform") == 0
