"""Verification finds whatever is changed in a ledger file and names the row; ledgers that nobody touched are sound."""

import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tests.agent.test_ledger import IDLE, PRICES, S, commit, gap, open_ledger, totals, verified

from wattribute.agent.core.model import SLOTS, TERM_SLOT
from wattribute.agent.ledger.batch import Batch, Close, Correction, JobRow, dump, pack, unpack
from wattribute.agent.ledger.chains import MOST_BREAKS, canonical
from wattribute.agent.ledger.files import DATABASE
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.schema import CHAINS, COLUMNS, NODE_KEY, TABLES, Table, WindowRow, chained
from wattribute.agent.ledger.verify import Problem

START = 1_760_000_000 * S
TAXES = {"taxes": [["iks", "platform"]], "job": {"product_id": "bert", "role": "use"}}
NAMES = [["cpu", "node.measured"], ["cpu", "unattributed.idle"], ["dram", "node.modelled"], ["", "operation"]]


def written(state_dir: Path) -> Path:
    """A ledger with two jobs over three windows, one of them taxed, and the node's own windows."""
    ledger = open_ledger(state_dir)
    for tick in range(1, 4):
        end = START + 300 * S * tick
        a = [*totals(direct=100 * tick, idle=3 * tick, operation=70 * tick, cpu_ns=tick), 11 * tick]
        b = totals(direct=40 * tick)
        node = [150 * tick, 10 * tick, 3 * tick, 70 * tick]
        rows = [
            JobRow.of("a/é", a, TAXES, START),
            JobRow.of("b", b, {}, START),
            JobRow.of(NODE_KEY, node, {"names": NAMES}, START),
        ]
        books = {
            "node_energy_uj": [["cpu", "package-0", "measured", 150 * tick], ["dram", "dram-0", "modelled", 3 * tick]],
            "unattributed_uj": [["cpu", "idle", 10 * tick]],
        }
        batch = Batch(
            seq=tick,
            at_unix_ns=end,
            prices=PRICES,
            jobs=rows,
            closes=[Close.of("a/é", end, a, PRICES), Close.of("b", end, b, PRICES), Close.of(NODE_KEY, end, node)],
            gaps=[gap(START + tick), gap(START + tick, upper_uj=None, cause="absent")],
            corrections=[Correction("a/é", "bert", "operation", "intensity", START, end, -tick, "480 -> 479")],
            state={"books": dump(books)},
            forget=["b"] if tick == 3 else [],
        )
        commit(ledger, batch)
        assert ledger.failure is None
    ledger.close()
    return state_dir


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("sound"))


def edited(sound: Path, state_dir: Path, edit: Callable[[sqlite3.Connection], None]) -> list[Problem]:
    """What verification says of a copy that was edited by hand, its triggers put back afterwards."""
    shutil.copy(sound / DATABASE, state_dir / DATABASE)
    connection = sqlite3.connect(state_dir / DATABASE, isolation_level=None)
    triggers = [sql for sql in TABLES if sql.startswith("CREATE TRIGGER")]
    for sql in triggers:
        connection.execute(f"DROP TRIGGER {sql.split()[2]}")
    edit(connection)
    for sql in triggers:
        connection.execute(sql)
    connection.close()
    with read_only(state_dir) as reader:
        return list(reader.verdict().problems)


def sizes(sound: Path) -> dict[Table, int]:
    with read_only(sound) as reader:
        return {head.table: head.rows for head in reader.heads()}


def test_a_ledger_that_nobody_touched_is_sound(sound: Path) -> None:
    seen: list[int] = []
    with read_only(sound) as reader:
        verdict = reader.verdict(seen.append)
        assert reader.verify() == []
        assert list(verdict.heads) == reader.heads()
        assert [(head.table, head.rows, head.node_id) for head in verdict.heads] == [
            ("windows", 21, "n"),
            ("gaps", 6, "n"),
            ("corrections", 3, "n"),
        ]
        assert verdict.heads[0].hash == reader.chain("windows", 20)[0][2]


COLUMN_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "epoch_id": st.integers(1, 3),
    "domain": st.sampled_from(["", "cpu", "dram", "gpu", "rest"]),
    "hash": st.binary(min_size=32, max_size=32),
    "upper_uj": st.none() | st.integers(-5, 1 << 62),
}


