"""The ASGI middleware, called as a server calls it: what begins, what ends it and how, whose it is, what it tells."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from tests.middleware.recording import RecordingMeter

from wattribute.agent.middleware import routes
from wattribute.asgi import MeterMiddleware, current

Message = dict[str, Any]
ITEM = re.compile(r'"([!-~]+?)"((?:;[a-z][a-z0-9-]*=(?:\d+|\?[01]))*)')  # the part of RFC 9651 that is used


def a_scope(path: str = "/generate", kind: str = "http", method: str = "POST", **more: Any) -> dict[str, Any]:
    scope = {"type": kind, "asgi": {"version": "3.0"}, "path": path, "root_path": "", "query_string": b"", **more}
    scope.setdefault("headers", [(b"host", b"a"), (b"x-tenant", b"acme")])
    return {**scope, "method": method} if kind == "http" else scope


def call(app: Any, scope: dict[str, Any], *received: Message) -> list[Message]:
    """What the application sent."""
    sent: list[Message] = []
    waiting = list(received) or [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


async def ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"o", "more_body": True})
    await send({"type": "http.response.body", "body": b"k"})


OK = [
    {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]},
    {"type": "http.response.body", "body": b"o", "more_body": True},
    {"type": "http.response.body", "body": b"k"},
]


@pytest.fixture
def meter() -> RecordingMeter:
    return RecordingMeter()


def metered(app: Any, meter: Any, **options: Any) -> MeterMiddleware:
    return MeterMiddleware(app, meter=meter, **options)


def test_a_request_lasts_as_long_as_the_application_and_its_handler_counts_units(meter: RecordingMeter) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        current(scope).add(token=3)
        await ok(scope, receive, send)
        assert meter.last.aborted is None
        current(scope).add(token=4)  # after the last part: a background task

    assert call(metered(app, meter), a_scope()) == OK
    assert [(one.units, one.aborted, one.tenant) for one in meter.requests] == [({"token": 7}, False, "")]


def test_an_exception_goes_on_and_the_request_is_aborted(meter: RecordingMeter) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(metered(app, meter), a_scope())
    assert meter.last.aborted is True


def test_a_request_that_the_server_cancels_is_aborted(meter: RecordingMeter) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(OK[0])
        await asyncio.Event().wait()

    async def course() -> None:
        async def send(message: Message) -> None:
            pass

        middleware: Any = metered(app, meter)
        task = asyncio.ensure_future(middleware(a_scope(), send, send))
        await asyncio.sleep(0)
        assert meter.last.aborted is None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(course())
    assert meter.last.aborted is True


@pytest.mark.parametrize(
    ("messages", "aborted"),
    [
        (OK, False),
        (OK[:2], True),
        ([], True),
        ([{"type": "http.response.start", "status": 503}, {"type": "http.response.body"}], True),
        ([{"type": "http.response.start", "status": 404}, {"type": "http.response.body"}], False),
        ([OK[0], {"type": "http.response.pathsend", "path": "/a"}], False),
    ],
)
def test_answered_is_a_whole_response_below_500(meter: RecordingMeter, messages: list[Message], aborted: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    assert call(metered(app, meter), a_scope()) == messages
    assert meter.last.aborted is aborted


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/healthz", "/static/a/b"])
@pytest.mark.parametrize("root", ["", "/v1"])
def test_some_paths_are_not_metered(meter: RecordingMeter, path: str, root: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        current(scope).add(token=1)
        assert bool(current(scope).id) is bool(meter.requests)
        await ok(scope, receive, send)

    middleware = metered(app, meter, skip=("/healthz", "/metrics", "/static/"))
    assert call(middleware, a_scope(root + path, root_path=root)) == OK
    assert meter.requests == []
    call(middleware, a_scope("/metricsandmore"))
    assert len(meter.requests) == 1


def test_a_tenant_is_a_header_or_what_a_function_says(meter: RecordingMeter, caplog: pytest.LogCaptureFixture) -> None:
    def broken(scope: Any) -> str:
        raise KeyError("organisation")

    tenants: list[str | Callable[[Any], str]] = ["header:X-Tenant", "header:X-Other", lambda s: str(s["path"]), broken]
    for tenant in tenants:
        assert call(metered(ok, meter, tenant=tenant), a_scope()) == OK
    assert [one.tenant for one in meter.requests] == ["acme", "", "/generate", ""]
    assert "it has no tenant" in caplog.text and "own" not in caplog.records[0].message


@pytest.mark.parametrize("wrong", ["path", "header:", "metadata:x", "", 5])
def test_another_tenant_is_an_error_where_it_is_written(wrong: Any) -> None:
    with pytest.raises(ValueError, match="tenant is 'route'"):
        MeterMiddleware(ok, tenant=wrong)


def test_a_meter_has_its_product() -> None:
    with pytest.raises(ValueError, match="a meter has its product"):
        metered(ok, RecordingMeter(), product="m")


async def answer(request: Any) -> Response:
    return PlainTextResponse("ok")


async def talk(websocket: Any) -> None:
    await websocket.accept()
    await websocket.close()


ROUTES = [
    Route("/", answer),
    Route("/users/{name}", answer),
    Route("/users/{name}", answer, methods=["DELETE"]),
    Mount("/v1", routes=[Route("/models/{model:path}", answer), WebSocketRoute("/talk/{room}", talk)]),
]
TEMPLATES = {
    "/": "/",
    "/users/a": "/users/{name}",
    "/users/b": "/users/{name}",
    "/v1/models/a/b": "/v1/models/{model:path}",
    "/none": "",
}


def outside(meter: RecordingMeter) -> Any:
    return metered(Starlette(routes=ROUTES), meter, tenant="route")


def inside(meter: Any) -> Any:
    return Starlette(routes=ROUTES, middleware=[Middleware(MeterMiddleware, meter=meter, tenant="route")])


def of_fastapi(meter: Any) -> Any:
    app = FastAPI(openapi_url=None)
    app.get("/")(answer)
    inner, outer = APIRouter(prefix="/models"), APIRouter(prefix="/v1")
    inner.get("/{model:path}")(answer)
    outer.include_router(inner)
    app.get("/users/{name}")(answer)
    app.include_router(outer)
    app.add_middleware(MeterMiddleware, meter=meter, tenant="route")
    return app


@pytest.mark.parametrize("made", [outside, inside, of_fastapi])
def test_a_route_is_a_tenant_by_its_template(meter: RecordingMeter, made: Callable[[RecordingMeter], Any]) -> None:
    app = made(meter)
    for _ in range(2):
        for path in TEMPLATES:
            call(app, a_scope(path, method="GET"))
    assert [one.tenant for one in meter.requests] == 2 * list(TEMPLATES.values())
    call(app, a_scope("/v1/other", method="GET"))
    assert meter.last.tenant in ("/v1", "")  # as far as it is known


def test_of_routes_no_more_are_remembered_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_KEPT", 2)
    known = routes.Routes(Starlette(routes=ROUTES))
    for number in range(7):
        assert known.template(a_scope(f"/users/{number}", method="GET")) == "/users/{name}"
        assert len(known._known) <= 2


def test_a_websocket_is_one_request(meter: RecordingMeter) -> None:
    sent = call(outside(meter), a_scope("/v1/talk/7", "websocket"), {"type": "websocket.connect"})
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert [(one.tenant, one.aborted) for one in meter.requests] == [("/v1/talk/{room}", False)]


def test_without_routes_there_is_no_tenant(meter: RecordingMeter, caplog: pytest.LogCaptureFixture) -> None:
    assert call(metered(ok, meter, tenant="route"), a_scope()) == OK
    assert meter.last.tenant == ""


def test_whatever_fails_here_the_response_is_untouched(
    meter: RecordingMeter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        current(scope).add(token=1)
        await ok(scope, receive, send)

    meter.broken = True
    middleware = metered(app, meter, header=True)
    assert call(middleware, a_scope()) == OK
    meter.broken = False
    monkeypatch.setattr(RecordingMeter, "estimate", None)
    assert call(middleware, a_scope()) == OK
    middleware = metered(app, meter)
    assert call(middleware, a_scope()) == OK
    assert current(object()).id == current({}).id == ""


def header_of(sent: list[Message]) -> tuple[str, dict[str, str]]:
    """The name of the receipt, and the parameters, of a response's one header."""
    [value] = [value.decode() for key, value in sent[0]["headers"] if key == b"wattribute-receipt"]
    match = ITEM.fullmatch(value)
    assert match is not None, value
    return match[1], dict(part.split("=") for part in match[2].split(";") if part)


