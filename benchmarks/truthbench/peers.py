"""What the published formulas of three node exporters would give each job, from what each could have seen.

They are formulas, not the programs: computed on the same trace at each tool's default interval, without its overheads,
its lost scrapes, its rounding of CPU time to ticks, or Prometheus's extrapolation. Every doubt is decided in the
tool's favour. Energy in joules, by (job, "host" or "gpu"); a job that a tool never saw has 0, what a tool has no
formula for is absent.
"""

from typing import Protocol

from benchmarks.truthbench.world import Meter, Player, World

Found = dict[tuple[str, str], float]
UJ_PER_J = 1_000_000
J_PER_UW_NS = 1e-15


class Peer(Protocol):
    """A tool that looks at the node every `interval_ms`, the first time at FIRST_MS."""

    name: str
    interval_ms: int
    groups: tuple[str, ...]
    found_j: Found

    def sample(self, world: World) -> None: ...


class _Counters:
    """Energy counters as exposed, from one look to the next."""

    def __init__(self) -> None:
        self._last_uj: dict[Meter, int] = {}

    def grown_uj(self, meter: Meter) -> tuple[int, bool] | None:
        """(now - before, whether it fell); None at the first look. A fall is negative: what it means is the tool's."""
        now_uj = meter.zone.energy_uj
        before_uj = self._last_uj.get(meter)
        self._last_uj[meter] = now_uj
        return None if before_uj is None else (now_uj - before_uj, now_uj < before_uj)


def _add(found: Found, player: Player, group: str, energy_j: float) -> None:
    key = player.name, group
    found[key] = found.get(key, 0.0) + energy_j


class Kepler:
    """Kepler from 0.10 on, every 5 s (its default), as rewritten in 2025.

    Host: each zone's energy times the node's busy ratio is active energy; a process gets it in the ratio of its CPU
    time to that of all processes that survive to the sample, in each zone alike; the idle rest is nobody's. A new
    process brings all its CPU time; one that ended loses its last part, which the survivors get. Its key is the pid: a
    recycled one brings a difference that may be negative. A counter that fell is taken for a wrap, a reset too.
    GPU: active power is the power at the sample less the lowest that was seen while nobody held a context (0 if that
    was never seen), times the interval; a GPU with one process is that process's, several share it by their latest SM
    percent, by halves without data; instances (MIG) by their engines' activity, whatever their size.
    In its favour: CPU time in nanoseconds, busy time exact, a job has all processes that it ever had (as a container),
    and what was once shown is never lost (it keeps 500 ended ones of 10 J and more, until the next scrape).
    """

    name = "Kepler"
    interval_ms = 5_000
    groups: tuple[str, ...] = ("host", "gpu")

    def __init__(self) -> None:
        self.found_j: Found = {}
        self._counters = _Counters()
        self._cpu_ns: dict[int, int] = {}
        self._busy_ns = 0
        self._at_ns = -1
        self._idle_uw: dict[int, int] = {}

    def sample(self, world: World) -> None:
        """One refresh."""
        duration_ns = world.now_ns - self._at_ns
        busy_ns = sum(player.cpu_ns for player in world.players.values())
        ratio = min(1.0, (busy_ns - self._busy_ns) / (duration_ns * world.scenario.cores))
        active_j = 0.0
        for meter in world.meters():
            grown = self._counters.grown_uj(meter)
            if grown is not None:
                active_j += (grown[0] + (meter.zone.range_uj or 0) * grown[1]) * ratio / UJ_PER_J
        used_ns: dict[str, int] = {}
        now_ns: dict[int, int] = {}
        for process in world.kernel.alive():
            now_ns[process.pid] = process.own_ns
            delta_ns = process.own_ns - self._cpu_ns.get(process.pid, 0)
            used_ns[process.player] = used_ns.get(process.player, 0) + delta_ns
        whole_ns = sum(used_ns.values())
        if self._at_ns >= 0 and whole_ns > 0:
            for name, ns in used_ns.items():
                _add(self.found_j, world.players[name], "host", active_j * ns / whole_ns)
        for n in range(len(world.scenario.gpus)):
            self._sample_gpu(world, n, duration_ns if self._at_ns >= 0 else 0)
        self._cpu_ns, self._busy_ns, self._at_ns = now_ns, busy_ns, world.now_ns

    def _sample_gpu(self, world: World, n: int, duration_ns: int) -> None:
        holders, power_uw = world.holders(n), world.gpu_power_uw[n]
        if not holders:
            self._idle_uw[n] = min(power_uw, self._idle_uw.get(n, power_uw))
            return
        active_j = max(0, power_uw - self._idle_uw.get(n, 0)) * duration_ns * J_PER_UW_NS
        weights = [float(player.sm_last) for player in holders]
        if len(holders) == 1 or not any(weights):
            weights = [1.0] * len(holders)
        for player, weight in zip(holders, weights, strict=True):
            _add(self.found_j, player, "gpu", active_j * weight / sum(weights))


