"""Great Britain's carbonintensity.org.uk: average direct intensity by the half hour, forecast, then actual. No key.

GET /intensity/{from}/{to}; for one of the 17 regions /regional/intensity/{from}/{to}/regionid/{id}, or by the outward
part of a postcode; a region has forecasts alone, which never become actual. Data: CC BY 4.0.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from wattribute.agent.core.intensity import About, Reported
from wattribute.agent.core.units import NS_PER_S
from wattribute.collectors.grid.feed import HOUR_NS, Answer, Unanswered, moment, screened
from wattribute.collectors.grid.http import get
from wattribute.collectors.grid.shapes import BritishNation, BritishPoint, BritishRegion, decoded

URL = "https://api.carbonintensity.org.uk"
REGIONS = 17
NATION = ("", "GB")
_POSTCODE = re.compile(r"[A-Z]{1,2}[0-9][0-9A-Z]?")


def is_zone(zone: str) -> bool:
    """Whether it is the nation, a region's number, or the outward part of a postcode."""
    return zone in NATION or (zone.isdecimal() and 1 <= int(zone) <= REGIONS) or bool(_POSTCODE.fullmatch(zone))


class GreatBritain:
    """The nation (zone `` or `GB`), or a part of it."""

    every_s = 900.0
    ahead_ns = 24 * HOUR_NS
    whole = False

    def __init__(self, zone: str, *, url: str, timeout_s: float) -> None:
        self.about = About(
            zone="GB" if zone in NATION else f"GB-{zone}",
            provider="uk",
            method="average, direct",
            source="GB Carbon Intensity API (NESO)",
            licence="CC BY 4.0",
        )
        self.settles = zone in NATION
        self._zone = zone
        self._url = (url or URL).rstrip("/")
        self._timeout_s = timeout_s

    def fetch(self, start_unix_ns: int, end_unix_ns: int, now_unix_ns: int) -> Answer:
        """The half hours from start to end. Raises Unanswered."""
        span = f"{_minute(start_unix_ns)}/{_minute(end_unix_ns)}"
        return screened(self._reported(self._points(span), now_unix_ns), now_unix_ns)

    def _points(self, span: str) -> list[BritishPoint]:
        if self.settles:
            return decoded(get(f"{self._url}/intensity/{span}", {}, self._timeout_s), BritishNation).data
        kind = "regionid" if self._zone.isdecimal() else "postcode"
        body = get(f"{self._url}/regional/intensity/{span}/{kind}/{self._zone}", {}, self._timeout_s)
        area = decoded(body, BritishRegion).data
        answered = str(area.regionid) if kind == "regionid" else area.postcode
        if answered.upper() != self._zone:
            raise Unanswered("zone", f'it answers for {kind} "{answered:.40}", not "{self._zone}"')
        return area.data

    def _reported(self, points: list[BritishPoint], now_unix_ns: int) -> Iterator[Reported]:
        for point in points:
            start_ns, until_ns = moment(point.start), moment(point.end)
            if not start_ns < until_ns:
                raise Unanswered("garbage", f"it answers with a period that ends before it starts: {point.start:.40}")
            if point.intensity.actual is not None:
                yield Reported(start_ns, until_ns, point.intensity.actual, "final", now_unix_ns)
            elif point.intensity.forecast is not None:
                yield Reported(start_ns, until_ns, point.intensity.forecast, "forecast", now_unix_ns)


def _minute(unix_ns: int) -> str:
    return f"{datetime.fromtimestamp(unix_ns // NS_PER_S, UTC):%Y-%m-%dT%H:%MZ}"
