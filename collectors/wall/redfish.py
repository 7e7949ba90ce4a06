"""Power or energy of the whole node by its BMC's Redfish service: an energy counter where it has one, else power.

What is asked for is found once: a chassis, and in it the best figure. Then it is one GET per reading, each with a
connection of its own, no redirect followed and no proxy asked. Source: DMTF DSP0268 (EnvironmentMetrics, Power).
"""

import base64
import contextlib
import json
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Domain, EnergyReading, Finding, PowerReading
from wattribute.agent.core.units import UJ_PER_J, UJ_PER_KWH, uj_from_j, uw_from_w

if TYPE_CHECKING:
    import ssl

DOMAIN = Domain(kind="psys", id="redfish")
CEILING_UW = 100_000_000_000  # 100 kW: more than any chassis; tells a reset from use
ANSWER_BYTES = 2**20
USER, PASSWORD = "REDFISH_USER", "REDFISH_PASSWORD"
FINE_DIGITS = 3
"""A counter in kWh is taken where it is written to the Wh; a coarser one would stand still for minutes."""

LOCK_S = 600.0
"""So long nobody is asked again who refused a login: many BMCs lock a user out after a few, others' use included."""

_MOST_NAMED = 10
_ROOT = "/redfish/v1/Chassis"


class Login(NamedTuple):
    """Who signs in; nobody where the user is empty. `where` says where it came from, in words."""

    user: str
    password: str
    where: str

    def __repr__(self) -> str:
        return f"Login({self.where})"


class _Figure(NamedTuple):
    """Where the best figure stands: a resource, the keys down to it, and whether it is J, kWh or W."""

    path: str
    keys: tuple[str | int, ...]
    unit: str

    @property
    def words(self) -> str:
        return f"{self.path} {'.'.join(map(str, self.keys))}"


_FIGURES: tuple[tuple[str, tuple[str | int, ...], str], ...] = (
    ("EnvironmentMetrics", ("EnergyJoules", "Reading"), "J"),
    ("EnvironmentMetrics", ("EnergykWh", "Reading"), "kWh"),
    ("EnvironmentMetrics", ("PowerWatts", "Reading"), "W"),
    ("Power", ("PowerControl", 0, "PowerConsumedWatts"), "W"),
)
"""In the order in which they are taken: where a chassis links to them, and what they are."""


