"""Taxes against a model in exact fractions, in which every stretch between two events is split by itself."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattribute.agent.core.model import Job, ProductTotals, Role, Term
from wattribute.agent.core.products import Product
from wattribute.agent.core.tariff import Metered
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.core.units import DAY_S, NS_PER_S, RATE_DENOMINATOR, YEAR_S, ng_from_g, rate_from_g_per_min

S = NS_PER_S
DAWN = 1_700_006_400 * S  # midnight in UTC, when the agent's clock is at 0
G_PER_S = rate_from_g_per_min(60)


class World:
    """Taxes with a clock; what jobs owe is summed, and every tick is checked."""

    def __init__(self, *products: Product) -> None:
        self.taxes = Taxes(products, 0)
        self.now_ns = 0
        self.jobs: dict[str, Job] = {}
        self.owed = Counter[tuple[str, str, Term]]()  # job, product, term -> ng
        self.metered = Counter[tuple[str, Term]]()

    def job(self, job_id: str, *uses: str, **fields: Any) -> Job:
        job = Job(id=job_id, uses=uses, **fields)
        self.jobs[job_id] = job
        self.taxes.enter(job, self.now_ns, first=True)
        return job

    def end(self, job_id: str) -> None:
        self.taxes.leave(self.jobs.pop(job_id), self.now_ns)

    def tick(self, seconds: float = 1.0, **metered: Metered) -> None:
        self.now_ns += round(seconds * S)
        due = self.taxes.settle(self.now_ns, DAWN + self.now_ns, metered)
        for job_id, owed in due.by_job.items():
            for (product_id, term), owed_ng in owed.items():
                assert owed_ng > 0
                self.owed[job_id, product_id, term] += owed_ng
        for closed in due.closed:
            for job_id, (jsc_ng, hardware_ng) in closed.parts.items():
                self.owed[job_id, closed.product_id, "retraining"] += jsc_ng
                self.owed[job_id, closed.product_id, "overhead_hardware"] += hardware_ng
        for product_id, amounts in metered.items():
            self.metered[product_id, "platform"] += amounts.platform_ng
            self.metered[product_id, "overhead_hardware"] += amounts.platform_hardware_ng
        self.check()

    def check(self) -> None:
        """What jobs owe is what was billed, by product and term."""
        owed = Counter[tuple[str, Term]]()
        for (_, product_id, term), owed_ng in self.owed.items():
            owed[product_id, term] += owed_ng
        billed = {(row.id, term): ng for row in self.taxes.totals() for term, ng in row.billed_ng.items()}
        assert {key: ng for key, ng in owed.items() if ng} == billed

    def totals(self, product_id: str) -> ProductTotals:
        return next(row for row in self.taxes.totals() if row.id == product_id)

    def overhead(self, product_id: str, term: Term) -> int:
        totals = self.totals(product_id)
        return totals.billed_ng.get(term, 0) + totals.untaxed_ng.get(term, 0)


METERED = st.builds(
    Metered, platform_ng=st.integers(10**4, 10**13), platform_hardware_ng=st.integers(10**4, 10**13)
) | st.just(Metered())
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "end", "weigh", "tick", "tick", "declare", "fleet"]),
        st.integers(0, 5),  # which job
        st.integers(1, 5 * S),  # time before it
        st.sets(st.sampled_from(["iks", "model", "bare"])),  # what it uses
        st.integers(1, 10**7),  # weight
        METERED,
        METERED,
    ),
    max_size=40,
)
IKS = Product(id="iks", overhead_rate=G_PER_S)
MODEL = Product(id="model", runs_on=("iks",), epc_own_ng=ng_from_g(10**9), lifetime_s=YEAR_S)


@settings(max_examples=60, deadline=None)
@given(
    steps=STEPS,
    rate=st.sampled_from([0, 1, G_PER_S, 10**22 + 7]),
    declared=st.sampled_from([0, 1_000_000, 10**8]),
    fleet=st.booleans(),
)
def test_any_course_of_events_is_billed_to_a_nanogram(
    steps: list[tuple[str, int, int, set[str], int, Metered, Metered]], rate: int, declared: int, fleet: bool
) -> None:
    iks = replace(IKS, overhead_rate=rate, concurrency_ppm=declared, scope="fleet" if fleet else None)
    world = World(iks, MODEL, Product(id="bare"))
    world.tick(0)
    outside: int | None = None if fleet else 0
    window: dict[str, dict[str, Fraction]] = {"iks": {}, "model": {}, "bare": {}}
    due: dict[tuple[str, str, Term], Fraction] = {}
    ends = Counter[str]()
    ticked_ns = 0

    def pass_(passed_ns: int) -> None:
        world.now_ns += passed_ns
        for product_id, shares in window.items():
            paying = {j.id: j.weight_ppm for j in world.jobs.values() if pays(j, product_id)}
            divisor = sum(paying.values())
            if product_id == "iks":
                divisor = 0 if outside is None else max(divisor, declared, outside)
            for job_id, weight in paying.items() if divisor else ():
                shares[job_id] = shares.get(job_id, Fraction(0)) + Fraction(passed_ns * weight, divisor)

    def pays(job: Job, product_id: str) -> bool:
        return product_id in job.uses or (product_id == "iks" and "model" in job.uses)

    for action, which, passed_ns, uses, weight, of_iks, of_bare in [
        *steps,
        ("tick", 0, 1, set(), 1, Metered(), Metered()),
    ]:
        pass_(passed_ns)
        job_id = f"job-{which}"
        if action == "start" and job_id not in world.jobs:
            world.job(job_id, *uses, weight_ppm=weight)
        elif action == "end" and job_id in world.jobs:
            world.end(job_id)
            ends[job_id] += 1
        elif action == "weigh" and job_id in world.jobs:
            world.jobs[job_id] = replace(world.jobs[job_id], weight_ppm=weight)
            world.taxes.enter(world.jobs[job_id], world.now_ns, first=False)
        elif action == "fleet" and fleet:
            outside = None if weight % 3 == 0 else weight
            world.taxes.divisor("iks", outside, world.now_ns)
        elif action == "declare":
            world.taxes.declare(list(world.taxes.products.values())[::-1], world.now_ns)
        elif action == "tick":
            metered = {"iks": of_iks, "bare": of_bare}
            length_ns = world.now_ns - ticked_ns
            ticked_ns = world.now_ns
            for product_id, amounts in metered.items():
                for term, amount_ng in zip(("platform", "overhead_hardware"), amounts[:2], strict=True):
                    for payer, share in window[product_id].items():
                        exact = Fraction(amount_ng) * share / length_ns
                        if product_id == "iks" and term == "platform":
                            exact += Fraction(rate, RATE_DENOMINATOR) * share
                        key: Any = payer, product_id, term
                        due[key] = due.get(key, Fraction(0)) + exact
            for payer, share in window["model"].items():
                key = payer, "model", "product"
                due[key] = due.get(key, Fraction(0)) + Fraction(ng_from_g(10**9), YEAR_S * S) * share
            window = {product_id: {} for product_id in window}
            world.tick(0, **metered)
            for product_id in ("iks", "bare"):
                assert world.overhead(product_id, "overhead_hardware") == world.metered[product_id, "overhead_hardware"]
            assert world.overhead("bare", "platform") == world.metered["bare", "platform"]
            whole = world.metered["iks", "platform"] + Fraction(rate * world.now_ns, RATE_DENOMINATOR)
            assert world.overhead("iks", "platform") <= whole
            if not (declared or fleet):
                assert world.overhead("iks", "platform") == int(whole)
            stock = Fraction(ng_from_g(10**9) * world.now_ns, YEAR_S * S)
            assert world.overhead("model", "product") == int(stock)
    assert {key for key, ng in world.owed.items() if ng >= 2} <= due.keys()
    for key, exact in due.items():
        # One nanogram, for each time that it left; and of a rate what is below one is still to come.
        assert abs(world.owed[key] - exact) < 2 + ends[key[0]], key


def test_fifty_grams_a_minute_over_ten_equal_jobs_are_25_each_in_5_minutes() -> None:
    world = World(Product(id="iks"))
    for number in range(10):
        world.job(f"job-{number}", "iks")
    for _ in range(300):
        world.tick(iks=Metered(platform_ng=ng_from_g(50) // 60))
    assert all(abs(owed_ng - ng_from_g(25)) <= 1 + 10 * 5 for owed_ng in world.owed.values())
    assert len(world.owed) == 10


def test_platform_jobs_hardware_falls_by_the_same_shares() -> None:
    world = World(Product(id="iks"))
    world.job("a", "iks")
    world.job("b", "iks", weight_ppm=3_000_000)
    world.tick(iks=Metered(platform_ng=4000, platform_hardware_ng=400))
    world.end("a")
    world.tick(iks=Metered(platform_ng=1000, platform_hardware_ng=100))
    assert world.owed == {
        ("a", "iks", "platform"): 1000,
        ("b", "iks", "platform"): 4000,
        ("a", "iks", "overhead_hardware"): 100,
        ("b", "iks", "overhead_hardware"): 400,
    }


PARENT = Product(id="parent", overhead_rate=G_PER_S, epc_own_ng=ng_from_g(YEAR_S), lifetime_s=YEAR_S)
CHILD = Product(
    id="child",
    overhead_rate=G_PER_S,
    epc_own_ng=0,
    lifetime_s=YEAR_S,
    parents={"parent": Fraction(1, 2)},
    runs_on=("iks",),
)


@pytest.mark.parametrize(
    ("role", "product_id", "uses", "pays"),
    [
        ("use", "child", (), {"child": "platform product", "iks": "platform"}),
        (
            "use",
            "other",
            ("child", "parent"),
            {"child": "platform product", "parent": "platform product", "iks": "platform"},
        ),
        ("platform", "child", (), {"iks": "platform"}),
        ("retraining", "child", (), {"iks": "platform"}),
        ("creation", "child", (), {"iks": "platform"}),
        ("creation", "child", ("parent",), {"iks": "platform", "parent": "platform"}),  # its EPC comes in by weight
        ("retraining", "child", ("parent",), {"iks": "platform", "parent": "platform product"}),
        ("creation", "parent", ("child",), {"child": "platform product", "iks": "platform"}),
        ("platform", "iks", (), {}),
        ("creation", "iks", ("parent",), {"parent": "platform product"}),  # not a parent of what it makes
        ("platform", "child", ("child",), {"iks": "platform"}),
    ],
)
def test_who_never_pays_whom(role: Role, product_id: str, uses: tuple[str, ...], pays: dict[str, str]) -> None:
    world = World(replace(IKS, id="iks"), PARENT, CHILD)
    world.job("a", *uses, product_id=product_id, role=role)
    world.tick()
    owed: dict[str, set[str]] = {}
    for (_, payee, term), owed_ng in world.owed.items():
        assert owed_ng in (ng_from_g(1), ng_from_g(Fraction(1, 2)))  # type: ignore[arg-type]
        owed.setdefault(payee, set()).add(term)
    assert owed == {payee: set(terms.split()) for payee, terms in pays.items()}


def test_only_payers_are_in_the_weight() -> None:
    world = World(IKS, MODEL)
    world.job("keeper", product_id="iks", role="platform", weight_ppm=9_000_000)
    world.job("a", "model")
    world.tick(10)
    totals = world.totals("iks")
    assert (totals.running_jobs, totals.jobs_total, totals.weight_ppm_ns) == (2, 2, 10 * S * 1_000_000)
    assert world.owed["a", "iks", "platform"] == ng_from_g(10)


def lived(product: Product, *lengths_s: float, every: int = 3) -> World:
    """A product's life in ticks, with a payer in all but every third of them."""
    world = World(product)
    for number, length_s in enumerate(lengths_s):
        if number % every == 1:
            world.job(f"job-{number}", product.id)
        world.tick(length_s)
        if number % every == every - 1:
            world.end(f"job-{number - every + 2}")
    return world


