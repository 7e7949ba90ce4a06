"""The ledger: what is acknowledged is there, closed rows add up to the totals, bad files are never gone on from."""

import json
import os
import select
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.model import CPU_NS_SLOT, SLOTS, TERM_SLOT, energy_slot
from wattribute.agent.ledger.batch import Batch, Close, Correction, GapRow, JobRow, dump, merge, pack, unpack
from wattribute.agent.ledger.files import DATABASE
from wattribute.agent.ledger.opening import Corrected, SavedJob
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.writer import Ledger

BOOT = "5b3c0f9e-0000-4000-8000-000000000001"
S = 1_000_000_000
DIRECT = energy_slot("cpu", "direct", "measured")
IDLE = energy_slot("dram", "idle", "modelled")
PRICES = dump({"pue": "1.2"})


def totals(**amounts: int) -> list[int]:
    """A job's totals with some of them set."""
    values = [0] * SLOTS
    slots = {"direct": DIRECT, "idle": IDLE, "operation": TERM_SLOT["operation"], "cpu_ns": CPU_NS_SLOT}
    for name, amount in amounts.items():
        values[slots[name]] = amount
    return values


def open_ledger(state_dir: Path, boot_id: str = BOOT, node_id: str = "n") -> Ledger:
    return Ledger.open(state_dir, node_id=node_id, boot_id=boot_id, clock_unix_ns=lambda: 1_700_000_000 * S)


def commit(ledger: Ledger, batch: Batch) -> None:
    """Hand a batch over and wait until it was tried."""
    assert ledger.submit(batch)
    assert select.select([ledger.wakeup_fd], [], [], 10)[0]
    os.read(ledger.wakeup_fd, 8)


def verified(state_dir: Path) -> list[str]:
    """What is wrong with the record, while its agent runs."""
    with read_only(state_dir) as reader:
        return reader.verify()


def known(state_dir: Path, job_id: str) -> SavedJob | None:
    """A job as committed."""
    with read_only(state_dir) as reader:
        return reader.job(job_id)


def gap(start: int = 10, upper_uj: int | None = 9, cause: str = "reset", booked_uj: int = 5) -> GapRow:
    return GapRow(
        kind="cpu", id="package-0", start_unix_ns=start, end_unix_ns=start + 10, cause=cause,
        lower_uj=booked_uj, upper_uj=upper_uj, booked_uj=booked_uj,
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path / "state")
    yield opened
    opened.close()


def test_what_is_committed_comes_back(tmp_path: Path) -> None:
    first = open_ledger(tmp_path)
    assert first.restore().committed_unix_ns == 0
    meta = {"job": {"id": "é", "labels": {"a": "b"}}, "taxes": []}
    rows = [JobRow.of("é", totals(direct=5), meta), JobRow.of("_retired p use", [1, 2], {})]
    commit(first, Batch(seq=7, at_unix_ns=10 * S, jobs=rows, state={"books": dump({"b": [1, None], "a": 2})}))
    assert first.committed() == 7
    commit(first, Batch(seq=8, at_unix_ns=11 * S, jobs=[JobRow.of("é", totals(direct=6))]))
    first.close()
    second = open_ledger(tmp_path)
    restored = second.restore()
    second.close()
    assert restored.jobs["é"].meta == meta
    assert restored.jobs["é"].totals == totals(direct=6)
    assert restored.jobs["_retired p use"].totals == [1, 2]
    assert list(restored.state["books"].items()) == [("b", [1, None]), ("a", 2)]
    assert restored.created_unix_ns == 1_700_000_000 * S
    assert (restored.generation, restored.committed_unix_ns, restored.same_boot) == (1, 11 * S, True)
    third = open_ledger(tmp_path, boot_id="another boot")
    assert not third.restore().same_boot
    with pytest.raises(LedgerError, match="taken already"):
        third.restore()
    third.close()


