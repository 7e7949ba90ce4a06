"""All scenarios. They stand before the code that has to pass them: a scenario is added, never tuned."""

from benchmarks.truthbench.gpu_scenarios import GPU_SCENARIOS
from benchmarks.truthbench.host_scenarios import HOST_SCENARIOS

SCENARIOS = (*HOST_SCENARIOS, *GPU_SCENARIOS)