@st.composite
def flips(draw: st.DrawFn) -> tuple[Table, int, str, Any]:
    """A table, a position in it (modulo its length), a column and a value for it."""
    table = draw(st.sampled_from(CHAINS))
    column = draw(st.sampled_from([*COLUMNS[table].split(", "), "hash", "position"]))
    numeric = column.endswith(("_ns", "_uj", "_ng")) or column == "position"
    any_text = st.text(max_size=20).filter(lambda text: "\0" not in text) | st.binary(max_size=20)
    plain = st.integers(0, 1 << 62) | st.text(max_size=3) if numeric else any_text
    values = COLUMN_VALUES.get(column, plain)
    return table, draw(st.integers(0, 99)), column, draw(values)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flip=flips())
@example(flip=("gaps", 0, "kind", b"r)"))
@example(flip=("windows", 3, "content", '{"direct.measured":1e2}'))
@example(flip=("windows", 3, "content", "[]"))
@example(flip=("windows", 3, "window_start_unix_ns", "soon"))
@example(flip=("windows", 20, "hash", bytes(32)))
@example(flip=("windows", 20, "epoch_id", 7))
def test_any_changed_value_is_found_and_its_row_named(
    sound: Path, tmp_path: Path, flip: tuple[Table, int, str, Any]
) -> None:
    table, place, column, value = flip
    position = place % sizes(sound)[table] + 1
    changed = []

    def edit(connection: sqlite3.Connection) -> None:
        (before,) = connection.execute(f"SELECT {column} FROM {table} WHERE position = ?", (position,)).fetchone()
        try:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE position = ?", (value, position))
        except sqlite3.Error:
            return  # the key of another row, or no position at all
        now = value if column == "position" else position
        (after,) = connection.execute(f"SELECT {column} FROM {table} WHERE position = ?", (now,)).fetchone()
        changed.append((before, after))

    problems = edited(sound, tmp_path, edit)
    assume(changed and changed[0][0] != changed[0][1])
    named = {(problem.table, problem.position) for problem in problems}
    if column == "position":
        assert {table for table, _ in named} == {table}
        assert any(f"position {position} is missing" in one.text or "ends at" in one.text for one in problems)
    else:
        assert (table, position) in named, problems
    for problem in problems:
        assert problem.text
        json.dumps(problem.text)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.sampled_from(CHAINS), places=st.tuples(st.integers(0, 99), st.integers(0, 99)), hashes=st.booleans())
def test_swapped_rows_are_found_and_named(
    sound: Path, tmp_path: Path, table: Table, places: tuple[int, int], hashes: bool
) -> None:
    size = sizes(sound)[table]
    first, second = (place % size + 1 for place in places)
    assume(first != second)
    columns = COLUMNS[table] + (", hash" if hashes else "")
    put = f"UPDATE {table} SET ({columns}) = ({', '.join('?' * (columns.count(',') + 1))}) WHERE position = ?"

    def edit(connection: sqlite3.Connection) -> None:
        found = [
            connection.execute(f"SELECT {columns} FROM {table} WHERE position = ?", (position,)).fetchone()
            for position in (first, second)
        ]
        connection.execute(f"DELETE FROM {table} WHERE position = ?", (second,))
        connection.execute(put, (*found[1], first))
        every = COLUMNS[table] + ", hash"
        connection.execute(
            f"INSERT INTO {table} ({columns}, position{'' if hashes else ', hash'}) "
            f"VALUES ({', '.join('?' * (every.count(',') + 2))})",
            (*found[0], second) if hashes else (*found[0], second, hash_of[0]),
        )

    with read_only(sound) as reader:
        hash_of = [reader.chain(table, second - 1, 1)[0][2]]
    problems = edited(sound, tmp_path, edit)
    named = {problem.position for problem in problems if problem.table == table}
    assert {first, second} <= named or (hashes and min(first, second) in named), problems


@pytest.mark.parametrize("table", CHAINS)
def test_a_dropped_row_is_found(sound: Path, tmp_path: Path, table: Table) -> None:
    size = sizes(sound)[table]
    for position in range(1, size + 1):
        problems = edited(
            sound,
            tmp_path,
            lambda c, p=position: c.execute(f"DELETE FROM {table} WHERE position = {p}") and None,  # type: ignore[misc]
        )
        first = problems[0]
        if position < size:
            assert f"position {position} is missing" in first.text
            assert (first.table, first.position) == (table, position + 1)
        else:
            assert first.text == f"the chain of {table} ends at {size - 1} of {size} rows"
            assert (first.table, first.position) == (table, size - 1)


