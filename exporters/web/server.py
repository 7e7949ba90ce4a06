"""The server: its listening sockets, its connections and how many there may be. No threads of its own.

It registers its sockets with the owner's selector; the data of a key is a callable that takes the event mask:
`for key, mask in selector.select(): key.data(mask)`. `expire` is to be called about once a second.
"""

import contextlib
import errno
import logging
import selectors
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from wattribute.agent.core.model import SourceHealth
from wattribute.exporters.messages import Response, encoded
from wattribute.exporters.web.connection import Connection, Route
from wattribute.exporters.web.listen import listen
from wattribute.exporters.web.refusals import Refusals

if TYPE_CHECKING:
    from wattribute.exporters.web.door import Door

MAX_CONNECTIONS = 64
MAX_SCRAPES = 40
"""So many responses may be on their way at once: each holds a page in memory. node_exporter's limit is the same."""
ACCEPTS_PER_EVENT = 16

logger = logging.getLogger(__name__)
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class WebServer:
    """Serves `routes` (path -> a function of the request) on host:port; GET and HEAD only.

    `door`: who may come in, and how; without one everybody, in plain text. Port 0 takes a free one, see `port`.
    Raises WattributeError with the fix where it can't listen.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        host: str,
        port: int,
        routes: Mapping[str, Route],
        door: "Door | None" = None,
    ) -> None:
        self.selector = selector
        self.routes = routes
        self.door = door
        self.refusals = Refusals()
        self._connections: dict[Connection, None] = {}  # in order of acceptance
        self._paused = False
        self._listeners = listen(host, port)
        self.port: int = self._listeners[0].getsockname()[1]
        self._resume()

    @property
    def refused(self) -> Mapping[str, int]:
        """How many connections and requests were turned away, by reason."""
        return self.refusals.counts

    @property
    def busy(self) -> bool:
        """Whether as many responses are on their way as may be."""
        return sum(connection.state == "write" for connection in self._connections) >= MAX_SCRAPES

    def health(self) -> Iterable[SourceHealth]:
        """The web file as a source, where there is one."""
        return () if self.door is None else (self.door.health(),)

    def expire(self, now_s: float) -> None:
        """Close connections that are past their time (seconds of any monotonic clock); call it once a second."""
        if self._paused:
            self._resume()
        for connection in list(self._connections):
            connection.expire(now_s)
        if self.door is not None:
            self.door.look()
        self.refusals.tell(now_s)

    def close(self) -> None:
        """Stop listening and close every connection; may be called twice."""
        for listener in self._listeners:
            if not self._paused:
                self.selector.unregister(listener)
            listener.close()
        self._listeners = []
        for connection in list(self._connections):
            connection.close()
        if self.door is not None:
            self.door.close()

    def forget(self, connection: Connection) -> None:
        """A connection tells that it is closed."""
        self._connections.pop(connection, None)

    def _resume(self) -> None:
        self._paused = False
        for listener in self._listeners:
            self.selector.register(
                listener, selectors.EVENT_READ, lambda _mask, listener=listener: self._accept(listener)
            )

    def _pause(self) -> None:
        self._paused = True
        for listener in self._listeners:
            self.selector.unregister(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                # The listener stays readable: without a pause the loop would spin until a descriptor is free.
                logger.warning("can't accept a connection now: %s", error.strerror)
                self._pause()
                return
            if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
                self._turn_away(accepted, str(address[0]))
                continue
            try:
                self._connections[Connection(self, accepted, str(address[0]))] = None
            except OSError:  # it has gone already
                accepted.close()

    def _make_room(self) -> bool:
        """Close the oldest connection that waits for nothing, else the oldest that hasn't asked for anything yet.

        Who scrapes asks at once; who only holds connections open loses them to those who come later.
        """
        for connection in self._connections:
            if connection.state == "idle":
                connection.close()
                return True
        for connection in self._connections:
            if connection.state in ("hello", "handshake", "head"):
                self.refusals.count("busy", connection.peer, "it gave way to another before it had asked for anything")
                connection.close()
                return True
        return False

    def _turn_away(self, accepted: socket.socket, peer: str) -> None:
        self.refusals.count("busy", peer, f"{MAX_CONNECTIONS} connections are open")
        with contextlib.closing(accepted), contextlib.suppress(OSError):
            if self.door is None or self.door.tls is None:
                accepted.setblocking(False)
                busy = Response(status=503, body=b"too many connections\n", headers=(("Retry-After", "5"),))
                accepted.send(encoded(busy, keep=False))
                accepted.shutdown(socket.SHUT_WR)
