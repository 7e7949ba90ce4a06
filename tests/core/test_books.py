"""The books against a node made up of numbers: conservation in every window, and who pays in each."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.node_of_numbers import S, World, uj_of

from wattribute.agent.core.attribution import PPB
from wattribute.agent.core.books import Books
from wattribute.agent.core.claims import Entry
from wattribute.agent.core.hardware import Component, Hardware
from wattribute.agent.core.model import (
    CPU_NS_SLOT,
    SM_NS_SLOT,
    TERM_SLOT,
    Domain,
    Policy,
    Reason,
    energy_slot,
)
from wattribute.agent.core.products import Product
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.core.units import YEAR_S, g_of, ng_from_g, ng_from_kg, rate_from_g_per_min

DRAM = Domain(kind="dram", id="package-0-dram")
GPU = Domain(kind="gpu", id="GPU-1")
HALVES = {"a": PPB // 2, "b": PPB // 2}
POLICIES: list[Policy] = ["reserved", "equal", "usage", "unattributed"]
W = 1_000_000


def test_two_jobs_and_the_rest_share_by_cpu_time() -> None:
    world = World()
    a, b = world.job("a"), world.job("b")
    world.work(a, 2 * S)
    world.work(b, S)
    world.node_ns += S
    world.tick(cpu=40_000_000)
    assert (uj_of(a), uj_of(b)) == (20_000_000, 10_000_000)
    assert world.books.unattributed_uj == {("cpu", "unregistered"): 10_000_000}


def test_idle_falls_to_the_capacity_used_and_the_rest_to_nobody() -> None:
    world = World(idle_w=20)
    a = world.job("a")
    world.work(a, S)
    world.tick(cpu=50_000_000)
    assert a.values[energy_slot("cpu", "direct", "measured")] == 30_000_000
    assert a.values[energy_slot("cpu", "idle", "measured")] == 5_000_000  # one of four CPUs
    assert world.books.unattributed_uj == {("cpu", "unreserved"): 15_000_000}


def test_a_job_that_ends_within_a_window_keeps_what_it_used() -> None:
    world = World()
    a = world.job("a")
    world.tick(0.2, cpu=1_000_000)
    world.work(a, S // 10)
    world.now_ns += S // 10
    world.end(a)
    world.tick(0.7, cpu=8_000_000)
    assert uj_of(a) == 8_000_000
    assert world.books.settled(a)
    assert world.books.forget_settled() == [a]
    world.tick(cpu=5_000_000)
    assert uj_of(a) == 8_000_000


def test_a_late_sensor_is_split_by_what_was_used_over_its_own_window() -> None:
    """DRAM isn't read for two ticks; meanwhile only b works: its late interval still covers a's second too."""
    world = World()
    world.counters[DRAM] = 0
    world.tick()
    a, b = world.job("a"), world.job("b")
    missing = world.counters.pop(DRAM)
    world.work(a, S)
    world.tick(cpu=10_000_000)
    world.work(b, 3 * S)
    world.tick(cpu=30_000_000)
    world.counters[DRAM] = missing
    world.tick(dram=8_000_000)
    assert a.values[energy_slot("dram", "direct", "measured")] == 2_000_000
    assert b.values[energy_slot("dram", "direct", "measured")] == 6_000_000


def test_use_learnt_late_never_makes_a_share_negative() -> None:
    world = World()
    a = world.job("a")
    world.node_ns += S  # a child of a's ran, but isn't known yet
    world.tick(cpu=10_000_000)
    assert uj_of(a) == 0
    a.values[CPU_NS_SLOT] += S  # reaped: now it is, on a node that was otherwise idle
    world.tick(cpu=10_000_000)
    assert uj_of(a) == 10_000_000
    world.node_ns += 2 * S
    world.tick(cpu=20_000_000)
    assert world.books.unattributed_uj["cpu", "unregistered"] == 30_000_000


def test_a_gpu_falls_to_who_used_it_and_idle_to_who_holds_it() -> None:
    world = World(idle_w=100)
    world.counters = {GPU: 0}
    world.tick()
    a, b = world.job("a"), world.job("b")
    world.books.see_gpu("GPU-1", {"a": 600, "b": 200}, 0, HALVES)
    world.tick(gpu=300_000_000)
    assert a.values[energy_slot("gpu", "direct", "measured")] == 150_000_000
    assert a.values[energy_slot("gpu", "idle", "measured")] == 50_000_000
    assert uj_of(b) == 100_000_000
    assert (a.values[SM_NS_SLOT], b.values[SM_NS_SLOT]) == (600, 200)
    # Held and not used: the holder pays for what it keeps awake.
    world.books.see_gpu("GPU-1", {}, 0, {"b": PPB})
    world.end(a)
    world.tick(gpu=150_000_000)
    assert uj_of(a) == 200_000_000
    assert uj_of(b) == 250_000_000


def test_a_gpu_that_strangers_use_is_not_the_jobs() -> None:
    world = World()
    world.counters = {GPU: 0}
    world.tick()
    a = world.job("a")
    world.books.see_gpu("GPU-1", {"a": 100}, 300, {"a": PPB // 2}, PPB // 2)
    world.tick(gpu=40_000_000)
    assert uj_of(a) == 10_000_000
    assert world.books.unattributed_uj["gpu", "unregistered"] == 30_000_000


def test_hardware_of_a_node_held_alone_is_the_papers_figure() -> None:
    """5 minutes alone on 10,000 g over 3 years: 0.031709791983764585 g (printed: 0.031)."""
    world = World(hardware=(Component(ng_from_g(10_000), 3 * YEAR_S),))
    a = world.job("a")
    a.memory_bytes = 2**34
    for _ in range(300):
        world.work(a, 4 * S)
        world.tick(cpu=1)
    assert g_of(a.values[TERM_SLOT["hardware"]]) == pytest.approx(0.031709791983764585, abs=1e-9)


def test_hardware_of_a_gpu_node_falls_by_gpus_held() -> None:
    parts = (Component(ng_from_kg(1), YEAR_S), Component(ng_from_kg(3), YEAR_S, gpu=True))
    world = World(hardware=parts)
    world.counters = {GPU: 0, Domain(kind="gpu", id="GPU-2"): 0}
    a = world.job("a")
    world.books.see_gpu("GPU-1", {}, 0, {"a": PPB})
    world.books.see_gpu("GPU-2", {}, 0, {})
    world.now_ns += YEAR_S * S - S
    world.tick()
    assert a.values[TERM_SLOT["hardware"]] == pytest.approx(ng_from_kg(2), rel=1e-6)


def test_a_declared_platform_is_taxed_over_the_declared_concurrency() -> None:
    platform = Product(id="iks", kind="platform", overhead_rate=rate_from_g_per_min(50), concurrency_ppm=10_000_000)
    world = World(platform)
    a = world.job("a", uses=("iks",))
    for _ in range(300):
        world.tick()
    assert g_of(a.values[TERM_SLOT["platform"]]) == pytest.approx(25, abs=2e-9)
    assert a.taxes_ng["iks", "platform"] == a.values[TERM_SLOT["platform"]]
    (totals,) = [p for p in world.books.taxes.totals() if p.id == "iks"]
    assert totals.billed_ng["platform"] == a.values[TERM_SLOT["platform"]]
    assert not totals.untaxed_ng


def test_overhead_with_nobody_to_pay_is_untaxed() -> None:
    platform = Product(id="iks", overhead_rate=rate_from_g_per_min(60))
    world = World(platform)
    for _ in range(9):
        world.tick()
    a = world.job("a", uses=("iks",))
    for _ in range(10):
        world.tick()
    (totals,) = [p for p in world.books.taxes.totals() if p.id == "iks"]
    assert totals.untaxed_ng["platform"] == ng_from_g(10)
    assert totals.billed_ng["platform"] == a.values[TERM_SLOT["platform"]] == ng_from_g(10)


def test_a_product_is_paid_once_however_it_is_reached_and_never_by_its_own_platform_jobs() -> None:
    base = Product(id="base", overhead_rate=rate_from_g_per_min(60))
    model = Product(id="model", runs_on=("base",))
    world = World(base, model)
    user = world.job("user", product_id="model", uses=("base",))
    keeper = world.job("keeper", product_id="base", role="platform")
    world.tick()
    assert user.values[TERM_SLOT["platform"]] == ng_from_g(1)
    assert keeper.values[TERM_SLOT["platform"]] == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "end", "tick", "skip", "hold", "sleep", "rename"]),
        st.integers(0, 4),
        st.integers(0, 4 * S),
        st.integers(0, 10**9),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(steps=STEPS, idle=st.sampled_from(POLICIES), idle_w=st.none() | st.integers(0, 300), gpu=st.booleans())
def test_any_course_of_events_conserves(
    steps: list[tuple[str, int, int, int]], idle: Policy, idle_w: int | None, gpu: bool
) -> None:
    platform = Product(id="iks", overhead_rate=rate_from_g_per_min(50))
    world = World(platform, idle=idle, idle_w=idle_w, hardware=(Component(ng_from_kg(1200), 4 * YEAR_S),), pue=1.37)
    world.counters[DRAM] = 0
    if gpu:
        world.counters[GPU] = 0
    world.tick()
    for action, which, cpu_ns, uj in steps:
        job_id = f"job-{which}"
        entry = world.entries.get(job_id)
        if action == "start":
            if entry is None:
                world.job(job_id, uses=("iks",))
            elif entry.ended_ns is not None:
                world.books.open(entry, first=False)
        elif entry is not None and entry.ended_ns is None:
            world.work(entry, cpu_ns)
            if action == "end":
                world.end(entry)
            elif action == "rename":
                job = replace(entry.job, product_id="iks" if cpu_ns % 2 else "other", uses=())
                world.books.rename(entry, job, world.now_ns)
            elif action == "hold" and gpu:
                sevenths = cpu_ns % 8 * PPB // 7
                held = {job_id: sevenths, f"job-{uj % 5}": PPB - sevenths if uj % 3 else PPB}
                world.books.see_gpu(
                    "GPU-1", {job_id: cpu_ns} if uj % 2 else {}, cpu_ns // 3, held, uj % 2, sevenths // 2
                )
        if action == "sleep":
            world.sleep(cpu_ns / S)
        world.node_ns += cpu_ns // 3
        if action != "skip":
            world.tick(0.25, cpu=uj, dram=uj // 7, gpu=uj // 3)
            world.books.forget_settled()
    (totals,) = [p for p in world.books.taxes.totals() if p.id == "iks"]
    billed = sum(e.values[TERM_SLOT["platform"]] for e in world.entries.values())
    assert billed == totals.billed_ng.get("platform", 0)
    whole = round(Fraction(rate_from_g_per_min(50) * world.now_ns, 10**18))
    assert abs(billed + totals.untaxed_ng.get("platform", 0) - whole) <= len(world.entries) + 1


def test_a_restart_goes_on_from_the_saved_counters() -> None:
    world = World()
    a = world.job("a")
    world.work(a, S)
    world.tick(cpu=10_000_000)
    saved = world.books.save()
    again = World()
    again.books = Books(world.books.rules, Hardware(()), Taxes((), saved["at_ns"]), saved["at_ns"], world.books.prices)
    again.entries = {"a": a}
    again.books.open(a, first=False)
    again.now_ns, again.node_ns = world.now_ns, world.node_ns + 5 * S
    again.books.restore(saved, same_boot=True, accounts_ns={"node": again.node_ns, "overhead": 7, "agent": 3})
    again.counters = dict(world.counters)
    again.overhead_ns = 7
    a.values[CPU_NS_SLOT] += 4 * S  # while the agent was away
    again.tick(60, cpu=50_000_000)
    assert uj_of(a) == 10_000_000 + 40_000_000
    assert again.books.unattributed_uj["cpu", "unregistered"] == 10_000_000


def test_a_holder_that_used_nothing_keeps_the_gpu_awake_and_pays() -> None:
    """NVML tells holders with 0 ns of SM time: as good as no use told at all."""
    world = World(idle="usage", idle_w=10)
    world.counters[GPU] = 0
    a = world.job("a")
    world.tick()
    world.books.see_gpu("GPU-1", {"a": 0}, 0, {"a": PPB})
    world.tick(gpu=50_000_000)
    assert a.values[energy_slot("gpu", "direct", "measured")] == 40_000_000
    assert a.values[energy_slot("gpu", "idle", "measured")] == 10_000_000


def test_a_sensor_that_is_long_silent_is_not_waited_for() -> None:
    world = World()
    world.counters[DRAM] = 0
    world.tick()
    del world.counters[DRAM]
    for _ in range(5):
        world.tick()
    a = world.job("a")
    world.end(a)
    world.tick()
    assert not world.books.settled(a)
    for _ in range(6):
        world.tick()
    b = world.job("b")
    world.tick()
    world.end(b)
    world.tick()
    assert world.books.settled(b)


def again(world: World, *going_on: Entry) -> World:
    """Another agent's books, which go on from what these saved."""
    saved = json.loads(json.dumps(world.books.save()))
    new = World(idle_w=None)
    new.books = Books(world.books.rules, Hardware(()), Taxes((), saved["at_ns"]), saved["at_ns"], world.books.prices)
    for entry in going_on:
        new.books.open(entry, first=False)
    new.entries = dict(world.entries)
    new.now_ns, new.asleep_ns, new.node_ns = world.now_ns, world.asleep_ns, world.node_ns
    new.counters = dict(world.counters)
    new.books.restore(saved, same_boot=True, accounts_ns={"node": new.node_ns, "overhead": 0, "agent": 0})
    return new