def test_only_the_owner_can_read_it(ledger: Ledger, tmp_path: Path) -> None:
    commit(ledger, Batch(seq=1, at_unix_ns=S))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    assert modes == dict.fromkeys([DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", "ledger.lock"], 0o600)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_second_agent_is_refused_until_the_first_is_gone(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=rf"process {os.getpid()} keeps its ledger. Fix:"):
        open_ledger(tmp_path / "state")
    ledger.close()
    open_ledger(tmp_path / "state").close()


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_directory_that_cannot_be_written(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match=r"can't be kept in .*file.*Fix: give --state-dir"):
        open_ledger(tmp_path / "file" / inside)


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(LedgerError, match=r"newer wattribute \(schema 3, this one knows 2\).*Fix:"):
        open_ledger(tmp_path)
    with pytest.raises(LedgerError, match="newer"):
        read_only(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if "corrupt" in path.name) == []


def test_windows_hold_the_differences(ledger: Ledger, tmp_path: Path) -> None:
    early, late = totals(direct=100, operation=7), totals(direct=150, idle=3, operation=9, cpu_ns=4)
    row = JobRow.of("a", early, {"taxes": []}, since_unix_ns=5 * S)
    commit(ledger, Batch(seq=1, at_unix_ns=6 * S, jobs=[row], closes=[Close.of("a", 300 * S, early, PRICES)]))
    commit(ledger, Batch(seq=2, at_unix_ns=301 * S, jobs=[JobRow.of("a", totals(direct=120))]))
    commit(ledger, Batch(seq=3, at_unix_ns=600 * S, closes=[Close.of("a", 600 * S, late, PRICES)]))
    with read_only(tmp_path / "state") as reader:
        rows = reader.windows()
        assert reader.job("a") == SavedJob({"taxes": []}, late)
        assert reader.verify() == []
    assert {row.epoch for row in rows} == {ledger.epoch} == {f"{BOOT}/1"}
    assert [(r.window_start_unix_ns // S, r.window_end_unix_ns // S, r.domain, r.content, r.prices) for r in rows] == [
        (5, 300, "cpu", '{"direct.measured":100}', ""),
        (5, 300, "", '{"operation":7}', PRICES),
        (300, 600, "cpu", '{"direct.measured":50}', ""),
        (300, 600, "dram", '{"idle.modelled":3}', ""),
        (300, 600, "", '{"operation":2,"cpu_ns":4}', PRICES),
    ]


def test_taxes_are_named_by_the_description(ledger: Ledger, tmp_path: Path) -> None:
    values = [*totals(), 11, 12]
    row = JobRow.of("a", values, {"taxes": [["iks.dallas", "platform"]]})
    commit(ledger, Batch(seq=1, at_unix_ns=S, jobs=[row], closes=[Close.of("a", 2 * S, values)]))
    with read_only(tmp_path / "state") as reader:
        assert [r.content for r in reader.windows()] == ['{"tax.platform.iks.dallas":11,"unnamed.49":12}']
    named = JobRow.of("a", values, {"taxes": [["iks.dallas", "platform"], ["other", "product"]]})
    commit(ledger, Batch(seq=2, at_unix_ns=3 * S, jobs=[named]))
    assert verified(tmp_path / "state") == []


def test_what_an_earlier_run_left_open_is_closed_under_its_own_name(tmp_path: Path) -> None:
    first = open_ledger(tmp_path)
    row = JobRow.of("a", totals(direct=9, operation=1), {}, since_unix_ns=S)
    commit(first, Batch(seq=1, at_unix_ns=7 * S, prices=PRICES, jobs=[row, JobRow.of("_overflow p", [1], {})]))
    first.close()
    for _ in range(2):  # the second start has nothing left to close
        second = open_ledger(tmp_path, boot_id="later", node_id="renamed")
        with read_only(tmp_path) as reader:
            rows = reader.windows()
        assert second.epoch == "later/1"
        assert verified(tmp_path) == []
        second.close()
        assert [(r.node_id, r.epoch, r.job_id, r.domain, r.prices) for r in rows] == [
            ("n", f"{BOOT}/1", "a", "cpu", ""),
            ("n", f"{BOOT}/1", "a", "", PRICES),
        ]
        assert {(r.window_start_unix_ns, r.window_end_unix_ns) for r in rows} == {(S, 7 * S)}


def test_windows_follow_one_another_when_wall_time_is_set_back(ledger: Ledger, tmp_path: Path) -> None:
    commit(ledger, Batch(seq=1, at_unix_ns=100 * S, jobs=[JobRow.of("a", totals(), {})]))
    for seq, (end, direct) in enumerate([(200 * S, 1), (50 * S, 2), (60 * S, 3), (60 * S, 3), (250 * S, 4)], start=2):
        commit(ledger, Batch(seq=seq, at_unix_ns=end, closes=[Close.of("a", end, totals(direct=direct))]))
    with read_only(tmp_path / "state") as reader:
        assert [(r.window_start_unix_ns, r.window_end_unix_ns) for r in reader.windows()] == [
            (100 * S, 200 * S), (200 * S, 200 * S + 1), (200 * S + 1, 200 * S + 2), (200 * S + 2, 250 * S),
        ]  # fmt: skip
    assert verified(tmp_path / "state") == []


def test_a_replay_changes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    values = totals(direct=3)
    batch = Batch(
        seq=1, at_unix_ns=S, jobs=[JobRow.of("a", values, {})], closes=[Close.of("a", 2 * S, values)],
        gaps=[gap(), gap(upper_uj=None, cause="absent")], forget=["a"],
    )  # fmt: skip
    commit(ledger, batch)
    with read_only(tmp_path / "state") as reader:
        before = (reader.windows(), reader.gaps(), reader.job("a"))
        commit(ledger, batch)
        assert (reader.windows(), reader.gaps(), reader.job("a")) == before
        assert [(row.cause, row.upper_uj) for row in before[1]] == [("reset", 9), ("absent", None)]
    assert ledger.failure is None
    assert verified(tmp_path / "state") == []


def test_another_content_under_a_known_key_is_an_error(ledger: Ledger) -> None:
    commit(ledger, Batch(seq=1, at_unix_ns=S, gaps=[gap(booked_uj=5)]))
    commit(ledger, Batch(seq=2, at_unix_ns=S, gaps=[gap(booked_uj=6)]))
    assert ledger.committed() == 1
    assert ledger.failure is not None
    assert "another row under the key" in ledger.failure


def test_finished_jobs_leave_the_table_and_can_be_looked_up(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    rows = [JobRow.of("b", totals(direct=4), {"n": 1}), JobRow.of("a", totals(direct=3), {"n": 2})]
    commit(ledger, Batch(seq=1, at_unix_ns=5 * S, jobs=rows))
    commit(ledger, Batch(seq=2, at_unix_ns=6 * S, forget=["a", "b"]))
    assert known(tmp_path, "a") == SavedJob({"n": 2}, totals(direct=3))
    assert known(tmp_path, "c") is None
    with read_only(tmp_path) as reader:
        assert reader.jobs() == {}
        assert list(reader.finished_jobs()) == ["b", "a"]
        assert len(reader.windows()) == 2  # forgetting closes what was open
    ledger.close()
    again = open_ledger(tmp_path)
    assert again.restore().jobs == {}
    commit(again, Batch(seq=1, at_unix_ns=90 * S, jobs=[JobRow.of("a", totals(direct=5), {"n": 3}, 80 * S)]))
    commit(again, Batch(seq=2, at_unix_ns=99 * S, closes=[Close.of("a", 99 * S, totals(direct=5))]))
    with read_only(tmp_path) as reader:
        assert list(reader.jobs()) == ["a"]
        last = reader.windows()[-1]
        assert (last.window_start_unix_ns, last.window_end_unix_ns) == (80 * S, 99 * S)  # not from 6 s on
    assert verified(tmp_path) == []
    again.close()
    with read_only(tmp_path) as reader:  # no agent runs
        assert reader.job("b") == SavedJob({"n": 1}, totals(direct=4))


def test_a_reader_without_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"there is no ledger in .*Fix:"):
        read_only(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"")
    with pytest.raises(LedgerError, match="it is empty"):
        read_only(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"no" * 4096)
    with pytest.raises(LedgerError, match="not a database"):
        read_only(tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: JobRow.of("a", [1 << 63], {}),
        lambda: Close.of("a", 0, [-(1 << 63) - 1]),
        lambda: JobRow.of("a", [0], {"x": object()}),
        lambda: JobRow.of("\ud800", [0], {}),
        lambda: Close.of("_retired", 0, [0]),
        lambda: gap(upper_uj=1 << 63),
        lambda: dump({"x": float("nan")}),
    ],
)
def test_what_cannot_be_kept_is_refused_where_it_is_made(make: object) -> None:
    assert callable(make)
    with pytest.raises(LedgerError):
        make()


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1)))
def test_packed_totals_come_back(values: list[int]) -> None:
    assert unpack(pack(values)) == values


