"""One GET against a server that does everything wrong."""

import socket
import threading
from email.utils import formatdate
from time import time

import pytest
from tests.doubles.grid_server import GridServer, drips, hangs, says

from wattribute.collectors.grid.feed import Unanswered
from wattribute.collectors.grid.http import ANSWER_BYTES, MOST_WAIT_S, get, is_private, redacted


def failure(url: str, timeout_s: float = 5, secrets: tuple[str, ...] = ()) -> Unanswered:
    with pytest.raises(Unanswered) as caught:
        get(url, {}, timeout_s, secrets)
    return caught.value


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "refused"),
        (401, "auth"),
        (403, "auth"),
        (404, "refused"),
        (429, "rate_limited"),
        (500, "server"),
        (503, "server"),
    ],
)
def test_each_refusal_has_a_name_and_what_was_said(server: GridServer, status: int, reason: str) -> None:
    server.trouble = says(status, b'{"message":"no,\x1b[31m really"}')
    error = failure(server.url)
    assert error.reason == reason
    assert error.cause == f'it answers {status}: {{"message":"no, [31m really"}}'  # no terminal sequence gets through


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("7", 7, 7), ("999999", MOST_WAIT_S, MOST_WAIT_S), ("in 100 s", 80, 100)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_heard(server: GridServer, status: int, header: str, low: float, high: float) -> None:
    moment = formatdate(time() + 100, usegmt=True)
    server.trouble = says(status, Retry_After=moment if header == "in 100 s" else header)
    wait_s = failure(server.url).retry_after_s
    assert wait_s is not None and low <= wait_s <= high


@pytest.mark.parametrize("header", ["soon", "-5", "1e9", "٣", ""])
def test_a_retry_after_that_says_nothing_is_none(server: GridServer, header: str) -> None:
    server.trouble = says(429, Retry_After=header.encode().decode("latin-1"))
    assert failure(server.url).retry_after_s is None


@pytest.mark.parametrize("trouble", [hangs, drips])
def test_no_answer_and_a_slow_one_end_in_time(server: GridServer, trouble: object) -> None:
    server.trouble = trouble  # type: ignore[assignment]
    assert failure(server.url, timeout_s=0.3).reason == "timeout"


def test_a_key_isnt_carried_to_where_a_redirect_points(server: GridServer) -> None:
    with GridServer() as elsewhere:
        server.trouble = says(302, Location=f"{elsewhere.url}/x")
        error = failure(server.url)
        assert error.reason == "redirect"
        assert elsewhere.url.removeprefix("http://") in error.cause
        assert elsewhere.asked == []


def test_an_answer_without_end_is_cut(server: GridServer) -> None:
    server.trouble = says(200, b" " * (ANSWER_BYTES + 1))
    assert failure(server.url).reason == "too_large"


def test_nobody_there_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert failure(url).reason == "connection"


@pytest.mark.parametrize(
    "said", [b"", b"hello\r\n", b"HTTP/1.1 banana\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
def test_what_isnt_http_is_a_failure(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        error = failure(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert error.reason in ("garbage", "connection")


def test_tls_is_verified(server: GridServer) -> None:
    assert failure(server.url.replace("http:", "https:")).reason == "tls"


def test_a_key_isnt_sent_where_others_can_read_it() -> None:
    error = failure("http://example.invalid/x", secrets=("k",))
    assert error.reason == "key"


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://a.example/", True),
        ("http://127.0.0.1:9/", True),
        ("http://localhost/", True),
        ("http://[::1]:9/", True),
        ("http://127.0.0.1.example/", False),
        ("http://10.0.0.1/", False),
        ("http://127.0.0.1@evil.example/", False),
    ],
)
def test_what_is_private(url: str, private: bool) -> None:
    assert is_private(url) is private


def test_secrets_leave_no_trace() -> None:
    assert redacted("key=abc&x=abcabc, , d", ("abc", "")) == "key=***&x=******, , d"
