"""What the middleware costs an application, beside one with prometheus_client's labelled counter and histogram.

    python -m benchmarks.requests middleware [--json]

CPU time of the thread that serves, per request of a trivial application that is called directly: the median of rounds
that take turns, less that of the application alone. Ratios are the thing to rely on.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

ROUNDS, REQUESTS = 15, 10_000
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


def wsgi_bare(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The same, as WSGI has it."""
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def wsgi_start(status: str, headers: Any, exc_info: Any = None) -> Any:
    pass


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


def wsgi_cpu_ns(app: Any, requests: int) -> float:
    """The same of a WSGI application, whose body is read and closed."""
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/generate", "SCRIPT_NAME": "", "HTTP_X_TENANT": "acme"}
    began_ns = time.thread_time_ns()
    for _ in range(requests):
        body = app(dict(environ), wsgi_start)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
    return (time.thread_time_ns() - began_ns) / requests


async def measure(apps: dict[str, App], wsgi: dict[str, Any]) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in (*apps, *wsgi)}
    for number in range(ROUNDS + 1):
        for name, app in apps.items():
            taken[name].append(await cpu_ns(app, REQUESTS))
        for name, app in wsgi.items():
            taken[name].append(wsgi_cpu_ns(app, REQUESTS))
        if number == 0:  # nothing was warm
            taken = {name: [] for name in taken}
    return {name: statistics.median(values) for name, values in taken.items()}


def middleware_costs(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """ns of CPU per request beyond the application's own."""
    # No agent is asked, and nothing is kept in the user's own folders.
    os.environ["WATTRIBUTE_AGENT__SOCKET"] = str(folder / "nobody")
    os.environ["XDG_STATE_HOME"] = str(folder)
    import wattribute
    import wattribute.wsgi
    from wattribute.agent.process import here
    from wattribute.asgi import MeterMiddleware

    with wattribute.meter("") as meter:
        apps: dict[str, App] = {
            "": bare,
            "ASGI": MeterMiddleware(bare, meter=meter),
            "  tenant by header": MeterMiddleware(bare, meter=meter, tenant="header:X-Tenant"),
            "  receipt in the header": MeterMiddleware(bare, meter=meter, header=True),
            "  prometheus_client": Counted(bare),
        }
        wsgi = {
            " ": wsgi_bare,
            "WSGI": wattribute.wsgi.MeterMiddleware(wsgi_bare, meter=meter),
            "  its tenant by header": wattribute.wsgi.MeterMiddleware(wsgi_bare, meter=meter, tenant="header:X-Tenant"),
        }
        ns = asyncio.run(measure(apps, wsgi))
    here().engine(os.environ).close()  # it would write into the folder at exit
    return {name: value - ns[" " if name in wsgi else ""] for name, value in ns.items() if name.strip()}
