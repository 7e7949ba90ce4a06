"""job() and track(): with an agent, without one, with one that stops or dies, in threads, tasks and forks."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.agent_socket import AgentOnSocket
from tests.doubles.fake_node import FakeNode

import wattribute
from wattribute.agent import process
from wattribute.agent.bell import ring
from wattribute.agent.client import Client
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.inprocess import Engine, open_engine
from wattribute.agent.markers import Markers, own_process
from wattribute.agent.process import Process
from wattribute.agent.requests import JobEnd, JobStart
from wattribute.agent.stored import ReceiptFiles, stored


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has said nothing yet, on a machine without an agent."""
    for name in list(os.environ):
        if name.startswith(("WATTRIBUTE_", "SLURM_", "TORCHELASTIC_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WATTRIBUTE_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setattr(process, "_here", Process())


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentOnSocket]:
    monkeypatch.setenv("WATTRIBUTE_AGENT__SOCKET", str(tmp_path / "agent.sock"))
    with AgentOnSocket(tmp_path / "agent.sock") as agent:
        yield agent


def an_engine(node: FakeNode, folder: Path, interval_s: float = 30.0) -> Engine:
    files = ReceiptFiles(folder, "this")
    return Engine(node, process="this/1-1", files=files, markers=None, interval_s=interval_s, version="0")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    """The node of an engine inside this process."""
    node = FakeNode("in-process")
    engine = process.here()._engine = an_engine(node, tmp_path)
    yield node
    engine.close()


def test_with_an_agent_it_starts_ends_and_brings_the_receipt(
    agent: AgentOnSocket, caplog: pytest.LogCaptureFixture
) -> None:
    with wattribute.job("a", product="p", uses=["q"], phase="training", weight=2, nodes=4, labels={"k": "v"}) as job:
        assert job.running
        assert job.so_far.basis == "daemon"
    assert job.receipt.settled
    assert job.receipt.energy_uj
    (request, peer), (ended, _) = agent.node.starts[0], agent.node.ends[0]
    assert (request.job_id, request.product_id, request.uses, request.phase) == ("a", "p", ("q",), "training")
    assert (request.weight, request.nodes, request.labels) == (2, 4, {"k": "v"})
    assert (request.origin, request.parent_job_id, request.reaped_cpu_ns is None) == ("api", None, False)
    assert (peer.pid, ended.member) == (os.getpid(), request.member)
    assert caplog.records == []


def test_without_an_agent_it_is_measured_here_and_said_once(
    node: FakeNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with wattribute.job("a") as job:
            assert job.so_far.energy_uj is not None
        assert job.receipt.settled
        assert job.receipt.basis == "in-process"
    assert [record.getMessage() for record in caplog.records] == [
        "no agent runs on this machine; jobs of this process are measured in-process"
    ]
    assert [part["job_id"] for part in stored([tmp_path])] == ["a"]


def test_a_named_agent_that_isnt_there_is_in_the_receipt(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTRIBUTE_AGENT__SOCKET", "/nowhere.sock")
    with wattribute.job("a") as job:
        pass
    assert "no agent answers at /nowhere.sock" in job.receipt.notes


def test_a_stuck_agent_costs_its_time_once(
    agent: AgentOnSocket, node: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    agent.frozen.set()
    for _ in range(3):
        with wattribute.job("a") as job:
            pass
    assert job.receipt.basis == "in-process"
    assert len(caplog.records) == 1
    assert "did not answer within 100 ms" in caplog.text


def test_an_agent_that_dies_meanwhile_leaves_what_the_process_knows(
    agent: AgentOnSocket, caplog: pytest.LogCaptureFixture
) -> None:
    with wattribute.job("a", product="p") as job:
        agent.stop()
        assert job.so_far.energy_uj is None
    receipt = job.receipt.to_dict()
    assert receipt["energy_uj"] is None
    assert receipt["cpu_s"] is not None
    assert receipt["product_id"] == "p"
    assert any("the agent was lost while the job ran" in note for note in receipt["notes"])
    assert len(caplog.records) == 1


def test_an_agent_that_dies_after_the_end_too(agent: AgentOnSocket) -> None:
    with wattribute.job("a") as job:
        pass
    agent.stop()
    assert job.receipt.energy_uj is None
    assert job.receipt.to_dict()["ended_at"] is not None


def test_a_refusal_is_told_and_the_job_measured_here(
    agent: AgentOnSocket, node: FakeNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wattribute.job("a", product="forbidden") as job:
        node.start = lambda request, peer: {}  # type: ignore[method-assign]
    assert "the agent refused job 'a': job belongs to another user" in caplog.text
    assert any("belongs to another user" in note for note in job.receipt.notes)


def test_our_own_defects_never_reach_the_user(node: FakeNode, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("a defect")

    node.start = broken  # type: ignore[method-assign, assignment]
    with wattribute.job("a") as job:
        done = True
    assert done
    assert job.receipt.energy_uj is None
    assert "a defect" in caplog.text


def test_a_wrong_configuration_is_said_and_never_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "none.toml").write_text("[agent]\nintervall_s = 1\n")
    with wattribute.job("a") as job:
        pass
    assert "interval_s" in caplog.text
    assert job.receipt.energy_uj is None


@pytest.mark.parametrize(
    "options", [{"role": "king"}, {"weight": 0}, {"weight": 1.5}, {"weight": "a"}, {"nodes": -1}, {"nodes": "x"}]
)
def test_options_that_cant_be_raise_early(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        wattribute.job("a", **options)
    with pytest.raises(ValueError, match="must be"):
        wattribute.track(**options)


def test_names_that_cant_be_are_made_fit(caplog: pytest.LogCaptureFixture) -> None:
    assert wattribute.job("job-7\n").id == "job-7"
    assert len(wattribute.job("x" * 10_000).id) == 128
    assert wattribute.job("_a").id.startswith("a-")
    assert wattribute.job("\udc80").id.startswith("?-")
    assert wattribute.job(42).id == "42"  # type: ignore[arg-type]
    assert len(caplog.records) == 4


def test_starting_and_stopping_twice_is_once_and_again_is_a_new_segment(agent: AgentOnSocket) -> None:
    job = wattribute.job("a")
    job.stop()
    with pytest.raises(WattributeError, match="never started"):
        _ = job.receipt
    assert job.start() is job.start()
    job.stop()
    job.stop()
    assert (len(agent.node.starts), len(agent.node.ends)) == (1, 1)
    job.start()
    assert not job.receipt.settled
    job.stop()
    assert job.receipt.settled
    members = {request.member for request, _ in agent.node.starts}
    assert len(members) == 2


def test_inside_run_a_job_is_that_job_and_a_named_one_its_child(
    agent: AgentOnSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTRIBUTE_JOB_ID", "outer")
    with wattribute.job(), wattribute.job("inner"), wattribute.job("innermost"):
        pass
    started = [(request.job_id, request.parent_job_id) for request, _ in agent.node.starts]
    assert started == [("outer", None), ("inner", "outer"), ("innermost", "inner")]


@pytest.mark.parametrize("where", ["agent", "node"])
def test_inside_run_a_job_of_another_product_is_a_child_and_not_counted_twice(
    where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = request.getfixturevalue(where)
    starts = (found.node if where == "agent" else found).starts
    monkeypatch.setenv("WATTRIBUTE_JOB_ID", "outer")
    with wattribute.job(), wattribute.job(product="bert", role="use") as job:
        assert job.so_far.job_id == job.id == "outer-bert"
    with wattribute.job("outer", product="bert"), wattribute.job(product="default"):
        pass
    started = [(request.job_id, request.product_id, request.parent_job_id) for request, _ in starts]
    child = ("outer-bert", "bert", "outer")
    assert started == [("outer", "default", None), child, child, ("outer", "default", "outer-bert")]
    assert "this is job 'outer-bert', inside of it" in caplog.text


def test_ended_jobs_are_nobodys_parents_and_threads_have_none(agent: AgentOnSocket) -> None:
    first, second = wattribute.job("first").start(), wattribute.job("second").start()
    first.stop()
    second.stop()
    with wattribute.job("third"):
        thread = threading.Thread(target=lambda: wattribute.job("thread").start().stop())
        thread.start()
        thread.join()
    assert [request.parent_job_id for request, _ in agent.node.starts] == [None, "first", None, None]


def test_coroutines_are_siblings(agent: AgentOnSocket) -> None:
    @wattribute.track(id="task")
    async def work() -> int:
        await asyncio.sleep(0.01)
        return 1

    async def main() -> tuple[int, ...]:
        with wattribute.job("all"):
            return tuple(await asyncio.gather(work(), work(), work()))

    assert asyncio.run(main()) == (1, 1, 1)
    assert [request.parent_job_id for request, _ in agent.node.starts] == [None, "all", "all", "all"]
    assert len(agent.node.ends) == 4


@pytest.mark.parametrize("what", ["bert-base", 3, dict])
def test_track_takes_functions_alone(what: Any) -> None:
    with pytest.raises(TypeError, match="takes a function, not"):
        wattribute.track(what)


def test_track_keeps_a_function_as_it_is(agent: AgentOnSocket) -> None:
    @wattribute.track
    def double(x: int) -> int:
        """Twice."""
        return 2 * x

    @wattribute.track(id="fails")
    def fails() -> None:
        raise KeyError("mine")

    assert double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Twice.")
    with pytest.raises(KeyError, match="mine"):
        fails()
    double(4)
    ids = [request.job_id for request, _ in agent.node.starts]
    assert len(set(ids)) == 3
    assert len(agent.node.ends) == 3


def test_a_generators_job_runs_from_first_to_last_and_its_caller_isnt_inside(agent: AgentOnSocket) -> None:
    @wattribute.track(id="steps")
    def steps() -> Generator[Any, Any, str]:
        got = yield "first"
        try:
            yield got
        except KeyError:
            with wattribute.job("within"):
                yield "caught"
        return "result"

    generator: Any = steps()
    assert agent.node.starts == []
    assert next(generator) == "first"
    with wattribute.job("callers"):
        assert generator.send("sent") == "sent"
        assert generator.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "result"
    parents = {request.job_id: request.parent_job_id for request, _ in agent.node.starts}
    assert parents == {"steps": None, "callers": None, "within": "steps"}
    assert len(agent.node.ends) == 3
    abandoned = steps()
    next(abandoned)
    abandoned.close()
    assert len(agent.node.ends) == 4


def test_an_async_generators_too(agent: AgentOnSocket) -> None:
    seen: list[Any] = []

    @wattribute.track(id="steps")
    async def steps() -> AsyncIterator[Any]:
        try:
            seen.append((yield 1))
            yield 2
        except KeyError:
            yield "caught"
        finally:
            seen.append("closed")

    async def main() -> None:
        generator: Any = steps()
        assert await anext(generator) == 1
        with wattribute.job("callers"):
            assert await generator.asend("sent") == 2
        assert await generator.athrow(KeyError()) == "caught"
        assert [item async for item in generator] == []
        other: Any = steps()
        await anext(other)
        await other.aclose()

    asyncio.run(main())
    assert seen == ["sent", "closed", "closed"]
    assert [request.parent_job_id for request, _ in agent.node.starts] == [None, None, None]
    assert len(agent.node.ends) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Unix")
def test_in_a_forked_child_the_parents_job_is_inert(agent: AgentOnSocket) -> None:
    with wattribute.job("a") as job:
        child = os.fork()
        if child == 0:
            job.stop()
            known = job.receipt.notes
            os._exit(0 if not job.running and any("fork" in note for note in known) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert agent.node.ends == []
    assert len(agent.node.ends) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Unix")
def test_a_forked_child_measures_itself_afresh(node: FakeNode) -> None:
    with wattribute.job("a"):
        parents = process.here()._engine
        child = os.fork()
        if child == 0:
            os._exit(0 if process.here()._engine is None and process.here()._said else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert process.here()._engine is parents


def test_an_engine_reads_at_the_edges_keeps_what_runs_and_sleeps_when_idle(tmp_path: Path) -> None:
    node = FakeNode("in-process")
    process.here()._engine = engine = an_engine(node, tmp_path)
    with wattribute.job("short"):
        assert node.ticks == 1
    job = wattribute.job("runs on").start()
    engine.close()
    engine.close()
    assert node.closed
    assert {part["job_id"]: part["ended_at"] is None for part in stored([tmp_path])} == {
        "short": False,
        "runs on": True,
    }
    assert job.receipt.energy_uj


def test_a_receipt_may_be_read_after_the_node_has_let_go_of_the_job(node: FakeNode) -> None:
    with wattribute.job("a") as job:
        pass
    used_uj = job.receipt.energy_uj
    again = wattribute.job("b").start()
    again.stop()
    node.receipt = lambda job_id, peer=None: None  # type: ignore[method-assign]
    assert job.receipt.energy_uj == used_uj


def test_an_engine_serves_other_processes_as_the_daemon_does(node: FakeNode, tmp_path: Path) -> None:
    engine = process.here()._engine
    assert engine is not None
    path = tmp_path / "private.sock"
    engine.serve(path)
    assert path.stat().st_mode & 0o777 == 0o600
    client = Client(str(path))
    assert client.call("hello", timeout_s=5)["basis"] == "in-process"
    client.call("job.start", timeout_s=5, job_id="a", member="m")
    client.call("job.end", timeout_s=5, job_id="a", member="m")
    assert client.call("job.receipt", timeout_s=5, job_id="a", wait=True)["receipt"]["settled"] is True
    engine.close()
    assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_a_marker_stands_while_a_job_runs_and_only_then(tmp_path: Path) -> None:
    node, markers = FakeNode("in-process"), Markers(tmp_path, own_process())
    files = ReceiptFiles(tmp_path, own_process())
    engine = Engine(node, process=own_process(), files=files, markers=markers, interval_s=30, version="0")
    process.here()._engine = engine
    folder = tmp_path / "inprocess" / own_process().partition("/")[0]
    with wattribute.job("a"):
        assert len(os.listdir(folder)) == 1
        ticks = node.ticks
        ring([own_process()])
        assert node.ticks == ticks + 1
    _ = wattribute.job("refused", product="forbidden").start()
    engine.close()
    assert os.listdir(folder) == []
    ring([own_process()])


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_markers_tell_of_living_relatives_and_drop_the_dead(tmp_path: Path) -> None:
    space, _, own = own_process().partition("/")
    folder = tmp_path / "inprocess" / space
    mine = Markers.of({}, tmp_path, own_process())
    assert mine is not None
    assert Markers.of({}, None, own_process()) is None
    mine.lower_own()
    assert mine.inside() == set()
    assert mine.around() == []
    mine.raise_own()
    with subprocess.Popen(["sleep", "60"]) as child:
        lines = {pid: Path(f"/proc/{pid}/stat").read_text() for pid in (child.pid, os.getppid(), 1)}
        starts = {pid: int(line.rpartition(")")[2].split()[19]) for pid, line in lines.items()}
        alive = [f"{pid}-{start}" for pid, start in starts.items()]
        for name in (*alive, "1-7", f"{os.getpid()}-1", "junk", "99999999-1"):
            (folder / name).touch()
        for _ in range(2):
            assert mine.inside() == {(child.pid, starts[child.pid])}
            assert mine.around()[0] == f"{space}/{os.getppid()}-{starts[os.getppid()]}"
        assert set(os.listdir(folder)) == {*alive, own, "junk"}
        child.kill()
        child.wait()
        assert mine.inside() == set()
    mine.lower_own()
    assert own not in os.listdir(folder)


BURN = """
import json, os, subprocess, sys, time, wattribute
def burn(seconds):
    began = time.process_time()
    while time.process_time() - began < seconds: pass
"""


def in_a_process(script: str, folder: Path) -> Any:
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "WATTRIBUTE_CONFIG": str(folder / "config.toml")}
    (folder / "config.toml").touch()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BURN + script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_a_process_that_measures_itself_inside_another_is_billed_once(tmp_path: Path) -> None:
    inner = "with wattribute.job('inner') as job: burn(0.6)\nprint(job.receipt.to_dict()['cpu_s'])"
    script = f"""
inner = {BURN + inner!r}
with wattribute.job("outer") as job:
    burn(0.1)
    done = subprocess.run([sys.executable, "-c", inner], capture_output=True, text=True, check=True)
print(json.dumps([job.receipt.to_dict()["cpu_s"], float(done.stdout)]))
"""
    outer_s, inner_s = in_a_process(script, tmp_path)
    assert 0.59 < inner_s < 0.9
    assert 0.09 < outer_s < 0.65  # its own, and the start of the child; with what the child measured itself 0.75


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_a_fork_without_a_job_of_its_own_is_the_parents(tmp_path: Path) -> None:
    script = """
with wattribute.job("a") as job:
    if os.fork() == 0:
        burn(0.2)
        os._exit(0)
    os.wait()
receipt = job.receipt
print(json.dumps([receipt.to_dict()["cpu_s"], receipt.energy_uj]))
"""
    cpu_s, energy_uj = in_a_process(script, tmp_path)
    assert 0.19 < cpu_s < 0.3
    assert energy_uj > 0
    (part,) = stored([tmp_path / ".local/state/wattribute"])
    assert part["settled"] is True


def test_import_is_lazy_and_lists_what_there_is() -> None:
    assert dir(wattribute) == ["Meter", "Receipt", "__version__", "job", "meter", "track"]
    with pytest.raises(AttributeError, match="no attribute 'jbo'"):
        _ = wattribute.jbo


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Unix")
def test_a_child_of_a_thread_is_not_kept_alive_by_what_measures_it(tmp_path: Path) -> None:
    script = """
import os, threading, wattribute
def work():
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    else:
        with wattribute.job("a"):
            pass
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=20, env=environment)


def test_a_process_keeps_its_jobs_however_short_a_page_would_show_them(tmp_path: Path) -> None:
    """Before, the machine's `hold_s = 0` took the receipt of a job that no agent measured."""
    file = tmp_path / "wattribute.toml"
    file.write_text('[export]\nhold_s = 0\n[collectors]\nnvml = "off"\n')
    engine = open_engine({"WATTRIBUTE_CONFIG": str(file), "XDG_STATE_HOME": str(tmp_path)}, version="0")
    try:
        engine.ask(JobStart(id=0, job_id="a", member="m"))
        engine.ask(JobEnd(id=0, job_id="a", member="m"))
        found = engine.receipt("a")
        assert found is not None
        assert found["ended_at"] is not None
    finally:
        engine.close()
    assert [part["job_id"] for part in stored([tmp_path / "wattribute"])] == ["a"]
