"""Pushes snapshots to an OpenTelemetry Collector by OTLP over HTTP, in a thread of its own.

One snapshot at a time: what isn't delivered is dropped, and the next one, whose counters hold it all, is pushed in its
place after a while that doubles with each failure. Seconds where nothing else is said.
"""

import contextlib
import http.client
import logging
import random
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.model import Snapshot, SourceHealth

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("wattribute")

FIRST_BACKOFF_S = 1.0
LAST_BACKOFF_S = 60.0
RETRY_AFTER_S = 600.0
CLOSE_S = 0.2
FINISH_S = 2.0
BREATH_S = 0.001
"""A tick that comes in between has the interpreter as long as it needs it, most of the time."""
ANSWER_BYTES = 65536
PATH = "/v1/metrics"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # what a header's name is made of
_RETRIED = {429, 502, 503, 504}  # by OTLP's specification; another refusal is the same the next time


Rejected: TypeAlias = Callable[[bytes], tuple[int, str]]
"""How many points an answer says weren't taken, and why."""


class Encoder(Protocol):
    """Makes requests, and reads a Collector's answers to them."""

    def requests(self, snapshot: Snapshot, breathe: Callable[[], None]) -> Iterable[bytes]: ...
    def rejected(self, body: bytes) -> tuple[int, str]: ...


class _Failed(Exception):
    """A push that didn't arrive. `after_s`: when the Collector wants to hear again, None: it doesn't say."""

    def __init__(self, reason: str, why: str, fix: str, after_s: float | None = None, *, again: bool = True) -> None:
        super().__init__(why)
        self.reason, self.why, self.fix, self.after_s, self.again = reason, why, fix, after_s, again


class OtlpPusher:
    """An Exporter. `wanted` says that it is time for the next snapshot; `publish` only hands it over.

    `environment`: headers, certificates, as OpenTelemetry's variables name them. Raises ConfigError.
    """

    def __init__(
        self,
        endpoint: str,
        encoder: Encoder,
        environment: Mapping[str, str],
        *,
        interval_s: float,
        timeout_s: float,
        first_backoff_s: float = FIRST_BACKOFF_S,
    ) -> None:
        self._link = _Link(endpoint, environment, timeout_s)
        self._encoder = encoder
        self._interval_s = interval_s
        self._first_backoff_s = first_backoff_s
        self._changed = threading.Condition()
        self._snapshot: Snapshot | None = None
        self._stopping = False
        self._pushed = False
        self._failures: dict[str, int] = {}
        self._in_a_row = 0
        self._unwelcome_until_s = 0.0
        self._why = self._fix = ""
        self._took_ns = 0
        self._delivered_unix_ns: int | None = None
        self.wanted = True
        self._thread = threading.Thread(target=self._run, name="wattribute-otlp", daemon=True)
        self._thread.start()

    def publish(self, snapshot: Snapshot) -> None:
        """Push this one; never blocks or raises."""
        with self._changed:
            self._snapshot, self.wanted = snapshot, False
            self._changed.notify()

    def health(self) -> Iterator[SourceHealth]:
        """How the last push went; nothing before the first."""
        if self._pushed:
            yield SourceHealth(
                name="otlp",
                up=not self._why,
                read_ns=self._took_ns,
                last_read_unix_ns=self._delivered_unix_ns,
                failures=dict(self._failures),
                gap_ns=0,
                wraps=0,
                resets=0,
                why=self._why,
                fix=self._fix,
            )

    def finish(self, last: Snapshot | None, patience_s: float = FINISH_S) -> None:
        """Push this one at once, and then no more; what isn't delivered within `patience_s` is left."""
        with self._changed:
            self._snapshot, self._stopping = last, True
            self._changed.notify()
        self._thread.join(patience_s)

    def close(self) -> None:
        """Push no more; one that is under way is waited for a moment only. May be called twice."""
        self.finish(None, CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._snapshot is not None)
                snapshot, self._snapshot = self._snapshot, None
                if snapshot is None or (self._stopping and time.monotonic() < self._unwelcome_until_s):
                    return
            began_s = time.monotonic()
            pause_s = self._push(snapshot)
            del snapshot
            left_s = pause_s - (time.monotonic() - began_s)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=max(0.0, left_s))
                self.wanted = True

    def _breathe(self) -> None:
        """Others have their turn at the interpreter; at the end nobody needs one."""
        if not self._stopping:
            time.sleep(BREATH_S)

    def _push(self, snapshot: Snapshot) -> float:
        """Pushes one; the time from its beginning to the next one's."""
        began_ns = time.monotonic_ns()
        try:
            self._link.post(self._encoder.requests(snapshot, self._breathe), self._encoder.rejected)
        except _Failed as failed:
            failure = failed
        except Exception as error:  # a defect costs the push, not the thread
            log.exception("otlp: a bug in this exporter")
            failure = _Failed("bug", f"{type(error).__name__}: {error}", "report it with the traceback in the log")
        else:
            if self._why:
                log.info("otlp: %s takes metrics again", self._link.shown)
            self._why = self._fix = ""
            self._in_a_row = 0
            self._delivered_unix_ns = time.time_ns()
            self._took_ns, self._pushed = time.monotonic_ns() - began_ns, True
            return self._interval_s
        self._failures = {**self._failures, failure.reason: self._failures.get(failure.reason, 0) + 1}
        if failure.why != self._why:
            log.warning("otlp: %s. Fix: %s", failure.why, failure.fix)
        self._why, self._fix = failure.why, failure.fix
        self._took_ns, self._pushed = time.monotonic_ns() - began_ns, True
        self._in_a_row += 1
        self._unwelcome_until_s = time.monotonic() + (failure.after_s or 0.0)
        if not failure.again:
            return max(self._interval_s, LAST_BACKOFF_S)
        backoff_s = min(self._first_backoff_s * 2.0 ** min(self._in_a_row - 1, 16), LAST_BACKOFF_S)
        # At random, so that a thousand agents don't come back at once.
        return max(backoff_s * random.uniform(0.5, 1.0), failure.after_s or 0.0)


