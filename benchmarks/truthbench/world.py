"""The simulated node: jobs run, power follows the laws, counters move in files that the real collectors read.

Time is advanced by hand, in steps of at most 10 ms within which every load is constant. CPU time is the same in process
clocks, cgroups and the laws. Energy is integrated in femtojoules and never rounded away. `truth_fj` is what each player
(job, tenant, daemon, agent) caused by the laws, per domain kind.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.truthbench.kernel import Process, SimulatedKernel
from benchmarks.truthbench.laws import UW_PER_W, gpu_dynamic_uw, gpu_parts_fj, package_dynamic_fj, package_parts_fj
from benchmarks.truthbench.loads import GRID_MS, series
from benchmarks.truthbench.scenario import GpuUse, Job, Scenario, Steady
from tests.doubles.cgroups import FakeCgroups
from tests.doubles.nvml import Instance, NvmlDouble, Sample
from tests.doubles.nvml import Process as Context
from tests.doubles.powercap import PowercapTree, Zone

MS = 1_000_000
GRID_NS = GRID_MS * MS
FJ_PER_UJ = 1_000_000_000
FORK_NS = 40_000
"""What forking and reaping a child costs the parent: somebody who waits for a child runs, if only for a moment."""

GPU_REFRESH_MS, GPU_REFRESH_AT_MS = 100, 30
GPU_SAMPLE_MS, GPU_SAMPLE_AT_MS = 100, 80
"""An H100's energy counter moves every 100 ms; the driver samples SM use as often, at other moments."""

SMS_PER_SLICE = 16
SAMPLES_KEPT = 100
AGENT_CORES = 0.002
PATHS = {
    "registered": "/user.slice",
    "cgroup": "/jobs",
    "tenant": "/machine.slice/{name}",
    "daemon": "/system.slice/{name}.service",
}


@dataclass(eq=False)
class Player:
    """Somebody who uses the node. `cpu_ns` is all CPU time used, by whatever process."""

    name: str
    job: Job
    path: str
    load: list[int]
    sm_load: list[int]
    root: Process | None = None
    slots: list[Process] = field(default_factory=list)
    cpu_ns: int = 0
    owed_ns: int = 0  # spent on forks since the last step
    sm_ns: int = 0  # since the last sample of the driver
    sm_last: int = 0  # percent in the last sample
    seen_ns: int = 0  # of the CPU time, at the agent's last look


class Meter:
    """One powercap zone of the node: a law's energy on its way into the counter."""

    def __init__(self, zone: Zone, kind: str) -> None:
        self.zone = zone
        self.kind = kind
        self._left_fj = 0

    def use(self, energy_fj: int) -> None:
        self._left_fj += energy_fj

    def show(self, factor: float = 1.0) -> None:
        """Let the counter have it; a noisy sensor says a little more or less."""
        energy_uj, self._left_fj = divmod(self._left_fj, FJ_PER_UJ)
        self.zone.add(energy_uj if factor == 1.0 else round(energy_uj * factor))


