"""The client: where it looks, how long it waits, and what it makes of a bad answer."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.doubles.agent_socket import AgentOnSocket

from wattribute.agent import client, wire
from wattribute.agent.client import AgentRefused, AgentUnreachable, Client, configured_path, socket_paths


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentOnSocket]:
    with AgentOnSocket(tmp_path / "agent.sock") as agent:
        yield agent


def test_it_looks_in_the_environment_the_file_run_and_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CONFIG_FILE", str(tmp_path / "none.toml"))
    own = {"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/me"}
    defaults = ["/run/wattribute/agent.sock", "/run/user/7/wattribute/agent.sock"]
    defaults.append("/home/me/.local/state/wattribute/agent.sock")
    assert socket_paths(own) == defaults
    assert configured_path(own) is None
    file = tmp_path / "w.toml"
    file.write_text('[agent]\nsocket = "/x.sock"\n')
    assert socket_paths({**own, "WATTRIBUTE_CONFIG": str(file)}) == ["/x.sock", *defaults]
    assert socket_paths({**own, "WATTRIBUTE_CONFIG": str(file), "WATTRIBUTE_AGENT__SOCKET": "/y"}) == ["/y"]
    file.write_text("this isn't TOML at all")
    assert socket_paths({**own, "WATTRIBUTE_CONFIG": str(file)}) == defaults
    file.write_text("agent = 3 # nor is this an agent's section")
    assert socket_paths({**own, "WATTRIBUTE_CONFIG": str(file)}) == defaults


def test_calls_are_answered_and_refusals_raise(agent: AgentOnSocket) -> None:
    found = Client.find({"WATTRIBUTE_AGENT__SOCKET": str(agent.path)})
    assert found is not None
    assert found.call("hello", timeout_s=5)["node"] == "node-1"
    assert found.call("job.start", timeout_s=5, job_id="a", member="m")["joined"] is False
    with pytest.raises(AgentRefused, match="did you mean 'member'") as refused:
        found.call("job.start", timeout_s=5, job_id="a", membr="m")
    assert refused.value.code == "bad-request"
    _, peer = agent.node.starts[0]
    assert peer.pid == os.getpid()


def test_a_line_that_is_too_long_is_refused_before_it_is_sent(agent: AgentOnSocket) -> None:
    """The agent would end the connection, which looks as if it hung: all jobs of the process would go without it."""
    assert client.LINE_BYTES == wire.LINE_BYTES
    found = Client.find({"WATTRIBUTE_AGENT__SOCKET": str(agent.path)})
    assert found is not None
    with pytest.raises(AgentRefused, match="at most 65,536 are taken") as refused:
        found.call("job.start", timeout_s=5, job_id="a", member="m", labels={"k": "v" * client.LINE_BYTES})
    assert refused.value.code == "too-large"
    assert found.call("hello", timeout_s=5)["node"] == "node-1"


def test_nobody_there_is_none_and_a_dead_socket_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "dead.sock"))
    for path in (tmp_path / "none.sock", tmp_path / "dead.sock", tmp_path / ("x" * 200)):
        assert Client.find({"WATTRIBUTE_AGENT__SOCKET": str(path)}) is None
    assert Client.find({"WATTRIBUTE_AGENT__SOCKET": "a\0b"}) is None


def test_a_connection_that_find_made_can_be_given_up(agent: AgentOnSocket) -> None:
    found = Client.find({"WATTRIBUTE_AGENT__SOCKET": str(agent.path)})
    assert found is not None
    found.close()
    assert found.call("hello", timeout_s=5)["basis"] == "daemon"


def test_a_stuck_agent_is_given_up(agent: AgentOnSocket) -> None:
    agent.frozen.set()
    found = Client.find({"WATTRIBUTE_AGENT__SOCKET": str(agent.path)})
    assert found is not None
    with pytest.raises(AgentUnreachable, match="within 20 ms"):
        found.call("hello", timeout_s=0.02)


def test_a_full_backlog_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "busy.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            assert Client.find({"WATTRIBUTE_AGENT__SOCKET": path}) is None
            with pytest.raises(AgentUnreachable, match="too busy"):
                Client(path).call("hello")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection"),
        (b"not json\n", "isn't JSON"),
        (b"[1]\n", "something else"),
        (b'{"id": 99, "ok": true}\n', "something else"),
        (b"\xff\n", "isn't JSON"),
    ],
)
def test_an_agent_that_talks_nonsense_is_unreachable(tmp_path: Path, answer: bytes, words: str) -> None:
    odd = _server(tmp_path / "odd.sock", lambda link: link.sendall(answer))
    with odd as path, pytest.raises(AgentUnreachable, match=words):
        Client(path).call("hello", timeout_s=5)


class _server:
    """Answers one connection by hand."""

    def __init__(self, path: Path, answer: Callable[[socket.socket], None]) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._path = str(path)
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        link, _ = self._listener.accept()
        with link:
            link.recv(4096)
            self._answer(link)

    def __enter__(self) -> str:
        self._thread.start()
        return self._path

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()