class _Link:
    """A Collector's address, and how it is spoken to."""

    def __init__(self, endpoint: str, environment: Mapping[str, str], timeout_s: float) -> None:
        parts = urlsplit(endpoint)
        self._host, self._port, self._is_tls = parts.hostname or "", parts.port, parts.scheme == "https"
        path = parts.path.rstrip("/")
        self._path = path if path.endswith(PATH) else path + PATH
        self.shown = f"{parts.scheme}://{parts.netloc}{self._path}"
        self._timeout_s = timeout_s
        self._headers = {
            **_headers(environment.get("OTEL_EXPORTER_OTLP_HEADERS", "")),
            **_headers(environment.get("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "")),
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
            "User-Agent": "wattribute",
        }
        self._context = _tls(environment) if self._is_tls else None

    def post(self, bodies: Iterable[bytes], rejected: Rejected) -> None:
        """Sends all requests over one connection. Raises _Failed at the first that isn't taken."""
        link = self._open()
        try:
            for body in bodies:
                self._post_one(link, body, rejected)
        except TimeoutError as error:
            raise _Failed(
                "timeout",
                f"{self.shown} didn't answer within {self._timeout_s:g} s",
                "see whether the Collector is overloaded, or raise otlp.timeout_s",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise _Failed(
                "unreachable", f"{self.shown}: {why}", "start the Collector there, or correct otlp.endpoint"
            ) from error
        finally:
            link.close()

    def _open(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _post_one(self, link: http.client.HTTPConnection, body: bytes, rejected: Rejected) -> None:
        gzip = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)
        link.request("POST", self._path, gzip.compress(body) + gzip.flush(), self._headers)
        answer = link.getresponse()
        said = answer.read(ANSWER_BYTES)
        if not answer.isclosed():
            link.close()  # more than any Collector has to say; the next request opens it again
        if 200 <= answer.status < 300:
            points, message = rejected(said)
            if points:
                raise _Failed(
                    "rejected",
                    f"{self.shown} refused {points} points: {message[:200]}",
                    "see the Collector's log",
                    again=False,
                )
            return
        raise _Failed(
            f"http_{answer.status}",
            f"{self.shown} answered {answer.status} {answer.reason}"[:300],
            _FIXES.get(answer.status, "see the Collector's log"),
            _seconds(answer.getheader("Retry-After", "")),
            again=answer.status in _RETRIED,
        )


_FIXES = {
    401: "give a key in OTEL_EXPORTER_OTLP_HEADERS",
    403: "give a key in OTEL_EXPORTER_OTLP_HEADERS",
    404: "name the Collector's OTLP/HTTP receiver in otlp.endpoint: http://HOST:4318",
    413: "raise max_request_body_size of the Collector's receiver",
    429: "see whether the Collector is overloaded",
    503: "see whether the Collector is overloaded",
}


def _headers(text: str) -> dict[str, str]:
    """`key=value,key=value`, values encoded as in URLs (OpenTelemetry's specification of exporters)."""
    headers = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if name.strip() and equals:
            headers[unquote(name.strip())] = unquote(value.strip())
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise ConfigError("OTEL_EXPORTER_OTLP_HEADERS holds what no header can. Fix: write KEY=VALUE,KEY=VALUE")
    return headers


def _tls(environment: Mapping[str, str]) -> "ssl.SSLContext":
    import ssl

    try:
        context = ssl.create_default_context(cafile=environment.get("OTEL_EXPORTER_OTLP_CERTIFICATE") or None)
        own = environment.get("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
        if own:
            context.load_cert_chain(own, environment.get("OTEL_EXPORTER_OTLP_CLIENT_KEY") or None)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"a certificate for otlp.endpoint can't be used: {error}. Fix: correct OTEL_EXPORTER_OTLP_CERTIFICATE or "
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _CLIENT_KEY"
        ) from error
    return context


def _seconds(text: str) -> float | None:
    """A Retry-After in seconds, within reason; a date is left to the back-off."""
    with contextlib.suppress(ValueError):
        return min(max(0.0, float(text)), RETRY_AFTER_S)
    return None


__all__ = ["OtlpPusher"]
