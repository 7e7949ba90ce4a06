"""The archive, on SQLite and on PostgreSQL: each row counts once, a job on many nodes is one, what changed is found."""

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archive.rows import EPOCH, Chained, S, chain, correction, told, window
from tests.doubles.postgres import Postgres
from wattribute.agent.archive import FILE, Archive, Unreachable, open_archive, totals
from wattribute.agent.archive.postgres import PostgresDatabase
from wattribute.agent.config.schema import Agent, Config, Ledger
from wattribute.agent.core.errors import ConfigError, LedgerError
from wattribute.agent.core.fleet_parts import Amounts, Key, Part
from wattribute.agent.core.records import JobRecord, NodeRecord
from wattribute.agent.ledger.schema import Row, StoredGap, WindowRow

FACTS = {
    "product_id": "bert", "role": "creation", "uses": ["iks"], "phase": "training", "user": "ada", "nodes": 3,
    "weight_ppm": 500_000, "started_unix_ns": 5 * S, "ended_unix_ns": None,
}  # fmt: skip


def windows(node: str = "n1", count: int = 4) -> Chained:
    """Some windows of job j on a node: 7 uJ and 3 ng each."""
    rows: list[Row] = []
    for at in range(0, 300 * count, 300):
        rows.append(window("j", "cpu", node=node, at=at, direct__measured=5, idle__modelled=2))
        rows.append(
            told(
                "j", node=node, at=at, facts=FACTS, operation=3, platform=2, tax__platform__iks=2, cpu_ns=9, carry__x=-4
            )
        )
    return chain(rows)


def energy(archive: Archive, job_id: str = "j") -> int:
    found = archive.job(job_id)
    return sum(found.energy_uj.values()) if found is not None else 0


# Each row once


def test_a_job_on_many_nodes_is_one_job(archive: Archive) -> None:
    for number, node in enumerate(["n1", "n2", "n3"]):
        archive.deliver(node, "windows", windows(node, count=4 - number))
    last = told("j", node="n1", at=1200, facts={**FACTS, "ended_unix_ns": 1300 * S}, operation=1)
    archive.deliver("n1", "windows", chain([last], windows("n1")))
    (job,) = archive.jobs()
    assert job == archive.job("j")
    assert job == JobRecord(
        id="j", product_id="bert", uses=("iks",), role="creation", phase="training", user="ada",
        weight_ppm=1_500_000, nodes=("n1", "n2", "n3"), expected_nodes=3, started_unix_ns=5 * S, ended_unix_ns=None,
        energy_uj={("cpu", "direct", "measured"): 45, ("cpu", "idle", "modelled"): 18},
        terms_ng={"operation": 28, "platform": 18}, taxes_ng={("iks", "platform"): 18}, cpu_ns=81,
    )  # fmt: skip


def test_it_has_ended_when_it_has_ended_everywhere(archive: Archive) -> None:
    for node, end in (("n1", 90 * S), ("n2", 70 * S)):
        archive.deliver(node, "windows", chain([told(node=node, facts={**FACTS, "ended_unix_ns": end}, operation=1)]))
    job = archive.job("j")
    assert job is not None
    assert job.ended_unix_ns == 90 * S


