"""TLS, client certificates, logins and what a web file may say, against real sockets and OpenSSL's own clients."""

import base64
import contextlib
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest
from tests.exporters.web_loop import Loop, get, status
from tests.tools import require

from wattribute.agent.core.errors import ConfigError
from wattribute.exporters.web import tls
from wattribute.exporters.web.connection import LIMIT_S
from wattribute.exporters.web.door import load
from wattribute.exporters.web.passwords import WAITING_PER_PEER

HASH = bcrypt.hashpw(b"secret", b"$2b$04$abcdefghijklmnopqrstuu").decode()
SLOW_HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(10)).decode()
TLS = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"
CLIENTS = (
    "tls_server_config: {cert_file: server.crt, key_file: server.key, client_ca_file: ca.crt, client_auth_type: "
    "RequireAndVerifyClientCert, client_allowed_sans: [prometheus]}\n"
)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server of it, and clients: one that is allowed, another, and one whose certificate is over."""
    openssl, folder = require("openssl"), tmp_path_factory.mktemp("pki")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=ca")
    for name, san, days in (("server", "localhost", 2), ("client", "prometheus", 2), ("other", "x", 2)):
        sign(folder, name, san, days)
    sign(folder, "over", "prometheus", -1)
    return folder


def sign(folder: Path, name: str, san: str, days: int) -> None:
    openssl = require("openssl")
    (folder / "san").write_text(f"subjectAltName=DNS:{san}")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"]
    ca = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", str(days), "-extfile", "san"]
    for arguments in (
        ["req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr"],
        ["x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *ca],
    ):
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def serve(pki: Path) -> Iterator[Callable[[str], Loop]]:
    """A server whose web file has this text."""
    with contextlib.ExitStack() as stack:

        def start(text: str) -> Loop:
            (pki / "web.yml").write_text(text)
            return stack.enter_context(contextlib.closing(Loop(web_file=pki / "web.yml")))

        yield start


def trusting(pki: Path, certificate: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    if certificate:
        context.load_cert_chain(pki / f"{certificate}.crt", pki / f"{certificate}.key")
    return context


def login(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_pages_come_over_tls_on_a_connection_that_is_kept(serve: Callable[[str], Loop], pki: Path) -> None:
    loop = serve(TLS)
    client = loop.connect_tls(trusting(pki))
    assert client.version() == "TLSv1.3"
    for i in range(3):
        assert loop.ask(client, get(f"/?{i}")).endswith(b"\r\n\r\n%d" % i)
    assert len(loop.ask(client, get("/big"))) > 4 << 20
    both = get("/?one") + get("/?two", "Connection: close")  # in one record: nothing is left in the dark
    client.sendall(both)
    got = loop.read(client, lambda got: False)
    assert b"one" in got
    assert got.endswith(b"two")


def test_many_requests_in_one_record_are_all_answered(serve: Callable[[str], Loop], pki: Path) -> None:
    loop = serve(TLS)
    client = loop.connect_tls(trusting(pki))
    client.sendall(b"".join(get(f"/?<{i}>") for i in range(300)))
    assert loop.read(client, lambda got: b"<299>" in got).count(b"HTTP/1.1 200 OK") == 300


def test_who_speaks_http_to_https_is_told_so(serve: Callable[[str], Loop]) -> None:
    loop = serve(TLS)
    answer = loop.ask(loop.connect(), get("/"))
    assert status(answer) == 400
    assert b"HTTPS" in answer
    assert loop.server.refused["tls"] == 1


def test_a_tls_client_that_dawdles_is_closed_after_five_seconds_in_all(serve: Callable[[str], Loop], pki: Path) -> None:
    loop = serve(TLS)
    silent, slow = loop.connect(), loop.connect()
    spare = loop.connect_tls(trusting(pki))  # as a scraper opens one in reserve
    slow.sendall(b"\x16\x03\x01")
    loop.turn(1.0)
    loop.turn(0.05)
    loop.server.expire(100.0)
    slow.sendall(b"\x02")
    loop.turn(0.05)
    loop.server.expire(100.0 + LIMIT_S["head"])
    assert loop.is_closed(silent)
    assert loop.is_closed(slow)
    assert loop.is_closed(spare)
    assert loop.server.refused["timeout"] == 1, "who asked nothing wasn't refused anything"


def test_a_client_certificate_is_needed_and_looked_at(serve: Callable[[str], Loop], pki: Path) -> None:
    loop = serve(CLIENTS)
    client = loop.connect_tls(trusting(pki, "client"))
    assert status(loop.ask(client, get("/"))) == 200
    for certificate, alert in (("", "certificate required"), ("over", "certificate expired")):
        with pytest.raises(ssl.SSLError, match=alert.replace(" ", "[ _]")):
            loop.ask(loop.connect_tls(trusting(pki, certificate)), get("/"))  # in TLS 1.3 the client is done first
    assert loop.ask(loop.connect_tls(trusting(pki, "other")), get("/")) == b""
    assert loop.server.refused["tls"] == 3


def test_only_who_knows_a_password_comes_in(serve: Callable[[str], Loop]) -> None:
    loop = serve(f"basic_auth_users: {{prometheus: {HASH}}}\n")
    for headers in ([], [login("prometheus", "wrong")], [login("nobody", "secret")], ["Authorization: Basic ?ÿ"]):
        answer = loop.ask(loop.connect(), get("/", *headers))
        assert status(answer) == 401
        assert b"WWW-Authenticate: Basic" in answer
    for password in ("\0", "x" * 100):
        assert status(loop.ask(loop.connect(), get("/", login("prometheus", password)))) == 401
    client = loop.connect()
    right, wrong = get("/", login("prometheus", "secret")), get("/", login("prometheus", "wrong"))
    assert loop.ask(client, right * 2).count(b"200 OK") >= 1
    client.sendall(wrong + right)  # a login is each request's own, and who is refused begins anew
    got = loop.read(client, lambda got: False)
    assert b"401" in got
    assert got.endswith(b"\r\nwrong user name or password\n")
    assert loop.server.refused["auth"] == 7


def test_a_long_password_is_cut_where_htpasswd_cuts_it(serve: Callable[[str], Loop]) -> None:
    long = "x" * 80
    hashed = bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4)).decode()
    loop = serve(f"basic_auth_users: {{prometheus: '{hashed}'}}\n")
    assert status(loop.ask(loop.connect(), get("/", login("prometheus", long)))) == 200


def test_what_was_found_of_one_login_stands_for_no_other(serve: Callable[[str], Loop]) -> None:
    """CVE-2022-46146: the hash of a user, sent as part of a name or password, once was as good as the password."""
    loop = serve(f"basic_auth_users: {{prometheus: {HASH}}}\n")
    assert status(loop.ask(loop.connect(), get("/", login("prometheus", "secret")))) == 200
    fake = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
    for user, password in (
        ("prometheus", f"{HASH}:secret"),
        (f"prometheus:{HASH}", "secret"),
        (f"{fake}", "fakepassword"),
        ("nobody", "fakepassword"),
        ("prometheus", ""),
    ):
        for _ in range(2):
            assert status(loop.ask(loop.connect(), get("/", login(user, password)))) == 401


def test_others_are_answered_while_a_password_is_checked_and_few_wait(serve: Callable[[str], Loop]) -> None:
    loop = serve(f"basic_auth_users: {{prometheus: '{SLOW_HASH}'}}\n")
    waiting = [loop.connect() for _ in range(WAITING_PER_PEER + 2)]
    for number, client in enumerate(waiting):
        client.sendall(get("/", login("prometheus", f"wrong {number}")))
    loop.until(lambda: loop.server.refused["busy"] == 2)
    assert status(loop.ask(loop.connect(), get("/"))) == 401
    assert loop.server.refused["auth"] == 1, "the first check is still under way"
    assert [status(loop.read(client, bool)) for client in waiting[-2:]] == [503, 503]
    assert [status(loop.read(client, bool)) for client in waiting[:2]] == [401, 401]
    gone = waiting[2]
    gone.close()
    assert status(loop.read(waiting[3], bool)) == 401


def test_a_new_version_counts_within_a_look_and_a_broken_one_does_not(
    serve: Callable[[str], Loop], pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = serve(f"basic_auth_users: {{prometheus: {HASH}}}\n")
    path, client = pki / "web.yml", loop.connect()
    right = get("/", login("prometheus", "secret"))
    assert status(loop.ask(client, right)) == 200
    for text, problem in (
        ("basic_auth_user: {}\n", "did you mean basic_auth_users?"),
        ("", "neither TLS nor users are in it any more"),
        (TLS + "basic_auth_users:\n", "neither users nor client certificates that are required are in it any more"),
        (f"{TLS.replace('server.key', 'client.key')}", "can't be used together"),
    ):
        path.write_text(text)
        caplog.clear()
        for now_s in (1.0, 2.0, 3.0):
            loop.server.expire(now_s)
        assert caplog.text.count(problem) == 1
        (health,) = loop.server.health()
        assert not health.up
        assert problem in health.why
        assert health.fix
        assert status(loop.ask(client, right)) == 200
    path.write_text(f"basic_auth_users: {{someone: {HASH}}}\n")
    loop.server.expire(4.0)
    assert status(loop.ask(client, right)) == 401
    assert status(loop.ask(loop.connect(), get("/", login("someone", "secret")))) == 200
    (health,) = loop.server.health()
    assert health.up


def test_a_new_certificate_is_shown_to_who_comes_after_it(serve: Callable[[str], Loop], pki: Path) -> None:
    sign(pki, "turning", "localhost", 2)
    loop = serve(TLS.replace("server.", "turning."))
    idle, asking = loop.connect_tls(trusting(pki)), loop.connect_tls(trusting(pki))
    assert status(loop.ask(idle, get("/"))) == 200
    before = idle.getpeercert(binary_form=True)
    sign(pki, "turning", "localhost", 2)
    asking.sendall(get("/")[:5])
    loop.turn(1.0)
    loop.server.expire(1.0)
    fresh = loop.connect_tls(trusting(pki))
    assert fresh.getpeercert(binary_form=True) != before
    assert loop.is_closed(idle), "who came in by what was before has to come in again"
    assert b"Connection: close" in loop.ask(asking, get("/")[5:])


def test_a_connection_does_not_outlive_its_clients_certificate(serve: Callable[[str], Loop], pki: Path) -> None:
    loop = serve(CLIENTS)
    client = loop.connect_tls(trusting(pki, "client"))
    assert b"keep-alive" in loop.ask(client, get("/"))
    (connection,) = loop.server._connections
    assert connection._tls_link is not None
    connection._tls_link._over_unix_s = 0.0
    loop.server.expire(1.0)
    assert not loop.server._connections


def test_sessions_that_could_be_resumed_take_no_more_memory_than_a_few(
    serve: Callable[[str], Loop], pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "SESSIONS_MAX", 2)
    loop = serve(TLS)
    context = trusting(pki)
    context.maximum_version, context.options = ssl.TLSVersion.TLSv1_2, context.options | ssl.OP_NO_TICKET
    door = loop.server.door
    assert door is not None
    before = door.tls
    for _ in range(4):
        client = loop.connect_tls(context)
        client.sendall(get("/", "Connection: close"))
        loop.read(client, lambda got: False)
    loop.server.expire(1.0)
    assert door.tls is not before
    assert status(loop.ask(loop.connect_tls(context), get("/"))) == 200


def test_requests_past_the_rate_are_refused_until_there_is_room(serve: Callable[[str], Loop]) -> None:
    loop = serve('rate_limit: {interval: "500ms", burst: 2}\n')
    client = loop.connect()
    assert [status(loop.ask(client, get("/"))) for _ in range(3)] == [200, 200, 429]
    loop.now_s += 0.5
    client = loop.connect()
    assert [status(loop.ask(client, get("/"))) for _ in range(2)] == [200, 429]
    assert loop.server.refused["rate_limit"] == 2


def test_headers_are_added_where_a_page_has_not_its_own(serve: Callable[[str], Loop]) -> None:
    loop = serve(
        "http_server_config:\n  http2: false\n  headers:\n    Strict-Transport-Security: max-age=1\n"
        "    X-Content-Type-Options: nosniff\n    X-Frame-Options: deny\n    X-XSS-Protection: ''\n"
    )
    answer = loop.ask(loop.connect(), get("/"))
    assert answer.count(b"X-Content-Type-Options: nosniff\r\n") == 1
    assert b"\r\nStrict-Transport-Security: max-age=1\r\nX-Frame-Options: deny\r\n" in answer
    assert b"X-XSS" not in answer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tls_server_confg: {}", "tls_server_confg: unknown key; did you mean tls_server_config?"),
        ("- a", "the file: expected KEY: VALUE lines"),
        ("a: b: c", "not valid YAML"),
        ("basic_auth_users: {a: x, a: y}", "line 1: 'a' is there twice"),
        ("basic_auth_users: {a: secret}", "basic_auth_users.a: that is no bcrypt hash"),
        (f"basic_auth_users: {{a: '{HASH[:28]}A{HASH[29:]}'}}", "basic_auth_users.a: that is no bcrypt hash"),
        (f"basic_auth_users: {{a: '{HASH.replace('$04', '$31')}'}}", "with cost 31 a check takes minutes to days"),
        (TLS.replace("server.crt", '"\\0"'), "can't be used: embedded null byte"),
        (f"basic_auth_users: {{1: {HASH}}}", "basic_auth_users: 1 can't be a name"),
        ("tls_server_config: {cert_file: server.crt}", "tls_server_config: key_file is missing"),
        (TLS.replace("server.crt", "nothing.crt"), "nothing.crt can't be read: No such file"),
        (TLS.replace("server.key", "ca.key"), "can't be used together: key values mismatch"),
        (TLS.replace("}", ", cert: x}"), "give either cert or cert_file"),
        (TLS.replace("}", ", min_version: TLS11}"), "min_version: TLS11 is broken"),
        (TLS.replace("}", ", min_version: TLS14}"), "isn't one of TLS12, TLS13; did you mean TLS1"),
        (TLS.replace("}", ", max_version: TLS12, min_version: TLS13}"), "min_version TLS13 is above"),
        (TLS.replace("}", ", client_ca_file: ca.crt}"), "client_ca_file needs client_auth_type"),
        (TLS.replace("}", ", client_auth_type: RequireAndVerifyClientCert}"), "needs client_ca_file"),
        (TLS.replace("}", ", client_auth_type: RequireAnyClientCert}"), "use RequireAndVerifyClientCert"),
        (TLS.replace("}", ", client_allowed_sans: [a]}"), "client_allowed_sans needs client_auth_type"),
        (CLIENTS.replace("ca.crt", "san"), "client_ca_file: "),
        (TLS.replace("}", ", cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]}"), "did you mean TLS_ECDHE_RSA_WITH_AES"),
        (TLS.replace("}", ", cipher_suites: [TLS_AES_128_GCM_SHA256]}"), "has none of TLS 1.2"),
        (TLS.replace("}", ", curve_preferences: [X25519, CurveP256]}"), "Python's ssl takes one"),
        (TLS.replace("}", ", prefer_server_cipher_suites: 1}"), "write true or false"),
        ("http_server_config: {headers: {X-Frame-Options: allow}}", "isn't one of deny, sameorigin"),
        ("http_server_config: {headers: {Server: x}}", "http_server_config.headers.Server: unknown key"),
        ("rate_limit: {interval: soon, burst: 1}", "'soon' is no duration"),
        ("rate_limit: {interval: 1s}", "rate_limit.burst: 0 would let nobody in"),
    ],
)
def test_a_file_that_does_not_hold_says_where_and_what_would(text: str, message: str, pki: Path) -> None:
    path = pki / "bad.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_the_toolkit_takes_what_is_taken_here(pki: Path) -> None:
    path = pki / "both.yml"
    path.write_text(
        CLIENTS.replace(", client_allowed_sans: [prometheus]", "")  # newer than the promtool of Debian 12
        + f"basic_auth_users: {{prometheus: {HASH}}}\nhttp_server_config: {{headers: {{X-Frame-Options: deny}}}}\n"
    )
    assert load(path).tls is not None
    done = subprocess.run([require("promtool"), "check", "web-config", path], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_toolkit_takes_is_taken(pki: Path) -> None:
    path = pki / "all.yml"
    pem = {name: (pki / name).read_text().replace("\n", "\n    ") for name in ("server.crt", "server.key", "ca.crt")}
    path.write_text(
        f"tls_server_config:\n  cert: |\n    {pem['server.crt']}\n  key: |\n    {pem['server.key']}\n"
        f"  client_ca: |\n    {pem['ca.crt']}\n"
        "  client_auth_type: VerifyClientCertIfGiven\n  min_version: TLS12\n  max_version: TLS13\n"
        "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]\n"
        "  prefer_server_cipher_suites: false\n  curve_preferences: [CurveP256]\n"
        "http_server_config: {http2: true}\nbasic_auth_users:\nrate_limit: {interval: 1m30s, burst: 3}\n"
    )
    before = len(os.listdir("/proc/self/fd"))
    settings, made = load(path)
    assert made is not None
    assert len(settings.ignored) == 2
    assert settings.rate_limit is not None
    assert settings.rate_limit.interval_s == 90
    assert settings.files == [path]
    assert len(os.listdir("/proc/self/fd")) == before