def learnt_uw(world: World) -> int:
    learnt = world.books.idle.of_use["cpu"].idle
    assert learnt is not None
    return learnt.power_uw


def test_idle_power_counts_as_0_until_it_is_learnt_and_is_split_from_then_on() -> None:
    world = World(idle_w=None)
    a = world.job("a")
    for _ in range(9):
        world.tick(cpu=20 * W)
    assert world.books.unattributed_uj.keys() == {("cpu", "unreserved")}  # nothing ran
    world.work(a, 2 * S)
    world.tick(cpu=60 * W)
    assert a.values[energy_slot("cpu", "direct", "measured")] == 60 * W
    world.tick(cpu=20 * W)
    world.work(a, 2 * S)
    world.tick(cpu=60 * W)
    assert learnt_uw(world) == 20 * W
    assert a.values[energy_slot("cpu", "direct", "measured")] == 100 * W
    assert a.values[energy_slot("cpu", "idle", "measured")] == 10 * W  # it used half of the node


def test_learnt_idle_power_is_never_more_than_the_energy_and_survives_a_restart() -> None:
    world = World(idle_w=None)
    a = world.job("a")
    for _ in range(12):
        world.tick(cpu=20 * W)
    world = again(world, a)
    assert learnt_uw(world) == 20 * W
    world.work(a, S)
    world.tick(cpu=5 * W)  # deeper sleep than ever before: all of it is idle
    assert a.values[energy_slot("cpu", "direct", "measured")] == 0
    assert a.values[energy_slot("cpu", "idle", "measured")] == 5 * W // 4


