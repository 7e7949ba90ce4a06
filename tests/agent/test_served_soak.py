"""Any course of events among metered jobs: reports that repeat, are late or lost, meters that die, agents and jobs too.

Every look adds up, nothing falls, and in the end every request that was reported is counted once.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from benchmarks.truthbench.kernel import Process
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.doubles.metered_bench import Meter, MeteredBench
from tests.doubles.node_bench import S
from tests.doubles.powercap import PowercapTree

from wattribute.agent.core.products import MICRO

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

CONFIGURATION = """
[export]
hold_s = 60
[serving]
max_tenants = 2
[carbon]
intensity_g_per_kwh = 480
pue = 1.2
[[embodied]]
component = "server"
kgco2e = 1200
lifetime_years = 4
[[product]]
id = "cloud"
scope = "node"
overhead_g_per_min = 60
[[product]]
id = "llm"
scope = "node"
epc_kgco2e = 1000
unit = "token"
expected_units = 1e3
amortise = "units"
status = "frozen"
deployed = 2023-11-14
runs_on = ["cloud"]
retraining_interval_days = 0.01
"""
JOBS = {"serve-llm": "llm", "serve-too": "llm", "serve-tag": "tag"}


class ServedMachine(RuleBasedStateMachine):
    """One node. `running` are the serving jobs with their processes, `meters` the senders of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.running: dict[str, Process] = {}
        self.meters: dict[str, list[Meter]] = {}
        self.known: set[str] = set()
        self.told: dict[str, dict[str, int]] = {}  # by token: what was reported last
        self.until_s: dict[str, float] = {}
        self.serial = 0

    @initialize()
    def begin(self) -> None:
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        tree = self.stack.enter_context(PowercapTree(folder / "sys"))
        tree.say_cpu()
        self.bench = MeteredBench(folder, tree.add_package())
        self.bench.open(CONFIGURATION)
        self.bench.tick()

    # What happens

    @rule(job_id=st.sampled_from(list(JOBS)))
    def serve(self, job_id: str) -> None:
        """A serving job begins, or gets one more meter with counts of its own (another container)."""
        if job_id not in self.running:
            self.running[job_id], meter = self.bench.serving(job_id, JOBS[job_id])
            self.meters[job_id] = [meter]
            self.until_s[meter.token] = self.bench.clock.boot_ns / S - 0.05
            self.known.add(job_id)
        elif len(self.meters[job_id]) < 3:
            self.serial += 1
            self.meters[job_id].append(Meter(self.bench, job_id, f"container {self.serial}"))

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        ms=st.sampled_from([0, 1, 400]),
        seconds=st.sampled_from([0.05, 0.3, 1, 1, 70]),
    )
    def work(self, data: st.DataObject, ms: int, seconds: float) -> None:
        self.bench.sim.burn(self.running[data.draw(st.sampled_from(sorted(self.running)))], ms)
        self.bench.tick(seconds)

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        more=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 5), max_size=3),
        busy_s=st.sampled_from([None, 0.0, 0.02, 0.9]),
        late_s=st.sampled_from([0.0, 0.0, 0.4, 100.0, -5.0]),
        lost=st.booleans(),
    )
    def report(
        self, data: st.DataObject, more: dict[str, int], busy_s: float | None, late_s: float, lost: bool
    ) -> None:
        """One meter reports, or means to: what is lost comes with the next."""
        meter = self._meter(data).serve(**more)
        if not lost:
            self._report(meter, busy_s, late_s)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        meter = self._meter(data)
        for _ in range(3):
            self._report(meter, 0.1)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A job ends; what its meters never told is lost."""
        job_id = data.draw(st.sampled_from(sorted(self.running)))
        worker = self.running.pop(job_id)
        if data.draw(st.booleans()):
            self.bench.end(job_id, worker.pid)
        else:
            self.bench.sim.exit(worker)
            self.bench.tick(0.05)
        del self.meters[job_id]
        self.bench.tick(0.05)

    @rule(seconds=st.sampled_from([100, 700, 1000]))
    def silence(self, seconds: float) -> None:
        """Nobody reports; retraining intervals end, and jobs leave the table."""
        self.bench.tick(seconds)
        self.bench.tick()

    @rule(seconds=st.sampled_from([0, 3, 700]))
    def kill(self, seconds: float) -> None:
        """The agent dies; its meters go on, and tell it everything again."""
        self.bench.kill()
        self.bench.clock.pass_(seconds)
        self.bench.open()
        self.bench.tick(0)
        self.until_s = {}
        self._tell_all()

    @rule()
    def reboot(self) -> None:
        self.bench.tick(0.05)  # what was reported since the last tick would be lost with the meters
        self.bench.reboot()
        self.running, self.meters = {}, {}
        self.bench.sim.make("/serving")

    # What holds

    @invariant()
    def everything_adds_up(self) -> None:
        if hasattr(self, "bench"):
            self.bench.look_at_requests(*self.known)

    def teardown(self) -> None:
        with self.stack:
            try:
                self._end()
            finally:
                self.bench.close()

    def _end(self) -> None:
        self._tell_all()
        for job_id, worker in self.running.items():
            self.bench.end(job_id, worker.pid)
        self.bench.tick()
        shown = self.bench.look_at_requests(*self.known)
        counted = sum(one.units.get("request", 0) for totals in shown.values() for one in totals.tenants.values())
        assert counted == sum(count for tenants in self.told.values() for count in tenants.values()) * MICRO
        for totals in shown.values():
            assert totals.unsettled_uj == totals.in_flight == 0
            assert len(totals.tenants) <= 3

    def _meter(self, data: st.DataObject) -> Meter:
        return data.draw(st.sampled_from(self.meters[data.draw(st.sampled_from(sorted(self.running)))]))

    def _tell_all(self) -> None:
        for meters in self.meters.values():
            for meter in meters:
                self._report(meter, 0.1, -9.0)
        self.bench.tick(10)

    def _report(self, meter: Meter, busy_s: float | None, late_s: float = 0.0) -> None:
        meter.report(busy_s, late_s, in_flight=1, seen_ns=0)
        until_s = self.bench.clock.boot_ns / S - late_s
        if until_s >= self.until_s.get(meter.token, 0):  # one that is older than the last changes nothing
            self.until_s[meter.token], self.told[meter.token] = until_s, dict(meter.requests)


TestServed = ServedMachine.TestCase
TestServed.settings = settings(
    max_examples=5,
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes: take the phases out for it
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
