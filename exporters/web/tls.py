"""TLS 1.2 and 1.3 on sockets of an event loop: a context by the web file, and a link that never blocks."""

import contextlib
import ipaddress
import math
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wattribute.agent.core.errors import ConfigError
from wattribute.exporters.web.settings import MUST_READ, Pem, TlsSettings

SESSIONS_MAX = 1000
VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENTS = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


class Tls:
    """What a web file's tls_server_config asks for. Raises ConfigError, which names the key, where it can't be had."""

    def __init__(self, settings: TlsSettings) -> None:
        self._allowed_sans = frozenset(map(_normal, settings.client_allowed_sans))
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = VERSIONS[settings.min_version]
        context.maximum_version = VERSIONS[settings.max_version]
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.num_tickets = 0  # of TLS 1.3; what TLS 1.2 resumes can't be had away with Python's ssl
        if settings.prefer_server_ciphers:
            context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        else:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        if settings.ciphers:
            context.set_ciphers(":".join(settings.ciphers))
        if settings.curve is not None:
            context.set_ecdh_curve(settings.curve)
        self._load(settings)

    @property
    def crowded(self) -> bool:
        """Whether so many sessions of TLS 1.2 could be resumed that it is time for a new context: they take memory."""
        return self._context.session_stats()["number"] > SESSIONS_MAX

    def link(self, accepted: socket.socket) -> "TlsLink":
        """Take a socket over. Raises OSError where it is dead."""
        return TlsLink(
            self._context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False), self._allowed_sans
        )

    def _load(self, settings: TlsSettings) -> None:
        with _file(settings.cert) as cert, _file(settings.key) as key:
            for path, name in ((cert, "cert_file"), (key, "key_file")):
                try:
                    Path(path).read_bytes()
                except OSError as error:
                    raise ConfigError(
                        f"tls_server_config.{name}: {path} can't be read: {error.strerror}. {MUST_READ}"
                    ) from error
            try:
                # Without a password OpenSSL would ask for one at the terminal.
                self._context.load_cert_chain(cert, key, password=_refuse_password)
            except ssl.SSLError as error:
                raise ConfigError(
                    f"tls_server_config: cert_file {cert} and key_file {key} can't be used together: "
                    f"{_reason(error)}. Both are PEM, the certificate first and then those between it and its CA; the "
                    "key is the certificate's own, without a password"
                ) from error
        if settings.client_ca is not None:
            with _file(settings.client_ca) as client_ca:
                try:
                    self._context.load_verify_locations(client_ca)
                except OSError as error:
                    why = _reason(error) if isinstance(error, ssl.SSLError) else error.strerror
                    raise ConfigError(
                        f"tls_server_config.client_ca_file: {client_ca} can't be used: {why}. It is the PEM of the CA "
                        "that signs the clients' certificates"
                    ) from error
        self._context.verify_mode = _CLIENTS[settings.client_auth]


class TlsLink:
    """A socket of which one reads and writes what is inside the encryption; BlockingIOError: not now."""

    def __init__(self, wrapped: ssl.SSLSocket, allowed_sans: frozenset[str]) -> None:
        self._socket = wrapped
        self._allowed_sans = allowed_sans
        self._over_unix_s = math.inf  # when the client's certificate is
        self.wants_write = False

    @property
    def expired(self) -> bool:
        """Whether the client's certificate is over: nobody else looks at it again while connection or session last."""
        return time.time() > self._over_unix_s

    def shake(self) -> str:
        """Go on with the handshake; "" once it is done, else why the client is refused.

        Raises BlockingIOError where the client has to say more.
        """
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self.wants_write = False
            raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            self.wants_write = True
            raise BlockingIOError from None
        except ssl.SSLError as error:
            return _reason(error)
        try:
            certificate = self._socket.getpeercert() or {}
            if isinstance(over := certificate.get("notAfter"), str):
                self._over_unix_s = ssl.cert_time_to_seconds(over)
        except ValueError as error:  # what a CA signs may have names that aren't text
            return f"the client's certificate can't be read: {error}"
        if self._allowed_sans and self._allowed_sans.isdisjoint(_sans(certificate)):
            return "the client's certificate has no name of client_allowed_sans"
        return "the client's certificate has expired since its session began" if self.expired else ""

    def recv(self, size: int) -> bytes:
        try:
            return self._socket.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def pending(self) -> int:
        """Bytes that are decrypted and not read yet: the selector doesn't know of them."""
        return self._socket.pending()

    def shutdown(self, how: int) -> None:
        """Say that nothing more comes, in TLS and then in TCP; what is read afterwards is raw."""
        with contextlib.suppress(OSError, ValueError):
            self._socket.unwrap()
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()


def _sans(certificate: Any) -> Iterator[str]:
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "IP Address", "email", "URI"):
            yield _normal(name)


def _normal(name: str) -> str:
    """A name, or an address in one of its many forms, as it is compared."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name


def _refuse_password() -> str:
    return ""


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate: {error.verify_message}"
    return (error.reason or error.strerror or str(error)).replace("_", " ").lower()


@contextlib.contextmanager
def _file(pem: Pem) -> Iterator[str]:
    """A path that OpenSSL can open: the file, or one in memory with the text."""
    if isinstance(pem, Path):
        yield str(pem)
        return
    fd = os.memfd_create("pem")
    try:
        os.write(fd, pem.encode())
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
