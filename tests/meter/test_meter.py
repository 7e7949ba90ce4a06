"""meter(): what is told of the requests of a process, to an agent that is there, slow, away or new."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.doubles.agent_socket import AgentOnSocket
from tests.doubles.metered_agent import MeteredNode

import wattribute
from wattribute.agent import process
from wattribute.agent.meter import reporter
from wattribute.agent.process import Process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared accounts are for Linux")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has said nothing yet, with a runtime directory of its own."""
    for name in list(os.environ):
        if name.startswith(("WATTRIBUTE_", "SLURM_", "TORCHELASTIC_", "XDG_")):
            monkeypatch.delenv(name)
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WATTRIBUTE_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("WATTRIBUTE_AGENT__SOCKET", str(tmp_path / "agent.sock"))
    monkeypatch.setattr(process, "_here", Process())


@pytest.fixture
def node() -> MeteredNode:
    return MeteredNode()


@pytest.fixture
def agent(tmp_path: Path, node: MeteredNode) -> Iterator[AgentOnSocket]:
    with AgentOnSocket(tmp_path / "agent.sock", node) as agent:
        yield agent


def until(done: Callable[[], object], what: str = "it") -> None:
    """Waits; not for long."""
    until_s = time.monotonic() + 5
    while not done():
        assert time.monotonic() < until_s, what
        time.sleep(0.005)


def test_a_meter_starts_nothing_and_opens_no_job_before_its_first_request(
    agent: AgentOnSocket, node: MeteredNode
) -> None:
    import threading

    before = threading.active_count()
    meter = wattribute.meter("llama", uses=["k8s"], labels={"k": "v"})
    assert threading.active_count() == before
    assert node.starts == []
    with meter.request(units={"token": 7}, tenant="acme"):
        assert meter.in_flight == 1
    until(lambda: node.served == {"acme": 1})
    (start, peer) = node.starts[0]
    assert (start.job_id, start.product_id, start.uses) == ("serve-llama", "llama", ("k8s",))
    assert (start.phase, start.labels, peer.pid) == ("inference", {"k": "v"}, os.getpid())
    assert (meter.job.id, meter.job.running, meter.in_flight) == ("serve-llama", True, 0)
    assert node.reports[-1].served[0].units == {"token": 7.0}
    meter.stop()
    until(lambda: node.ends)
    assert not meter.job.running


def test_every_request_is_told_once_and_nothing_while_nothing_happens(agent: AgentOnSocket, node: MeteredNode) -> None:
    with wattribute.meter("llama") as meter:
        until(lambda: node.reports)  # which says that all until now was idle
        assert node.reports[0].shares == ()
        for number in range(50):
            meter.begin("a" if number % 5 else "b").end({"token": 2})
        meter.begin("a").end(aborted=True)
        until(lambda: node.served == {"a": 40, "b": 10})
        until(lambda: node.reports[-1].in_flight == 0)
        told = len(node.reports)
        time.sleep(0.3)
        assert len(node.reports) == told
        meter.begin("b").end()
        until(lambda: node.served["b"] == 11)
        # The window of what began after a while begins where nothing was yet.
        idle, busy = node.reports[told], node.reports[told + 1]
        assert (idle.shares, idle.served) == ((), ())
        assert busy.until_ns is not None
        assert idle.until_ns is not None
        assert 0 < busy.until_ns - idle.until_ns < 1e9
        assert [(one.tenant, one.requests) for one in busy.served] == [("b", 11)]
    until(lambda: node.ends)
    last = {one.tenant: one for report in node.reports for one in report.served}
    assert (last["a"].aborted, last["a"].units, last["b"].units) == (1, {"token": 80.0}, {"token": 20.0})


def test_an_answer_that_is_lost_counts_once(
    agent: AgentOnSocket, node: MeteredNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporter, "CALL_S", 0.05)
    with wattribute.meter("llama", receipts=True) as meter:
        until(lambda: node.reports)
        agent.frozen.set()
        with meter.request() as request:
            time.sleep(0.01)
        until(lambda: "what is served is counted, and told later" in caplog.text)
        agent.frozen.clear()
        until(lambda: meter.receipt(request.id) and meter.receipt(request.id).settled)  # type: ignore[union-attr]
    assert node.served == {"": 1}
    assert node.billed_uj[""] == meter.receipt(request.id).energy_uj  # type: ignore[union-attr]


