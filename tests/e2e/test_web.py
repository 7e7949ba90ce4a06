"""A real agent behind TLS and a login, under attack: it ticks on, its page is right, it says what it refused."""

import base64
import contextlib
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from tests.doubles.powercap import Zone
from tests.e2e.running import RunningAgent, check_identities, total
from tests.tools import require

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

BATCH, BATCHES = 500, 20
INTERVAL_S = 0.2
MANY_BYTES = 100 << 20


class GuardedAgent(RunningAgent):
    """An agent with a web file: a certificate of its own and one user."""

    def __init__(self, folder: Path, sys_tree: Path) -> None:
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=node"]
        subject = ["-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"]
        made = ["-keyout", f"{folder}/node.key", "-out", f"{folder}/node.crt"]
        subprocess.run([require("openssl"), "req", "-x509", *new, *subject, *made], check=True, capture_output=True)
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(10)).decode()
        (folder / "web.yml").write_text(
            "tls_server_config: {cert_file: node.crt, key_file: node.key}\n"
            f"basic_auth_users: {{prometheus: '{hashed}'}}\n"
        )
        more = f'[web]\nconfig_file = "{folder}/web.yml"'
        super().__init__(folder, sys_tree, interval_s=INTERVAL_S, more=more)
        self.log = folder / "agent.log"
        self.address = ("127.0.0.1", int(self.url.rpartition(":")[2]))
        self.context = ssl.create_default_context(cafile=str(folder / "node.crt"))

    def get(self, path: str, password: str = "secret") -> str:
        token = base64.b64encode(f"prometheus:{password}".encode()).decode()
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.address[1]}{path}", headers={"Authorization": f"Basic {token}"}
        )
        with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
            return str(answer.read().decode())

    def connect(self) -> socket.socket:
        """A connection that may not be established yet."""
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(self.address)
        return client


@pytest.fixture
def agent(tmp_path: Path, package: Zone) -> Iterator[GuardedAgent]:
    guarded = GuardedAgent(tmp_path, tmp_path / "sys")
    with contextlib.closing(guarded):
        guarded.start()
        yield guarded


def test_an_agent_under_attack_ticks_on_and_says_what_it_refused(agent: GuardedAgent) -> None:
    before, began_s = agent.samples(), time.monotonic()
    with contextlib.ExitStack() as stack:
        for _ in range(BATCHES):
            clients = [agent.connect() for _ in range(BATCH)]
            for client in clients:
                client.close()
        for _ in range(80):  # more than there may be, each with the beginning of a handshake
            slow = stack.enter_context(socket.create_connection(agent.address, timeout=10))
            slow.sendall(b"\x16\x03\x01")
        for number in range(3):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                agent.get("/metrics", password=f"wrong {number}")
        assert upload(agent) < MANY_BYTES / 10  # no more than buffers of sockets hold
        with socket.create_connection(agent.address, timeout=10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"speaks HTTPS" in plain.recv(1000)
        while "reason auth" not in (said := agent.log.read_text()) and time.monotonic() < began_s + 30:
            time.sleep(0.02)  # it is said within a second
        after = agent.samples()
    check_identities(after)
    elapsed_s = time.monotonic() - began_s
    ticks = total(after, "wattribute_agent_ticks_total") - total(before, "wattribute_agent_ticks_total")
    assert 1 < ticks <= elapsed_s / INTERVAL_S + 2, "its own clock, not the requests'"
    refused = {reason: int(total(after, "wattribute_web_refused_total", reason=reason)) for reason in REFUSED}
    assert refused["busy"] > 10  # the slow ones alone; how many of the many depends on who is scheduled when
    assert (refused["auth"], refused["tls"], refused["too_large"]) == (3, 1, 1)
    assert re.search(r"refused [0-9]+, reason busy; the last from 127\.0\.0\.1", said)
    assert said.count("reason auth") == 1


REFUSED = ("auth", "busy", "tls", "too_large")


def upload(agent: GuardedAgent) -> int:
    """Send a body of 100 MiB as far as it is taken; returns how much that was."""
    sent, chunk = 0, bytes(1 << 16)
    with (
        socket.create_connection(agent.address, timeout=10) as raw,
        agent.context.wrap_socket(raw, server_hostname="127.0.0.1") as client,
    ):
        client.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % MANY_BYTES)
        with contextlib.suppress(OSError):
            assert client.recv(100).startswith(b"HTTP/1.1 413")
            while sent < MANY_BYTES:
                client.sendall(chunk)
                sent += len(chunk)
    return sent