def test_a_delivery_that_comes_twice_changes_nothing(archive: Archive) -> None:
    rows = windows()
    assert archive.deliver("n1", "windows", rows) == (8, 0, 0)
    assert archive.deliver("n1", "windows", rows) == (0, 8, 0)
    assert archive.deliver("n1", "windows", rows[2:5]) == (0, 3, 0)
    more = [*rows, *chain([window(at=1200, direct__measured=1)], rows)]
    assert archive.deliver("n1", "windows", more[5:]) == (1, 3, 0)
    assert energy(archive) == 29
    assert archive.verify() == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_whatever_is_sent_again_in_whatever_pieces(
    kind: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    server: Postgres | None = request.getfixturevalue("postgres") if kind == "postgresql" else None
    rows = windows(count=6)

    @settings(max_examples=8 if server else 30, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), max_size=12))
    def check(pieces: list[tuple[int, int]]) -> None:
        url = server.url(server.new_database()) if server is not None else ""
        config = Config(agent=Agent(state_dir=str(tmp_path_factory.mktemp("state"))), ledger=Ledger(url=url))
        with open_archive(config) as archive:
            there = 0
            for start, count in [*pieces, (0, 12)]:
                piece = rows[start : start + count]
                if start > there:
                    with pytest.raises(LedgerError, match="nothing that position"):
                        archive.deliver("n1", "windows", piece)
                else:
                    known = min(len(piece), there - start)
                    assert archive.deliver("n1", "windows", piece) == (len(piece) - known, known, 0)
                    there = max(there, start + len(piece))
                assert energy(archive) == 7 * ((there + 1) // 2)
            assert archive.verify() == []

    check()


def test_a_hole_and_a_broken_hash_are_refused_whole(archive: Archive) -> None:
    rows = windows()
    with pytest.raises(LedgerError, match="position 4 comes after 2"):
        archive.deliver("n1", "windows", [*rows[:2], *rows[3:]])
    with pytest.raises(LedgerError, match="positions begin at 1"):
        archive.deliver("n1", "windows", [(0, rows[0][1], rows[0][2])])
    position, row, kept = rows[5]
    assert isinstance(row, WindowRow)
    broken = [*rows[:5], (position, row._replace(job_id="other"), kept), *rows[6:]]
    with pytest.raises(LedgerError, match="breaks at position 6, and nothing of this delivery is taken"):
        archive.deliver("n1", "windows", broken)
    assert archive.job("j") is None
    assert archive.acked("n1", "windows") == []


@pytest.mark.parametrize(
    "content", ["[]", '{"a":1.5}', '{"a":true}', '{"a":9223372036854775808}', "{", '{"a":"1"}', "", "\\u0000"]
)
def test_content_that_is_no_amounts_is_refused(content: str, archive: Archive) -> None:
    with pytest.raises(LedgerError, match="content isn't"):
        archive.deliver("n1", "windows", chain([window()._replace(content=content)]))
    assert list(archive.jobs()) == []


@pytest.mark.parametrize(
    "prices",
    ["", "null", "[1]", "{", '{"uses":"x","role":"king","weight_ppm":"1","nodes":-1,"product_id":7,"phase":[]}',
     '{"started_unix_ns":99999999999999999999,"ended_unix_ns":"x","user":null,"weight_ppm":true}'],
)  # fmt: skip
def test_a_row_that_says_its_job_wrongly_has_the_defaults(prices: str, archive: Archive) -> None:
    archive.deliver("n1", "windows", chain([told(facts={}, operation=4)._replace(prices=prices)]))
    (job,) = archive.jobs()
    assert (job.product_id, job.role, job.uses, job.weight_ppm, job.expected_nodes) == ("default", "use", (), 10**6, 1)
    assert job.terms_ng == {"operation": 4}


# Ledgers that are put back, begun anew, or two of one name


def test_a_sum_that_does_not_fit_is_refused_and_never_a_float(archive: Archive) -> None:
    rows = chain(window(at=at, direct__measured=1 << 62) for at in range(0, 900, 300))
    with pytest.raises(LedgerError, match="64 bits"):
        archive.deliver("n1", "windows", rows)
    archive.deliver("n1", "windows", rows[:1])
    with pytest.raises(LedgerError, match=r"64 bits|out of range"):
        archive.deliver("n1", "windows", rows[1:2])
    assert energy(archive) == 1 << 62
    assert archive.verify() == []


def test_a_ledger_that_was_put_back_leaves_its_chain_and_what_it_had_done_stays(archive: Archive) -> None:
    rows = windows()
    archive.deliver("n1", "windows", rows)
    later = [window(at=5000, epoch="boot/2", direct__measured=100), told(at=5000, facts=FACTS, operation=50)]
    forked = [*rows[:4], *chain(later, rows[:4])]
    assert archive.deliver("n1", "windows", forked[4:]) == (2, 0, 0)
    assert archive.deliver("n1", "windows", forked) == (0, 6, 0)
    assert energy(archive) == 28 + 100
    tips = archive.acked("n1", "windows")
    assert [(tip.parent, tip.forked_after, tip.position) for tip in tips] == [(1, 4, 6), (None, 0, 8)]
    again = [*forked, *chain([window(at=9000, direct__measured=1)], forked)]
    assert archive.deliver("n1", "windows", again) == (1, 6, 0)
    assert archive.deliver("n1", "windows", rows) == (0, 8, 0)
    twice = [*again[:5], *chain([window(at=9900, direct__measured=1)], again[:5])]
    assert archive.deliver("n1", "windows", twice[2:]) == (1, 3, 0)
    assert archive.acked("n1", "windows")[0].parent == tips[0].chain
    assert archive.deliver("n1", "windows", twice) == (0, 6, 0)
    assert archive.verify() == []


def test_a_ledger_begun_anew_has_a_chain_of_its_own(archive: Archive) -> None:
    archive.deliver("n1", "windows", windows())
    new = chain([window(at=9000, epoch="boot/2", direct__measured=1)])
    assert archive.deliver("n1", "windows", new) == (1, 0, 0)
    assert energy(archive) == 29
    assert [tip.position for tip in archive.acked("n1", "windows")] == [1, 8]
    assert archive.verify() == []


def test_the_same_row_on_another_chain_counts_once(archive: Archive) -> None:
    rows = windows()
    archive.deliver("n1", "windows", rows)
    shuffled = chain([row for _, row, _ in reversed(rows)])
    assert archive.deliver("n1", "windows", shuffled) == (0, 8, 0)
    assert energy(archive) == 28
    assert archive.verify() == []


def test_the_same_key_with_another_content_is_kept_aside_and_named(archive: Archive) -> None:
    archive.deliver("n1", "windows", windows())
    other = chain([window(direct__measured=999), window(at=9000, direct__measured=1)])
    assert archive.deliver("n1", "windows", other) == (1, 0, 1)
    assert archive.deliver("n1", "windows", other) == (0, 2, 0)
    assert energy(archive) == 29
    assert archive.verify() == [
        f"windows of n1: position 1 was refused, its key has another content: node n1, epoch {EPOCH}, job 'j', "
        "domain 'cpu', window 1970-01-01T00:00:00.000000Z to 1970-01-01T00:05:00.000000Z"
    ]


def test_gaps_are_kept(archive: Archive) -> None:
    rows = chain(
        StoredGap("n1", EPOCH, "cpu", "package-0", at, at + 5, "reset", 3, upper, 3)
        for at, upper in ((1, None), (9, 4))
    )
    assert archive.deliver("n1", "gaps", rows) == (2, 0, 0)
    assert archive.deliver("n1", "gaps", rows) == (0, 2, 0)
    assert archive.verify() == []


# Corrections, time, nodes


def test_corrections_are_in_the_terms_and_count_revisions(archive: Archive) -> None:
    archive.deliver("n1", "windows", windows())
    corrections = chain(
        [
            correction(delta=-2),
            correction(delta=1, start=300),
            correction(delta=5, at=2000, term="retraining", cause="retraining", product="iks"),
        ]
    )
    assert archive.deliver("n1", "corrections", corrections) == (3, 0, 0)
    assert archive.deliver("n1", "corrections", corrections) == (0, 3, 0)
    job = archive.job("j")
    assert job is not None
    assert job.terms_ng == {"operation": 11, "platform": 8, "retraining": 5}
    assert job.corrections_ng == {"operation": -1, "retraining": 5}
    assert job.taxes_ng == {("iks", "platform"): 8, ("iks", "retraining"): 5}
    assert job.revision == 3
    (first,) = archive.jobs(to_unix_ns=300 * S)
    assert (first.terms_ng["operation"], first.revision) == (1, 3)
    (second,) = archive.jobs(from_unix_ns=300 * S, to_unix_ns=600 * S)
    assert (second.terms_ng["operation"], second.revision) == (4, 2)
    assert archive.verify() == []


def test_stretches_of_time_that_touch_add_up(archive: Archive) -> None:
    for node in ("n1", "n2"):
        archive.deliver(node, "windows", windows(node))
    edges = [0, 1, 300 * S, 650 * S, 5000 * S]
    parts = [list(archive.jobs(from_unix_ns=a, to_unix_ns=b)) for a, b in pairwise(edges)]
    assert [len(part) for part in parts] == [1, 0, 1, 1]
    (whole,) = archive.jobs()
    assert sum(sum(job.energy_uj.values()) for part in parts for job in part) == sum(whole.energy_uj.values())
    assert sum(job.taxes_ng["iks", "platform"] for part in parts for job in part) == 16
    assert list(archive.jobs(from_unix_ns=0)) == [whole]
    assert list(archive.jobs(from_unix_ns=9999 * S)) == []


def test_what_nobody_paid_of_a_node(archive: Archive) -> None:
    rows = chain(
        [
            window("_node", "cpu", node__measured=90, node__modelled=1, unattributed__idle=20, unattributed__gap=3),
            window("_node", "", operation=40, cooling=8, hardware=2, unattributed__idle__operation=9),
            window("_node", "cpu", at=300, node__measured=10),
        ]
    )
    archive.deliver("n1", "windows", rows)
    archive.deliver("n2", "windows", chain([window("_node", "gpu", node="n2", node__measured=5)]))
    archive.deliver("n1", "corrections", chain([correction("_node", product="", delta=-4)]))
    expected = NodeRecord(
        id="n1",
        energy_uj={("cpu", "measured"): 100, ("cpu", "modelled"): 1},
        unattributed_uj={("cpu", "idle"): 20, ("cpu", "gap"): 3},
        terms_ng={"operation": 36, "cooling": 8, "hardware": 2},
        unattributed_ng={("idle", "operation"): 9, ("correction", "operation"): -4},
        corrections_ng={"operation": -4},
    )
    assert archive.node_totals()["n1"] == expected
    assert archive.node_totals(node_id="n1") == {"n1": expected}
    assert list(archive.node_totals()) == ["n1", "n2"]
    assert archive.node_totals(from_unix_ns=300 * S)["n1"].energy_uj == {("cpu", "measured"): 10}
    assert archive.node_totals(node_id="n1", from_unix_ns=0)["n1"] == expected
    assert list(archive.jobs()) == []
    assert archive.job("_node") is None


def test_what_a_job_cost_otherwise_its_node_did_too(archive: Archive) -> None:
    rows = [window("a", "", operation=30, cooling=3), window("_node", "", operation=40, cooling=4)]
    archive.deliver("n1", "windows", chain(rows))
    late = [correction("_node", product="", delta=-2), correction("a", delta=-7), correction("a", delta=5, start=300)]
    archive.deliver("n1", "corrections", chain(late))
    for until in (None, 9999 * S):
        (job,), node = archive.jobs(to_unix_ns=until), archive.node_totals(to_unix_ns=until)["n1"]
        assert job.terms_ng["operation"] == 28
        assert node.terms_ng == {"operation": 36, "cooling": 4}
        assert node.corrections_ng == {"operation": -4}
    assert archive.node_totals(to_unix_ns=300 * S)["n1"].terms_ng["operation"] == 31


def test_a_job_is_provisional_until_its_node_has_settled_past_it(archive: Archive) -> None:
    now = 4_000_000_000  # far from a week ago
    archive.deliver(
        "n1", "windows", chain([told(name, at=now, facts={"final": False}, operation=1) for name in ("a", "b")])
    )
    assert [job.provisional for job in archive.jobs()] == [True, True]
    first = chain([correction("a", start=now)])
    archive.deliver("n1", "corrections", first)
    assert [job.provisional for job in archive.jobs()] == [False, True]
    archive.deliver("n1", "corrections", chain([correction("_node", start=now)], first))
    assert [job.provisional for job in archive.jobs()] == [False, False]
    assert [job.provisional for job in archive.jobs(from_unix_ns=0)] == [False, False]


def test_what_was_never_settled_is_final_after_a_week(archive: Archive) -> None:
    archive.deliver("n1", "windows", chain([told("a", at=1_600_000_000, facts={"final": False}, operation=1)]))
    assert [job.provisional for job in archive.jobs()] == [False]


def test_jobs_come_in_pieces_by_id_and_by_product(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["B", "a", "a b", "ä", "job-1", "job-10", "job-2", "z'", "\U0001f600"]
    rows = [
        told(name, facts={"product_id": "even" if number % 2 else "odd", "role": "creation"}, operation=number + 1)
        for number, name in enumerate(reversed(names))
    ]
    archive.deliver("n1", "windows", chain(rows))
    whole = list(archive.jobs())
    assert [job.id for job in whole] == sorted(names, key=str.encode)
    for size in (1, 2, 5):
        monkeypatch.setattr(totals, "JOBS_AT_ONCE", size)
        assert list(archive.jobs()) == whole
        even = list(archive.jobs(product_id="even", role="creation"))
        assert even == [job for job in whole if job.product_id == "even"]
        assert list(archive.jobs(product_id="even", role="use")) == []


# Products


def test_events_are_added_by_one_at_a_time(archive: Archive) -> None:
    assert archive.append([{"kind": "add", "id": "ä"}, {"kind": "set"}], after=0) == 2
    with pytest.raises(
        LedgerError, match=r"somebody else has changed products meanwhile .event 2, not 1.. Fix: try again"
    ):
        archive.append([{}], after=1)
    with pytest.raises(LedgerError, match="can't be kept"):
        archive.append([{"x": float("nan")}], after=2)
    assert archive.append([], after=2) == 2
    assert archive.append([{"kind": "retire"}], after=2) == 3
    assert archive.events() == [(1, {"kind": "add", "id": "ä"}), (2, {"kind": "set"}), (3, {"kind": "retire"})]
    assert archive.last_event() == 3
    assert [head.rows for head in archive.heads()] == [3]
    assert archive.verify() == []


APPENDING = """
import sys
from wattribute.agent.archive import open_archive
from wattribute.agent.config.schema import Agent, Config, Ledger
from wattribute.agent.core.errors import LedgerError
config = Config(agent=Agent(state_dir=sys.argv[1]), ledger=Ledger(url=sys.argv[2]))
done = refused = 0
with open_archive(config) as archive:
    while done < 40:
        try:
            archive.append([{"who": sys.argv[3], "n": done}], after=archive.last_event())
            done += 1
        except LedgerError:
            refused += 1
print(refused)
"""


def test_two_processes_append_at_once(config: Config) -> None:
    """The tables too are made by whoever comes first."""
    command = [sys.executable, "-c", APPENDING, config.agent.state_dir, config.ledger.url]
    both = [subprocess.Popen([*command, who], stdout=subprocess.PIPE) for who in ("a", "b")]
    assert [process.wait(60) for process in both] == [0, 0]
    for process in both:
        assert process.stdout is not None
        process.stdout.close()
    with open_archive(config) as archive:
        events = archive.events()
        assert archive.verify() == []
    assert [position for position, _ in events] == list(range(1, 81))
    for who in ("a", "b"):
        assert [event["n"] for _, event in events if event["who"] == who] == list(range(40))


# Who runs what


def test_weights_of_the_others_that_were_said_lately(archive: Archive) -> None:
    archive.present("n1", {"iks": 1_000_000, "bert": 5})
    archive.present("n2", {"iks": 2_000_000})
    archive.present("n3", {"iks": 4_000_000})
    archive.present("n3", {"bert": 7})
    minute = 60 * S
    assert archive.weights_ppm(but="n1", fresh_ns=minute) == {"iks": 2_000_000, "bert": 7}
    assert archive.weights_ppm(but="", fresh_ns=minute) == {"iks": 3_000_000, "bert": 12}
    assert archive.weights_ppm(but="", fresh_ns=-minute) == {}
    archive.present("n1", {})
    assert archive.weights_ppm(but="", fresh_ns=minute) == {"iks": 2_000_000, "bert": 7}


# The file, and the server


def test_the_file_is_its_owners_alone_and_taken_up_again(tmp_path: Path) -> None:
    config = Config(agent=Agent(state_dir=str(tmp_path / "new" / "state")))
    with open_archive(config) as archive:
        archive.deliver("n1", "windows", windows())
        files = [path for path in (tmp_path / "new" / "state").iterdir() if path.name.startswith(FILE)]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert len(files) == 3
    with open_archive(config) as archive:
        assert energy(archive) == 28


def test_a_file_elsewhere(tmp_path: Path) -> None:
    for url in (f"sqlite://{tmp_path}/a b.db", f"sqlite:///{tmp_path}/a b.db"):
        with open_archive(Config(agent=Agent(state_dir=str(tmp_path)), ledger=Ledger(url=url))) as archive:
            assert archive.name == f"{tmp_path}/a b.db"


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")


def _text(path: Path) -> None:
    path.write_text("not a database at all, but long enough to be looked at as one" * 100)


def _newer(path: Path) -> None:
    open_archive(Config(agent=Agent(state_dir=str(path.parent)))).close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE archive_counters SET value = 99 WHERE name = 'schema'")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_foreign, "isn't an archive of wattribute, and is left alone"),
        (_text, "file is not a database. Fix:"),
        (_newer, "was written by a newer wattribute"),
        (lambda path: path.mkdir(), "can't be opened: Is a directory. Fix:"),
        (lambda path: path.symlink_to("/dev/null"), "can't be opened: Too many levels of symbolic links. Fix:"),
    ],
)
def test_a_file_that_is_none_of_ours_is_left_alone(make: Callable[[Path], None], why: str, tmp_path: Path) -> None:
    make(tmp_path / FILE)
    before = (tmp_path / FILE).read_bytes() if (tmp_path / FILE).is_file() else b""
    mode = stat.S_IMODE((tmp_path / FILE).stat().st_mode)
    with pytest.raises(LedgerError, match=why):
        open_archive(Config(agent=Agent(state_dir=str(tmp_path))))
    assert ((tmp_path / FILE).read_bytes() if (tmp_path / FILE).is_file() else b"") == before
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == mode


