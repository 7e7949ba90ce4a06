"""What a job uses at each moment, from the scenario's seed alone: thousandths of a core (or of a GPU) per 10 ms."""

from random import Random

from benchmarks.truthbench.scenario import Bursts, Load, Steady

GRID_MS = 10


def series(load: Load, seed: str, duration_ms: int) -> list[int]:
    """One value for each 10 ms of the whole scenario. The same seed gives the same values."""
    random = Random(seed)
    steps = duration_ms // GRID_MS + 1
    if isinstance(load, Steady):
        return [round(load.cores * 1000)] * steps
    values: list[int] = []
    if isinstance(load, Bursts):
        high = random.random() < 0.5
        while len(values) < steps:
            level = load.high if high else load.low
            values += [round(level * 1000)] * max(1, round(random.expovariate(1 / load.mean_ms) / GRID_MS))
            high = not high
        return values[:steps]
    level = random.uniform(load.low, load.high)
    while len(values) < steps:
        values += [round(level * 1000)] * (load.every_ms // GRID_MS)
        level += random.gauss(0, (load.high - load.low) / 4)
        level = min(max(level, load.low), load.high)
    return values[:steps]
