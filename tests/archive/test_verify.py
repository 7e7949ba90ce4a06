"""The archive as evidence: whatever is changed, taken out or put in is found and named, in both databases."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive.rows import EPOCH, Chained, S, chain, correction, told, window
from wattribute.agent.archive import Archive, is_local, open_archive
from wattribute.agent.archive.verify import problems
from wattribute.agent.config.schema import Agent, Config
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.ledger.schema import Row, StoredGap

FACTS = {"product_id": "bert", "role": "creation", "uses": ["iks"], "nodes": 3, "started_unix_ns": 5 * S}
OF_N1 = "windows of n1: chain 1"
GAP = StoredGap("n1", EPOCH, "cpu", "p0", 5, 6, "reset", 7, None, 8)
CHANGES = [
    (
        "UPDATE windows SET content = '{\"direct.measured\": 6}' WHERE position = 3 AND chain = 1",
        f"{OF_N1} breaks at position 3",
    ),
    ("UPDATE windows SET window_end_unix_ns = 7 WHERE position = 4", f"{OF_N1} breaks at position 4"),
    ("UPDATE windows SET prices = '{}' WHERE position = 8", f"{OF_N1} breaks at position 8"),
    ("UPDATE windows SET job_id = 'k' WHERE position = 3 AND chain = 1", f"{OF_N1} breaks at position 3"),
    (f"UPDATE windows SET hash = '{'0' * 64}' WHERE position = 4", f"{OF_N1} breaks at position 4"),
    ("UPDATE windows SET hash = 'zz' WHERE position = 4", f"{OF_N1} breaks at position 4"),
    ("UPDATE windows SET hash = UPPER(hash) WHERE position = 4", f"{OF_N1} breaks at position 4"),
    ("UPDATE windows SET epoch_id = 77 WHERE position = 4", f"{OF_N1} breaks at position 4"),
    ("DELETE FROM windows WHERE position = 5", f"{OF_N1} breaks at position 6"),
    ("DELETE FROM windows WHERE position = 8", f"{OF_N1} ends at 7 of 8 rows"),
    ("UPDATE epochs SET node_id = 'n9'", f"{OF_N1} is called that of n1, and its rows begin as those of n9"),
    ("UPDATE chains SET node_id = 'n9' WHERE chain = 1", "windows of n9: chain 1 is called that of n9, and its rows"),
    ("UPDATE chains SET kind = 'gaps' WHERE chain = 1", "windows: 8 rows are of chain 1, which isn't there"),
    ("UPDATE chains SET kind = 'x' WHERE chain = 1", "chain 1 of n1 is of 'x', which isn't a table"),
    ("UPDATE chains SET position = 9 WHERE chain = 1", f"{OF_N1} ends at 8 of 9 rows"),
    ("UPDATE chains SET parent = 77 WHERE chain = 2", "windows of n1: chain 2 is called that of n1, and its rows"),
    ("DELETE FROM chains WHERE chain = 1", "windows: 8 rows are of chain 1, which isn't there"),
    ("UPDATE corrections SET delta_ng = 2", "corrections of n1: chain 4 breaks at position 1"),
    ("UPDATE gaps SET upper_uj = 9", "gaps of n1: chain 3 breaks at position 1"),
    ("UPDATE product_events SET body = '{\"k\": 2}' WHERE position = 1", "product events: the chain breaks at posi"),
    ("UPDATE product_events SET hash = 'x' WHERE position = 1", "product events: the chain breaks at position 1"),
    ("UPDATE archive_counters SET value = 0 WHERE name = 'chains'", "archive_counters: chains is 0, and there is nu"),
    # What was refused
    (
        "UPDATE refused SET same = 1 WHERE same = 0",
        "windows of n1: position 1 was refused, as saying the same as one t",
    ),
    ("UPDATE refused SET same = 0 WHERE same = 1", "windows of n1: position 2 was refused, as saying something else"),
    (
        "UPDATE refused SET body = '[]' WHERE position = 1",
        "windows of n1: position 1, which was refused, can't be read",
    ),
    ("UPDATE refused SET hash = 'x' WHERE position = 1", "windows of n1: chain 2 breaks at position 1"),
    ("UPDATE refused SET chain = 77", "refused: 2 rows are of chain 77, which isn't there"),
    ("DELETE FROM refused", "windows of n1: chain 2"),
    # What follows from the rows
    ("UPDATE job_sums SET amount = 5 WHERE name = 'operation'", "job 'j' on n1: its rows hold 12 of  operation"),
    ("DELETE FROM job_sums WHERE name = 'cpu_ns'", "job 'j' on n1: its rows hold 36 of  cpu_ns, its sum nothing"),
    ("INSERT INTO job_sums VALUES ('x', 'n1', 'cpu', 'direct.measured', 4)", "job 'x' on n1: its rows hold 0"),
    ("INSERT INTO job_sums VALUES ('j', 'ghost', 'cpu', 'direct.measured', 4)", "job 'j' on ghost: its rows hold 0"),
    ("UPDATE job_facts SET product_id = 'x' WHERE job_id = 'j'", "job 'j' on n1: job_facts says that it is of product"),
    (
        "UPDATE job_facts SET body = '{\"product_id\":\"bert\"}' WHERE job_id = 'j'",
        "job 'j' on n1: job_facts says that",
    ),
    (
        "UPDATE job_facts SET until_unix_ns = 7 WHERE job_id = 'j'",
        "job 'j' on n1: job_facts says that it is of product",
    ),
    (
        "UPDATE job_facts SET provisional_unix_ns = 7 WHERE job_id = 'j'",
        "job 'j' on n1: job_facts has it provisional u",
    ),
    ("UPDATE job_facts SET settled_unix_ns = 7 WHERE job_id = 'j'", "job 'j' on n1: job_facts has it provisional unti"),
    ("DELETE FROM job_facts", "job 'j' on n1: it has rows, and job_facts nothing of it"),
    (
        "INSERT INTO job_facts VALUES ('x', 'n1', 1, 'p', '{}', 0, 0)",
        "job 'x' on n1: it is in job_facts, and no row is",
    ),
]


def windows() -> Chained:
    """Some windows of job j: 5 uJ and 3 ng each, the first at an intensity that wasn't final."""
    rows: list[Row] = []
    for at in range(0, 1200, 300):
        rows.append(window("j", "cpu", at=at, direct__measured=5))
        facts = {**FACTS, "final": at > 0}
        rows.append(told("j", at=at, facts=facts, operation=3, tax__platform__iks=2, cpu_ns=9, carry__x=-4))
    return chain(rows)