def test_of_what_two_packages_draw_idle_together_one_alone_has_half() -> None:
    """One isn't read for a tick: its energy comes with the next, and each package has its part of the idle power."""
    other = Domain(kind="cpu", id="package-1")
    world = World(idle_w=None)
    world.counters[other] = 0
    world.tick()
    a = world.job("a")
    for _ in range(12):
        world.tick(cpu=20 * W)
    assert learnt_uw(world) == 40 * W
    missing = world.counters.pop(other)
    world.work(a, 4 * S)
    world.tick(cpu=70 * W)
    assert a.values[energy_slot("cpu", "idle", "measured")] == 20 * W
    world.counters[other] = missing + 70 * W
    world.work(a, 4 * S)
    world.tick(cpu=70 * W)
    assert a.values[energy_slot("cpu", "idle", "measured")] == (20 + 20 + 2 * 20) * W
    assert a.values[energy_slot("cpu", "direct", "measured")] == (4 * 50) * W


@pytest.mark.parametrize("idle_w", [20, None])
def test_only_the_time_awake_has_idle_power(idle_w: int | None) -> None:
    world = World(idle_w=idle_w)
    a = world.job("a")
    for _ in range(12):
        world.tick(cpu=20 * W)
    before = uj_of(a)
    world.sleep(3600)
    world.work(a, 4 * S)
    world.tick(cpu=100 * W)
    assert a.values[energy_slot("cpu", "direct", "measured")] == 80 * W
    assert uj_of(a) - before <= 100 * W
    if idle_w is None:
        for _ in range(12):
            world.tick(cpu=20 * W)
        assert learnt_uw(world) == 20 * W


