"""What a web file says (the exporter-toolkit's format), as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

MUST_READ = "Fix: the user that the agent runs as must be able to read it, now and when it is replaced"
TlsVersion: TypeAlias = Literal["TLS12", "TLS13"]
ClientAuth: TypeAlias = Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"]
Pem: TypeAlias = Path | str
"""The path of a PEM file, or its text, where the web file has it inline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """`ciphers` are OpenSSL's names, of TLS 1.2 (None: OpenSSL's own choice); `curve` too."""

    cert: Pem
    key: Pem
    client_auth: ClientAuth = "NoClientCert"
    client_ca: Pem | None = None
    client_allowed_sans: tuple[str, ...] = ()
    min_version: TlsVersion = "TLS12"
    max_version: TlsVersion = "TLS13"
    ciphers: tuple[str, ...] | None = None
    prefer_server_ciphers: bool = True
    curve: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """One request per `interval_s` on average, and at most `burst` at once."""

    interval_s: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """`users`: name -> bcrypt hash, as bytes. `headers` go with each response that doesn't have its own."""

    path: Path
    tls: TlsSettings | None = None
    users: Mapping[bytes, bytes] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    rate_limit: RateLimit | None = None
    ignored: tuple[str, ...] = ()  # what was read and has no effect here, in words

    @property
    def files(self) -> list[Path]:
        """All that was or must be read for it."""
        tls = self.tls
        parts = () if tls is None else (tls.cert, tls.key, tls.client_ca)
        return [self.path, *(part for part in parts if isinstance(part, Path))]

    @property
    def protects(self) -> bool:
        """Whether it asks for encryption or a login."""
        return self.tls is not None or bool(self.users)

    @property
    def asks_who(self) -> bool:
        """Whether not everybody gets in: there are logins, or a client needs a certificate."""
        return bool(self.users) or (self.tls is not None and self.tls.client_auth == "RequireAndVerifyClientCert")