@contextlib.contextmanager
def undone(archive: Archive) -> Iterator[None]:
    """A transaction that leaves nothing: the same archive serves for the next change."""
    with contextlib.suppress(ZeroDivisionError), archive._database.transaction(writing=True):
        yield
        raise ZeroDivisionError


def filled(archive: Archive) -> None:
    """One of everything, with a second chain of which two rows don't count and one does."""
    rows = windows()
    archive.deliver("n1", "windows", rows)
    other = chain([window("j", "cpu", direct__measured=9), rows[1][1], window("k", at=9000, direct__measured=1)])
    assert archive.deliver("n1", "windows", other) == (1, 1, 1)
    archive.deliver("n1", "gaps", chain([GAP]))
    archive.deliver("n1", "corrections", chain([correction(), correction(cause="retraining", term="platform")]))
    archive.append([{"k": 1}, {"k": 2}], after=0)


def found(archive: Archive) -> list[str]:
    return list(problems(archive._database))


def test_whatever_is_changed_is_found_and_named(archive: Archive) -> None:
    filled(archive)
    (conflict,) = archive.verify()
    assert conflict.startswith("windows of n1: position 1 was refused, its key has another content: node n1")
    for change, says in CHANGES:
        with undone(archive):
            archive._database.run(change)
            told_ = found(archive)
        assert any(problem.startswith(says) for problem in told_), (change, told_)
    assert archive.verify() == [conflict]


def test_every_value_of_every_table_is_evidence(archive: Archive, config: Config) -> None:
    filled(archive)
    before = archive.verify()
    database = archive._database
    columns = {
        "windows": "chain position epoch_id window_start_unix_ns job_id domain window_end_unix_ns content prices hash",
        "gaps": "chain position epoch_id kind id start_unix_ns end_unix_ns cause lower_uj upper_uj booked_uj hash",
        "corrections": "chain position epoch_id job_id product_id term cause window_start_unix_ns at_unix_ns"
        " window_end_unix_ns delta_ng detail hash",
        "refused": "chain position body same hash",
        "chains": "chain node_id kind parent forked_after position hash",
        "epochs": "epoch_id node_id epoch",
        "job_sums": "job_id node_id domain name amount",
        "job_facts": "job_id node_id until_unix_ns product_id body provisional_unix_ns settled_unix_ns",
        "product_events": "position body hash",
    }
    count = 0
    for table, names in columns.items():
        rows = database.rows(f"SELECT {', '.join(names.split())} FROM {table}")
        for row in rows if is_local(config) else rows[:1]:
            kept = dict(zip(names.split(), row, strict=True))
            this = " AND ".join(f"{name} = :{name}" for name, value in kept.items() if value is not None)
            params = {name: value for name, value in kept.items() if value is not None}
            changed = {
                name: f"{value}x" if isinstance(value, str) else 77 if value is None else value + 70
                for name, value in kept.items()
            }
            for name, value in changed.items():
                with undone(archive):
                    database.run(f"UPDATE {table} SET {name} = :new WHERE {this}", {**params, "new": value})
                    assert found(archive) != before, (table, name, kept)
                count += 1
            last_event = table == "product_events" and kept["position"] == 2
            with undone(archive):
                database.run(f"DELETE FROM {table} WHERE {this}", params)
                assert found(archive) != before or last_event, (table, kept)
    assert count > 50
    assert archive.verify() == before


