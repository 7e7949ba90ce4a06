"""Jobs that nobody registers, from sources that tell what they are told to the table of jobs: who is whom, and when."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.doubles.found_node import MS, FoundNode, ToldJobs, found_job, unavailable
from tests.doubles.listed_tree import ListedTree
from tests.doubles.node_bench import HandClock

from wattribute.agent.admission import Admission
from wattribute.agent.core.accounting import Price
from wattribute.agent.core.books import Books, Rules
from wattribute.agent.core.claims import demands
from wattribute.agent.core.found import CgroupTree, FoundJob, Reservation
from wattribute.agent.core.hardware import Hardware
from wattribute.agent.core.model import CPU_NS_SLOT, GroupId
from wattribute.agent.core.prices import PriceSeries
from wattribute.agent.core.rules import Rule
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.discovery import FIRST_BACKOFF_NS, LAST_BACKOFF_NS, RELIST_LOOKS, Discovery, Sightings
from wattribute.agent.finding import FoundJobs
from wattribute.agent.groups import Groups
from wattribute.agent.live import LiveJob
from wattribute.agent.registry import Registry
from wattribute.agent.requests import JobEnd, JobStart, Peer
from wattribute.collectors.cgroup import GroupUsage, Tree, usage
from wattribute.collectors.process import ProcessCollector

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

S = 1_000_000_000
ANN, BOB = 1000, 1001


# Sources


class Asking:
    """A discovery over sources that are told what to say, on a hand clock."""

    def __init__(self, *names: str, rules: Sequence[Rule] = (), tree: CgroupTree | None = None) -> None:
        self.sources = [ToldJobs(name) for name in names]
        self.clock = HandClock()
        self.tree = ListedTree()
        self.sightings = Sightings(tree or self.tree)
        self.discovery = Discovery(
            self.sources, self.sightings, rules, self.clock, {ANN: "ann", BOB: "bob"}.__getitem__
        )

    def group(self, path: str) -> GroupId:
        return self.tree.add(path)

    def ask(self, seconds: float = 1) -> list[tuple[str, str]]:
        """(job, cgroup) of all that is told a while later."""
        self.clock.pass_(seconds)
        return [(found.job_id, found.group.path) for found in self.discovery.jobs()]

    def health(self) -> dict[str, tuple[bool, dict[str, int], str]]:
        return {h.name: (h.up, dict(h.failures), h.why) for h in self.discovery.health()}


def test_a_source_that_fails_ends_nobodys_job_and_is_asked_less_and_less() -> None:
    asking = Asking("kubelet", "slurm")
    kubelet, slurm = asking.sources
    kubelet.tell(found_job("pod", asking.group("/pod"), uid=ANN))
    slurm.tell(found_job("batch", asking.group("/batch"), uid=ANN))
    both = [("pod", "/pod"), ("batch", "/batch")]
    assert asking.ask() == both
    kubelet.error = unavailable("connection refused")
    slurm.tell()
    assert asking.ask() == both[:1]
    asked = kubelet.asked
    for _ in range(300):
        assert asking.ask() == both[:1]
    # after 1, 2, 4, .. 60 s: nine times in five minutes
    assert 5 <= kubelet.asked - asked <= 12
    assert slurm.asked >= 300
    up, failures, why = asking.health()["kubelet"]
    assert (up, why) == (False, "connection refused")
    assert failures == {"unavailable": kubelet.asked - 1}
    kubelet.error = None
    kubelet.tell()
    assert asking.ask(LAST_BACKOFF_NS / S) == []
    assert asking.health() == {"kubelet": (True, failures, ""), "slurm": (True, {}, "")}
    kubelet.error = unavailable()
    asking.ask()
    asked = kubelet.asked
    asking.ask(FIRST_BACKOFF_NS / S)
    assert kubelet.asked == asked + 1  # well in between: it begins anew


def test_a_bug_in_a_source_is_told_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    asking = Asking("buggy", "sound")
    buggy, sound = asking.sources
    buggy.tell(found_job("before", asking.group("/before"), uid=ANN))
    asking.ask()
    buggy.error = ZeroDivisionError("division by zero")
    with caplog.at_level(logging.INFO, "wattribute"):
        for n in range(10):
            sound.tell(found_job(f"job-{n}", asking.group(f"/{n}"), uid=ANN))
            assert asking.ask(100) == [("before", "/before"), (f"job-{n}", f"/{n}")]
    assert [r.exc_info is not None for r in caplog.records if "a bug in this job source" in r.message] == [True]
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 2  # with one line of what it means
    up, failures, why = asking.health()["buggy"]
    assert (up, failures, why) == (False, {"bug": 10}, "ZeroDivisionError: division by zero")


def test_what_was_never_there_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    asking = Asking("kubelet")
    asking.sources[0].error = unavailable("connection refused", "start the kubelet")
    with caplog.at_level(logging.INFO, "wattribute"):
        for _ in range(5):
            asking.ask(100)
    (line,) = caplog.records
    assert (line.levelno, line.message) == (logging.INFO, "kubelet: connection refused. Fix: start the kubelet")
    silent = Asking("nothing")
    silent.ask()
    assert silent.health() == {}


def test_of_two_that_tell_of_one_cgroup_the_first_counts() -> None:
    asking = Asking("first", "second")
    first, second = asking.sources
    group = asking.group("/a")
    first.tell(found_job("mine", group, uid=ANN))
    second.tell(found_job("yours", group, uid=ANN), found_job("other", asking.group("/b"), uid=ANN))
    assert asking.ask() == [("mine", "/a"), ("other", "/b")]
    first.tell()
    assert asking.ask() == [("yours", "/a"), ("other", "/b")]


def test_the_first_rule_that_fits_says_what_a_job_is_by_cgroup_user_and_label() -> None:
    rules = (
        Rule(label={"app": "vllm*"}, product="llama", phase="inference"),
        Rule(user="bob", product="thesis", job="bobs"),
        Rule(cgroup="/batch/*", product="batch", role="platform"),
    )
    asking = Asking("told", rules=rules)
    asking.sources[0].tell(
        found_job("pod", asking.group("/pods/1"), uid=ANN, labels={"app": "vllm-7"}, phase="x"),
        found_job("run", asking.group("/batch/1"), uid=BOB),
        found_job("night", asking.group("/batch/2"), uid=ANN, product_id="own"),
        found_job("none", asking.group("/elsewhere"), uid=ANN, product_id="own", phase="data"),
    )
    asking.ask()
    told = [(found.job_id, found.product_id, found.role, found.phase) for found in asking.discovery.jobs()]
    assert told == [
        ("pod", "llama", "use", "inference"),
        ("bobs", "thesis", "use", ""),
        ("night", "batch", "platform", ""),
        ("none", "own", "use", "data"),
    ]


def test_what_hasnt_changed_is_the_same_object() -> None:
    asking = Asking("told")
    asking.sources[0].tell(found_job("a", asking.group("/a"), uid=ANN))
    first = asking.discovery.jobs()
    assert asking.discovery.jobs() is first
    asking.sources[0].tell(found_job("a", asking.group("/a"), uid=ANN))
    assert asking.discovery.jobs() is not first
    asking.discovery.close()
    asking.discovery.close()
    assert asking.sources[0].closed == 2


# When a cgroup was made


def test_a_cgroup_is_old_new_or_late() -> None:
    tree = ListedTree()
    old, inner = tree.add("/a/old"), tree.add("/a/old/inner")
    seen = Sightings(tree)
    assert seen.age(old) == "old"  # nobody has looked there yet
    seen.look_again()
    for path in ("/", "/a", "/a/old"):
        seen.children(path)
    assert [seen.age(group) for group in (old, inner)] == ["old", "old"]
    new = tree.add("/a/new")
    seen.look_again()
    assert new in seen.children("/a")
    assert seen.age(new) == "new"
    below = tree.add("/a/new/x")
    seen.children("/a/new")
    assert seen.age(below) == "new"  # it is in a folder that is
    seen.look_again()
    seen.children("/a")
    assert [seen.age(group) for group in (old, new, below)] == ["old", "late", "late"]


def test_what_appears_in_a_folder_that_was_never_listed_is_as_new_as_the_folder() -> None:
    tree = ListedTree()
    tree.add("/a")
    seen = Sightings(tree)
    seen.look_again()
    seen.children("/")
    seen.look_again()
    was_there = tree.add("/a/x")
    seen.children("/a")
    assert seen.age(was_there) == "old"  # it may have been there all the time


def test_a_folder_is_listed_again_when_its_links_change_or_it_is_time() -> None:
    tree = ListedTree()
    first = tree.add("/a/1")
    seen = Sightings(tree)
    seen.look_again()
    children = seen.children("/a")
    tree.listed.clear()
    for _ in range(RELIST_LOOKS - 1):
        seen.look_again()
        assert seen.children("/a") is children
    assert tree.listed == []
    tree.add("/a/2")
    seen.look_again()
    assert len(seen.children("/a")) == 2
    tree.remove("/a/1")
    anew = tree.add("/a/1")  # as many as before
    seen.look_again()
    assert anew not in seen.children("/a")
    seen.forget(first)
    assert anew in seen.children("/a")
    assert seen.age(anew) == "late"  # it may have hidden behind the count for a while


# Who is whom


class Desk:
    """A table of jobs over a node that is moved by hand, fed as a tick does; one source tells what there is."""

    def __init__(self, folder: Path, *, max_jobs: int = 100) -> None:
        self.node = FoundNode(folder)
        self.clock = HandClock()
        self.source = ToldJobs()
        self.ended: dict[str, LiveJob] = {}
        self.folded: list[str] = []
        self.max_jobs = max_jobs
        self.node.cgroups.flush()
        self.open()

    def finished(self, job_id: str) -> LiveJob | None:
        return self.ended.get(job_id)

    def fold(self, live: LiveJob) -> None:
        self.folded.append(live.entry.job.id)

    def open(self) -> None:
        cgroups = self.node.cgroups
        now = self.clock.monotonic_ns
        rules = Rules(idle="reserved", overhead="usage", idle_uw={}, cpus=4, memory_bytes=2**34)
        self.books = Books(rules, Hardware(()), Taxes((), now()), now(), PriceSeries.constant(Price(0, 0)))
        tree = Tree(cgroups.cgroup, cgroups.proc)
        self.cpu = ProcessCollector(cgroups.proc, cgroups.cgroup, now, (), os.getpid(), self.node.kernel)
        self.groups = Groups(tree, GroupUsage(tree), self.cpu, (), now)
        self.sightings = self.source.tree = Sightings(tree)
        discovery = Discovery([self.source], self.sightings, (), self.clock, str)
        self.found = FoundJobs(discovery, self.sightings, self.groups, self.clock, inline=True)
        self.registry = Registry(
            self.books,
            self.cpu,
            Admission(
                owner_of=str,
                owns=lambda product_id, uid: False,
                privileged=lambda uid: uid == 0,
                uid_of=lambda pid: ANN,
            ),
            max_jobs=self.max_jobs,
            groups=self.groups,
        )

    def tick(self, seconds: float = 1) -> list[str]:
        """Returns the jobs that this opened."""
        self.clock.pass_(seconds)
        self.node.cgroups.flush()
        self.found.request()
        self.found.collect(0)
        opened = self.found.reconcile(self.registry, self, self.clock)
        readings = self.groups.read()
        self.registry.feed(readings)
        now_ns, unix_ns = self.clock.monotonic_ns(), self.clock.time_ns()
        self.registry.lose(self.cpu.gone(), now_ns, unix_ns)
        self.registry.lose(self.found.gone(), now_ns, unix_ns)
        accounts = {r.consumer: r.busy_ns for r in readings if isinstance(r.consumer, str)}
        self.books.tick(now_ns, accounts, [], unix_ns=now_ns)
        self.books.forget_settled()
        return [live.entry.job.id for live in opened]

    def tell(self, *told: tuple[str, str] | FoundJob) -> None:
        """(job, cgroup) of Ann's, or more exactly."""
        found = [each for each in told if isinstance(each, FoundJob)]
        made = [found_job(each[0], self.node.make(each[1]), uid=ANN) for each in told if not isinstance(each, FoundJob)]
        self.source.tell(*made, *found)

    def start(self, job_id: str, pid: int, member: str = "m", uid: int = ANN, **fields: object) -> LiveJob:
        request = JobStart(id=1, job_id=job_id, member=member, pid=pid, **fields)  # type: ignore[arg-type]
        now_ns, unix_ns = self.clock.monotonic_ns(), self.clock.time_ns()
        return self.registry.start(request, Peer(pid, uid, uid), now_ns, unix_ns)

    def end(self, job_id: str, pid: int, member: str = "m", uid: int = ANN) -> LiveJob:
        self.node.cgroups.flush()
        request = JobEnd(id=1, job_id=job_id, member=member)
        return self.registry.end(request, Peer(pid, uid, uid), self.clock.monotonic_ns(), self.clock.time_ns())

    def live(self, job_id: str) -> LiveJob:
        return self.registry.jobs[job_id]

    def ms(self, job_id: str) -> float:
        return self.live(job_id).entry.values[CPU_NS_SLOT] / MS

    def running(self) -> set[str]:
        return {job_id for job_id, live in self.registry.jobs.items() if live.running}

    def close(self) -> None:
        self.found.close()
        self.cpu.close()
        self.node.close()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    # No file is kept open, so that a removed cgroup is gone for a reader, as it is for the kernel's.
    monkeypatch.setattr(usage, "_room", lambda: 0)
    made = Desk(tmp_path / "node")
    yield made
    made.close()


