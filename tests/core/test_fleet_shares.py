"""A node's parts of a fleet's metered overhead by themselves: who was there, what is sealed, how it is split."""

import json
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core import fleet_parts, fleet_shares
from wattribute.agent.core.fleet_parts import Amounts, Key, Part, Verdict, slices
from wattribute.agent.core.fleet_shares import FleetShares, waiting
from wattribute.agent.core.units import DAY_S, NS_PER_S

S = NS_PER_S
MINUTE = 60 * S
DAWN = 1_700_006_400 * S  # midnight in UTC, when the agent's clock is at 0
PPM = 1_000_000
AMOUNTS = st.builds(
    Amounts,
    jsc_ng=st.integers(0, 10**15),
    hardware_ng=st.integers(0, 10**15),
    weight=st.one_of(st.just(0), st.integers(0, 10**21)),
    serial=st.integers(0, 9),
)
PARTS = st.dictionaries(st.text(max_size=3), AMOUNTS, min_size=1, max_size=8)


@given(parts=PARTS, dice=st.randoms(use_true_random=False))
def test_slices_are_the_whole_and_the_same_for_every_node(parts: dict[str, Amounts], dice: Any) -> None:
    found = slices(parts)
    shuffled = list(parts.items())
    dice.shuffle(shuffled)
    assert slices(dict(shuffled)) == found
    whole = sum(part.weight for part in parts.values())
    for place in (0, 1):
        total_ng = sum(part[place] for part in parts.values())
        assert sum(slice_[place] for slice_ in found.values()) == total_ng
        for node, part in parts.items():
            if whole:
                assert abs(found[node][place] - Fraction(total_ng * part.weight, whole)) < 1
            else:
                assert found[node][place] == part[place]


def test_equal_remainders_go_to_the_smaller_node_id() -> None:
    parts = {node: Amounts(0, 0, 5, 1) for node in "cab"} | {"z": Amounts(4, 5, 0, 1)}
    assert slices(parts) == {"a": (2, 2), "b": (1, 2), "c": (1, 1), "z": (0, 0)}


