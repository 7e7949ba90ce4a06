"""The gRPC interceptors in real servers, of threads and of asyncio: every kind of RPC, how each ends, whose it is."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from tests.middleware.recording import RecordingMeter

from wattribute.grpc import AioMeterInterceptor, MeterInterceptor, current

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
SERVICE = "/a.Model/"


@pytest.fixture
def meter() -> RecordingMeter:
    return RecordingMeter()


def of_threads(argument: Any, context: Any) -> bytes:
    """`fail` raises, `code` sets a status, anything else is counted and comes back."""
    said = argument if isinstance(argument, bytes) else b"".join(argument)
    if said == b"fail":
        raise ZeroDivisionError
    if said == b"abort":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
    if said == b"code":
        context.set_code(grpc.StatusCode.UNAVAILABLE)
    context.set_trailing_metadata((("own", "1"),))
    current().add(byte=len(said))
    return said


def of_threads_streamed(argument: Any, context: Any) -> Iterator[bytes]:
    for _ in range(3):
        yield of_threads(argument, context)
        argument = b"b"


async def of_asyncio(argument: Any, context: Any) -> bytes:
    said = argument if isinstance(argument, bytes) else b"".join([part async for part in argument])
    if said == b"abort":
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
    return of_threads(said, context)


async def of_asyncio_streamed(argument: Any, context: Any) -> AsyncIterator[bytes]:
    for _ in range(3):
        yield await of_asyncio(argument, context)
        argument = b"b"


async def of_asyncio_written(argument: Any, context: Any) -> None:
    async for part in of_asyncio_streamed(argument, context):
        await context.write(part)


def of_threads_endless(argument: bytes, context: Any) -> Iterator[bytes]:
    while True:
        yield argument
        time.sleep(0.001)


async def of_asyncio_endless(argument: bytes, context: Any) -> AsyncIterator[bytes]:
    while True:
        yield argument
        await asyncio.sleep(0.001)


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """`/a.Model/KIND` is a method of that kind; `written` and `threads` are asyncio's other ways."""

    def __init__(self, unary: Callable[..., Any], streamed: Callable[..., Any], endless: Callable[..., Any]) -> None:
        self._functions = {"unary": unary, "stream": streamed}
        self._endless = endless

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name == "written":
            return grpc.unary_stream_rpc_method_handler(of_asyncio_written)
        if name == "threads":
            return grpc.unary_stream_rpc_method_handler(of_threads_streamed)
        if name == "endless":
            return grpc.unary_stream_rpc_method_handler(self._endless)
        if name == "Check":
            name = "unary_unary"
        if name not in KINDS:
            return None
        return getattr(grpc, f"{name}_rpc_method_handler")(self._functions[name.partition("_")[2]])


class Threads:
    """A server of threads, and a client: `call` gives the parts of the answer and the trailing metadata."""

    def __init__(self, meter: Any, **options: Any) -> None:
        interceptors = [MeterInterceptor(meter=meter, **options)]
        self._server = grpc.server(ThreadPoolExecutor(2), interceptors=interceptors)
        self._server.add_generic_rpc_handlers((Handlers(of_threads, of_threads_streamed, of_threads_endless),))
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}")
        self._server.start()

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *exc: object) -> None:
        self._channel.close()
        self._server.stop(None).wait()

    def call(
        self, method: str, said: bytes = b"abc", metadata: tuple[tuple[str, str], ...] = ()
    ) -> tuple[list[bytes], dict[str, str]]:
        kind = method.rpartition("/")[2]
        kind = kind if kind in KINDS else "unary_unary" if kind == "Check" else "unary_stream"
        argument = said if kind.startswith("unary") else iter([said[:1], said[1:]])
        made = getattr(self._channel, kind)(method)
        options = {"metadata": metadata, "timeout": 10}
        if kind.endswith("stream"):
            call = made(argument, **options)
            parts = list(call)
        else:
            answer, call = made.with_call(argument, **options)
            parts = [answer]
        return parts, dict(call.trailing_metadata())


