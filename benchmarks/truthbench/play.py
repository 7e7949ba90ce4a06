"""Plays one scenario: the node runs, the agent ticks, the others look, and in the end everybody says what it was."""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from benchmarks.truthbench.measured import Measured, MeasuredNode
from benchmarks.truthbench.peers import FIRST_MS, Found, peers
from benchmarks.truthbench.scenario import Scenario
from benchmarks.truthbench.world import FJ_PER_UJ, MS, World
from tests.doubles.nvml import NvmlDouble

UJ_PER_J = 1_000_000
GROUPS = {"cpu": "host", "dram": "host", "gpu": "gpu"}
TICK_PHASE_MS = 50
LAST_MS = 500
"""The last tick comes so long after the one before that it is written and shown (LEAST_NS in agent/pace.py)."""

Event = tuple[int, int, str, str]  # when (ns), order among those at one moment, what, and who or why


@dataclass(frozen=True, slots=True)
class Played:
    """One scenario's end. Joules by (job, "host" or "gpu"); a job's host is its packages and DRAM.

    `counters_j` is all that the counters of packages and DRAM ever gathered.
    """

    scenario: Scenario
    truth_j: dict[tuple[str, str], float]
    ours_j: dict[tuple[str, str], float]
    idle_j: dict[tuple[str, str], float]
    overhead_j: dict[tuple[str, str], float]
    peers_j: dict[str, Found]
    measured: Measured
    counters_j: float

    @property
    def conservation_uj(self) -> int:
        """What the ledger has more (or, negative, less) than the doubles' own files; the worst domain."""
        return max(self.measured.conservation_uj.values(), key=abs)


def play(scenario: Scenario, driver: NvmlDouble | None) -> Played:
    """Run it. `driver` is the stand-in of NVML, where the scenario has GPUs."""
    with TemporaryDirectory(prefix="truth-") as name:
        folder = Path(name)
        with closing(World(scenario, folder / "node", os.getpid(), driver if scenario.gpus else None)) as world:
            return _Play(scenario, world, MeasuredNode(world, folder)).run()


class _Play:
    def __init__(self, scenario: Scenario, world: World, agent: MeasuredNode) -> None:
        self._scenario = scenario
        self._world = world
        self._agent = agent
        self._peers = {peer.name: peer for peer in peers()}
        self._jitter = Random(f"{scenario.seed}/jitter")

    def run(self) -> Played:
        """From the first tick to the last."""
        world, agent, end_ns = self._world, self._agent, self._scenario.duration_ms * MS
        agent.open()
        events = sorted(self._events())
        ticks = self._ticks(end_ns)
        tick_ns = next(ticks)
        while True:
            edge_ns = agent.edge_ns()
            edge_ns = end_ns if edge_ns is None else self._stepped(edge_ns)
            now_ns = min(tick_ns, edge_ns, events[0][0] if events else end_ns, end_ns)
            world.advance(now_ns)
            while events and events[0][0] <= world.now_ns:
                self._happen(events.pop(0))
            if world.now_ns >= end_ns:
                break
            if not agent.away and (now_ns in (tick_ns, edge_ns)):
                agent.tick()
            if now_ns == tick_ns:
                tick_ns = next(ticks)
        agent.tick()
        measured = agent.results()
        agent.close()
        return self._played(measured)

    def _events(self) -> list[Event]:
        scenario = self._scenario
        events: list[Event] = []
        for job in scenario.jobs:
            events += [(job.start_ms * MS, 1, "start", job.name), (job.end_ms * MS, 0, "end", job.name)]
        events += [(ms * MS, 2, "reset", "") for ms in scenario.resets_ms]
        for restart in scenario.restarts:
            events.append((restart.at_ms * MS, 3, "away", "killed" if restart.killed else ""))
            events.append(((restart.at_ms + restart.away_ms) * MS, 4, "back", ""))
        for peer in self._peers.values():
            for ms in range(FIRST_MS, scenario.duration_ms, peer.interval_ms):
                events.append((ms * MS, 5, "look", peer.name))
        return events

    def _happen(self, event: Event) -> None:
        _, _, what, who = event
        world, agent = self._world, self._agent
        if what == "start":
            player = world.players[who]
            world.start(player)
            if player.job.runs == "registered":
                agent.start(player)
        elif what == "end":
            player = world.players[who]
            world.stop_children(player)
            if player.job.runs == "registered":
                agent.end(player)
            world.stop(player)
        elif what == "reset":
            world.show()
            agent.before_reset()
            world.reset_counters()
        elif what == "away":
            agent.close(killed=who == "killed")
        elif what == "back":
            agent.open()
        else:
            world.show()
            self._peers[who].sample(world)

    def _ticks(self, end_ns: int) -> Iterator[int]:
        interval_ns, late_ms = round(self._scenario.interval_s * 1e9), self._scenario.jitter_ms
        at_ns = TICK_PHASE_MS * MS
        while at_ns + interval_ns < end_ns - LAST_MS * MS:
            at_ns += interval_ns
            yield at_ns + self._jitter.randrange(late_ms * 1000 + 1) * 1000
        while True:
            yield end_ns

    def _stepped(self, at_ns: int) -> int:
        """Start and end are read at the counters' next step."""
        step_ns = self._scenario.step_us * 1000
        return -(-at_ns // step_ns) * step_ns if step_ns else at_ns

    def _played(self, measured: Measured) -> Played:
        jobs = {job.name for job in self._scenario.jobs if job.runs in ("registered", "cgroup")}
        truth = {
            (name, kind): energy_fj / FJ_PER_UJ / UJ_PER_J
            for (name, kind), energy_fj in self._world.truth_fj.items()
            if name in jobs
        }
        return Played(
            self._scenario,
            _grouped(truth),
            _grouped(measured.direct_j),
            _grouped(measured.idle_j),
            _grouped(measured.overhead_j),
            {
                peer.name: {key: peer.found_j.get(key, 0.0) for key in _grouped(truth) if key[1] in peer.groups}
                for peer in self._peers.values()
            },
            measured,
            sum(meter.zone.true_uj for meter in self._world.meters()) / UJ_PER_J,
        )


def _grouped(by_kind: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    grouped: dict[tuple[str, str], float] = {}
    for (name, kind), energy_j in by_kind.items():
        key = name, GROUPS.get(kind, kind)
        grouped[key] = grouped.get(key, 0.0) + energy_j
    return grouped
