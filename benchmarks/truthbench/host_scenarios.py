"""Scenarios of packages and DRAM: which jobs run on which laws, and what befalls counters, kernel and agent."""

from benchmarks.truthbench.scenario import Bursts, Children, Job, PackageLaw, Restart, Scenario, Steady, Wander


def _shorts() -> tuple[Job, ...]:
    spans = ((3_137, 3_257), (5_904, 6_411), (9_020, 9_701), (12_333, 12_633), (12_450, 13_140), (17_999, 18_191))
    return tuple(
        Job(name=f"short-{end - start}ms", start_ms=start, end_ms=end, load=Steady(cores=cores))
        for (start, end), cores in zip(spans, (1, 2, 8, 1, 4, 0.5), strict=True)
    )


STEADY = Job(name="steady", start_ms=5_000, end_ms=65_000, load=Steady(cores=8))

HOST_SCENARIOS: tuple[Scenario, ...] = (
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
