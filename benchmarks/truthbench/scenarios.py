"""The scenarios and their seeds, as data: nodes, what runs on them, and what happens to them.

They stand before the code that has to pass them; a scenario is added, never tuned. Times are simulated milliseconds,
power is watts, cores are CPUs kept busy. What a job uses at each moment comes from the scenario's seed alone.
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

    A GPU with `slices` is partitioned (MIG): the use of an instance counts by its part of the slices.
    """

    idle_w: float = 70.0
    full_w: float = 500.0
    exponent: float = 1.0
    context_w: float = 0.0
    slices: tuple[int, ...] = ()  # compute slices of each instance, of seven


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


def _shorts() -> tuple[Job, ...]:
    spans = ((3_137, 3_257), (5_904, 6_411), (9_020, 9_701), (12_333, 12_633), (12_450, 13_140), (17_999, 18_191))
    return tuple(
        Job(name=f"short-{end - start}ms", start_ms=start, end_ms=end, load=Steady(cores=cores))
        for (start, end), cores in zip(spans, (1, 2, 8, 1, 4, 0.5), strict=True)
    )


STEADY = Job(name="steady", start_ms=5_000, end_ms=65_000, load=Steady(cores=8))

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="steady",
        seed=101,
        about="two jobs at constant load, one registered, one found by its cgroup",
        duration_ms=75_000,
        jobs=(STEADY, Job(name="found", start_ms=10_000, end_ms=70_000, load=Steady(cores=4), runs="cgroup")),
    ),
    Scenario(
        name="bursty",
        seed=102,
        about="three jobs that come and go within ticks",
        duration_ms=75_000,
        jobs=(
            Job(name="fast", start_ms=4_321, end_ms=64_321, load=Bursts(high=16, mean_ms=300)),
            Job(name="slow", start_ms=8_111, end_ms=70_777, load=Bursts(low=1, high=8, mean_ms=4_000)),
            Job(name="walk", start_ms=2_002, end_ms=60_606, load=Wander(high=6, every_ms=500), runs="cgroup"),
        ),
    ),
    Scenario(
        name="short children",
        seed=103,
        about="a build: four children at once, 60 ms each, beside a steady job",
        duration_ms=60_000,
        jobs=(
            Job(
                name="build",
                start_ms=5_500,
                end_ms=45_500,
                load=Steady(cores=4),
                children=Children(life_ms=60, at_once=4),
            ),
            Job(name="steady", start_ms=2_000, end_ms=55_000, load=Steady(cores=4)),
        ),
    ),
    Scenario(
        name="fork storm",
        seed=104,
        about="sixteen children at once that live 10 ms, beside a steady job",
        duration_ms=60_000,
        jobs=(
            Job(
                name="storm",
                start_ms=6_250,
                end_ms=46_250,
                load=Steady(cores=12),
                children=Children(life_ms=10, at_once=16),
            ),
            Job(name="steady", start_ms=2_000, end_ms=55_000, load=Steady(cores=4)),
        ),
    ),
    Scenario(
        name="shorter than a tick",
        seed=105,
        about="registered jobs of 120 to 690 ms, two of them overlapping",
        duration_ms=40_000,
        jobs=_shorts(),
    ),
    Scenario(
        name="mid-window",
        seed=106,
        about="jobs that begin and end between ticks",
        duration_ms=60_000,
        jobs=(
            Job(name="a", start_ms=3_337, end_ms=24_891, load=Steady(cores=6)),
            Job(name="b", start_ms=9_713, end_ms=14_219, load=Steady(cores=12)),
            Job(name="c", start_ms=30_501, end_ms=52_498, load=Wander(low=1, high=8, every_ms=700), runs="cgroup"),
        ),
    ),
    Scenario(
        name="pid reuse",
        seed=107,
        about="a kernel with 300 pids: those of ended jobs come back in other jobs and in strangers within seconds",
        duration_ms=75_000,
        pid_max=300,
        jobs=(
            Job(
                name="first",
                start_ms=3_000,
                end_ms=23_000,
                load=Steady(cores=4),
                children=Children(life_ms=110, at_once=4),
            ),
            Job(
                name="second",
                start_ms=24_500,
                end_ms=64_500,
                load=Steady(cores=6),
                children=Children(life_ms=2_900, at_once=6),
            ),
            Job(
                name="strangers",
                start_ms=1_000,
                end_ms=72_000,
                load=Steady(cores=3),
                runs="tenant",
                children=Children(life_ms=70, at_once=3),
            ),
        ),
    ),
    Scenario(name="idle node", seed=108, about="nothing runs but the agent", duration_ms=60_000, jobs=()),
    Scenario(
        name="quarter of the cores",
        seed=109,
        about="one job keeps 16 of 64 cores busy, on two sockets, with nothing else",
        duration_ms=75_000,
        packages=(PackageLaw(idle_w=60, w_per_core=4), PackageLaw(idle_w=60, w_per_core=4)),
        cores=64,
        jobs=(Job(name="quarter", start_ms=5_000, end_ms=65_000, load=Steady(cores=16), runs="cgroup"),),
    ),
    Scenario(
        name="turbo",
        seed=110,
        about="each further core costs less (u ** 0.8)",
        duration_ms=75_000,
        packages=(PackageLaw(w_per_core=14, exponent=0.8),),
        jobs=(
            Job(name="large", start_ms=5_000, end_ms=65_000, load=Steady(cores=16)),
            Job(name="small", start_ms=15_000, end_ms=55_000, load=Steady(cores=2)),
            Job(name="late", start_ms=35_000, end_ms=70_000, load=Bursts(low=2, high=10, mean_ms=2_000)),
        ),
        cause="nonlinear law: the first core's dearer watts go to all by CPU time",
        bounds={"host": 0.25},
    ),
    Scenario(
        name="uncore wakes",
        seed=111,
        about="the first busy core wakes 25 W of the package",
        duration_ms=75_000,
        packages=(PackageLaw(wake_w=25),),
        jobs=(
            Job(name="large", start_ms=5_000, end_ms=65_000, load=Steady(cores=12)),
            Job(name="small", start_ms=20_000, end_ms=60_000, load=Steady(cores=1)),
        ),
        cause="nonlinear law: waking the package is shared equally in truth, by CPU time here",
        bounds={"host": 1.0},
    ),
    Scenario(
        name="unlike sockets",
        seed=112,
        about="one job on each socket, and the second socket costs half more per core",
        duration_ms=75_000,
        packages=(PackageLaw(w_per_core=6), PackageLaw(w_per_core=9)),
        cores=64,
        jobs=(
            Job(name="on-0", start_ms=5_000, end_ms=65_000, load=Steady(cores=8), socket=0),
            Job(name="on-1", start_ms=5_000, end_ms=65_000, load=Steady(cores=8), socket=1),
        ),
        cause="all sockets are split by the same CPU time",
        bounds={"host": 0.5},
    ),
    Scenario(
        name="memory-bound",
        seed=113,
        about="equal CPU time; one job streams through memory, the other computes in cache",
        duration_ms=75_000,
        packages=(PackageLaw(dram_w_per_core=1.5),),
        jobs=(
            Job(name="stream", start_ms=5_000, end_ms=65_000, load=Steady(cores=8), dram=2.0, memory_gib=64),
            Job(name="cache", start_ms=5_000, end_ms=65_000, load=Steady(cores=8), dram=0.1, memory_gib=2),
        ),
        cause="DRAM energy is split by CPU time, as a proxy",
        bounds={"host": 0.5},
    ),
    Scenario(
        name="GPU, one job each",
        seed=114,
        about="two GPUs, a job on each, constant and bursty",
        duration_ms=45_000,
        interval_s=0.1,
        gpus=(GpuLaw(), GpuLaw()),
        jobs=(
            Job(
                name="train",
                start_ms=4_000,
                end_ms=40_000,
                load=Steady(cores=1),
                gpu=GpuUse(sm=Steady(cores=0.8)),
            ),
            Job(
                name="serve",
                start_ms=6_430,
                end_ms=38_210,
                load=Steady(cores=1),
                gpu=GpuUse(gpu=1, sm=Bursts(low=0.02, high=0.6, mean_ms=900)),
            ),
        ),
    ),
    Scenario(
        name="GPU shared by two",
        seed=115,
        about="two jobs on one GPU at different SM use, one of them in bursts",
        duration_ms=45_000,
        interval_s=0.1,
        gpus=(GpuLaw(),),
        jobs=(
            Job(
                name="train",
                start_ms=4_000,
                end_ms=40_000,
                load=Steady(cores=1),
                gpu=GpuUse(sm=Steady(cores=0.45)),
            ),
            Job(
                name="serve",
                start_ms=8_760,
                end_ms=36_540,
                load=Steady(cores=1),
                gpu=GpuUse(sm=Bursts(low=0.05, high=0.5, mean_ms=1_500)),
            ),
        ),
    ),
    Scenario(
        name="GPU contexts",
        seed=116,
        about="holding a context lifts the GPU by 45 W, which its two holders share",
        duration_ms=45_000,
        interval_s=0.1,
        gpus=(GpuLaw(context_w=45.0),),
        jobs=(
            Job(
                name="busy",
                start_ms=4_000,
                end_ms=40_000,
                load=Steady(cores=1),
                gpu=GpuUse(sm=Steady(cores=0.6)),
            ),
            Job(
                name="waits",
                start_ms=10_000,
                end_ms=30_000,
                load=Steady(cores=0.1),
                gpu=GpuUse(sm=Bursts(low=0.0, high=0.1, mean_ms=2_000)),
            ),
        ),
        cause="nonlinear law: what holding a context costs goes by SM time while anyone computes",
        bounds={"gpu": 1.0},
    ),
    Scenario(
        name="MIG",
        seed=117,
        about="instances of four and three slices, a job in each",
        duration_ms=45_000,
        interval_s=0.1,
        gpus=(GpuLaw(slices=(4, 3)),),
        jobs=(
            Job(
                name="four",
                start_ms=4_000,
                end_ms=40_000,
                load=Steady(cores=1),
                gpu=GpuUse(instance=0, sm=Steady(cores=0.7)),
            ),
            Job(
                name="three",
                start_ms=8_000,
                end_ms=36_000,
                load=Steady(cores=1),
                gpu=GpuUse(instance=1, sm=Steady(cores=0.9)),
            ),
        ),
        cause="the driver gives no SM time of instances: held slices stand for use",
        bounds={"gpu": 0.5},
    ),
    Scenario(
        name="counter wraps",
        seed=118,
        about="a range of 3 kJ: every counter starts over many times",
        duration_ms=75_000,
        range_uj=3_000_000_000,
        jobs=(STEADY, Job(name="burst", start_ms=7_770, end_ms=69_990, load=Bursts(high=10, mean_ms=2_000))),
    ),
    Scenario(
        name="counter reset",
        seed=119,
        about="all counters fall to 0 once, half a second after a tick",
        duration_ms=75_000,
        resets_ms=(33_500,),
        jobs=(STEADY, Job(name="other", start_ms=7_000, end_ms=70_000, load=Steady(cores=4))),
        cause="what was used between the last read and the reset is lost; the rest of that window is a gap with bounds",
        bounds={"host": 0.025},
    ),
    Scenario(
        name="agent restarted",
        seed=120,
        about="away for 3.2 s in the middle of two jobs",
        duration_ms=75_000,
        restarts=(Restart(at_ms=30_400, away_ms=3_200),),
        jobs=(
            STEADY,
            Job(name="found", start_ms=8_000, end_ms=70_000, load=Wander(low=1, high=9, every_ms=900), runs="cgroup"),
        ),
    ),
    Scenario(
        name="agent killed",
        seed=121,
        about="killed twice, away for 0.7 and 6 s",
        duration_ms=75_000,
        restarts=(
            Restart(at_ms=21_650, away_ms=700, killed=True),
            Restart(at_ms=40_000, away_ms=6_000, killed=True),
        ),
        jobs=(STEADY, Job(name="other", start_ms=7_000, end_ms=70_000, load=Bursts(low=1, high=5, mean_ms=1_200))),
    ),
    Scenario(
        name="idle to be learnt",
        seed=122,
        about="idle power isn't configured; the node is quiet for 20 s, then loaded",
        duration_ms=120_000,
        idle="learn",
        jobs=(
            Job(name="steady", start_ms=20_000, end_ms=110_000, load=Steady(cores=8)),
            Job(name="small", start_ms=30_000, end_ms=100_000, load=Steady(cores=2), runs="cgroup"),
        ),
    ),
    Scenario(
        name="never idle",
        seed=123,
        about="idle power isn't configured, and somebody computes all the time",
        duration_ms=180_000,
        idle="learn",
        jobs=(
            Job(
                name="always", start_ms=500, end_ms=179_500, load=Wander(low=2, high=12, every_ms=3_000), runs="tenant"
            ),
            Job(name="job", start_ms=60_000, end_ms=150_000, load=Steady(cores=6)),
        ),
        cause="idle power is inferred from how power follows load: it was never seen",
        bounds={"host": 0.1},
    ),
    Scenario(
        name="noise and jitter",
        seed=124,
        about="counters move every 1 ms with 2 % noise, ticks come up to 40 ms late",
        duration_ms=75_000,
        step_us=1_000,
        noise=0.02,
        jitter_ms=40,
        jobs=(
            Job(name="steady", start_ms=5_005, end_ms=65_065, load=Steady(cores=6)),
            Job(name="burst", start_ms=7_777, end_ms=66_666, load=Bursts(high=8, mean_ms=700)),
        ),
    ),
    Scenario(
        name="other tenants",
        seed=125,
        about="strangers and system daemons compute beside two jobs",
        duration_ms=75_000,
        jobs=(
            Job(name="registered", start_ms=5_000, end_ms=65_000, load=Steady(cores=5)),
            Job(name="found", start_ms=9_000, end_ms=69_000, load=Wander(high=8, every_ms=1_100), runs="cgroup"),
            Job(name="tenant", start_ms=1_000, end_ms=72_000, load=Bursts(high=12, mean_ms=2_500), runs="tenant"),
            Job(name="daemons", start_ms=100, end_ms=74_900, load=Wander(high=0.6, every_ms=400), runs="daemon"),
        ),
    ),
    Scenario(
        name="children at 10 Hz",
        seed=126,
        about="the same build and the steady job beside it, with an agent that ticks every 100 ms",
        duration_ms=60_000,
        interval_s=0.1,
        jobs=(
            Job(
                name="build",
                start_ms=5_500,
                end_ms=45_500,
                load=Steady(cores=4),
                children=Children(life_ms=60, at_once=4),
            ),
            Job(name="steady", start_ms=2_000, end_ms=55_000, load=Steady(cores=4)),
        ),
    ),
    Scenario(
        name="twenty minutes",
        seed=127,
        about="jobs so long that what a slow sampler misses at their ends no longer counts",
        duration_ms=1_250_000,
        jobs=(
            Job(name="steady", start_ms=10_000, end_ms=1_210_000, load=Steady(cores=8)),
            Job(name="walk", start_ms=20_000, end_ms=1_220_000, load=Wander(low=1, high=12, every_ms=5_000)),
        ),
    ),
)
