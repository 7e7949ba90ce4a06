"""Rows out of one archive and into another, in SQLite and in PostgreSQL: chains, forks and rows that don't count."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.agent.test_ledger_verify import written
from wattribute.agent.archive import Archive, codecarbon, imports, open_archive
from wattribute.agent.archive.imports import Brought, Bundle
from wattribute.agent.config.schema import Agent, Config
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.schema import CHAINS, NO_HASH, StoredGap, Table, chained


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    state_dir = written(tmp_path_factory.mktemp("source"))
    with open_archive(Config(agent=Agent(state_dir=str(state_dir)))) as opened:
        yield opened


def bundle(archive: Archive, table: Table) -> Bundle:
    strands = archive.strands(table)

    def rows() -> Iterator[Brought]:
        for strand in strands:
            for one in archive.kept(table, strand):
                yield Brought(strand.chain, one.position, one.row, one.hash)

    return Bundle(path="x", table=table, schema=2, partial=False, strands=strands, rows=rows)


def gaps(causes: str) -> list[tuple[int, StoredGap, bytes]]:
    """A chain of gaps, one per letter; a letter's row is always the same under its key but for capitals."""
    rows, head = [], NO_HASH
    for position, cause in enumerate(causes, start=1):
        booked = 1 if cause.islower() else 2
        row = StoredGap("n", "e/1", "cpu", "p", 1, 2, cause.lower(), booked, None, booked)
        head = chained(head, row)
        rows.append((position, row, head))
    return rows


def test_an_archive_goes_over_whole(archive: Archive, source: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wattribute.agent.archive.reading.ROWS_AT_ONCE", 4)
    monkeypatch.setattr("wattribute.agent.archive.imports.ROWS_AT_ONCE", 5)
    for table in CHAINS:
        imports.take(archive, bundle(source, table))
    assert list(archive.jobs()) == list(source.jobs())
    assert archive.verify() == []
    assert [imports.take(archive, bundle(source, table)).added for table in CHAINS] == [0, 0, 0]


def test_forks_and_rows_that_do_not_count_go_over_as_such(archive: Archive, source: Archive, tmp_path: Path) -> None:
    for chain in ("abc", "abde", "aBf"):
        archive.deliver("n", "gaps", gaps(chain))
    found = [
        (one.record, one.row._asdict()["cause"]) for s in archive.strands("gaps") for one in archive.kept("gaps", s)
    ]
    assert found == [
        ("row", "a"),
        ("row", "b"),
        ("row", "c"),
        ("row", "d"),
        ("row", "e"),
        ("refused", "b"),
        ("row", "f"),
    ]
    with open_archive(Config(agent=Agent(state_dir=str(tmp_path / "other")))) as other:
        taken = imports.take(other, bundle(archive, "gaps"))
        assert (taken.rows, taken.added, taken.refused) == (7, 6, 1)
        assert [tuple(strand) for strand in other.strands("gaps")] == [tuple(s) for s in archive.strands("gaps")]
        assert imports.take(other, bundle(archive, "gaps")).added == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 99), what=st.sampled_from(["content", "hash", "position", "drop"]))
def test_a_changed_row_is_refused_and_nothing_is_taken(
    source: Archive, tmp_path_factory: pytest.TempPathFactory, place: int, what: str
) -> None:
    whole = bundle(source, "windows")
    rows = list(whole.rows())
    place %= len(rows)
    one = rows[place]
    if what == "content":
        rows[place] = one._replace(row=one.row._replace(content='{"direct.measured":12345}'))  # type: ignore[call-arg]
    elif what == "hash":
        rows[place] = one._replace(hash="ab" * 32)
    elif what == "position":
        rows[place] = one._replace(position=one.position + 1)
    else:
        del rows[place]
    spoilt = Bundle(path="x", table="windows", schema=2, partial=False, strands=whole.strands, rows=lambda: iter(rows))
    with open_archive(Config(agent=Agent(state_dir=str(tmp_path_factory.mktemp("refused"))))) as empty:
        with pytest.raises(LedgerError, match=r"x: nothing is imported: .*(windows|begins at position 2)"):
            imports.take(empty, spoilt)
        assert empty.strands("windows") == []


def test_runs_of_codecarbon(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(
        "timestamp,run_id,duration,emissions,energy_consumed\n2025-03-01T10:00:00,r,9,1e-3,2\n"
    )
    found = codecarbon.runs(str(tmp_path / "e.csv"), product_id="p", role="use")
    assert [run.job_id for run in codecarbon.take(archive, found).new] == ["codecarbon-r"]
    assert codecarbon.take(archive, found).known == found
    job = archive.job("codecarbon-r")
    assert job is not None
    assert (job.source, job.terms_ng) == ("codecarbon", {"operation": 1_000_000_000})


def test_a_reader_and_an_archive_tell_the_same(source: Archive, tmp_path: Path) -> None:
    with read_only(written(tmp_path)) as reader:
        for table in CHAINS:
            [strand] = source.strands(table)
            assert [(one.position, one.row, one.hash) for one in source.kept(table, strand)] == [
                (position, row, kept.hex()) for position, row, kept in reader.chain(table)
            ]