def test_a_job_that_nobody_described_is_an_error(ledger: Ledger, tmp_path: Path) -> None:
    commit(ledger, Batch(seq=1, at_unix_ns=S, jobs=[JobRow.of("known", totals(), {}), JobRow.of("a", totals())]))
    failure = ledger.failure
    assert failure is not None
    assert "never told what job 'a' is" in failure
    assert known(tmp_path / "state", "known") is None  # all or nothing
    commit(ledger, Batch(seq=2, at_unix_ns=S, jobs=[JobRow.of("a", totals(direct=1), {})]))
    assert (ledger.failure, ledger.committed()) == (None, 2)
    assert known(tmp_path / "state", "known") is not None


def test_merging_bounds_what_a_full_disk_piles_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wattribute.agent.ledger.batch.MOST_CLOSES", 2)
    monkeypatch.setattr("wattribute.agent.ledger.batch.MOST_GAPS", 2)
    closes = [Close.of("a", end, totals(direct=end)) for end in (1, 2)]
    old = Batch(seq=1, at_unix_ns=1, closes=closes, gaps=[gap(1), gap(2, upper_uj=None), gap(3, cause="stale")])
    new = Batch(seq=2, at_unix_ns=2, closes=[Close.of("a", 3, totals(direct=3))], gaps=[gap(9)])
    both = merge(old, new)
    assert both.closes == new.closes
    assert [(g.cause, g.start_unix_ns, g.end_unix_ns, g.upper_uj, g.booked_uj) for g in both.gaps] == [
        ("reset", 1, 19, None, 15),
        ("stale", 3, 13, 9, 5),
    ]


