"""Any course of events among those who pay one another: each page adds up, and so does the archive to the nanogram.

Jobs that come and come back, products that change while they run, kills, reboots, a full disk, clocks that are set.
"""

import os
import sqlite3
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from benchmarks.truthbench.kernel import Process
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.doubles.found_bench import FoundBench
from tests.doubles.node_bench import S
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import total

from wattribute.agent.archive import open_archive
from wattribute.agent.config import load
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import TERM_SLOT, TERMS, ProcessId, Role, Term
from wattribute.agent.ledger.batch import Batch
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.schema import WINDOW_NS
from wattribute.agent.ledger.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

DAY_S = 86_400
CONFIGURATION = """
[export]
hold_s = 60
max_jobs = 4
[carbon]
intensity_g_per_kwh = 480
pue = 1.2
[[embodied]]
component = "server"
kgco2e = 1200
lifetime_years = 4
[[product]]
id = "iks"
kind = "platform"
scope = "node"
owners = ["{uid}"]
overhead_g_per_min = {rate}
[[product]]
id = "model"
kind = "model"
scope = "node"
owners = ["{uid}"]
epc_kgco2e = 1000
lifetime_years = 4
status = "frozen"
deployed = 2023-11-14
runs_on = ["iks"]
retraining_interval_days = 0.01
"""
JOBS: dict[str, tuple[str, Role, tuple[str, ...], int]] = {
    "light": ("model", "use", (), 1),
    "heavy": ("model", "use", ("shared",), 3),
    "platform": ("iks", "platform", (), 1),
    "retraining": ("model", "retraining", (), 1),
    "maker": ("shared", "creation", ("model",), 1),
    "tag": ("tag", "use", ("iks", "nowhere"), 1),
    "found": ("model", "use", ("shared",), 1),
}
TAXES: tuple[Term, ...] = ("platform", "retraining", "overhead_hardware", "product")
JOB_GRAMS, BILLED = "wattribute_job_co2e_grams_total", "wattribute_product_billed_grams_total"
MINUTE_RATE = 10**9 * 10**9 // 60
"""1 g a minute, in nanograms per 1e9 s."""


