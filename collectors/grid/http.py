"""One GET over the standard library: whole time and size bounded, certificates verified, no redirect followed.

urllib rather than a package: it knows the proxies of the environment, and five requests an hour need no pool.
"""

import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import IO, NoReturn
from urllib.parse import urlsplit

from wattribute.collectors.grid.feed import Unanswered

ANSWER_BYTES = 8 * 2**20  # two days of one-minute values are 0.2 MiB
MOST_WAIT_S = 3600.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could take the key elsewhere: the address has to be the right one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> NoReturn:
        where = urlsplit(newurl).netloc.rpartition("@")[2]
        fp.close()
        raise Unanswered(
            "redirect", f"it redirects ({code}) to {where}", "set provider.url to the address that answers itself"
        )


def is_private(url: str) -> bool:
    """Whether what is sent there is nobody else's to read: encrypted, or this machine's."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


def get(url: str, headers: Mapping[str, str], timeout_s: float, secrets: Sequence[str] = ()) -> bytes:
    """The body of a good answer. Blocks for `timeout_s` or so. Raises Unanswered, with none of the `secrets` in it."""
    if secrets and not is_private(url):
        raise Unanswered("key", "the key would be readable on its way", "set provider.url to an https:// address")
    request = urllib.request.Request(
        url, headers={"Accept": "application/json", "User-Agent": "wattribute", "Connection": "close", **headers}
    )
    opener = urllib.request.build_opener(_NoRedirects)
    until_s = time.monotonic() + timeout_s
    try:
        with opener.open(request, timeout=timeout_s) as response:
            return _body(response, until_s)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(error, secrets) from None
    except (TimeoutError, urllib.error.URLError, OSError, HTTPException, ValueError) as error:
        raise _failed(error, timeout_s, secrets) from None


def _body(response: HTTPResponse, until_s: float) -> bytes:
    parts: list[bytes] = []
    left = ANSWER_BYTES
    while part := response.read1(1 << 16):
        parts.append(part)
        left -= len(part)
        if left < 0:
            raise Unanswered("too_large", f"its answer is larger than {ANSWER_BYTES >> 20} MiB")
        if time.monotonic() > until_s:
            raise TimeoutError
    if response.length:
        raise Unanswered("garbage", "its answer ended early")
    return b"".join(parts)


def _refused(error: urllib.error.HTTPError, secrets: Sequence[str]) -> Unanswered:
    said = _said(error, secrets)
    cause = f"it answers {error.code}{': ' + said if said else ''}"
    wait_s = _retry_after_s(error.headers.get("Retry-After", ""))
    if error.code == 429:
        return Unanswered(
            "rate_limited", cause, "ask less often, or with a plan that allows more", retry_after_s=wait_s
        )
    if error.code in (401, 403):
        return Unanswered("auth", cause, "check the key, and that its plan covers the zone")
    if error.code >= 500:
        return Unanswered("server", cause, retry_after_s=wait_s)
    return Unanswered("refused", cause, "check provider.url, zone and query")


def _said(error: urllib.error.HTTPError, secrets: Sequence[str]) -> str:
    try:
        text = error.read(300).decode("utf-8", "replace")
    except (OSError, HTTPException):
        text = ""
    return redacted("".join(c if c.isprintable() else " " for c in text).strip(), secrets)


def redacted(text: str, secrets: Sequence[str]) -> str:
    """A text without the secrets."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text


def _retry_after_s(text: str) -> float | None:
    """Retry-After, in seconds or as a date (RFC 9110, 10.2.3); None where there is none that can be read."""
    if text.isascii() and text.isdigit():
        return min(float(text), MOST_WAIT_S)
    try:
        return min(max(0.0, parsedate_to_datetime(text).timestamp() - time.time()), MOST_WAIT_S)
    except (TypeError, ValueError, OverflowError):
        return None


def _failed(error: Exception, timeout_s: float, secrets: Sequence[str]) -> Unanswered:
    import ssl

    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return Unanswered(
            "timeout", f"no answer within {timeout_s:g} s", "look at the network, or raise provider.timeout_s"
        )
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Unanswered(
            "tls", f"its certificate isn't trusted: {reason.verify_message}", "set SSL_CERT_FILE to who signed it"
        )
    if isinstance(reason, ssl.SSLError):
        return Unanswered("tls", redacted(f"no TLS with it: {reason}", secrets))
    if isinstance(reason, ConnectionRefusedError):
        return Unanswered("connection", "nobody listens there", "check provider.url")
    if isinstance(reason, OSError):
        return Unanswered("connection", redacted(f"{reason.strerror or reason}", secrets), "look at the network")
    return Unanswered("garbage", redacted(f"not an HTTP answer: {reason!r:.200}", secrets))
