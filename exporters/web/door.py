"""The door of the web server: what the web file asks of who comes in, re-read when one of its files changes."""

import base64
import logging
import queue
import selectors
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.model import SourceHealth
from wattribute.exporters.messages import RequestHead, Response
from wattribute.exporters.web.settings import RateLimit, WebSettings

if TYPE_CHECKING:
    from wattribute.exporters.web.passwords import Passwords
    from wattribute.exporters.web.tls import Tls

Admitted: TypeAlias = Callable[[Response | None], None]
"""Takes the verdict on a request that had to wait: what it is answered instead of its page, or None."""

MISSING = "[web] config_file needs packages that aren't installed: pip install 'wattribute[web]'"

logger = logging.getLogger(__name__)
_CHALLENGE = (("WWW-Authenticate", 'Basic realm="wattribute", charset="UTF-8"'),)
_BUSY = Response(status=503, body=b"too many logins wait to be checked\n", headers=(("Retry-After", "5"),))
_TOO_MANY = Response(status=429, body=b"more requests than rate_limit allows\n", headers=(("Retry-After", "1"),))


class Protection(NamedTuple):
    """A web file that holds: what it says, and its TLS."""

    settings: WebSettings
    tls: "Tls | None"


def load(path: Path) -> Protection:
    """Read a web file and all that it names. Raises ConfigError, which names the file, the key and the fix."""
    if find_spec("yaml") is None:
        raise ConfigError(f"{path}: {MISSING}")
    from wattribute.exporters.web.web_file import read

    settings = read(path)
    if settings.users and find_spec("bcrypt") is None:
        raise ConfigError(f"{path}: {MISSING}")
    if settings.tls is None:
        return Protection(settings, None)
    from wattribute.exporters.web.tls import Tls

    try:
        return Protection(settings, Tls(settings.tls))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:  # a file that went between two looks, no descriptor left, OpenSSL's own mind
        raise ConfigError(f"{path}: tls_server_config can't be used: {error}") from error


class Door:
    """Who may come in. Raises ConfigError where the web file doesn't hold.

    A file that is changed counts within about a second; a version that doesn't hold is told, and the one before goes
    on. `clock` gives seconds that never go back.
    """

    def __init__(
        self, selector: selectors.BaseSelector, path: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._selector = selector
        self._clock = clock
        self._passwords: Passwords | None = None
        self._failures = 0
        self._problem = ""
        self._said = False
        self._files = [path]
        self._seen: list[tuple[int, ...] | None] = []
        self._use(self._load())

    @property
    def tls(self) -> "Tls | None":
        """What new connections speak; None: plain text."""
        return self._protection.tls

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What goes with each response that doesn't have its own."""
        return self._protection.settings.headers

    def admit(self, head: RequestHead, peer: str, then: Admitted) -> Response | Literal["wait"] | None:
        """None: come in; else what the request is answered; `wait`: `then` will be told. `peer`: its address."""
        if self._bucket is not None and not self._bucket.take(self._clock()):
            return _TOO_MANY
        users = self._protection.settings.users
        if not users:
            return None
        given = _credentials(head.headers.get("authorization", ""))
        if given is None:
            return _unauthorized("a user name and a password are needed")
        if self._passwords is None:
            from wattribute.exporters.web.passwords import Passwords

            self._passwords = Passwords(self._selector)
        try:
            good = self._passwords.check(*given, users, peer, lambda good: then(_verdict(good)))
        except queue.Full:
            return _BUSY
        return "wait" if good is None else _verdict(good)

    def look(self) -> None:
        """Read the files again where one has changed, or where they didn't hold; to be called about once a second."""
        changed = self._seen != _fingerprints(self._files)
        if not (changed or self._problem or (self.tls is not None and self.tls.crowded)):
            return
        try:
            protection = self._load()
            self._compare(self._protection.settings, protection.settings)
        except ConfigError as error:
            self._complain(str(error))
            return
        if changed or self._problem:
            logger.info("%s was read again", self._path)
        self._problem = ""
        self._use(protection)

    def _compare(self, before: WebSettings, after: WebSettings) -> None:
        """A file that somebody is still writing must not open the door. Raises ConfigError."""
        if before.protects and not after.protects:
            less = "neither TLS nor users are"
        elif before.asks_who and not after.asks_who:
            less = "neither users nor client certificates that are required are"
        else:
            return
        raise ConfigError(f"{self._path}: {less} in it any more. Fix: if that is meant, restart the agent")

    def _complain(self, problem: str) -> None:
        """Count what is new, and say it once it has lasted: a certificate and its key are replaced one by one."""
        if problem != self._problem:
            self._failures += 1
            self._problem, self._said = problem, False
        elif not self._said:
            logger.warning("%s; what was in force before still is", problem)
            self._said = True

    def health(self) -> SourceHealth:
        """Whether what is in force is what the files say."""
        why, _, fix = self._problem.partition(" Fix: ")
        return SourceHealth(
            name="web",
            up=not self._problem,
            read_ns=0,
            last_read_unix_ns=None,
            failures={"config": self._failures} if self._failures else {},
            gap_ns=0,
            wraps=0,
            resets=0,
            why=why,
            fix=fix or (f"wattribute config check tells more, until {self._path} holds" if why else ""),
        )

    def close(self) -> None:
        """Who waits is never told; may be called twice."""
        if self._passwords is not None:
            self._passwords.close()

    def _load(self) -> Protection:
        """What the files say, and what they were like just before they were read."""
        while True:
            self._seen = _fingerprints(self._files)
            protection = load(self._path)
            if protection.settings.files == self._files:
                return protection
            self._files = protection.settings.files

    def _use(self, protection: Protection) -> None:
        self._protection = protection
        limit = protection.settings.rate_limit
        self._bucket = None if limit is None else _Bucket(limit, self._clock())


class _Bucket:
    """A token bucket."""

    def __init__(self, limit: RateLimit, now_s: float) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Whether one more is allowed now."""
        filled = self._tokens + (now_s - self._at_s) / self._limit.interval_s
        self._tokens, self._at_s = min(float(self._limit.burst), filled), now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _fingerprints(paths: list[Path]) -> list[tuple[int, ...] | None]:
    return [_fingerprint(path) for path in paths]


def _fingerprint(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None for one that can't be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _credentials(header: str) -> tuple[bytes, bytes] | None:
    """User and password of an Authorization header (RFC 7617); None where it has none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except ValueError:  # binascii's own, and one for what isn't even ASCII
        return None
    return (user, password) if colon else None


def _verdict(good: bool) -> Response | None:
    return None if good else _unauthorized("wrong user name or password")


def _unauthorized(why: str) -> Response:
    return Response(status=401, body=f"{why}\n".encode(), headers=_CHALLENGE)
