"""The file that workers share: who dies when, and that nothing is lost, counted twice or open to others."""

import os
import random
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from wattribute.agent.meter import layout
from wattribute.agent.meter.account_file import AccountFile
from wattribute.agent.meter.report import Report
from wattribute.agent.meter.tally import Tally

MS = 1_000_000
NOW = 10**15


class Clock:
    """CLOCK_MONOTONIC, as a test wants it."""

    def __init__(self) -> None:
        self.now_ns = NOW

    def __call__(self) -> int:
        return self.now_ns


class Worker:
    """A worker within this process: locks tell owners apart here too."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self.file = AccountFile.open(path)
        self.tally = Tally(self.file, clock)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "account"


def counts(report: Report) -> dict[str, tuple[int, int]]:
    return {row.tenant: (row.requests, row.aborted) for row in report.served}


def busy(report: Report) -> dict[tuple[int, str], int]:
    return {(slot, report.served[place].tenant): busy_ns for slot, place, _, busy_ns in report.shares}


def report_of(file: AccountFile, now_ns: int | None = None) -> Report:
    assert file.is_reporter()
    return file.report(now_ns)


@contextmanager
def forked(act: Callable[[], object]) -> Iterator[int]:
    """A child that does `act` and then hangs; it is killed at the end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            os.write(writing, b"+")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 1) == b"+"
        yield child
    finally:
        os.close(reading)
        os.close(writing)
        kill(child)


def kill(child: int) -> None:
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_the_file_is_its_owners_alone(path: Path) -> None:
    file = AccountFile.open(path)
    assert file.shared
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["account"]
    assert AccountFile.open(path).token == file.token


def _link(path: Path) -> None:
    (path.parent / "elsewhere").write_bytes(b"")
    path.symlink_to(path.parent / "elsewhere")


def _open_to_others(path: Path) -> None:
    AccountFile.open(path)
    path.chmod(0o644)


def _open_folder(path: Path) -> None:
    path.parent.chmod(0o777)


@pytest.mark.parametrize("spoil", [_link, _open_to_others, _open_folder, Path.mkdir])
def test_a_file_that_others_could_have_made_is_not_used(path: Path, spoil: Callable[[Path], object]) -> None:
    path.parent.mkdir(0o700)
    spoil(path)
    file = AccountFile.open(path)
    assert not file.shared
    Tally(file).begin().end()
    assert counts(report_of(file)) == {"": (1, 0)}


@pytest.mark.parametrize(
    ("at", "text"), [(0, b"other"), (8, b"\x09"), (20, b"?"), (layout.ACTIVE, b"\x07"), (-1, b""), (-(10**6), b"")]
)
def test_a_damaged_file_gets_a_successor_and_who_has_it_goes_on(path: Path, at: int, text: bytes) -> None:
    clock = Clock()
    old = AccountFile.open(path)
    tally = Tally(old, clock)
    tally.begin("old").end()
    whole = path.read_bytes()
    damaged = whole[:at] + text + whole[at + len(text) :] if at >= 0 else whole[: at * 4096]
    path.with_name("new").write_bytes(damaged)  # another inode, as after a copy
    path.with_name("new").chmod(0o600)
    path.with_name("new").rename(path)
    new = AccountFile.open(path)
    assert new.shared and new.token != old.token
    assert counts(report_of(new)) == {}
    tally.begin("old").end()
    assert counts(report_of(old)) == {"old": (2, 0)}


@pytest.mark.parametrize("filling", [b"\xff" * layout.FILE_BYTES, random.Random(5).randbytes(layout.FILE_BYTES)])
def test_a_file_with_numbers_that_nobody_wrote_gets_a_successor_too(path: Path, filling: bytes) -> None:
    first = AccountFile.open(path)
    path.with_name("new").write_bytes(path.read_bytes()[: layout.GENERATIONS] + filling[layout.GENERATIONS :])
    path.with_name("new").chmod(0o600)
    path.with_name("new").rename(path)
    worker = Worker(path, Clock())
    worker.tally.begin("a").end()
    with suppress(ArithmeticError, ValueError):
        report_of(worker.file)
    worker.file.renew()
    worker.tally.begin("a").end()
    assert worker.file.shared and worker.file.token != first.token
    assert counts(report_of(worker.file))["a"][0] in (1, 2)


