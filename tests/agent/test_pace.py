"""Commits come as often as they cost little: at 0.1 % of a core, however many jobs there are."""

import threading
from collections import Counter

import pytest
from tests.agent.test_node import bench, workers
from tests.doubles.node_bench import Bench, S, Worker

from wattribute.agent.pace import EARNED_PPM, LEAST_NS, MOST_NS, Pace

__all__ = ["bench", "workers"]  # fixtures

MS = 1_000_000


@pytest.mark.parametrize("cost_ns", [100_000, 800_000, 3 * MS, 5 * MS, 9 * MS])
@pytest.mark.parametrize("interval_ns", [S, S // 10])
def test_commits_cost_their_part_of_a_core_at_most(cost_ns: int, interval_ns: int) -> None:
    pace, used_ns, taken_ns, now_ns, waits_ns = Pace(), 0, 0, 1000 * S, []
    begun_ns = taken_ns = now_ns
    while now_ns < begun_ns + 3600 * S:
        now_ns += interval_ns
        if pace.due(now_ns, now_ns - taken_ns, used_ns):
            used_ns += cost_ns
            waits_ns.append(now_ns - taken_ns)
            taken_ns = now_ns
    assert used_ns <= 3600 * S * EARNED_PPM // 1_000_000 + MOST_NS + cost_ns
    assert min(waits_ns) >= LEAST_NS
    assert max(waits_ns) <= max(LEAST_NS, cost_ns * 1_000_000 // EARNED_PPM) + interval_ns
    # No more is held back than it must be.
    assert len(waits_ns) >= 3600 * S // (max(LEAST_NS, cost_ns * 1_000_000 // EARNED_PPM) + interval_ns)


def test_a_page_is_never_held_back_for_long() -> None:
    pace = Pace()
    assert pace.due(S, S, 0)
    assert not pace.due(2 * S, S, 3600 * S)
    assert not pace.due(11 * S - 1, 10 * S, 3600 * S)
    assert pace.due(12 * S, 11 * S, 3600 * S)
    assert not pace.due(12 * S + 1, LEAST_NS - 1, 3600 * S)


def test_a_full_node_commits_less_often_but_starts_and_ends_at_once(
    bench: Bench, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu_ns: Counter[int] = Counter()

    def costly() -> int:
        """By thread. Asked at both ends of a taking, and after each commit: 3 ms for each of the two."""
        thread = threading.get_ident()
        cpu_ns[thread] += 3 * MS
        return cpu_ns[thread]

    monkeypatch.setattr("time.thread_time_ns", costly)
    bench.open("")
    bench.tick()
    bench.start("a", workers[0].pid)
    commits = []
    for _ in range(40):
        workers[0].burn(0.001)
        before = bench.node.record.committed
        bench.tick()
        commits.append(_committed(bench) > before)
    every_s = 6 * MS * 1_000_000 // EARNED_PPM // S
    assert 40 // every_s <= sum(commits) <= 40 // every_s + MOST_NS // (6 * MS) + 1
    assert bench.node.receipt("a") is not None
    for number in range(3):
        before = bench.node.record.committed
        bench.start(f"b{number}", workers[1].pid, f"m{number}")
        assert _committed(bench) > before
        before = bench.node.record.committed
        bench.end(f"b{number}", workers[1].pid, f"m{number}")
        assert _committed(bench) > before
    bench.page()


def test_what_was_not_committed_is_counted_after_a_kill(
    bench: Bench, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counters and the job's own go on from the last commit: one longer window, and nothing is lost."""
    bench.open("")
    bench.tick()
    bench.start("a", workers[0].pid)
    bench.page()
    monkeypatch.setattr(Pace, "due", lambda *_: False)
    for _ in range(5):
        workers[0].burn()
        bench.tick()
    before = bench.receipt("a")["cpu_s"]
    bench.node.close()  # as kill -9: the last ticks were never taken
    bench.open()
    bench.tick(0)
    assert bench.receipt("a")["cpu_s"] == pytest.approx(before, abs=0.02)
    bench.page()
    bench.tick(0)
    assert bench.joules("a") > 0


def _committed(bench: Bench) -> int:
    """Sequence number of what was committed, after what was handed over is."""
    bench.node.record.flush(5.0)
    return bench.node.record.committed
