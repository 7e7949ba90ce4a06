"""A stand-in driver with a stopped clock, and the collector on top of it through the real binding."""

from collections.abc import Iterator

import pytest
from tests.doubles.nvml import MissingCompiler, NvmlDouble, in_process

from wattribute.agent.core.model import ProcessId
from wattribute.collectors.nvml import NvmlCollector


@pytest.fixture
def driver() -> Iterator[NvmlDouble]:
    """A driver with one H100 at 100 W and a stopped clock."""
    try:
        double = in_process()
    except MissingCompiler as missing:
        pytest.skip(str(missing))
    double.reset()
    double.freeze()
    yield double
    double.reset()


@pytest.fixture
def alive() -> dict[int, int]:
    """The processes that we can see: pid -> start time."""
    return dict.fromkeys(range(100, 200), 7)


@pytest.fixture
def collector(driver: NvmlDouble, alive: dict[int, int]) -> Iterator[NvmlCollector]:
    opened = NvmlCollector(
        clock=driver.now_ns,
        identify=lambda pid: ProcessId(pid, alive[pid]) if pid in alive else None,
        library=str(driver.library),
    )
    yield opened
    opened.close()
