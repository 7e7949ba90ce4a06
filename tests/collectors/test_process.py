"""Who used the CPU, with real processes: against what getrusage and wait4 say."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import ProcessId
from wattribute.collectors.process import ProcessCollector
from wattribute.collectors.process.procfs import ProcFs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

MS = 1_000_000
# Burns CPU time, not wall time: a shared machine must not change the figures.
BURN = "import time\ndef burn(ms):\n e=time.process_time_ns()+ms*1000000\n while time.process_time_ns()<e: pass\n"
REPORT = (
    "import resource\ndef reaped():\n u=resource.getrusage(resource.RUSAGE_CHILDREN)\n"
    " return round((u.ru_utime+u.ru_stime)*1e9)\n"
)


class Clock:
    """CLOCK_BOOTTIME that can be moved ahead, so that the once-a-second reads are due now."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def __call__(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self.ahead_ns


class Bench:
    """A collector on the real /proc, and children that talk through pipes."""

    def __init__(self, overhead: tuple[str, ...] = ()) -> None:
        self.clock = Clock()
        self.collector = ProcessCollector(Path("/proc"), Path("/sys/fs/cgroup"), self.clock, overhead, os.getpid())
        self.children: list[subprocess.Popen[str]] = []

    def python(self, code: str) -> subprocess.Popen[str]:
        """Runs `code` with burn() and reaped(); wait_() blocks until told to go on, say() tells us."""
        talk = "import sys,os\ndef say(*a): print(*a,flush=True)\ndef wait_(): return sys.stdin.readline()\n"
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", talk + BURN + REPORT + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        return child

    def root(self, child: "subprocess.Popen[str] | int") -> ProcessId:
        root = self.collector.identify(child if isinstance(child, int) else child.pid)
        assert root is not None
        return root

    def read(self) -> dict[object, int]:
        self.clock.ahead_ns += 900_000_000
        return {r.consumer: r.busy_ns for r in self.collector.read()}

    def close(self) -> None:
        self.collector.close()
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def tell(child: subprocess.Popen[str], word: str = "") -> None:
    assert child.stdin is not None
    child.stdin.write(word + "\n")
    child.stdin.flush()


def hear(child: subprocess.Popen[str]) -> list[int]:
    assert child.stdout is not None
    return [int(word) for word in child.stdout.readline().split()]


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def near(ns: int) -> object:
    return pytest.approx(ns, rel=0.005, abs=MS)


def test_own_time_is_counted_from_the_watch(bench: Bench) -> None:
    child = bench.python(
        "burn(60); say(time.process_time_ns()); wait_(); burn(150); say(time.process_time_ns()); wait_()"
    )
    (before_ns,) = hear(child)
    root = bench.root(child)
    bench.collector.watch(root)
    assert bench.read()[root] < MS
    tell(child)
    (after_ns,) = hear(child)
    assert bench.collector.busy_ns(root) == near(after_ns - before_ns)
    assert bench.read()[root] == near(after_ns - before_ns)


def test_short_children_are_exact_once_their_parent_tells(bench: Bench) -> None:
    child = bench.python(
        "import subprocess\nsay(reaped()); wait_(); a=time.process_time_ns()\n"
        "for _ in range(15): subprocess.run([sys.executable,'-S','-c',"
        + repr("import time\nwhile time.process_time_ns()<20000000: pass")
        + "])\nsay(reaped(), time.process_time_ns()-a); wait_()"
    )
    (base_ns,) = hear(child)
    root = bench.root(child)
    bench.collector.watch(root, reaped_ns=base_ns)
    tell(child)
    seen_ns = 0
    for _ in range(6):
        time.sleep(0.04)
        now_ns = bench.read()[root]
        assert now_ns >= seen_ns
        seen_ns = now_ns
    reaped_ns, own_ns = hear(child)
    assert bench.collector.settle_reaped(root, reaped_ns)
    assert bench.collector.busy_ns(root) == near(reaped_ns - base_ns + own_ns)
    assert not bench.collector.settle_reaped(root, reaped_ns + 100 * MS)
    assert bench.read()[root] == near(reaped_ns - base_ns + own_ns)


