"""The real agent on the simulated node: real collectors on its files, a real ledger, a clock that goes with it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.truthbench.scenario import Scenario
from benchmarks.truthbench.world import MS, Player, World
from tests.e2e.running import check_identities, parse, total

from wattribute.agent.config import load
from wattribute.agent.node import Node
from wattribute.agent.opening import open_node
from wattribute.agent.record import Record
from wattribute.agent.requests import JobEnd, JobStart, Peer
from wattribute.agent.site import Site
from wattribute.collectors import host, nvml
from wattribute.collectors.host import HostFacts

S = 1_000_000_000
BOOT_NS = 1000 * S
UNIX_NS = 1_700_000_000 * S
PATIENCE_NS = 5 * S
EDGE_LATE_NS = 1 * MS
"""A start or an end is read at the counters' next step, about 1 ms later on hardware."""

CONFIGURATION = """
[agent]
interval_s = {interval_s}
state_dir = "{folder}/state"
[paths]
proc = "{folder}/node/proc"
sys = "{folder}/node/sys"
cgroup = "{folder}/node/cgroup"
[collectors]
modelled = "off"
nvml = "{nvml}"
[jobs]
slurm = "off"
kubernetes = "off"
containers = "off"
[attribution]
{idle}
[[rule]]
match = {{ cgroup = "/jobs/*" }}
"""


