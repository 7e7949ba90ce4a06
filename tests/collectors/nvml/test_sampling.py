"""SM time against a driver that samples at moments of its own: how close to the truth, over minutes and per tick."""

from collections.abc import Callable
from random import Random

import pytest
from tests.collectors.nvml.pick import S, busy
from tests.doubles.nvml import NvmlDouble
from tests.doubles.nvml_sampling import SmSampler

from wattribute.agent.core.model import ProcessId, UsageReading
from wattribute.collectors.nvml import NvmlCollector

MS = 1_000_000
A, B = ProcessId(100, 7), ProcessId(101, 7)

Draw = Callable[[Random], int]


def every(period_ns: int) -> Draw:
    """A period of the product, with 10 % of jitter."""
    return lambda random: round(period_ns * random.uniform(0.9, 1.1))


def anywhere(random: Random) -> int:
    """As far apart as any product has them."""
    return random.randint(S // 6, S)


DRAWS = pytest.mark.parametrize(
    "draw", [every(S // 6), every(S // 2), every(S * 9 // 10), anywhere], ids=["sixth", "half", "second", "anywhere"]
)


@DRAWS
@pytest.mark.parametrize("read_ns", [100 * MS, S], ids=["100 ms", "1 s"])
@pytest.mark.parametrize("percent", [100, 37])
@pytest.mark.parametrize("seed", range(4))
def test_a_steady_process_is_counted_within_one_percent(
    driver: NvmlDouble, collector: NvmlCollector, draw: Draw, read_ns: int, percent: int, seed: int
) -> None:
    sampler = SmSampler(driver, driver.gpus[0], draw, seed=seed)
    sampler.load(A.pid, percent)
    sampler.advance(3 * S + seed * 77 * MS)  # it ran before we came
    collector.read()
    before_ns = sampler.busy_ns(A.pid)
    last_ns = 0
    for _ in range(60 * S // read_ns):
        sampler.advance(read_ns)
        spent_ns = busy(collector.read())[A]
        assert spent_ns >= last_ns
        last_ns = spent_ns
    assert last_ns == pytest.approx(sampler.busy_ns(A.pid) - before_ns, rel=0.01)


@DRAWS
@pytest.mark.parametrize("read_ns", [100 * MS, S], ids=["100 ms", "1 s"])
@pytest.mark.parametrize("in_step", [False, True], ids=["each at its own time", "in step"])
@pytest.mark.parametrize("merged", [False, True], ids=["all samples", "one per process"])
def test_two_processes_keep_their_proportion(
    driver: NvmlDouble, collector: NvmlCollector, draw: Draw, read_ns: int, in_step: bool, merged: bool
) -> None:
    sampler = SmSampler(driver, driver.gpus[0], draw, seed=5, in_step=in_step, merged=merged)
    sampler.load(A.pid, 70)
    sampler.load(B.pid, 20)
    sampler.advance(2 * S)
    collector.read()
    for _ in range(20 * S // read_ns):
        sampler.advance(read_ns)
        spent = busy(collector.read())
    assert spent[A] == pytest.approx(14 * S, rel=0.03)
    assert spent[B] == pytest.approx(4 * S, rel=0.03)


@pytest.mark.parametrize("draw", [every(S // 6), every(S // 2), every(S * 9 // 10)], ids=["sixth", "half", "second"])
def test_each_tick_is_split_by_use_not_by_whose_sample_came(
    driver: NvmlDouble, collector: NvmlCollector, draw: Draw
) -> None:
    """A tick's energy is split by what use grew in it, so growth must be there in every tick, not once a sample."""
    sampler = SmSampler(driver, driver.gpus[0], draw, seed=9)
    sampler.load(A.pid, 70)
    sampler.load(B.pid, 20)
    sampler.advance(2 * S)
    before = busy(collector.read())
    a_share = ticks = 0.0
    for tick in range(220):
        sampler.advance(100 * MS)
        now = busy(collector.read())
        a_ns, b_ns = now[A] - before[A], now[B] - before[B]
        before = now
        if tick >= 20:
            ticks += 1
            a_share += a_ns / (a_ns + b_ns) if a_ns + b_ns else 0.5
    assert a_share / ticks == pytest.approx(7 / 9, rel=0.03)


@pytest.mark.parametrize("read_ns", [100 * MS, S], ids=["100 ms", "1 s"])
def test_bursts_of_a_process_beside_a_steady_one_are_not_stretched(
    driver: NvmlDouble, collector: NvmlCollector, read_ns: int
) -> None:
    """Busy for 0.5 s of each 3 s: a sample after silence is one sample's worth, not all of the silence."""
    sampler = SmSampler(driver, driver.gpus[0], every(S // 6), seed=3, in_step=True)
    sampler.load(A.pid, 60)
    sampler.load(B.pid, 0)
    sampler.advance(S)
    collector.read()
    for step in range(60 * S // read_ns):
        sampler.load(B.pid, 80 if step * read_ns % (3 * S) < S // 2 else 0)
        sampler.advance(read_ns)
        spent = busy(collector.read())
    assert spent[A] == pytest.approx(36 * S, rel=0.01)
    assert spent[B] == pytest.approx(sampler.busy_ns(B.pid), rel=0.1)


@DRAWS
@pytest.mark.parametrize("read_ns", [100 * MS, S], ids=["100 ms", "1 s"])
def test_what_a_process_did_at_its_end_is_not_lost(
    driver: NvmlDouble, collector: NvmlCollector, draw: Draw, read_ns: int
) -> None:
    sampler = SmSampler(driver, driver.gpus[0], draw, seed=2)
    sampler.load(B.pid, 10)
    sampler.advance(S)
    collector.read()
    sampler.load(A.pid, 100)
    told: list[UsageReading] = []
    for step in range(12 * S // read_ns):
        if step * read_ns == 10 * S:
            sampler.exit(A.pid)
        sampler.advance(read_ns)
        readings = [r for r in collector.read() if isinstance(r, UsageReading)]
        assert {r.consumer for r in readings} <= {A, B}, "nothing became a stranger's"
        told += [r for r in readings if r.consumer == A]
    # Between its last read and its end it may have done anything: that much can't be known.
    assert told[-1].busy_ns == pytest.approx(10 * S, abs=max(read_ns, S // 5))
    assert told[-1].held_ppb == 0
    assert told[0].held_ppb is None


def test_one_stamp_too_high_hides_the_others_for_a_minute_at_most(driver: NvmlDouble, collector: NvmlCollector) -> None:
    sampler = SmSampler(driver, driver.gpus[0], every(S // 6))
    sampler.load(A.pid, 50)
    sampler.advance(S)
    collector.read()
    sampler.epoch_us += 10**12
    sampler.advance(S)
    collector.read()
    sampler.epoch_us -= 10**12
    sampler._buffer.clear()
    grown_ns = []
    for _ in range(120):
        sampler.advance(S)
        grown_ns.append(busy(collector.read())[A])
    assert grown_ns[50] - grown_ns[10] == 0
    assert grown_ns[110] - grown_ns[70] == pytest.approx(20 * S, rel=0.01)