def test_time_asleep_is_over_with_the_window_that_it_was_in_also_after_a_restart() -> None:
    world = World(idle_w=None)
    a = world.job("a")
    world.sleep(100)
    for _ in range(12):
        world.tick(cpu=20 * W)
    world = again(world, a)
    world.work(a, 4 * S)
    world.tick(cpu=60 * W)
    assert a.values[energy_slot("cpu", "direct", "measured")] == 40 * W


def test_a_gpus_idle_power_is_learnt_from_the_time_awake() -> None:
    world = World(idle_w=None)
    world.counters = {GPU: 0}
    world.tick()
    for _ in range(60):
        world.sleep(9)
        world.books.see_gpu("GPU-1", {}, 0, {})
        world.tick(gpu=70 * W)
    learnt = world.books.idle.of_gpus["GPU-1"].idle
    assert learnt is not None
    assert learnt.power_uw == 70 * W
    a = world.job("a")
    world.books.see_gpu("GPU-1", {"a": 100}, 0, {"a": PPB})
    world.sleep(9)
    world.tick(gpu=100 * W)
    assert a.values[energy_slot("gpu", "direct", "measured")] == 30 * W


def cut(world: World) -> tuple[Entry, Entry]:
    """A board of seven slices: a has 3, b has 1, an instance of 2 has no process, 1 was never made an instance."""
    world.counters = {GPU: 0}
    world.tick()
    a, b = world.job("a"), world.job("b")
    world.books.see_gpu("GPU-1", {}, 0, {"a": 3 * PPB // 7, "b": PPB // 7}, 0, PPB // 7)
    world.tick(gpu=70 * W)
    return a, b


@pytest.mark.parametrize(
    ("policy", "a_j", "b_j", "reason"),
    [
        ("reserved", 30, 10, "unreserved"),
        ("equal", 30, 30, "idle"),
        ("usage", 45, 15, "idle"),
        ("unattributed", 0, 0, "idle"),
    ],
)
def test_a_cut_board_is_split_by_slices_and_what_was_never_given_out_is_nobodys(
    policy: Policy, a_j: int, b_j: int, reason: Reason
) -> None:
    world = World(idle=policy, idle_w=70)
    a, b = cut(world)
    before = uj_of(a), uj_of(b), dict(world.books.unattributed_uj)
    world.books.see_gpu("GPU-1", {"a": 300, "b": 100}, 0, {"a": 3 * PPB // 7, "b": PPB // 7}, 0, PPB // 7)
    world.tick(gpu=150 * W)
    direct_j, gained = (60, 20), (uj_of(a) - before[0], uj_of(b) - before[1])
    assert gained == pytest.approx(((direct_j[0] + a_j) * W, (direct_j[1] + b_j) * W), abs=2)
    left = {key: uj - before[2].get(key, 0) for key, uj in world.books.unattributed_uj.items()}
    assert left.pop(("gpu", "unallocated")) == pytest.approx(10 * W, abs=2)
    rest_uj = 70 * W - 10 * W - (a_j + b_j) * W
    assert left.pop(("gpu", reason), 0) == pytest.approx(rest_uj, abs=4)
    assert not any(left.values())


def test_the_making_of_a_cut_board_falls_to_who_holds_its_slices() -> None:
    world = World(hardware=(Component(ng_from_kg(1), YEAR_S), Component(ng_from_kg(6), YEAR_S, gpu=True)))
    a, b = cut(world)
    world.now_ns += YEAR_S * S - 2 * S
    world.books.see_gpu("GPU-1", {}, 0, {"a": 3 * PPB // 7, "b": PPB // 7}, 0, PPB // 7)
    world.tick()
    assert a.values[TERM_SLOT["hardware"]] == pytest.approx(ng_from_kg(3), rel=1e-6)
    assert b.values[TERM_SLOT["hardware"]] == pytest.approx(ng_from_kg(1), rel=1e-6)
    assert world.books.unattributed["unreserved"][TERM_SLOT["hardware"]] == pytest.approx(ng_from_kg(3), rel=1e-6)


def test_an_instance_that_changes_hands_is_shared_by_the_time_that_each_had_it() -> None:
    world = World(idle_w=100)
    world.counters = {GPU: 0}
    world.tick()
    a = world.job("a")
    world.books.see_gpu("GPU-1", {}, 0, {"a": PPB})
    world.tick(gpu=100 * W)
    world.now_ns += S // 4
    world.end(a)
    b = world.job("b")
    world.books.see_gpu("GPU-1", {}, 0, {"b": PPB})
    world.tick(0.75, gpu=100 * W)
    assert (uj_of(a), uj_of(b)) == (125 * W, 75 * W)


def test_a_job_that_turns_out_to_work_for_another_product_pays_that_ones_taxes_from_then_on() -> None:
    model = Product(id="model", runs_on=("iks",))
    world = World(Product(id="iks", overhead_rate=rate_from_g_per_min(60)), model)
    a = world.job("a")
    for _ in range(5):
        world.tick()
    assert a.values[TERM_SLOT["platform"]] == 0
    world.books.rename(a, replace(a.job, product_id="model"), world.now_ns)
    for _ in range(5):
        world.tick()
    world.end(a)
    world.tick()
    assert a.values[TERM_SLOT["platform"]] == ng_from_g(5)
    products = {product.id: product for product in world.books.taxes.totals()}
    assert (products["default"].jobs_total, products["default"].running_jobs) == (1, 0)
    assert (products["model"].jobs_total, products["model"].running_jobs) == (1, 0)
    assert products["default"].weight_ppm_ns == products["model"].weight_ppm_ns == 5 * S * 1_000_000
    assert products["iks"].untaxed_ng["platform"] == ng_from_g(7)


@pytest.mark.parametrize("running", [False, True])
def test_time_from_before_a_job_was_recognised_takes_nobodys_energy(running: bool) -> None:
    """A second cgroup of it had used 10 s before it was known to be the job's."""
    world = World()
    a, b = world.job("a"), world.job("b")
    world.node_ns += 10 * S
    world.tick(cpu=10 * W)
    if not running:
        world.end(a)
        world.tick()
        world.books.forget_settled()
        world.books.open(a, first=False)
    world.books.recognise(a, 10 * S)
    world.work(a, S)
    world.work(b, S)
    world.tick(cpu=20 * W)
    assert a.values[CPU_NS_SLOT] == 11 * S
    assert (uj_of(a), uj_of(b)) == (10 * W, 10 * W)
    assert world.books.unattributed_uj["cpu", "unregistered"] == 10 * W