class Asyncio(Threads):
    """A server of asyncio in a thread of its own."""

    def __init__(self, meter: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(1)
        self._running = self._pool.submit(self._loop.run_forever)
        port = asyncio.run_coroutine_threadsafe(self._start(meter, options), self._loop).result(10)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    async def _start(self, meter: Any, options: dict[str, Any]) -> int:
        interceptors = [AioMeterInterceptor(meter=meter, **options)]
        self._served = grpc.aio.server(ThreadPoolExecutor(1), interceptors=interceptors)
        self._served.add_generic_rpc_handlers((Handlers(of_asyncio, of_asyncio_streamed, of_asyncio_endless),))
        port: int = self._served.add_insecure_port("127.0.0.1:0")
        await self._served.start()
        return port

    def __exit__(self, *exc: object) -> None:
        self._channel.close()
        asyncio.run_coroutine_threadsafe(self._served.stop(None), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._running.result(10)
        self._pool.shutdown()
        self._loop.close()


SERVERS = pytest.mark.parametrize("server", [Threads, Asyncio])


def ended(meter: RecordingMeter) -> bool | None:
    """How the last request ended; the server may be at it when the client has its answer."""
    until_s = time.monotonic() + 10
    while meter.last.aborted is None and time.monotonic() < until_s:
        time.sleep(0.005)
    return meter.last.aborted


@SERVERS
def test_every_kind_of_rpc_is_a_request(server: type[Threads], meter: RecordingMeter) -> None:
    others = ("written", "threads") if server is Asyncio else ()
    with server(meter, tenant="method", trailer=True) as running:
        for kind in (*KINDS, *others):
            parts, trailing = running.call(SERVICE + kind)
            streams = not kind.endswith("unary")
            assert parts == ([b"abc", b"b", b"b"] if streams else [b"abc"])
            assert ended(meter) is False
            assert meter.last.tenant == SERVICE + kind
            assert meter.last.units == {"byte": 5 if streams else 3}
            told = f'"{meter.last.id}";energy-uj=1234;jsce-ng=56;asce-ng=78;settled=?0'
            assert trailing.pop("wattribute-receipt", told if kind == "threads" else "") == told
            assert trailing == {"own": "1"}
    assert len(meter.requests) == 4 + len(others)


@SERVERS
def test_another_status_than_ok_aborts_it(server: type[Threads], meter: RecordingMeter) -> None:
    wrong = {b"fail": "UNKNOWN", b"abort": "INVALID_ARGUMENT", b"code": "UNAVAILABLE"}
    with server(meter) as running:
        for kind in ("unary_unary", "unary_stream"):
            for said, status in wrong.items():
                with pytest.raises(grpc.RpcError) as raised:
                    running.call(SERVICE + kind, said)
                assert raised.value.code().name == status
                assert ended(meter) is True
    assert len(meter.requests) == 6


@SERVERS
def test_a_client_that_goes_away_aborts_it(server: type[Threads], meter: RecordingMeter) -> None:
    with server(meter) as running:
        call = running._channel.unary_stream(SERVICE + "endless")(b"abc")
        assert (next(call), meter.last.aborted) == (b"abc", None)
        call.cancel()
        assert ended(meter) is True


@SERVERS
def test_tenants_and_what_is_not_metered(server: type[Threads], meter: RecordingMeter) -> None:
    with server(meter, tenant="metadata:X-Tenant") as running:
        for method in (SERVICE + "unary_unary", "/grpc.health.v1.Health/Check"):
            running.call(method, metadata=(("x-tenant", "acme"),))
        with pytest.raises(grpc.RpcError):
            running.call(SERVICE + "unknown")
        running.call(SERVICE + "unary_unary")
    assert [one.tenant for one in meter.requests] == ["acme", ""]
    with pytest.raises(ValueError, match="tenant is 'method'"):
        MeterInterceptor(tenant="route")
    assert current().id == ""


@SERVERS
def test_whatever_fails_here_the_answer_is_untouched(server: type[Threads], meter: RecordingMeter) -> None:
    meter.broken = True

    def broken(details: Any) -> str:
        raise KeyError("organisation")

    with server(meter, trailer=True, tenant=broken) as running:
        for kind in KINDS:
            parts, trailing = running.call(SERVICE + kind)
            assert (b"".join(parts)[:3], trailing) == (b"abc", {"own": "1"})


def test_what_is_written_for_experimental_parts_of_grpcio_is_left_alone(meter: Any) -> None:
    def answer(argument: bytes, context: Any) -> Iterator[bytes]:
        yield argument

    vars(answer)["experimental_thread_pool"] = None
    handler = grpc.unary_stream_rpc_method_handler(answer)

    class Details:
        method = SERVICE + "odd"

    assert MeterInterceptor(meter=meter).intercept_service(lambda details: handler, Details()) is handler
