"""One client of the web server: TLS where the door asks for it, then heads in, responses out, one at a time.

A response that isn't out yet holds up reading: the client's own pace bounds what it can queue.
"""

import contextlib
import logging
import selectors
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

from wattribute.exporters.messages import BadRequest, Making, RequestHead, Response, Route, encoded_head, read_head
from wattribute.exporters.web.makers import Makers
from wattribute.exporters.web.refusals import Reason, Refusals

if TYPE_CHECKING:
    from wattribute.exporters.web.door import Door
    from wattribute.exporters.web.tls import TlsLink

State: TypeAlias = Literal["hello", "handshake", "head", "login", "make", "write", "idle", "drain"]

Made = TypeVar("Made")

MAX_HEAD_BYTES = 16 * 1024
REQUESTS_PER_EVENT = 8  # one pipelining client must not hold the loop up
WRITE_BYTES_PER_EVENT = 1 << 20
SMALL_BYTES = 32 * 1024
DRAIN_BYTES = 256 * 1024
LIMIT_S: dict[State, float] = {
    "hello": 5.0,
    "handshake": 5.0,
    "head": 5.0,
    "login": 60.0,
    "make": 60.0,
    "write": 10.0,
    "idle": 60.0,
    "drain": 2.0,
}
_ARRIVING: tuple[State, ...] = ("hello", "handshake", "head")  # five seconds for all of it
_HANDSHAKE = b"\x16"  # what a TLS connection begins with: the record type

logger = logging.getLogger(__name__)


class Server(Protocol):
    """What a connection needs of its server."""

    selector: selectors.BaseSelector
    refusals: Refusals
    makers: Makers
    door: "Door | None"

    @property
    def routes(self) -> Mapping[str, Route]: ...
    def has_room(self) -> bool: ...
    def forget(self, connection: "Connection") -> None: ...