def test_a_cgroup_is_a_job_from_its_first_to_its_last_moment(desk: Desk) -> None:
    desk.tick()
    desk.tell(("a", "/jobs/a"))
    desk.node.use("/jobs/a", 30)
    assert desk.tick() == ["a"]
    desk.node.use("/jobs/a", 40)
    assert desk.tick() == []
    assert (desk.ms("a"), desk.live("a").entry.job.origin, desk.live("a").uid) == (70, "cgroup", ANN)
    for _ in range(4):
        desk.tick()
    desk.node.use("/jobs/a", 5)
    desk.node.remove("/jobs/a")
    desk.tell()
    desk.tick()
    assert desk.running() == set()
    assert desk.ms("a") == 75
    assert not any("without closing" in note for note in desk.live("a").notes)


def test_a_cgroup_that_ran_before_the_agent_counts_from_then_on(desk: Desk) -> None:
    desk.node.make("/jobs/a")
    desk.node.use("/jobs/a", 5000)
    desk.tell(("a", "/jobs/a"))
    desk.tick()
    desk.node.use("/jobs/a", 7)
    desk.tick()
    assert desk.ms("a") == 7


def test_one_that_is_recognised_late_has_its_cpu_time_but_nobodys_energy(desk: Desk) -> None:
    desk.node.make("/jobs")
    desk.tick()
    desk.node.make("/jobs/a")
    for _ in range(3):
        desk.node.use("/jobs/a", 500)
        desk.tick()
    desk.tell(("a", "/jobs/a"))
    desk.tick()
    desk.node.use("/jobs/a", 7)
    desk.tick()
    assert desk.ms("a") == 1507
    assert desk.live("a").entry.base_ns == 1500 * MS
    assert any("recognised after it had begun" in note for note in desk.live("a").notes)