def test_a_busy_file_may_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wattribute.agent.archive.sqlite.BUSY_S", 0.01)
    config = Config(agent=Agent(state_dir=str(tmp_path)))
    with open_archive(config) as archive, sqlite3.connect(tmp_path / FILE, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unreachable, match="is busy"):
            archive.deliver("n1", "windows", windows())
        other.execute("COMMIT")
        assert archive.deliver("n1", "windows", windows()) == (8, 0, 0)


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(agent=Agent(state_dir=str(tmp_path)), ledger=Ledger(url="postgresql://a:geheim@127.0.0.1:1/x"))
    for missing in ("sqlalchemy", "psycopg"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, missing, None)
            with pytest.raises(ConfigError, match=r"pip install 'wattribute\[postgresql\]'"):
                open_archive(config)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://wattribute:geheim@127.0.0.1:1/x",
        "postgresql://wattribute:ge%40heim@127.0.0.1:{port}/nowhere",
        "postgresql://wattribute@127.0.0.1:{port}/nowhere?password=geheim",
        "postgresql://wattribute:geheim@127.0.0.1:port/x",
        "postgresql://wattribute:geheim@nowhere.invalid/x",
    ],
)
def test_a_password_is_in_no_error(url: str, postgres: Postgres, tmp_path: Path) -> None:
    ledger = Ledger(url=url.replace("{port}", str(postgres.port)))
    with pytest.raises((LedgerError, ConfigError)) as caught:
        open_archive(Config(agent=Agent(state_dir=str(tmp_path)), ledger=ledger))
    assert "geheim" not in str(caught.value)
    assert "heim" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_database_that_is_anothers_or_in_an_old_encoding_is_told(postgres: Postgres, tmp_path: Path) -> None:
    other, old = postgres.new_database(), "latin"
    postgres.sql("CREATE TABLE nodes (x int)", other)
    postgres.sql(f"CREATE DATABASE {old} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    agent = Agent(state_dir=str(tmp_path))
    with pytest.raises(LedgerError, match="Fix: give wattribute a database of its own"):
        open_archive(Config(agent=agent, ledger=Ledger(url=postgres.url(other))))
    with open_archive(Config(agent=agent, ledger=Ledger(url=postgres.url(old)))) as archive:
        archive.deliver("n1", "windows", chain([window("é")]))
        assert archive.job("é") is not None
        with pytest.raises(LedgerError, match=r"no equivalent in encoding .*in UTF8 \(createdb --encoding UTF8\)"):
            archive.deliver("n2", "windows", chain([window("日本", node="n2")]))


def test_rows_come_as_they_are_asked_for(postgres: Postgres) -> None:
    name = postgres.new_database()
    database = PostgresDatabase(postgres.url(name))
    database.run("CREATE SEQUENCE s")
    with database.transaction(writing=True):
        rows = database.stream("SELECT nextval('s') FROM generate_series(1, 50000)")
        assert next(rows) == (1,)
        assert int(postgres.sql("SELECT last_value FROM s", name)) < 5000
        assert sum(1 for _ in rows) == 49_999
    database.close()


def test_a_role_that_may_only_read_is_told_what_it_lacks(postgres: Postgres, tmp_path: Path) -> None:
    database = postgres.new_database()
    agent = Agent(state_dir=str(tmp_path))
    open_archive(Config(agent=agent, ledger=Ledger(url=postgres.url(database)))).close()
    postgres.sql(
        "DROP ROLE IF EXISTS looker; CREATE ROLE looker LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker",
        database,
    )
    url = postgres.url(database).replace("wattribute:geheim", "looker")
    with open_archive(Config(agent=agent, ledger=Ledger(url=url))) as archive:
        assert list(archive.jobs()) == []
        with pytest.raises(LedgerError, match=r"permission denied for table nodes. Fix: .*docs/fleet.md"):
            archive.deliver("n1", "windows", windows())


def test_a_row_in_postgresql_says_what_it_says_in_sqlite(postgres: Postgres, tmp_path: Path) -> None:
    urls = ["", postgres.url(postgres.new_database())]
    answers = []
    for url in urls:
        with open_archive(Config(agent=Agent(state_dir=str(tmp_path)), ledger=Ledger(url=url))) as archive:
            for node in ("n1", "n2"):
                archive.deliver(node, "windows", windows(node))
            archive.append([{"a": "ä"}], after=0)
            answers.append((list(archive.jobs()), archive.heads(), archive.events(), archive.node_totals()))
    assert answers[0] == answers[1]
    assert os.path.exists(tmp_path / FILE)
    assert json.dumps(answers[0][2]) == json.dumps(answers[1][2])


def test_the_rights_in_the_documentation_are_what_an_agent_needs(postgres: Postgres, tmp_path: Path) -> None:
    database = postgres.new_database()
    agent = Agent(state_dir=str(tmp_path))
    open_archive(Config(agent=agent, ledger=Ledger(url=postgres.url(database)))).close()
    text = (Path(__file__).resolve().parents[2] / "docs" / "fleet.md").read_text()
    rights, query = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    postgres.sql(rights, database)
    url = postgres.url(database).replace("wattribute:geheim", "wattribute_agent")
    with open_archive(Config(agent=agent, ledger=Ledger(url=url))) as archive:
        rows = windows()
        archive.deliver("n1", "windows", rows)
        archive.deliver("n1", "windows", chain([window(direct__measured=9)]))
        archive.deliver("n1", "corrections", chain([correction()]))
        archive.present("n1", {"iks": 1})
        archive.present("n1", {})
        archive.append([{"k": 1}], after=0)
        part = Part(Key("iks", "platform", 0, 60 * S), Amounts(1, 1, 1, 1))
        assert [verdict.parts for verdict in archive.exchange("n1", [part])] == [{"n1": part.amounts}]
        assert energy(archive) == 28
        for table in ("windows", "gaps", "corrections", "refused", "epochs", "product_events", "fleet_closed"):
            with pytest.raises(LedgerError, match="permission denied"):
                archive._database.run(f"DELETE FROM {table}")
    assert postgres.sql(query, database).startswith("j|")
