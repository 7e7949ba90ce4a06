"""Who pays for a process: joining, nesting, overlapping, and who may register what.

The CPU clocks are set by hand; tests/collectors has the real ones.
"""

from typing import Any

import pytest

from wattribute.agent.admission import Admission, check_id
from wattribute.agent.core.accounting import Price
from wattribute.agent.core.books import Books, Rules
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.hardware import Hardware
from wattribute.agent.core.model import CPU_NS_SLOT, ProcessId, UsageReading
from wattribute.agent.core.prices import PriceSeries
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.core.trees import Member
from wattribute.agent.live import LiveJob
from wattribute.agent.registry import Registry
from wattribute.agent.requests import JobEnd, JobStart, Peer

ANN, BOB, ROOT = 1000, 1001, 0


class Clocks:
    """CPU time by pid; a pid's start time is ten times itself."""

    def __init__(self) -> None:
        self.busy: dict[int, int] = {}
        self.watched: list[ProcessId] = []
        self.died: list[ProcessId] = []

    def identify(self, pid: int) -> ProcessId | None:
        return ProcessId(pid, pid * 10) if pid < 900 else None

    def watch(self, root: ProcessId, since_ns: int | None = None, reaped_ns: int | None = None) -> None:
        self.watched.append(root)
        self.busy[root.pid] = 0

    def unwatch(self, root: ProcessId) -> None:
        self.watched.remove(root)

    def busy_ns(self, root: ProcessId) -> int:
        return self.busy[root.pid]

    def trees_ns(self) -> dict[ProcessId, int]:
        return {}

    def recall(self, pid: int) -> ProcessId | None:
        return None

    def close(self) -> None:
        pass

    def settle_reaped(self, root: ProcessId, reaped_ns: int) -> bool:
        self.busy[root.pid] += reaped_ns
        return True

    def root_of(self, pid: int) -> ProcessId | None:
        return None

    def gone(self) -> list[ProcessId]:
        return self.died

    def members(self) -> list[Member]:
        return []

    def part(self, process: ProcessId) -> None:
        raise AssertionError(process)

    def node_ns(self) -> int:
        return 0

    node_method = "by hand"

    def read(self) -> list[UsageReading]:
        return [
            UsageReading(domain_kind="cpu", consumer=root, at_ns=0, busy_ns=self.busy[root.pid], memory_bytes=100)
            for root in self.watched
        ]


class Desk:
    """A registry with a clock that steps at each request."""

    def __init__(self, max_jobs: int = 100) -> None:
        rules = Rules(idle="reserved", overhead="usage", idle_uw={}, cpus=2, memory_bytes=1000)
        self.books = Books(rules, Hardware(()), Taxes((), 0), 0, PriceSeries.constant(Price(0, 0)))
        self.clocks = Clocks()
        self.registry = Registry(
            self.books,
            self.clocks,
            Admission(
                owner_of=lambda uid: f"user-{uid}",
                owns=lambda product, uid: uid == ROOT,
                privileged=lambda uid: uid == ROOT,
                uid_of=lambda pid: BOB if pid >= 500 else ANN,
            ),
            max_jobs=max_jobs,
        )
        self.now_ns = 0

    def start(
        self, job_id: str, member: str, *, pid: int = 1, uid: int = ANN, peer_pid: int = 0, **fields: Any
    ) -> LiveJob:
        self.now_ns += 1000
        request = JobStart(id=1, job_id=job_id, member=member, pid=pid, **fields)
        return self.registry.start(request, Peer(peer_pid or pid, uid, uid), self.now_ns, self.now_ns)

    def end(self, job_id: str, member: str, *, uid: int = ANN, reaped_ns: int | None = None) -> LiveJob:
        self.now_ns += 1000
        request = JobEnd(id=1, job_id=job_id, member=member, reaped_cpu_ns=reaped_ns)
        return self.registry.end(request, Peer(1, uid, uid), self.now_ns, self.now_ns)

    def work(self, pid: int, ns: int) -> None:
        self.clocks.busy[pid] += ns

    def cpu_ns(self, job_id: str) -> int:
        self.registry.feed(self.clocks.read())
        return self.registry.jobs[job_id].entry.values[CPU_NS_SLOT]


def test_a_job_gets_the_time_of_its_process() -> None:
    desk = Desk()
    desk.start("a", "m")
    desk.work(1, 500)
    assert desk.cpu_ns("a") == 500
    desk.work(1, 70)
    live = desk.end("a", "m", reaped_ns=30)
    assert live.entry.values[CPU_NS_SLOT] == 600
    assert not live.running
    assert desk.clocks.watched == []


def test_ranks_join_one_job_and_it_ends_with_the_last() -> None:
    desk = Desk()
    for rank in range(4):
        desk.start("torch", f"rank-{rank}", pid=rank + 1)
        desk.work(rank + 1, 100)
    assert desk.cpu_ns("torch") == 400
    for rank in range(3):
        assert desk.end("torch", f"rank-{rank}").running
    live = desk.end("torch", "rank-3")
    assert not live.running
    assert live.member_count == 4
    assert live.entry.values[CPU_NS_SLOT] == 400


