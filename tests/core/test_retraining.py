"""Retraining intervals by themselves: whom they bill, to a nanogram, and how they survive a restart."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.model import Job, Role, Term
from wattribute.agent.core.products import Product
from wattribute.agent.core.retraining import CHUNK_JOBS, Retraining
from wattribute.agent.core.tariff import Metered
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.core.units import DAY_S, NS_PER_S

S = NS_PER_S
DAY = DAY_S * S
DAWN = 1_700_006_400 * S  # midnight in UTC
MODEL = Product(id="m", retraining_interval_s=DAY_S, runs_on=("iks",))
IKS = Product(id="iks")


def test_cost_falls_to_the_jobs_served_by_weight_and_largest_remainder() -> None:
    retraining = Retraining()
    retraining.follow("m")
    for job_id, weight in (("a", 1), ("b", 2), ("c", 4)):
        retraining.serve("m", job_id, weight, DAWN + S)
    retraining.add("m", 100, 10, DAWN, DAWN + 2 * S)
    assert retraining.close(DAWN + DAY - 1) == []
    (closed,) = retraining.close(DAWN + DAY)
    assert closed[:5] == ("m", DAWN, DAWN + DAY, {"a": (14, 1), "b": (29, 3), "c": (57, 6)}, (0, 0))
    assert retraining.close(DAWN + 3 * DAY) == []


def test_an_interval_that_served_nobody_is_untaxed() -> None:
    retraining = Retraining()
    retraining.add("m", 100, 10, DAWN, DAWN + S)
    (closed,) = retraining.close(DAWN + DAY)
    assert (closed.parts, closed.untaxed) == ({}, (100, 10))


def test_who_ends_twice_counts_once_as_the_last_time() -> None:
    retraining = Retraining()
    retraining.follow("m", 60)
    for weight in (1, 1, 3):
        retraining.serve("m", "a", weight, DAWN)
    retraining.serve("m", "b", 1, DAWN)
    retraining.add("m", 100, 0, DAWN, DAWN + S)
    (closed,) = retraining.close(DAWN + 60 * S)
    assert closed.parts == {"a": (75, 0), "b": (25, 0)}


def test_who_is_told_late_counts_in_the_interval_that_goes_on() -> None:
    retraining = Retraining()
    retraining.follow("m")
    retraining.close(DAWN)
    retraining.serve("m", "a", 1, DAWN - 5 * S)
    retraining.add("m", 7, 0, DAWN - 5 * S, DAWN - S)
    assert retraining.close(DAWN) == []
    (closed,) = retraining.close(DAWN + DAY)
    assert (closed.start_unix_ns, closed.parts) == (DAWN, {"a": (7, 0)})


def test_what_spans_intervals_is_spread_over_them() -> None:
    """Three and a half days without an agent: those between served nobody."""
    retraining = Retraining()
    retraining.follow("m")
    retraining.serve("m", "a", 1, DAWN + DAY // 2)
    retraining.serve("m", "b", 1, DAWN + 4 * DAY)
    retraining.add("m", 700, 70, DAWN + DAY // 2, DAWN + 4 * DAY)
    closed = retraining.close(DAWN + 4 * DAY)
    assert {(c.start_unix_ns, tuple(c.parts.items()), c.untaxed) for c in closed} == {
        (DAWN, (("a", (100, 10)),), (0, 0)),
        (DAWN + 3 * DAY, (), (200, 20)),
        (DAWN + 4 * DAY, (), (400, 40)),  # the two between
    }
    assert retraining.open("b")
    assert not retraining.open("a")


def test_an_interval_that_is_open_keeps_its_length() -> None:
    retraining = Retraining()
    retraining.follow("m", DAY_S)
    retraining.serve("m", "a", 1, DAWN + S)
    retraining.follow("m", 3600)
    retraining.serve("m", "b", 1, DAWN + 5 * 3600 * S)
    retraining.add("m", 10, 0, DAWN, DAWN + 5 * 3600 * S)
    assert retraining.close(DAWN + 6 * 3600 * S) == []
    (closed,) = retraining.close(DAWN + DAY)
    assert closed.parts == {"a": (5, 0), "b": (5, 0)}
    retraining.add("m", 10, 0, DAWN + DAY, DAWN + DAY + S)
    (closed,) = retraining.close(DAWN + DAY + 3600 * S)
    assert (closed.start_unix_ns, closed.end_unix_ns) == (DAWN + DAY, DAWN + DAY + 3600 * S)


def test_a_clock_set_back_leaves_nothing_open_in_the_future() -> None:
    retraining = Retraining()
    retraining.follow("m")
    retraining.close(DAWN + 900 * DAY)  # the clock was wrong
    retraining.serve("m", "a", 1, DAWN + 900 * DAY)
    retraining.add("m", 10, 0, DAWN + 900 * DAY, DAWN + 900 * DAY + S)
    (closed,) = retraining.close(DAWN)
    assert closed.parts == {"a": (10, 0)}
    retraining.add("m", 5, 0, DAWN, DAWN + S)
    (closed,) = retraining.close(DAWN + DAY)
    assert closed.start_unix_ns == DAWN


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["serve", "add", "close", "restart"]),
            st.sampled_from(["m", "n"]),
            st.integers(0, 9),
            st.integers(1, 10**7),
            st.integers(0, 3 * DAY),
        ),
        max_size=60,
    )
)
def test_any_course_bills_all_that_it_cost_to_those_served(steps: list[tuple[str, str, int, int, int]]) -> None:
    retraining = Retraining()
    state: dict[str, Any] = {}
    cost, got = {"m": [0, 0], "n": [0, 0]}, {"m": [0, 0], "n": [0, 0]}
    served: set[tuple[str, str]] = set()
    now_ns = DAWN
    for product_id in cost:
        retraining.follow(product_id)
    for action, product_id, which, amount_ng, passed_ns in [*steps, ("close", "m", 0, 1, 2 * DAY)]:
        began_ns, now_ns = now_ns, now_ns + passed_ns
        if action == "serve":
            retraining.serve(product_id, f"job-{which}", amount_ng, now_ns)
            served.add((product_id, f"job-{which}"))
            assert retraining.open(f"job-{which}")
        elif action == "add":
            retraining.add(product_id, amount_ng, which, began_ns, now_ns)
            cost[product_id] = [cost[product_id][0] + amount_ng, cost[product_id][1] + which]
        elif action == "close":
            for closed in retraining.close(now_ns):
                sums = got[closed.product_id]
                for jsc_ng, hardware_ng in (*closed.parts.values(), closed.untaxed):
                    assert min(jsc_ng, hardware_ng) >= 0
                    sums[0] += jsc_ng
                    sums[1] += hardware_ng
                assert {(closed.product_id, job_id) for job_id in closed.parts} <= served
        if action == "restart":
            state |= json.loads(json.dumps(retraining.served_chunks()))
            saved = json.loads(json.dumps(retraining.save()))
            again = Retraining()
            again.restore(saved)
            again.restore_served({**state, "books": {"not": "ours"}})
            assert again.save() == saved
            assert again.served_chunks() == {}
            retraining = again
    assert got == cost


def test_only_the_chunk_that_changed_is_written_again() -> None:
    retraining = Retraining()
    retraining.follow("a:b")
    for number in range(3 * CHUNK_JOBS):
        retraining.serve("a:b", f"job-{number}", 1, DAWN)
    assert sorted(retraining.served_chunks()) == ["served:a:b:0", "served:a:b:1", "served:a:b:2"]
    retraining.serve("a:b", "one more", 5, DAWN)
    assert retraining.served_chunks() == {"served:a:b:3": [DAWN, DAWN + DAY, [["one more", 5]]]}
    retraining.serve("a:b", "job-300", 2, DAWN)
    (name, (_, _, jobs)) = retraining.served_chunks().popitem()
    assert (name, len(jobs), ["job-300", 2] in jobs) == ("served:a:b:1", CHUNK_JOBS, True)
    retraining.serve("a:b", "job-300", 2, DAWN)
    assert retraining.served_chunks() == {}
    # The next day's take the same names.
    retraining.serve("a:b", "next", 1, DAWN + DAY)
    assert list(retraining.served_chunks()) == ["served:a:b:4"]
    retraining.close(DAWN + DAY)
    assert retraining.served_chunks() == {f"served:a:b:{number}": [] for number in range(4)}
    retraining.serve("a:b", "job-0", 1, DAWN + DAY)
    assert list(retraining.served_chunks()) == ["served:a:b:4"]


# With taxes


class Days:
    """Taxes over days, in ticks of an hour."""

    def __init__(self, *products: Product) -> None:
        self.taxes = Taxes(products, 0)
        self.now_ns = 0
        self.billed: dict[str, int] = {}

    def run(self, job_id: str, role: Role = "use", product_id: str = "m", weight: int = 1, reopen: bool = False) -> Job:
        job = Job(id=job_id, product_id=product_id, role=role, weight_ppm=weight)
        self.taxes.enter(job, self.now_ns, first=not reopen)
        self.taxes.leave(job, self.now_ns)
        return job

    def tick(self, hours: float = 1, **metered: Metered) -> None:
        self.now_ns += round(hours * 3600 * S)
        for closed in self.taxes.settle(self.now_ns, DAWN + self.now_ns, metered).closed:
            for job_id, (jsc_ng, hardware_ng) in closed.parts.items():
                self.billed[job_id] = self.billed.get(job_id, 0) + jsc_ng + hardware_ng

    def untaxed(self, product_id: str = "m") -> dict[Term, int]:
        return next(dict(row.untaxed_ng) for row in self.taxes.totals() if row.id == product_id)


def test_a_day_of_retraining_reaches_the_jobs_that_ended_in_it_and_none_that_doesnt_pay() -> None:
    days = Days(MODEL, IKS)
    a = days.run("a")
    roles: tuple[Role, ...] = ("platform", "retraining", "creation")
    for role in roles:
        days.run(role, role)
    days.run("b", weight=2)
    days.run("b", weight=3, reopen=True)
    days.run("user", product_id="iks")  # of what the model runs on, not of the model
    running = Job(id="running", product_id="m")
    days.taxes.enter(running, 0, first=True)
    assert days.taxes.open_retraining(a)
    assert not days.taxes.open_retraining(Job(id="user", product_id="iks"))
    days.tick(23, m=Metered(retraining_ng=600, retraining_hardware_ng=200))
    assert days.taxes.open_retraining(a)
    assert days.billed == {}
    days.tick(1)
    assert days.billed == {"a": 200, "b": 600}
    assert not days.taxes.open_retraining(a)
    (model,) = (row for row in days.taxes.totals() if row.id == "m")
    assert (model.billed_ng, model.untaxed_ng) == ({"retraining": 600, "overhead_hardware": 200}, {})
    days.tick(24, m=Metered(retraining_ng=5))
    days.taxes.leave(running, days.now_ns)
    days.tick(24)
    assert days.untaxed() == {"retraining": 5}


def test_who_is_served_is_kept_only_where_retraining_is_heard_of() -> None:
    days = Days(Product(id="m"))
    early = days.run("early")
    days.tick()
    assert not days.taxes.open_retraining(early)
    assert days.taxes.served_chunks() == {}
    days.run("trainer", "retraining")
    late = days.run("late")
    days.tick(1, m=Metered(retraining_ng=9))
    assert days.taxes.open_retraining(late)
    days.tick(30)
    assert days.billed == {"late": 9}


@pytest.mark.parametrize("product", [Product(id="m", status="retired", retraining_interval_s=3600), None])
def test_nobody_is_billed_by_a_retired_product_or_one_that_nobody_declared(product: Product | None) -> None:
    days = Days(*([] if product is None else [product]))
    days.run("a")
    days.tick(1, m=Metered(retraining_ng=9, retraining_hardware_ng=1))
    days.tick(48)
    assert (days.billed, days.untaxed()) == ({}, {"retraining": 9, "overhead_hardware": 1})


def test_a_fleets_retraining_is_untaxed_here() -> None:
    """Whom the others served isn't known on one node: the whole on those served here would be too much."""
    days = Days(Product(id="m", scope="fleet", retraining_interval_s=3600))
    job = days.run("a")
    days.taxes.divisor("m", 5, 0)
    assert not days.taxes.open_retraining(job)
    days.tick(1, m=Metered(retraining_ng=9))
    days.tick(1)
    assert (days.billed, days.untaxed()) == ({}, {"retraining": 9})


