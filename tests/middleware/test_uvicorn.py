"""FastAPI behind a real uvicorn: a streamed answer, a client that goes away, a websocket, the header, a receipt."""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from tests.middleware.recording import RecordingMeter
from websockets.sync.client import connect

from wattribute.asgi import MeterMiddleware, current


def an_app(meter: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(MeterMiddleware, meter=meter, tenant="route", receipts_path="/receipts")

    @app.get("/count/{parts}")
    async def count(parts: int, request: Request) -> StreamingResponse:
        async def counted() -> AsyncIterator[bytes]:
            for _ in range(parts):
                current(request).add(part=1)
                yield b"x" * 1000
                await asyncio.sleep(0)

        return StreamingResponse(counted())

    @app.get("/wrong/{status}")
    def wrong(status: int) -> None:
        if status:
            raise HTTPException(status)
        raise ZeroDivisionError

    @app.websocket("/echo/{room}")
    async def echo(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            current(websocket).add(character=len(text))
            await websocket.send_text(text)

    return app


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[RecordingMeter, int]]:
    meter = RecordingMeter()
    config = uvicorn.Config(an_app(meter), port=0, log_level="critical", lifespan="on", ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield meter, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def eventually(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.002)


def get(port: int, path: str) -> tuple[int, bytes, str | None]:
    """(status, body, the header) of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers["Wattribute-Receipt"]
    connection.close()
    return found


def test_a_stream_is_one_request_and_its_receipt_can_be_fetched(served: tuple[RecordingMeter, int]) -> None:
    meter, port = served
    status, body, told = get(port, "/count/3")
    assert (status, body) == (200, b"x" * 3000)
    assert told is not None
    eventually(lambda: meter.last.aborted is False)
    assert (meter.last.units, meter.last.tenant) == ({"part": 3}, "/count/{parts}")
    name, _, rest = told.partition(";")
    assert rest == "energy-uj=1234;jsce-ng=56;asce-ng=78;settled=?0"
    status, body, told = get(port, "/receipts/" + name.strip('"'))
    assert (status, json.loads(body), told) == (202, {"id": meter.last.id, "settled": False}, None)


def test_a_client_that_goes_away_in_mid_stream_aborts_it(served: tuple[RecordingMeter, int]) -> None:
    meter, port = served
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/count/1000000000")
    answer = connection.getresponse()
    assert answer.read(5000) == b"x" * 5000
    assert meter.last.aborted is None
    answer.close()
    connection.close()
    eventually(lambda: meter.last.aborted is not None)
    assert meter.last.aborted is True


@pytest.mark.parametrize(("wrong", "status", "aborted"), [(0, 500, True), (503, 503, True), (404, 404, False)])
def test_an_error_is_answered_as_without_us(
    served: tuple[RecordingMeter, int], wrong: int, status: int, aborted: bool
) -> None:
    meter, port = served
    assert get(port, f"/wrong/{wrong}")[0] == status
    eventually(lambda: meter.last.aborted is aborted)


def test_a_websocket_is_one_request_from_accept_to_close(served: tuple[RecordingMeter, int]) -> None:
    meter, port = served
    with connect(f"ws://127.0.0.1:{port}/echo/7") as websocket:
        for text in ("ab", "abc"):
            websocket.send(text)
            assert websocket.recv(10) == text
        assert meter.last.aborted is None
        assert websocket.response is not None
        assert websocket.response.headers["Wattribute-Receipt"].startswith(f'"{meter.last.id}-')
    eventually(lambda: meter.last.aborted is False)
    assert (meter.last.units, meter.last.tenant) == ({"character": 5}, "/echo/{room}")
