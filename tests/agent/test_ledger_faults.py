"""The ledger under kill -9, a full disk, and files that were cut, flipped or swapped."""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.model import SLOTS, energy_slot
from wattribute.agent.ledger.batch import Batch, Close, JobRow, dump
from wattribute.agent.ledger.files import DATABASE
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.store import Store
from wattribute.agent.ledger.writer import Ledger

DIRECT = energy_slot("cpu", "direct", "measured")

# Commits as fast as it can and says what was acknowledged. The first slot of each job counts the commits for ever.
COMMITTER = """
import os, select, sys
from pathlib import Path
from wattribute.agent.ledger.batch import Batch, Close, GapRow, JobRow, dump
from wattribute.agent.ledger.writer import Ledger

ledger = Ledger.open(Path(sys.argv[1]), node_id="n", boot_id=sys.argv[2], clock_unix_ns=lambda: 1)
jobs = ledger.restore().jobs
count = jobs["a"].totals[0] if "a" in jobs else 0
meta = {"taxes": []} if not jobs else None
seq = 0
while True:
    seq, count = seq + 1, count + 1
    totals = [count] + [0] * 47
    gap = GapRow(kind="cpu", id="p", start_unix_ns=count, end_unix_ns=count + 1, cause="reset",
                 lower_uj=0, upper_uj=None, booked_uj=0)
    ledger.submit(Batch(seq=seq, at_unix_ns=count, jobs=[JobRow.of(key, totals, meta) for key in "abcdefgh"],
                        state={"n": dump(count)}, gaps=[gap] if count % 5 == 0 else [],
                        closes=[Close.of(key, count, totals) for key in "abcd"] if count % 3 == 0 else []))
    meta = None
    while ledger.committed() < seq:
        select.select([ledger.wakeup_fd], [], [])
        os.read(ledger.wakeup_fd, 8)
    os.write(1, b"%d\\n" % count)
"""


def test_killed_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    dice = random.Random(0)
    acknowledged = 0
    for turn in range(30):
        boot_id = f"boot {turn // 7}"
        child = subprocess.Popen(
            [sys.executable, "-c", COMMITTER, str(tmp_path), boot_id], stdout=subprocess.PIPE, text=True
        )
        with child:
            assert child.stdout is not None
            first = int(child.stdout.readline())  # it runs; now for the moment
            killer = threading.Timer(dice.random() * 0.02, child.kill)
            killer.start()
            last = [first, *map(int, child.stdout.read().split("\n")[:-1])][-1]
            killer.join()
        assert child.returncode == -signal.SIGKILL
        with read_only(tmp_path) as reader:
            jobs = reader.jobs()
        assert first > acknowledged
        assert jobs["a"].totals[0] >= last
        assert {job.totals[0] for job in jobs.values()} == {jobs["a"].totals[0]}  # a batch is there or isn't
        acknowledged = last
    ledger = Ledger.open(tmp_path, node_id="n", boot_id="last", clock_unix_ns=lambda: 1)
    restored = ledger.restore()
    assert restored.generation == 1  # nothing was taken for damage
    assert restored.state["n"] == restored.jobs["a"].totals[0] >= acknowledged >= 30
    ledger.close()
    with read_only(tmp_path) as reader:
        assert reader.verify() == []


