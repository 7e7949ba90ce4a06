"""A small HTTP/1.1 server that lives in its owner's event loop: no threads, keep-alive, pipelining, bounded in all.

It registers its sockets with the owner's selector; the data of a key is a callable that takes the event mask:
`for key, mask in selector.select(): key.data(mask)`. `expire` is to be called about once a second.
"""

import contextlib
import errno
import logging
import os
import selectors
import socket
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from wattribute.agent.core.errors import WattributeError
from wattribute.exporters.messages import BadRequest, RequestHead, Response, encoded, read_head

Route: TypeAlias = Callable[[RequestHead], Response]
Address: TypeAlias = tuple[str | bytes | int, ...]
State: TypeAlias = Literal["head", "write", "idle", "drain"]

BACKLOG = 128
MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 16 * 1024
ACCEPTS_PER_EVENT = 16
REQUESTS_PER_EVENT = 8  # one pipelining client must not hold the loop up
DRAIN_BYTES = 256 * 1024
LIMIT_S: dict[State, float] = {"head": 5.0, "write": 10.0, "idle": 60.0, "drain": 2.0}

logger = logging.getLogger(__name__)
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class WebServer:
    """Serves `routes` (path -> a function of the request) on host:port; GET and HEAD only.

    Port 0 takes a free one, see `port`. Raises WattributeError with the fix where it can't listen.
    """

    def __init__(self, selector: selectors.BaseSelector, host: str, port: int, routes: Mapping[str, Route]) -> None:
        self._selector = selector
        self.routes = routes
        self._connections: dict[_Connection, None] = {}  # in order of acceptance
        self._paused = False
        self._listeners = _listen(host, port)
        self.port: int = self._listeners[0].getsockname()[1]
        self._resume()

    def expire(self, now_s: float) -> None:
        """Close connections that are past their time (seconds of any monotonic clock); call it once a second."""
        if self._paused:
            self._resume()
        for connection in list(self._connections):
            connection.expire(now_s)

    def close(self) -> None:
        """Stop listening and close every connection; may be called twice."""
        for listener in self._listeners:
            if not self._paused:
                self._selector.unregister(listener)
            listener.close()
        self._listeners = []
        for connection in list(self._connections):
            connection.close()

    def forget(self, connection: "_Connection") -> None:
        """A connection tells that it is closed."""
        self._connections.pop(connection, None)

    def _resume(self) -> None:
        self._paused = False
        for listener in self._listeners:
            self._selector.register(
                listener, selectors.EVENT_READ, lambda _mask, listener=listener: self._accept(listener)
            )

    def _pause(self) -> None:
        self._paused = True
        for listener in self._listeners:
            self._selector.unregister(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                # The listener stays readable: without a pause the loop would spin until a descriptor is free.
                logger.warning("can't accept a connection now: %s", error.strerror)
                self._pause()
                return
            if len(self._connections) >= MAX_CONNECTIONS and not self._close_oldest_idle():
                _turn_away(accepted)
                continue
            self._connections[_Connection(self, self._selector, accepted)] = None

    def _close_oldest_idle(self) -> bool:
        for connection in self._connections:
            if connection.state == "idle":
                connection.close()
                return True
        return False


class _Connection:
    """One client: reads a head, writes its response whole, and only then looks at the next request."""

    __slots__ = ("_buffer", "_drained", "_keep", "_output", "_selector", "_server", "_since_s", "_socket", "state")

    def __init__(self, server: WebServer, selector: selectors.BaseSelector, accepted: socket.socket) -> None:
        self._server = server
        self._selector = selector
        self._socket = accepted
        self._buffer = bytearray()
        self._output = memoryview(b"")
        self._keep = True
        self._drained = 0
        self.state: State = "head"
        self._since_s: float | None = None  # when expire() first saw this state
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(accepted, selectors.EVENT_READ, self._ready)

    def expire(self, now_s: float) -> None:
        if self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s >= LIMIT_S[self.state]:
            self.close()

    def close(self) -> None:
        self._server.forget(self)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._socket)
        self._socket.close()

    def _enter(self, state: State) -> None:
        self.state = state
        self._since_s = None
        # A response that isn't out yet holds up reading: the client's own pace bounds what it can queue.
        events = selectors.EVENT_WRITE if state == "write" else selectors.EVENT_READ
        self._selector.modify(self._socket, events, self._ready)

    def _ready(self, mask: int) -> None:
        try:
            if self.state == "drain":
                self._drain()
            elif self.state == "write":
                self._write_on()
            elif mask & selectors.EVENT_READ:
                self._read()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the client went away: reset, broken pipe, timed out
            self.close()

    def _read(self) -> None:
        received = self._socket.recv(MAX_HEAD_BYTES)
        if not received:
            self.close()
            return
        self._buffer += received
        if self.state == "idle":
            self._enter("head")
        self._serve()

    def _drain(self) -> None:
        """Swallow what still comes after the last response: closing over unread data would reset it away."""
        received = self._socket.recv(MAX_HEAD_BYTES)
        self._drained += len(received)
        if not received or self._drained > DRAIN_BYTES:
            self.close()

    def _serve(self) -> None:
        """Answer the requests that are in the buffer, in turn, until one's response doesn't fit the socket."""
        for _ in range(REQUESTS_PER_EVENT):
            try:
                head, length = read_head(self._buffer, MAX_HEAD_BYTES)
            except BadRequest as bad:
                self._buffer.clear()
                self._begin(encoded(bad.response, keep=False), keep=False)
                return
            if head is None:
                if not self._buffer:
                    if self.state != "idle":
                        self._enter("idle")
                elif self.state != "head":
                    self._enter("head")
                return
            del self._buffer[:length]
            response = self._respond(head)
            if not self._begin(encoded(response, keep=head.keep, body=head.method != "HEAD"), keep=head.keep):
                return
        self._enter("write")  # nothing to write, but the loop comes back here after it has served the others

    def _respond(self, head: RequestHead) -> Response:
        route = self._server.routes.get(head.path)
        if route is None:
            return Response(status=404, body=b"not found\n")
        if head.method not in ("GET", "HEAD"):
            return Response(status=405, body=b"only GET and HEAD\n", headers=(("Allow", "GET, HEAD"),))
        try:
            return route(head)
        except Exception:  # a page with a bug must not stop the loop that samples and bills
            logger.exception("%s failed", head.path)
            return Response(status=500, body=b"this page failed; the agent's log has the traceback\n")

    def _begin(self, output: bytes, *, keep: bool) -> bool:
        """Write a response; True if it is all out and the connection goes on."""
        self._output = memoryview(output)
        self._keep = keep
        self._since_s = None  # a request that is answered starts the clock anew
        return self._flush()

    def _flush(self) -> bool:
        while self._output:
            try:
                sent = self._socket.send(self._output)
            except (BlockingIOError, InterruptedError):
                if self.state != "write":
                    self._enter("write")
                return False
            self._output = self._output[sent:]
        if not self._keep:
            self._socket.shutdown(socket.SHUT_WR)
            self._enter("drain")
        return self._keep

    def _write_on(self) -> None:
        if self._flush():
            self._serve()