def test_workers_share_an_account_and_one_reports(path: Path) -> None:
    clock = Clock()
    first, second = Worker(path, clock), Worker(path, clock)
    open_request = first.tally.begin("acme")
    second.tally.begin("zeta").end({"tokens": 2})
    second.tally.begin("acme").end({"tokens": 3, "steps": 1})
    clock.now_ns += 5 * MS
    report = report_of(first.file, clock.now_ns)
    assert not second.file.is_reporter()
    with pytest.raises(RuntimeError):
        second.file.report()
    assert (report.workers, report.in_flight) == (2, 1)
    assert counts(report) == {"acme": (1, 0), "zeta": (1, 0)}
    assert {row.tenant: row.units for row in report.served} == {
        "acme": {"tokens": 3, "steps": 1},
        "zeta": {"tokens": 2},
    }
    assert busy(report) == {(0, "acme"): pytest.approx(5 * MS, abs=200)}
    ahead_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    assert report.until_ns == pytest.approx(clock.now_ns + ahead_ns, abs=10 * MS)
    open_request.end()


def test_shares_come_again_until_they_were_told(path: Path) -> None:
    clock = Clock()
    worker = Worker(path, clock)
    request = worker.tally.begin()
    clock.now_ns += MS
    lost = report_of(worker.file, clock.now_ns)
    clock.now_ns += MS
    told = worker.file.report(clock.now_ns)
    assert busy(told) == {(0, ""): pytest.approx(2 * MS, abs=400)}
    worker.file.reported(lost)  # not the last: nothing is told by it
    worker.file.reported(told)
    worker.file.reported(told)
    clock.now_ns += 3 * MS
    assert busy(worker.file.report(clock.now_ns)) == {(0, ""): pytest.approx(3 * MS, abs=400)}
    request.end()


def test_weighted_time_follows_the_requests_in_flight(path: Path) -> None:
    clock = Clock()
    one, two = Worker(path, clock), Worker(path, clock)
    held = [one.tally.begin(), *[two.tally.begin(tenant) for tenant in "aabb"], two.tally.begin("a", 4)]
    clock.now_ns += MS
    report = report_of(one.file, clock.now_ns)
    found = {(slot, report.served[place].tenant): (weighted, busy) for slot, place, weighted, busy in report.shares}
    expected = {(0, ""): (MS, MS), (1, "a"): (6 * MS, MS * 6 / 8), (1, "b"): (2 * MS, MS * 2 / 8)}
    assert found.keys() == expected.keys()
    assert [pytest.approx(expected[key], rel=1e-3) for key in found] == list(found.values())
    assert report.in_flight == len(held)
    for request in held:
        request.end()


def test_a_worker_killed_in_mid_request_is_billed_and_its_slot_goes_on(path: Path) -> None:
    parent = Tally(AccountFile.open(path))
    parent.begin("parent").end()
    file = parent.file

    def serve() -> None:
        parent.begin("acme").end({"tokens": 7})
        parent.begin("acme")
        _held.append(parent.request(tenant="acme", weight=3))
        _held.append(parent.begin("acme"))

    with forked(serve) as child:
        report = report_of(file)
        file.reported(report)
        assert (report.workers, report.in_flight) == (2, 2)
        assert counts(report) == {"parent": (1, 0), "acme": (1, 1)}
        kill(child)
        now_ns = time.monotonic_ns() + MS
        report = file.report(now_ns)
        assert (report.workers, report.in_flight) == (1, 0)
        assert counts(report) == {"parent": (1, 0), "acme": (1, 3)}
        assert busy(report)[1, "acme"] >= MS
        again = file.report(now_ns + 5 * MS)  # it doesn't grow any more
        assert (busy(again), counts(again)) == (busy(report), counts(report))
        file.reported(again)
        assert file.report(now_ns + 6 * MS).shares == ()
    successor = AccountFile.open(path)
    assert (successor.slot(), successor.generation) == (1, 2)
    Tally(successor).begin("acme").end()
    assert counts(file.report()) == {"parent": (1, 0), "acme": (2, 3)}


_held: list[object] = []


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_killed_reporter_is_followed_without_a_gap(path: Path, confirmed: bool) -> None:
    clock = Clock()
    heir = Worker(path, clock)
    heir.tally.begin("heir")
    request = heir.tally.begin("heir")
    reporter = AccountFile.open(path)

    def report() -> None:
        tally = Tally(reporter, clock)
        tally.begin("reporter").end()
        clock.now_ns += 2 * MS
        told = report_of(reporter, clock.now_ns)
        if confirmed:
            reporter.reported(told)

    with forked(report) as child:
        assert not heir.file.is_reporter()
        kill(child)
    clock.now_ns += 5 * MS
    report_after = report_of(heir.file, clock.now_ns)
    assert counts(report_after) == {"heir": (0, 1), "reporter": (1, 0)}
    assert busy(report_after)[0, "heir"] == pytest.approx(3 * MS if confirmed else 5 * MS, abs=400)
    assert report_after.workers == 1
    request.end()


