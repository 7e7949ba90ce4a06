"""The control socket: framing, limits, strangers and slow ones, and a socket that a dead agent left."""

import json
import os
import selectors
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.fake_node import FakeNode

from wattribute.agent import control, wire
from wattribute.agent.control import ControlServer, Deferred
from wattribute.agent.core.errors import Refused, WattributeError
from wattribute.agent.dispatch import Dispatch
from wattribute.agent.requests import Health, Hello, JobEnd, JobReceipt, JobStart, Peer, Request


class Loop:
    """A server in a loop that turns only when told to, with a clock that is set by hand."""

    def __init__(self, path: Path) -> None:
        self.selector = selectors.DefaultSelector()
        self.now_s = 0.0
        self.asked: list[tuple[Request, Peer]] = []
        self.answer: Callable[[Request], Mapping[str, object] | Deferred] = lambda request: {}
        self.server = ControlServer(self.selector, path, self._handle, clock=lambda: self.now_s)

    def _handle(self, request: Request, peer: Peer) -> Mapping[str, object] | Deferred:
        self.asked.append((request, peer))
        return self.answer(request)

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            if not (ready := self.selector.select(0.003)):
                return
            for key, mask in ready:
                key.data(mask)

    def connect(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.connect(str(self.server.path))
        link.setblocking(False)
        self.turn()
        return link

    def ask(self, link: socket.socket, line: bytes) -> list[dict[str, Any]]:
        link.sendall(line)
        self.turn()
        return answers(link)


def answers(link: socket.socket) -> list[dict[str, Any]]:
    received = b""
    try:
        while part := link.recv(1 << 16):
            received += part
    except BlockingIOError:
        pass
    return [json.loads(line) for line in received.splitlines()]


def closed(link: socket.socket) -> bool:
    try:
        return link.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop(tmp_path / "a.sock")
    yield loop
    loop.server.close()
    loop.selector.close()


@pytest.fixture
def link(loop: Loop) -> Iterator[socket.socket]:
    with loop.connect() as link:
        yield link


START = {"op": "job.start", "id": 1, "job_id": "a", "member": "m"}


def line(**keys: object) -> bytes:
    return json.dumps(keys).encode() + b"\n"


def test_an_answer_carries_the_id_and_the_peer_is_the_kernels_word(loop: Loop, link: socket.socket) -> None:
    loop.answer = lambda request: {"job_id": "a"}
    assert loop.ask(link, line(**START)) == [{"id": 1, "ok": True, "job_id": "a"}]
    request, peer = loop.asked[0]
    assert isinstance(request, JobStart)
    assert peer == Peer(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())


def test_requests_in_one_packet_are_answered_in_order_and_a_split_one_when_it_is_whole(
    loop: Loop, link: socket.socket
) -> None:
    both = line(op="health", id=1) + line(op="health", id="two")
    assert [reply["id"] for reply in loop.ask(link, both)] == [1, "two"]
    assert loop.ask(link, b'{"op":"hea') == []
    assert loop.ask(link, b'lth","id":3}\r\n\n') == [{"id": 3, "ok": True}]


def test_hundreds_of_requests_in_one_packet_are_all_answered(loop: Loop, link: socket.socket) -> None:
    link.sendall(b"".join(line(op="health", id=n) for n in range(300)))
    link.shutdown(socket.SHUT_WR)
    replies: list[dict[str, Any]] = []
    for _ in range(60):
        loop.turn(1)
        replies += answers(link)
    assert [reply["id"] for reply in replies] == list(range(300))
    assert closed(link)


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        (b"nonsense\n", "bad-request", "not a JSON object"),
        (b'["health"]\n', "bad-request", "not a JSON object"),
        (b'{"op":"health","id":"\xff"}\n', "bad-request", "utf-8"),
        (b'{"op":"health","id":"\\ud800"}\n', "bad-request", "not a JSON object"),
        (b"[" * 60_000 + b"\n", "bad-request", "not a JSON object"),
        (b'{"op":"health","id":1,"x":' + b"[" * 60_000 + b"\n", "bad-request", ""),
        (b'{"id":7}\n', "bad-request", "`op`"),
        (b'{"op":5,"id":7}\n', "bad-request", "$.op"),
        (b'{"op":"health"}\n', "bad-request", "`id`"),
        (line(op="job.strat", id=7), "unknown-op", "'job.start'"),
        (line(op="xyzzy", id=7), "unknown-op", "known are gpu.release"),
        (line(**START, prodct_id="p"), "bad-request", "'product_id'"),
        (line(op="health", id=1, zzzzz=1), "bad-request", "known are id, op"),
        (line(**{**START, "weight": 0}), "bad-request", "$.weight"),
        (line(**{**START, "role": "king"}), "bad-request", "$.role"),
        (line(**{**START, "job_id": "x" * 129}), "bad-request", "$.job_id"),
        (line(**{**START, "job_id": "_overflow"}), "bad-request", "reserved"),
        (line(**{**START, "job_id": "a\nb"}), "bad-request", "printed"),
        (line(**START, uses=["ok", "a\x00"]), "bad-request", "uses"),
        (line(**START, labels={"k": "\x1b[2J"}), "bad-request", "'k'"),
        (line(**START, labels={"_k": "v"}), "bad-request", "reserved"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(
    loop: Loop, link: socket.socket, sent: bytes, code: str, words: str
) -> None:
    (reply,) = loop.ask(link, sent)
    assert reply["ok"] is False
    assert reply["code"] == code
    assert words in reply["error"]
    assert loop.asked == []
    assert loop.ask(link, line(op="health", id=9))[0]["ok"] is True


@given(st.binary(max_size=200).filter(lambda data: b"\n" not in data))
def test_no_bytes_raise_anything_but_bad_line(data: bytes) -> None:
    try:
        wire.parse(data)
    except wire.BadLine as bad:
        assert json.loads(wire.refusal(bad.id, bad.code, str(bad)))["ok"] is False


def test_a_line_of_64_kib_is_taken_and_a_longer_one_ends_the_connection(loop: Loop, link: socket.socket) -> None:
    fitting = b'{"op":"health","id":1}'.ljust(wire.LINE_BYTES) + b"\n"
    assert loop.ask(link, fitting)[0]["ok"] is True
    (reply,) = loop.ask(link, b"x" * (wire.LINE_BYTES + 1))
    assert reply["code"] == "too-large"
    assert closed(link)


def test_refusals_are_counted_and_errors_of_the_agent_are_not(loop: Loop, link: socket.socket) -> None:
    def refuse(request: Request) -> Mapping[str, object]:
        raise Refused("not yours") if isinstance(request, Hello) else WattributeError("no disk")

    loop.answer = refuse
    assert loop.ask(link, line(op="hello", id=1)) == [{"id": 1, "ok": False, "code": "refused", "error": "not yours"}]
    assert loop.ask(link, line(op="health", id=2))[0]["code"] == "unavailable"
    assert loop.server.refused == 1


def test_whoever_keeps_the_agent_waiting_for_5_s_is_dropped(loop: Loop, link: socket.socket) -> None:
    loop.now_s = 4.0
    loop.ask(link, b'{"op"')  # a byte now and then buys no time
    loop.server.expire(5.0)
    assert not closed(link)
    loop.server.expire(5.1)
    assert closed(link)


def test_who_takes_no_replies_holds_one_at_a_time_and_is_dropped(loop: Loop, link: socket.socket) -> None:
    loop.answer = lambda request: {"fill": "x" * 3_000_000}
    link.sendall(line(op="health", id=1) * 3)
    loop.turn()
    assert len(loop.asked) == 1
    assert 0 < loop.server.replies_bytes < 3_100_000
    loop.server.expire(5.1)
    assert loop.server.replies_bytes == 0


def test_replies_that_nobody_takes_are_bounded_over_all_connections(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REPLIES_BYTES", 5_000_000)
    loop.answer = lambda request: {"fill": "x" * 3_000_000}
    with loop.connect() as first, loop.connect() as second:
        first.sendall(line(op="health", id=1))
        loop.turn()
        (reply,) = loop.ask(second, line(op="health", id=1))
        assert reply["code"] == "unavailable"


def test_connections_of_a_user_are_bounded(loop: Loop) -> None:
    links = [loop.connect() for _ in range(control.CONNECTIONS_PER_UID)]
    with loop.connect() as more:
        assert answers(more)[0]["code"] == "unavailable"
    links.pop().close()
    loop.turn()
    with loop.connect() as again:
        assert loop.ask(again, line(op="health", id=1))[0]["ok"] is True
    for link in links:
        link.close()
    loop.turn()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to connect as several users")
def test_many_users_leave_a_place_for_root() -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)  # where those users come by
        loop = Loop(Path(folder) / "agent.sock")
        stack.callback(loop.selector.close)
        stack.callback(loop.server.close)
        links: list[socket.socket] = []
        for uid in range(60001, 60001 + control.CONNECTIONS // control.CONNECTIONS_PER_UID):
            os.seteuid(uid)
            try:
                for _ in range(control.CONNECTIONS_PER_UID):
                    links.append(stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
                    links[-1].connect(str(loop.server.path))
            finally:
                os.seteuid(0)
            loop.turn(8)
        with loop.connect() as root:
            assert loop.ask(root, line(op="health", id=1))[0]["ok"] is True
        loop.now_s = 60.0
        loop.server.expire(60.0)
        assert [link.recv(1) for link in links] == [b""] * control.CONNECTIONS  # all of them had a place


def test_a_defect_is_told_and_the_next_request_is_answered(
    loop: Loop, link: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    loop.answer = lambda request: {"n": 1 // 0} if request.id == 1 else {}
    first, second = loop.ask(link, line(op="health", id=1) + line(op="health", id=2))
    assert (first["ok"], first["code"], second) == (False, "unavailable", {"id": 2, "ok": True})
    assert "ZeroDivisionError" in caplog.text


def test_a_deferred_answer_comes_when_it_is_resolved_and_later_requests_wait(loop: Loop, link: socket.socket) -> None:
    promised = Deferred()
    loop.answer = lambda request: promised if isinstance(request, JobReceipt) else {}
    assert loop.ask(link, line(op="job.receipt", id=1, job_id="a") + line(op="health", id=2)) == []
    loop.now_s = 60.0
    loop.server.expire(60.0)
    promised.resolve({"receipt": 1})
    promised.resolve({"receipt": 2})
    loop.turn()
    assert answers(link) == [{"id": 1, "ok": True, "receipt": 1}, {"id": 2, "ok": True}]


def test_a_deferred_answer_may_be_there_already_or_never_come(loop: Loop, link: socket.socket) -> None:
    ready = Deferred()
    ready.resolve({"n": 1})
    loop.answer = lambda request: ready
    assert loop.ask(link, line(op="health", id=1)) == [{"id": 1, "ok": True, "n": 1}]
    never = Deferred()
    loop.answer = lambda request: never
    assert loop.ask(link, line(op="health", id=2)) == []
    loop.server.expire(control.DEFERRED_S + 1)
    loop.turn()
    assert answers(link)[0]["code"] == "unavailable"
    never.resolve({})


def test_a_peer_that_leaves_while_it_waits_is_forgotten(loop: Loop) -> None:
    promised = Deferred()
    loop.answer = lambda request: promised
    link = loop.connect()
    loop.ask(link, line(op="health", id=1))
    link.close()
    loop.turn()
    promised.resolve({})
    loop.turn()
    assert len(loop.selector.get_map()) == 1


def test_out_of_files_the_listener_rests_and_comes_back(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(loop.server.path))
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            loop.turn(1)
            assert len(loop.selector.get_map()) == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        loop.server.expire(0.0)
        loop.turn()
        link.setblocking(False)
        assert loop.ask(link, line(op="health", id=1))[0]["ok"] is True


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux")
def test_a_start_for_a_process_that_has_ended_is_refused(loop: Loop) -> None:
    # The child connects and leaves its end to us: its pid may be another process's by now.
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    child = os.fork()
    if child == 0:
        link.connect(str(loop.server.path))
        os._exit(0)
    os.waitpid(child, 0)
    with link:
        link.setblocking(False)
        loop.turn()
        reply = loop.ask(link, line(**START))[0]
        if reply["ok"]:
            pytest.skip("this kernel has no SO_PEERPIDFD (Linux 6.5)")
        assert reply["code"] == "refused"
        assert loop.ask(link, line(**START, pid=1))[0]["ok"] is True


def test_the_socket_is_for_everybody_and_goes_with_the_server(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "new" / "a.sock")
    assert stat.S_IMODE(loop.server.path.stat().st_mode) == 0o666
    loop.server.close()
    loop.server.close()
    loop.selector.close()
    assert not loop.server.path.exists()


def test_a_dead_agents_socket_is_replaced_and_a_live_ones_is_not(loop: Loop, tmp_path: Path) -> None:
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    again = Loop(dead)
    with pytest.raises(WattributeError, match="another agent is listening on"):
        Loop(loop.server.path)
    again.server.close()
    again.selector.close()


def test_what_isnt_a_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        with pytest.raises(WattributeError, match="isn't a socket"):
            Loop(tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(WattributeError, match="can't listen on"):
        Loop(tmp_path / "file" / "a.sock")
    with pytest.raises(WattributeError, match="can't listen on"):
        Loop(tmp_path / ("x" * 120))


def test_a_socket_that_another_agent_has_put_in_place_stays(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "a.sock")
    loop.server.path.unlink()
    other = Loop(tmp_path / "a.sock")
    loop.server.close()
    loop.selector.close()
    assert other.server.path.exists()
    other.server.close()
    other.selector.close()


def test_dispatch_answers_every_op_and_waits_for_the_closing_read() -> None:
    node, now_s = FakeNode(), 0.0
    dispatch = Dispatch(node, interval_s=1.0, version="1.2.3", clock=lambda: now_s)
    peer = Peer(pid=1, uid=0, gid=0)

    def ask(**keys: object) -> Any:
        return dispatch(wire.parse(line(**keys).strip()), peer)

    assert ask(op="hello", id=1)["protocol"] == "wattribute.control/1"
    assert ask(**START) == {"job_id": "a", "joined": False, "notes": [], "interval_s": 1.0}
    assert ask(op="job.update", id=1, job_id="a", labels={"k": "v"}) == {"job_id": "a"}
    assert ask(op="job.receipt", id=1, job_id="a")["receipt"]["labels"] == {"k": "v"}
    assert len(ask(op="jobs", id=1)["jobs"]) == 1
    assert dispatch(Health(id=1), peer) == {"sources": []}
    with pytest.raises(Refused, match="no job"):
        ask(op="job.receipt", id=1, job_id="b")
    assert ask(op="job.end", id=1, job_id="a", member="m") == {"job_id": "a"}
    seen: list[Any] = []
    ask(op="job.receipt", id=1, job_id="a", wait=True).on_answer(seen.append)
    dispatch.settle()
    assert seen == []
    node.tick()
    dispatch.settle()
    assert seen[0]["receipt"]["settled"] is True
    assert ask(op="job.receipt", id=1, job_id="a", wait=True)["receipt"]["settled"] is True


def test_dispatch_gives_what_it_has_after_two_intervals() -> None:
    node, now_s = FakeNode(), [0.0]
    dispatch = Dispatch(node, interval_s=1.0, version="", clock=lambda: now_s[0])
    peer = Peer(pid=1, uid=0, gid=0)
    dispatch(JobStart(id=1, job_id="a", member="m"), peer)
    so_far = dispatch(JobReceipt(id=1, job_id="a", wait=True), peer)
    assert not isinstance(so_far, Deferred)  # it runs: there is no closing read to wait for
    dispatch(JobEnd(id=1, job_id="a", member="m"), peer)
    waiting = dispatch(JobReceipt(id=1, job_id="a", wait=True), peer)
    assert isinstance(waiting, Deferred)
    seen: list[Any] = []
    waiting.on_answer(seen.append)
    now_s[0] = 2.0
    dispatch.settle()
    assert seen[0]["receipt"]["settled"] is False


def test_a_hundred_clients_at_once_are_served_or_told(loop: Loop) -> None:
    told: list[bool] = []

    def ask() -> None:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(loop.server.path))
            link.sendall(line(op="health", id=1))
            told.append(b'"ok"' in link.recv(4096))

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        loop.turn(1)
    assert told == [True] * 100
