"""The Unix socket that jobs and the command line talk to, inside its caller's selectors loop: no thread, no clock.

Bounded in every direction, because anyone on the machine may connect: 64 KiB a line, 5 s for a line to arrive or a
reply to be taken, 64 connections a user and 256 in all, one request of a connection at a time, 32 MiB of replies.
A registered file's data is the callable that the loop calls with the event mask.
"""

import contextlib
import errno
import logging
import os
import selectors
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from wattribute.agent import wire
from wattribute.agent.core.errors import Refused, WattributeError
from wattribute.agent.peer import has_left, is_alive, peer_of
from wattribute.agent.requests import JobStart, Peer, Request

log = logging.getLogger("wattribute")

READ_S = 5.0
DEFERRED_S = 150.0  # two intervals of 60 s, and some: a connection isn't held for an answer that never comes
CONNECTIONS_PER_UID = 64
CONNECTIONS = 256
RESERVED = 32  # beyond them, for root and the agent's own user
REPLIES_BYTES = 32 << 20
_LINES_A_TURN = 16
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Deferred:
    """An answer that comes later, or why none does. Whoever made it resolves it, once, from the loop's own thread."""

    def __init__(self) -> None:
        self.wanted: Callable[[], bool] = lambda: True
        """Whether whoever asked is still there; who has left isn't to be registered."""
        self._answer: Mapping[str, object] | WattributeError | None = None
        self._then: Callable[[Mapping[str, object] | WattributeError], None] | None = None

    def resolve(self, answer: Mapping[str, object] | WattributeError) -> None:
        """Sends the answer; what comes after the first is dropped."""
        if self._answer is None:
            self._answer = answer
            if self._then is not None:
                self._then(answer)

    def on_answer(self, then: Callable[[Mapping[str, object] | WattributeError], None]) -> None:
        """Calls `then` with the answer, now or when it comes."""
        self._then = then
        if self._answer is not None:
            then(self._answer)


Handler: TypeAlias = Callable[[Request, Peer], Mapping[str, object] | Deferred]


def carried_out(
    do: Callable[[], Mapping[str, object] | Deferred], what: str
) -> Mapping[str, object] | Deferred | WattributeError:
    """What came of a request. A defect of ours must not end the agent, nor may a job be told that it was registered."""
    try:
        return do()
    except WattributeError as error:
        return error
    except Exception:
        log.exception("op %s failed", what)
        return WattributeError("the agent failed at that; its log has the traceback")


class ControlServer:
    """Listens on `path` and answers each line by `handler`; Refused becomes a refusal, counted in `refused`.

    `clock` gives the seconds that `expire` is called with, about once a second. Raises WattributeError where
    another agent listens already, or the path can't be had.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        path: Path,
        handler: Handler,
        *,
        mode: int = 0o666,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.refused = 0
        self._selector = selector
        self._handler = handler
        self._clock = clock
        self._connections: set[_Connection] = set()
        self._per_uid: Counter[int] = Counter()
        self._paused = False
        self._listener, self._inode = _listen(path, mode)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def expire(self, now_s: float) -> None:
        """Drops whoever keeps the agent waiting, and goes on listening after the process ran out of files."""
        for connection in list(self._connections):
            connection.expire(now_s)
        if self._paused:
            self._paused = False
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Closes every connection and removes the socket, if it is still this one."""
        if self._listener.fileno() < 0:
            return
        for connection in list(self._connections):
            connection.close()
        if not self._paused:
            self._selector.unregister(self._listener)
        self._listener.close()
        with contextlib.suppress(OSError):
            if _inode(self.path) == self._inode:
                self.path.unlink()

    @property
    def replies_bytes(self) -> int:
        """Bytes of answers that nobody has taken yet."""
        return sum(connection.unsent_bytes for connection in self._connections)

    def answer(self, request: Request, peer: Peer, link: socket.socket) -> bytes | Deferred:
        """The line that answers one request, or the promise of it."""
        if isinstance(request, JobStart) and request.pid is None and not is_alive(link):
            self.refused += 1
            return wire.refusal(request.id, "refused", "the process that asked has ended; name a pid")
        fields = carried_out(lambda: self._handler(request, peer), type(request).__name__)
        if not isinstance(fields, Deferred):
            return self.line(request.id, fields)
        by_pid = isinstance(request, JobStart) and request.pid is None
        fields.wanted = lambda: link.fileno() >= 0 and not has_left(link) and (not by_pid or is_alive(link))
        return fields

    def line(self, request_id: int | str, fields: Mapping[str, object] | WattributeError) -> bytes:
        """The line that says yes, or no and why."""
        if not isinstance(fields, WattributeError):
            return wire.answer(request_id, fields)
        if not isinstance(fields, Refused):
            return wire.refusal(request_id, "unavailable", str(fields))
        self.refused += 1
        return wire.refusal(request_id, "refused", str(fields))

    def forget(self, connection: "_Connection") -> None:
        """Called by a connection that has closed itself."""
        self._connections.discard(connection)
        self._per_uid[connection.peer.uid] -= 1

    def _accept(self, mask: int) -> None:
        for _ in range(_LINES_A_TURN):
            try:
                link, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _OUT_OF_FILES:  # still readable, so the loop would spin
                    self._selector.unregister(self._listener)
                    self._paused = True
                return  # nobody waits any more, or whoever waited has left
            link.setblocking(False)
            peer = peer_of(link)
            # Whoever has many uids (a range of subordinate ones) mustn't keep root's prolog out.
            places = CONNECTIONS + (RESERVED if peer.uid in (0, os.geteuid()) else 0)
            crowded = len(self._connections) >= places or self._per_uid[peer.uid] >= CONNECTIONS_PER_UID
            if crowded:
                with contextlib.suppress(OSError), link:
                    link.send(wire.refusal(None, "unavailable", "too many connections; close some"))
                continue
            self._connections.add(_Connection(self, self._selector, link, peer, self._clock))
            self._per_uid[peer.uid] += 1