class Steps:
    """Random ticks over three jobs whose totals only grow."""

    amounts = st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 50))
    tick = st.fixed_dictionaries({
        "grow": st.dictionaries(st.sampled_from("abc"), amounts),
        "close": st.sets(st.sampled_from("abc")),
        "forget": st.sets(st.sampled_from("abc")),
        "elapsed": st.integers(-5, 400),
        "gap": st.booleans(),
        "merge": st.booleans(),
        "restart": st.sampled_from([None, None, None, BOOT, "another"]),
    })  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(ticks=st.lists(Steps.tick, max_size=12))
def test_any_sequence_of_batches_conserves(
    tmp_path_factory: pytest.TempPathFactory, ticks: list[dict[str, object]]
) -> None:
    state_dir = tmp_path_factory.mktemp("conserve")
    ledger = open_ledger(state_dir)
    now, live, all_totals = 1000 * S, set[str](), dict[str, list[int]]()
    waiting: Batch | None = None
    for seq, tick in enumerate(ticks, start=1):
        now += int(str(tick["elapsed"])) * S
        rows = []
        for key, (direct, idle, tax) in dict(tick["grow"]).items():  # type: ignore[call-overload]
            values = all_totals.setdefault(key, [0] * (SLOTS + 1))
            values[DIRECT] += direct
            values[IDLE] += idle
            values[SLOTS] += tax
            meta = {"taxes": [["p", "platform"]]} if key not in live else None
            rows.append(JobRow.of(key, values, meta, since_unix_ns=now if meta else 0))
            live.add(key)
        closes = [Close.of(key, now, all_totals[key]) for key in sorted(live & set(tick["close"]))]  # type: ignore[call-overload]
        forget = sorted(live & set(tick["forget"]))  # type: ignore[call-overload]
        live -= set(forget)
        gaps = [gap(now)] if tick["gap"] else []
        batch = Batch(seq=seq, at_unix_ns=now, jobs=rows, closes=closes, gaps=gaps, forget=forget)
        waiting = batch if waiting is None else merge(waiting, batch)
        if tick["merge"]:
            continue
        commit(ledger, waiting)
        assert ledger.failure is None
        waiting = None
        if tick["restart"]:
            ledger.close()
            ledger = open_ledger(state_dir, boot_id=str(tick["restart"]))
            assert ledger.restore().jobs.keys() == live
    if waiting is not None:
        commit(ledger, waiting)
    assert ledger.failure is None
    assert verified(state_dir) == []
    for key, values in all_totals.items():
        found = known(state_dir, key)
        assert found is not None and found.totals == values
    ledger.close()
    open_ledger(state_dir).close()  # closes what is open
    with read_only(state_dir) as reader:
        assert reader.verify() == []
        for key, values in all_totals.items():
            booked = sum(sum(json.loads(r.content).values()) for r in reader.windows() if r.job_id == key)
            assert booked == sum(values)


def test_a_row_says_whose_it_is(ledger: Ledger, tmp_path: Path) -> None:
    job = {"id": "a", "product_id": "bert", "uses": ["iks"], "role": "creation", "phase": "training", "user": "eve",
           "weight_ppm": 5, "nodes": 2, "started_unix_ns": 1, "ended_unix_ns": None}  # fmt: skip
    commit(
        ledger,
        Batch(
            seq=1,
            at_unix_ns=9 * S,
            jobs=[JobRow.of("a", totals(direct=3), {"job": job, "taxes": []})],
            closes=[Close.of("a", 9 * S, totals(direct=3), PRICES)],
        ),
    )
    with read_only(tmp_path / "state") as reader:
        rows = reader.windows()
        assert [row for _, row, _ in reader.chain("windows")] == rows
        assert reader.verify() == []
    said = {row.domain: (json.loads(row.content), row.prices) for row in rows}
    assert said["cpu"] == ({"direct.measured": 3}, "")
    assert said[""][0] == {}
    del job["id"]
    assert json.loads(said[""][1]) == {"pue": "1.2", **job}


