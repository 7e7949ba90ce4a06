"""The kubelet's client against a real server: whom it shows the token, and what it makes of every answer."""

import json
import os
import socket
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tests.collectors.kubernetes.server import NODE, Certificate, Server
from tests.doubles.listed_tree import FIXTURES, ListedTree

from wattribute.agent.core.errors import ConfigError, SensorUnavailable
from wattribute.agent.identity import fit
from wattribute.collectors.kubernetes import Kubelet, KubernetesJobs, PodLabels, kubelet

EMPTY = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}


def local(server: Server, token: Path, ca_file: object = "", uid: int = os.getuid()) -> Kubelet:
    return Kubelet(server.url(), token_file=str(token), ca_file=str(ca_file), uid=uid)


def why_not(asked: Kubelet) -> SensorUnavailable:
    with pytest.raises(SensorUnavailable) as caught:
        asked.pods()
    assert caught.value.fix
    return caught.value


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of nodes stand for this machine."""
    real = socket.getaddrinfo

    def find(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if str(host).startswith("gpu-node-") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", find)


def test_the_token_is_shown_and_followed_when_it_is_exchanged(
    server: Server, token: Path, certificate: Certificate
) -> None:
    asked = local(server, token, certificate.file)
    assert asked.pods() == EMPTY
    token.with_name("next").write_text("second")
    token.with_name("next").replace(token)
    assert asked.pods() == EMPTY
    assert server.asked == [("/pods", "Bearer first"), ("/pods", "Bearer second")]


def test_without_a_ca_the_loopback_is_trusted_if_the_listener_is_the_kubelets_user(server: Server, token: Path) -> None:
    assert local(server, token).pods() == EMPTY
    error = why_not(local(server, token, uid=os.getuid() + 1))
    assert "gets no token" in error.cause and "ca_file" in error.fix
    assert len(server.asked) == 1, "somebody else's process was shown the token"


def test_a_kernel_that_does_not_show_the_listener_is_not_believed(server: Server, token: Path, tmp_path: Path) -> None:
    asked = Kubelet(server.url(), token_file=str(token), proc=str(tmp_path), uid=os.getuid())
    assert "gets no token" in why_not(asked).cause
    assert server.asked == []


@pytest.mark.parametrize("client", ["127.0.0.1", "[::1]", "localhost"])
def test_a_kubelet_that_listens_on_all_addresses(client: str, certificate: Certificate, token: Path) -> None:
    try:
        server = Server(certificate, host="::")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        assert Kubelet(server.url(client), token_file=str(token), uid=os.getuid()).pods() == EMPTY
        assert server.asked == [("/pods", "Bearer first")]


@pytest.mark.usefixtures("resolved")
def test_elsewhere_it_needs_a_ca(server: Server, token: Path) -> None:
    error = why_not(Kubelet(server.url(NODE), token_file=str(token), uid=os.getuid()))
    assert "isn't this machine's loopback" in error.cause
    assert error.fix.startswith("set kubernetes.ca_file")
    assert server.asked == []


@pytest.mark.parametrize("verified", [False, True])
def test_a_localhost_that_is_elsewhere_is_not_local(
    verified: bool, certificate: Certificate, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has the loopback alone")
        elsewhere = probe.getsockname()[0]
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest: real(elsewhere, *rest))
    ca_file = str(certificate.file) if verified else ""
    with Server(certificate, host="0.0.0.0") as server:
        asked = Kubelet(server.url("localhost"), token_file=str(token), ca_file=ca_file, uid=os.getuid())
        assert "gets no token" in why_not(asked).cause
        assert server.asked == []


@pytest.mark.usefixtures("resolved")
def test_elsewhere_the_name_counts(server: Server, token: Path, certificate: Certificate) -> None:
    ca_file = str(certificate.file)
    assert Kubelet(server.url(NODE), token_file=str(token), ca_file=ca_file).pods() == EMPTY
    error = why_not(Kubelet(server.url("gpu-node-4"), token_file=str(token), ca_file=ca_file))
    assert "certificate isn't trusted" in error.cause and "node's name" in error.fix
    assert len(server.asked) == 1


def test_another_ca_is_refused_on_the_loopback_too(server: Server, token: Path, other_certificate: Certificate) -> None:
    error = why_not(local(server, token, other_certificate.file))
    assert "certificate isn't trusted" in error.cause and "ca_file" in error.fix
    assert server.asked == []


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_ca_file_that_is_none(content: str | None, server: Server, token: Path, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.crt"
    if content is not None:
        ca_file.write_text(content)
    assert str(ca_file) in why_not(local(server, token, ca_file)).cause


def test_plain_http_gets_no_token(token: Path) -> None:
    with Server(None) as server:
        assert Kubelet(server.url() + "/", token_file=str(token)).pods() == EMPTY
        assert server.asked == [("/pods", None)]


@pytest.mark.parametrize("content", [None, b"", b"a b", b"a\r\nX: y", b"\xff"])
def test_a_token_that_is_none(content: bytes | None, server: Server, token: Path) -> None:
    token.unlink()
    if content is not None:
        token.write_bytes(content)
    assert str(token) in why_not(local(server, token)).cause
    assert server.asked == []


def test_who_may_not_ask_is_told_what_to_grant(server: Server, token: Path) -> None:
    server.status = 403
    server.answer = (
        b"Forbidden (user=system:serviceaccount:monitoring:wattribute, verb=get, resource=nodes, "
        b"subresource(s)=[pods proxy])\n"
    )
    error = why_not(local(server, token))
    assert "403" in error.cause and "[pods proxy]" in error.cause
    assert "--verb=get --resource=nodes/pods" in error.fix
    assert "--serviceaccount=monitoring:wattribute " in error.fix


def test_a_token_that_is_not_taken(server: Server, token: Path) -> None:
    server.status, server.answer = 401, b"Unauthorized"
    error = why_not(local(server, token))
    assert error.cause.endswith("answers 401: Unauthorized") and "authentication.webhook" in error.fix


@pytest.mark.parametrize("status", [204, 301, 404, 500])
def test_other_answers_are_none(status: int, server: Server, token: Path) -> None:
    server.status = status
    assert f"answers {status}" in why_not(local(server, token)).cause


WHOLE = json.dumps({"items": [{"metadata": {"uid": "a"}}]}).encode()


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", WHOLE[:-3], b"\xff\xfe", b"[" * 100_000, b'{"items": ' + b"9" * 5000 + b"}"],
    ids=["empty", "html", "truncated", "bytes", "deep", "digits"],
)
def test_what_is_no_json(answer: bytes, server: Server, token: Path) -> None:
    server.answer = answer
    assert "not an answer of a kubelet" in why_not(local(server, token)).cause


def test_an_answer_that_breaks_off(server: Server, token: Path) -> None:
    def break_off(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(WHOLE)))
        request.end_headers()
        request.wfile.write(WHOLE[:-5])

    server.respond = break_off
    why_not(local(server, token))


@pytest.mark.parametrize(
    "junk", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", b""]
)
def test_what_is_no_http(junk: bytes, server: Server, token: Path) -> None:
    def say(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(junk)

    server.respond = say
    why_not(local(server, token))


def test_a_huge_answer_is_left_alone(server: Server, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubelet, "ANSWER_BYTES", 1 << 20)
    sent = 0

    def flood(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        for _ in range(1 << 14):
            sent += request.wfile.write(b"[" * 65536)

    server.respond = flood
    assert "more than 1048576 bytes" in why_not(local(server, token)).cause
    assert sent < 1 << 26


def test_who_does_not_answer_is_not_waited_for(server: Server, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubelet, "TIMEOUT_S", 0.1)

    def wait(request: BaseHTTPRequestHandler) -> None:
        server.released.wait(60)

    server.respond = wait
    error = why_not(local(server, token))
    assert "no answer in time" in error.cause and "journalctl -u kubelet" in error.fix


def test_who_answers_byte_by_byte_is_not_waited_for(
    server: Server, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet, "ANSWER_S", 0.1)

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not server.released.wait(0.01):
            request.wfile.write(b" ")

    server.respond = drip
    assert "no answer in time" in why_not(local(server, token)).cause


def test_a_kubelet_that_is_down_comes_back(certificate: Certificate, token: Path) -> None:
    tree = ListedTree("kubepods_systemd.txt")
    with Server(certificate) as server:
        asked = local(server, token, certificate.file)
        port = server.port
    assert "nobody listens there" in why_not(asked).cause
    now_ns = 0

    def clock() -> int:
        nonlocal now_ns
        now_ns += 1_000_000_000
        return now_ns

    source = KubernetesJobs(tree, asked, PodLabels(), own_group="", clock=clock, fit=fit)
    for _ in range(5):
        with pytest.raises(SensorUnavailable, match="hostNetwork: true"):
            source.jobs()
    with Server(certificate, port=port) as server:
        server.answer = (FIXTURES / "kubelet" / "pods.json").read_bytes()
        while not server.asked:
            with suppress(SensorUnavailable):
                jobs = source.jobs()
            assert now_ns < 20_000_000_000
    assert len(jobs) == 12
    assert {"serving/vllm", "nlp/finetune-8"} <= {job.job_id for job in jobs}


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:10250", "ftp://a", "https://", "https://a:b", "https://[::1", "https://a:99999"]
)
def test_an_address_that_is_none_is_the_configurations_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"kubernetes\.kubelet = "):
        Kubelet(url, token_file="t")