class PayersMachine(RuleBasedStateMachine):
    """One node. `names` are the jobs that ever were, `folded` what of each is in a fold already."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.disk_is_full = False
        self.names: set[str] = set()
        self.folded: dict[str, list[int] | None] = {}
        self.workers: list[Process] = []

    @initialize()
    def begin(self) -> None:
        apply = Store.apply

        def guarded(store: Store, batch: Batch) -> None:
            if self.disk_is_full:
                raise sqlite3.OperationalError("database or disk is full")
            apply(store, batch)

        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        tree = self.stack.enter_context(PowercapTree(self.folder / "sys"))
        tree.say_cpu()
        self.stack.enter_context(patch.object(Store, "apply", guarded))
        self.bench = FoundBench(self.folder, tree.add_package())
        self.bench.open(CONFIGURATION.format(uid=os.getuid(), rate=60))
        self.bench.tick()
        self.bench.sim.make("/batch")
        self.workers = [self.bench.sim.fork("/batch") for _ in range(3)]

    # What happens

    @rule(job_id=st.sampled_from(list(JOBS)), worker=st.integers(0, 2), token=st.sampled_from("mn"))
    def start(self, job_id: str, worker: int, token: str) -> None:
        product_id, role, uses, weight = JOBS[job_id]
        fields: dict[str, Any] = {"product_id": product_id, "role": role, "uses": uses, "weight": weight}
        try:
            self.bench.start(job_id, self.workers[worker].pid, token, **fields)
        except Refused:
            return
        self.names.add(job_id)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        members = [
            (job_id, token, process.pid)
            for job_id, live in self.bench.node.registry.jobs.items()
            for token, process in live.members.items()
            if isinstance(process, ProcessId)
        ]
        if members:
            job_id, token, pid = data.draw(st.sampled_from(sorted(members)))
            self.bench.end(job_id, pid, token)

    @rule()
    def find(self) -> None:
        """A job in a cgroup of its own, which a session names the product of, or which is gone."""
        if "/jobs/found" in self.bench.sim.cgroups._groups:
            self.bench.lose("/jobs/found")
        else:
            self.bench.find("found", "/jobs/found", uid=self.bench.peer_uid)
            self.names.add("found")
        self.bench.tick(0.05)

    @rule(worker=st.integers(0, 2), ms=st.sampled_from([1, 50, 900]), seconds=st.sampled_from([0.05, 1, 20, 100]))
    def work(self, worker: int, ms: int, seconds: float) -> None:
        self.bench.sim.burn(self.workers[worker], ms)
        self.bench.tick(seconds)

    @rule(seconds=st.sampled_from([300, 1000, DAY_S]))
    def wait(self, seconds: float) -> None:
        """Retraining intervals end, and jobs that ended are held no longer."""
        self.bench.tick(seconds)
        self.bench.tick()

    @rule(seconds=st.sampled_from([-3 * DAY_S, -3600, -2, 0.5, 3600, 3 * DAY_S]))
    def set_clock(self, seconds: float) -> None:
        self.bench.clock.unix_ns += round(seconds * S)
        self.bench.tick()

    @rule()
    def suspend(self) -> None:
        self.bench.suspend(5000)
        self.bench.tick()

    @rule(rate=st.sampled_from([0, 60, 90]))
    def configure(self, rate: int) -> None:
        self.bench.restart(CONFIGURATION.format(uid=os.getuid(), rate=rate))

    @rule(seconds=st.sampled_from([0, 700, DAY_S]))
    def kill(self, seconds: float) -> None:
        """The agent is away for a while."""
        self.bench.kill()
        self.bench.clock.pass_(seconds)
        self.bench.open()
        self.bench.tick(0)

    @rule()
    def reboot(self) -> None:
        self.bench.reboot()

    @rule(
        event=st.sampled_from(
            [
                {"event": "set", "overhead_rate": 7 * MINUTE_RATE},
                {"event": "set", "overhead_rate": 0, "runs_on": []},
                {"event": "set", "runs_on": ["iks"], "epc_ng": [1, 2 * 10**12, 10**13]},
                {"event": "freeze", "deployed_unix_ns": 1_699_000_000 * S, "own_ng": [10**12] * 3, "inherited_ng": {}},
                {"event": "retire"},
            ]
        )
    )
    def register(self, event: dict[str, Any]) -> None:
        """The registry has a product, which changes while jobs use it."""
        loaded = load(self.folder / "wattribute.toml", {}, {})
        with open_archive(loaded.config, pull=False) as archive:
            last = archive.last_event()
            if not last:
                made = {"event": "add", "scope": "node", "lifetime_s": 4 * 365 * DAY_S, "owners": [str(os.getuid())]}
                last = archive.append([{"id": "shared", **made, "kind": "dataset"}], after=last)
            archive.append([{"id": "shared", **event}], after=last)
        self.bench.hear()
        self.bench.tick()

    @rule()
    def fill_disk(self) -> None:
        self.disk_is_full = True
        self.bench.tick()

    @precondition(lambda self: self.disk_is_full)
    @rule()
    def empty_disk(self) -> None:
        self._make_room()

    # What holds

    @invariant()
    def the_page_adds_up(self) -> None:
        """And nothing on it has fallen, and what was billed is what jobs paid."""
        if self.disk_is_full or not hasattr(self, "bench"):
            return
        for name, live in self.bench.node.registry.jobs.items():
            if live.folded_values != self.folded.get(name):
                self.bench.forget(name)  # its series began anew
            self.folded[name] = live.folded_values
        page = self.bench.page()
        for term in TAXES:
            assert total(page, JOB_GRAMS, term=term) == total(page, BILLED, term=term), term

    def teardown(self) -> None:
        with self.stack:
            try:
                self._end()
            finally:
                self.bench.close()

    def _make_room(self) -> None:
        self.disk_is_full = False
        record = self.bench.node.record
        while record.waits or any(not health.up for health in record.health()):
            self.bench.tick(0.05)

    def _end(self) -> None:
        """When all jobs are over, the archive has what the books have."""
        bench = self.bench
        self._make_room()
        for worker in self.workers:
            bench.sim.exit(worker)
        if "/jobs/found" in bench.sim.cgroups._groups:
            bench.lose("/jobs/found")
        for seconds in (20, 1, 5 * DAY_S, 1, 100, 1):
            bench.tick(seconds)
        bench.tick((WINDOW_NS - bench.clock.unix_ns % WINDOW_NS) / S)  # the node's window is closed
        self.the_page_adds_up()
        books, record = bench.node.books, bench.node.record
        billed = {(p.id, term): ng for p in books.taxes.totals() for term, ng in p.billed_ng.items() if ng}
        node_ng = dict(books.node_co2e_ng)
        jobs = {name: live for name in self.names if (live := record.finished(name)) is not None}
        assert not bench.node.registry.jobs
        bench.close()
        with read_only(self.folder / "state") as ledger:
            assert ledger.verify() == []
        with open_archive(load(self.folder / "wattribute.toml", {}, {}).config) as archive:
            records = {one.id: one for one in archive.jobs()}
            (node,) = archive.node_totals().values()
        owed: dict[tuple[str, Term], int] = {}
        for one in records.values():
            for key, ng in one.taxes_ng.items():
                owed[key] = owed.get(key, 0) + ng
        assert {key: ng for key, ng in owed.items() if ng} == billed
        for term in ("operation", "cooling", "hardware"):
            nobodys = sum(ng for (_, of), ng in node.unattributed_ng.items() if of == term)
            of_jobs = sum(one.terms_ng.get(term, 0) for one in records.values())
            assert node.terms_ng[term] == node_ng[term] == of_jobs + nobodys
        for name, live in jobs.items():
            terms: dict[str, int] = {term: live.entry.values[TERM_SLOT[term]] for term in TERMS}
            for (_, term), ng in live.corrections_ng.items():
                terms[term] += ng
            told = records[name].terms_ng if name in records else {}
            assert {t: ng for t, ng in terms.items() if ng} == {t: ng for t, ng in told.items() if ng}


TestPayers = PayersMachine.TestCase
TestPayers.settings = settings(
    max_examples=8,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes: take the phases out for it
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