class Scaphandre:
    """Scaphandre 1.0, every 2 s (the shortest that its Prometheus exporter refreshes at).

    Host: packages and DRAM together, as power over the interval; a process gets its CPU time's part of all cores'
    time. A counter that fell (wrap or reset) costs the interval. It has no GPU.
    In its favour: a new process brings all its CPU time (the first of its two refreshes would say 0), recycled pids
    are told apart, and its gauge of power is integrated over exactly the interval that it stands for.
    """

    name = "Scaphandre"
    interval_ms = 2_000
    groups: tuple[str, ...] = ("host",)

    def __init__(self) -> None:
        self.found_j: Found = {}
        self._counters = _Counters()
        self._cpu_ns: dict[tuple[int, int], int] = {}
        self._at_ns = -1

    def sample(self, world: World) -> None:
        """One refresh."""
        grown = [self._counters.grown_uj(meter) for meter in world.meters()]
        host_j = sum(each[0] for each in grown if each is not None and not each[1]) / UJ_PER_J
        capacity_ns = (world.now_ns - self._at_ns) * world.scenario.cores
        now_ns: dict[tuple[int, int], int] = {}
        for process in world.kernel.alive():
            key = process.pid, process.start_ticks
            now_ns[key] = process.own_ns
            delta_ns = process.own_ns - self._cpu_ns.get(key, 0)
            if self._at_ns >= 0:
                _add(self.found_j, world.players[process.player], "host", host_j * delta_ns / capacity_ns)
        self._cpu_ns, self._at_ns = now_ns, world.now_ns


class Ceems:
    """CEEMS 0.10, its rules over scrapes every 10 s (as at Jean Zay; 10 to 15 s are usual).

    Host: package energy times the unit's CPU time over the node's busy time; DRAM energy times the unit's resident
    memory over the node's used memory; PUE 1 here. Idle power goes to whoever runs, by design: it says so, and most
    of its difference from dynamic energy is that. Counters are scraped raw: one that fell counts from 0.
    GPU: device power at the scrape times the interval over the number of its holders; instances (MIG) by multi-
    processors times SM activity over those of all instances.
    In its favour: every job is a unit with a cgroup of its own, every unit's memory is known exactly, and rates are
    taken between scrapes at which the unit was there, without Prometheus's extrapolation to the rule's window.
    `less_idle` is not CEEMS: its rules on what is left after the law's idle power, to tell policy from method.
    """

    interval_ms = 10_000
    groups: tuple[str, ...] = ("host", "gpu")

    def __init__(self, *, less_idle: bool = False) -> None:
        self.name = "CEEMS less idle" if less_idle else "CEEMS"
        self.found_j: Found = {}
        self._less_idle = less_idle
        self._counters = _Counters()
        self._cpu_ns: dict[str, int] = {}
        self._busy_ns = 0
        self._at_ns = -1

    def sample(self, world: World) -> None:
        """One scrape."""
        duration_ns = world.now_ns - self._at_ns if self._at_ns >= 0 else 0
        laws, gpu_laws = world.scenario.packages, world.scenario.gpus
        less = duration_ns / 1e9 if self._less_idle else 0.0
        grown_j = {
            "cpu": -sum(law.idle_w for law in laws) * less,
            "dram": -sum(law.dram_idle_w for law in laws) * less,
        }
        for meter in world.meters():
            grown = self._counters.grown_uj(meter)
            if grown is not None:
                grown_j[meter.kind] += (meter.zone.energy_uj if grown[1] else grown[0]) / UJ_PER_J
        busy_ns = sum(player.cpu_ns for player in world.players.values())
        node_ns, self._busy_ns = busy_ns - self._busy_ns, busy_ns
        running = world.alive()
        used_gib = sum(player.job.memory_gib for player in running)
        for player in running:
            if player.name in self._cpu_ns and node_ns > 0:
                used_ns = player.cpu_ns - self._cpu_ns[player.name]
                host_j = grown_j["cpu"] * used_ns / node_ns + grown_j["dram"] * player.job.memory_gib / used_gib
                _add(self.found_j, player, "host", host_j)
        for n, law in enumerate(gpu_laws):
            holders, sliced = world.holders(n), bool(law.slices)
            device_j = world.gpu_power_uw[n] * duration_ns * J_PER_UW_NS - law.idle_w * less
            weights = [world.sm_ratio(player) if sliced else 1.0 for player in holders]
            for player, weight in zip(holders, weights, strict=True):
                if duration_ns and any(weights):
                    _add(self.found_j, player, "gpu", device_j * weight / sum(weights))
        self._cpu_ns, self._at_ns = {player.name: player.cpu_ns for player in running}, world.now_ns


def peers() -> tuple[Peer, ...]:
    """All three as published, and CEEMS without its idle policy, anew."""
    return Kepler(), Scaphandre(), Ceems(), Ceems(less_idle=True)


FIRST_MS = 700
"""When each looks for the first time."""
