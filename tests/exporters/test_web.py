"""The server, with real sockets: the test is the event loop that it lives in."""

import contextlib
import errno
import http.client
import logging
import selectors
import socket
import threading
from collections.abc import Iterator

import pytest
from tests.exporters.web_loop import BIG, PATIENCE_S, Loop, get, status

from wattribute.agent.core.errors import WattributeError
from wattribute.exporters.web import WebServer
from wattribute.exporters.web.connection import LIMIT_S, MAX_HEAD_BYTES
from wattribute.exporters.web.server import MAX_CONNECTIONS, MAX_SCRAPES


@pytest.fixture
def loop() -> Iterator[Loop]:
    with contextlib.closing(Loop()) as made:
        yield made


def test_a_connection_is_kept_for_the_next_scrape(loop: Loop) -> None:
    client = loop.connect()
    for i in range(3):
        answer = loop.ask(client, get(f"/?{i}"))
        assert status(answer) == 200
        assert answer.endswith(b"Connection: keep-alive\r\n\r\n%d" % i)
    assert not loop.is_closed(client)


def test_close_is_obeyed(loop: Loop) -> None:
    client = loop.connect()
    client.sendall(get("/", "Connection: close"))
    assert loop.read(client, lambda got: False).endswith(b"hello\n")


def test_pipelined_requests_are_answered_in_turn(loop: Loop) -> None:
    client = loop.connect()
    client.sendall(b"".join(get(f"/?<{i}>") for i in range(50)))
    got = loop.read(client, lambda got: b"<49>" in got)
    assert [got.index(b"<%d>" % i) for i in range(50)] == sorted(got.index(b"<%d>" % i) for i in range(50))
    assert got.count(b"HTTP/1.1 200 OK") == 50


def test_pipelined_big_pages_come_whole(loop: Loop) -> None:
    client = loop.connect()
    client.sendall(get("/big") * 3 + get("/?end", "Connection: close"))
    got = loop.read(client, lambda got: False)
    assert got.count(BIG) == 3
    assert got.endswith(b"end")


def test_a_request_may_come_byte_by_byte(loop: Loop) -> None:
    client = loop.connect()
    for byte in get("/?slowly")[:-1]:
        client.sendall(bytes([byte]))
        loop.turn(1.0)
    assert loop.ask(client, b"\n").endswith(b"slowly")


def test_head_has_the_length_and_no_body(loop: Loop) -> None:
    client = loop.connect()
    client.sendall(b"HEAD /big HTTP/1.1\r\nHost: node\r\n\r\n" + get("/"))
    got = loop.read(client, lambda got: got.endswith(b"hello\n"))
    assert b"Content-Length: %d\r\n" % len(BIG) in got
    assert got.count(b"HTTP/1.1 200 OK") == 2
    assert len(got) < 1000


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (get("/nowhere"), 404),
        (b"POST / HTTP/1.1\r\nHost: node\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE / HTTP/1.1\r\nHost: node\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (get("/", "A: " + "a" * MAX_HEAD_BYTES), 431),
        (b"GET /" + b"a" * 100_000, 431),
    ],
)
def test_what_is_no_good_request_gets_an_answer(loop: Loop, request_: bytes, expected: int) -> None:
    client = loop.connect()
    assert status(loop.ask(client, request_)) == expected


def test_after_garbage_the_connection_ends_and_others_go_on(loop: Loop) -> None:
    bad, good = loop.connect(), loop.connect()
    assert status(loop.ask(bad, b"\xff\xfe\r\n\r\n")) == 400
    assert loop.read(bad, lambda got: False) == b""
    assert status(loop.ask(good, get("/"))) == 200


