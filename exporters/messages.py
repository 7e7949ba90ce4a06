"""HTTP/1.1 messages as far as a page server needs them: a request's head in, a response out (RFC 9112)."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request up to its body. Header names are in lower case; several of one name are joined by a comma."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    keep: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a route answers."""

    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Making(NamedTuple):
    """A response that takes long: `go_on` makes some milliseconds' worth of it, and gives it once it is all there."""

    go_on: Callable[[], Response | None]


Route: TypeAlias = Callable[[RequestHead], Response | Making]


class BadRequest(Exception):
    """The bytes are no request that we can answer; the connection ends with `response`."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.response = Response(status=status, body=f"{why}\n".encode())


BODY_BYTES = 64 * 1024
"""No page takes a body; one of up to this size is swallowed, so that who sends it gets to read the answer."""

_TLS_RECORD = 0x16  # what a TLS connection begins with
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_ALWAYS = (("X-Content-Type-Options", "nosniff"),)
_ABSOLUTE = re.compile(r"https?://[^/?]*", re.IGNORECASE)


def read_head(buffer: bytearray, max_bytes: int) -> tuple[RequestHead | None, int]:
    """The request at the buffer's start and its length in bytes; (None, 0) where it isn't all there yet.

    Raises BadRequest.
    """
    while buffer[:2] == b"\r\n":  # RFC 9112, 2.2: an empty line before a request is to be ignored
        del buffer[:2]
    if not buffer:
        return None, 0
    if not buffer[:1].isalpha():
        why = "TLS isn't spoken here" if buffer[0] == _TLS_RECORD else "this is no HTTP request"
        raise BadRequest(400, why)
    end = buffer.find(b"\r\n\r\n", 0, max_bytes)
    if end < 0:
        if len(buffer) >= max_bytes:
            raise BadRequest(431, f"the request's head is longer than {max_bytes} bytes")
        if b"\n\n" in buffer:
            raise BadRequest(400, "lines of a request end in CR LF")
        return None, 0
    line, *fields = buffer[:end].decode("latin-1").split("\r\n")
    request = _REQUEST_LINE.fullmatch(line)
    if request is None:
        raise BadRequest(400, "malformed request line")
    method, target, major, minor = request.groups()
    if major != "1":
        raise BadRequest(505, "HTTP/1.1 is spoken here")
    headers = _headers(fields)
    if (minor != "0" and "host" not in headers) or "," in headers.get("host", ""):
        raise BadRequest(400, "a request needs one Host header")
    path, _, query = _ABSOLUTE.sub("", target, count=1).partition("?")
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    keep = "keep-alive" in options if minor == "0" else "close" not in options
    has_body = _has_body(headers)
    return RequestHead(method, path or "/", query, headers, keep and not has_body), end + 4


def _headers(fields: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or "\0" in value or "\n" in value or "\r" in value:
            raise BadRequest(400, "malformed header")
        key = name.lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    return headers


def _has_body(headers: Mapping[str, str]) -> bool:
    """Whether a body follows, which ends the connection: where it ends isn't looked for. Raises BadRequest."""
    if "transfer-encoding" in headers:
        raise BadRequest(413, "no page here takes a body")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise BadRequest(400, "malformed Content-Length")
    if len(length) > 18 or int(length) > BODY_BYTES:
        raise BadRequest(413, "no page here takes a body")
    return int(length) > 0


def encoded(response: Response, *, keep: bool, body: bool = True) -> bytes:
    """A response as bytes; without the body for HEAD."""
    head = encoded_head(response, keep=keep)
    return head + response.body if body else head


def encoded_head(response: Response, *, keep: bool, more: Iterable[tuple[str, str]] = ()) -> bytes:
    """A response up to its body, with those headers of `more` that it doesn't have itself."""
    # A 304 has neither: they would be said of what the client has already (RFC 9110, 15.4.5).
    content = [f"Content-Type: {response.content_type}", f"Content-Length: {len(response.body)}"]
    headers = (*_ALWAYS, *response.headers)
    own = {name.lower() for name, _ in headers}
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        *(content if response.status != HTTPStatus.NOT_MODIFIED else ()),
        *(f"{name}: {value}" for name, value in headers),
        *(f"{name}: {value}" for name, value in more if name.lower() not in own),
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")