def test_a_job_in_a_job_is_billed_alone(bench: Bench) -> None:
    inner = BURN + "import sys\nsys.stdin.readline(); burn(120); sys.stdin.readline()"
    outer = bench.python(
        "import subprocess\n"
        f"wait_(); p=subprocess.Popen([sys.executable,'-S','-c',{inner!r}],stdin=subprocess.PIPE,text=True)\n"
        "say(p.pid)\n"
        "for _ in range(2): wait_(); p.stdin.write('go\\n'); p.stdin.flush()\n"
        "p.wait(); say(reaped()); a=time.process_time_ns(); burn(40); say(time.process_time_ns()-a); wait_()"
    )
    outer_root = bench.root(outer)
    bench.collector.watch(outer_root)
    tell(outer)
    (inner_pid,) = hear(outer)
    inner_root = bench.root(inner_pid)
    bench.collector.watch(inner_root)
    assert bench.collector.root_of(inner_pid) == inner_root
    tell(outer)
    until(lambda: bench.collector.busy_ns(inner_root) >= 120 * MS)
    outer_ns = bench.read()[outer_root]
    tell(outer)
    (reaped_ns,) = hear(outer)
    (burnt_ns,) = hear(outer)
    for _ in range(3):
        used = bench.read()
    assert bench.collector.gone() == [inner_root]
    inner_ns = used[inner_root]
    assert inner_ns >= 120 * MS
    tail_ns = reaped_ns - inner_ns  # what the inner used before its watch and after the last look
    assert used[outer_root] - outer_ns <= burnt_ns + max(0, tail_ns) + 3 * MS
    bench.collector.unwatch(inner_root)
    assert inner_root not in bench.read()


def test_daemons_under_a_subreaper_are_counted(bench: Bench) -> None:
    child = bench.python(
        "import ctypes\nctypes.CDLL(None).prctl(36,1,0,0,0)\nsay(1); wait_(); a=time.process_time_ns()\n"
        "for _ in range(3):\n"
        " if os.fork()==0:\n"
        "  if os.fork()==0: burn(50)\n"
        "  os._exit(0)\n"
        "n=0\n"
        "while n<6: os.wait(); n+=1\n"
        "say(reaped(), time.process_time_ns()-a); wait_()"
    )
    hear(child)
    root = bench.root(child)
    bench.collector.watch(root, reaped_ns=0)
    tell(child)
    for _ in range(4):
        time.sleep(0.03)
        bench.read()
    reaped_ns, own_ns = hear(child)
    assert reaped_ns >= 150 * MS
    assert bench.collector.settle_reaped(root, reaped_ns)
    assert bench.collector.busy_ns(root) == near(reaped_ns + own_ns)


def test_a_storm_of_forks_neither_loses_nor_invents(bench: Bench) -> None:
    child = bench.python(
        "say(1); wait_()\nfor _ in range(150):\n p=os.fork()\n if p==0: burn(1); os._exit(0)\n os.waitpid(p,0)\n"
        "say(reaped(), time.process_time_ns()); wait_()"
    )
    hear(child)
    root = bench.root(child)
    own_before_ns = time.clock_gettime_ns((~child.pid << 3) | 2)
    bench.collector.watch(root, reaped_ns=0)
    tell(child)
    for _ in range(10):
        bench.read()
        time.sleep(0.02)
    reaped_ns, own_ns = hear(child)
    assert bench.collector.settle_reaped(root, reaped_ns)
    assert bench.collector.busy_ns(root) == near(reaped_ns + own_ns - own_before_ns)


def test_ended_roots_are_told_once_zombies_too(bench: Bench) -> None:
    child = bench.python("wait_()")
    root = bench.root(child)
    bench.collector.watch(root)
    assert bench.collector.gone() == []
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has waited for it
    assert bench.collector.gone() == [root]
    assert bench.collector.gone() == []
    child.wait()
    bench.read()
    bench.collector.unwatch(root)
    assert bench.collector.gone() == []


def test_a_wrong_start_time_is_another_process(bench: Bench) -> None:
    child = bench.python("burn(30); say(1); wait_()")
    hear(child)
    stale = ProcessId(child.pid, bench.root(child).start_ticks - 1)
    bench.collector.watch(stale)
    assert bench.collector.gone() == [stale]
    assert bench.read()[stale] == 0
    assert bench.collector.busy_ns(stale) == 0
    assert not bench.collector.settle_reaped(stale, 10)
    bench.collector.unwatch(stale)


def test_a_pid_that_nobody_has(bench: Bench) -> None:
    assert bench.collector.identify(2**22 - 1) is None
    assert bench.collector.root_of(2**22 - 1) is None