def test_receipts_go_on_in_another_slot(agent: AgentOnSocket, node: MeteredNode, tmp_path: Path) -> None:
    """Where somebody closed all descriptors: with them the locks of the first slot went."""
    with wattribute.meter("llama", receipts=True) as meter:
        with meter.request() as request:
            time.sleep(0.05)
        until(lambda: meter.receipt(request.id) and meter.receipt(request.id).settled)  # type: ignore[union-attr]
        before = meter.begin()
        file = meter._tally.file
        worker, log = (file.slot(), file.generation), os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
        for fd in file.memory._fds:
            os.dup2(log, fd)
        until(lambda: not meter.in_flight)
        before.end()

        def known() -> int | None:
            """Of the first one it may not be: it began before its window was told of."""
            with meter.request() as request:
                time.sleep(0.01)
            until(lambda: meter.receipt(request.id) and meter.receipt(request.id).settled)  # type: ignore[union-attr]
            return meter.receipt(request.id).energy_uj  # type: ignore[union-attr]

        until(known)
        assert (file.slot(), file.generation) != worker
        os.close(log)


def test_an_agent_that_begins_anew_is_told_everything(agent: AgentOnSocket, node: MeteredNode, tmp_path: Path) -> None:
    with wattribute.meter("llama") as meter:
        meter.begin("a").end()
        until(lambda: node.served == {"a": 1})
        agent.stop()
        meter.begin("b").end()
        fresh = MeteredNode()
        with AgentOnSocket(tmp_path / "agent.sock", fresh):
            until(lambda: fresh.served == {"a": 1, "b": 1})
            assert [start.member for start, _ in fresh.starts] == [start.member for start, _ in node.starts]
            meter.stop()
            until(lambda: fresh.ends)


def test_children_of_a_fork_are_workers_of_the_same_job(agent: AgentOnSocket, node: MeteredNode) -> None:
    meter = wattribute.meter("llama")
    meter.begin("parent").end()
    until(lambda: node.served == {"parent": 1})
    child = os.fork()
    if child == 0:  # a worker that is killed when it has served
        code = 1
        try:
            meter.begin("child").end()
            held = meter.begin("held")
            time.sleep(0.1)
            code = 0 if held.id and meter.job.id == "serve-llama" else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    until(lambda: {one.tenant: one.aborted for report in node.reports for one in report.served}.get("held"))
    assert node.served == {"parent": 1, "child": 1, "held": 0}
    assert {report.account for report in node.reports} == {node.reports[0].account}
    assert {peer.pid for _, peer in node.starts} == {os.getpid(), child}
    meter.stop()
    until(lambda: node.ends)


def test_a_meter_that_was_stopped_counts_no_more(
    agent: AgentOnSocket, node: MeteredNode, caplog: pytest.LogCaptureFixture
) -> None:
    meter = wattribute.meter("llama")
    meter.begin().end()
    begin = meter.begin
    meter.stop()
    meter.stop()
    for _ in range(2):
        with meter.request(units={"token": 1}):
            pass
    assert [record.message for record in caplog.records] == [
        "the meter of job 'serve-llama' was stopped: its requests count no more"
    ]
    until(lambda: node.ends)
    begin().end()
    assert node.served == {"": 1}
    another = wattribute.meter("llama")
    another.begin().end()
    until(lambda: node.served == {"": 2})
    another.stop()


def test_what_was_served_right_before_the_exit_is_told(agent: AgentOnSocket, node: MeteredNode) -> None:
    script = "import wattribute; m = wattribute.meter('llama'); [m.begin('a').end() for _ in range(3)]"
    subprocess.run([sys.executable, "-c", script], check=True)
    until(lambda: node.ends)
    assert node.served == {"a": 3}