def _turn_away(accepted: socket.socket) -> None:
    accepted.setblocking(False)
    busy = Response(status=503, body=b"too many connections\n", headers=(("Retry-After", "5"),))
    with contextlib.closing(accepted), contextlib.suppress(OSError):
        accepted.send(encoded(busy, keep=False))
        accepted.shutdown(socket.SHUT_WR)


def _listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of `host`: a name, an address, or an IPv6 literal in brackets or without."""
    name = host.removeprefix("[").removesuffix("]")
    shown = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    try:
        found = socket.getaddrinfo(name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise WattributeError(f"can't listen on {shown}: {error}. Fix: --listen 127.0.0.1:{port}") from error
    addresses: list[tuple[int, Address]] = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    for family, address in addresses:
        if listeners:  # port 0: the other addresses take the port that the first was given
            address = (address[0], listeners[0].getsockname()[1], *address[2:])
        try:
            listeners.append(_listener(family, address, alone=len(addresses) == 1))
        except OSError as error:
            failure = error
            # `localhost` may have an IPv6 address on a machine without IPv6: one that can be had is enough.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
    if failure is not None and (not listeners or failure.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)):
        for listener in listeners:
            listener.close()
        raise WattributeError(f"can't listen on {shown}: {_cause(failure, port)}") from failure
    return listeners


def _listener(family: int, address: Address, *, alone: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two agents share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not alone))
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _cause(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is in use. Fix: stop what listens there (`ss -ltnp 'sport = :{port}'` names it), "
            f"or take another: --listen 127.0.0.1:{port + 1 if port < 65535 else port - 1}"
        )
    if error.errno == errno.EACCES:
        return f"ports below 1024 are for root. Fix: --listen 127.0.0.1:{19917 if port != 19917 else port + 1}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no such address. Fix: --listen 127.0.0.1:{port}"
    return f"{error.strerror}. Fix: --listen 127.0.0.1:{port}"