def test_a_page_with_a_bug_is_a_500_and_a_traceback(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    client = loop.connect()
    with caplog.at_level(logging.ERROR):
        assert status(loop.ask(client, get("/broken"))) == 500
    assert "ZeroDivisionError" in caplog.text
    assert status(loop.ask(client, get("/"))) == 200


def test_ten_scrapers_at_once_while_one_never_reads(loop: Loop) -> None:
    stuck = loop.connect()
    stuck.sendall(get("/big") * 4)
    got: list[int] = []

    def scrape() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", loop.server.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            for _ in range(3):
                connection.request("GET", "/big")
                got.append(len(connection.getresponse().read()))

    threads = [threading.Thread(target=scrape) for _ in range(10)]
    for thread in threads:
        thread.start()
    loop.until(lambda: not any(thread.is_alive() for thread in threads))
    for thread in threads:
        thread.join()
    assert got == [len(BIG)] * 30


def test_a_client_that_dawdles_over_its_head_is_closed(loop: Loop) -> None:
    client = loop.connect()
    client.sendall(b"GET / HT")
    loop.turn(1.0)
    loop.turn(0.05)
    loop.server.expire(100.0)
    client.sendall(b"TP")  # a dribble doesn't start the time anew
    loop.turn(0.05)
    loop.server.expire(100.0 + LIMIT_S["head"] - 1)
    assert not loop.is_closed(client)
    loop.server.expire(100.0 + LIMIT_S["head"])
    assert loop.is_closed(client)


def test_a_client_that_does_not_read_is_closed(loop: Loop) -> None:
    client = loop.connect()
    client.sendall(get("/big"))
    loop.until(lambda: loop.selector.get_map() is not None and any_writing(loop))
    loop.server.expire(100.0)
    loop.server.expire(100.0 + LIMIT_S["write"])
    got = loop.read(client, lambda got: False)
    assert 0 < len(got) < len(BIG)


def any_writing(loop: Loop) -> bool:
    return any(key.events == selectors.EVENT_WRITE for key in loop.selector.get_map().values())


def test_an_idle_connection_lives_a_minute(loop: Loop) -> None:
    client = loop.connect()
    loop.ask(client, get("/"))
    loop.server.expire(100.0)
    loop.server.expire(100.0 + LIMIT_S["idle"] - 1)
    assert not loop.is_closed(client)
    loop.ask(client, get("/"))
    loop.server.expire(100.0 + LIMIT_S["idle"])
    assert not loop.is_closed(client)
    loop.server.expire(100.0 + 2 * LIMIT_S["idle"])
    assert loop.is_closed(client)


def test_a_busy_pipeline_is_not_taken_for_a_slow_head(loop: Loop) -> None:
    client = loop.connect()
    client.sendall(get("/?0") + b"GET /")
    loop.read(client, lambda got: got.endswith(b"0"))
    for i in range(1, 20):  # there is always the beginning of the next request
        loop.server.expire(float(i))
        assert loop.ask(client, get(f"/?{i}")[5:] + b"GET /").endswith(b"\r\n\r\n%d" % i)
    assert not loop.is_closed(client)


def test_of_too_many_the_oldest_idle_one_gives_way(loop: Loop) -> None:
    clients = [loop.connect() for _ in range(MAX_CONNECTIONS)]
    for client in clients:
        loop.ask(client, get("/"))
    late = loop.connect()
    assert status(loop.ask(late, get("/"))) == 200
    assert loop.is_closed(clients[0])
    assert not loop.is_closed(clients[1])


def test_who_has_not_asked_for_anything_gives_way_to_who_does(loop: Loop) -> None:
    slow = [loop.connect() for _ in range(MAX_CONNECTIONS)]
    for client in slow:
        client.sendall(b"GET / HTTP/1.1\r\n")
    loop.until(lambda: len(loop.selector.get_map()) > MAX_CONNECTIONS)
    late = loop.connect()
    assert status(loop.ask(late, get("/"))) == 200
    assert loop.is_closed(slow[0])
    assert not loop.is_closed(slow[1])
    assert loop.server.refused["busy"] == 1


def test_who_was_answered_and_does_not_go_gives_way(loop: Loop) -> None:
    for _ in range(MAX_CONNECTIONS):
        assert status(loop.ask(loop.connect(), get("/nowhere", "Connection: close"))) == 404  # and is waited for
    assert status(loop.ask(loop.connect(), get("/"))) == 200


def test_so_many_pages_are_written_at_once_and_the_slowest_gives_way(loop: Loop) -> None:
    slow = [loop.connect() for _ in range(MAX_SCRAPES)]
    for client in slow:
        client.sendall(get("/big"))
    loop.until(lambda: not loop.server.has_room())
    assert status(loop.ask(loop.connect(), get("/big"))) == 503
    assert loop.server.refused["busy"] == 1
    loop.server.expire(100.0)
    assert len(loop.ask(loop.connect(), get("/big"))) > len(BIG)
    assert loop.server.refused["busy"] == 2
    assert len(loop.read(slow[0], lambda got: False)) < len(BIG)


def test_without_descriptors_the_server_waits_and_comes_back(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    client = loop.connect()
    with monkeypatch.context() as patched:

        def exhausted(_listener: socket.socket) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        patched.setattr(socket.socket, "accept", exhausted)
        for key, mask in 2 * loop.selector.select(1.0):  # as of a host with two addresses
            key.data(mask)
        assert not loop.selector.get_map()  # it doesn't spin over a listener that stays readable
    loop.server.expire(1.0)
    assert status(loop.ask(client, get("/"))) == 200


def test_a_port_in_use_says_so_and_how_to_go_on(loop: Loop) -> None:
    with selectors.DefaultSelector() as selector, pytest.raises(WattributeError) as failure:
        WebServer(selector, "127.0.0.1", loop.server.port, {})
    assert f"port {loop.server.port} is in use" in str(failure.value)
    assert "--listen" in str(failure.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_says_so(host: str) -> None:
    with selectors.DefaultSelector() as selector, pytest.raises(WattributeError, match=r"can't listen on .*Fix: "):
        WebServer(selector, host, 0, {})


@pytest.mark.parametrize("host", ["[::1]", "::1"])
def test_ipv6_literals(host: str) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    try:
        made = Loop(host)
    except WattributeError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRNOTAVAIL:
            pytest.skip("no ::1 on this machine")
        raise
    with contextlib.closing(made) as loop:
        client = loop.clients.enter_context(socket.create_connection(("::1", loop.server.port), timeout=PATIENCE_S))
        client.setblocking(False)
        assert status(loop.ask(client, get("/"))) == 200


def test_a_name_is_served_on_each_of_its_addresses() -> None:
    with contextlib.closing(Loop("localhost")) as loop:
        assert status(loop.ask(loop.connect(), get("/"))) == 200


def test_closing_leaves_nothing_registered_and_may_be_repeated(loop: Loop) -> None:
    client = loop.connect()
    loop.ask(client, get("/"))
    loop.server.close()
    assert not loop.selector.get_map()
    assert loop.is_closed(client)
    loop.server.close()
