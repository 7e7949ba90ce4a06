"""The meter as ASGI middleware: a request is in flight from the call of the application to its return, streamed bodies
and websockets included.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from wattribute.agent.middleware.metering import SKIPPED, UNMETERED, Metering, Unmetered, skipped, tell, without_tenant
from wattribute.agent.middleware.response import FIELD, JSON_FIELDS, Telling
from wattribute.agent.middleware.routes import Routes

if TYPE_CHECKING:
    from wattribute.agent.meter.meter import Meter
    from wattribute.agent.meter.request import Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FIELD = FIELD.lower().encode()


class MeterMiddleware:
    """Meters every request of `app` on behalf of `product` (default: WATTRIBUTE_PRODUCT_ID, else `default`).

    `tenant`: "route" (its template), "header:NAME", or a function of the scope. `skip`: paths that aren't metered;
    one that ends with a slash stands for all below. `header`: responses tell of their receipt. `receipts_path`: where
    it can be fetched (turns `header` on). Raises ValueError for an argument that can't be.
    """

    def __init__(
        self,
        app: App,
        product: str | None = None,
        *,
        uses: Iterable[str] = (),
        tenant: str | Callable[[Scope], str] | None = None,
        skip: Iterable[str] = SKIPPED,
        header: bool = False,
        receipts_path: str | None = None,
        meter: "Meter | None" = None,
    ) -> None:
        self._app = app
        header = header or receipts_path is not None
        self._metering = Metering(product, uses, meter, receipts=header)
        self._begin = self._metering.begin
        self._telling = Telling(self._metering, receipts_path) if header else None
        self._receipts_below = self._telling.below if self._telling else ""
        self._skipped_exactly, below = skipped(skip)
        self._not_metered_below = (*below, self._receipts_below) if self._receipts_below else below
        self._tenant = _tenant_of(tenant, app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(scope, receive, send)
            return
        path = scope["path"]
        if root := scope.get("root_path"):
            path = path.removeprefix(root)
        below = self._not_metered_below
        if path in self._skipped_exactly or (below and path.startswith(below)):
            await self._unmetered(path, scope, receive, send)
            return
        tenant = ""
        if self._tenant is not None:
            try:
                tenant = self._tenant(scope)
            except Exception:  # noqa: BLE001 - the user's function, or headers that aren't as ASGI has them
                without_tenant()
        request = scope["wattribute"] = self._begin(tenant)
        if self._telling is not None:
            send = _TellingSend(send, self._telling, request)
        status, whole = 0, kind != "http"  # a websocket has no response

        def watched(
            message: Message,
        ) -> Awaitable[None]:  # not a coroutine: each one more would cost as much as all this
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body"):
                whole = True
            return send(message)

        try:
            await self._app(scope, receive, watched)
        except BaseException:
            self._metering.end(request, True)
            raise
        try:  # as Metering.end, a call less
            request.end(None, not whole or status >= 500)
        except Exception:  # noqa: BLE001 - the response is out already
            tell("ending a request")

    async def _unmetered(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        below = self._receipts_below
        if below and path.startswith(below) and scope.get("method") in ("GET", "HEAD"):
            await self._answer(path.removeprefix(below), send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The meter opens before the application's startup, and ends after its shutdown."""
        down = False

        async def hear() -> Message:
            nonlocal down
            message = await receive()
            down = message["type"] == "lifespan.shutdown"
            return message

        self._metering.start()
        try:
            await self._app(scope, hear, send)
        finally:
            if down:  # an application without a lifespan returns or raises at once, and is served nevertheless
                self._metering.stop()

    async def _answer(self, name: str, send: Send) -> None:
        assert self._telling is not None
        status, body = self._telling.answer(name)
        fields = [*JSON_FIELDS, ("Content-Length", str(len(body)))]
        headers = [(key.lower().encode(), value.encode()) for key, value in fields]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _TellingSend:
    """`send`, and the response tells of its receipt."""

    __slots__ = ("_request", "_send", "_telling")

    def __init__(self, send: Send, telling: Telling, request: "Request | Unmetered") -> None:
        self._send = send
        self._telling = telling
        self._request = request

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] in ("http.response.start", "websocket.accept"):
            value = self._telling.field(self._request)
            if value is not None:
                message = {**message, "headers": [*(message.get("headers") or ()), (_FIELD, value.encode())]}
        return self._send(message)


def current(scope_or_request: Any) -> "Request | Unmetered":
    """The metered request of an ASGI scope, or of a framework's request object that has one; where it isn't metered,
    a stand-in that does nothing.
    """
    scope = getattr(scope_or_request, "scope", scope_or_request)
    found = scope.get("wattribute") if hasattr(scope, "get") else None
    return UNMETERED if found is None else found


def _tenant_of(tenant: str | Callable[[Scope], str] | None, app: App) -> Callable[[Scope], str] | None:
    if tenant is None or callable(tenant):
        return tenant
    if tenant == "route":
        return Routes(app).template
    kind, _, name = str(tenant).partition(":")
    if kind != "header" or not name:
        raise ValueError(f"tenant is 'route', 'header:NAME', a function or None, not {tenant!r}")
    key = name.strip().lower().encode()

    def of_header(scope: Scope) -> str:
        for field, value in scope["headers"]:
            if field == key:
                return value.decode("latin-1")  # type: ignore[no-any-return]
        return ""

    return of_header


__all__ = ["MeterMiddleware", "current"]
