"""From one reporter to the next, and from one life of the agent to the next: what was counted is told."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.agent_socket import AgentOnSocket
from tests.doubles.metered_agent import MeteredNode

import wattribute
from wattribute.agent import process
from wattribute.agent.core.errors import Refused
from wattribute.agent.meter import reporter
from wattribute.agent.process import Process
from wattribute.agent.requests import JobStart, Peer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared accounts are for Linux")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has said nothing yet, with a runtime directory of its own, whose calls wait for long."""
    for name in list(os.environ):
        if name.startswith(("WATTRIBUTE_", "SLURM_", "TORCHELASTIC_", "XDG_")):
            monkeypatch.delenv(name)
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WATTRIBUTE_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("WATTRIBUTE_AGENT__SOCKET", str(tmp_path / "agent.sock"))
    monkeypatch.setattr(process, "_here", Process())
    monkeypatch.setattr(reporter, "CALL_S", 5.0)


class RestartedNode(MeteredNode):
    """Knows jobs and members of its life before, as they were written down then; not what it was told last."""

    def __init__(self, before: MeteredNode) -> None:
        super().__init__()
        self._receipts, self._members = before._receipts, before._members

    def start(self, request: JobStart, peer: Peer) -> dict[str, Any]:
        if request.member in self._members[request.job_id]:
            raise Refused("the member is open already")
        return super().start(request, peer)


@pytest.fixture
def node() -> MeteredNode:
    return MeteredNode()


@pytest.fixture
def agent(tmp_path: Path, node: MeteredNode) -> Iterator[AgentOnSocket]:
    with AgentOnSocket(tmp_path / "agent.sock", node) as agent:
        yield agent


def until(done: Callable[[], object]) -> None:
    """Waits; not for long."""
    until_s = time.monotonic() + 5
    while not done():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def test_what_a_worker_counts_while_the_reporter_ends_is_told(agent: AgentOnSocket, node: MeteredNode) -> None:
    """The reporter has read all counts for its last report when the other one ends, which is no reporter."""
    reporting, other = wattribute.meter("llama"), wattribute.meter("llama")
    reporting.begin().end()
    until(lambda: node.served == {"": 1})
    other.begin().end()
    until(lambda: node.served == {"": 2})
    agent.frozen.set()
    reporting.begin().end()
    reporting.stop()
    other.begin().end()
    other.stop()
    agent.frozen.clear()
    until(lambda: node.served == {"": 4})
    until(lambda: not node._members["serve-llama"])


def test_what_is_in_flight_at_the_end_is_told_as_aborted(agent: AgentOnSocket, node: MeteredNode) -> None:
    meter = wattribute.meter("llama")
    held = meter.begin("held")
    meter.stop()
    until(lambda: node.ends)
    held.end()
    assert [(one.tenant, one.requests, one.aborted) for one in node.reports[-1].served] == [("held", 0, 1)]


def test_an_agent_that_was_killed_is_told_again_what_it_had_not_written_down(
    agent: AgentOnSocket, node: MeteredNode, tmp_path: Path
) -> None:
    """Also of tenants that aren't served any more: nothing else would bring their counts again."""
    with wattribute.meter("llama") as meter:
        meter.begin("rare").end()
        until(lambda: node.served == {"rare": 1})
        agent.stop()
        restarted = RestartedNode(node)
        with AgentOnSocket(tmp_path / "agent.sock", restarted):
            until(lambda: restarted.served == {"rare": 1})
            meter.stop()
            until(lambda: restarted.ends)