@pytest.mark.parametrize("others", [(), (("a", "/jobs/other"),)])
def test_a_source_that_forgets_a_job_for_a_moment_doubles_nothing(
    desk: Desk, others: tuple[tuple[str, str], ...]
) -> None:
    """It was told, isn't, and is again: what it had used is in its totals already."""
    desk.node.make("/jobs")
    desk.tick()
    desk.tell(("a", "/jobs/a"), *others)
    desk.node.use("/jobs/a", 100)
    desk.tick()
    desk.node.use("/jobs/a", 100)
    desk.tick()
    desk.tell(*others)
    desk.tick()
    assert desk.running() == ({"a"} if others else set())
    desk.node.use("/jobs/a", 5000)
    desk.tick()
    desk.tell(("a", "/jobs/a"), *others)
    desk.tick()
    desk.node.use("/jobs/a", 10)
    desk.tick()
    assert desk.running() == {"a"}
    assert desk.ms("a") == 210


def test_of_one_that_is_recognised_late_what_is_inside_it_keeps_its_own(desk: Desk) -> None:
    desk.node.make("/jobs")
    desk.tick()
    desk.node.make("/jobs/a")
    worker = desk.node.fork("/jobs/a")
    desk.tell(("inner", "/jobs/a/inner"))
    desk.start("session", worker.pid)
    desk.tick()
    desk.node.burn(worker, 40)
    desk.node.use("/jobs/a/inner", 20)
    desk.node.use("/jobs/a", 7)
    desk.tick()
    desk.tell(("inner", "/jobs/a/inner"), ("a", "/jobs/a"))
    desk.tick()
    assert [desk.ms(job_id) for job_id in ("session", "inner", "a")] == [40, 20, 7]