def test_what_a_dead_worker_is_owed_comes_until_it_was_told_even_if_its_slot_is_taken(path: Path) -> None:
    clock = Clock()
    reporter, dying = Worker(path, clock), Worker(path, clock)
    reporter.tally.begin("r").end()
    dying.tally.begin("a")
    request = dying.tally.begin("a")
    clock.now_ns += 2 * MS
    assert dying.file.slot() == 1
    dying.file.close()
    lost = report_of(reporter.file, clock.now_ns)
    assert busy(lost) == {(1, "a"): pytest.approx(2 * MS, abs=400)}
    successor = Worker(path, clock)
    after = successor.tally.begin("a")
    assert successor.file.slot() == 1
    clock.now_ns += MS
    report = reporter.file.report(clock.now_ns)
    assert busy(report) == {(1, "a"): pytest.approx(3 * MS, abs=400)}
    reporter.file.reported(report)
    clock.now_ns += MS
    assert busy(reporter.file.report(clock.now_ns)) == {(1, "a"): pytest.approx(MS, abs=400)}
    request.end()
    after.end()


def test_a_worker_that_nobody_saw_die_is_not_billed_for_hours(path: Path) -> None:
    clock = Clock()
    worker = Worker(path, clock)
    request = worker.tally.begin("a")
    clock.now_ns += MS
    report_of(worker.file, clock.now_ns)
    worker.file.close()
    clock.now_ns += 3600 * 10**9
    later = AccountFile.open(path)
    assert busy(report_of(later, clock.now_ns)) == {(0, "a"): pytest.approx(10 * 10**9 + MS, rel=1e-6)}
    request.end()


def test_all_slots_taken_by_the_dead_are_free_again(path: Path) -> None:
    clock = Clock()
    workers = [Worker(path, clock) for _ in range(layout.SLOTS)]
    for worker in workers:
        worker.tally.begin("a").end()
    assert {worker.file.slot() for worker in workers} == set(range(layout.SLOTS))
    for worker in workers:
        worker.file.close()
    after = Worker(path, clock)
    after.tally.begin("a").end()
    assert counts(report_of(after.file)) == {"a": (layout.SLOTS + 1, 0)}
    assert after.file.slot() == 0


def test_more_workers_than_slots_use_a_second_file(path: Path) -> None:
    clock = Clock()
    workers = [Worker(path, clock) for _ in range(layout.SLOTS + 2)]
    for worker in workers:
        worker.tally.begin("a").end()
    assert [worker.file.slot() for worker in workers[-2:]] == [0, 1]
    assert workers[-1].file.token == workers[-2].file.token != workers[0].file.token
    first, second = report_of(workers[0].file), report_of(workers[-1].file)
    assert (first.workers, second.workers) == (layout.SLOTS, 2)
    assert counts(first) == {"a": (layout.SLOTS, 0)} and counts(second) == {"a": (2, 0)}
    for worker in workers:
        worker.file.close()


