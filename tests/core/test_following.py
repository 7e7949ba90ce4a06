"""Following process trees: every nanosecond once, whatever happens between two looks at the kernel."""

from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.doubles.kernel import INIT, TICK_NS, SimulatedKernel

from wattribute.agent.core.following import CALM_NS, Follower, Stat
from wattribute.agent.core.model import ProcessId

MS = 1_000_000
STEP_NS = 1_000 * MS


class Watcher:
    """A follower, what it billed in all, and what of that could be from before the watches."""

    def __init__(self, kernel: SimulatedKernel) -> None:
        self.kernel = kernel
        self.follower = Follower(kernel, kernel.clock)
        self.roots: list[ProcessId] = []
        self.ended_ns = 0
        self.leeway_ns = 0
        self.seen_ns: dict[ProcessId, int] = {}

    def watch(self, pid: int) -> ProcessId:
        root = self.kernel.id_of(pid)
        self.leeway_ns += 2 * TICK_NS * len(self.kernel.processes)  # reaped before, in parts of a tick
        self.kernel.watch(pid)
        self.follower.watch(root)
        self.roots.append(root)
        self.seen_ns[root] = 0
        return root

    def unwatch(self, root: ProcessId) -> None:
        self.ended_ns += self.follower.busy_ns(root)
        self.follower.unwatch(root)
        self.roots.remove(root)

    def read(self, after_ns: int = STEP_NS) -> int:
        """All that was ever billed."""
        self.kernel.now_ns += after_ns
        trees = {tree.root: tree.billed_ns for tree in self.follower.read()}
        assert trees.keys() == set(self.roots)
        for root, billed_ns in trees.items():
            assert billed_ns >= self.seen_ns[root]
            self.seen_ns[root] = billed_ns
        self.check_sums()
        return self.ended_ns + sum(trees.values())

    def check_sums(self) -> None:
        account = self.follower.account
        for tree in account.trees.values():
            known_ns = sum(m.own_ns + m.reaped_ns for m in tree.members.values())
            assert tree.total_ns == known_ns
            assert tree.memory_bytes == sum(m.memory_bytes for m in tree.members.values())
        assert len(account.live) == sum(len(tree.members) for tree in account.trees.values())


@pytest.fixture
def kernel() -> SimulatedKernel:
    return SimulatedKernel(Random(1))


def fork(kernel: SimulatedKernel, parent: int = INIT, *, subreaper: bool = False) -> int:
    pid = kernel.fork(parent, subreaper=subreaper)
    assert pid is not None
    return pid


def finish(kernel: SimulatedKernel, pid: int) -> None:
    kernel.exit(pid)
    kernel.reap(pid)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), mischief=st.integers(0, 2), actions=st.lists(st.integers(0, 9), max_size=40))
def test_never_more_than_was_used_and_never_less_than_before(seed: int, mischief: int, actions: list[int]) -> None:
    random = Random(seed)
    kernel = SimulatedKernel(random, mischief)
    watcher = Watcher(kernel)
    for _ in range(10):
        kernel.step()
    for action in actions:
        for _ in range(random.randrange(6)):
            kernel.step()
        watched = {root.pid for root in watcher.roots}
        candidates = [p.pid for p in kernel.processes.values() if p.pid not in watched and not p.zombie]
        if action == 0 and len(candidates) > 1:
            watcher.watch(random.choice(candidates[1:]))
        elif action == 1 and watcher.roots:
            watcher.unwatch(random.choice(watcher.roots))
        elif action == 2 and watcher.roots:
            watcher.follower.busy_ns(random.choice(watcher.roots))
        elif action == 3 and watcher.roots:
            root = random.choice(watcher.roots)
            process = kernel.processes.get(root.pid)
            if process is not None and process.start == root.start_ticks:
                watcher.follower.settle_reaped(root, process.user_ns + process.system_ns)
        else:
            billed_ns = watcher.read(random.choice([10 * MS, 900 * MS, CALM_NS]))
            assert billed_ns <= sum(kernel.used_ns.values()) + watcher.leeway_ns


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(seed=12655, mischief=2, nested=False)
@given(seed=st.integers(0, 2**32), mischief=st.integers(0, 2), nested=st.booleans())
def test_all_that_was_used_under_a_reaper_is_billed(seed: int, mischief: int, nested: bool) -> None:
    random = Random(seed)
    kernel = SimulatedKernel(random)
    root = fork(kernel, subreaper=True)
    kernel.processes[root].mortal = False
    inner = fork(kernel, root)
    watcher = Watcher(kernel)
    watcher.follower.read()
    watcher.watch(root)
    if nested:
        watcher.watch(inner)
    for _ in range(25):
        for _ in range(random.randrange(8)):
            kernel.step()
        kernel.mischief = mischief
        billed_ns = watcher.read(random.choice([200 * MS, STEP_NS]))
        kernel.mischief = 0
        assert billed_ns <= kernel.used_ns[kernel.processes[root].start]  # nothing was reaped before: no leeway
    for _ in range(3):  # scans, and no new listing yet
        billed_ns = watcher.read(CALM_NS)
    used_ns = kernel.used_ns[kernel.processes[root].start]
    family = [p for p in kernel.processes.values() if p.family is not None]
    in_ticks_ns = 2 * TICK_NS * sum(p.user_ns + p.system_ns > 0 for p in family)
    # One whose ancestors all died while it was looked for may be missed until it dies itself, or the next listing.
    missed = [p for p in family if watcher.follower.root_of(p.pid) is None]
    missed_ns = sum(p.own_ns + p.user_ns + p.system_ns for p in missed)
    assert used_ns - in_ticks_ns - missed_ns <= billed_ns <= used_ns
    assert mischief or not missed