def test_a_child_of_a_thread_ends_with_its_last_thread_that_counts(agent: AgentOnSocket, node: MeteredNode) -> None:
    """As without a meter, whose thread would keep it for good."""
    script = """
import os, sys, threading, wattribute
meter = wattribute.meter("llama")
def work():
    child = os.fork()
    meter.begin("a").end()
    if child:
        os.waitpid(child, 0)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=10)
    until(lambda: node.served == {"a": 2})


def test_long_batches_fit_the_line(agent: AgentOnSocket, node: MeteredNode) -> None:
    with wattribute.meter("llama", max_tenants=250) as meter:
        for number in range(250):
            meter.begin(f"tenant-{number:03}-" + "ä" * 60).end({"token": 1, "image": 2})
        until(lambda: sum(node.served.values()) == 250)
        meter.begin("one-more").end()
        until(lambda: sum(node.served.values()) == 251)
        assert node.served["_other"] == 1


def test_an_agent_that_refuses_is_asked_later(agent: AgentOnSocket, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    meter = wattribute.meter("forbidden")
    meter.begin().end()
    until(lambda: "the agent refused job 'serve-forbidden'" in caplog.text)
    until(lambda: "what was served can't be told" in caplog.text)
    assert meter.in_flight == 0
    meter.stop()


@pytest.mark.parametrize("wrong", [{"product": 3}, {"max_tenants": 0}, {"max_tenants": "many"}])
def test_arguments_of_a_wrong_type_are_an_error_where_they_stand(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        wattribute.meter(**{"product": "llama", **wrong})  # type: ignore[arg-type]


def test_names_that_cant_be_are_made_fit(agent: AgentOnSocket, caplog: pytest.LogCaptureFixture) -> None:
    assert wattribute.meter("").job.product_id == "default"
    assert wattribute.meter("_a").job.id.startswith("serve-_a")
    assert "can't be used as it is" in caplog.text


def test_two_meters_of_one_product_in_one_process_are_two_workers(agent: AgentOnSocket, node: MeteredNode) -> None:
    first, second = wattribute.meter("llama"), wattribute.meter("llama", receipts=True)
    first.begin("a").end()
    until(lambda: node.reports)
    with second.request(tenant="b") as request:
        time.sleep(0.01)
    assert request.receipt is not None
    until(lambda: request.receipt and request.receipt.settled)
    assert node.served == {"a": 1, "b": 1}
    assert node.asked  # the one that doesn't report
    assert node.billed_uj["b"] == request.receipt.energy_uj
    first.stop()
    until(lambda: node.ends)
    second.begin("b").end()
    until(lambda: node.served == {"a": 1, "b": 2})
    second.stop()
    until(lambda: len(node.ends) == 2)


def test_a_receipt_is_for_those_that_ask_and_says_what_is_open(agent: AgentOnSocket, node: MeteredNode) -> None:
    node.price, node.retraining_open = ("token", 1e9), True
    with wattribute.meter("llama") as meter:
        until(lambda: node.reports)
        with meter.begin("a") as without, meter.begin("a", receipt=True) as request:
            time.sleep(0.02)
            request.add(token=3)
        assert without.receipt is None
        other = wattribute.meter("llama", receipts=True)
        for nobodys in (without.id, other.begin("a").id, f"0{request.id}", request.id + "0", "", "x-²", "9" * 50):
            assert meter.receipt(nobodys) is None
        assert other.estimate(request) is None
        other.stop()
        until(lambda: request.receipt and request.receipt.energy_uj is not None)
        receipt = request.receipt
    assert receipt is not None
    energy_uj = receipt.energy_uj
    assert energy_uj is not None
    assert energy_uj == pytest.approx(node.billed_uj["a"] / 2, rel=0.1)
    assert receipt.units == {"token": 3.0}
    assert receipt.energy_j is not None
    assert receipt.terms["operation"] == energy_uj / 1e9
    assert receipt.terms["product"] == pytest.approx(3 + 7 * energy_uj / 1e9)
    assert receipt.terms["retraining"] is None
    assert (receipt.settled, receipt.retraining_open, receipt.aborted) == (False, True, False)
    assert any("retraining" in note for note in receipt.notes)
    assert any("1 gCO2e for each token" in note for note in receipt.notes)
    assert receipt.asce_gco2e is not None
    assert receipt.jsce_gco2e == pytest.approx(6 * energy_uj / 1e9, abs=1e-8)  # operation, cooling, platform