DATED = Product(id="m", epc_own_ng=10**12 + 7, lifetime_s=100, deployed_unix_ns=DAWN + 10 * S)


def test_over_a_whole_life_exactly_the_epc_is_recovered() -> None:
    world = lived(DATED, *[0.7] * 200)
    assert world.overhead("m", "product") == 10**12 + 7
    assert world.totals("m").untaxed_ng["product"] > 0
    world.job("late", "m")
    world.tick(10)
    assert world.overhead("m", "product") == 10**12 + 7


def test_a_life_begins_and_ends_within_a_tick() -> None:
    world = World(DATED)
    world.job("a", "m")
    world.tick(9.5)
    assert not world.owed
    world.tick(1)
    assert world.owed["a", "m", "product"] == (10**12 + 7) * 5 // 1000
    world.tick(99)
    assert world.owed["a", "m", "product"] == (10**12 + 7) * 995 // 1000
    world.tick(1)
    world.tick(1)
    assert world.owed["a", "m", "product"] == 10**12 + 7


@given(
    lengths=st.lists(st.floats(0, 40), max_size=30),
    given_away=st.integers(0, 12),
    concurrency=st.sampled_from([0, 1_000_000, 3_000_000]),
    dated=st.booleans(),
)
def test_no_more_than_its_own_part_is_ever_recovered(
    lengths: list[float], given_away: int, concurrency: int, dated: bool
) -> None:
    product = replace(
        DATED, concurrency_ppm=concurrency, deployed_unix_ns=DAWN if dated else None, lifetime_s=100 if dated else 10**4
    )
    child = Product(id="child", parents={"m": Fraction(given_away, 10)})
    world = World(product, child)
    for number, length_s in enumerate(lengths):
        if number % 3:
            world.job(f"job-{number}", "m", weight_ppm=1 + number * 777_777)
        world.tick(length_s)
        if number % 4 == 0 and world.jobs:
            world.end(next(iter(world.jobs)))
    own_ng = int((10**12 + 7) * max(Fraction(0), 1 - Fraction(given_away, 10)))
    recovered_ng = world.overhead("m", "product")
    assert 0 <= recovered_ng <= own_ng
    if dated and not concurrency:
        assert recovered_ng == own_ng * min(world.now_ns, 100 * S) // (100 * S)


