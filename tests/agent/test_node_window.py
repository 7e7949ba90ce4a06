"""The node's own windows: closed rows by themselves add up to the node, over ends, restarts and renamed columns."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.powercap import PowercapTree

from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.schema import NODE_KEY

TERMS = ("operation", "cooling", "hardware")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = Bench(tmp_path, tree.add_package())
        made.open("[carbon]\nintensity_g_per_kwh = 400\npue = 1.5\n")
        yield made
        made.close()
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []


@pytest.fixture
def worker() -> Iterator[Worker]:
    started = Worker()
    yield started
    started.kill()


def closed(state: Path) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """What closed rows hold of jobs, of what nobody paid, and of the node: by domain or term."""
    jobs: Counter[str] = Counter()
    unpaid: Counter[str] = Counter()
    node: Counter[str] = Counter()
    with read_only(state) as ledger:
        for row in ledger.windows():
            for name, amount in json.loads(row.content).items():
                place = row.domain or name.rpartition(".")[2]
                if row.job_id != NODE_KEY:
                    if row.domain or name in TERMS:
                        jobs[place] += amount
                elif name.startswith("unattributed."):
                    unpaid[place] += amount
                else:
                    node[place] += amount
    return jobs, unpaid, node


def test_closed_rows_add_up_to_the_node(bench: Bench, worker: Worker, tmp_path: Path) -> None:
    bench.tick()
    bench.start("a", worker.pid)
    for _ in range(5):
        worker.burn()
        bench.tick()
    bench.restart()
    bench.tick()
    bench.end("a", worker.pid)
    for _ in range(5):
        bench.tick()
    bench.start("b", worker.pid)
    worker.burn()
    # To where a window ends by the clock: everything that is open is closed there.
    bench.tick(300 - bench.clock.unix_ns / 1e9 % 300)
    bench.node.flush()
    jobs, unpaid, node = closed(tmp_path / "state")
    assert set(node) == {"cpu", "dram", *TERMS}
    assert jobs["cpu"] > 0
    assert unpaid["cpu"] > 0
    assert jobs + unpaid == node
    bench.end("b", worker.pid)
    bench.tick()


def test_its_windows_follow_one_another_from_the_first_tick_on(bench: Bench, tmp_path: Path) -> None:
    """The first one too: what it cost is settled at the price of when it was used."""
    bench.tick()
    began_unix_ns = bench.clock.unix_ns
    for _ in range(3):
        bench.tick(300)
    bench.restart()
    bench.tick(300)
    bench.node.flush()
    with read_only(tmp_path / "state") as ledger:
        spans = {(row.window_start_unix_ns, row.window_end_unix_ns) for row in ledger.windows()}
    starts, ends = zip(*sorted(spans), strict=True)
    assert starts[0] <= began_unix_ns
    assert starts[1:] == ends[:-1]
    assert all(end - start >= 200_000_000_000 for start, end in spans)


def test_the_end_of_a_job_closes_the_nodes_window_but_not_each(bench: Bench, worker: Worker, tmp_path: Path) -> None:
    def windows() -> int:
        bench.node.flush()
        with read_only(tmp_path / "state") as ledger:
            return len({row.window_end_unix_ns for row in ledger.windows() if row.job_id == NODE_KEY})

    bench.tick()
    for number in range(8):
        bench.start(f"j{number}", worker.pid)
        worker.burn()
        bench.tick(0.5)
        bench.end(f"j{number}", worker.pid)
        bench.tick(0.5)
    assert 1 <= windows() <= 2
    for _ in range(12):
        bench.tick()
    before = windows()
    jobs, unpaid, node = closed(tmp_path / "state")
    assert jobs["cpu"] + unpaid["cpu"] == node["cpu"], "the last end is followed by a close, a little later"
    bench.start("last", worker.pid)
    worker.burn()
    bench.tick()
    bench.end("last", worker.pid)
    for _ in range(12):
        bench.tick()
    assert windows() == before + 1


def test_a_clock_that_was_set_back_leaves_no_window_open(bench: Bench, worker: Worker, tmp_path: Path) -> None:
    bench.tick()
    bench.start("a", worker.pid)
    for set_back_s in (0, 3 * 86_400, 0, 600):
        bench.clock.unix_ns -= set_back_s * 10**9
        worker.burn()
        bench.tick(300)
        bench.node.flush()
        jobs, unpaid, node = closed(tmp_path / "state")
        assert jobs + unpaid == node
        assert node["cpu"] == sum(uj for (kind, _, _), uj in bench.node.books.node_energy_uj.items() if kind == "cpu")
    bench.end("a", worker.pid)
    bench.tick()