class _Connection:
    """One peer: reads lines, has them answered in order, one at a time."""

    def __init__(
        self,
        server: ControlServer,
        selector: selectors.BaseSelector,
        link: socket.socket,
        peer: Peer,
        clock: Callable[[], float],
    ) -> None:
        self.peer = peer
        self._server = server
        self._selector = selector
        self._link = link
        self._clock = clock
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._waiting: Deferred | None = None
        self._waiting_id: int | str = 0
        self._ended = False  # no more to read: the peer has shut its side, or has been given up
        self._interest = selectors.EVENT_READ
        self._since_s = clock()
        selector.register(link, self._interest, self._ready)

    @property
    def unsent_bytes(self) -> int:
        return len(self._outbox)

    def expire(self, now_s: float) -> None:
        late_s = now_s - self._since_s
        if self._waiting is None and late_s > READ_S:
            self.close()
        elif late_s > DEFERRED_S:
            self._answered(wire.refusal(self._waiting_id, "unavailable", "the agent has no answer yet"))

    def close(self) -> None:
        if self._link.fileno() < 0:
            return
        if self._interest:
            self._selector.unregister(self._link)
        self._link.close()
        self._waiting = None
        self._server.forget(self)

    def _ready(self, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ:
                part = self._link.recv(wire.LINE_BYTES)
                self._inbox += part
                self._ended = not part
            self._flush()
        except BlockingIOError:
            pass
        except OSError:  # the peer has gone
            self.close()
            return
        self._advance()

    def _flush(self) -> None:
        if self._outbox:
            sent = self._link.send(self._outbox)
            del self._outbox[:sent]
            self._since_s = self._clock()

    def _advance(self) -> None:
        """Answers what has arrived, then tells the selector what to wait for."""
        turn = _LINES_A_TURN
        try:
            while turn and not self._outbox and self._waiting is None and self._next_line():
                turn -= 1
                self._flush()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        busy = bool(self._outbox) or self._waiting is not None
        if self._ended and not busy and turn:
            self.close()
            return
        more = not busy and not turn  # others first: a writable socket calls back in the next turn of the loop
        interest = selectors.EVENT_WRITE if self._outbox or more else 0
        if not self._ended and len(self._inbox) <= wire.LINE_BYTES:
            interest |= selectors.EVENT_READ
        self._watch(interest)

    def _watch(self, interest: int) -> None:
        if interest == self._interest:
            return
        if not interest:
            self._selector.unregister(self._link)
        elif not self._interest:
            self._selector.register(self._link, interest, self._ready)
        else:
            self._selector.modify(self._link, interest, self._ready)
        self._interest = interest

    def _next_line(self) -> bool:
        end = self._inbox.find(b"\n")
        if end > wire.LINE_BYTES or (end < 0 and len(self._inbox) > wire.LINE_BYTES):
            self._inbox.clear()
            self._ended = True
            self._outbox += wire.refusal(None, "too-large", f"a line has at most {wire.LINE_BYTES} bytes")
            return True
        if end < 0:
            return False
        line = bytes(self._inbox[:end])
        del self._inbox[: end + 1]
        if not line.strip():
            return True
        try:
            request = wire.parse(line)
        except wire.BadLine as bad:
            self._outbox += wire.refusal(bad.id, bad.code, str(bad))
            return True
        self._reply(request)
        return True

    def _reply(self, request: Request) -> None:
        reply = self._server.answer(request, self.peer, self._link)
        if not isinstance(reply, Deferred):
            self._queue(request.id, reply)
            return
        self._waiting, self._waiting_id, self._since_s = reply, request.id, self._clock()
        reply.on_answer(
            lambda fields: self._answered(self._server.line(request.id, fields)) if self._waiting is reply else None
        )

    def _answered(self, line: bytes) -> None:
        self._waiting = None
        self._since_s = self._clock()
        self._queue(self._waiting_id, line)
        self._advance_later()

    def _advance_later(self) -> None:
        self._watch(self._interest | selectors.EVENT_WRITE)

    def _queue(self, request_id: int | str, line: bytes) -> None:
        # One reply a connection at a time bounds the small ones already.
        if len(line) > wire.LINE_BYTES and self._server.replies_bytes + len(line) > REPLIES_BYTES:
            line = wire.refusal(request_id, "unavailable", "too many replies wait to be read; read them")
        self._outbox += line


def _inode(path: Path) -> tuple[int, int]:
    state = path.lstat()
    return state.st_dev, state.st_ino


def _listen(path: Path, mode: int) -> tuple[socket.socket, tuple[int, int]]:
    """A listening socket at `path`. What a dead agent left is removed; a live one, or anything else, never."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _clear(path)
        _bind(listener, path, mode)
        listener.listen(128)
        return listener, _inode(path)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise _taken(path) from error
        raise WattributeError(
            f"can't listen on {path}: {error.strerror or error}. Fix: choose another path with --socket"
        ) from error
    except WattributeError:
        listener.close()
        raise


def _bind(listener: socket.socket, path: Path, mode: int) -> None:
    """With this mode from the first moment on: a chmod afterwards might hit a link that took its place."""
    before = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)


def _clear(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise WattributeError(f"{path} is there and isn't a socket; it is left alone. Fix: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)  # its owner died without cleaning up
            return
        except BlockingIOError:  # a full backlog: alive and busy
            pass
    raise _taken(path)


__all__ = ["ControlServer", "Deferred", "Handler"]


def _taken(path: Path) -> WattributeError:
    return WattributeError(f"another agent is listening on {path}. Fix: stop it, or give this one another --socket")
