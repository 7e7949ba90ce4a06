"""A machine that stood still: suspended, or paused by its hypervisor."""

from tests.agent.test_node import bench, workers
from tests.doubles.node_bench import Bench, S, Worker

from wattribute.agent.pauses import Pauses

__all__ = ["bench", "workers"]  # fixtures


def test_clocks_that_go_together_tell_nothing() -> None:
    pauses = Pauses(5)
    for second in range(5):
        assert pauses.see(second * S, 1_700_000_000 * S + second * S + second * 1000, 5) == []


def test_suspend_and_a_stepped_clock_are_told_apart() -> None:
    pauses = Pauses(0)
    pauses.see(0, 100 * S, 0)
    (suspended,) = pauses.see(61 * S, 161 * S, 60 * S)
    assert str(suspended["start"]).startswith("1970-01-01T00:01:41")
    assert "suspended for 60.0 s" in str(suspended["cause"])
    (stepped,) = pauses.see(62 * S, 192 * S, 60 * S)
    assert "+30.0 s" in str(stepped["cause"])
    (back,) = pauses.see(63 * S, 163 * S, 60 * S)
    assert back["start"] == back["end"]
    assert pauses.see(64 * S, 164 * S, 60 * S) == []


def test_a_suspended_machine_draws_no_idle_power(bench: Bench, workers: list[Worker]) -> None:
    """10 W idle is configured: an hour asleep with 5 J on the counter isn't an hour of idle power."""
    bench.open()
    bench.tick()
    bench.start("a", workers[0].pid)
    workers[0].burn(0.05)
    before_j = bench.receipt("a")["energy_j"]["cpu"]
    bench.clock.suspended_ns += 3599 * S
    bench.clock.pass_(3599)
    bench.tick(1.0, 30_000_000)
    receipt = bench.receipt("a")
    assert receipt["energy_j"]["cpu"]["direct"] > before_j["direct"] + 1  # what ran is told from idle as ever
    assert [("suspended" in gap["cause"]) for gap in receipt["gaps"]] == [True]
    bench.page()