class World:
    """The node of one scenario. `now_ns` counts from the scenario's beginning; `folder` is empty."""

    def __init__(self, scenario: Scenario, folder: Path, agent_pid: int, driver: NvmlDouble | None) -> None:
        self.scenario = scenario
        self.now_ns = 0
        self.truth_fj: dict[tuple[str, str], float] = {}
        self.on_pass: Callable[[int], None] = lambda duration_ns: None
        self.kernel = SimulatedKernel(agent_pid, scenario.pid_max)
        self.cgroups = FakeCgroups(folder, cpus=scenario.cores)
        self.sys = folder / "sys"
        self.powercap = PowercapTree(self.sys)
        self.packages: list[tuple[Meter, Meter]] = []
        for n in range(len(scenario.packages)):
            package = self.powercap.add_package(n, range_uj=scenario.range_uj)
            assert package.dram is not None
            self.packages.append((Meter(package.package, "cpu"), Meter(package.dram, "dram")))
        self.driver = driver
        self.gpu_fj = [0] * len(scenario.gpus)
        self.gpu_power_uw = [0] * len(scenario.gpus)
        self._samples: list[deque[Sample]] = [deque(maxlen=SAMPLES_KEPT) for _ in scenario.gpus]
        self._noise = Random(f"{scenario.seed}/noise")
        self._step_ns = scenario.step_us * 1000
        self._driver_ns = 0
        if driver is not None:
            driver.reset(len(scenario.gpus))
            driver.freeze()
            for gpu, law in zip(driver.gpus, scenario.gpus, strict=True):
                gpu.power_w, gpu.energy_uj = 0, 0  # the counter is laid down by us
                if law.slices:
                    gpu.mig()
                    gpu.gpm(law.gpm)
                    gpu.instances(*(Instance(i, n, n * SMS_PER_SLICE) for i, n in enumerate(law.slices)))
        for path in ("/jobs", "/user.slice", "/machine.slice", "/system.slice/wattribute.service"):
            self.cgroups.make(path)
        agent = Job(
            name="agent",
            start_ms=0,
            end_ms=scenario.duration_ms,
            load=Steady(cores=AGENT_CORES),
            runs="daemon",
            memory_gib=0.03,
        )
        self.players: dict[str, Player] = {}
        self.agent = self._player(agent, "/system.slice/wattribute.service")
        self.agent.root = self.kernel[agent_pid]
        self._settle(self.agent.root, self.agent.path)
        for job in scenario.jobs:
            path = PATHS[job.runs].format(name=job.name)
            self._player(job, f"/jobs/{job.name}" if job.runs == "cgroup" else path)

    def _player(self, job: Job, path: str) -> Player:
        seed, ms = f"{self.scenario.seed}/{job.name}", self.scenario.duration_ms
        sm_load = series(job.gpu.sm, f"{seed}/sm", ms) if job.gpu is not None else []
        player = Player(job.name, job, path, series(job.load, seed, ms), sm_load)
        self.players[job.name] = player
        return player

    # What happens to it

    def start(self, player: Player) -> Process:
        """The job's processes begin; returns the first of them."""
        self.cgroups.make(player.path)
        memory_bytes = round(player.job.memory_gib * 2**30)
        player.root = self.kernel.fork(player.name, self.now_ns, memory_bytes=memory_bytes)
        self._settle(player.root, player.path)
        if player.job.runs == "cgroup":
            self.cgroups.set_memory(player.path, memory_bytes)
        if player.job.children is not None:
            player.slots = [self._child(player) for _ in range(player.job.children.at_once)]
        self._show_contexts()
        return player.root

    def stop_children(self, player: Player) -> None:
        """What the job started ends; its first process lives on."""
        for child in player.slots:
            self._exit(child)
        player.slots = []

    def stop(self, player: Player) -> None:
        """The job's last process ends, and its cgroup is removed."""
        assert player.root is not None
        self.stop_children(player)
        self._exit(player.root)
        player.root = None
        if player.job.runs == "cgroup":
            self._remove(player)
        self._show_contexts()

    def reset_counters(self) -> None:
        """Every energy counter falls to 0."""
        for meter in self.meters():
            meter.zone.reset()

    def advance(self, until_ns: int) -> None:
        """Run until then."""
        while self.now_ns < until_ns:
            end_ns = min(until_ns, (self.now_ns // GRID_NS + 1) * GRID_NS)
            if self._step_ns:
                end_ns = min(end_ns, (self.now_ns // self._step_ns + 1) * self._step_ns)
            self._run(end_ns - self.now_ns)
            self.now_ns = end_ns
            if self._step_ns and end_ns % self._step_ns == 0:
                for meter in self.meters():
                    meter.show(1.0 + self._noise.gauss(0, self.scenario.noise))
            if end_ns % GRID_NS == 0:
                self._turn(end_ns // GRID_NS)

    def show(self) -> None:
        """Bring the files up to now, as far as a counter that moves in steps would be."""
        self.cgroups.flush()
        if not self._step_ns:
            for meter in self.meters():
                meter.show()
        self._advance_driver()

    def show_agent(self) -> None:
        """As `show`, for the agent: what it sees of a cgroup now is the last it sees if that is removed next."""
        self.show()
        for player in self.alive():
            player.seen_ns = player.cpu_ns

    # What can be seen of it

    def meters(self) -> Iterator[Meter]:
        """Packages and DRAM."""
        for pair in self.packages:
            yield from pair

    def alive(self) -> list[Player]:
        """Those that run now, the agent too."""
        return [player for player in self.players.values() if player.root is not None]

    def holders(self, gpu: int) -> list[Player]:
        """Those that hold a context on a GPU now."""
        return [p for p in self.alive() if p.job.gpu is not None and p.job.gpu.gpu == gpu]

    def sm_ratio(self, player: Player) -> float:
        """A player's SM use of the whole GPU, now."""
        use = player.job.gpu
        return 0.0 if use is None else player.sm_load[self.now_ns // GRID_NS] / 1000 * self.slice_ratio(use)

    def slice_ratio(self, use: GpuUse) -> float:
        """How much of the GPU's slices the job's instance has; 1 without MIG."""
        slices = self.scenario.gpus[use.gpu].slices
        return 1.0 if use.instance is None else slices[use.instance] / 7

    # Inside

    def _run(self, duration_ns: int) -> None:
        at = self.now_ns // GRID_NS
        sockets = len(self.packages)
        use_ns: list[dict[str, int]] = [{} for _ in range(sockets)]
        memory_ns: list[dict[str, float]] = [{} for _ in range(sockets)]
        for player in self.alive():
            used_ns = player.load[at] * duration_ns // 1000
            self._burn(player, used_ns)
            used_ns, player.owed_ns = used_ns + player.owed_ns, 0
            player.cpu_ns += used_ns
            self.cgroups.add_ns(player.path, used_ns)
            job = player.job
            each = range(sockets) if job.socket is None else (job.socket,)
            for n in each:
                here_ns = used_ns // len(each) + (used_ns % len(each) if n == each[0] else 0)
                use_ns[n][player.name] = here_ns
                memory_ns[n][player.name] = here_ns * job.dram
        for n, (law, (package, dram)) in enumerate(zip(self.scenario.packages, self.packages, strict=True)):
            dynamic_fj = package_dynamic_fj(law, sum(use_ns[n].values()), duration_ns)
            package.use(round(law.idle_w * UW_PER_W) * duration_ns + dynamic_fj)
            self._account("cpu", package_parts_fj(law, use_ns[n], duration_ns))
            factor_uw = law.dram_w_per_core * UW_PER_W
            parts_fj = {name: factor_uw * ns for name, ns in memory_ns[n].items()}
            dram.use(round(law.dram_idle_w * UW_PER_W) * duration_ns + round(sum(parts_fj.values())))
            self._account("dram", parts_fj)
        for n, gpu_law in enumerate(self.scenario.gpus):
            holders = self.holders(n)
            use = {player.name: self.sm_ratio(player) for player in holders}
            power_uw = round(gpu_law.idle_w * UW_PER_W) + gpu_dynamic_uw(gpu_law, sum(use.values()), len(use))
            self.gpu_power_uw[n] = power_uw
            self.gpu_fj[n] += power_uw * duration_ns
            self._account("gpu", gpu_parts_fj(gpu_law, use, duration_ns) if use else {})
            for player in holders:
                player.sm_ns += player.sm_load[at] * duration_ns // 1000

    def _account(self, kind: str, parts_fj: dict[str, float]) -> None:
        for name, energy_fj in parts_fj.items():
            self.truth_fj[name, kind] = self.truth_fj.get((name, kind), 0) + energy_fj

    @staticmethod
    def _burn(player: Player, used_ns: int) -> None:
        assert player.root is not None
        workers = player.slots or [player.root]
        each_ns, rest_ns = divmod(used_ns, len(workers))
        for worker in workers:
            worker.own_ns += each_ns
        workers[0].own_ns += rest_ns

    def _turn(self, at: int) -> None:
        """At each 10 ms: children whose time is over are replaced, the GPU's counter and samples move."""
        for player in self.alive():
            children = player.job.children
            if children is None:
                continue
            life = children.life_ms // GRID_MS
            for i, child in enumerate(player.slots):
                if (at + i * life // len(player.slots)) % life == 0:
                    self._exit(child)
                    player.slots[i] = self._child(player)
        if self.driver is None:
            return
        at_ms = at * GRID_MS
        if at_ms % GPU_REFRESH_MS == GPU_REFRESH_AT_MS:
            for gpu, energy_fj in zip(self.driver.gpus, self.gpu_fj, strict=True):
                gpu.energy_uj = energy_fj // FJ_PER_UJ
        if at_ms % GPU_SAMPLE_MS == GPU_SAMPLE_AT_MS:
            self._sample()
        self._show_activity()

    def _sample(self) -> None:
        """As the driver does: the mean SM use since its last sample, in whole percent."""
        assert self.driver is not None
        stamp_us = self.now_ns // 1000 + 1_000_000
        for n, gpu in enumerate(self.driver.gpus):
            for player in self.holders(n):
                assert player.root is not None
                player.sm_last = round(player.sm_ns * 100 / (GPU_SAMPLE_MS * MS))
                player.sm_ns = 0
                if player.sm_last and not self.scenario.gpus[n].slices:  # under MIG there are none (nvml.h)
                    self._samples[n].append(Sample(player.root.pid, stamp_us, player.sm_last))
            gpu.samples(*self._samples[n])

    def _show_contexts(self) -> None:
        for n, gpu in enumerate(self.driver.gpus if self.driver is not None else ()):
            contexts = [
                Context(p.root.pid, 8 << 30, instance=p.job.gpu.instance)
                for p in self.holders(n)
                if p.root is not None and p.job.gpu is not None
            ]
            gpu.processes(*contexts)
        self._show_activity()

    def _show_activity(self) -> None:
        """How busy the instances are from now on."""
        for n, law in enumerate(self.scenario.gpus):
            if not law.slices or self.driver is None:
                continue
            self._advance_driver()
            use = {p.job.gpu.instance: p.sm_load[self.now_ns // GRID_NS] for p in self.holders(n) if p.job.gpu}
            for instance in range(len(law.slices)):
                self.driver.gpus[n].activity(instance, use.get(instance, 0) / 1000)

    def _advance_driver(self) -> None:
        if self.driver is not None:
            self.driver.advance(self.now_ns - self._driver_ns)
            self._driver_ns = self.now_ns

    def _remove(self, player: Player) -> None:
        """The kernel answers ENODEV on a kept counter of a removed cgroup; a file says what it last said."""
        self.cgroups.flush()
        fd = os.open(self.cgroups.folder(player.path) / "cpu.stat", os.O_RDWR | os.O_CLOEXEC)
        self.cgroups.remove(player.path)
        os.pwrite(fd, b"usage_usec %020d\n" % (player.seen_ns // 1000), 0)
        os.close(fd)

    def _child(self, player: Player) -> Process:
        assert player.root is not None
        player.root.own_ns += FORK_NS
        player.owed_ns += FORK_NS
        children = player.job.children
        child = self.kernel.fork(player.name, self.now_ns, player.root, 16 << 20)
        if children is not None and children.life_ms >= 1000:
            self._settle(child, player.path)  # what lives shorter nobody looks up
        return child

    def _settle(self, process: Process, path: str) -> None:
        """A process is in a cgroup, and root's."""
        self.cgroups.put(process.pid, path)
        (self.cgroups.proc / str(process.pid) / "status").write_text("Uid:\t0\t0\t0\t0\n")

    def _exit(self, process: Process) -> None:
        self.cgroups.end(process.pid)
        self.kernel.exit(process)

    def close(self) -> None:
        """Give the files back."""
        self.powercap.close()
        self.cgroups.close()
