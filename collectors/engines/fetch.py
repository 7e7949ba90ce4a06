"""One GET of an engine's page: whole time and size bounded, no redirect followed, no proxy asked.

http.client rather than urllib: an engine is on this node or next to it, and a proxy of the environment isn't.
"""

import io
import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import SplitResult, urlsplit

from wattribute.agent.core.errors import SensorUnavailable

PAGE_BYTES = 8 * 2**20
_HEADERS = {
    "Accept": "text/plain;version=0.0.4, text/plain;q=0.5, */*;q=0.1",
    "Accept-Encoding": "identity",
    "User-Agent": "wattribute",
    "Connection": "close",
}


class _Draught(io.RawIOBase):
    """What a socket gives until a moment; each byte of a page that trickles would begin a time-out of its own."""

    def __init__(self, connected: socket.socket, until_s: float) -> None:
        self._socket = connected
        self._until_s = until_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)
        return self._socket.recv_into(buffer)


class _Bounded:
    """A connected socket, as http.client needs it. It stays open until the answer is read, and we close it."""

    def __init__(self, connected: socket.socket, until_s: float) -> None:
        self._socket = connected
        self._until_s = until_s
        self.sendall = connected.sendall

    def makefile(self, mode: str) -> io.BufferedReader:
        """What the answer is read from."""
        return io.BufferedReader(_Draught(self._socket, self._until_s))

    def close(self) -> None:
        """http.client lets go of it as soon as the answer begins."""


def split_url(url: str) -> SplitResult:
    """The parts of an engine's address; without a path it is `/metrics`. Raises ValueError where it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it isn't http://HOST:PORT/PATH")
    if parts.username or parts.password or any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError("it has a user or a character that no address has")
    _ = parts.port  # which raises ValueError where it is no number of a port
    return parts if parts.path.strip("/") else parts._replace(path="/metrics")


def fetch(url: str, timeout_s: float, now_ns: Callable[[], int], switch: str = "") -> tuple[bytes, int]:
    """The page, and when its answer began. Blocks for `timeout_s` or so. Raises SensorUnavailable, with the fix:
    `switch`, where the engine answers that it has no such page. `absent`: no engine is there.
    """
    parts = split_url(url)
    until_s = time.monotonic() + timeout_s
    try:
        connection = _connection(parts, timeout_s)
        connection.connect()
        with connection.sock as connected:
            connection.sock = _Bounded(connected, until_s)
            connection.request("GET", parts._replace(scheme="", netloc="", fragment="").geturl(), headers=_HEADERS)
            with connection.getresponse() as response:
                at_ns = now_ns()
                if response.status != 200:
                    raise _refused(response, switch)
                return _body(response), at_ns
    except (TimeoutError, OSError, HTTPException, ValueError) as error:
        raise _failed(error, timeout_s) from error


def _connection(parts: SplitResult, timeout_s: float) -> HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "http":
        return HTTPConnection(host, parts.port or 80, timeout=timeout_s)
    from http.client import HTTPSConnection

    return HTTPSConnection(host, parts.port or 443, timeout=timeout_s)


def _body(response: HTTPResponse) -> bytes:
    parts: list[bytes] = []
    left = PAGE_BYTES
    while part := response.read1(1 << 16):
        parts.append(part)
        left -= len(part)
        if left < 0:
            raise SensorUnavailable(
                f"its page is larger than {PAGE_BYTES >> 20} MiB", "point url at the engine's own page of metrics"
            )
    if response.length:
        raise HTTPException("the answer ended early")
    return b"".join(parts)


def _refused(response: HTTPResponse, switch: str) -> SensorUnavailable:
    status = response.status
    if 300 <= status < 400:
        told = (response.getheader("Location") or "elsewhere").rpartition("@")[2]
        where = "".join(one if one.isprintable() else "?" for one in told)
        return SensorUnavailable(
            f"it redirects ({status}) to {where:.200}", "set url to the address that answers itself"
        )
    if status in (401, 403):
        return SensorUnavailable(f"it answers {status}", "let its page of metrics be read without a key")
    if status in (404, 405, 501):
        return SensorUnavailable(f"it answers {status}: no page of metrics", switch or "set url to its page of metrics")
    return SensorUnavailable(f"it answers {status}", "look at the engine's log")


def _failed(error: Exception, timeout_s: float) -> SensorUnavailable:
    if isinstance(error, TimeoutError):
        return SensorUnavailable(
            f"no whole page within {timeout_s:g} s", "look whether the engine hangs, or raise timeout_s"
        )
    if isinstance(error, ConnectionRefusedError):
        return SensorUnavailable(
            "nobody listens there", "start the engine, or set url to its page of metrics", absent=True
        )
    if isinstance(error, OSError):
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            return SensorUnavailable(
                f"its certificate isn't trusted: {error.verify_message}", "set SSL_CERT_FILE to who signed it"
            )
        return SensorUnavailable(f"{error.strerror or error}", "set url to the engine's page of metrics")
    return SensorUnavailable(f"not an HTTP answer: {error!r:.200}", "set url to the engine's page of metrics")