def test_an_added_row_is_found_even_if_it_is_chained_and_counted(sound: Path, tmp_path: Path) -> None:
    with read_only(sound) as reader:
        [(_, last, head)] = reader.chain("windows", 20)
    assert isinstance(last, WindowRow)
    row = last._replace(
        job_id="b", domain="cpu", content='{"direct.measured":5}', window_start_unix_ns=START + 900 * S,
        window_end_unix_ns=START + 1000 * S,
    )  # fmt: skip

    def add(connection: sqlite3.Connection) -> None:
        connection.execute(
            f"INSERT INTO windows ({COLUMNS['windows']}, position, hash) VALUES (1, ?, ?, ?, ?, ?, ?, 22, ?)",
            (*row[2:], chained(head, row)),
        )

    def count(connection: sqlite3.Connection) -> None:
        add(connection)
        connection.execute("UPDATE meta SET windows = 22, windows_head = ?", (chained(head, row),))

    assert edited(sound, tmp_path, add)[0].text == "the chain of windows ends at 22 of 21 rows"
    [problem] = edited(sound, tmp_path, count)
    assert problem.text == "job 'b': closed rows hold 125 of cpu direct.measured, its totals 120"


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE meta SET windows_head = zeroblob(32)",
        "UPDATE meta SET windows = 7",
        "UPDATE meta SET gaps_head = 'x'",
        "UPDATE heads SET head = zeroblob(32)",
        "DELETE FROM heads",
    ],
)
def test_a_changed_head_is_found(sound: Path, tmp_path: Path, edit: str) -> None:
    [problem] = edited(sound, tmp_path, lambda connection: connection.execute(edit) and None)  # type: ignore[arg-type]
    assert "the chain of " in problem.text


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("content", '{"direct.measured":900}', '{"direct.measured":100}\' fits its hash'),
        ("content", "{}", '{"direct.measured":100}\' fits its hash'),
        ("content", '{"direct.measured":100,"idle.measured":7}', '{"direct.measured":100}\' fits its hash'),
        ("domain", "gpu", "'cpu' fits its hash"),
        ("job_id", "c", "'a/é' fits its hash"),
        ("window_end_unix_ns", START + 5, f"{START + 300 * S} fits its hash"),
        ("prices", PRICES, "prices was changed: '' fits its hash"),
        ("hash", bytes(32), "its hash was changed, its columns fit the row after it"),
    ],
)
def test_the_changed_column_is_told_where_it_can_be(
    sound: Path, tmp_path: Path, column: str, value: object, says: str
) -> None:
    problems = edited(
        sound,
        tmp_path,
        lambda c: c.execute(f"UPDATE windows SET {column} = ? WHERE position = 1", (value,)) and None,  # type: ignore[arg-type]
    )
    assert (problems[0].position, problems[0].column) == (1, column)
    assert says in problems[0].text
    assert problems[0].row["job_id"] == ("c" if column == "job_id" else "a/é")
    assert "node n, epoch 5b3c0f9e-0000-4000-8000-000000000001/1, job " in problems[0].text
    assert "window 2025-10-09T08:53:20.000000Z to 2025-10-09T08:5" in problems[0].text