def test_a_clock_that_is_set_bills_no_more_than_the_time_that_passed() -> None:
    taxes = Taxes([replace(DATED, deployed_unix_ns=DAWN)], 0)
    taxes.enter(Job(id="a", uses=("m",)), 0, first=True)

    def tick(at_s: int, unix_s: float) -> int:
        due = taxes.settle(at_s * S, DAWN + round(unix_s * S), {})
        return sum(due.by_job.get("a", {}).values())

    each_ng = 10**10
    assert tick(1, 1) == each_ng
    assert tick(2, 52) == pytest.approx(each_ng, abs=2)  # set forward by 50 s
    assert tick(3, 3) == pytest.approx(each_ng, abs=2)  # and back
    assert tick(4, 3.9) == pytest.approx(each_ng * 0.9, abs=2)  # slewed: what one tick lacks the next one has
    assert tick(5, 5) == pytest.approx(each_ng * 1.1, abs=2)


@pytest.mark.parametrize(("status", "platform_g", "product_g"), [("frozen", 2, 1), ("open", 2, 0), ("retired", 0, 0)])
def test_what_a_products_status_lets_it_bill(status: Any, platform_g: int, product_g: int) -> None:
    world = World(replace(PARENT, status=status))
    world.job("a", "parent")
    world.tick(parent=Metered(platform_ng=ng_from_g(1)))
    assert world.owed["a", "parent", "platform"] == ng_from_g(platform_g)
    assert world.owed["a", "parent", "product"] == ng_from_g(product_g)
    # What was metered is never lost.
    assert world.overhead("parent", "platform") == ng_from_g(platform_g or 1)


