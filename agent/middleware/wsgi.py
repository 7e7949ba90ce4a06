"""The meter as WSGI middleware: a request is in flight from the call of the application until its body is exhausted or
closed.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from wattribute.agent.middleware.metering import SKIPPED, UNMETERED, Metering, Unmetered, skipped, without_tenant
from wattribute.agent.middleware.response import FIELD, JSON_FIELDS, Telling

if TYPE_CHECKING:
    from wattribute.agent.meter.meter import Meter
    from wattribute.agent.meter.request import Request

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class MeterMiddleware:
    """Meters every request of `app` on behalf of `product` (default: WATTRIBUTE_PRODUCT_ID, else `default`).

    `tenant`: "header:NAME", or a function of the environ. `skip`: paths that aren't metered; one that ends with a
    slash stands for all below. `header`: responses tell of their receipt. `receipts_path`: where it can be fetched
    (turns `header` on). Raises ValueError for an argument that can't be.
    """

    def __init__(
        self,
        app: App,
        product: str | None = None,
        *,
        uses: Iterable[str] = (),
        tenant: str | Callable[[Environ], str] | None = None,
        skip: Iterable[str] = SKIPPED,
        header: bool = False,
        receipts_path: str | None = None,
        meter: "Meter | None" = None,
    ) -> None:
        self._app = app
        header = header or receipts_path is not None
        self._metering = Metering(product, uses, meter, receipts=header)
        self._telling = Telling(self._metering, receipts_path) if header else None
        self._receipts_below = self._telling.below if self._telling else ""
        self._skipped_exactly, below = skipped(skip)
        self._not_metered_below = (*below, self._receipts_below) if self._receipts_below else below
        self._tenant = _tenant_of(tenant)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """One request, as WSGI has it."""
        path = environ.get("PATH_INFO", "")
        if path in self._skipped_exactly or path.startswith(self._not_metered_below):
            return self._unmetered(path, environ, start_response)
        tenant = ""
        if self._tenant is not None:
            try:
                tenant = self._tenant(environ)
            except Exception:  # noqa: BLE001 - the user's function
                without_tenant()
        request = environ["wattribute.request"] = self._metering.begin(tenant)
        running = _Running(self._metering, request, start_response, self._telling)
        try:
            body = self._app(environ, running.start)
        except BaseException:
            running.end(aborted=True)
            raise
        if isinstance(body, list | tuple) or type(body) is environ.get("wsgi.file_wrapper"):
            running.end()  # all of it is there, and servers treat these two in ways of their own
            return body
        return _Body(body, running)

    def _unmetered(self, path: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        below, method = self._receipts_below, environ.get("REQUEST_METHOD")
        if self._telling is None or not below or not path.startswith(below) or method not in ("GET", "HEAD"):
            return self._app(environ, start_response)
        status, body = self._telling.answer(path.removeprefix(below))
        reason = {200: "OK", 202: "Accepted", 404: "Not Found"}[status]
        start_response(f"{status} {reason}", [*JSON_FIELDS, ("Content-Length", str(len(body)))])
        return [] if method == "HEAD" else [body]


class _Running:
    """A request in flight, and `start_response`, watched."""

    __slots__ = ("_metering", "_request", "_start_response", "_status", "_telling")

    def __init__(
        self,
        metering: Metering,
        request: "Request | Unmetered",
        start_response: StartResponse,
        telling: Telling | None,
    ) -> None:
        self._metering = metering
        self._request: Request | Unmetered | None = request
        self._start_response = start_response
        self._telling = telling
        self._status = ""

    def start(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        """`start_response`: the same, and the receipt is told of."""
        self._status = status
        if self._telling is not None and self._request is not None:
            value = self._telling.field(self._request)
            if value is not None:
                headers = [*headers, (FIELD, value)]
        return self._start_response(status, headers, *exc_info)

    def end(self, *, aborted: bool = False) -> None:
        """Ends the request, once; an answer of 5xx isn't one."""
        request, self._request = self._request, None
        if request is not None:
            self._metering.end(request, aborted or self._status.startswith("5"))


class _Body:
    """A response's body, watched: its end, or its being closed before, ends the request."""

    __slots__ = ("_body", "_parts", "_running")

    def __init__(self, body: Iterable[bytes], running: _Running) -> None:
        self._body = body
        self._parts: Iterator[bytes] | None = None
        self._running = running

    def __iter__(self) -> "_Body":
        return self

    def __next__(self) -> bytes:
        try:
            if self._parts is None:
                self._parts = iter(self._body)
            return next(self._parts)
        except StopIteration:
            self._running.end()
            raise
        except BaseException:
            self._running.end(aborted=True)
            raise

    def close(self) -> None:
        """What servers call after the last part, or when the client has gone."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._running.end(aborted=True)


def current(environ_or_request: Any) -> "Request | Unmetered":
    """The metered request of a WSGI environ, or of a framework's request object that has one; where it isn't metered,
    a stand-in that does nothing.
    """
    environ = getattr(environ_or_request, "environ", environ_or_request)
    found = environ.get("wattribute.request") if hasattr(environ, "get") else None
    return UNMETERED if found is None else found


def _tenant_of(tenant: str | Callable[[Environ], str] | None) -> Callable[[Environ], str] | None:
    if tenant is None or callable(tenant):
        return tenant
    kind, _, name = str(tenant).partition(":")
    if kind != "header" or not name:
        raise ValueError(f"tenant is 'header:NAME', a function or None, not {tenant!r}")
    key = "HTTP_" + name.strip().upper().replace("-", "_")

    def of_header(environ: Environ) -> str:
        return str(environ.get(key, ""))

    return of_header


__all__ = ["MeterMiddleware", "current"]