class World:
    """One node's parts, with a clock; what it is owed and offers can be looked at."""

    def __init__(self, **products: int | None) -> None:
        self.products = products or {"iks": None}
        self.now_ns = 0
        self.offset_ns = DAWN
        self.state: dict[str, Any] = {}
        self.waited: set[str] = set()  # jobs that a reader of the state alone held open at some time
        self.shares = FleetShares()
        self.begin()

    def begin(self) -> None:
        self.shares = FleetShares()
        self.shares.join("a")
        self.shares.declare(self.products, self.now_ns)

    def tick(self, seconds: float, jsc_ng: int = 0, hardware_ng: int = 0, *, product: str = "iks") -> list[Any]:
        passed_ns = round(seconds * S)
        self.now_ns += passed_ns
        unix_ns = self.now_ns + self.offset_ns
        metered = {(product, "platform"): (jsc_ng, hardware_ng)}
        return self.shares.settle(self.now_ns, unix_ns - passed_ns, unix_ns, metered)  # type: ignore[arg-type]

    def enter(self, job_id: str, weight_ppm: int = PPM, product: str = "iks") -> None:
        self.shares.enter(product, job_id, weight_ppm, self.now_ns)

    def leave(self, job_id: str) -> None:
        self.shares.leave("iks", job_id, self.now_ns)

    def restart(self, *went_on: str) -> None:
        self.state |= json.loads(json.dumps(self.shares.chunks()))
        self.waited.update(waiting(self.state))
        assert {job_id for job_id in self.waited if self.shares.open(job_id)} == waiting(self.state)
        saved = json.loads(json.dumps(self.shares.save()))
        self.begin()
        for job_id in went_on:
            self.enter(job_id)
        self.shares.restore_chunks(self.state)
        self.shares.restore(saved)

    def parts(self) -> list[tuple[int, int, int, int]]:
        """(minute, JSC, hardware, weight in units times seconds) of what waits."""
        return [
            ((key.start_unix_ns - DAWN) // MINUTE, amounts.jsc_ng, amounts.hardware_ng, amounts.weight // (PPM * 1000))
            for key, amounts in self.shares.waiting()
        ]

    def close(self, *others: Amounts) -> list[Any]:
        """What it comes to when everything that waits is closed, with others' parts."""
        named = {f"b{number}": other for number, other in enumerate(others)}
        self.shares.hear(Verdict(part.key, {"a": part.amounts, **named}) for part in self.shares.waiting())
        return self.tick(0)


def test_weights_are_the_time_present_and_a_tick_over_a_border_is_spread() -> None:
    world = World()
    world.enter("x")
    world.tick(30, 100)
    world.enter("y", 3 * PPM)
    assert world.tick(10) == []
    world.leave("y")
    world.tick(40, 40, 4)  # half of it after the minute
    assert world.parts() == [(0, 120, 2, 60 + 30)]
    assert world.shares.expected() == {"iks"}
    assert world.shares.open("x")
    assert world.shares.open("y")
    (closed,) = world.close(Amounts(180, 1, 90 * PPM * 1000, 7))
    assert closed[:5] == ("iks", DAWN, DAWN + MINUTE, {"x": (100, 1), "y": (50, 1)}, (0, 0))
    assert closed.owed("x") == {("iks", "platform"): 100, ("iks", "overhead_hardware"): 1}
    assert closed.cause == "fleet_platform"
    assert not world.shares.open("y")
    assert world.parts() == []


def test_without_any_payer_each_keeps_what_it_metered() -> None:
    world = World()
    world.tick(90, 90)
    (closed,) = world.close(Amounts(1000, 0, 0, 1))
    assert (closed.parts, closed.untaxed) == ({}, (60, 0))
    world.tick(60)
    assert world.parts() == [(1, 30, 0, 0)]
    world.close()
    world.tick(600)
    assert world.parts() == []
    assert world.shares.expected() == set()


def test_what_came_too_late_goes_to_the_interval_that_is_open_without_its_weight() -> None:
    world = World()
    world.enter("x")
    world.tick(61, 610)
    world.shares.hear([Verdict(part.key, {"b": Amounts(5, 5, 5, 1)}) for part in world.shares.waiting()])
    assert world.tick(1) == []
    world.tick(60)
    assert world.parts() == [(1, 610, 0, 60)]


def test_an_interval_in_which_nothing_was_metered_is_over_with_nothing() -> None:
    world = World()
    world.enter("x")
    world.tick(30)
    world.leave("x")
    world.tick(31)
    assert world.shares.open("x")
    world.shares.hear([Verdict(part.key, {}) for part in world.shares.waiting()])
    assert world.tick(1) == []
    assert not world.shares.open("x")
    assert world.parts() == []


def test_served_jobs_are_counted_once_per_interval() -> None:
    world = World(m=3600)
    for job_id, weight in (("x", PPM), ("y", PPM), ("x", 3 * PPM)):
        world.shares.serve("m", job_id, weight, DAWN + world.now_ns)
    world.now_ns += 10 * S
    metered = {("m", "retraining"): (800, 8)}
    assert world.shares.settle(world.now_ns, DAWN, DAWN + world.now_ns, metered) == []  # type: ignore[arg-type]
    world.restart()
    world.shares.serve("m", "y", PPM, DAWN + world.now_ns)
    world.tick(3600)
    (part,) = world.shares.waiting()
    assert part == Part(Key("m", "retraining", DAWN, DAWN + 3600 * S), Amounts(800, 8, 4 * PPM, 1))
    (closed,) = world.close(Amounts(0, 0, 4 * PPM, 1))
    assert closed[3:] == ({"x": (300, 3), "y": (100, 1)}, (0, 0), "retraining", "fleet_retraining")
    assert World(m=None).shares._length_ns("m", "retraining") == DAY_S * S


def test_nothing_is_lost_by_restarts_and_who_went_on_goes_on() -> None:
    world = World()
    world.enter("x")
    world.enter("y")
    world.tick(30, 30)
    world.restart("x")  # y ended meanwhile
    world.tick(60, 60)
    assert world.parts() == [(0, 60, 0, 60 + 30)]
    world.restart("x")
    assert world.shares.open("y")
    (closed,) = world.close()
    assert closed.parts == {"x": (40, 0), "y": (20, 0)}
    world.restart("x")
    assert not world.shares.open("y")
    world.tick(60)
    assert world.parts() == [(1, 30, 0, 60)]


def test_a_product_that_is_the_fleets_no_more_has_no_payers() -> None:
    world = World()
    world.enter("x")
    world.tick(30, 30)
    world.products = {}
    world.shares.declare(world.products, world.now_ns)
    world.enter("x")
    world.tick(90)
    assert world.parts() == [(0, 30, 0, 30)]


def test_a_clock_that_jumps_loses_and_doubles_nothing() -> None:
    world = World()
    world.enter("x")
    world.tick(30, 30)
    world.offset_ns -= 1800 * S
    world.tick(20, 30)
    assert world.parts() == [(0, 30, 0, 30)]
    world.close()
    world.tick(1860)
    assert sum(jsc for _, jsc, _, _ in world.parts()) == 30
    again = [part for part in world.shares.waiting() if part.key.start_unix_ns == DAWN]
    assert [part.amounts.serial != 1 for part in again] == [True]
    world.offset_ns += 7200 * S
    world.tick(90, 5)
    world.tick(60)
    assert sum(jsc for _, jsc, _, _ in world.parts()) == 35
    for stay in world.shares._groups["iks", "platform"].stays.values():
        assert stay.until_ms is None or stay.until_ms > stay.since_ms


def test_past_two_days_without_the_archive_the_oldest_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_shares, "MOST_WAITING", 6)
    monkeypatch.setattr(fleet_shares, "MOST_OFFERED", 2)
    world = World()
    world.enter("x")
    offered: list[Part] = []
    for minute in range(20):
        world.tick(60, 1 + minute)
        world.enter(f"y{minute}")
        offered = offered or (world.shares.waiting() if minute == 2 else [])
    assert world.shares.waiting() == offered  # they may be there
    minutes = [part.amounts.jsc_ng for part in _all(world)]
    assert minutes == [1, 2, sum(range(3, 18)), 18, 19, 20]
    world.restart("x")
    assert [part.amounts.jsc_ng for part in _all(world)] == minutes


