"""The meter as interceptors of a gRPC server, for threads and for asyncio: a request is in flight from the call of the
handler to its return, streams in either direction included.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import grpc

from wattribute.agent.middleware.metering import UNMETERED, Metering, Unmetered, skipped, tell, without_tenant
from wattribute.agent.middleware.response import FIELD, Telling
from wattribute.agent.process import here

if TYPE_CHECKING:
    from wattribute.agent.meter.meter import Meter
    from wattribute.agent.meter.request import Request

SKIPPED = (
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
)
_EXPERIMENTAL = ("experimental_non_blocking", "experimental_thread_pool")  # attributes that change how grpcio calls
_FINE = (None, 0, grpc.StatusCode.OK)  # 0: asyncio's, where a handler set none

_current: ContextVar["Request | Unmetered"] = ContextVar("wattribute_request", default=UNMETERED)


class _Rpc:
    """One RPC: its handler's function, and what is done around it. One method for each way a handler can be written."""

    __slots__ = ("_function", "_metering", "_telling", "_tenant")

    def __init__(self, metering: Metering, telling: Telling | None, tenant: str, function: Callable[..., Any]) -> None:
        self._metering = metering
        self._telling = telling
        self._tenant = tenant
        self._function = function

    def answer(self, argument: Any, context: Any) -> Any:
        request = self._metering.begin(self._tenant)
        token = _current.set(request)
        try:
            answer = self._function(argument, context)
        except BaseException:
            self._metering.end(request, True)
            raise
        finally:
            _current.reset(token)
        self._end(request, context)
        return answer

    def stream(self, argument: Any, context: Any) -> Iterator[Any]:
        request = self._metering.begin(self._tenant)
        parts: Iterator[Any] | None = None
        try:
            while True:
                token = _current.set(request)  # at each step: between two, the thread may serve others
                try:
                    if parts is None:
                        parts = iter(self._function(argument, context))
                    part = next(parts)
                except StopIteration:
                    break
                finally:
                    _current.reset(token)
                yield part
        except BaseException:
            self._metering.end(request, True)
            raise
        self._end(request, context)

    async def answer_async(self, argument: Any, context: Any) -> Any:
        request = self._metering.begin(self._tenant)
        _current.set(request)  # the task is this RPC's
        try:
            answer = await self._function(argument, context)
        except BaseException:
            self._metering.end(request, True)
            raise
        self._end(request, context)
        return answer

    async def stream_async(self, argument: Any, context: Any) -> AsyncIterator[Any]:
        request = self._metering.begin(self._tenant)
        _current.set(request)
        try:
            async for part in self._function(argument, context):
                yield part
        except BaseException:
            self._metering.end(request, True)
            raise
        self._end(request, context)

    def _end(self, request: "Request | Unmetered", context: Any) -> None:
        aborted = False
        try:
            aborted = not _answered(context)
            kept = getattr(
                context, "trailing_metadata", None
            )  # where it can't be asked, the handler's own would be lost
            if self._telling is not None and kept is not None and not aborted:
                value = self._telling.field(request)
                if value is not None:
                    context.set_trailing_metadata((*(kept() or ()), (FIELD.lower(), value)))
        except Exception:  # noqa: BLE001 - the answer goes on without
            tell("telling of a receipt")
        self._metering.end(request, aborted)


def _answered(context: Any) -> bool:
    """Whether a handler that returned leaves the status OK, and a client who waits for it.

    asyncio's context for a handler that runs in a thread tells neither; threads' alone is asked for the client, of
    whom asyncio tells by an exception.
    """
    code, is_active = getattr(context, "code", None), getattr(context, "is_active", None)
    return (code is None or code() in _FINE) and (is_active is None or is_active())


class _Interceptor:
    """What both interceptors share."""

    def __init__(
        self,
        product: str | None = None,
        *,
        uses: Iterable[str] = (),
        tenant: str | Callable[[Any], str] | None = None,
        skip: Iterable[str] = SKIPPED,
        trailer: bool = False,
        meter: "Meter | None" = None,
    ) -> None:
        self._metering = Metering(product, uses, meter, receipts=trailer)
        self._telling = Telling(self._metering, None) if trailer else None
        self._skipped_exactly, self._skipped_below = skipped(skip)
        self._tenant = _tenant_of(tenant)

    def _metered(self, handler: Any, details: Any) -> Any:
        if handler is None or details.method in self._skipped_exactly or details.method.startswith(self._skipped_below):
            return handler
        sides = (handler.request_streaming, handler.response_streaming)
        kind = "_".join("stream" if streaming else "unary" for streaming in sides)
        function = getattr(handler, kind)
        if any(hasattr(function, name) for name in _EXPERIMENTAL):
            here().say_once(
                "experimental", "%s is not metered: it is written for an experimental part of grpcio", details.method
            )
            return handler
        tenant = ""
        if self._tenant is not None:
            try:
                tenant = self._tenant(details)
            except Exception:  # noqa: BLE001 - the user's function
                without_tenant()
        rpc = _Rpc(self._metering, self._telling, tenant, function)
        if inspect.isasyncgenfunction(function):
            metered: Callable[..., Any] = rpc.stream_async
        elif inspect.iscoroutinefunction(function):
            metered = rpc.answer_async
        else:
            metered = rpc.stream if handler.response_streaming else rpc.answer
        made = getattr(grpc, f"{kind}_rpc_method_handler")
        return made(metered, handler.request_deserializer, handler.response_serializer)


class MeterInterceptor(_Interceptor, grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Meters every RPC of a `grpc.server` on behalf of `product` (default: WATTRIBUTE_PRODUCT_ID, else `default`).

    `tenant`: "method", "metadata:KEY", or a function of grpc.HandlerCallDetails. `skip`: methods that aren't metered;
    one that ends with a slash stands for all of a service. `trailer`: the trailing metadata tell of the receipt.
    Raises ValueError for an argument that can't be.
    """

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The handler of an RPC, metered."""
        return self._metered(continuation(handler_call_details), handler_call_details)


class AioMeterInterceptor(_Interceptor, grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """The same for a `grpc.aio.server`."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """The handler of an RPC, metered."""
        return self._metered(await continuation(handler_call_details), handler_call_details)


def current() -> "Request | Unmetered":
    """The metered request of the RPC whose handler this is called in; else a stand-in that does nothing."""
    return _current.get()


def _tenant_of(tenant: str | Callable[[Any], str] | None) -> Callable[[Any], str] | None:
    if tenant is None or callable(tenant):
        return tenant
    if tenant == "method":
        return lambda details: str(details.method)
    kind, _, name = str(tenant).partition(":")
    if kind != "metadata" or not name:
        raise ValueError(f"tenant is 'method', 'metadata:KEY', a function or None, not {tenant!r}")
    wanted = name.strip().lower()

    def of_metadata(details: Any) -> str:
        for key, value in details.invocation_metadata or ():
            if key == wanted:
                return value if isinstance(value, str) else value.decode("utf-8", "replace")
        return ""

    return of_metadata


__all__ = ["AioMeterInterceptor", "MeterInterceptor", "current"]