def test_a_missing_epc_is_told_of_while_it_is_due() -> None:
    unknown = Product(id="m", lifetime_s=YEAR_S)
    job = Job(id="a", uses=("m",))
    assert Taxes([unknown], 0).missing_epc(job) == ("m",)
    assert Taxes([replace(unknown, status="open")], 0).missing_epc(job) == ()
    assert Taxes([replace(unknown, epc_own_ng=1)], 0).missing_epc(job) == ()


def test_cost_of_a_product_that_nobody_declared_is_untaxed() -> None:
    world = World()
    world.job("a", "tag")
    world.tick(tag=Metered(platform_ng=5, platform_hardware_ng=6))
    assert world.totals("tag").untaxed_ng == {"platform": 5, "overhead_hardware": 6}
    assert not world.owed


def test_a_fleets_divisor_is_never_a_local_count() -> None:
    world = World(replace(IKS, scope="fleet"))
    world.job("a", "iks")
    world.tick(10)
    assert world.totals("iks").untaxed_ng == {"platform": ng_from_g(10)}
    assert not world.owed
    world.taxes.divisor("iks", 4_000_000, world.now_ns)
    world.tick(iks=Metered(platform_ng=8000))
    assert world.owed["a", "iks", "platform"] == ng_from_g(1) // 4 + 2000
    # A declared rate is booked by whose jobs they are, what was metered here only here.
    assert world.totals("iks").untaxed_ng == {"platform": ng_from_g(10) + 6000}
    assert world.taxes.fleet_weights_ppm() == {"iks": 1_000_000}
    world.job("b", "iks", weight_ppm=7_000_000)
    world.tick()
    assert world.owed["b", "iks", "platform"] == ng_from_g(1) * 7 // 8
    world.taxes.divisor("iks", None, world.now_ns)
    before = world.owed.copy()
    world.tick()
    assert world.owed == before
    world.end("a")
    world.end("b")
    assert world.taxes.fleet_weights_ppm() == {}
    world.taxes.divisor("unheard of", 1, world.now_ns)