class RedfishWall:
    """Reads one chassis below `url`, or the one at it. Raises SensorUnavailable where `ca_file` can't be read.

    It asks nothing yet. A reading that takes longer than `timeout_s` fails; two powers are integrated over no more than
    `bridge_ns`.
    """

    name = "wall"

    def __init__(
        self,
        url: str,
        login: Login,
        clock: Callable[[], int],
        *,
        ca_file: str = "",
        timeout_s: float,
        bridge_ns: int,
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._chassis = parts.path.rstrip("/")
        self._login = login
        self._clock = clock
        self._timeout_s = timeout_s
        self._bridge_ns = bridge_ns
        self._tls = _tls(ca_file) if parts.scheme == "https" else None
        self._figure: _Figure | None = None
        self._refusal: tuple[float, tuple[str, str]] | None = None  # until when, and why

    def read(self) -> list[EnergyReading | PowerReading]:
        """One reading. Raises SensorUnavailable, with the fix and never the password."""
        until_s = time.monotonic() + self._timeout_s
        if self._refusal is not None and time.monotonic() < self._refusal[0]:
            raise SensorUnavailable(*self._refusal[1])
        if self._figure is None:
            self._figure = self._find(until_s)
        figure = self._figure
        document, at_ns = self._get(figure.path, until_s)
        value = _number(document, figure)
        if value is None:
            raise SensorUnavailable(f"{figure.words} is no figure of a node now", "look at the BMC's sensor")
        if figure.unit == "W":
            return [PowerReading(domain=DOMAIN, at_ns=at_ns, power_uw=uw_from_w(str(value)), bridge_ns=self._bridge_ns)]
        energy_uj = uj_from_j(str(value)) if figure.unit == "J" else int(value * UJ_PER_KWH)
        return [EnergyReading(domain=DOMAIN, at_ns=at_ns, energy_uj=energy_uj, ceiling_uw=CEILING_UW)]

    def close(self) -> None:
        """Nothing is kept open."""

    def finding(self) -> Finding:
        """What `doctor` says of it."""
        path = f"{self._host}{self._chassis}"
        try:
            (reading,) = self.read()
        except SensorUnavailable as error:
            return Finding(source=self.name, path=path, ok=False, why=error.cause, fix=error.fix)
        assert self._figure is not None
        counts = isinstance(reading, EnergyReading)
        return Finding(
            source=self.name,
            path=path,
            ok=True,
            why=f"the whole chassis, by {self._figure.words}: readable, {self._login.where}",
            value=f"{reading.energy_uj} uJ" if isinstance(reading, EnergyReading) else f"{reading.power_uw / 1e6:g} W",
            quality="measured" if counts else "integrated",
        )

    def _find(self, until_s: float) -> _Figure:
        path = self._chassis if self._chassis.startswith("/redfish/") else self._only_chassis(until_s)
        chassis, _ = self._get(path, until_s)
        pages: dict[str, Mapping[str, Any]] = {}
        for link, keys, unit in _FIGURES:
            page = _link(chassis.get(link))
            if page is None:
                continue
            if page not in pages:
                pages[page] = self._page(page, until_s)
            figure = _Figure(page, keys, unit)
            value = _number(pages[page], figure)
            if not value or (unit == "kWh" and -int(value.as_tuple().exponent) < FINE_DIGITS):
                continue  # some BMCs have a counter that stands at 0 for good
            return figure
        raise SensorUnavailable(
            f"{path} tells neither energy nor power",
            'name the chassis that does: wall.url = "https://BMC/redfish/v1/Chassis/NAME"; or collectors.wall = "ipmi"',
            absent=True,
        )

    def _page(self, path: str, until_s: float) -> Mapping[str, Any]:
        """A page of the chassis; some link to what they don't have."""
        try:
            return self._get(path, until_s)[0]
        except SensorUnavailable as error:
            if error.absent:
                return {}
            raise

    def _only_chassis(self, until_s: float) -> str:
        answer, _ = self._get(_ROOT, until_s)
        members = answer.get("Members")
        found = [path for one in members if (path := _link(one))] if isinstance(members, list) else []
        if len(found) == 1:
            return found[0]
        named = ", ".join(found[:_MOST_NAMED]) or "none"
        raise SensorUnavailable(
            f"{len(found)} chassis below {_ROOT}: {named}",
            f'name that of this node: wall.url = "https://{self._host}{found[0] if found else _ROOT + "/NAME"}"',
        )

    def _get(self, path: str, until_s: float) -> tuple[Mapping[str, Any], int]:
        """A resource, and when its answer began."""
        headers = {"Accept": "application/json", "User-Agent": "wattribute", "Connection": "close"}
        if self._login.user:
            pair = f"{self._login.user}:{self._login.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        try:
            connection = self._connection(until_s)
            connection.connect()
            with connection.sock as connected, _cut_off(connected, until_s):
                connection.request("GET", path, headers=headers)
                with connection.getresponse() as response:
                    at_ns = self._clock()
                    if response.status != 200:
                        raise self._refused(path, response.status)
                    document = json.loads(_body(response), parse_float=Decimal, parse_int=Decimal)
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            raise self._failed(TimeoutError() if time.monotonic() >= until_s else error) from error
        if not isinstance(document, dict):
            raise SensorUnavailable(f"{path} holds no object", "point wall.url at the BMC's Redfish service")
        return document, at_ns

    def _connection(self, until_s: float) -> HTTPConnection:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        if self._tls is None:
            return HTTPConnection(self._host, self._port or 80, timeout=left_s)
        from http.client import HTTPSConnection

        return HTTPSConnection(self._host, self._port or 443, timeout=left_s, context=self._tls)

    def _refused(self, path: str, status: int) -> SensorUnavailable:
        if status in (401, 403):
            whose = self._login.where if self._login.user else "nobody signs in"
            refusal = (
                f"the BMC answers {status} to {path}: {whose}",
                f"give a user who may read: wall.credentials_file (user and password, a line each), or {USER} and "
                f"{PASSWORD}; then start the agent again",
            )
            self._refusal = time.monotonic() + LOCK_S, refusal
            return SensorUnavailable(*refusal)
        if status == 404:
            fix = "set wall.url to the BMC, or to a chassis of it"
            return SensorUnavailable(f"the BMC has no {path} (404)", fix, absent=True)
        return SensorUnavailable(f"the BMC answers {status} to {path}", "look at the BMC's log")

    def _failed(self, error: Exception) -> SensorUnavailable:
        if isinstance(error, TimeoutError):
            return SensorUnavailable(
                f"the BMC ({self._host}) has no whole answer within {self._timeout_s:g} s", "raise wall.timeout_s"
            )
        if isinstance(error, OSError):
            import ssl

            if isinstance(error, ssl.SSLCertVerificationError):
                return SensorUnavailable(
                    f"the BMC's certificate isn't trusted: {error.verify_message}",
                    "set wall.ca_file to a file with that certificate, or with the CA that signed it",
                )
            return SensorUnavailable(f"the BMC ({self._host}): {error.strerror or error}", "set wall.url to the BMC")
        return SensorUnavailable(
            f"the BMC ({self._host}) gave no Redfish answer ({type(error).__name__})", "set wall.url to the BMC"
        )


def credentials(file: str, environment: Mapping[str, str]) -> Login:
    """Who signs in, by a file (user and password, a line each) or the environment; read once, so that it may be root's.

    Raises SensorUnavailable for a file that can't be read or doesn't hold them; never shows what it holds.
    """
    if not file:
        user, password = environment.get(USER, ""), environment.get(PASSWORD, "")
        if bool(user) != bool(password):
            raise SensorUnavailable(f"only one of {USER} and {PASSWORD} is set", "set both, or neither")
        return Login(user, password, f"signed in by {USER}" if user else "without signing in")
    path = Path(file)
    try:
        with path.open("rb") as content:
            text = content.read(4096).decode()
        others = bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError as error:
        raise SensorUnavailable(
            f"wall.credentials_file {file}: {error.strerror}", f"sudo chown root: {file} && sudo chmod 600 {file}"
        ) from None
    except UnicodeDecodeError:
        text, others = "", False
    lines = [line.rstrip("\r") for line in text.split("\n")]
    user, password = (*lines, "", "")[:2]
    if not user or not password or ":" in user:
        raise SensorUnavailable(
            f"wall.credentials_file {file} doesn't hold a user and a password", "write them to it, a line each"
        )
    warning = f", which others than its owner may read: chmod 600 {file}" if others else ""
    return Login(user, password, f"signed in by {file}{warning}")


def _tls(ca_file: str) -> "ssl.SSLContext":
    """Who is believed to be the BMC: by the system's CAs under its own name; or whoever `ca_file` vouches for.

    A BMC's own certificate seldom has its address in it, so that a file's word counts whatever the name.
    """
    import ssl

    if not ca_file:
        return ssl.create_default_context()
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        why = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise SensorUnavailable(
            f"wall.ca_file {ca_file}: {why}",
            f"openssl s_client -connect BMC:443 </dev/null | openssl x509 > {ca_file}  # and look that it is the BMC's",
        ) from None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


@contextlib.contextmanager
def _cut_off(connected: socket.socket, until_s: float) -> Iterator[None]:
    """Shut a socket at a moment: a time-out of its own begins anew with each byte of an answer that trickles."""

    def shut() -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, until_s - time.monotonic()), shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _body(response: HTTPResponse) -> bytes:
    parts: list[bytes] = []
    left = ANSWER_BYTES
    while part := response.read1(1 << 16):
        parts.append(part)
        left -= len(part)
        if left < 0:
            raise ValueError("too large")
    return b"".join(parts)


def _link(value: object) -> str | None:
    """The path that a resource links to, on the BMC itself."""
    path = value.get("@odata.id") if isinstance(value, dict) else None
    if not isinstance(path, str) or not path.startswith("/redfish/"):
        return None
    return path if path.isascii() and path.isprintable() and " " not in path else None


def _number(document: object, figure: _Figure) -> Decimal | None:
    """The figure, where it is one of a meter: finite, not negative, no power that no node draws, and not 0 W."""
    for key in figure.keys:
        if isinstance(key, str):
            document = document.get(key) if isinstance(document, dict) else None
        else:
            document = document[key] if isinstance(document, list) and len(document) > key else None
    if not isinstance(document, Decimal) or not document.is_finite() or not 0 <= document < UJ_PER_J * UJ_PER_J:
        return None
    if figure.unit == "W" and not 0 < uw_from_w(str(document)) <= CEILING_UW:
        return None
    return document


__all__ = ["DOMAIN", "Login", "RedfishWall", "credentials"]
