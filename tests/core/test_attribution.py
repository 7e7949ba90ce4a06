"""Splitting: conservation for any input, and each policy by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.attribution import PPB, Demand, apportion, split
from wattribute.agent.core.model import Policy

NAMES = st.sampled_from(["a", "b", "c", "d"])
POLICIES: list[Policy] = ["reserved", "equal", "usage", "unattributed"]


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**12), min_size=1, max_size=30).filter(any))
def test_apportion_sums_and_is_fair(total: int, weights: list[int]) -> None:
    parts = apportion(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)
        assert weight or not part


@given(
    energy_uj=st.integers(0, 10**12),
    idle_uj=st.integers(0, 10**12),
    use=st.dictionaries(NAMES, st.integers(1, 10**12)),
    claims=st.dictionaries(NAMES, st.integers(0, 2 * PPB)),
    overhead_ns=st.integers(0, 10**12),
    other_ns=st.integers(0, 10**12),
    foreign_ppb=st.integers(0, PPB),
    unallocated_ppb=st.just(0) | st.integers(0, PPB),
    idle_use=st.none() | st.dictionaries(NAMES, st.integers(0, PPB)),
    idle=st.sampled_from(POLICIES),
    overhead=st.sampled_from(POLICIES),
)
def test_every_split_conserves_energy(
    energy_uj: int,
    idle_uj: int,
    use: dict[str, int],
    claims: dict[str, int],
    overhead_ns: int,
    other_ns: int,
    foreign_ppb: int,
    unallocated_ppb: int,
    idle_use: dict[str, int] | None,
    idle: Policy,
    overhead: Policy,
) -> None:
    demand = Demand(
        use_ns=use,
        present_ppb={**dict.fromkeys(use, PPB), **dict.fromkeys(claims, PPB // 2)},
        claim_ppb=claims,
        overhead_ns=overhead_ns,
        other_ns=other_ns,
        foreign_claim_ppb=foreign_ppb,
        unallocated_ppb=unallocated_ppb,
        idle_use=idle_use,
    )
    result = split(energy_uj, idle_uj, demand, idle, overhead)
    parts = [*result.direct.values(), *result.idle.values(), *result.overhead.values(), *result.unattributed.values()]
    assert sum(parts) == energy_uj
    assert all(part >= 0 for part in parts)
    if unallocated_ppb and (use or overhead_ns or other_ns):
        assert result.unattributed.get("unallocated", 0) == min(idle_uj, energy_uj) * unallocated_ppb // PPB
    if idle == "unattributed":
        assert not result.idle


def demand(**changes: object) -> Demand:
    settings: dict[str, object] = {
        "use_ns": {"a": 300, "b": 100},
        "present_ppb": {"a": PPB, "b": PPB // 2},
        "claim_ppb": {"a": PPB // 4, "b": PPB // 4},
        "overhead_ns": 100,
        "other_ns": 500,
    }
    return Demand(**{**settings, **changes})  # type: ignore[arg-type]


def test_active_energy_follows_use_over_everything_that_ran() -> None:
    result = split(1000, 0, demand(), "reserved", "unattributed")
    assert result.direct == {"a": 300, "b": 100}
    assert result.unattributed == {"unregistered": 500, "overhead": 100}


def test_idle_by_each_policy() -> None:
    idle = {policy: split(1400, 400, demand(), policy, "unattributed") for policy in POLICIES}
    assert idle["reserved"].idle == {"a": 100, "b": 100}
    assert idle["reserved"].unattributed["unreserved"] == 200
    assert idle["equal"].idle == {"a": 267, "b": 133}  # b was there for half of the window
    assert idle["usage"].idle == {"a": 300, "b": 100}
    assert idle["unattributed"].idle == {}
    assert idle["unattributed"].unattributed["idle"] == 400


def test_over_commitment_scales_to_one() -> None:
    result = split(400, 400, demand(claim_ppb={"a": 3 * PPB, "b": PPB}), "reserved", "usage")
    assert result.idle == {"a": 300, "b": 100}
    assert result.unattributed == {}


def test_without_jobs_nothing_is_anybodys() -> None:
    result = split(1000, 400, demand(use_ns={}, present_ppb={}, claim_ppb={}), "reserved", "usage")
    assert result.unattributed == {"idle": 400, "unregistered": 500, "overhead": 100}


def test_energy_of_a_node_on_which_nothing_ran_is_idle() -> None:
    nothing = demand(use_ns={}, overhead_ns=0, other_ns=0)
    result = split(1000, 0, nothing, "reserved", "usage")
    assert sum(result.idle.values()) + result.unattributed["unreserved"] == 1000


def test_slices_that_were_never_given_out_are_nobodys_by_any_policy() -> None:
    """Of seven slices a has 3, b has 1, one instance (2) has no process, and one slice was never made an instance."""
    sevenths = {n: n * PPB // 7 for n in range(8)}
    cut = demand(
        overhead_ns=0,
        other_ns=0,
        present_ppb={"a": PPB, "b": PPB},
        claim_ppb={"a": sevenths[3], "b": sevenths[1]},
        unallocated_ppb=sevenths[1],
    )
    found = {policy: split(1100, 700, cut, policy, "usage") for policy in POLICIES}
    for result in found.values():
        assert result.direct == {"a": 300, "b": 100}
        assert result.unattributed["unallocated"] == pytest.approx(100, abs=1)
        assert sum([*result.idle.values(), *result.unattributed.values()]) == 700
    assert found["reserved"].idle == pytest.approx({"a": 300, "b": 100}, abs=1)
    assert found["reserved"].unattributed["unreserved"] == pytest.approx(200, abs=1)
    assert found["equal"].idle == pytest.approx({"a": 300, "b": 300}, abs=1)
    assert found["usage"].idle == pytest.approx({"a": 450, "b": 150}, abs=1)
    assert found["unattributed"].unattributed["idle"] == pytest.approx(600, abs=1)


def test_strangers_on_slices_pay_for_theirs() -> None:
    cut = demand(claim_ppb={"a": PPB // 4}, foreign_claim_ppb=PPB // 2, unallocated_ppb=PPB // 4)
    result = split(400, 400, cut, "reserved", "usage")
    assert result.idle == {"a": 100}
    assert result.unattributed == {"unallocated": 100, "unregistered": 200}


def test_slices_claimed_twice_scale_to_what_was_given_out() -> None:
    """One instance changed hands within the window: both had it, and the board is no larger for that."""
    cut = demand(claim_ppb={"a": PPB // 2, "b": PPB // 2}, foreign_claim_ppb=PPB // 2, unallocated_ppb=PPB // 2)
    result = split(600, 600, cut, "reserved", "usage")
    assert result.idle == {"a": 100, "b": 100}
    assert result.unattributed == {"unallocated": 300, "unregistered": 100}


def test_a_board_of_which_nothing_was_given_out_is_unallocated() -> None:
    empty = demand(use_ns={}, present_ppb={}, claim_ppb={}, overhead_ns=0, other_ns=0, unallocated_ppb=PPB)
    assert split(500, 0, empty, "reserved", "usage").unattributed == {"unallocated": 500}


def test_idle_has_a_use_of_its_own_where_memory_is_what_it_keeps() -> None:
    """Active energy goes by CPU time, idle by what is resident: a holds three quarters of that and runs little."""
    memory = demand(idle_use={"a": 300, "b": 100}, use_ns={"a": 100, "b": 300}, overhead_ns=0, other_ns=0)
    result = split(800, 400, memory, "usage", "usage")
    assert result.direct == {"a": 100, "b": 300}
    assert result.idle == {"a": 300, "b": 100}
    nothing = demand(idle_use={}, overhead_ns=0, other_ns=0)
    assert split(800, 400, nothing, "usage", "usage").unattributed == {"idle": 400}


def test_overhead_goes_by_cpu_time_whatever_idle_goes_by() -> None:
    pool = demand(idle_use={"b": 100}, use_ns={"a": 300, "b": 100}, overhead_ns=400, other_ns=0)
    assert split(800, 0, pool, "usage", "usage").overhead == {"a": 300, "b": 100}
