"""A real HTTPS (or HTTP) server that answers GET /pods as it is told to, and remembers what it was shown."""

import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

NODE = "gpu-node-3"


class Certificate(NamedTuple):
    file: Path
    key: Path


class Asked(NamedTuple):
    path: str
    authorization: str | None


class Server(ThreadingHTTPServer):
    """`respond` may write anything in an answer's place; one that waits waits for `released`."""

    daemon_threads = False  # each is waited for, so that nothing is left open
    allow_reuse_address = True

    def __init__(self, certificate: Certificate | None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.status, self.answer = 200, b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}'
        self.respond: Callable[[BaseHTTPRequestHandler], None] = self.answer_well
        self.asked: list[Asked] = []
        self.released = threading.Event()
        super().__init__((host, port), Answering)
        self.port = self.server_address[1]
        self.secure = certificate is not None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.file, certificate.key)
            # Each connection shakes hands in its own thread.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def url(self, host: str = "127.0.0.1") -> str:
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    def answer_well(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(self.status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(self.answer)))
        request.end_headers()
        request.wfile.write(self.answer)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that doesn't trust us hangs up."""

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exc: object) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(Asked(self.path, self.headers["Authorization"]))
        self.server.respond(self)

    def log_message(self, format: str, *args: object) -> None:
        pass