# A disk of a few dozen KiB: the kernel refuses to let any file grow past it.
FULL_DISK = """
import os, resource, select, sys
from pathlib import Path
from wattribute.agent.ledger.batch import Batch, Close, JobRow
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.ledger.writer import Ledger

def commit(batch):
    assert ledger.submit(batch)
    select.select([ledger.wakeup_fd], [], [])
    os.read(ledger.wakeup_fd, 8)

def values(n):
    return [n] + [0] * 47

state_dir = Path(sys.argv[1])
ledger = Ledger.open(state_dir, node_id="n", boot_id="b", clock_unix_ns=lambda: 1)
keys = [f"job {n}" for n in range(400)]
commit(Batch(seq=1, at_unix_ns=1, jobs=[JobRow.of(key, values(1), {"taxes": []}) for key in keys]))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(state_dir / "ledger.db-wal").st_size * 3, hard))
seq, failed_at = 1, None
while failed_at is None or seq < failed_at + 5:
    seq += 1
    closes = [Close.of(key, seq, values(seq)) for key in keys]
    commit(Batch(seq=seq, at_unix_ns=seq, jobs=[JobRow.of(key, values(seq)) for key in keys], closes=closes))
    if ledger.failure is not None:
        assert "Fix: make room on its disk" in ledger.failure, ledger.failure
        failed_at = failed_at or seq
        assert ledger.committed() == failed_at - 1
        with read_only(state_dir) as reader:
            assert reader.job("job 7").totals[0] == failed_at - 1
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
if sys.argv[2] == "more":
    seq += 1
    commit(Batch(seq=seq, at_unix_ns=seq, jobs=[JobRow.of("job 7", values(seq))]))
    assert ledger.failure is None, ledger.failure
    assert ledger.committed() == seq
ledger.close()
with read_only(state_dir) as reader:
    assert reader.verify() == []
    assert reader.job("job 7").totals[0] == seq
    windows = [r for r in reader.windows() if r.job_id == "job 7"]
    assert [r.window_end_unix_ns for r in windows] == list(range(2, failed_at + 6)), windows
print("done", failed_at)
"""


@pytest.mark.parametrize("then", ["more", "close"])
def test_a_full_disk_costs_nothing_but_the_wait(tmp_path: Path, then: str) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path), then], capture_output=True, text=True)
    assert done.stdout.startswith("done"), done.stderr
    assert done.stderr.count("the ledger can't be written, and keeps trying") == 1
    assert "lost" not in done.stderr.replace("nothing was lost", "")


def open_ledger(state_dir: Path, now_s: int = 1_700_000_000) -> Ledger:
    return Ledger.open(state_dir, node_id="n", boot_id="b", clock_unix_ns=lambda: now_s * 1_000_000_000)


def write(ledger: Ledger, batch: Batch) -> None:
    """Commit and close."""
    assert ledger.submit(batch)
    ledger.close()
    assert ledger.failure is None


def batch(amount: int) -> Batch:
    values = [amount] + [0] * (SLOTS - 1)
    jobs = [JobRow.of(f"job {n}", values, {"taxes": [], "note": "x" * 300}) for n in range(30)]
    closes = [Close.of(row.key, amount, values) for row in jobs[:20]]
    return Batch(seq=1, at_unix_ns=amount, jobs=jobs, closes=closes, state={"books": dump({"x": "y" * 200})})


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_mangled_ledger_is_moved_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    write(open_ledger(tmp_path), batch(1))
    for generation in (2, 3):
        (tmp_path / DATABASE).write_bytes(content)
        ledger = open_ledger(tmp_path)
        restored = ledger.restore()
        assert (restored.jobs, restored.generation, restored.same_boot) == ({}, generation, False)
        assert ledger.epoch == f"b/{generation}"
        write(ledger, batch(5))
    assert (tmp_path / f"{DATABASE}.corrupt-1700000000").read_bytes() == content
    assert (tmp_path / f"{DATABASE}.corrupt-1700000000-2").read_bytes() == content
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "is damaged" in caplog.text
    with read_only(tmp_path) as reader:
        assert reader.verify() == []