def test_a_row_that_was_put_aside_as_known_is_missed(archive: Archive) -> None:
    rows = windows()
    archive.deliver("n1", "windows", rows)
    position, row, kept = rows[0]
    database = archive._database
    database.run("DELETE FROM windows WHERE position = 1")
    database.run(
        "INSERT INTO refused VALUES (1, :position, :body, 1, :hash)",
        {"position": position, "body": json.dumps(row, separators=(",", ":")), "hash": kept.hex()},
    )
    database.run("UPDATE job_sums SET amount = 15 WHERE name = 'direct.measured'")
    (problem,) = archive.verify()
    assert problem.startswith("windows of n1: position 1 was refused, and no row that counts has its key: node n1")


def test_a_changed_column_is_told_where_a_neighbour_has_what_it_was(archive: Archive) -> None:
    archive.deliver("n1", "windows", windows())
    archive._database.run(
        "UPDATE windows SET content = :content WHERE position = 3", {"content": '{"direct.measured":50}'}
    )
    first = archive.verify()[0]
    assert first.startswith(f"{OF_N1} breaks at position 3 (node n1, epoch {EPOCH}, job 'j', domain 'cpu', window 1970")
    assert first.endswith('content was changed: \'{"direct.measured":5}\' fits its hash, '
                          '\'{"direct.measured":50}\' doesn\'t')  # fmt: skip


def test_many_that_are_off_are_counted(archive: Archive) -> None:
    archive.deliver("n1", "windows", chain(window(f"j{number}", direct__measured=1) for number in range(200)))
    archive._database.run("UPDATE job_sums SET amount = 2")
    archive._database.run("UPDATE job_facts SET settled_unix_ns = 2")
    found_ = archive.verify()
    assert len(found_) < 110
    assert sum("its rows hold 1 of cpu direct.measured, its sum 2" in problem for problem in found_) == 50
    assert "the same of 150 more jobs" in found_


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE windows SET content = x'ff' WHERE position = 3",
        "UPDATE windows SET job_id = CAST(x'6aff' AS TEXT) WHERE position = 3",
        "UPDATE windows SET window_end_unix_ns = 'x' WHERE position = 3",
        "UPDATE windows SET window_end_unix_ns = 1.5 WHERE position = 3",
        "UPDATE windows SET hash = x'ff' WHERE position = 3",
        "UPDATE windows SET position = 'x' WHERE position = 3",
        "UPDATE product_events SET body = x'ff'",
        "UPDATE job_sums SET amount = 'x'",
        "UPDATE job_sums SET amount = 1e300",
        "UPDATE job_facts SET until_unix_ns = 'x'",
        "UPDATE job_facts SET body = x'ff'",
        "UPDATE job_facts SET job_id = x'ff' WHERE job_id = 'j'",
        "UPDATE refused SET body = x'ff'",
        "UPDATE refused SET same = 'x'",
        "UPDATE chains SET position = 'x'",
        "UPDATE chains SET hash = x'ff'",
        "UPDATE chains SET forked_after = 'x'",
        "UPDATE epochs SET node_id = x'ff'",
        "UPDATE archive_counters SET value = 'x' WHERE name = 'chains'",
    ],
)
def test_a_value_of_another_type_is_said_and_no_crash(change: str, tmp_path: Path) -> None:
    config = Config(agent=Agent(state_dir=str(tmp_path)))
    with open_archive(config) as archive:
        filled(archive)
    with contextlib.closing(sqlite3.connect(tmp_path / "archive.db", isolation_level=None)) as connection:
        connection.execute(change)
    with open_archive(config) as archive:
        assert len(archive.verify()) > 1


def test_without_its_own_description_it_is_no_archive(tmp_path: Path) -> None:
    config = Config(agent=Agent(state_dir=str(tmp_path)))
    open_archive(config).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "archive.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM archive_counters")
    with pytest.raises(LedgerError, match="doesn't say its schema"):
        open_archive(config)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("DELETE FROM job_facts WHERE job_id = 'jj'", "has amounts of job 'jj' and nothing of what it is"),
        ("UPDATE product_events SET body = 'x'", "what was registered of products can't be read"),
    ],
)
def test_what_was_changed_is_no_crash_of_a_report(change: str, says: str, archive: Archive) -> None:
    filled(archive)
    archive.deliver("n2", "windows", chain([window("jj", node="n2", direct__measured=1)]))
    archive._database.run(change)
    with pytest.raises(LedgerError, match=says):
        _ = [*archive.jobs(), *archive.events()]
    with pytest.raises(LedgerError, match=says):
        _ = [*archive.jobs(from_unix_ns=0), *archive.events()]
