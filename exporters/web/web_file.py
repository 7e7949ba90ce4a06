"""Reads the exporter-toolkit's web file: YAML with tls_server_config, http_server_config, basic_auth_users, rate_limit.

The format: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md. An unknown key is an
error, as it is there; so is what Python's ssl can't do, which would otherwise protect less than the file says.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from wattribute.agent.core.errors import ConfigError
from wattribute.exporters.web.settings import (
    MUST_READ,
    ClientAuth,
    Pem,
    RateLimit,
    TlsSettings,
    TlsVersion,
    WebSettings,
)

MAX_BYTES = 1 << 20

SECTIONS = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
TLS_KEYS = (
    "cert",
    "key",
    "client_ca",
    "cert_file",
    "key_file",
    "client_ca_file",
    "client_auth_type",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)
HEADERS: dict[str, tuple[str, ...]] = {  # those that may be set, and to what; any value where none is listed
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
CLIENT_AUTH = ("NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
UNVERIFIED = ("RequestClientCert", "RequireClientCert", "RequireAnyClientCert")
VERSIONS = ("TLS12", "TLS13")
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
CIPHERS = {  # Go's name -> OpenSSL's, of TLS 1.2
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
CIPHERS_13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
# The salt's last character has two bits only: with others set bcrypt refuses it at once, which would tell of the user.
_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
MAX_COST = 17  # htpasswd's own: half a minute; a request with a login lasts a minute at most
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_T = TypeVar("_T")


class _Wrong(Exception):
    """One thing that is wrong, in words that name its key."""


def read(path: Path) -> WebSettings:
    """The web file at `path`; the files that it names are found from its own directory.

    Raises ConfigError, which names file and key, what would be right, and all that is wrong at once.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}. {MUST_READ}") from error
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{path}: longer than {MAX_BYTES} bytes: no web file")
    try:
        doubled = list(_doubled(yaml.compose(text, Loader=_Loader)))
        raw = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    reader = _Reader(path.parent)
    settings = reader.settings(path, raw)
    wrong = [*doubled, *reader.wrong]
    if wrong:
        raise ConfigError("\n".join(f"{path}: {text}" for text in wrong))
    return settings