def test_one_that_is_refused_is_not_watched(desk: Desk) -> None:
    """Every id that it could have is somebody else's: what it uses is as unregistered as before."""
    desk.node.make("/jobs")
    desk.node.make("/user.slice")
    desk.tick()
    shell = desk.node.fork("/user.slice")
    inode = desk.node.make("/jobs/a").inode
    for n, job_id in enumerate(("x", f"x~{ANN}", f"x~{inode}")):
        desk.start(job_id, shell.pid, f"m{n}", uid=0)
    desk.tell(("outer", "/jobs"), ("x", "/jobs/a"))
    desk.tick()
    desk.node.use("/jobs/a", 30)
    for _ in range(3):
        desk.tick()
    assert desk.ms("outer") == 30
    assert desk.groups.counters_ns().keys() == {desk.node.make("/jobs")}


def test_several_cgroups_with_one_id_are_one_job_that_ends_with_the_last(desk: Desk) -> None:
    desk.tick()
    paths = [f"/jobs/step_{n}" for n in range(3)]
    told = [("slurm", path) for path in paths]
    for n, path in enumerate(paths):
        desk.tell(*told[: n + 1])
        desk.node.use(path, 10)
        desk.tick()
    live = desk.live("slurm")
    assert (live.member_count, desk.ms("slurm")) == (3, 30)
    for n, path in enumerate(paths):
        assert desk.running() == {"slurm"}
        desk.node.remove(path)
        desk.tell(*told[n + 1 :])
        desk.tick()
    assert desk.running() == set()
    assert live.found.keys() == {found.group for found in live.found.values()}
    assert len(live.found) == 1  # what it was, for its series