def test_short_children_are_billed_through_their_parents_reaped_time(kernel: SimulatedKernel) -> None:
    root = fork(kernel)
    watcher = Watcher(kernel)
    id_ = watcher.watch(root)
    for _ in range(100):
        child = fork(kernel, root)
        kernel.run(child, 20 * MS)
        finish(kernel, child)
    billed_ns = watcher.read()
    used_ns = kernel.used_ns[kernel.processes[root].start]
    assert used_ns - 2 * TICK_NS <= billed_ns <= used_ns
    process = kernel.processes[root]
    assert watcher.follower.settle_reaped(id_, process.user_ns + process.system_ns)
    assert watcher.follower.busy_ns(id_) == used_ns


def test_a_reaped_time_that_the_ticks_rule_out_is_not_believed(kernel: SimulatedKernel) -> None:
    root = fork(kernel)
    watcher = Watcher(kernel)
    id_ = watcher.watch(root)
    child = fork(kernel, root)
    kernel.run(child, 500 * MS)
    finish(kernel, child)
    billed_ns = watcher.read()
    assert not watcher.follower.settle_reaped(id_, 10_000 * MS)
    assert not watcher.follower.settle_reaped(id_, 0)
    assert watcher.follower.busy_ns(id_) == billed_ns


def test_what_was_used_before_the_watch_is_not_billed(kernel: SimulatedKernel) -> None:
    root = fork(kernel)
    child = fork(kernel, root)
    kernel.run(root, 300 * MS)
    kernel.run(child, 200 * MS)
    watcher = Watcher(kernel)
    id_ = watcher.watch(root)
    assert watcher.read() == 0
    kernel.run(child, 7)
    assert watcher.follower.busy_ns(id_) == 7
    finish(kernel, child)
    watcher.read()
    watcher.read()
    assert watcher.follower.busy_ns(id_) <= kernel.used_ns[id_.start_ticks]


def test_the_innermost_root_is_billed_and_its_death_costs_the_outer_nothing(kernel: SimulatedKernel) -> None:
    outer = fork(kernel)
    inner = fork(kernel, outer)
    watcher = Watcher(kernel)
    outer_id, inner_id = watcher.watch(outer), watcher.watch(inner)
    kernel.run(inner, 400 * MS)
    kernel.run(outer, 5 * MS)
    watcher.read()
    outer_ns = kernel.processes[outer].own_ns
    finish(kernel, inner)
    for _ in range(3):
        watcher.read()
    assert watcher.follower.gone() == [inner_id]
    assert watcher.follower.busy_ns(inner_id) == 400 * MS
    tail_ns = kernel.used_ns[outer_id.start_ticks] - 400 * MS - outer_ns
    assert watcher.follower.busy_ns(outer_id) <= outer_ns + tail_ns
    watcher.unwatch(inner_id)
    kernel.run(outer, 30 * MS)
    watcher.read()
    assert watcher.follower.busy_ns(outer_id) >= outer_ns + 30 * MS - 2 * TICK_NS


def test_what_lives_on_after_an_inner_root_falls_to_the_outer(kernel: SimulatedKernel) -> None:
    outer = fork(kernel)
    inner = fork(kernel, outer)
    worker = fork(kernel, inner)
    watcher = Watcher(kernel)
    outer_id, inner_id = watcher.watch(outer), watcher.watch(inner)
    assert watcher.follower.root_of(worker) == inner_id
    kernel.run(worker, 50 * MS)
    watcher.read()
    watcher.unwatch(inner_id)
    assert watcher.follower.root_of(worker) == outer_id
    before_ns = watcher.follower.busy_ns(outer_id)
    kernel.run(worker, 60 * MS)
    assert watcher.follower.busy_ns(outer_id) == before_ns + 60 * MS
    watcher.unwatch(outer_id)
    assert watcher.follower.root_of(worker) is None


def test_a_daemon_that_forked_twice_stays_with_its_reaper(kernel: SimulatedKernel) -> None:
    root = fork(kernel, subreaper=True)
    watcher = Watcher(kernel)
    id_ = watcher.watch(root)
    middle = fork(kernel, root)
    daemon = fork(kernel, middle)
    finish(kernel, middle)
    kernel.run(daemon, 80 * MS)
    watcher.read()
    assert watcher.follower.root_of(daemon) == id_
    finish(kernel, daemon)
    used_ns = kernel.used_ns[id_.start_ticks]
    assert used_ns - 2 * TICK_NS <= watcher.read() <= used_ns


