"""Scenarios of GPUs, sampled every 100 ms: alone, shared, with idle contexts, partitioned."""

from benchmarks.truthbench.scenario import Bursts, GpuLaw, GpuUse, Job, Scenario, Steady

GPU_SCENARIOS: tuple[Scenario, ...] = (
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
        name="MIG with GPM",
        seed=128,
        about="instances of four and three slices, constant and bursty; the driver tells how busy each was",
        duration_ms=45_000,
        interval_s=0.1,
        gpus=(GpuLaw(slices=(4, 3), gpm=True),),
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
                start_ms=8_050,
                end_ms=36_090,
                load=Steady(cores=1),
                gpu=GpuUse(instance=1, sm=Bursts(low=0.1, high=0.9, mean_ms=1_200)),
            ),
        ),
    ),
)
