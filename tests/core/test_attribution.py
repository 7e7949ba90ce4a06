"""Splitting: conservation for any input, and each policy by hand."""

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
    )
    result = split(energy_uj, idle_uj, demand, idle, overhead)
    parts = [*result.direct.values(), *result.idle.values(), *result.overhead.values(), *result.unattributed.values()]
    assert sum(parts) == energy_uj
    assert all(part >= 0 for part in parts)


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
