"""A serving engine as an agent sees it: an HTTP server with a page of metrics. `page` is what it says; `trouble` may
answer in its place, or not at all. `asked` are the requests' lines and headers.
"""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

PAGES = Path(__file__).resolve().parents[1] / "fixtures" / "engines" / "pages"


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]


class EngineServer(ThreadingHTTPServer):
    """Answers `/metrics` on a port of the loopback."""

    daemon_threads = True

    def __init__(self, page: str = "") -> None:
        self.page = page
        self.trouble: Callable[[Answering], None] | None = None
        self.asked: list[Asked] = []
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/metrics"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that waits no longer hangs up."""

    def __enter__(self) -> "EngineServer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, EngineServer)
        server.asked.append(Asked(self.path, dict(self.headers.items())))
        if server.trouble is not None:
            server.trouble(self)
        elif self.path == "/metrics":
            self.reply(200, server.page.encode())
        else:
            self.reply(404, b"Not Found")

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def says(status: int, body: bytes = b"", **headers: str) -> Callable[[Answering], None]:
    """Trouble: this answer to everything."""
    return lambda request: request.reply(status, body, **headers)


def hangs(request: Answering) -> None:
    """Trouble: no answer, until the server is closed."""
    assert isinstance(request.server, EngineServer)
    request.server.released.wait(10)


def trickles(request: Answering) -> None:
    """Trouble: a byte now and then, each soon enough."""
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    _drip(request, b"#")


def trickles_headers(request: Answering) -> None:
    """Trouble: the same, before the page begins."""
    request.send_response(200)
    request.flush_headers()
    _drip(request, b"X: 1\r\n")


def _drip(request: Answering, drop: bytes) -> None:
    assert isinstance(request.server, EngineServer)
    while not request.server.released.wait(0.02):
        request.wfile.write(drop)
        request.wfile.flush()


def breaks_off(request: Answering) -> None:
    """Trouble: less than was promised."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"vllm:prompt_tokens_total 5\n")
    request.close_connection = True


def in_chunks(page: str) -> Callable[[Answering], None]:
    """The page, in pieces whose length isn't said before."""

    def answer(request: Answering) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        body = page.encode()
        for part in (body[: len(body) // 3], body[len(body) // 3 :]):
            request.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        request.wfile.write(b"0\r\n\r\n")

    return answer


def vllm(
    request: float = 0,
    prompt: float = 0,
    output: float = 0,
    *,
    running: int = 0,
    start_s: float | None = None,
    **s: float,
) -> str:
    """A page of vLLM's with these counts; `prefill` and `decode` in seconds."""
    lines = [
        f'vllm:request_success_total{{finished_reason="stop",model_name="m"}} {request}',
        f'vllm:prompt_tokens_total{{model_name="m"}} {prompt}',
        f'vllm:generation_tokens_total{{model_name="m"}} {output}',
        f'vllm:num_requests_running{{model_name="m"}} {running}',
    ]
    lines += [f'vllm:request_{stage}_time_seconds_sum{{model_name="m"}} {seconds}' for stage, seconds in s.items()]
    if start_s is not None:
        lines.append(f"process_start_time_seconds {start_s}")
    return "\n".join([*lines, ""])
