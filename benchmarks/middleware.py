"""What the middleware costs an ASGI application, beside one with prometheus_client's labelled counter and histogram.

    python -m benchmarks.middleware [--json]

CPU time of the thread that serves, per request of a trivial application that is called directly: the median of rounds
that take turns. Ratios are the thing to rely on.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
SCOPE = {  # as uvicorn makes it
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "server": ("127.0.0.1", 8000),
    "client": ("127.0.0.1", 50000),
    "scheme": "http",
    "method": "POST",
    "root_path": "",
    "path": "/generate",
    "raw_path": b"/generate",
    "query_string": b"",
    "headers": [(b"host", b"127.0.0.1"), (b"accept", b"*/*"), (b"x-tenant", b"acme")],
    "state": {},
}
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}


async def bare(scope: Message, receive: Any, send: Any) -> None:
    """The application."""
    await send(START)
    await send(BODY)


class Counted:
    """The usual middleware of a metrics library: a counter by method, path and status, and a histogram of seconds."""

    def __init__(self, app: App) -> None:
        self._app = app
        registry = CollectorRegistry()
        self._requests = Counter("requests", "Requests.", ["method", "path", "status"], registry=registry)
        self._seconds = Histogram("request_seconds", "Their time.", ["method", "path"], registry=registry)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began_s = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        finally:
            self._requests.labels(scope["method"], scope["path"], str(status)).inc()
            self._seconds.labels(scope["method"], scope["path"]).observe(time.perf_counter() - began_s)


async def receive() -> Message:
    return {"type": "http.request", "body": b""}


async def send(message: Message) -> None:
    pass


async def cpu_ns(app: App, requests: int) -> float:
    """CPU time of this thread per request."""
    began_ns = time.thread_time_ns()
    for _ in range(requests):
        await app(dict(SCOPE), receive, send)
    return (time.thread_time_ns() - began_ns) / requests


async def measure(apps: dict[str, App], requests: int, rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in apps}
    for app in apps.values():
        await cpu_ns(app, requests // 10)
    for _ in range(rounds):
        for name, app in apps.items():
            taken[name].append(await cpu_ns(app, requests))
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU per request of ASGI middlewares.")
    parser.add_argument("--requests", type=int, default=20_000, help="in a round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # No agent is asked, and nothing is kept in the user's own folders.
        os.environ["WATTRIBUTE_AGENT__SOCKET"] = os.path.join(folder, "nobody")
        os.environ["XDG_STATE_HOME"] = folder
        import wattribute
        from wattribute.asgi import MeterMiddleware

        meter = wattribute.meter("benchmark")
        apps: dict[str, App] = {
            "bare": bare,
            "metered": MeterMiddleware(bare, meter=meter),
            "metered, tenant by header": MeterMiddleware(bare, meter=meter, tenant="header:X-Tenant"),
            "metered, receipt in the header": MeterMiddleware(bare, meter=meter, header=True),
            "prometheus_client": Counted(bare),
        }
        ns = asyncio.run(measure(apps, arguments.requests, arguments.rounds))
        meter.stop()
    beyond = {name: value - ns["bare"] for name, value in ns.items()}
    rows = {
        name: {
            "cpu_ns": round(value),
            "beyond_bare_ns": round(beyond[name]),
            "beyond_bare_over_prometheus_client": round(beyond[name] / beyond["prometheus_client"], 3),
        }
        for name, value in ns.items()
    }
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'':32}{'CPU per request':>18}{'beyond bare':>14}{'of prometheus_client':>22}")
    for name, row in rows.items():
        share = row["beyond_bare_over_prometheus_client"]
        print(f"{name:32}{row['cpu_ns']:>15} ns{row['beyond_bare_ns']:>11} ns{share:>22.2f}")


if __name__ == "__main__":
    main()