def test_a_restart_in_mid_interval_forgets_nobody() -> None:
    days = Days(MODEL)
    days.run("a")
    days.tick(5, m=Metered(retraining_ng=600))
    state = json.loads(json.dumps(days.taxes.served_chunks()))
    saved = json.loads(json.dumps([days.taxes.save(), days.taxes.save_retraining()]))
    again = Days(MODEL)
    again.taxes = Taxes([MODEL], days.now_ns)
    again.now_ns = days.now_ns
    again.taxes.restore(saved[0], saved[1], again.now_ns)
    again.taxes.restore_served(state)
    assert again.taxes.open_retraining(Job(id="a", product_id="m"))
    again.run("b", weight=5)
    # It ends while the agent is away once more; what was used meanwhile is spread.
    again.tick(72 - 5, m=Metered(retraining_ng=67_000))
    assert again.billed == {"a": (600 + 19_000) // 6 + 1, "b": (600 + 19_000) * 5 // 6}
    assert again.untaxed() == {"retraining": 48_000}


def test_an_interval_changed_in_the_registry_holds_from_the_next_one_on() -> None:
    days = Days(MODEL)
    days.run("a")
    days.tick(2)
    days.taxes.declare([Product(id="m", retraining_interval_s=3600)], days.now_ns)
    days.run("b")
    days.tick(1, m=Metered(retraining_ng=10))
    days.tick(20)
    assert days.billed == {}
    days.tick(1)
    assert days.billed == {"a": 5, "b": 5}
    days.run("c")
    days.tick(0.5, m=Metered(retraining_ng=10))
    days.tick(0.5)
    assert days.billed == {"a": 5, "b": 5, "c": 10}
