"""An engine's page over HTTP: read, cut at the time-out, refused with what mends it."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from tests.doubles.engine_server import (
    PAGES,
    Answering,
    EngineServer,
    breaks_off,
    hangs,
    in_chunks,
    says,
    trickles,
    trickles_headers,
    vllm,
)

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.collectors.engines import EngineCollector, finding, split_url
from wattribute.collectors.engines.fetch import PAGE_BYTES


@pytest.fixture
def server() -> Iterator[EngineServer]:
    with EngineServer(vllm(1, 2, 3)) as made:
        yield made


def engine(url: str, kind: str = "vllm", timeout_s: float = 5.0) -> EngineCollector:
    return EngineCollector("engine:e", url, kind, counters={}, timeout_s=timeout_s, now_ns=time.monotonic_ns)


def test_a_page_is_read_whole_or_in_chunks(server: EngineServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # which isn't asked
    one = engine(server.url.removesuffix("/metrics"))
    assert one.read()[0].served == {}
    server.trouble = in_chunks(vllm(3, 20, 30))
    (work,) = one.read()
    assert work.served == {"request": 2, "aborted": 0, "prompt_token": 18, "output_token": 27}
    assert 0 <= time.monotonic_ns() - work.at_ns < 10**10
    assert [asked.path for asked in server.asked] == ["/metrics"] * 2
    assert "version=0.0.4" in server.asked[0].headers["Accept"]


@pytest.mark.parametrize(
    ("kind", "trouble", "cause", "fix"),
    [
        ("vllm", says(302, Location="http://u:p@elsewhere/\x1b[1m"), "to elsewhere/\\?", "answers itself"),
        ("sglang", says(404), "404", "--enable-metrics"),
        ("llamacpp", says(501), "501", "--metrics"),
        ("vllm", says(404), "404", "set url"),
        ("vllm", says(401), "401", "without a key"),
        ("vllm", says(500), "500", "log"),
        ("vllm", says(200, b"<html>hello</html>"), "no series", "kind"),
        ("vllm", says(200, b"vllm:prompt_tokens_total x\n\xff\xfe"), "couldn't be read: 1", "kind"),
        ("vllm", says(200, b"#" * (PAGE_BYTES + 1)), "larger than 8 MiB", "own page"),
        ("vllm", breaks_off, "ended early|IncompleteRead", "set url"),
    ],
)
def test_what_cant_be_read_is_told_with_what_mends_it(
    server: EngineServer, kind: str, trouble: Callable[[Answering], None], cause: str, fix: str
) -> None:
    server.trouble = trouble
    with pytest.raises(SensorUnavailable, match=cause) as caught:
        engine(server.url, kind).read()
    assert fix in caught.value.fix
    assert "u:p" not in caught.value.cause
    assert len(server.asked) == 1


@pytest.mark.parametrize("slow", [hangs, trickles, trickles_headers])
def test_a_slow_page_is_cut_at_the_time_out(server: EngineServer, slow: Callable[[Answering], None]) -> None:
    server.trouble = slow
    with pytest.raises(SensorUnavailable, match=r"no whole page within 0\.15 s"):
        engine(server.url, timeout_s=0.15).read()


def test_a_page_of_8_mib_is_read(server: EngineServer) -> None:
    filler = 'vllm:time_to_first_token_seconds_bucket{le="0.25",model_name="m"} 12.0\n'
    page = vllm(7) + filler * ((PAGE_BYTES - 1000) // len(filler))
    server.page = page
    one = engine(server.url, timeout_s=30)
    one.read()
    server.page = vllm(9) + page[len(vllm(7)) :]
    assert one.read()[0].served["request"] == 2


def test_a_wrong_port_and_what_is_no_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/metrics"
        with pytest.raises(SensorUnavailable, match="no whole page"):
            engine(url, timeout_s=0.1).read()
        listening.settimeout(5)
    with pytest.raises(SensorUnavailable, match="nobody listens there") as caught:
        engine(url).read()
    assert "start the engine" in caught.value.fix


def test_an_untrusted_certificate_or_none_is_told(server: EngineServer) -> None:
    with pytest.raises(SensorUnavailable, match=r"SSL|TLS|record"):
        engine(server.url.replace("http:", "https:"), timeout_s=2).read()


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://h/m", "http://", "http://h:x/", "http://u:p@h/", "http://h/ m"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_url(url)


def test_doctor_tells_which_fields_are_told(server: EngineServer) -> None:
    server.page = (PAGES / "triton.txt").read_text()
    found = finding(engine(server.url, "triton"))
    assert found.ok
    assert (
        found.why
        == "tells aborted in_flight inference request, not output_token prompt_token, request is the sum of 3 series"
    )
    assert found.value == "in flight now: 3"
    lost = finding(engine("http://127.0.0.1:1/metrics"))
    assert (lost.ok, lost.fix) == (False, "start the engine, or set url to its page of metrics")
