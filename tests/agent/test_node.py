"""A node on real processes: what it shows adds up and never falls, through holds, restarts and other boots."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.powercap import PowercapTree

from wattribute.agent.ledger.reader import read_only

HOLD_1 = "[export]\nhold_s = 1\n"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = Bench(tmp_path, tree.add_package())
        yield made
        made.close()
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started = [Worker() for _ in range(3)]
    yield started
    for worker in started:
        worker.kill()


def test_what_is_shown_stays_whole_while_a_job_retires(bench: Bench, workers: list[Worker]) -> None:
    """What happens to a job isn't shown before the totals that go with it are."""
    bench.open("[export]\nhold_s = 1\nexport_age_s = 5\n")
    bench.tick()
    bench.start("a", workers[0].pid)
    for second in range(20):
        if second == 6:
            bench.end("a", workers[0].pid)
        if second < 6:
            workers[0].burn()
        bench.tick()
        bench.page(whole=second > 6)
    assert bench.joules("_retired") > 0