def _doubled(node: Any) -> Iterator[str]:
    """Keys that a mapping has twice, of which YAML would take the last without a word."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield f"line {key.start_mark.line + 1}: {key.value!r} is there twice"
                seen.add(key.value)
            yield from _doubled(value)


class _Reader:
    """Decodes one file; what is wrong is collected in `wrong`."""

    def __init__(self, folder: Path) -> None:
        self.wrong: list[str] = []
        self._folder = folder
        self._ignored: list[str] = []

    def settings(self, path: Path, raw: Any) -> WebSettings:
        top: Mapping[str, Any] = self._try(_sections, raw, {})
        return WebSettings(
            path=path,
            tls=self._try(self._tls, top.get("tls_server_config"), None),
            users=self._try(self._users, top.get("basic_auth_users"), {}),
            headers=self._try(self._headers, top.get("http_server_config"), ()),
            rate_limit=self._try(_rate_limit, top.get("rate_limit"), None),
            ignored=tuple(self._ignored),
        )

    def _try(self, decode: Callable[[Any], _T], raw: Any, otherwise: _T) -> _T:
        if raw is None:  # not there, or nothing below it
            return otherwise
        try:
            return decode(raw)
        except _Wrong as wrong:
            self.wrong.append(str(wrong))
            return otherwise

    def _tls(self, raw: Any) -> TlsSettings | None:
        given = _mapping("tls_server_config", raw, TLS_KEYS)
        given = {key: value for key, value in given.items() if value not in (None, "", [])}
        if not given:
            return None
        cert, key = (self._pem(given, name) for name in ("cert", "key"))
        for name, pem in (("cert", cert), ("key", key)):
            if pem is None:
                raise _Wrong(f"tls_server_config: {name}_file is missing")
        client_ca = self._pem(given, "client_ca")
        client_auth = self._client_auth(given.get("client_auth_type", "NoClientCert"))
        sans = _texts(given, "client_allowed_sans")
        if client_ca is not None and client_auth == "NoClientCert":
            raise _Wrong("tls_server_config.client_ca_file needs client_auth_type: RequireAndVerifyClientCert")
        if client_ca is None and client_auth != "NoClientCert":
            raise _Wrong(f"tls_server_config.client_auth_type: {client_auth} needs client_ca_file")
        if sans and client_auth != "RequireAndVerifyClientCert":
            raise _Wrong("tls_server_config.client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert")
        least, most = (self._version(given, name, default) for name, default in zip(_BOUNDS, VERSIONS, strict=True))
        if least > most:
            raise _Wrong(f"tls_server_config: min_version {least} is above max_version {most}")
        prefer = given.get("prefer_server_cipher_suites", True)
        if not isinstance(prefer, bool):
            raise _Wrong("tls_server_config.prefer_server_cipher_suites: write true or false")
        return TlsSettings(
            cert=cast(Pem, cert),
            key=cast(Pem, key),
            client_auth=client_auth,
            client_ca=client_ca,
            client_allowed_sans=sans,
            min_version=least,
            max_version=most,
            ciphers=self._ciphers(_texts(given, "cipher_suites"), least),
            prefer_server_ciphers=prefer,
            curve=_curve(_texts(given, "curve_preferences")),
        )

    def _pem(self, given: Mapping[str, Any], name: str) -> Pem | None:
        inline, path = given.get(name), given.get(f"{name}_file")
        for key, value in ((name, inline), (f"{name}_file", path)):
            if value is not None and not isinstance(value, str):
                raise _Wrong(f"tls_server_config.{key}: expected text, got {value!r}")
        if inline is not None and path is not None:
            raise _Wrong(f"tls_server_config: give either {name} or {name}_file")
        return inline if path is None else self._folder / path

    @staticmethod
    def _client_auth(value: Any) -> ClientAuth:
        if value in UNVERIFIED:
            raise _Wrong(
                f"tls_server_config.client_auth_type: {value} takes any certificate without checking it, which Python's"
                " ssl can't do and which protects nothing; use RequireAndVerifyClientCert"
            )
        return cast(ClientAuth, _one_of("tls_server_config.client_auth_type", value, CLIENT_AUTH))

    @staticmethod
    def _version(given: Mapping[str, Any], name: str, default: str) -> TlsVersion:
        value = given.get(name, default)
        if value in ("TLS10", "TLS11"):
            raise _Wrong(f"tls_server_config.{name}: {value} is broken and isn't spoken here; use TLS12 or TLS13")
        return cast(TlsVersion, _one_of(f"tls_server_config.{name}", value, VERSIONS))

    def _ciphers(self, names: tuple[str, ...], least: TlsVersion) -> tuple[str, ...] | None:
        if not names:
            return None
        for name in names:
            _one_of("tls_server_config.cipher_suites", name, (*CIPHERS, *CIPHERS_13))
        of_12 = tuple(CIPHERS[name] for name in names if name in CIPHERS)
        if not of_12 and least == "TLS12":
            raise _Wrong("tls_server_config.cipher_suites has none of TLS 1.2; add one, or set min_version: TLS13")
        if len(of_12) < len(names):
            self._ignored.append("cipher_suites: those of TLS 1.3 can't be chosen (nor in Go); all three are offered")
        return of_12 or None

    def _headers(self, raw: Any) -> tuple[tuple[str, str], ...]:
        given = _mapping("http_server_config", raw, ("http2", "headers"))
        http2 = given.get("http2")
        if http2 is not None and not isinstance(http2, bool):
            raise _Wrong("http_server_config.http2: write true or false")
        if http2:
            self._ignored.append("http_server_config.http2: HTTP/2 isn't spoken here; HTTP/1.1 is")
        headers = _mapping("http_server_config.headers", given.get("headers") or {}, HEADERS)
        for name, value in headers.items():
            where = f"http_server_config.headers.{name}"
            if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
                raise _Wrong(f"{where}: expected one line of ASCII text, got {value!r}")
            if value and HEADERS[name]:
                _one_of(where, value, HEADERS[name])
        return tuple((name, value) for name, value in headers.items() if value)

    def _users(self, raw: Any) -> dict[bytes, bytes]:
        if not isinstance(raw, Mapping):
            raise _Wrong("basic_auth_users: expected NAME: HASH lines")
        users = {}
        for name, hashed in raw.items():
            if not isinstance(name, str) or ":" in name or not name:
                raise _Wrong(f"basic_auth_users: {name!r} can't be a name: write text without a colon, in quotes")
            match = _HASH.fullmatch(hashed) if isinstance(hashed, str) else None
            if match is None:
                raise _Wrong(
                    f"basic_auth_users.{name}: that is no bcrypt hash, which begins with $2y$ or $2b$; make one with: "
                    "htpasswd -nBC 10 '' | tr -d ':\\n'"
                )
            if int(match[1]) > MAX_COST:
                raise _Wrong(
                    f"basic_auth_users.{name}: with cost {match[1]} a check takes minutes to days; make one of cost 10 "
                    f"to {MAX_COST}"
                )
            users[name.encode()] = hashed.encode()
        return users


_BOUNDS = ("min_version", "max_version")


def _sections(raw: Any) -> Mapping[str, Any]:
    return _mapping("the file", raw, SECTIONS)


def _mapping(where: str, raw: Any, known: Iterable[str]) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise _Wrong(f"{where}: expected KEY: VALUE lines, got {raw!r}"[:200])
    for key in raw:
        if key not in known:
            prefix = "" if where == "the file" else f"{where}."
            raise _Wrong(f"{prefix}{key}: unknown key{_meant(str(key), known)}")
    return dict(raw)


def _one_of(where: str, value: Any, known: Iterable[str]) -> str:
    if value not in known:
        raise _Wrong(f"{where}: {value!r} isn't one of {', '.join(known)}{_meant(str(value), known)}")
    return str(value)


def _meant(word: str, known: Iterable[str]) -> str:
    by_folded = {name.casefold(): name for name in known}
    close = get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.5)
    return f"; did you mean {by_folded[close[0]]}?" if close else f"; known are {', '.join(known)}"


def _texts(given: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = given.get(name, ())
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise _Wrong(f"tls_server_config.{name}: expected a list of texts, got {value!r}")
    return tuple(value)


def _curve(names: tuple[str, ...]) -> str | None:
    for name in names:
        _one_of("tls_server_config.curve_preferences", name, CURVES)
    if len(names) > 1:
        raise _Wrong(
            "tls_server_config.curve_preferences: Python's ssl takes one curve; name one, or leave the key out"
        )
    return CURVES[names[0]] if names else None


def _rate_limit(raw: Any) -> RateLimit | None:
    given = _mapping("rate_limit", raw, ("interval", "burst"))
    interval, burst = given.get("interval", 0), given.get("burst", 0)
    if isinstance(burst, bool) or not isinstance(burst, int) or burst < 0:
        raise _Wrong(f"rate_limit.burst: expected a whole number, got {burst!r}")
    interval_s = 0.0
    if interval != 0:
        parts = _DURATION.findall(str(interval))
        if not parts or "".join(map("".join, parts)) != str(interval):
            raise _Wrong(f'rate_limit.interval: {interval!r} is no duration; write "1s" or "100ms", or 0 for no limit')
        interval_s = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if not interval_s:
        return None
    if not burst:
        raise _Wrong("rate_limit.burst: 0 would let nobody in; write how many requests may come at once, such as 20")
    return RateLimit(interval_s=interval_s, burst=burst)
