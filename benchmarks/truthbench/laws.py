"""What a node draws by law, and each player's part of it: the truth. Use in CPU nanoseconds, energy in femtojoules.

The dynamic energy of a step is what the law gives beyond its value at no use. Where the law is linear a player's part
is its use times the factor. Where it isn't, it is the player's Shapley value (L. Shapley, A Value for n-Person Games,
1953) in the game whose worth is the dynamic energy that a coalition would have used by itself: the one split that is
efficient, symmetric and additive. Coalitions are enumerated, for at most eight players. Idle has no truth of this
kind: nobody caused it.
"""

from collections.abc import Callable, Mapping
from math import factorial

from benchmarks.truthbench.scenario import GpuLaw, PackageLaw

UW_PER_W = 1_000_000
PLAYERS_MAX = 8


def package_dynamic_fj(law: PackageLaw, busy_ns: int, duration_ns: int) -> int:
    """Microwatts times nanoseconds of a socket beyond idle, for so much CPU time in so much time."""
    if not busy_ns:
        return 0
    if law.exponent == 1.0:
        return round(law.w_per_core * UW_PER_W) * busy_ns + round(law.wake_w * UW_PER_W) * duration_ns
    power_w: float = law.wake_w + law.w_per_core * (busy_ns / duration_ns) ** law.exponent
    return round(power_w * UW_PER_W) * duration_ns


def gpu_dynamic_uw(law: GpuLaw, sm_ratio: float, holders: int) -> int:
    """Microwatts of a GPU beyond idle, at an SM use of 0..1 with so many contexts."""
    power_w: float = (law.context_w if holders else 0.0) + law.full_w * min(1.0, sm_ratio) ** law.exponent
    return round(power_w * UW_PER_W)


def package_parts_fj(law: PackageLaw, use_ns: Mapping[str, int], duration_ns: int) -> dict[str, float]:
    """Each player's part of a socket's dynamic energy in one step."""
    if law.linear:
        return {name: round(law.w_per_core * UW_PER_W) * ns for name, ns in use_ns.items()}
    players = [name for name, ns in use_ns.items() if ns]
    return shapley(players, lambda names: package_dynamic_fj(law, sum(use_ns[n] for n in names), duration_ns))


def gpu_parts_fj(law: GpuLaw, use: Mapping[str, float], duration_ns: int) -> dict[str, float]:
    """Each holder's part of a GPU's dynamic energy in one step."""
    if len(use) == 1 or (law.exponent == 1.0 and not law.context_w and sum(use.values()) <= 1.0):
        return {name: gpu_dynamic_uw(law, sm, 1) * duration_ns for name, sm in use.items()}
    players = list(use)
    return shapley(players, lambda names: gpu_dynamic_uw(law, sum(use[n] for n in names), len(names)) * duration_ns)


def shapley(players: list[str], worth: Callable[[list[str]], float]) -> dict[str, float]:
    """Exact Shapley values. `worth` of nobody must be 0. Raises ValueError beyond eight players."""
    n = len(players)
    if n > PLAYERS_MAX:
        raise ValueError(f"{n} players at once: coalitions are enumerated for at most {PLAYERS_MAX}")
    coalitions = [worth([p for i, p in enumerate(players) if mask >> i & 1]) if mask else 0.0 for mask in range(1 << n)]
    weight = [factorial(size) * factorial(n - size - 1) / factorial(n) for size in range(n)]
    return {
        player: sum(
            weight[mask.bit_count()] * (coalitions[mask | 1 << i] - coalitions[mask])
            for mask in range(1 << n)
            if not mask >> i & 1
        )
        for i, player in enumerate(players)
    }
