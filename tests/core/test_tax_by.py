"""Platform overhead by claim and by units served: exact at every tick, across restarts and changes of the product."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.node_of_numbers import World

from wattribute.agent.core.found import Reservation
from wattribute.agent.core.model import Job, Term
from wattribute.agent.core.products import MICRO, Product, TaxBy
from wattribute.agent.core.tariff import Metered
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.core.unit_shares import TERMS, told
from wattribute.agent.core.units import NS_PER_S, ng_from_g, rate_from_g_per_min

S = NS_PER_S
DAWN = 1_700_006_400 * S
G = ng_from_g(1)
GATEWAY = Product(id="gw", scope="node", tax_by="units")
ONE, TWO = Job(id="one", uses=("gw",)), Job(id="two", uses=("gw",))


class Counted:
    """Taxes with a clock, which sums what jobs owe; what was metered is booked, or waits."""

    def __init__(self, *products: Product) -> None:
        self.products = products
        self.taxes = Taxes(products, 0)
        self.now_ns = 0
        self.jobs: dict[str, Job] = {}
        self.owed = Counter[tuple[str, Term]]()
        self.metered = Counter[Term]()
        self.state: dict[str, Any] = {}

    def enter(self, *jobs: Job) -> None:
        for job in jobs:
            self.jobs[job.id] = job
            self.taxes.enter(job, self.now_ns, first=True)

    def leave(self, job: Job) -> None:
        self.taxes.leave(self.jobs.pop(job.id), self.now_ns)

    def serve(self, job: Job, **units: float) -> None:
        micro = {unit: round(count * MICRO) for unit, count in units.items()}
        self.taxes.served(job, micro, DAWN + self.now_ns)

    def tick(self, seconds: float = 1, platform_ng: int = 0, hardware_ng: int = 0) -> None:
        self.now_ns += round(seconds * S)
        metered = {"gw": Metered(platform_ng=platform_ng, platform_hardware_ng=hardware_ng)}
        self.metered["platform"] += platform_ng
        self.metered["overhead_hardware"] += hardware_ng
        due = self.taxes.settle(self.now_ns, DAWN + self.now_ns, metered, {"one": 10**9})
        for job_id, owed in due.by_job.items():
            for (_, term), owed_ng in owed.items():
                self.owed[job_id, term] += owed_ng
        for closed in due.closed:
            for job_id in closed.parts:
                for (_, term), owed_ng in closed.owed(job_id).items():
                    self.owed[job_id, term] += owed_ng
        self.state |= json.loads(json.dumps(self.taxes.served_chunks()))

    def restart(self) -> None:
        saved = json.loads(json.dumps([self.taxes.save(), self.taxes.save_retraining()]))
        self.taxes = Taxes(self.products, self.now_ns)
        for job in self.jobs.values():
            self.taxes.enter(job, self.now_ns, first=False)
        self.taxes.restore_served(self.state)
        self.taxes.restore(saved[0], saved[1], self.now_ns)

    def declare(self, *products: Product) -> None:
        self.products = products
        self.taxes.declare(products, self.now_ns)

    def grams(self, term: Term = "platform") -> dict[str, float]:
        return {job_id: ng / G for (job_id, of), ng in self.owed.items() if of == term and ng}

    def booked(self, term: Term) -> tuple[int, int]:
        row = next(row for row in self.taxes.totals() if row.id == "gw")
        return row.billed_ng.get(term, 0), row.untaxed_ng.get(term, 0)

    def waiting(self, term: Term) -> int:
        place = 0 if term == "platform" else 1
        return sum(owed_ng[place] for _, _, _, _, owed_ng, _ in self.state.get("by_units", ()))


def test_overhead_goes_by_the_requests_that_jobs_served() -> None:
    node = Counted(GATEWAY)
    node.enter(ONE, TWO, Job(id="silent", uses=("gw",)))
    node.serve(ONE, request=300, token=5)
    node.serve(TWO, request=100, token=90_000)
    node.tick(platform_ng=40 * G, hardware_ng=4 * G)
    assert node.grams() == {"one": 30, "two": 10}
    assert node.grams("overhead_hardware") == {"one": 3, "two": 1}
    assert node.booked("platform") == (40 * G, 0)


def test_units_are_those_of_the_product_and_weights_multiply() -> None:
    node = Counted(replace(GATEWAY, unit="token", overhead_rate=rate_from_g_per_min(60)))
    heavy = replace(ONE, weight_ppm=3 * MICRO)
    node.enter(heavy, TWO)
    node.serve(heavy, request=1, token=0.25)
    node.serve(TWO, request=1000, token=0.25)
    node.tick(4)
    assert node.grams() == {"one": 3, "two": 1}


def test_what_waits_is_in_neither_and_untaxed_after_a_minute() -> None:
    node = Counted(GATEWAY)
    node.tick(platform_ng=7)  # nobody is there
    assert node.booked("platform") == (0, 7)
    node.enter(ONE)
    node.tick(platform_ng=40)
    node.tick(58)
    assert node.booked("platform") == (0, 7)
    node.tick(2)
    assert node.booked("platform") == (0, 47)
    node.tick(platform_ng=5)
    node.serve(ONE, request=1)
    node.tick(30)
    assert node.booked("platform") == (5, 47)


def test_a_window_waits_for_those_who_told_in_the_one_before() -> None:
    node = Counted(GATEWAY)
    node.enter(ONE, TWO)
    for job in (ONE, TWO):
        node.serve(job, request=1)
    node.tick(platform_ng=2 * G)
    node.serve(ONE, request=3)
    node.tick(platform_ng=2 * G)
    assert node.grams() == {"one": 1, "two": 1}
    node.serve(TWO, request=1)
    node.tick(platform_ng=2 * G)
    assert node.grams() == {"one": 4, "two": 2}
    # One that has ended isn't waited for, and still owes for what it had told.
    node.serve(TWO, request=1)
    node.tick(platform_ng=2 * G)
    node.leave(ONE)
    assert node.taxes.open_retraining(TWO)
    node.tick()
    assert node.grams() == {"one": 4, "two": 4}
    node.serve(TWO, request=1)
    node.leave(TWO)
    assert node.taxes.open_retraining(TWO)
    node.tick(61)
    assert not node.taxes.open_retraining(TWO)


def test_a_restart_loses_neither_what_waits_nor_what_was_told() -> None:
    node = Counted(GATEWAY)
    node.enter(ONE, TWO)
    for job in (ONE, TWO):
        node.serve(job, request=1)
    node.tick(platform_ng=2 * G)
    node.serve(ONE, request=3)
    node.tick(platform_ng=40 * G)
    assert told(node.state) == {"one"}
    node.restart()
    node.serve(TWO, request=1)
    node.tick()
    assert node.grams() == {"one": 31, "two": 11}
    assert node.waiting("platform") == 0
    assert node.state["by_units"]  # who told last is waited for, for a minute
    node.tick(61)
    assert node.state["by_units"] == []
    assert node.taxes.served_chunks() == {}


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_is_set_ends_the_wait(step_s: int) -> None:
    node = Counted(GATEWAY)
    node.enter(ONE)
    node.tick(platform_ng=40)
    node.now_ns += S
    node.taxes.settle(node.now_ns, DAWN + node.now_ns + step_s * S, {})
    assert node.booked("platform") == (0, 40)


TAX_BY: st.SearchStrategy[TaxBy] = st.sampled_from(("weight", "reserved", "units", "units"))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["tick", "tick", "serve", "serve", "enter", "leave", "restart", "declare"]),
        st.integers(0, 3),  # which job
        st.integers(1, 40),  # seconds, or how many units
        st.integers(0, 10**13),
        TAX_BY,
        st.sampled_from(["request", "token"]),
    ),
    max_size=40,
)
NAMES = ("one", "two", "three", "four")


@given(STEPS, st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_billed_untaxed_and_waiting_are_the_overhead_at_every_tick(
    steps: list[tuple[str, int, int, int, TaxBy, str]], rate_g: int
) -> None:
    node = Counted(replace(GATEWAY, overhead_rate=rate_from_g_per_min(rate_g)))
    ends: list[tuple[str, int, int, int, TaxBy, str]] = [
        *(("leave", which, 1, 0, "units", "") for which in range(len(NAMES))),
        ("tick", 0, 61, 0, "units", ""),
        ("tick", 0, 61, 0, "units", ""),
    ]
    for what, which, number, amount_ng, tax_by, unit in [*steps, *ends]:
        job = Job(id=NAMES[which], uses=("gw",), weight_ppm=(which + 1) * MICRO)
        if what == "enter" and job.id not in node.jobs:
            node.enter(job)
        elif what == "leave" and job.id in node.jobs:
            node.leave(job)
        elif what == "serve" and job.id in node.jobs:
            node.serve(job, **{unit: number / 7})
        elif what == "restart":
            node.tick(number)
            node.restart()
        elif what == "declare":
            node.declare(replace(node.products[0], tax_by=tax_by, unit=unit))
        elif what == "tick":
            node.tick(number, amount_ng, amount_ng // 3)
        for term in TERMS:
            billed_ng, untaxed_ng = node.booked(term)
            assert billed_ng == sum(ng for (_, of), ng in node.owed.items() if of == term)
            if what == "tick" and (term == "overhead_hardware" or not rate_g):
                assert billed_ng + untaxed_ng + node.waiting(term) == node.metered[term]
    assert not any(map(node.waiting, TERMS))
    if rate_g:
        # A restart drops what is below a nanogram of a declared rate.
        whole_ng = node.metered["platform"] + rate_g * G * node.now_ns // (60 * S)
        assert 0 <= whole_ng - sum(node.booked("platform")) <= sum(step[0] == "restart" for step in steps) + 1


def test_overhead_goes_by_what_jobs_claim_of_the_cpus_times_their_weight() -> None:
    node = World(Product(id="gw", overhead_rate=rate_from_g_per_min(60), tax_by="reserved"))
    half = node.job("half", uses=("gw",))
    half.reserved = Reservation(cpus_milli=2000)
    used = node.job("used", uses=("gw",), weight_ppm=12 * MICRO)
    node.job("idle", uses=("gw",))
    node.work(used, 2 * S)  # half a CPU in 4 s, an eighth of the four
    node.tick(4)
    assert {key: e.taxes_ng.get(("gw", "platform"), 0) for key, e in node.entries.items()} == {
        "half": G,
        "used": 3 * G,
        "idle": 0,
    }
    # The job that left in the middle claimed half of the CPUs for half of the time; nobody was there afterwards.
    node.end(used)
    node.end(node.entries["idle"])
    node.now_ns += 2 * S
    node.end(half)
    node.tick(2)
    assert half.taxes_ng["gw", "platform"] == G + 2 * G
    row = next(row for row in node.books.taxes.totals() if row.id == "gw")
    assert row.untaxed_ng["platform"] == 2 * G + G  # and the first second of the node, before any job


def test_what_no_payer_claims_is_untaxed() -> None:
    node = World(Product(id="gw", overhead_rate=rate_from_g_per_min(60), tax_by="reserved"))
    idle = node.job("idle", uses=("gw",))
    node.tick(3)
    assert not idle.taxes_ng
    assert next(iter(node.books.taxes.totals())).untaxed_ng == {"platform": 4 * G}


@pytest.mark.parametrize("tax_by", ["reserved", "units"])
def test_the_product_tax_goes_by_weight_whatever_the_platform_goes_by(tax_by: TaxBy) -> None:
    product = Product(id="gw", epc_own_ng=100 * G, lifetime_s=100, scope="node", tax_by=tax_by)
    node = Counted(product)
    node.enter(ONE, TWO)
    node.serve(ONE, request=1)
    node.tick(10)
    assert node.grams("product") == {"one": 5, "two": 5}