def test_what_is_reserved_is_the_sum_over_the_cgroups_that_are_there(desk: Desk) -> None:
    first = found_job("a", desk.node.make("/jobs/1"), uid=ANN, reserved=Reservation(1000, 2**30))
    second = found_job("a", desk.node.make("/jobs/2"), uid=ANN, reserved=Reservation(cpus_milli=500))
    desk.tell(first, second)
    desk.tick()
    assert desk.live("a").entry.reserved == Reservation(1500, 2**30)
    desk.node.remove("/jobs/1")
    desk.tell(second)
    desk.tick()
    assert desk.live("a").entry.reserved == Reservation(500, None)


def test_the_same_id_of_the_same_user_is_the_same_job_whoever_comes_first(desk: Desk) -> None:
    desk.node.make("/user.slice")
    shell = desk.node.fork("/user.slice")
    desk.tick()
    desk.start("run", shell.pid)
    desk.tell(("run", "/jobs/run"), ("pod", "/jobs/pod"))
    desk.node.use("/jobs/run", 20)
    desk.node.burn(shell, 5)
    desk.tick()
    desk.start("pod", shell.pid, "n")
    desk.node.use("/jobs/pod", 9)
    desk.tick()
    assert desk.ms("run") == 25
    assert desk.ms("pod") == 9
    assert desk.live("pod").member_count == 2
    desk.end("run", shell.pid)
    assert desk.running() == {"run", "pod"}
    desk.tell()
    desk.tick()
    assert desk.running() == {"pod"}  # its session goes on


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"uid": ANN}, {"uid": BOB}),
        ({"uid": ANN, "product_id": "mine"}, {"uid": ANN, "product_id": "other"}),
        ({"uid": ANN}, {"uid": ANN, "role": "platform", "product_id": "default"}),
    ],
)
def test_one_that_is_somebody_elses_gets_an_id_of_its_own_and_never_the_others_job(
    desk: Desk, mine: dict[str, object], theirs: dict[str, object]
) -> None:
    desk.tick()
    first = found_job("train", desk.node.make("/jobs/mine"), **mine)
    second = found_job("train", desk.node.make("/jobs/theirs"), **theirs)
    desk.tell(first)
    desk.tick()
    desk.tell(first, second)
    desk.node.use("/jobs/theirs", 50)
    desk.node.use("/jobs/mine", 3)
    desk.tick()
    other = f"train~{second.uid}"
    assert desk.running() == {"train", other}
    assert (desk.ms("train"), desk.ms(other)) == (3, 50)
    assert (desk.live("train").uid, desk.live(other).uid) == (mine["uid"], theirs["uid"])
    desk.tell(first)
    desk.tick()
    assert desk.running() == {"train"}
    desk.tell(first, second)
    desk.node.use("/jobs/theirs", 5)
    desk.tick()
    desk.node.use("/jobs/theirs", 5)
    desk.tick()
    assert desk.running() == {"train", other}
    assert desk.ms(other) >= 55  # on its own totals, not from 0 again