class SimulatedClock:
    """Boot time and wall time of the simulated node."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic_ns(self) -> int:
        return BOOT_NS + self._world.now_ns

    def asleep_ns(self) -> int:
        return 0

    def time_ns(self) -> int:
        return UNIX_NS + self._world.now_ns


@dataclass(slots=True)
class Measured:
    """What the agent says in the end. Joules by (job, domain kind); conservation in microjoules by domain kind."""

    direct_j: dict[tuple[str, str], float] = field(default_factory=dict)
    idle_j: dict[tuple[str, str], float] = field(default_factory=dict)
    overhead_j: dict[tuple[str, str], float] = field(default_factory=dict)
    conservation_uj: dict[str, int] = field(default_factory=dict)
    unattributed_j: dict[str, float] = field(default_factory=dict)


def configuration(scenario: Scenario, folder: Path) -> str:
    """The agent's configuration for a scenario: it knows the laws' idle power, or has to learn it."""
    laws, idle = scenario.packages, ""
    if scenario.idle == "configured":
        # One figure for all packages is what can be configured.
        idle = f"cpu_idle_w = {sum(law.idle_w for law in laws) / len(laws)}\n"
        idle += f"dram_idle_w = {sum(law.dram_idle_w for law in laws) / len(laws)}\n"
        if scenario.gpus:
            idle += f"gpu_idle_w = {sum(law.idle_w for law in scenario.gpus) / len(scenario.gpus)}\n"
    driver = "auto" if scenario.gpus else "off"
    return CONFIGURATION.format(interval_s=scenario.interval_s, folder=folder, nvml=driver, idle=idle)


class MeasuredNode:
    """Ticks as the daemon's loop does: on its interval, and right after a job's start or end."""

    def __init__(self, world: World, folder: Path) -> None:
        self.last_read_ns = 0
        self._world = world
        self._folder = folder
        self._clock = SimulatedClock(world)
        self._path = folder / "wattribute.toml"
        self._path.write_text(configuration(world.scenario, folder))
        self._node: Node | None = None
        self._base_uj: dict[str, int] | None = None
        self._expected_uj: dict[str, int] = {}
        self._lost_uj: dict[str, int] = {}
        self._seen_uj: dict[str, int] = {}

    @property
    def away(self) -> bool:
        """Whether the agent isn't running."""
        return self._node is None

    @property
    def node(self) -> Node:
        assert self._node is not None
        return self._node

    def open(self) -> None:
        """Begin, or go on from what the ledger has."""
        loaded = load(self._path, {}, {})
        self._world.show_agent()
        record = Record.open(
            self._folder / "state",
            node_id="bench",
            boot="boot-1",
            clock=self._clock,
        )
        with self._hardware():
            self._node = open_node(
                loaded, "daemon", "bench", self._clock, record, kernel=self._world.kernel, inline=True
            )
        self.tick()

    def close(self, *, killed: bool = False) -> None:
        """Stop: as SIGTERM does, with a last tick; or at once, with what was committed until then."""
        if not killed:
            self.tick()
        self.node.flush()
        self.node.close()
        self._node = None

    def tick(self) -> None:
        """One tick at this moment; the double's own file is looked at by ourselves, too."""
        self._world.show_agent()
        self.node.tick(patience_ns=PATIENCE_NS)
        self.node.flush()  # the ledger keeps up: real time doesn't pass here
        self.last_read_ns = self._world.now_ns
        self._seen_uj = self._true_uj()
        if self._base_uj is None:
            self._base_uj = self._seen_uj

    def edge_ns(self) -> int | None:
        """When the tick of a start or end is due, by the world's clock."""
        due_ns = None if self._node is None else self._node.edge_due_ns()
        return None if due_ns is None else max(due_ns - BOOT_NS, self._world.now_ns) + EDGE_LATE_NS

    def start(self, player: Player) -> None:
        """A job registers its process."""
        assert player.root is not None
        self._world.show_agent()
        pid = player.root.pid
        request = JobStart(id=1, job_id=player.name, member="m", pid=pid, reaped_cpu_ns=player.root.reaped_ns)
        self.node.start(request, Peer(pid, 0, 0))

    def end(self, player: Player) -> None:
        """A job says that it is over, with what getrusage(2) says of its children."""
        assert player.root is not None
        self._world.show_agent()
        request = JobEnd(id=1, job_id=player.name, member="m", reaped_cpu_ns=player.root.reaped_ns)
        self.node.end(request, Peer(player.root.pid, 0, 0))

    def before_reset(self) -> None:
        """The counters are about to fall to 0: nobody can ever read what they gathered since the last read."""
        for kind, energy_uj in self._true_uj().items():
            if kind != "gpu":
                self._lost_uj[kind] = self._lost_uj.get(kind, 0) + energy_uj - self._seen_uj.get(kind, 0)

    def results(self) -> Measured:
        """Receipts of all jobs, and whether the page, the ledger and the double's own file agree to the microjoule."""
        self.node.flush()
        samples = parse(Site(self.node).metrics_text().decode())
        check_identities(samples)
        found = Measured()
        for receipt in self.node.jobs():
            name = receipt["job_id"].removeprefix("jobs/")
            for kind, shares in receipt["energy_j"].items():
                for key, into in (("direct", found.direct_j), ("idle", found.idle_j), ("overhead", found.overhead_j)):
                    into[name, kind] = (shares or {}).get(key, 0.0)
        assert self._base_uj is not None
        for kind, seen_uj in self._seen_uj.items():
            booked_j = total(samples, "wattribute_node_energy_joules_total", domain=kind)
            expected_uj = seen_uj - self._base_uj[kind] - self._lost_uj.get(kind, 0)
            found.conservation_uj[kind] = int(booked_j * Decimal(1_000_000)) - expected_uj
            nobody_j = total(samples, "wattribute_node_unattributed_joules_total", domain=kind)
            found.unattributed_j[kind] = float(nobody_j)
        return found

    def _true_uj(self) -> dict[str, int]:
        """All that the doubles' counters ever showed, wraps and resets undone."""
        sums: dict[str, int] = {}
        for meter in self._world.meters():
            sums[meter.kind] = sums.get(meter.kind, 0) + meter.zone.true_uj
        if self._world.driver is not None:
            sums["gpu"] = sum(gpu.energy_uj // 1000 * 1000 for gpu in self._world.driver.gpus)  # told in millijoules
        return sums

    @contextmanager
    def _hardware(self) -> Iterator[None]:
        """The simulated node's size and driver in place of this machine's."""
        scenario, driver = self._world.scenario, self._world.driver
        memory_bytes = round(scenario.memory_gib * 2**30)
        facts = HostFacts(cpu_model="", cpus=scenario.cores, memory_bytes=memory_bytes, packages=len(scenario.packages))

        with ExitStack() as patches:
            patches.enter_context(patch.object(host, "host_facts", lambda *_: facts))
            if driver is not None:
                real = partial(nvml.NvmlCollector, library=str(driver.library))
                patches.enter_context(patch.object(nvml, "NvmlCollector", real))
            yield
