"""Electricity Maps, API v3: average intensity of consumption, life-cycle or direct, hour by hour, estimated at first.

GET /v3/carbon-intensity/latest, /past-range and, where a plan doesn't have that, /history (24 hours); the key goes in
the header `auth-token`. Data: commercial or by plan (electricitymaps.com/legal).
"""

from collections.abc import Iterator
from urllib.parse import urlencode

from wattribute.agent.core.intensity import About, FactorType, Reported, Status, merged, rfc3339
from wattribute.collectors.grid.feed import HOUR_NS, Answer, Unanswered, moment, screened
from wattribute.collectors.grid.http import get
from wattribute.collectors.grid.keys import Keys
from wattribute.collectors.grid.shapes import MapsPoint, MapsRange, decoded

URL = "https://api.electricitymaps.com"
VARIABLES = ("ELECTRICITYMAPS_API_KEY",)
STEP_NS = {"hourly": HOUR_NS, "15_minutes": HOUR_NS // 4, "5_minutes": HOUR_NS // 12}


class ElectricityMaps:
    """One zone (`DE`, `US-CAL-CISO`)."""

    every_s = 900.0
    ahead_ns = 0
    settles = True
    whole = False

    def __init__(self, zone: str, factor_type: FactorType, keys: Keys, *, url: str, timeout_s: float) -> None:
        self.about = About(
            zone=zone,
            provider="electricitymaps",
            method=f"average, {factor_type}",
            source="Electricity Maps API v3, carbon intensity of consumption",
            licence="by your plan: electricitymaps.com/legal",
        )
        self._factor_type = factor_type
        self._keys = keys
        self._url = (url or URL).rstrip("/")
        self._timeout_s = timeout_s
        self._without_range = False

    def fetch(self, start_unix_ns: int, end_unix_ns: int, now_unix_ns: int) -> Answer:
        """The hours from start to end, and the running one. Raises Unanswered."""
        latest = decoded(self._get("latest"), MapsPoint)
        answer = screened(self._reported([latest], now_unix_ns), now_unix_ns)
        try:
            past = screened(self._reported(self._past(start_unix_ns, end_unix_ns), now_unix_ns), now_unix_ns)
        except Unanswered as error:  # the present is worth having alone
            return Answer(values=answer.values, refused={error.reason: 1}, why=error.cause)
        return Answer(
            values=merged(past.values, answer.values, start_unix_ns), refused=past.refused, why=past.why or answer.why
        )

    def _past(self, start_unix_ns: int, end_unix_ns: int) -> list[MapsPoint]:
        if not self._without_range:
            try:
                times = {"start": rfc3339(start_unix_ns // HOUR_NS * HOUR_NS), "end": rfc3339(end_unix_ns)}
                told = decoded(self._get("past-range", **times), MapsRange)
                self._check_zone(told.zone)
                return told.data
            except Unanswered as error:
                if error.reason not in ("auth", "refused"):
                    raise
                self._without_range = True  # the key is good: it gave the present
        told = decoded(self._get("history"), MapsRange)
        self._check_zone(told.zone)
        return told.history

    def _get(self, what: str, **times: str) -> bytes:
        query = {"zone": self.about.zone, "emissionFactorType": self._factor_type, **times}
        key = self._keys.read()
        url = f"{self._url}/v3/carbon-intensity/{what}?{urlencode(query)}"
        return get(url, {"auth-token": key[0]}, self._timeout_s, key)

    def _reported(self, points: list[MapsPoint], now_unix_ns: int) -> Iterator[Reported]:
        for point in points:
            self._check_zone(point.zone)
            if point.emission_factor_type and point.emission_factor_type != self._factor_type:
                raise Unanswered(
                    "factor_type",
                    f'it answers with "{point.emission_factor_type:.40}" factors, not {self._factor_type} ones',
                    "set carbon.factor_type to what your plan gives",
                )
            if point.carbon_intensity is None:
                continue
            if point.temporal_granularity not in STEP_NS:
                raise Unanswered("garbage", f'it answers in steps of "{point.temporal_granularity:.40}"')
            start_ns = moment(point.datetime)
            until_ns = start_ns + STEP_NS[point.temporal_granularity]
            status: Status = "estimated" if point.is_estimated else "final"
            yield Reported(start_ns, until_ns, point.carbon_intensity, status, now_unix_ns)

    def _check_zone(self, zone: str) -> None:
        if zone != self.about.zone:
            raise Unanswered(
                "zone", f'it answers for zone "{zone:.40}", not "{self.about.zone}"', "check provider.zone"
            )
