"""What a scenario is: a node and its laws, what runs on it, and what happens to it.

Times are simulated milliseconds, power is watts, cores are CPUs kept busy. What a job uses at each moment comes from
the scenario's seed alone.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageLaw:
    """Power of one socket with u busy cores: idle_w + (wake_w if u > 0) + w_per_core * u ** exponent."""

    idle_w: float = 40.0
    w_per_core: float = 8.0
    exponent: float = 1.0
    wake_w: float = 0.0
    dram_idle_w: float = 6.0
    dram_w_per_core: float = 1.0  # times a job's `dram`

    @property
    def linear(self) -> bool:
        return self.exponent == 1.0 and self.wake_w == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuLaw:
    """Power of one GPU at SM use s (0..1): idle_w + (context_w if anyone holds it) + full_w * s ** exponent.

    A GPU with `slices` is partitioned (MIG): the use of an instance counts by its part of the slices. `gpm`: the driver
    tells how busy each instance's SMs were (Hopper and newer).
    """

    idle_w: float = 70.0
    full_w: float = 500.0
    exponent: float = 1.0
    context_w: float = 0.0
    slices: tuple[int, ...] = ()  # compute slices of each instance, of seven
    gpm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """So many cores, all the time."""

    cores: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Between `low` and `high` cores by turns; each turn lasts mean_ms on average (exponentially distributed)."""

    low: float = 0.0
    high: float
    mean_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wander:
    """A random walk between `low` and `high` cores, with a new value every `every_ms`."""

    low: float = 0.0
    high: float
    every_ms: int


Load: TypeAlias = Steady | Bursts | Wander
Runs: TypeAlias = Literal["registered", "cgroup", "tenant", "daemon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """The load is carried by children that live for `life_ms` each, `at_once` of them, replaced as they end."""

    life_ms: int
    at_once: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """SM use of one GPU (or of one instance of it) as a part of it, 0..1; the context is held as long as the job."""

    sm: Load
    gpu: int = 0
    instance: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something that runs. `registered`: a process tree that says so; `cgroup`: found by its cgroup; a `tenant` is
    nobody's job, a `daemon` lives in system.slice. `socket` None: spread evenly over all.
    """

    name: str
    start_ms: int
    end_ms: int
    load: Load
    runs: Runs = "registered"
    children: Children | None = None
    socket: int | None = None
    memory_gib: float = 4.0
    dram: float = 1.0
    gpu: GpuUse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """The agent is away for a while; `killed`: without a word."""

    at_ms: int
    away_ms: int
    killed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row group of the table. Jobs run from `start_ms` to `end_ms`, the whole for `duration_ms`.

    `range_uj` is where counters wrap; `resets_ms` are moments at which they fall to 0; `step_us` is how often a counter
    moves, `noise` the standard deviation of what each move adds, as a part of it, `jitter_ms` how late ticks come, at
    most; `pid_max` is where pids start over.
    """

    name: str
    seed: int
    about: str
    duration_ms: int
    jobs: tuple[Job, ...]
    packages: tuple[PackageLaw, ...] = (PackageLaw(),)
    cores: int = 32
    memory_gib: float = 256.0
    gpus: tuple[GpuLaw, ...] = ()
    interval_s: float = 1.0
    idle: Literal["configured", "learn"] = "configured"
    range_uj: int = 262_143_328_850
    resets_ms: tuple[int, ...] = ()
    restarts: tuple[Restart, ...] = ()
    step_us: int = 0
    noise: float = 0.0
    jitter_ms: int = 0
    pid_max: int = 4_194_304
    cause: str = ""  # why we may be off, where the law or the sensor makes it so
    bounds: dict[str, float] = field(
        default_factory=dict
    )  # largest error on the host (package + DRAM) or "gpu", where it isn't 1 or 3 %

    @property
    def linear(self) -> bool:
        """Whether each job's energy is proportional to what it used, with the same factor for all."""
        laws = self.packages
        alike = all(
            (law.w_per_core, law.dram_w_per_core) == (laws[0].w_per_core, laws[0].dram_w_per_core) for law in laws
        )
        return alike and all(law.linear for law in laws) and len({job.dram for job in self.jobs}) <= 1
