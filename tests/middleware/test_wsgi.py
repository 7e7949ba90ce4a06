"""The WSGI middleware: when a request ends, how, whose it is, what it tells; and behind wsgiref's server."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from tests.middleware.recording import RecordingMeter

from wattribute.wsgi import MeterMiddleware, current


@pytest.fixture
def meter() -> RecordingMeter:
    return RecordingMeter()


def metered(app: Any, meter: Any, **options: Any) -> MeterMiddleware:
    return MeterMiddleware(app, meter=meter, **options)


class Call:
    """A request, as far as the application's return."""

    def __init__(self, app: Any, path: str = "/generate", method: str = "POST", wrapper: Any = None) -> None:
        environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method, "HTTP_X_TENANT": "acme"}
        environ["wsgi.file_wrapper"] = wrapper
        setup_testing_defaults(environ)
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.body = app(environ, self._start)

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        self.status, self.headers = status, headers
        return BytesIO().write


def at_once(environ: Any, start: StartResponse) -> list[bytes]:
    current(environ).add(token=2)
    start("200 OK", [("A", "b")])
    return [b"ok"]


class Parts:
    """A streamed body. `closed` is set by its `close`."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self._parts = iter(parts)
        self.closed = False

    def __call__(self, environ: Any, start: StartResponse) -> "Parts":
        start("200 OK", [])
        return self

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if isinstance(part, Exception):
                raise part
            yield part

    def close(self) -> None:
        self.closed = True


def test_a_body_that_is_all_there_is_returned_as_it_is(meter: RecordingMeter) -> None:
    done = Call(metered(at_once, meter))
    assert (done.status, done.headers, done.body) == ("200 OK", [("A", "b")], [b"ok"])
    assert [(one.units, one.aborted, one.tenant) for one in meter.requests] == [({"token": 2}, False, "")]
    file = FileWrapper(BytesIO(b"file"))
    assert Call(metered(lambda environ, start: file, meter), wrapper=FileWrapper).body is file
    assert meter.last.aborted is False


def test_a_streamed_body_ends_the_request_with_its_last_part(meter: RecordingMeter) -> None:
    parts = Parts(b"a", b"b")
    body = iter(Call(metered(parts, meter)).body)
    assert (next(body), next(body), meter.last.aborted) == (b"a", b"b", None)
    assert next(body, None) is None
    assert meter.last.aborted is False
    body.close()
    assert parts.closed
    assert meter.last.aborted is False


def test_a_client_that_goes_away_aborts_the_request(meter: RecordingMeter) -> None:
    parts = Parts(b"a", b"b")
    body = iter(Call(metered(parts, meter)).body)
    assert next(body) == b"a"
    body.close()
    assert (parts.closed, meter.last.aborted) == (True, True)


def test_exceptions_go_on_and_the_request_is_aborted(meter: RecordingMeter) -> None:
    def broken(environ: Any, start: StartResponse) -> list[bytes]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Call(metered(broken, meter))
    assert meter.last.aborted is True
    body = iter(Call(metered(Parts(b"a", OSError()), meter)).body)
    assert next(body) == b"a"
    assert meter.last.aborted is None
    with pytest.raises(OSError):
        next(body)
    assert meter.last.aborted is True


def test_an_answer_of_500_is_none(meter: RecordingMeter) -> None:
    def app(environ: Any, start: StartResponse) -> list[bytes]:
        start("500 Internal Server Error", [])
        return []

    Call(metered(app, meter))
    assert meter.last.aborted is True


def test_tenants_and_paths_that_are_skipped(meter: RecordingMeter) -> None:
    def broken(environ: Any) -> str:
        raise KeyError("organisation")

    tenants: list[str | Callable[[Any], str]] = [
        "header:X-Tenant",
        "header:X-Other",
        lambda e: str(e["PATH_INFO"]),
        broken,
    ]
    for tenant in tenants:
        assert Call(metered(at_once, meter, tenant=tenant)).body == [b"ok"]
    assert [one.tenant for one in meter.requests] == ["acme", "", "/generate", ""]
    assert Call(metered(at_once, meter), "/metrics").body == [b"ok"]
    assert len(meter.requests) == 4
    with pytest.raises(ValueError, match="tenant is 'header:NAME'"):
        MeterMiddleware(at_once, tenant="route")


def test_a_receipt_is_told_of_and_can_be_fetched(meter: RecordingMeter) -> None:
    app = metered(at_once, meter, receipts_path="/receipts/")
    told = dict(Call(app).headers)["Wattribute-Receipt"]
    name, _, rest = told.partition(";")
    assert rest == "energy-uj=1234;jsce-ng=56;asce-ng=78;settled=?0"
    path = "/receipts/" + name.strip('"')
    done = Call(app, path, "GET")
    assert (done.status, json.loads(b"".join(done.body))) == ("202 Accepted", {"id": "abcd-0-0", "settled": False})
    meter.last.settled = True
    done = Call(app, path, "HEAD")
    assert (done.status, list(done.body), dict(done.headers)["Content-Length"]) == ("200 OK", [], "36")
    assert Call(app, path + "0", "GET").status == "404 Not Found"
    assert Call(app, path).body == [b"ok"]
    assert len(meter.requests) == 1


def test_whatever_fails_here_the_response_is_untouched(meter: RecordingMeter) -> None:
    meter.broken = True
    done = Call(metered(at_once, meter, header=True))
    assert (done.headers, done.body) == ([("A", "b")], [b"ok"])


class Quiet(WSGIRequestHandler):
    """No line per request on stderr."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_behind_wsgirefs_server_by_the_letter_of_pep_3333(meter: RecordingMeter) -> None:
    def app(environ: dict[str, Any], start: StartResponse) -> Any:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        current(environ).add(byte=len(body))
        start("200 OK", [("Content-Type", "text/plain")])
        return [body] if environ["PATH_INFO"] == "/whole" else iter([body, body])

    # The validator raises where either side breaks the protocol.
    wrapped = validator(metered(validator(app), meter, header=True))
    with make_server("127.0.0.1", 0, wrapped, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            for path in ("/whole", "/streamed"):
                connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
                connection.request("POST", path, b"abc")
                response = connection.getresponse()
                assert response.headers["Wattribute-Receipt"].startswith(f'"{meter.last.id}";energy-uj=')
                assert response.read() == (b"abc" if path == "/whole" else b"abcabc")
                connection.close()
        finally:
            server.shutdown()
            thread.join()
    assert [(one.units, one.aborted) for one in meter.requests] == [({"byte": 3}, False)] * 2