def test_of_a_fleets_rate_a_node_books_nothing_while_nobody_pays_there() -> None:
    """Each of a thousand nodes would show all of it as untaxed; those with payers book it."""
    world = World(replace(IKS, scope="fleet"))
    world.tick(10, iks=Metered(platform_ng=500))
    assert world.totals("iks").untaxed_ng == {"platform": 500}, "what was metered is known only here"
    world.job("a", "iks")
    world.taxes.divisor("iks", 2_000_000, world.now_ns)
    world.tick(10)
    world.end("a")
    world.tick(10)
    assert world.totals("iks").billed_ng == {"platform": ng_from_g(5)}
    assert world.totals("iks").untaxed_ng == {"platform": 500}


# A registry that changes


def test_a_registered_product_is_billed_from_its_first_job_here_on_and_after_a_restart() -> None:
    world = World()
    world.tick()
    used, unused = replace(IKS, id="used"), replace(IKS, id="unused", retraining_interval_s=60)
    world.taxes.declare([used, unused, replace(IKS, id="named")], world.now_ns)
    world.tick(10)
    assert [(row.id, row.kind, row.untaxed_ng) for row in world.taxes.totals()] == [
        ("used", IKS.kind, {}),
        ("unused", IKS.kind, {}),
        ("named", IKS.kind, {}),
    ]
    world.job("a", "used")
    world.job("b", product_id="named", role="platform")
    world.tick(10)
    world.end("a")
    saved = world.taxes.save()
    assert saved.keys() == {"used", "named", "default"}
    world.taxes = Taxes([], world.now_ns)
    world.taxes.declare([used, unused], world.now_ns)
    world.taxes.restore(saved, None, world.now_ns)
    world.tick(10)
    assert world.totals("used").billed_ng == world.totals("used").untaxed_ng == {"platform": ng_from_g(10)}
    assert world.totals("used").weight_ppm_ns == 10 * S * 1_000_000
    assert world.totals("unused").untaxed_ng == {}
    assert world.totals("named").kind == "undeclared"


def test_running_jobs_go_on_under_changed_products_and_each_moment_keeps_its_price() -> None:
    world = World(IKS)
    world.job("a", "iks", "new")
    world.tick(2)
    world.now_ns += 3 * S
    world.taxes.declare(
        [replace(IKS, overhead_rate=10 * G_PER_S), Product(id="new", overhead_rate=G_PER_S)], world.now_ns
    )
    world.tick(2)
    assert world.owed == {("a", "iks", "platform"): ng_from_g(25), ("a", "new", "platform"): ng_from_g(2)}
    assert [(row.running_jobs, row.jobs_total) for row in world.taxes.totals()] == [(1, 1), (1, 1), (1, 1)]
    world.now_ns += S
    world.taxes.declare([], world.now_ns)
    world.tick(5, iks=Metered(platform_ng=7))
    assert world.owed == {("a", "iks", "platform"): ng_from_g(35), ("a", "new", "platform"): ng_from_g(3)}
    assert world.totals("iks").untaxed_ng == {"platform": 7}
    assert world.totals("iks").kind == "undeclared"
    world.end("a")
    world.tick()
    assert world.totals("iks").running_jobs == 0


