"""The rest of a node made up of numbers: exact over any run, never negative, and paid as what is beside it."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.node_of_numbers import PACKAGE, S, World, uj_of

from wattribute.agent.core.books import Books
from wattribute.agent.core.hardware import Hardware
from wattribute.agent.core.model import Domain, EnergyReading, PowerReading, energy_slot
from wattribute.agent.core.rest import DISAGREE_NS, Rest
from wattribute.agent.core.uncertainty import by_quality

METER = Domain(kind="psys", id="psys")
REST = Domain(kind="rest", id="psys")
GPU = Domain(kind="gpu", id="GPU-1")
J = 1_000_000


class WallWorld(World):
    """A node with a wall meter that counts energy."""

    def __init__(self, **fields: object) -> None:
        self.meter_uj = 0
        super().__init__(rest=Rest(domain=REST, wall=METER), **fields)  # type: ignore[arg-type]
        self.read_wall()
        self.tick(0)

    @property
    def rest_uj(self) -> int:
        return sum(uj for (kind, _, _), uj in self.books.node_energy_uj.items() if kind == "rest")

    def read_wall(self, after_s: float = 0.0, **fields: object) -> None:
        at_ns = self.now_ns + round(after_s * S)
        self.wall = [EnergyReading(domain=METER, at_ns=at_ns, energy_uj=self.meter_uj, **fields)]  # type: ignore[arg-type]

    def second(self, wall_j: int, cpu_j: int) -> None:
        self.meter_uj += wall_j * J
        self.read_wall(1.0)
        self.tick(cpu=cpu_j * J)


steps = st.tuples(
    st.integers(1, 60_000),  # milliseconds
    st.integers(0, 500 * J),  # of the package
    st.integers(0, 300 * J),  # of the GPU
    st.integers(-100 * J, 300 * J),  # of what is beside them, and of the sensors' errors
    st.booleans(),  # is the wall read?
    st.booleans(),  # is the GPU read?
    st.integers(0, 3),  # which job works
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=14), st.sampled_from(["reserved", "equal", "usage", "unattributed"]))
def test_the_wall_is_parts_and_rest_over_any_run(
    run: list[tuple[int, int, int, int, bool, bool, int]], idle: str
) -> None:
    """Whatever is late, and however far the sensors are off at times: not a microjoule more or less."""
    world = WallWorld(idle=idle, idle_w=20)
    world.counters[GPU] = gpu_uj = 0
    world.tick(0)
    world.read_wall()  # the window that a part appeared in isn't known
    world.tick(0.2)
    jobs = [world.job("a"), world.job("b")]
    begun_uj = world.rest_uj
    seen = [world.meter_uj, world.counters[PACKAGE], gpu_uj]
    for ms, cpu_uj, gpu_used_uj, beside_uj, wall_read, gpu_read, worker in [*run, (1000, 0, 0, 10**12, True, True, 3)]:
        gpu_uj += gpu_used_uj
        world.meter_uj += max(0, cpu_uj + gpu_used_uj + beside_uj)
        if worker < 2:
            world.work(jobs[worker], ms * 1_000_000)
        if gpu_read:
            world.counters[GPU] = gpu_uj
        else:
            world.counters.pop(GPU)
        if wall_read:
            world.read_wall(ms / 1000)
        before_uj = world.rest_uj
        world.tick(ms / 1000, cpu=cpu_uj)
        world.counters[GPU] = gpu_uj
        assert world.rest_uj >= before_uj
    whole = [now - then for now, then in zip([world.meter_uj, world.counters[PACKAGE], gpu_uj], seen, strict=True)]
    rest = world.books.rest
    assert rest is not None
    assert whole[0] == whole[1] + whole[2] + world.rest_uj - begun_uj - rest.disagreed_uj


def test_rest_is_paid_as_the_energy_beside_it() -> None:
    world = WallWorld(idle_w=20)
    a = world.job("a")
    world.work(a, S)
    world.second(wall_j=100, cpu_j=50)  # 30 J active; of 20 J idle a used one CPU of four
    assert a.values[energy_slot("rest", "direct", "measured")] == 30 * J
    assert a.values[energy_slot("rest", "idle", "measured")] == 5 * J
    assert world.books.unattributed_uj["rest", "unreserved"] == 15 * J


def test_a_slow_meter_bills_its_whole_window_by_what_was_used_in_it() -> None:
    world = WallWorld()
    a, b = world.job("a"), world.job("b")
    for job, cpu_j in ((a, 10), (b, 30), (b, 20)):
        world.work(job, S)
        world.tick(cpu=cpu_j * J)
    world.meter_uj += 120 * J
    world.read_wall()
    world.tick(0)
    assert (uj_of(a), uj_of(b)) == (20 * J, 100 * J)


def test_a_reading_that_came_late_is_billed_by_what_was_used_until_it_was_made() -> None:
    world = WallWorld()
    a, b = world.job("a"), world.job("b")
    for job, reads in ((a, False), (b, True)):
        if reads:
            world.meter_uj += 120 * J
            world.read_wall(0.01)  # asked at the tick before, and taken with this one
        world.work(job, S)
        world.tick(cpu=50 * J)
    assert (world.rest_uj, uj_of(b)) == (int(69.5 * J), 50 * J)
    world.meter_uj += 100 * J
    world.read_wall()
    world.tick(0)
    assert uj_of(a) == int(119.5 * J)


def test_a_reading_between_two_ticks_takes_the_part_of_that_time() -> None:
    world = WallWorld()
    world.meter_uj += 40 * J
    world.read_wall(0.5)
    world.tick(cpu=60 * J)
    assert world.rest_uj == 10 * J
    world.meter_uj += 100 * J
    world.read_wall(1.0)
    world.tick(cpu=10 * J)
    assert world.rest_uj == 10 * J + (140 - 70 - 10) * J


def test_what_a_meter_counts_too_late_comes_off_what_it_counts_next() -> None:
    world = WallWorld()
    world.second(wall_j=0, cpu_j=50)
    assert world.rest_uj == 0
    world.second(wall_j=130, cpu_j=50)
    assert world.rest_uj == 30 * J
    assert world.books.rest is not None
    assert world.books.rest.notes() == []


def test_sensors_that_contradict_each_other_for_long_are_a_gap_and_a_note() -> None:
    world = WallWorld()
    for _ in range(DISAGREE_NS // (60 * S)):
        world.meter_uj += 40 * J
        world.read_wall(60.0)
        world.tick(60, cpu=50 * J)
    assert world.rest_uj == 0
    assert world.books.rest is not None
    assert world.books.rest.disagreed_uj == 15 * 10 * J
    assert world.books.rest.notes()[0].startswith("cpu, dram and gpu counted 150 J more than the wall meter saw (psys)")
    world.second(wall_j=60, cpu_j=50)  # which begins anew
    assert world.rest_uj == 10 * J


def test_a_lost_wall_is_a_gap_and_not_zero() -> None:
    world = WallWorld()
    world.second(100, 50)
    world.meter_uj = 5 * J  # it started over
    world.read_wall(1.0)
    world.tick(cpu=50 * J)
    assert world.rest_uj == 50 * J
    world.second(wall_j=70, cpu_j=50)
    assert world.rest_uj == 70 * J


def test_no_rest_is_booked_while_a_part_is_lost() -> None:
    """Its energy is in what the wall saw: booked, it would be called rest."""
    world = WallWorld()
    world.counters[GPU] = 0
    world.second(100, 50)
    world.second(100, 50)
    assert world.rest_uj == 50 * J
    gpu_uj = world.counters.pop(GPU)
    for _ in range(3):
        world.second(400, 50)
    assert world.rest_uj == 50 * J
    world.counters[GPU] = gpu_uj + 600 * J  # its counter went on: all of it is known after all
    world.second(400, 50)
    assert world.rest_uj == 50 * J + (4 * 350 - 600) * J


def test_a_modelled_part_makes_the_rest_modelled_and_power_makes_it_integrated() -> None:
    world = WallWorld()
    memory = Domain(kind="dram", id="dram-modelled")
    for seconds in (0, 1, 1):
        world.meter_uj += 100 * seconds * J
        world.read_wall(seconds)
        at_ns = world.now_ns + seconds * S
        world.wall.append(EnergyReading(domain=memory, at_ns=at_ns, energy_uj=10 * at_ns // 1000, quality="modelled"))
        world.tick(seconds, cpu=50 * seconds * J)
    assert world.books.node_energy_uj["rest", "psys", "modelled"] == 2 * (100 - 50 - 10) * J
    meter = Domain(kind="psys", id="redfish")
    slow = World(rest=Rest(domain=Domain(kind="rest", id="redfish"), wall=meter))
    for seconds in (0, 10, 10, 40):
        at_ns = slow.now_ns + seconds * S
        slow.wall = [PowerReading(domain=meter, at_ns=at_ns, power_uw=100 * J, bridge_ns=30 * S)]
        slow.tick(seconds, cpu=5 * seconds * J)
    of_rest = {key: uj for key, uj in slow.books.node_energy_uj.items() if key[0] == "rest"}
    assert of_rest == {("rest", "redfish", "integrated"): 1900 * J}  # nothing of the 40 s that weren't read


def test_a_job_that_has_settled_is_billed_no_more() -> None:
    world = WallWorld()
    a = world.job("a")
    world.work(a, S)
    world.tick(cpu=50 * J)
    world.end(a)
    world.tick(11)
    assert world.books.forget_settled() == [a]
    world.meter_uj += 100 * J
    world.read_wall()
    world.tick(0)
    assert world.rest_uj == 50 * J
    assert world.books.unattributed_uj["rest", "unregistered"] == 50 * J


def test_a_part_that_is_always_late_holds_up_no_rest_for_good() -> None:
    """A GPU whose answer takes longer than a tick waits: each comes with the next tick, and the wall is ahead of it."""
    world = WallWorld()
    world.wall = [EnergyReading(domain=GPU, at_ns=world.now_ns, energy_uj=0)]
    world.tick(0)
    late: list[EnergyReading] = []
    for second in range(40):
        world.meter_uj += 100 * J
        at_ns = world.now_ns + S
        world.wall = [EnergyReading(domain=METER, at_ns=at_ns, energy_uj=world.meter_uj), *late]
        energy_uj = (second + 1) * 20 * J + 4 * J
        late = [EnergyReading(domain=GPU, at_ns=at_ns + S // 5, energy_uj=energy_uj)] if second % 2 else []
        world.tick(cpu=50 * J)
    assert 37 * 30 * J <= world.rest_uj <= 39 * 30 * J
    assert world.rest_uj % (30 * J) == 0


def restarted(world: World) -> WallWorld:
    """An agent with a wall meter goes on from what another had kept."""
    after = WallWorld()
    rest = Rest(domain=REST, wall=METER)
    old = after.books
    after.books = Books(old.rules, Hardware(()), old.taxes, 0, old.prices, rest)
    saved = json.loads(json.dumps(world.books.save()))
    after.books.restore(saved, same_boot=True, accounts_ns={"node": 0, "overhead": 0, "agent": 0})
    after.now_ns, after.counters = world.now_ns, dict(world.counters)
    return after


def test_a_sensor_that_is_gone_after_a_restart_isnt_waited_for() -> None:
    world = WallWorld()
    world.counters[GPU] = 0
    for _ in range(3):
        world.second(100, 50)
    after = restarted(world)
    after.meter_uj = world.meter_uj
    before_uj = after.rest_uj
    del after.counters[GPU]
    for second in range(70):
        after.second(100, 50)
        assert second > 60 or after.rest_uj == before_uj
    assert 5 * 50 * J <= after.rest_uj - before_uj <= 10 * 50 * J


def test_a_meter_that_is_new_after_a_restart_takes_nothing_off_for_before() -> None:
    world = World()
    world.counters[GPU] = 0
    world.tick()
    world.tick(5, cpu=50 * J, gpu=200 * J)
    after = restarted(world)
    after.read_wall(60.0)
    reading = EnergyReading(domain=GPU, at_ns=after.now_ns + 60 * S, energy_uj=after.counters.pop(GPU) + 12_000 * J)
    after.wall.append(reading)  # read after the wall
    after.tick(60, cpu=3000 * J)
    after.counters[GPU] = reading.energy_uj
    after.second(300, 50)
    assert after.rest_uj == 250 * J


def test_a_window_goes_on_over_a_restart() -> None:
    world = WallWorld()
    world.second(100, 50)
    world.tick(cpu=20 * J)  # which the wall hasn't been read since
    saved = json.loads(json.dumps(world.books.save()))
    after = restarted(world)
    after.meter_uj = world.meter_uj
    after.second(wall_j=100, cpu_j=30)
    assert after.rest_uj == 100 * J
    booted = WallWorld()
    booted.books.restore(saved, same_boot=False, accounts_ns={"node": 0, "overhead": 0, "agent": 0})
    assert booted.rest_uj == 50 * J


def test_bounds_are_those_of_the_sum() -> None:
    """What was measured beside an integrated wall is no better than that; a measured wall takes nothing from it."""
    loose = by_quality([("cpu", "measured", 60), ("dram", "modelled", 5), ("rest", "integrated", 35)])
    assert loose == {"modelled": 5, "integrated": 95}
    assert by_quality([("cpu", "measured", 60), ("gpu", "integrated", 5), ("rest", "measured", 35)]) == {
        "measured": 95,
        "integrated": 5,
    }
    assert by_quality([("cpu", "measured", 60), ("rest", "integrated", 0)]) == {"measured": 60, "integrated": 0}