def test_an_orphan_that_init_reaps_leaves_no_debt(kernel: SimulatedKernel) -> None:
    root = fork(kernel)
    middle = fork(kernel, root)
    worker = fork(kernel, middle)
    watcher = Watcher(kernel)
    id_ = watcher.watch(root)
    kernel.run(worker, 5_000 * MS)
    watcher.read()
    kernel.exit(middle)
    kernel.reap(middle)
    finish(kernel, worker)  # between two reads: nobody saw whose it had become
    for _ in range(3):
        billed_ns = watcher.read()
    child = fork(kernel, root)
    kernel.run(child, 900 * MS)
    finish(kernel, child)
    assert watcher.read(CALM_NS) >= billed_ns + (900 - 60) * MS
    assert watcher.follower.busy_ns(id_) <= kernel.used_ns[id_.start_ticks]


def test_a_recycled_pid_is_another_process(kernel: SimulatedKernel) -> None:
    kernel.pid_max = 6
    root, neighbour = fork(kernel), fork(kernel)
    watcher = Watcher(kernel)
    id_ = watcher.watch(root)
    kernel.run(root, 3 * MS)
    used_ns = kernel.processes[root].own_ns
    watcher.read()
    finish(kernel, root)
    finish(kernel, neighbour)
    while root not in kernel.processes:
        other = fork(kernel)
        if other != root:
            finish(kernel, other)
    kernel.run(root, 50_000 * MS)
    assert watcher.read() == used_ns
    assert watcher.follower.gone() == [id_]
    assert watcher.follower.root_of(root) is None


def test_a_root_that_is_not_there_reads_nothing_and_is_gone(kernel: SimulatedKernel) -> None:
    pid = fork(kernel)
    watcher = Watcher(kernel)
    for stale in (ProcessId(pid, 12345), ProcessId(99, 1)):
        watcher.follower.watch(stale)
        watcher.roots.append(stale)
        watcher.seen_ns[stale] = 0
        assert watcher.follower.gone() == [stale]
        assert watcher.follower.gone() == []
    kernel.run(pid, MS)
    assert watcher.read() == 0


def test_a_restart_goes_on_where_the_saved_total_was(kernel: SimulatedKernel) -> None:
    outer = fork(kernel)
    inner = fork(kernel, outer)
    before = Watcher(kernel)
    outer_id, inner_id = before.watch(outer), before.watch(inner)
    kernel.run(inner, 70 * MS)
    kernel.run(outer, 20 * MS)
    before.read()
    saved = {root: before.follower.tree_ns(root) for root in before.roots}
    kernel.run(inner, 5 * MS)
    kernel.run(outer, 3 * MS)
    child = fork(kernel, inner)
    kernel.run(child, 40 * MS)
    finish(kernel, child)
    inner_ns = sum(
        (
            kernel.processes[inner].own_ns,
            kernel.processes[inner].user_ns // TICK_NS * TICK_NS,
            kernel.processes[inner].system_ns // TICK_NS * TICK_NS,
        )
    )
    for order in ((outer_id, inner_id), (inner_id, outer_id)):
        after = Follower(kernel, kernel.clock)
        for root in order:
            after.watch(root, since_ns=saved[root])
        after.read()
        assert after.busy_ns(inner_id) == inner_ns - saved[inner_id]
        assert after.busy_ns(outer_id) == 3 * MS


def test_a_saved_total_above_the_present_one_is_not_a_debt_for_long(kernel: SimulatedKernel) -> None:
    root = fork(kernel)
    id_ = kernel.id_of(root)
    follower = Follower(kernel, kernel.clock)
    follower.watch(id_, since_ns=60_000 * MS)
    follower.read()
    assert follower.busy_ns(id_) == 0
    kernel.run(root, 10 * MS)
    kernel.now_ns += CALM_NS
    follower.read()
    assert follower.busy_ns(id_) == 10 * MS


def test_a_fork_that_shows_late_is_found_at_the_next_read(kernel: SimulatedKernel) -> None:
    root = fork(kernel)
    watcher = Watcher(kernel)
    id_ = watcher.watch(root)
    child = fork(kernel, root)
    process = kernel.processes.pop(child)
    watcher.read()
    kernel.processes[child] = process
    watcher.read()
    assert watcher.follower.root_of(child) == id_


def test_calm_processes_are_not_asked_each_time(kernel: SimulatedKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = [fork(kernel) for _ in range(10)]
    watcher = Watcher(kernel)
    for pid in pids:
        watcher.watch(pid)
    watcher.read(CALM_NS)
    asked: list[int] = []
    told = kernel.stat

    def stat(pid: int) -> Stat | None:
        asked.append(pid)
        return told(pid)

    monkeypatch.setattr(kernel, "stat", stat)
    for _ in range(3):
        for pid in pids:
            kernel.run(pid, MS)
        stranger = fork(kernel)
        watcher.read()
        assert asked == [stranger]
        asked.clear()