def test_corrections_are_rows_of_their_own(ledger: Ledger, tmp_path: Path) -> None:
    def corrected(delta_ng: int, term: str = "operation") -> Correction:
        return Correction("a", "bert", term, "intensity", 5 * S, 8 * S, delta_ng, "480 -> 56")

    commit(ledger, Batch(seq=1, at_unix_ns=9 * S, jobs=[JobRow.of("a", totals(direct=3), {})]))
    commit(ledger, Batch(seq=2, at_unix_ns=10 * S, corrections=[corrected(-7), corrected(-1, "cooling")]))
    commit(ledger, Batch(seq=3, at_unix_ns=11 * S, corrections=[corrected(2)]))
    expected = Corrected({("bert", "operation"): -5, ("bert", "cooling"): -1}, 2)
    with read_only(tmp_path / "state") as reader:
        assert reader.verify() == []
        found = reader.job("a")
        assert found is not None
        assert found.corrected == reader.jobs()["a"].corrected == expected
        assert found.totals == totals(direct=3), "what was booked stays"
        rows = reader.chain("corrections", after=2)
        assert [(position, row._asdict()["delta_ng"]) for position, row, _ in rows] == [(3, 2)]
    ledger.close()
    again = open_ledger(tmp_path / "state")
    assert again.restore().jobs["a"].corrected == expected
    again.close()


def test_corrections_that_a_full_disk_put_together_are_summed(ledger: Ledger, tmp_path: Path) -> None:
    """A clock that was set back has an interval twice; both are told at the moment of the batch."""

    def corrected(delta_ng: int, end: int) -> Correction:
        return Correction("a", "bert", "retraining", "retraining", 5 * S, end * S, delta_ng)

    first = Batch(seq=1, at_unix_ns=9 * S, corrections=[corrected(7, 8)])
    commit(ledger, merge(first, Batch(seq=2, at_unix_ns=10 * S, corrections=[corrected(7, 6), corrected(2, 6)])))
    commit(ledger, Batch(seq=3, at_unix_ns=11 * S, corrections=[corrected(5, 8)]))
    with read_only(tmp_path / "state") as reader:
        rows = [row._asdict() for _, row, _ in reader.chain("corrections")]
        assert reader.verify() == []
    assert [(row["at_unix_ns"], row["window_end_unix_ns"], row["delta_ng"]) for row in rows] == [
        (10 * S, 8 * S, 16),
        (11 * S, 8 * S, 5),
    ]


def test_a_chain_is_read_in_pieces(ledger: Ledger, tmp_path: Path) -> None:
    gaps = [gap(start) for start in (10, 30, 50)]
    commit(ledger, Batch(seq=1, at_unix_ns=9 * S, gaps=gaps))
    with read_only(tmp_path / "state") as reader:
        first = reader.chain("gaps", limit=2)
        rest = reader.chain("gaps", after=first[-1][0], limit=2)
        assert [row[4] for _, row, _ in (*first, *rest)] == [10, 30, 50]
        assert reader.chain("gaps", after=3) == []
        assert reader.created_unix_ns() == 1_700_000_000 * S


def as_schema_1(state_dir: Path) -> None:
    """What a ledger of the first version looks like."""
    with sqlite3.connect(state_dir / DATABASE) as connection:
        connection.execute("DROP TABLE corrections")
        connection.execute("DROP TABLE heads")
        connection.execute("PRAGMA user_version = 1")
    connection.close()


def test_a_ledger_of_the_first_version_is_read_and_taken_up(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    row = JobRow.of("a", totals(direct=3), {})
    commit(ledger, Batch(seq=1, at_unix_ns=9 * S, jobs=[row], closes=[Close.of("a", 9 * S, totals(direct=3))]))
    ledger.close()
    as_schema_1(tmp_path)
    with read_only(tmp_path) as reader:
        assert reader.jobs()["a"].totals == totals(direct=3)
        assert reader.chain("corrections") == []
        assert reader.verify() == []
    again = open_ledger(tmp_path)
    assert again.restore().jobs["a"].totals == totals(direct=3)
    commit(
        again, Batch(seq=1, at_unix_ns=10 * S, corrections=[Correction("a", "p", "operation", "intensity", 1, 2, 5)])
    )
    assert verified(tmp_path) == []
    again.close()
    with read_only(tmp_path) as reader:
        assert len(reader.chain("windows")) == 1
        assert len(reader.chain("corrections")) == 1