def test_somebody_elses_database_is_moved_aside(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    open_ledger(tmp_path).close()
    connection = sqlite3.connect(tmp_path / f"{DATABASE}.corrupt-1700000000")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    connection.close()


def test_a_flipped_byte_is_never_gone_on_from(tmp_path: Path) -> None:
    write(open_ledger(tmp_path), batch(77))
    sound = (tmp_path / DATABASE).read_bytes()
    dice = random.Random(1)
    moved = 0
    for _ in range(150):
        content = bytearray(sound)
        for _ in range(dice.choice([1, 1, 4])):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        (tmp_path / DATABASE).write_bytes(content)
        try:
            ledger = open_ledger(tmp_path)
        except LedgerError as error:
            assert "newer wattribute" in str(error)  # the version itself was hit
            continue
        jobs = ledger.restore().jobs
        ledger.close()
        assert all(job.totals[0] == 77 and sum(job.totals) == 77 for job in jobs.values())
        moved += not jobs
        for path in tmp_path.glob("*corrupt*"):
            path.unlink()
    assert moved > 20


def test_verify_sees_what_was_edited(tmp_path: Path) -> None:
    write(open_ledger(tmp_path), batch(10))
    edits = {
        "UPDATE windows SET content = '{\"direct.measured\":9}' WHERE position = 3": [
            "breaks at position 3",
            "hold 9 of",
        ],
        "DELETE FROM windows WHERE position = 4": ["breaks at position 5", "closed rows hold 0 of"],
        "DELETE FROM windows WHERE position = 20": ["ends at 19 of 20 rows", "closed rows hold 0 of"],
        "UPDATE total SET packed = zeroblob(384) WHERE id = 2": ["job 'job 1' doesn't match its checksum"],
        "UPDATE state SET body = '1'": ["state 'books' doesn't match its checksum"],
        "DELETE FROM job WHERE id = 1": ["job 'job 0' has closed rows and no totals"],
        "UPDATE windows SET window_end_unix_ns = window_start_unix_ns WHERE position = 1": ["overlaps"],
    }
    sound = (tmp_path / DATABASE).read_bytes()
    for edit, expected in edits.items():
        (tmp_path / DATABASE).write_bytes(sound)
        connection = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
        if "windows" in edit:
            with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
                connection.execute(edit)
            connection.execute("DROP TRIGGER windows_never_UPDATE")
            connection.execute("DROP TRIGGER windows_never_DELETE")
            triggers = [sql for sql in _triggers() if "windows" in sql]
            connection.execute(edit)
            for sql in triggers:
                connection.execute(sql)
        else:
            connection.execute(edit)
        connection.close()
        with read_only(tmp_path) as reader:
            problems = "\n".join(reader.verify())
        for text in expected:
            assert text in problems, edit


def _triggers() -> list[str]:
    from wattribute.agent.ledger.schema import TABLES

    return [sql for sql in TABLES if sql.startswith("CREATE TRIGGER")]


def test_lost_commits_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(open_ledger(tmp_path), batch(1))
    old = (tmp_path / DATABASE).read_bytes()
    write(open_ledger(tmp_path), batch(2))
    (tmp_path / DATABASE).write_bytes(old)
    ledger = open_ledger(tmp_path)
    assert "lost commits" in caplog.text
    restored = ledger.restore()
    assert restored.generation == 2
    assert restored.jobs["job 3"].totals[0] == 1
    ledger.close()
    assert ledger.epoch == "b/2"
    caplog.clear()
    again = open_ledger(tmp_path)
    assert (again.restore().generation, caplog.text) == (2, "")
    again.close()


def test_while_one_batch_is_written_the_next_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    apply = Store.apply

    def slow(store: Store, one: Batch) -> None:
        assert may_go_on.wait(10)
        apply(store, one)

    monkeypatch.setattr(Store, "apply", slow)
    ledger = open_ledger(tmp_path)
    assert ledger.submit(batch(1))
    assert not ledger.submit(batch(2))
    assert ledger.committed() == 0
    may_go_on.set()
    ledger.close()
    assert ledger.committed() == 1
    ledger.close()  # twice is fine


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_writer_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(store: Store, one: Batch) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Store, "apply", bug)
    ledger = open_ledger(tmp_path)
    assert ledger.failure is None
    ledger.submit(batch(1))
    while threading.active_count() > 1 and ledger.failure is None:
        pass
    assert ledger.failure is not None
    assert "restart the agent" in ledger.failure
    assert not ledger.submit(batch(2))
    ledger.close()