def test_swapped_rows_are_told_as_such(sound: Path, tmp_path: Path) -> None:
    def swap(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE gaps SET position = -1 WHERE position = 2")
        connection.execute("UPDATE gaps SET position = 2 WHERE position = 5")
        connection.execute("UPDATE gaps SET position = 5 WHERE position = -1")

    first, *_ = edited(sound, tmp_path, swap)
    assert (first.position, first.column) == (2, "position")
    assert "the row that belongs here stands at position 5" in first.text


def test_an_epoch_renamed_breaks_its_rows_and_the_list_stays_short(sound: Path, tmp_path: Path) -> None:
    problems = edited(sound, tmp_path, lambda c: c.execute("UPDATE epochs SET epoch = 'x'") and None)  # type: ignore[arg-type]
    assert {problem.position for problem in problems if problem.table == "windows"} == set(range(1, 22))
    assert len(problems) < MOST_BREAKS


def test_totals_that_do_not_add_up_to_the_node(sound: Path, tmp_path: Path) -> None:
    from zlib import crc32

    books = dump({"node_energy_uj": [["cpu", "package-0", "measured", 451]], "unattributed_uj": [["cpu", "idle", 30]]})

    def edit(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE state SET body = ?, crc = ?", (books, crc32(books.encode())))

    assert [problem.text for problem in edited(sound, tmp_path, edit)] == [
        "cpu: all jobs hold 420 uJ and nobody paid 30: together 450, and the node used 451",
        "dram: all jobs hold 9 uJ and nobody paid 0: together 9, and the node used 0",
    ]


def test_windows_that_hold_more_than_the_node(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    rows = [
        JobRow.of("a", totals(idle=10), {}, START),
        JobRow.of(NODE_KEY, [9], {"names": [["dram", "node.x"]]}, START),
    ]
    end = START + 300 * S
    closes = [Close.of("a", end, totals(idle=10)), Close.of(NODE_KEY, end, [9])]
    commit(ledger, Batch(seq=1, at_unix_ns=end, jobs=rows, closes=closes))
    [problem] = verified(tmp_path)
    ledger.close()
    assert problem.startswith(
        "until this window, closed rows of dram hold 10 uJ of jobs and 0 that nobody paid: 1 more"
    )


def test_amounts_that_fall_are_found(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    rows = [JobRow.of("a", totals(idle=10), {}, START)]
    commit(ledger, Batch(seq=1, at_unix_ns=START + S, jobs=rows, closes=[Close.of("a", START + S, totals(idle=10))]))
    commit(ledger, Batch(seq=2, at_unix_ns=START + 2 * S, closes=[Close.of("a", START + 2 * S, totals(idle=8))]))
    commit(ledger, Batch(seq=3, at_unix_ns=START + 3 * S, jobs=[JobRow.of("a", totals(idle=7))]))
    found = verified(tmp_path)
    ledger.close()
    assert any(text.startswith("job 'a': dram idle.modelled fell by 2 (windows position 2, node n") for text in found)
    assert "job 'a': dram idle.modelled fell from 8 to 7" in found
    assert IDLE < SLOTS


texts = st.text(max_size=12) | st.sampled_from(["\x7f", 'é\\"', "\x00\x1f\u2028", "\U0001f600"])


@given(st.tuples(texts, texts, st.integers(-(1 << 63), (1 << 63) - 1), texts, texts, st.integers(0, 9), texts, texts))
def test_the_fast_bytes_are_the_documented_ones(values: tuple[Any, ...]) -> None:
    assert canonical(values) == json.dumps(values, separators=(",", ":")).encode()


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Path]:
    ledger = open_ledger(tmp_path)
    jobs = [JobRow.of(f"job {n}", totals(direct=n), {}, START) for n in range(3000)]
    closes = [Close.of(f"job {n}", START + S, totals(direct=n)) for n in range(3000)]
    commit(ledger, Batch(seq=1, at_unix_ns=START + S, jobs=jobs, closes=closes))
    ledger.close()
    yield tmp_path


def test_many_broken_rows_are_counted_and_not_all_described(many: Path, tmp_path: Path) -> None:
    def edit(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE windows SET content = '{\"direct.measured\":1}'")

    (tmp_path / "copy").mkdir()
    problems = [one.text for one in edited(many, tmp_path / "copy", edit)]
    assert len(problems) < 400
    assert any("breaks at 2898 more positions" in text for text in problems)
    assert any("more of 4096 groups" in text for text in problems)


def test_totals_of_a_job_that_is_over_are_what_is_closed(sound: Path, tmp_path: Path) -> None:
    def more(connection: sqlite3.Connection) -> None:
        (row_id, packed) = connection.execute(
            "SELECT id, packed FROM job JOIN total USING (id) WHERE finished = 1"
        ).fetchone()
        values = unpack(packed)
        values[TERM_SLOT["operation"]] += 5
        connection.execute(
            "UPDATE total SET packed = ?, crc = ? WHERE id = ?", (pack(values), zlib.crc32(pack(values)), row_id)
        )

    (problem,) = edited(sound, tmp_path, more)
    assert problem.text == "job 'b' is over, and its totals aren't what is closed of it"
