"""Retraining over metered jobs: they weigh in by what they served, once, while they go on, and across restarts."""

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_retraining import DAWN, DAY, MODEL, Days, S

from wattribute.agent.core.model import Job
from wattribute.agent.core.products import MICRO
from wattribute.agent.core.retraining import CHUNK_JOBS, Retraining, served
from wattribute.agent.core.tariff import Metered
from wattribute.agent.core.taxes import Taxes

SERVER = Job(id="server", product_id="m")


def restarted(days: Days, chunks: dict[str, Any], *running: Job) -> Days:
    """Through what is saved, as JSON has it; `chunks` takes what was written down so far."""
    saved = json.loads(json.dumps([days.taxes.save(), days.taxes.save_retraining()]))
    chunks |= json.loads(json.dumps(days.taxes.served_chunks()))
    again = Days(MODEL)
    again.now_ns, again.billed = days.now_ns, days.billed
    again.taxes = Taxes([MODEL], days.now_ns)
    for job in running:
        again.taxes.enter(job, days.now_ns, first=False)
    again.taxes.restore_served(chunks)
    again.taxes.restore(saved[0], saved[1], again.now_ns)
    return again


def served_by(days: Days, job: Job, requests: float, **units: float) -> None:
    counts = {unit: round(count * MICRO) for unit, count in {"request": requests, **units}.items()}
    days.taxes.served(job, counts, DAWN + days.now_ns)


def test_each_unit_weighs_as_one_job_served_and_the_server_goes_on() -> None:
    days = Days(MODEL)
    days.taxes.enter(SERVER, 0, first=True)
    days.run("a", weight=MICRO)
    for _ in range(3):
        served_by(days, SERVER, 3)
        days.tick(1)
    days.tick(21, m=Metered(retraining_ng=1000, retraining_hardware_ng=100))
    assert days.billed == {"a": 110, "server": 990}
    # It ends the day after, in which it served nobody: that day is untaxed.
    days.tick(12, m=Metered(retraining_ng=7))
    days.taxes.leave(SERVER, days.now_ns)
    days.tick(12)
    assert days.untaxed() == {"retraining": 7}


def test_the_products_own_unit_counts_else_requests_by_the_jobs_weight() -> None:
    days = Days(replace(MODEL, unit="token"))
    heavy, other = replace(SERVER, weight_ppm=3 * MICRO), Job(id="other", uses=("m",))
    for job in (heavy, other):
        days.taxes.enter(job, 0, first=True)
    served_by(days, heavy, 1, token=0.5)
    served_by(days, heavy, 1, token=0.5)
    served_by(days, other, 9)
    days.tick(24, m=Metered(retraining_ng=120))
    assert days.billed == {"server": 30, "other": 90}


def test_a_metered_job_that_ends_weighs_in_no_second_time() -> None:
    days = Days(MODEL)
    days.taxes.enter(SERVER, 0, first=True)
    served_by(days, SERVER, 3)
    days.taxes.leave(SERVER, 0)
    days.run("a", weight=MICRO)
    # One whose first report comes after its end weighed in as any job: what it tells takes the place of that.
    late = days.run("late", weight=MICRO)
    days.tick(1)
    served_by(days, late, 4)
    assert days.taxes.open_retraining(SERVER)
    days.tick(23, m=Metered(retraining_ng=80))
    assert days.billed == {"server": 30, "a": 10, "late": 40}
    assert not days.taxes.open_retraining(SERVER)
    # The same id without a meter, another day.
    days.run("server", reopen=True)
    days.tick(24, m=Metered(retraining_ng=5))
    assert days.billed["server"] == 35


def test_a_metered_job_that_a_reboot_ended_weighed_in_by_what_it_served() -> None:
    days = Days(MODEL)
    days.taxes.enter(SERVER, 0, first=True)
    served_by(days, SERVER, 9)
    days.tick(1)
    again = restarted(days, {})
    again.taxes.cut_off(SERVER, DAWN + again.now_ns)
    again.taxes.cut_off(Job(id="a", product_id="m"), DAWN + again.now_ns)
    again.tick(23, m=Metered(retraining_ng=10))
    assert again.billed == {"server": 9, "a": 1}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["serve", "run", "tick", "restart"]),
            st.integers(0, 2),
            st.integers(0, 10**8),
            st.integers(0, 10**6),
        ),
        max_size=30,
    )
)
def test_all_that_retraining_cost_is_billed_by_weight_through_restarts(
    steps: list[tuple[str, int, int, int]],
) -> None:
    days, cost_ng = Days(MODEL), 0
    chunks: dict[str, Any] = {}
    servers = [Job(id=f"server-{number}", product_id="m", weight_ppm=1 + number * 700_000) for number in range(3)]
    weights: dict[str, int] = {}
    for server in servers:
        days.taxes.enter(server, 0, first=True)
    for number, (action, which, micro_units, ng) in enumerate(steps):
        if action == "serve":
            job = servers[which]
            days.taxes.served(job, {"request": micro_units}, DAWN + days.now_ns)
            if weight := job.weight_ppm * micro_units // MICRO:
                weights[job.id] = weights.get(job.id, 0) + weight
        elif action == "run":
            weights[f"job-{number}"] = 1 + micro_units
            days.run(f"job-{number}", weight=1 + micro_units)
        else:
            days.tick(0.5, m=Metered(retraining_ng=ng))
            cost_ng += ng
            if action == "restart":
                days = restarted(days, chunks, *servers)
    days.tick(24)
    assert sum(days.billed.values()) == (cost_ng if weights else 0)
    assert cost_ng == sum(days.billed.values()) + days.untaxed().get("retraining", 0)
    for job_id, weight in weights.items():
        assert abs(days.billed.get(job_id, 0) - cost_ng * weight / sum(weights.values())) <= 1


def test_a_metered_job_is_written_down_by_itself() -> None:
    retraining = Retraining()
    retraining.follow("m")
    for number in range(CHUNK_JOBS - 1):
        retraining.serve("m", f"job-{number}", 1, DAWN)
    retraining.served_chunks()
    retraining.weigh("m", "server", 5, DAWN + S)
    retraining.weigh("m", "server", 0, DAWN + S)
    assert retraining.served_chunks() == {"served:m:1": [DAWN, DAWN + DAY, [["server", 5]], "metered"]}
    retraining.serve("m", "job-255", 1, DAWN)
    retraining.serve("m", "server", 1, DAWN + S)
    (name, (_, _, jobs)) = retraining.served_chunks().popitem()
    assert (name, len(jobs)) == ("served:m:0", CHUNK_JOBS)
    retraining.weigh("m", "job-3", 2, DAWN)  # it ended, and tells only now what it served
    chunks = retraining.served_chunks()
    assert chunks["served:m:2"] == [DAWN, DAWN + DAY, [["job-3", 2]], "metered"]
    assert len(chunks["served:m:0"][2]) == CHUNK_JOBS - 1
    assert served(chunks) == {f"job-{number}" for number in range(CHUNK_JOBS)}
    retraining.weigh("m", "server", 1, DAWN + DAY)
    retraining.close(DAWN + DAY)
    assert sorted(retraining.served_chunks()) == [f"served:m:{number}" for number in range(4)]