def test_the_header_has_the_receipts_name_and_what_it_took_so_far(
    meter: RecordingMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = call(metered(ok, meter, header=True), a_scope())
    assert sent[0]["headers"][0] == (b"a", b"b")
    assert sent[1:] == OK[1:]
    name, parameters = header_of(sent)
    assert name == meter.last.id
    assert parameters == {"energy-uj": "1234", "jsce-ng": "56", "asce-ng": "78", "settled": "?0"}
    assert meter.last.wants_receipt is True
    monkeypatch.setattr(RecordingMeter, "estimate", lambda self, request: None)
    assert header_of(call(metered(ok, meter, header=True), a_scope())) == ("abcd-0-1", {"settled": "?0"})
    sent = call(
        metered(outside(meter), meter, header=True), a_scope("/v1/talk/7", "websocket"), {"type": "websocket.connect"}
    )
    assert header_of(sent)[0] == "abcd-0-2"


def test_a_receipt_can_be_fetched_by_who_has_its_name(meter: RecordingMeter) -> None:
    middleware = metered(ok, meter, receipts_path="/wattribute/receipts")
    name, _ = header_of(call(middleware, a_scope()))

    def fetch(name: str) -> tuple[int, dict[str, Any]]:
        start, body = call(middleware, a_scope(f"/wattribute/receipts/{name}", method="GET"))
        fields = dict(start["headers"])
        assert fields[b"content-type"] == b"application/json"
        assert fields[b"cache-control"] == b"no-store"
        assert fields[b"content-length"] == str(len(body["body"])).encode()
        return start["status"], json.loads(body["body"])

    assert fetch(name) == (202, {"id": "abcd-0-0", "settled": False})
    meter.last.settled = True
    assert fetch(name) == (200, {"id": "abcd-0-0", "settled": True})
    for other in ("abcd-0-0", f"{name}0", name[:-1] + ("0" if name[-1] != "0" else "1"), "", "\udc80-é"):
        assert fetch(other)[0] == 404
    assert call(middleware, a_scope(f"/wattribute/receipts/{name}")) == OK  # a POST is the application's
    assert len(meter.requests) == 1
    with pytest.raises(ValueError, match="receipts_path"):
        MeterMiddleware(ok, receipts_path="receipts")


def test_the_lifespan_is_the_applications_and_a_given_meter_is_its_owners(meter: RecordingMeter) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for stage in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{stage}"
            await send({"type": f"lifespan.{stage}.complete"})

    told = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    sent = call(metered(app, meter), {"type": "lifespan", "asgi": {"version": "3.0"}}, *told)
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (meter.requests, meter.stops) == ([], 0)

    async def without(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("only http here")

    with pytest.raises(AssertionError, match="only http"):
        call(metered(without, meter), {"type": "lifespan"})