def test_those_who_left_before_the_registry_changed_pay_their_part_of_the_tick() -> None:
    world = World(IKS)
    world.tick(0)
    world.job("a", "iks")
    world.now_ns += S
    world.end("a")
    world.job("b", "iks")
    world.now_ns += 3 * S
    world.taxes.declare([replace(IKS, overhead_rate=5 * G_PER_S)], world.now_ns)
    world.tick(0, iks=Metered(platform_ng=400))
    assert world.owed == {("a", "iks", "platform"): ng_from_g(1) + 100, ("b", "iks", "platform"): ng_from_g(3) + 300}


def test_what_the_registry_says_before_the_first_tick_holds_from_the_beginning() -> None:
    """An agent that comes back finds the registry a moment after its own configuration."""
    world = World()
    world.job("a", "iks")
    world.now_ns += 3600 * S
    world.job("b", "iks")
    world.now_ns += 2 * S
    world.taxes.declare([IKS], world.now_ns)
    world.tick(0)
    assert world.owed == {("a", "iks", "platform"): ng_from_g(3601), ("b", "iks", "platform"): ng_from_g(1)}


def test_a_product_is_deployed_while_the_agent_runs() -> None:
    world = World(replace(DATED, status="open", deployed_unix_ns=None))
    world.job("a", "m")
    world.tick(20)
    world.taxes.declare([DATED], world.now_ns)
    world.tick(10)
    assert world.owed["a", "m", "product"] == (10**12 + 7) * 20 // 100 - (10**12 + 7) * 10 // 100
    # Inheriting changes what its own users recover from then on.
    child = Product(id="child", parents={"m": Fraction(1)})
    world.taxes.declare([DATED, child], world.now_ns)
    before = world.owed.copy()
    world.tick(10)
    assert world.owed == before


def test_products_that_inherit_in_a_circle_change_nothing() -> None:
    world = World(IKS)
    world.job("a", "iks")
    world.tick()
    circle = [Product(id=a, parents={b: Fraction(1)}) for a, b in (("x", "y"), ("y", "x"))]
    with pytest.raises(ValueError, match="in a circle"):
        world.taxes.declare(circle, world.now_ns)
    world.tick()
    assert world.owed == {("a", "iks", "platform"): ng_from_g(2)}


def test_a_scope_that_changes_takes_its_divisor_along() -> None:
    world = World(replace(IKS, scope="fleet"))
    world.job("a", "iks")
    world.tick()
    world.taxes.declare([IKS], world.now_ns)
    world.tick()
    assert world.owed == {("a", "iks", "platform"): ng_from_g(1)}
    world.taxes.divisor("iks", 9_000_000, world.now_ns)  # of another scope: not asked for
    world.taxes.declare([replace(IKS, concurrency_ppm=2_000_000)], world.now_ns)
    world.tick()
    assert world.owed == {("a", "iks", "platform"): ng_from_g(1) * 3 // 2}


def test_accounts_and_a_life_go_on_after_a_restart() -> None:
    world = World(DATED, IKS)
    job = world.job("a", "m", "iks")
    world.tick(30.3)
    saved = world.taxes.save()
    again = Taxes([DATED, IKS], world.now_ns)
    again.enter(job, 0, first=False)
    again.restore(saved, world.taxes.save_retraining(), world.now_ns)
    assert [replace(row) for row in again.totals()] == world.taxes.totals()
    now_ns = world.now_ns + 90 * S
    again.settle(now_ns, DAWN + now_ns + 7, {})  # wall time slewed a little meanwhile
    rows = {row.id: row for row in again.totals()}
    assert rows["m"].billed_ng["product"] == 10**12 + 7
    assert rows["iks"].billed_ng["platform"] == ng_from_g(120.3)
    # One saved by an older version knows of no deployment.
    again.restore({"m": saved["m"][:4]}, None, now_ns)


def test_a_day_is_a_days_worth_in_few_ticks_or_many() -> None:
    few, many = World(MODEL), World(MODEL)
    for world, ticks in ((few, 1), (many, 5000)):
        world.job("a", "model")
        for _ in range(ticks):
            world.tick(DAY_S / ticks)
    assert few.owed == many.owed == {("a", "model", "product"): ng_from_g(10**9) // 365}
