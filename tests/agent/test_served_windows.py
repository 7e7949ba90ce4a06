"""Requests in the node's own windows: told once their jobs' rows are closed, kept over restarts, never past jobs."""

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.agent.test_ledger import S, commit, open_ledger, totals
from tests.doubles.metered_bench import MeteredBench
from tests.doubles.powercap import PowercapTree

from wattribute.agent.archive import open_archive
from wattribute.agent.config.schema import Agent, Config
from wattribute.agent.core.books import Books
from wattribute.agent.core.model import TERMS, ServedTotals, TenantTotals
from wattribute.agent.core.products import MICRO
from wattribute.agent.core.served_record import named
from wattribute.agent.ledger.batch import INT64_MAX, Batch, Close, JobRow, unpack
from wattribute.agent.ledger.opening import SavedJob
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.schema import NODE_KEY
from wattribute.agent.node_window import AFTER_JOB_NS, NodeWindow

START = 1_760_000_100 * S
FIRST, SECOND = START + 200 * S, START + 500 * S
"""Ends of windows."""


def books(*running: str) -> Books:
    """Books that hold running jobs of some products, and nothing else."""
    entries = {name: SimpleNamespace(job=SimpleNamespace(product_id=name)) for name in running}
    return cast(
        Books,
        SimpleNamespace(
            jobs=entries,
            node_energy_uj={},
            unattributed_uj={},
            node_co2e_ng=dict.fromkeys(TERMS, 0),
            unattributed={},
            taxes=SimpleNamespace(totals=list),
        ),
    )


def served(product_id: str, energy_uj: int, tokens: int = 1) -> ServedTotals:
    """A product's totals: a tenth of its energy was idle."""
    tenant = TenantTotals(units={"token": tokens}, aborted=0, energy_uj=energy_uj, terms_ng=[0] * 7)
    return ServedTotals(
        product_id=product_id,
        tenants={"acme": tenant},
        idle_uj=energy_uj // 10,
        idle_ng=[0] * 7,
        unsettled_uj=999,
        unsettled_ng=[0] * 7,
    )


def told(row: JobRow) -> dict[str, int]:
    """A row's totals by name, without zeros."""
    names = json.loads(row.meta or "")["names"]
    return {name: total for (_, name), total in zip(names, unpack(row.totals), strict=True) if total}


def test_a_close_after_a_job_leaves_open_what_still_runs() -> None:
    window = NodeWindow()
    assert not window.due(START, FIRST, job_closed=False)
    early = START + AFTER_JOB_NS
    assert window.due(early, FIRST, job_closed=True)
    both = [served("llama-3.1", 100), served("bert", 50)]
    row, _ = window.rows(books("bert"), early, "", both)
    assert told(row) == named(both[0])
    assert window.due(FIRST, SECOND, job_closed=False)
    row, close = window.rows(books("bert"), FIRST, "", both)
    assert told(row) == named(both[0]) | named(both[1])
    assert close.totals == row.totals


def test_totals_go_on_after_a_restart_and_none_falls() -> None:
    window = NodeWindow()
    assert not window.due(START, FIRST, job_closed=False)
    row, _ = window.rows(books(), FIRST, "", [served("gone", 70), served("bert", 50, 10**40)])
    again = NodeWindow()
    again.restore(SavedJob(json.loads(row.meta or ""), unpack(row.totals)))
    row, _ = again.rows(books(), FIRST, "", [served("bert", 60, 10**40)])
    names = Counter(named(served("gone", 70)) | named(served("bert", 60)))
    names["units.token.bert.acme"] = INT64_MAX  # what can't be written down stays at the most that can
    assert told(row) == names


@pytest.mark.parametrize(("split_uj", "problems"), [(100, 0), (1000, 1)])
def test_requests_that_hold_more_than_all_jobs_are_found(tmp_path: Path, split_uj: int, problems: int) -> None:
    ledger = open_ledger(tmp_path)
    job: list[int] = totals(idle=110)
    row, close = NodeWindow().rows(books(), FIRST, "", [served("bert", split_uj)])
    described: dict[str, Any] = {"job": {"product_id": "bert", "role": "use"}}
    commit(
        ledger,
        Batch(
            seq=1,
            at_unix_ns=FIRST,
            jobs=[JobRow.of("serve", job, described, START), JobRow(row.key, row.totals, row.meta, START)],
            closes=[Close.of("serve", FIRST, job), close],
        ),
    )
    ledger.close()
    with read_only(tmp_path) as reader:
        found = reader.verify()
        content = [one.content for one in reader.windows() if one.job_id == NODE_KEY]
    assert [json.loads(text) for text in content] == [named(served("bert", split_uj))]
    assert len([text for text in found if "requests and their products' idle hold 1100 uJ" in text]) == problems
    assert problems or not [text for text in found if "requests" in text]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_closed_rows_of_requests_and_idle_are_those_of_the_jobs(tmp_path: Path) -> None:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        bench = MeteredBench(tmp_path, tree.add_package())
        bench.open("[carbon]\nintensity_g_per_kwh = 480\n")
        bench.tick()
        worker, meter = bench.serving("serve", "llama-3.1")
        other, _ = bench.serving("runs on", "bert")
        for _ in range(3):
            bench.sim.burn(worker, 900)
            bench.sim.burn(other, 50)
            bench.tick()
            meter.serve(acme=3).report(0.5)
        bench.end("serve", worker.pid)
        for _ in range(12):
            bench.tick()
        bench.restart()
        bench.tick()
        bench.close()
    with open_archive(Config(agent=Agent(state_dir=str(tmp_path / "state")))) as archive:
        job, served = archive.job("serve"), archive.served("llama-3.1")
        assert job is not None
        assert served is not None
        assert served.billed.units == {"request": 9 * MICRO, "token": 9 * MICRO // 2}
        assert served.billed.energy_uj > 30_000_000
        assert served.whole.energy_uj == sum(job.energy_uj.values())
        assert {term: ng for term, ng in served.whole.terms_ng.items() if ng} == dict(job.terms_ng)
        assert archive.served("bert") is None  # its windows are open
        assert archive.verify() == []
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []
