"""A page that takes long is made in the loop's turns, and the others are served in between."""

import contextlib
import logging
from collections.abc import Iterator
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.exporters.snapshots import jobs, snapshot
from tests.exporters.web_loop import Loop, get, status

from wattribute.agent.core.model import Snapshot
from wattribute.exporters.messages import Making, RequestHead, Response
from wattribute.exporters.prometheus import PrometheusPage, Rendering


@pytest.fixture
def loop() -> Iterator[Loop]:
    with contextlib.closing(Loop()) as made:
        yield made


def test_others_are_answered_while_it_is_made(loop: Loop) -> None:
    waiting, other = loop.connect(), loop.connect()
    waiting.sendall(get("/slow"))
    loop.turn(1.0)
    for number in range(5):
        assert status(loop.ask(other, get(f"/?{number}"))) == 200
    with pytest.raises(BlockingIOError):
        waiting.recv(1)
    assert loop.read(waiting, lambda got: got.endswith(b"slow\n"))
    assert status(loop.ask(waiting, get("/"))) == 200


def test_of_many_one_is_made_at_a_time(loop: Loop) -> None:
    pieces: list[str] = []

    def counted(request: RequestHead) -> Making:
        left = iter(range(3))

        def go_on() -> Response | None:
            pieces.append(request.query)
            return Response(body=b"made\n") if next(left, None) is None else None

        return Making(go_on)

    loop.server.routes = {"/counted": counted}
    clients = [loop.connect() for _ in range(5)]
    for number, client in enumerate(clients):
        client.sendall(get(f"/counted?{number}"))
    while len(pieces) < 20:
        before = len(pieces)
        loop.turn(1.0)
        assert len(pieces) <= before + 1
    assert len(list(groupby(pieces))) == 5
    for client in clients:
        assert loop.read(client, lambda got: got.endswith(b"made\n"))


def test_what_is_asked_after_it_comes_after_it(loop: Loop) -> None:
    client = loop.connect()
    client.sendall(get("/?first") + get("/slow") + b"HEAD /slow HTTP/1.1\r\nHost: node\r\n\r\n" + get("/?last"))
    got = loop.read(client, lambda got: got.endswith(b"last"))
    assert got.index(b"first") < got.index(b"slow\n") < got.index(b"last")
    assert (got.count(b"HTTP/1.1 200"), got.count(b"slow\n")) == (4, 1)


def test_a_bug_on_the_way_is_a_500(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    client = loop.connect()
    with caplog.at_level(logging.ERROR):
        assert status(loop.ask(client, get("/slow?broken"))) == 500
    assert "ZeroDivisionError" in caplog.text
    assert status(loop.ask(client, get("/"))) == 200


def test_who_leaves_meanwhile_is_forgotten(loop: Loop) -> None:
    with contextlib.closing(loop.connect()) as client:
        client.sendall(get("/slow"))
        loop.turn(1.0)
    for _ in range(100):
        loop.turn()
    assert not loop.server._connections


@settings(max_examples=15)
@given(st.lists(st.integers(0, 3), max_size=30), st.booleans())
def test_pieces_of_several_pages_in_any_order_are_those_pages(turns: list[int], compressed: bool) -> None:
    """Two snapshots, each as text and as OpenMetrics, made in turns: each is what it would be alone."""
    shown: list[Snapshot] = [snapshot(jobs(120)), snapshot(jobs(60))]
    page = PrometheusPage()
    renderings = []
    for one in shown:
        page.publish(one)
        renderings += [page.rendering("text", compressed=compressed)]
        renderings += [page.rendering("openmetrics", compressed=compressed)]
    for turn in turns:
        renderings[turn].go_on(0.0)
    for number, rendering in enumerate(renderings):
        alone = PrometheusPage()
        alone.publish(shown[number // 2])
        assert rendering.go_on() == alone.page(("text", "openmetrics")[number % 2], compressed=compressed)


def test_a_page_that_failed_half_way_is_never_taken_for_a_whole_one() -> None:
    def pieces() -> Iterator[str]:
        yield "half"
        raise ZeroDivisionError

    rendering = Rendering(pieces(), compressed=False)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            rendering.go_on()