class Connection:
    """Reads a head, writes its response whole, and only then looks at the next request."""

    def __init__(self, server: Server, accepted: socket.socket, peer: str) -> None:
        """Takes the socket over. Raises OSError where it is dead already."""
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = peer
        self._server = server
        self._link: socket.socket | TlsLink = accepted
        self._tls = None if server.door is None else server.door.tls
        self._tls_link: TlsLink | None = None
        self._fd = accepted.fileno()
        self._events = 0
        self._buffer = bytearray()
        self._output: deque[memoryview] = deque()
        self._keep = True
        self._drained = 0
        self._asked: RequestHead | None = None  # a request that waits for its login to be checked
        self._making: tuple[RequestHead, Making] | None = None
        self.state: State = "head" if self._tls is None else "hello"
        self.since_s: float | None = None  # when expire() first saw this state
        self._watch()

    def expire(self, now_s: float) -> None:
        """Close it where it is past its time."""
        if self.state == "idle" and self._outdated:
            self.close()
        elif self.since_s is None:
            self.since_s = now_s
        elif now_s - self.since_s >= LIMIT_S[self.state]:
            if not self._is_spare:
                self._count("timeout", f"{LIMIT_S[self.state]:g} s in state {self.state}")
            self.close()

    @property
    def _is_spare(self) -> bool:
        """Whether it asks nothing now, as connections that scrapers keep in reserve: closing refuses nothing."""
        return self.state in ("idle", "drain", "hello") or (self.state == "head" and not self._buffer)

    def close(self) -> None:
        """Let go of the socket; may be called twice."""
        self._server.forget(self)
        self._listen_for(0)
        self._fd = -1
        self._link.close()

    def work(self) -> None:
        """Make more of a response that takes long."""
        self._ready(0)

    # The loop

    def _ready(self, _mask: int) -> None:
        try:
            self._step()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # the client went away: reset, broken pipe, timed out
            self.close()
        except Exception:  # no bytes of a client may stop the loop that samples and bills
            logger.exception("the connection from %s failed", self.peer)
            self.close()
        self._watch()

    def _step(self) -> None:
        match self.state:
            case "hello":
                self._greet()
            case "handshake":
                self._shake()
            case "head" | "idle":
                self._read()
            case "make":
                self._make()
            case "write":
                self._write_on()
            case "drain":
                self._drain()
            case "login":  # nothing to do before the verdict
                pass

    def _watch(self) -> None:
        """Tell the selector what is waited for now."""
        if self._fd < 0:
            return
        link = self._tls_link
        if self.state in ("login", "make"):
            events = 0
        elif self.state == "write" or (self.state == "handshake" and link is not None and link.wants_write):
            events = selectors.EVENT_WRITE
        elif link is not None and link.pending():  # decrypted already: the socket itself may stay silent
            events = selectors.EVENT_READ | selectors.EVENT_WRITE
        else:
            events = selectors.EVENT_READ
        self._listen_for(events)

    def _listen_for(self, events: int) -> None:
        if events == self._events:
            return
        selector = self._server.selector
        if not events:
            selector.unregister(self._fd)
        elif not self._events:
            selector.register(self._fd, events, self._ready)
        else:
            selector.modify(self._fd, events, self._ready)
        self._events = events

    def _enter(self, state: State) -> None:
        if not (state in _ARRIVING and self.state in _ARRIVING):
            self.since_s = None
        self.state = state

    # TLS

    def _greet(self) -> None:
        """The first byte tells TLS from HTTP, which gets an answer that its client can read."""
        assert isinstance(self._link, socket.socket)
        assert self._tls is not None
        first = self._link.recv(1, socket.MSG_PEEK)
        if not first:
            self.close()
        elif first == _HANDSHAKE:
            self._link = self._tls_link = self._tls.link(self._link)
            self._enter("handshake")
            self._shake()
        else:
            why = "this port speaks HTTPS"
            self._count("tls", f"no TLS: {why}")
            self._begin(Response(status=400, body=f"{why}\n".encode()), keep=False)

    def _shake(self) -> None:
        assert self._tls_link is not None
        why = self._tls_link.shake()
        if why:
            self._count("tls", why)
            self._end()
        else:
            self._enter("head")
            self._read()

    # Requests

    def _read(self) -> None:
        received = self._link.recv(MAX_HEAD_BYTES)
        if not received:
            self.close()
            return
        self._buffer += received
        if self.state == "idle":
            self._enter("head")
        self._serve()

    def _drain(self) -> None:
        """Swallow what still comes after the last response: closing over unread data would reset it away."""
        received = self._link.recv(MAX_HEAD_BYTES)
        self._drained += len(received)
        if not received or self._drained > DRAIN_BYTES:
            self.close()

    def _serve(self) -> None:
        """Answer the requests that are in the buffer, in turn, until one has to wait or its response doesn't fit."""
        for _ in range(REQUESTS_PER_EVENT):
            try:
                head, length = read_head(self._buffer, MAX_HEAD_BYTES)
            except BadRequest as bad:
                self._buffer.clear()
                self._server.refusals.count_response(bad.response, self.peer)
                self._begin(bad.response, keep=False)
                return
            if head is None:
                if not self._buffer:
                    if self.state != "idle":
                        self._enter("idle")
                elif self.state != "head":
                    self._enter("head")
                return
            del self._buffer[:length]
            verdict = self._admit(head)
            if verdict == "wait":
                self._asked = head
                self._enter("login")
                return
            if not self._answer(head, verdict):
                return
        self._enter("write")  # nothing to write, but the loop comes back here after it has served the others

    def _admit(self, head: RequestHead) -> Response | Literal["wait"] | None:
        door = self._server.door
        return None if door is None else door.admit(head, self.peer, self._admitted)

    def _admitted(self, refusal: Response | None) -> None:
        """The verdict on a login, out of the loop's own thread, after the request has waited for it."""
        head, self._asked = self._asked, None
        if self._fd < 0 or head is None:
            return
        try:
            if self._answer(head, refusal):
                self._serve()
        except OSError:
            self.close()
        self._watch()

    def _answer(self, head: RequestHead, refusal: Response | None) -> bool:
        """Write the response to a request; True if it is all out and the connection goes on."""
        if refusal is None and not self._server.has_room():
            headers = (("Retry-After", "5"),)
            refusal = Response(status=503, body=b"too many pages are being written\n", headers=headers)
        if refusal is not None:
            self._server.refusals.count_response(refusal, self.peer)
        response = self._respond(head) if refusal is None else refusal
        if isinstance(response, Making):  # the others are served in between
            self._making = head, response
            self._enter("make")
            self._server.makers.add(self)
            return False
        # Who is refused begins anew: many requests in a row, their refusals unread, would hold a place for nothing.
        return self._begin(response, keep=head.keep and refusal is None, body=head.method != "HEAD")

    def _make(self) -> None:
        assert self._making is not None
        head, making = self._making
        response = _made(making.go_on, head.path)
        if response is not None:
            self._making = None
            self._server.makers.drop(self)
            if self._begin(response, keep=head.keep, body=head.method != "HEAD"):
                self._serve()

    def _respond(self, head: RequestHead) -> Response | Making:
        route = self._server.routes.get(head.path)
        if route is None:
            return Response(status=404, body=b"not found\n")
        if head.method not in ("GET", "HEAD"):
            return Response(status=405, body=b"only GET and HEAD\n", headers=(("Allow", "GET, HEAD"),))
        return _made(lambda: route(head), head.path)

    @property
    def _outdated(self) -> bool:
        """Whether it came in by what isn't in force any more: files that have changed, a certificate that is over."""
        door, link = self._server.door, self._tls_link
        return door is not None and (door.tls is not self._tls or (link is not None and link.expired))

    # Responses

    def _begin(self, response: Response, *, keep: bool, body: bool = True) -> bool:
        """Write a response; True if it is all out and the connection goes on."""
        door = self._server.door
        self._keep = keep and not self._outdated
        head = encoded_head(response, keep=self._keep, more=() if door is None else door.headers)
        if not body or not response.body:
            self._output.append(memoryview(head))
        elif len(response.body) <= SMALL_BYTES:
            self._output.append(memoryview(head + response.body))  # in one packet
        else:
            self._output += memoryview(head), memoryview(response.body)  # not copied: scrapers share the page
        self.since_s = None  # a request that is answered starts the clock anew
        return self._flush()

    def _flush(self) -> bool:
        room = WRITE_BYTES_PER_EVENT
        while self._output:
            try:
                if room <= 0:  # others first
                    raise BlockingIOError
                sent = self._link.send(self._output[0])
            except (BlockingIOError, InterruptedError):
                if self.state != "write":
                    self._enter("write")
                return False
            room -= sent
            rest = self._output.popleft()[sent:]
            if rest:
                self._output.appendleft(rest)
        if not self._keep:
            self._end()
        elif self.state in ("login", "make"):
            self._enter("head")
        return self._keep

    def _write_on(self) -> None:
        if self._flush():
            self.since_s = None
            self._serve()

    def _end(self) -> None:
        """Say that nothing more comes, and wait a little for the client to have read it."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)
        self._enter("drain")

    def _count(self, reason: Reason, why: str) -> None:
        self._server.refusals.count(reason, self.peer, why)


def _made(make: Callable[[], Made], path: str) -> Made | Response:
    """What a route gives; a page with a bug must not stop the loop that samples and bills."""
    try:
        return make()
    except Exception:
        logger.exception("%s failed", path)
        return Response(status=500, body=b"this page failed; the agent's log has the traceback\n")