def _all(world: World) -> list[Part]:
    return list(world.shares._groups["iks", "platform"].sealed.values())


def test_after_an_absence_of_weeks_the_last_days_minutes_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_parts, "MOST_WAITING", 10)
    world = World()
    world.enter("x")
    world.tick(30, 7)
    world.tick(30 * DAY_S, 1100)
    parts = _all(world)
    assert len(parts) == 11
    assert sum(part.amounts.jsc_ng for part in parts) + world.shares._groups["iks", "platform"].jsc_ng == 1107


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["enter", "leave", "tick", "tick", "close", "late", "restart", "jump"]),
            st.integers(0, 4),
            st.integers(0, 10**6),
            st.integers(-300, 600),
        ),
        max_size=60,
    )
)
def test_any_course_gives_away_all_that_was_metered(steps: list[tuple[str, int, int, int]]) -> None:
    world = World()
    metered, got = Counter[int](), Counter[int]()
    present: dict[str, int] = {}

    def take(closings: list[Any]) -> None:
        for closed in closings:
            for part in (*closed.parts.values(), closed.untaxed):
                assert min(part) >= 0
                got.update({0: part[0], 1: part[1]})

    for action, which, amount, seconds in [*steps, ("end", 0, 0, 0)]:
        job_id = f"job-{which}"
        if action == "enter":
            present[job_id] = PPM
            world.enter(job_id)
        elif action == "leave":
            present.pop(job_id, None)
            world.leave(job_id)
        elif action == "tick":
            metered.update({0: amount, 1: which})
            take(world.tick(abs(seconds) / 10, amount, which))
        elif action == "close":
            take(world.close())
        elif action == "late":
            world.shares.hear(Verdict(part.key, {"z": Amounts(1, 1, 1, 1)}) for part in world.shares.waiting())
            take(world.tick(0))
        elif action == "restart":
            take(world.tick(0))
            world.restart(*present)
        elif action == "jump":
            world.offset_ns += seconds * S
        for part in world.shares.waiting():
            weights = world.shares._groups["iks", "platform"].weights("platform", *part.key[2:])
            assert part.amounts.weight >= 0
            assert bool(weights) >= bool(part.amounts.weight)
    for job_id in present:
        world.leave(job_id)
    for _ in range(300):
        take(world.tick(120))
        take(world.close())
        if not world.shares.expected():
            break
    assert got == metered
    assert not any(world.shares.open(f"job-{which}") for which in range(5))