def test_a_restart_goes_on_from_what_was_saved(bench: Bench) -> None:
    child = bench.python(
        "wait_(); burn(80); say(time.process_time_ns()); wait_(); burn(70); say(time.process_time_ns()); wait_()"
    )
    root = bench.root(child)
    bench.collector.watch(root)
    tell(child)
    (first_ns,) = hear(child)
    bench.read()
    saved_ns = bench.collector.tree_ns(root)
    tell(child)
    (second_ns,) = hear(child)
    again = Bench()
    try:
        again.collector.watch(root, since_ns=saved_ns)
        assert again.read()[root] == near(second_ns - first_ns)
    finally:
        again.close()


def test_memory_is_the_trees(bench: Bench) -> None:
    child = bench.python("say(1); wait_(); x=bytearray(50_000_000); x[::4096]=x[::4096]; burn(5); say(1); wait_()")
    hear(child)
    root = bench.root(child)
    bench.collector.watch(root)

    def memory() -> int:
        bench.clock.ahead_ns += 11_000 * MS
        return next(r.memory_bytes or 0 for r in bench.collector.read() if r.consumer == root)

    before = memory()
    assert before > 1_000_000
    tell(child)
    hear(child)
    assert memory() - before > 40_000_000


def test_the_accounts_of_the_node(bench: Bench) -> None:
    first = bench.read()
    end_ns = time.process_time_ns() + 100 * MS
    while time.process_time_ns() < end_ns:
        pass
    second = bench.read()
    agent_ns = second["agent"] - first["agent"]
    assert agent_ns >= 100 * MS
    assert second["overhead"] - first["overhead"] == agent_ns  # no overhead cgroups: the agent's own, once
    slack_ns = 20 * MS if bench.collector.node_method != "cpuacct" else MS
    assert second["node"] - first["node"] >= agent_ns - slack_ns
    assert bench.collector.node_ns() >= second["node"]


def test_in_process_our_own_time_is_the_jobs_alone(bench: Bench) -> None:
    root = bench.root(os.getpid())
    bench.collector.watch(root)
    first = bench.read()
    end_ns = time.process_time_ns() + 50 * MS
    while time.process_time_ns() < end_ns:
        pass
    second = bench.read()
    assert second[root] - first[root] >= 50 * MS
    assert second["agent"] == first["agent"]
    assert second["overhead"] == first["overhead"]


def test_another_thread_of_ours_is_not_another_process(bench: Bench) -> None:
    import threading

    root = bench.root(os.getppid())
    bench.collector.watch(root)
    bench.read()
    members: list[int] = []

    def look() -> None:
        bench.read()
        bench.read()
        members.append(threading.get_native_id())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert bench.collector.root_of(members[0]) is None
    assert bench.collector.root_of(os.getpid()) == root


@given(
    name=st.binary(min_size=0, max_size=15).filter(lambda b: b"\n" not in b and b"\0" not in b),
    parent=st.integers(0, 2**22),
    start=st.integers(0, 2**60),
    ticks=st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
    rss=st.integers(0, 2**40),
)
def test_stat_lines_with_any_name(name: bytes, parent: int, start: int, ticks: tuple[int, int], rss: int) -> None:
    fields = [b"0"] * 50
    fields[0], fields[1], fields[19] = b"S", str(parent).encode(), str(start).encode()
    fields[13], fields[14], fields[21] = str(ticks[0]).encode(), str(ticks[1]).encode(), str(rss).encode()
    kernel = ProcFs(Path("/proc"))
    try:
        stat = kernel.parse(b"12 (" + name + b") " + b" ".join(fields) + b"\n")
    finally:
        kernel.close()
    assert stat is not None
    assert (stat.parent_pid, stat.start_ticks) == (parent, start)
    assert stat.reaped_ns == sum(ticks) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert stat.memory_bytes == rss * os.sysconf("SC_PAGE_SIZE")


@given(st.binary(max_size=300))
def test_what_is_not_a_stat_line_is_nobody(line: bytes) -> None:
    kernel = ProcFs(Path("/proc"))
    try:
        stat = kernel.parse(line)
    finally:
        kernel.close()
    assert stat is None or stat.parent_pid is not None


def test_another_process_namespace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to("1234567")
    with pytest.raises(SensorUnavailable, match="process namespace"):
        ProcFs(tmp_path)


def test_no_proc_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SensorUnavailable, match="loadavg"):
        ProcFs(tmp_path)


def test_closing_twice(bench: Bench) -> None:
    bench.collector.close()
    bench.collector.close()