def test_an_id_that_comes_back_for_another_product_begins_its_series_anew(desk: Desk) -> None:
    """A rule was changed: the service keeps its id and its totals, and what it showed stays the old product's."""
    desk.tick()
    desk.tell(found_job("web", desk.node.make("/jobs/1"), uid=ANN, product_id="old"))
    desk.node.use("/jobs/1", 7)
    desk.tick()
    desk.tell()
    desk.tick()
    desk.tell(found_job("web", desk.node.make("/jobs/2"), uid=ANN, product_id="new"))
    desk.node.use("/jobs/2", 5)
    desk.tick()
    assert desk.running() == {"web"}
    assert desk.folded == ["web"]
    assert desk.live("web").entry.job.product_id == "new"
    assert desk.ms("web") == 12


def test_an_id_of_its_own_goes_on_from_where_the_ledger_has_it(desk: Desk) -> None:
    desk.tick()
    desk.tell(found_job("web", desk.node.make("/jobs/bobs"), uid=BOB))
    desk.tick()
    desk.tell(
        found_job("web", desk.node.make("/jobs/bobs"), uid=BOB), found_job("web", desk.node.make("/jobs/a"), uid=ANN)
    )
    desk.node.use("/jobs/a", 9)
    desk.tick()
    apart = f"web~{ANN}"
    assert desk.ms(apart) == 9
    desk.tell(found_job("web", desk.node.make("/jobs/bobs"), uid=BOB))
    desk.tick()
    desk.ended[apart] = desk.registry.jobs.pop(apart)
    desk.tell(
        found_job("web", desk.node.make("/jobs/bobs"), uid=BOB), found_job("web", desk.node.make("/jobs/b"), uid=ANN)
    )
    desk.node.use("/jobs/b", 4)
    desk.tick()
    assert desk.ms(apart) == 13


