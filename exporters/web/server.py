"""The server: its listening sockets, its connections and how many there may be. No threads of its own.

It registers its sockets with the owner's selector; the data of a key is a callable that takes the event mask:
`for key, mask in selector.select(): key.data(mask)`. `expire` is to be called about once a second.
"""

import contextlib
import logging
import selectors
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from wattribute.agent.core.model import SourceHealth
from wattribute.exporters.messages import Response, Route, encoded
from wattribute.exporters.web.connection import Connection
from wattribute.exporters.web.listen import listen
from wattribute.exporters.web.makers import Makers
from wattribute.exporters.web.refusals import Refusals

if TYPE_CHECKING:
    from wattribute.exporters.web.door import Door

MAX_CONNECTIONS = 64
MAX_SCRAPES = 40
"""So many responses may be on their way at once: each holds a page in memory. node_exporter's limit is the same."""
ACCEPTS_PER_EVENT = 16

logger = logging.getLogger(__name__)


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
        self.makers = Makers(selector)
        self.port: int = self._listeners[0].getsockname()[1]
        self._resume()

    @property
    def refused(self) -> Mapping[str, int]:
        """How many connections and requests were turned away, by reason."""
        return self.refusals.counts

    def has_room(self) -> bool:
        """Whether one more response may be on its way; the slowest of too many gives way to it."""
        return sum(c.state in ("make", "write") for c in self._connections) < MAX_SCRAPES or self._close_slowest()

    def health(self) -> Iterable[SourceHealth]:
        """The web file as a source, where there is one."""
        return () if self.door is None else (self.door.health(),)

    def expire(self, now_s: float) -> None:
        """Close connections that are past their time (seconds of any monotonic clock); call it once a second."""
        if self._paused:
            self._resume()
        if self.door is not None:
            self.door.look()
        for connection in list(self._connections):
            connection.expire(now_s)
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
        self.makers.close()
        if self.door is not None:
            self.door.close()

    def forget(self, connection: Connection) -> None:
        """A connection tells that it is closed."""
        self._connections.pop(connection, None)
        self.makers.drop(connection)

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
        if self._paused:  # by another listener, in this very turn of the loop
            return
        for _ in range(ACCEPTS_PER_EVENT):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                # The listener stays readable: without a pause the loop would spin, say until a descriptor is free.
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
        """Close the oldest connection that waits for nothing, else the oldest that hasn't asked for anything yet, else
        the one that takes its response most slowly.

        Who scrapes asks at once; who only holds connections open loses them to those who come later.
        """
        for connection in self._connections:
            if connection.state in ("idle", "drain"):
                connection.close()
                return True
        for connection in self._connections:
            if connection.state in ("hello", "handshake", "head"):
                self.refusals.count("busy", connection.peer, "it gave way to another before it had asked for anything")
                connection.close()
                return True
        return self._close_slowest()

    def _close_slowest(self) -> bool:
        """Close the response that has been on its way longest; False where there is none but of this second."""
        slow = [c for c in self._connections if c.state == "write" and c.since_s is not None]
        if not slow:
            return False
        slowest = min(slow, key=lambda connection: connection.since_s or 0.0)
        self.refusals.count("busy", slowest.peer, "its response was taken slowly, and others came")
        slowest.close()
        return True

    def _turn_away(self, accepted: socket.socket, peer: str) -> None:
        self.refusals.count("busy", peer, f"{MAX_CONNECTIONS} connections are open")
        with contextlib.closing(accepted), contextlib.suppress(OSError):
            if self.door is None or self.door.tls is None:
                accepted.setblocking(False)
                busy = Response(status=503, body=b"too many connections\n", headers=(("Retry-After", "5"),))
                accepted.send(encoded(busy, keep=False))
                accepted.shutdown(socket.SHUT_WR)
