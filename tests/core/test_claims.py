"""Claims of one window by hand, and whatever is reserved, used, nested or late: nothing is claimed twice."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.attribution import PPB
from wattribute.agent.core.claims import Demands, Entry, Use, demands
from wattribute.agent.core.found import NOTHING_RESERVED, Reservation
from wattribute.agent.core.model import Job
from wattribute.agent.core.units import NS_PER_S

S = NS_PER_S
GIB = 2**30
CPUS, MEMORY_BYTES = 8, 64 * GIB


@dataclass
class Window:
    """Ten seconds of a node with 8 CPUs and 64 GiB; jobs that were there before it unless they say otherwise."""

    jobs: dict[str, Entry] = field(default_factory=dict)
    used_ns: dict[str, int] = field(default_factory=dict)
    length_ns: int = 10 * S

    def job(
        self,
        name: str,
        *,
        cpu_s: float = 0,
        memory_gib: float = 0,
        reserved: Reservation = NOTHING_RESERVED,
        inside: str | None = None,
        from_s: float = -1,
        until_s: float | None = None,
    ) -> None:
        entry = Entry(Job(id=name, parent_job_id=inside), round((100 + from_s) * S), reserved=reserved)
        entry.memory_bytes = round(memory_gib * GIB)
        entry.ended_ns = None if until_s is None else round((100 + until_s) * S)
        self.jobs[name] = entry
        self.used_ns[name] = round(cpu_s * S)

    def demands(self, *, node_s: float = 0, overhead_s: float = 0, late_s: float = 0) -> Demands:
        before = Use(100 * S, 1000 * S, 500 * S, 0, dict.fromkeys(self.jobs, 0))
        node_ns, overhead_ns = 1000 * S + round(node_s * S), 500 * S + round(overhead_s * S)
        now = Use(100 * S + self.length_ns, node_ns, overhead_ns, 0, self.used_ns)
        return demands(before, now, self.jobs, CPUS, MEMORY_BYTES, round(late_s * S))

    def claims(self) -> tuple[dict[str, float], dict[str, float]]:
        """CPUs and GiB claimed by each job, as if it had the whole window."""
        found = self.demands()
        return (
            {name: round(ppb * CPUS / PPB, 6) for name, ppb in found.by_cpu.claim_ppb.items()},
            {name: round(ppb * 64 / PPB, 6) for name, ppb in found.by_memory.claim_ppb.items()},
        )


def test_what_was_reserved_counts_however_much_is_used() -> None:
    window = Window()
    window.job("slurm", cpu_s=5, memory_gib=1, reserved=Reservation(2000, 16 * GIB))
    window.job("idle", reserved=Reservation(500, 4 * GIB))
    window.job("use", cpu_s=30, memory_gib=8)
    window.job("cpus", cpu_s=1, memory_gib=3, reserved=Reservation(cpus_milli=1000))
    window.job("memory", cpu_s=20, memory_gib=9, reserved=Reservation(memory_bytes=2 * GIB))
    cpus, gib = window.claims()
    assert cpus == {"slurm": 2, "idle": 0.5, "use": 3, "cpus": 1, "memory": 2}
    assert gib == {"slurm": 16, "idle": 4, "use": 8, "cpus": 3, "memory": 2}


def test_an_exclusive_job_has_the_node_for_as_long_as_it_lives() -> None:
    window = Window()
    window.job("whole", cpu_s=1, reserved=Reservation(1000, GIB, exclusive=True), from_s=2, until_s=7)
    assert window.claims() == ({"whole": 4}, {"whole": 32})
    assert window.demands().by_cpu.present_ppb == {"whole": PPB // 2}


def test_a_job_inside_another_takes_its_claim_off_that_ones() -> None:
    window = Window()
    window.job("pod", cpu_s=10, reserved=Reservation(4000, 32 * GIB))
    window.job("container", reserved=Reservation(1000, 8 * GIB), inside="pod")
    window.job("session", cpu_s=15, memory_gib=4, inside="pod")
    assert window.claims() == ({"pod": 1.5, "container": 1, "session": 1.5}, {"pod": 20, "container": 8, "session": 4})


@pytest.mark.parametrize("order", ["outer first", "inner first"])
def test_of_three_inside_each_other_each_keeps_what_those_inside_it_do_not_have(order: str) -> None:
    window = Window()
    levels = [
        ("a", Reservation(6000, 48 * GIB), None),
        ("b", Reservation(4000, 32 * GIB), "a"),
        ("c", Reservation(1000, 8 * GIB), "b"),
    ]
    for name, reserved, inside in levels if order == "outer first" else reversed(levels):
        window.job(name, reserved=reserved, inside=inside)
    assert window.claims() == ({"a": 2, "b": 3, "c": 1}, {"a": 16, "b": 24, "c": 8})


def test_one_inside_of_one_that_reserved_nothing_takes_off_what_is_around_both() -> None:
    window = Window()
    window.job("slurm", reserved=Reservation(4000, 32 * GIB))
    window.job("run", cpu_s=5, memory_gib=2, inside="slurm")
    window.job("session", cpu_s=10, memory_gib=4, inside="run")
    cpus, gib = window.claims()
    assert cpus == {"slurm": 2.5, "run": 0.5, "session": 1}
    assert gib == {"slurm": 26, "run": 2, "session": 4}


def test_only_what_was_reserved_is_shared_with_those_inside() -> None:
    """What a job itself used holds nothing of what those inside it used."""
    window = Window()
    window.job("limited", cpu_s=20, reserved=Reservation(memory_bytes=32 * GIB))
    window.job("inside", cpu_s=10, memory_gib=4, inside="limited")
    window.job("quota", memory_gib=6, reserved=Reservation(cpus_milli=2000))
    window.job("within", cpu_s=5, memory_gib=5, inside="quota")
    cpus, gib = window.claims()
    assert cpus == {"limited": 2, "inside": 1, "quota": 1.5, "within": 0.5}
    assert gib == {"limited": 28, "inside": 4, "quota": 6, "within": 5}


def test_a_job_that_claims_more_than_what_is_around_it_leaves_that_nothing() -> None:
    window = Window()
    window.job("small", reserved=Reservation(1000, GIB))
    window.job("greedy", cpu_s=40, memory_gib=8, inside="small")
    assert window.claims() == ({"small": 0, "greedy": 4}, {"small": 0, "greedy": 8})


def test_what_is_learnt_late_is_no_claim_on_more_than_the_node() -> None:
    """A child's hour comes at once when it is reaped."""
    window = Window()
    window.job("reaper", cpu_s=3600, memory_gib=100)
    window.job("limited", cpu_s=3600, reserved=Reservation(memory_bytes=GIB))
    cpus, gib = window.claims()
    assert cpus == {"reaper": CPUS, "limited": CPUS}
    assert gib == {"reaper": 64, "limited": 1}