def test_a_job_that_is_found_around_others_shares_its_claim_with_them(desk: Desk) -> None:
    """A rule over a slice is looked at last, and a session may have begun before the first look."""
    desk.tick()
    inner = found_job("inner", desk.node.make("/jobs/outer/inner"), reserved=Reservation(cpus_milli=1000))
    desk.tell(inner)
    desk.tick()
    outer = next(g for g in desk.sightings.children("/jobs") if g.path == "/jobs/outer")
    desk.tell(inner, found_job("outer", outer, reserved=Reservation(cpus_milli=2000)))
    desk.tick()
    assert desk.live("inner").entry.inside == "outer"
    assert desk.live("inner").entry.job.parent_job_id is None  # labels don't change while it runs
    use = desk.books._use
    now = replace(use, at_ns=use.at_ns + 1_000_000_000)
    claims = demands(use, now, desk.books.jobs, 4, 2**34, 0).by_cpu.claim_ppb
    assert claims == {"inner": 250_000_000, "outer": 250_000_000}


def test_a_found_id_that_is_long_stays_a_valid_one(desk: Desk) -> None:
    desk.tick()
    name = "x" * 128
    desk.tell(found_job(name, desk.node.make("/jobs/1"), uid=ANN), found_job(name, desk.node.make("/jobs/2"), uid=BOB))
    desk.tick()
    assert len(desk.running()) == 2
    assert all(len(job_id) <= 128 for job_id in desk.running())


def test_a_session_of_another_user_is_refused_a_found_id(desk: Desk) -> None:
    from wattribute.agent.core.errors import Refused

    desk.tick()
    desk.tell(("a", "/jobs/a"))
    desk.tick()
    worker = desk.node.fork("/jobs/a")
    with pytest.raises(Refused, match="belongs to another user"):
        desk.start("a", worker.pid, uid=BOB)
    with pytest.raises(Refused, match="is a cgroup"):
        desk.end("a", worker.pid, next(iter(desk.live("a").members)))
    assert desk.running() == {"a"}


def test_a_session_inside_a_found_job_is_its_child_and_of_the_same_id_is_itself(desk: Desk) -> None:
    desk.tick()
    desk.tell(("outer", "/jobs/outer"))
    desk.tick()
    inside, same = desk.node.fork("/jobs/outer"), desk.node.fork("/jobs/outer")
    desk.start("inner", inside.pid)
    desk.start("second", inside.pid, "n")
    desk.start("outer", same.pid)
    desk.node.burn(inside, 40)
    desk.node.burn(same, 20)
    desk.node.use("/jobs/outer", 5)
    desk.tick()
    assert [desk.ms(job_id) for job_id in ("outer", "inner", "second")] == [25, 20, 20]
    assert desk.live("inner").entry.job.parent_job_id == "outer"
    assert desk.live("second").entry.job.parent_job_id == "outer"  # on the same process, beside the first
    assert desk.live("outer").entry.job.parent_job_id is None


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("age", ["new", "late", "old"])
def test_a_cgroup_inside_another_jobs_is_its_child(desk: Desk, order: int, age: str) -> None:
    """However they are told, and whenever they were made; the outer one's time isn't counted twice."""
    if age != "old":
        desk.tick()
    told = (("user", "/jobs/user"), ("unit", "/jobs/user/unit"))
    for _, path in told:
        desk.node.make(path)
    desk.node.use("/jobs/user/unit", 30)
    desk.node.use("/jobs/user", 4)
    if age == "late":
        desk.tick()
    desk.tell(*told[::order])
    desk.tick()
    assert desk.ms("user") + desk.ms("unit") == (0 if age == "old" else 34)
    desk.node.use("/jobs/user/unit", 7)
    desk.tick()
    assert desk.ms("unit") == {"new": 37, "late": 7, "old": 7}[age]
    assert desk.live("unit").entry.job.parent_job_id == "user"
    assert desk.live("user").entry.job.parent_job_id is None


