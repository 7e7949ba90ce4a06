"""Nodes with real ledgers and random jobs, some of which run on several nodes; and what really was used."""

import os
import random
import select
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from wattribute.agent.archive import Archive
from wattribute.agent.archive.delivery import Delivered, deliver_new
from wattribute.agent.core.model import CPU_NS_SLOT, ROLES, SLOTS, TERM_SLOT, energy_slot
from wattribute.agent.core.records import JobRecord
from wattribute.agent.ledger.batch import Batch, Close, GapRow, JobRow
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.writer import Ledger

S = 1_000_000_000
START = 1_800_000_000 * S
WINDOW = 300 * S
SLOTS_USED = [
    energy_slot("cpu", "direct", "measured"),
    energy_slot("dram", "idle", "modelled"),
    energy_slot("gpu", "overhead", "integrated"),
    TERM_SLOT["operation"],
    TERM_SLOT["platform"],
    CPU_NS_SLOT,
]
Truth = Counter[tuple[str, int]]
"""(job, slot) -> amount, over all nodes."""


class Node:
    """One node's agent, as far as its ledger is concerned."""

    def __init__(self, folder: Path, name: str, dice: random.Random) -> None:
        self.name = name
        self.folder = folder
        self.truth: Truth = Counter()
        self._dice = dice
        self._totals: dict[str, list[int]] = {}
        self._seq = 0
        self._at = START
        self._boots = 0
        self._start()

    def _start(self) -> None:
        self._boots += 1
        self._ledger = Ledger.open(
            self.folder, node_id=self.name, boot_id=f"boot-{self._boots}", clock_unix_ns=lambda: self._at
        )

    def work(self, jobs: list[str], windows: int = 1) -> None:
        """Let some jobs run for some windows of 300 s."""
        for _ in range(windows):
            self._at += WINDOW
            rows, closes = [], []
            for job_id in jobs:
                values = self._totals.setdefault(job_id, [0] * (SLOTS + 1))
                for slot in SLOTS_USED:
                    amount = self._dice.randrange(10**9)
                    values[slot] += amount
                    self.truth[job_id, slot] += amount
                values[SLOTS] = values[TERM_SLOT["platform"]]
                rows.append(JobRow.of(job_id, values, self._meta(job_id), self._at - WINDOW))
                closes.append(Close.of(job_id, self._at, values, '{"operation_ng_per_kwh":480000000000,"cooling":0}'))
            gaps = [GapRow(kind="cpu", id="p", start_unix_ns=self._at, end_unix_ns=self._at + 1, cause="reset",
                           lower_uj=1, upper_uj=None, booked_uj=1)] if self._dice.random() < 0.3 else []  # fmt: skip
            self._seq += 1
            assert self._ledger.submit(Batch(seq=self._seq, at_unix_ns=self._at, jobs=rows, closes=closes, gaps=gaps))
            assert select.select([self._ledger.wakeup_fd], [], [], 20)[0]
            os.read(self._ledger.wakeup_fd, 8)
            assert self._ledger.failure is None

    def restart(self, *, ledger_from: Path | None = None) -> None:
        """Stop and start; with another copy of the ledger's files, as somebody would put a backup back."""
        self._ledger.close()
        if ledger_from is not None:
            for path in self.folder.glob("ledger.db*"):
                path.unlink()
            shutil.copy(ledger_from / "ledger.db", self.folder)
        self._start()
        self._seq = 0
        restored = self._ledger.restore()
        self._totals = {job_id: list(saved.totals) for job_id, saved in restored.jobs.items()}

    def backup(self, folder: Path) -> None:
        """A copy of the ledger between two commits."""
        folder.mkdir()
        self._ledger.close()
        shutil.copy(self.folder / "ledger.db", folder)
        self.restart()

    def deliver(self, archive: Archive, limit: int) -> Delivered:
        """One piece of what is new."""
        with read_only(self.folder) as reader:
            return deliver_new(reader, archive, limit=limit)

    def close(self) -> None:
        self._ledger.close()

    def _meta(self, job_id: str) -> dict[str, Any]:
        number = int(job_id.rpartition("-")[2])
        job = {
            "product_id": f"product-{number % 3}", "role": ROLES[number % 4], "uses": ["iks"], "user": "ada",
            "weight_ppm": 1_000_000, "nodes": 4, "started_unix_ns": START, "ended_unix_ns": None,
        }  # fmt: skip
        return {"job": job, "taxes": [["iks", "platform"]]}


def truth_of(nodes: list[Node]) -> Truth:
    """What was used, over all nodes."""
    whole: Truth = Counter()
    for node in nodes:
        whole.update(node.truth)
    return whole


def told_by(archive: Archive) -> Truth:
    """What the archive says was used."""
    return Counter({key: amount for job in archive.jobs() for key, amount in _slots(job)})


def _slots(job: JobRecord) -> list[tuple[tuple[str, int], int]]:
    assert job.taxes_ng == {("iks", "platform"): job.terms_ng["platform"]}
    amounts = {
        energy_slot("cpu", "direct", "measured"): job.energy_uj.get(("cpu", "direct", "measured"), 0),
        energy_slot("dram", "idle", "modelled"): job.energy_uj.get(("dram", "idle", "modelled"), 0),
        energy_slot("gpu", "overhead", "integrated"): job.energy_uj.get(("gpu", "overhead", "integrated"), 0),
        TERM_SLOT["operation"]: job.terms_ng["operation"],
        TERM_SLOT["platform"]: job.terms_ng["platform"],
        CPU_NS_SLOT: job.cpu_ns,
    }
    assert len(job.energy_uj) == 3
    return [((job.id, slot), amount) for slot, amount in amounts.items()]