def test_a_job_inside_another_takes_the_time_and_gives_it_back() -> None:
    desk = Desk()
    desk.start("outer", "o")
    desk.work(1, 100)
    desk.start("inner", "i", parent_job_id="outer")
    desk.work(1, 30)
    desk.end("inner", "i")
    desk.work(1, 7)
    assert desk.cpu_ns("outer") == 107
    assert desk.cpu_ns("inner") == 30
    assert desk.registry.jobs["inner"].entry.job.parent_job_id == "outer"


def test_a_hundred_overlapping_coroutines_share_equally_and_exactly() -> None:
    desk = Desk()
    desk.start("outer", "o")
    for i in range(100):
        desk.start(f"c{i}", f"m{i}", parent_job_id="outer")
    desk.work(1, 12_345)
    shares = [desk.cpu_ns(f"c{i}") for i in range(100)]
    assert set(shares) == {123}
    desk.work(1, 55)
    assert desk.cpu_ns("c0") == 124  # what didn't divide is kept, not lost
    assert desk.registry.jobs["c0"].overlapped
    assert desk.cpu_ns("outer") == 0


def test_an_id_that_comes_back_goes_on_with_its_totals() -> None:
    desk = Desk()
    desk.start("a", "m1")
    desk.work(1, 100)
    desk.end("a", "m1")
    live = desk.start("a", "m2")
    assert live.running
    assert live.entry.job.ended_unix_ns is None
    desk.work(1, 50)
    assert desk.cpu_ns("a") == 150


def test_a_process_that_dies_without_a_word_ends_its_job() -> None:
    desk = Desk()
    desk.start("a", "m")
    (ended,) = desk.registry.lose([ProcessId(1, 10)], 99, 99)
    assert not ended.running
    assert any("without closing" in note for note in ended.notes)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"uid": BOB, "pid": 2, "peer_pid": 501}, "belongs to another user"),
        ({"pid": 950, "peer_pid": 1}, "no process 950"),
        ({"role": "platform"}, "is for its owners"),
        ({"weight": 2}, "is for its owners"),
    ],
)
def test_what_is_refused_changes_nothing(fields: dict[str, Any], word: str) -> None:
    desk = Desk()
    with pytest.raises(Refused, match=word):
        desk.start("a", "m", **fields)
    assert desk.registry.jobs == {}
    assert desk.clocks.watched == []


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"uid": BOB, "pid": 501}, "belongs to another user"),
        ({"product_id": "other"}, "works for product 'default'"),
        ({"role": "creation", "uid": ANN}, "has the role 'use'"),
        ({"member": "m"}, "open already"),
    ],
)
def test_who_may_not_join(fields: dict[str, Any], word: str) -> None:
    desk = Desk()
    desk.start("a", "m")
    with pytest.raises(Refused, match=word):
        desk.start("a", **{"member": "n", **fields})


def test_root_and_schedulers_may_register_any_process_and_owners_any_role() -> None:
    desk = Desk()
    live = desk.start("a", "m", uid=ROOT, pid=501, peer_pid=2, role="platform", weight=3, nodes=2)
    assert live.entry.job.weight_ppm == 1_500_000


def test_ending_what_is_not_open_is_refused() -> None:
    desk = Desk()
    with pytest.raises(Refused, match="start it first"):
        desk.end("a", "m")
    desk.start("a", "m")
    with pytest.raises(Refused, match="another user"):
        desk.end("a", "m", uid=BOB)
    desk.end("a", "m")
    with pytest.raises(Refused, match="start it first"):
        desk.end("a", "m")


def test_jobs_past_the_cap_are_folded() -> None:
    desk = Desk(max_jobs=2)
    assert [desk.start(name, "m", pid=i + 1).folded for i, name in enumerate("abc")] == [False, False, True]


@pytest.mark.parametrize("job_id", ["", "x" * 129, "_retired", "tab\there", "line\nbreak"])
def test_ids_that_are_none(job_id: str) -> None:
    with pytest.raises(Refused):
        check_id(job_id)


@pytest.mark.parametrize("job_id", ["a", "x" * 128, "größe-7", "a b"])
def test_ids_that_are(job_id: str) -> None:
    check_id(job_id)


def test_a_job_inside_of_one_that_ended_early_stays_the_innermost() -> None:
    desk = Desk()
    desk.start("outer", "o")
    desk.start("middle", "m", parent_job_id="outer")
    desk.start("inner", "i", parent_job_id="middle")
    desk.end("middle", "m")
    desk.work(1, 500)
    assert (desk.cpu_ns("outer"), desk.cpu_ns("inner")) == (0, 500)
    assert not desk.registry.jobs["outer"].overlapped


def test_two_jobs_may_give_their_members_the_same_token() -> None:
    desk = Desk()
    desk.start("a", "m")
    desk.start("b", "m")
    desk.work(1, 500)
    assert (desk.cpu_ns("a"), desk.cpu_ns("b")) == (250, 250)
    desk.end("a", "m")
    desk.work(1, 100)
    assert (desk.cpu_ns("a"), desk.cpu_ns("b")) == (250, 350)
    desk.end("b", "m")
    assert not desk.clocks.watched


def test_a_gpu_tells_late_of_all_jobs_of_a_process_that_died() -> None:
    desk = Desk()
    desk.start("a", "m")
    desk.start("b", "m")
    process = desk.registry.jobs["a"].members["m"]
    desk.registry.lose([process], 5000, 5000)
    assert desk.registry.jobs_of(process) == ["a", "b"]