def test_memory_of_a_job_is_that_of_all_that_it_stands_on(desk: Desk) -> None:
    desk.node.make("/user.slice")
    shell = desk.node.fork("/user.slice", memory_bytes=300 << 20)
    desk.tick()
    paths = [f"/jobs/{n}" for n in range(3)]
    desk.tell(*(("a", path) for path in paths))
    for path in paths:
        desk.node.cgroups.set_memory(path, 100 << 20)
    desk.start("a", shell.pid)
    desk.tick()
    assert desk.live("a").entry.memory_bytes >> 20 == 600
    desk.node.cgroups.set_memory("/jobs/1", 150 << 20)
    for _ in range(3):
        desk.tick(0.01)  # none of them is asked
        desk.tick()
    assert desk.live("a").entry.memory_bytes >> 20 == 650
    desk.start("inner", shell.pid, "i", parent_job_id="a")
    desk.tick()
    assert desk.live("a").entry.memory_bytes >> 20 == 350
    assert desk.live("inner").entry.memory_bytes >> 20 == 300
    desk.node.remove("/jobs/1")
    desk.tell(*(("a", path) for path in paths if path != "/jobs/1"))
    desk.tick()
    desk.tick()
    assert desk.live("a").entry.memory_bytes >> 20 == 200


def test_jobs_past_the_cap_are_folded_when_they_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_room", lambda: 0)
    desk = Desk(tmp_path / "node", max_jobs=2)
    desk.tick()
    desk.tell(*((name, f"/jobs/{name}") for name in "abc"))
    desk.tick()
    assert [desk.live(name).folded for name in "abc"] == [False, False, True]
    desk.close()


def test_a_cgroup_that_is_gone_before_it_is_taken_in_is_tried_again_and_costs_nothing(desk: Desk) -> None:
    desk.tick()
    group = desk.node.make("/jobs/a")
    desk.node.remove("/jobs/a")
    desk.tell(found_job("a", group, uid=ANN))
    assert desk.tick() == desk.tick() == []
    assert desk.registry.jobs == {}
    desk.tell(("a", "/jobs/a"))
    desk.node.use("/jobs/a", 5)
    assert desk.tick() == ["a"]
    assert desk.ms("a") == 5


def test_one_made_anew_under_the_same_path_is_another_cgroup_of_the_job(desk: Desk) -> None:
    desk.tick()
    before = found_job("a", desk.node.make("/jobs/a"), uid=ANN, reserved=Reservation(1000))
    desk.tell(before)
    desk.node.use("/jobs/a", 5)
    desk.tick()
    desk.node.remove("/jobs/a")
    after = found_job("a", desk.node.make("/jobs/a"), uid=ANN, reserved=Reservation(1000))
    assert after.group != before.group
    desk.node.use("/jobs/a", 7)
    desk.tick()  # the folder has as many as before: nobody has noticed
    assert desk.running() == set()
    desk.tell(after)
    desk.node.use("/jobs/a", 7)
    desk.tick()
    assert desk.running() == {"a"}
    assert desk.live("a").member_count == 2
    assert desk.ms("a") == 19
    assert desk.live("a").entry.reserved == Reservation(1000)