def test_memory_that_was_not_taken_is_not_looked_at() -> None:
    """A page of a tmpfs comes to be when it is read; where there is none left, SIGBUS kills who looks."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path, clock = Path(folder) / "account", Clock()
        for worker in [Worker(path, clock) for _ in range(2)]:
            worker.tally.begin("a").end()
        report_of(worker.file, NOW)
        worker.file.receipts()
        worker.file.leave()
        assert worker.file.left_over()
        assert path.stat().st_blocks * 512 == layout.SLOT + 2 * layout.SLOT_BYTES


def test_the_smallest_of_too_many_shares_wait(path: Path) -> None:
    clock = Clock()
    workers = [Worker(path, clock) for _ in range(13)]
    held = [worker.tally.begin(f"t{number}") for worker in workers for number in range(90)]
    clock.now_ns += 90 * MS
    file = workers[0].file
    report = report_of(file, clock.now_ns)
    assert len(report.shares) == 1000
    file.reported(report)
    rest = file.report(clock.now_ns)
    assert len(rest.shares) == 13 * 90 - 1000
    assert sum(row[3] for row in (*report.shares, *rest.shares)) == pytest.approx(13 * 90 * MS, rel=1e-4)
    file.reported(rest)
    assert file.report(clock.now_ns).shares == ()
    for request in held:
        request.end()
    for worker in workers:
        worker.file.close()


def test_a_worker_knows_where_its_virtual_time_was_at_the_last_reports(path: Path) -> None:
    clock = Clock()
    reporter, worker = Worker(path, clock), Worker(path, clock)
    reporter.tally.begin("r").end()
    held = [worker.tally.begin("a") for _ in range(2)]
    untils = []
    for _ in range(layout.REPORTS + 3):
        clock.now_ns += 2 * MS
        report = report_of(reporter.file, clock.now_ns)
        reporter.file.reported(report)
        untils.append(report.until_ns)
    assert [worker.file.v_at(until_ns) for until_ns in untils[:3]] == [None] * 3
    known = [worker.file.v_at(until_ns) for until_ns in untils[3:]]
    assert known == [pytest.approx((at + 4) * MS, abs=400) for at in range(layout.REPORTS)]
    assert worker.file.busy_at(untils[-1], "a") == pytest.approx(2 * MS, abs=400)
    assert worker.file.busy_at(untils[-1], "r") == worker.file.busy_at(untils[-1], "nobody") == 0
    assert worker.file.busy_at(untils[0], "a") is None
    assert AccountFile.open(path).v_at(untils[-1]) is None  # it has no slot
    for request in held:
        request.end()


def test_receipts_are_summed_over_workers_dead_ones_too(path: Path) -> None:
    clock = Clock()
    reporter, dying = Worker(path, clock), Worker(path, clock)
    reporter.file.add_receipts(2, [5_000], "one", 100)
    dying.file.add_receipts(2, [6_000], "two", 90)
    dying.file.add_receipts(17, [10**12], "ä" * 40, 110)
    assert reporter.file.is_reporter()
    before = reporter.file.receipts()
    dying.file.close()
    reporter.file.report()
    after = reporter.file.receipts()
    assert before == after
    assert (after.counts[2], after.counts[17], sum(after.counts), after.sum_uj) == (2, 1, 3, 10**12 + 11_000)
    assert after.latest == ((2, "one", 5_000, 100), (17, "ä" * 24, 10**12, 110))
    successor = Worker(path, clock)
    successor.file.add_receipts(2, [1], "three", 120)
    assert reporter.file.receipts().latest[0] == (2, "three", 1, 120)


def test_a_row_that_is_half_written_is_read_when_it_is_whole(path: Path) -> None:
    clock = Clock()
    worker = Worker(path, clock)
    worker.tally.begin().end()
    words = memoryview(worker.file.memory.buffer).cast("d")
    at = layout.row_at(worker.file.slot(), layout.NOBODY) // 8
    words[at + 1] += 1.0  # as of a writer that stopped there
    assert counts(report_of(worker.file, clock.now_ns)) == {"": (1, 0)}
    worker.file.close()
    heir = AccountFile.open(path)
    assert counts(report_of(heir, clock.now_ns)) == {"": (1, 0)}


def test_who_closes_all_descriptors_loses_no_count_and_no_file_of_its_own_is_touched(
    path: Path, tmp_path: Path
) -> None:
    """As who becomes a daemon does: the numbers are soon those of other files, and the locks are gone."""
    clock = Clock()
    worker, unused = Worker(path, clock), AccountFile.open(path)
    worker.tally.begin("a").end()
    held = worker.tally.begin("a")
    assert not worker.file.renew()
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    for fd in worker.file.memory._fds:
        os.dup2(log, fd)
    assert unused.slot() == 1  # the first is for a reporter to take in
    assert worker.file.renew() and not worker.file.renew()
    held.end()
    worker.tally.begin("a").end()
    assert worker.file.slot() == 2
    assert counts(report_of(worker.file, NOW)) == {"a": (2, 1)}
    assert os.fstat(log).st_size == 0
    assert worker.file.shared and unused.token == worker.file.token


def test_counts_are_there_the_moment_after_an_end(path: Path) -> None:
    tally = Tally(AccountFile.open(path))

    def serve() -> None:
        for _ in range(1000):
            tally.begin().end({"tokens": 1})
        os.kill(os.getpid(), signal.SIGSTOP)

    child = os.fork()
    if child == 0:
        serve()
        os._exit(1)
    os.waitpid(child, os.WUNTRACED)
    kill(child)
    report = report_of(tally.file)
    assert counts(report) == {"": (1000, 0)}
    assert report.served[0].units == {"tokens": 1000}


def test_threads_that_ask_at_once_are_told_the_same_slot(path: Path) -> None:
    """Of two slots one would count, and the other be asked for."""
    file, told = AccountFile.open(path), list[int]()
    everybody = threading.Barrier(8)

    def ask() -> None:
        everybody.wait()
        told.append(file.slot())

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert told == [0] * 8
    assert [AccountFile.open(path).slot(), file.own_slot] == [1, 0]


def test_who_counts_nothing_has_no_slot(path: Path) -> None:
    file = AccountFile.open(path)
    assert file.own_slot == -1
    file.slot()
    assert file.own_slot == 0
    file.leave()
    assert file.own_slot == -1
