"""Serves a small real language model over HTTP, and meters every request.

    python examples/serve.py --port 8000
    curl -i 'http://127.0.0.1:8000/generate?prompt=The+agent&tokens=80' -H 'X-Tenant: acme'

The answer's header `Wattribute-Receipt` has the request's id and what it took so far; the settled receipt is at
/wattribute/receipts/ID a moment later. With an agent on the machine, its page has the product's energy and carbon per
request and per token; without one, the process measures itself. examples/inference.py runs all of it.
"""

import argparse
import json
import signal
import socketserver
import sys
import threading
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tiny_lm import TinyLM, documentation

from wattribute.wsgi import MeterMiddleware, current

MOST_TOKENS = 4096


class Generate:
    """The application: a prompt in, text out. The model gives one character at a time; each is a token."""

    def __init__(self, model: TinyLM) -> None:
        self._model = model
        self._lock = threading.Lock()  # one request computes at a time, as on one GPU; the others wait

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/generate":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"try /generate?prompt=The+agent&tokens=80\n"]
        asked = parse_qs(environ.get("QUERY_STRING", ""))
        prompt, tokens = asked.get("prompt", ["The "])[0], asked.get("tokens", ["80"])[0]
        if not tokens.isdecimal() or not 1 <= int(tokens) <= MOST_TOKENS:
            start_response("400 Bad Request", [("Content-Type", "text/plain")])
            return [f"tokens is a whole number from 1 to {MOST_TOKENS}\n".encode()]
        with self._lock:
            text = "".join(self._model.generate(prompt, int(tokens)))
        current(environ).add(token=len(text))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"text": text, "tokens": len(text)}).encode() + b"\n"]


class Quiet(WSGIRequestHandler):
    """No line per request on stderr."""

    def log_message(self, format: str, *args: object) -> None:
        pass


class ThreadedServer(socketserver.ThreadingMixIn, WSGIServer):
    """A thread per connection."""

    daemon_threads = True
    request_queue_size = 128


def main() -> int:
    parser = argparse.ArgumentParser(description="A small language model over HTTP, with a meter on every request.")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--train-seconds", type=float, default=6.0)
    parser.add_argument("--product", default="tiny-lm")
    arguments = parser.parse_args()
    model = TinyLM(documentation())
    steps, loss = model.train(arguments.train_seconds)
    print(f"trained: {steps} steps, {loss:.2f} nats a character", flush=True)
    app = MeterMiddleware(
        Generate(model),
        product=arguments.product,
        tenant="header:X-Tenant",
        header=True,
        receipts_path="/wattribute/receipts",
    )
    server = make_server("127.0.0.1", arguments.port, app, ThreadedServer, Quiet)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with server:
        print(f"serving on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
