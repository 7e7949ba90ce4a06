"""WattTime, API v3: MARGINAL direct emissions (co2_moer), every five minutes. Not what JSC is defined on.

A marginal intensity says what one more kWh causes: right for "should this run later?", not for an inventory, which
takes the average. It is used only where it is asked for, and says `marginal` on every series and receipt. GET /login
(basic) gives a token for 30 minutes, GET /v3/historical pounds of CO2 per MWh.
"""

from base64 import b64encode
from collections.abc import Iterator
from time import monotonic
from urllib.parse import urlencode

from wattribute.agent.core.intensity import About, Reported, g_per_kwh_of_lb_per_mwh, rfc3339
from wattribute.agent.core.units import NS_PER_S
from wattribute.collectors.grid.feed import Answer, Unanswered, moment, screened
from wattribute.collectors.grid.http import get
from wattribute.collectors.grid.keys import Keys
from wattribute.collectors.grid.shapes import Token, WattHistory, decoded

URL = "https://api.watttime.org"
VARIABLES = ("WATTTIME_USER", "WATTTIME_PASSWORD")
SIGNAL = "co2_moer"
UNITS = "lbs_co2_per_mwh"
TOKEN_S = 25 * 60.0


class WattTime:
    """One region (`CAISO_NORTH`)."""

    every_s = 300.0
    ahead_ns = 0
    settles = True
    whole = False

    def __init__(self, region: str, keys: Keys, *, url: str, timeout_s: float) -> None:
        self.about = About(
            zone=region,
            provider="watttime",
            method="marginal, direct",
            source="WattTime API v3, co2_moer",
            licence="by your plan: watttime.org",
        )
        self._keys = keys
        self._url = (url or URL).rstrip("/")
        self._timeout_s = timeout_s
        self._token = ""
        self._token_until_s = 0.0

    def fetch(self, start_unix_ns: int, end_unix_ns: int, now_unix_ns: int) -> Answer:
        """The periods from start to end, both included. Raises Unanswered."""
        times = {"start": rfc3339(start_unix_ns), "end": rfc3339(end_unix_ns)}
        query = urlencode({"region": self.about.zone, "signal_type": SIGNAL, **times})
        try:
            body = self._get(query)
        except Unanswered as error:
            if error.reason != "auth" or not self._token:
                raise
            self._token = ""  # it may have ended early
            body = self._get(query)
        told = decoded(body, WattHistory)
        return screened(self._reported(told, now_unix_ns), now_unix_ns)

    def _get(self, query: str) -> bytes:
        token = self._login()
        return get(
            f"{self._url}/v3/historical?{query}", {"Authorization": f"Bearer {token}"}, self._timeout_s, (token,)
        )

    def _login(self) -> str:
        if self._token and monotonic() < self._token_until_s:
            return self._token
        user, password = self._keys.read()
        basic = b64encode(f"{user}:{password}".encode()).decode()
        header = {"Authorization": f"Basic {basic}"}
        body = get(f"{self._url}/login", header, self._timeout_s, (basic, password, user))
        token = decoded(body, Token).token
        if not (token.isascii() and token.isprintable() and token):
            raise Unanswered("garbage", "its login gives no token")
        self._token, self._token_until_s = token, monotonic() + TOKEN_S
        return token

    def _reported(self, told: WattHistory, now_unix_ns: int) -> Iterator[Reported]:
        meta = told.meta
        if meta.region != self.about.zone:
            raise Unanswered("zone", f'it answers for region "{meta.region:.40}", not "{self.about.zone}"')
        if (meta.signal_type, meta.units) != (SIGNAL, UNITS):
            raise Unanswered("units", f'it answers with "{meta.signal_type:.40}" in "{meta.units:.40}", not {UNITS}')
        if not 0 < meta.data_point_period_seconds <= 86_400:
            raise Unanswered("garbage", f"it answers in steps of {meta.data_point_period_seconds} s")
        for point in told.data:
            start_ns = moment(point.point_time)
            until_ns = start_ns + meta.data_point_period_seconds * NS_PER_S
            yield Reported(start_ns, until_ns, float(g_per_kwh_of_lb_per_mwh(point.value)), "final", now_unix_ns)
