"""An event loop with the web server in it, turned by the test; its clients are real sockets, TLS or not."""

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from wattribute.exporters.messages import Making, RequestHead, Response
from wattribute.exporters.web import WebServer
from wattribute.exporters.web.door import Door

BIG = b"0123456789abcdef" * (1 << 18)  # 4 MiB: more than socket buffers hold
PATIENCE_S = 10.0


def big(_request: RequestHead) -> Response:
    return Response(body=BIG)


def broken(_request: RequestHead) -> Response:
    raise ZeroDivisionError("a bug in a page")


def slow(request: RequestHead) -> Making:
    """Takes 50 turns; `?broken`: and fails then."""
    left = iter(range(50))

    def go_on() -> Response | None:
        if next(left, None) is not None:
            return None
        return broken(request) if request.query == "broken" else Response(body=b"slow\n")

    return Making(go_on)


class Loop:
    """`web_file`: with a door by it, whose clock is `now_s`."""

    def __init__(self, host: str = "127.0.0.1", web_file: Path | None = None) -> None:
        self.selector = selectors.DefaultSelector()
        self.now_s = 0.0
        door = None if web_file is None else Door(self.selector, web_file, clock=lambda: self.now_s)
        self.server = WebServer(
            self.selector,
            host,
            0,
            {
                "/": lambda request: Response(body=request.query.encode() or b"hello\n"),
                "/big": big,
                "/broken": broken,
                "/slow": slow,
            },
            door,
        )
        self.clients = contextlib.ExitStack()

    def turn(self, timeout_s: float = 0.0) -> None:
        for key, mask in self.selector.select(timeout_s):
            key.data(mask)

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, "the server did nothing"
            self.turn(0.01)

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE_S)
        self.clients.enter_context(client)
        client.setblocking(False)
        return client

    def connect_tls(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Raises ssl.SSLError where the handshake fails, on either side."""
        client = context.wrap_socket(self.connect(), server_hostname="localhost", do_handshake_on_connect=False)
        self.clients.enter_context(client)
        client.setblocking(False)

        def done() -> bool:
            try:
                client.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            return True

        self.until(done)
        return client

    def read(self, client: socket.socket, enough: Callable[[bytes], bool]) -> bytes:
        """What the client gets until it is enough; all of it where the server closes first."""
        got = bytearray()

        def done() -> bool:
            received = b""
            try:
                while received := client.recv(1 << 20):  # of TLS a call gives one record
                    got.extend(received)
                    if enough(bytes(got)):
                        return True
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
            return True

        self.until(done)
        return bytes(got)

    def ask(self, client: socket.socket, request: bytes) -> bytes:
        client.sendall(request)
        return self.read(client, lambda got: b"\r\n\r\n" in got and len(got.partition(b"\r\n\r\n")[2]) >= length(got))

    def is_closed(self, client: socket.socket) -> bool:
        self.turn()
        try:
            return client.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.clients.close()
        self.server.close()
        self.selector.close()


def length(response: bytes) -> int:
    head = response.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])


def status(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


def get(path: str, *more: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: node", *more, "", ""]).encode()