def test_a_parent_that_nobody_knows_of_or_that_is_its_own_child_changes_nothing() -> None:
    window = Window()
    window.job("orphan", reserved=Reservation(1000, GIB), inside="elsewhere")
    window.job("hen", cpu_s=10, memory_gib=1, inside="egg")
    window.job("egg", cpu_s=10, memory_gib=1, inside="hen")
    assert window.claims() == ({"orphan": 1, "hen": 1, "egg": 1}, {"orphan": 1, "hen": 1, "egg": 1})


def test_what_is_nobodys_is_the_rest_of_the_node_and_late_use_comes_off_it_once() -> None:
    window = Window()
    window.job("a", cpu_s=30)
    found = window.demands(node_s=50, overhead_s=5, late_s=2)
    assert found.by_cpu.use_ns == {"a": 30 * S}
    assert (found.by_cpu.overhead_ns, found.by_cpu.other_ns, found.late_ns) == (5 * S, 13 * S, 0)
    late = window.demands(node_s=20, overhead_s=5)
    assert (late.by_cpu.other_ns, late.late_ns) == (0, 15 * S)


def test_one_that_was_over_before_the_window_is_not_in_it() -> None:
    window = Window()
    window.job("over", memory_gib=4, reserved=Reservation(8000), until_s=-0.5)
    window.job("told late", cpu_s=1, memory_gib=4, until_s=-0.5)
    found = window.demands()
    assert found.by_cpu.present_ppb == {"told late": 0}
    assert found.by_memory.claim_ppb == {"told late": 0}


RESERVATIONS = st.builds(
    Reservation,
    st.none() | st.integers(0, 20_000),
    st.none() | st.integers(0, 128 * GIB),
    st.booleans(),
)
NAMES = ("a", "b", "c", "d")
JOBS = st.tuples(
    st.sampled_from(NAMES),
    st.floats(0, 200),
    st.floats(0, 100),
    st.just(NOTHING_RESERVED) | RESERVATIONS,
    st.none() | st.sampled_from(NAMES),
    st.floats(-5, 12),
    st.none() | st.floats(-5, 12),
)


@given(st.lists(JOBS, max_size=6), st.integers(0, 10 * S), st.floats(0, 500), st.floats(0, 100), st.floats(0, 10))
def test_no_claim_is_negative_or_more_than_the_node(
    jobs: list[tuple[str, float, float, Reservation, str | None, float, float | None]],
    length_ns: int,
    node_s: float,
    overhead_s: float,
    late_s: float,
) -> None:
    window = Window(length_ns=length_ns)
    for name, cpu_s, memory_gib, reserved, inside, from_s, until_s in jobs:
        reserved = NOTHING_RESERVED if reserved == NOTHING_RESERVED else reserved
        inside = None if inside == name else inside
        from_s = min(from_s, length_ns / S)
        ended_s = None if until_s is None else min(max(from_s, until_s), length_ns / S)
        window.job(
            name, cpu_s=cpu_s, memory_gib=memory_gib, reserved=reserved, inside=inside, from_s=from_s, until_s=ended_s
        )
    found = window.demands(node_s=node_s, overhead_s=overhead_s, late_s=late_s)
    for demand in (found.by_cpu, found.by_memory):
        for ppb in (*demand.claim_ppb.values(), *demand.present_ppb.values()):
            assert 0 <= ppb <= PPB
        assert demand.claim_ppb.keys() <= window.jobs.keys()
        assert min(demand.other_ns, demand.overhead_ns, *demand.use_ns.values()) >= 0
    assert found.late_ns == 0 or found.by_cpu.other_ns == 0


@given(st.lists(st.integers(0, 8000), min_size=1, max_size=5), st.integers(0, 64 * GIB), st.randoms())
def test_a_chain_of_reservations_claims_the_outermost_together(
    cpus_milli: list[int], memory_bytes: int, random: object
) -> None:
    """Each within the one before: together they hold what the first has, as long as each fits in its outer one."""
    window = Window()
    chain = sorted(cpus_milli, reverse=True)
    names = [f"level {n}" for n in range(len(chain))]
    rows = list(zip(names, chain, [None, *names], strict=False))
    random.shuffle(rows)  # type: ignore[attr-defined]
    for name, milli, inside in rows:
        window.job(name, reserved=Reservation(milli, memory_bytes), inside=inside)
    found = window.demands()
    assert sum(found.by_cpu.claim_ppb.values()) == PPB * chain[0] // (CPUS * 1000)
    assert sum(found.by_memory.claim_ppb.values()) == PPB * memory_bytes // MEMORY_BYTES
