"""A powercap double that follows the node's CPU time, and an agent on it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.doubles.powercap import PowercapTree, Zone
from tests.doubles.powerlaws import CpuLaw, node_cpu_ns
from tests.e2e.running import IDLE_W, W_PER_CORE, RunningAgent


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Zone]:
    """One package of IDLE_W + W_PER_CORE per busy core, whose counter advances until the test's end."""
    with PowercapTree(tmp_path / "sys") as tree:
        zone = tree.add_zone("package-0", limits_uw=(200_000_000,))
        with tree.running({zone: CpuLaw(IDLE_W, W_PER_CORE, node_cpu_ns())}):
            yield zone


@pytest.fixture
def start_agent(tmp_path: Path, package: Zone) -> Iterator[Callable[..., RunningAgent]]:
    """Starts an agent on the double; it is killed at the end."""
    with ExitStack() as stack:

        def start(*, interval_s: float = 1.0, more: str = "") -> RunningAgent:
            agent = RunningAgent(tmp_path, tmp_path / "sys", interval_s=interval_s, more=more)
            stack.callback(agent.close)
            agent.start()
            return agent

        yield start
