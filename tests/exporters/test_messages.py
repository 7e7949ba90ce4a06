"""Requests in, responses out, as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.exporters.messages import BadRequest, RequestHead, Response, encoded, read_head

LIMIT = 1024


def read(data: bytes) -> tuple[RequestHead | None, int]:
    return read_head(bytearray(data), LIMIT)


def test_a_scrape() -> None:
    request = b"GET /metrics?a=1 HTTP/1.1\r\nHost: node:1\r\nAccept: a/b\r\naccept:  c/d \r\n\r\n"
    head, length = read(request + b"GET /")
    assert head == RequestHead("GET", "/metrics", "a=1", {"host": "node:1", "accept": "a/b, c/d"}, keep=True)
    assert length == len(request)


@pytest.mark.parametrize(
    ("data", "keep"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", False),
        (b"\r\nGET http://node:1/ HTTP/1.1\r\nHost: x\r\n\r\n", True),
    ],
)
def test_which_connections_go_on(data: bytes, keep: bool) -> None:
    head, _ = read(data)
    assert head is not None
    assert (head.path, head.keep) == ("/", keep)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
        (b"GET / HTTP/1.0\n\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"a" * LIMIT, 431),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * LIMIT + b"\r\n\r\n", 431),
    ],
)
def test_what_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as refusal:
        read(data)
    assert refusal.value.response.status == status


@given(st.binary(max_size=2 * LIMIT))
def test_any_bytes_are_a_request_or_refused_or_unfinished(data: bytes) -> None:
    try:
        head, length = read(data)
    except BadRequest:
        return
    assert (head is None) == (length == 0)


@given(st.integers(0, 60))
def test_a_request_in_two_parts_is_read_once_it_is_whole(cut: int) -> None:
    whole = b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n"
    head, length = read(whole[:cut])
    assert (length == len(whole)) == (cut >= len(whole))
    assert (head is None) == (cut < len(whole))


def test_a_response() -> None:
    response = Response(status=404, body=b"not found\n", headers=(("A", "b"),))
    assert encoded(response, keep=True) == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 10\r\n"
        b"X-Content-Type-Options: nosniff\r\nA: b\r\nConnection: keep-alive\r\n\r\nnot found\n"
    )
    assert encoded(response, keep=False, body=False).endswith(b"Connection: close\r\n\r\n")
