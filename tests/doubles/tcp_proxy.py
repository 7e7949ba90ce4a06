"""A network between a client and PostgreSQL that loses what it is told to lose."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from typing import Literal

Fault = Literal["lose_commit", "lose_reply", "hang"]
_COMMIT = b"COMMIT"


class TcpProxy:
    """Forwards connections to a port of the loopback.

    `faults` are used up one per COMMIT that passes: lose_commit cuts the connection before the server hears of it,
    lose_reply after the server has answered and before the client hears of that, hang swallows the reply and stays.
    """

    def __init__(self, port: int) -> None:
        self.faults: list[Fault] = []
        self.commits = 0
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut every connection."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            self._open.append(server)
            pending: Fault | None = None
            while True:
                ready, _, _ = select.select([client, server], [], [])
                if client in ready:
                    said = client.recv(1 << 16)
                    if not said:
                        return
                    if _COMMIT in said:
                        self.commits += 1
                        pending = self.faults.pop(0) if self.faults else None
                        if pending == "lose_commit":
                            return
                    server.sendall(said)
                if server in ready:
                    answer = server.recv(1 << 16)
                    if not answer or pending == "lose_reply":
                        return
                    if pending != "hang":
                        client.sendall(answer)


@contextlib.contextmanager
def proxy(port: int) -> Iterator[TcpProxy]:
    """A proxy for a while."""
    one = TcpProxy(port)
    try:
        yield one
    finally:
        one.close()
