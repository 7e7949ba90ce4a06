"""A Prometheus (or what speaks its HTTP API) that holds g CO2e per kWh, and perhaps the PUE: one value a minute.

GET /api/v1/query_range on whole minutes, so that each minute is asked for by the same name again. A query gives one
series. `key_file` holds a bearer token where one is needed.
"""

from urllib.parse import urlencode

from wattribute.agent.core.intensity import About, FactorType, Reported
from wattribute.agent.core.units import NS_PER_S
from wattribute.collectors.grid.feed import Answer, Unanswered, screened
from wattribute.collectors.grid.http import get
from wattribute.collectors.grid.keys import Keys
from wattribute.collectors.grid.series import MOST_PUE
from wattribute.collectors.grid.shapes import PromRange, decoded

VARIABLES = ("a bearer token",)  # in key_file alone
STEP_S = 60


class Prometheus:
    """The answer to `query` in g/kWh, and to `pue_query`, where there is one."""

    every_s = float(STEP_S)
    ahead_ns = 0
    settles = True
    whole = False

    def __init__(
        self,
        zone: str,
        factor_type: FactorType,
        keys: Keys | None,
        *,
        url: str,
        query: str,
        pue_query: str,
        timeout_s: float,
    ) -> None:
        self.about = About(
            zone=zone, provider="prometheus", method=f"average, {factor_type}", source=f"Prometheus: {query}"
        )
        self._keys = keys
        self._url = url.rstrip("/")
        self._query = query
        self._pue_query = pue_query
        self._timeout_s = timeout_s

    def fetch(self, start_unix_ns: int, end_unix_ns: int, now_unix_ns: int) -> Answer:
        """The minutes from start to end. Raises Unanswered."""
        values = [
            Reported(at_s * NS_PER_S, (at_s + STEP_S) * NS_PER_S, value, "final", now_unix_ns)
            for at_s, value in self._points(self._query, start_unix_ns, end_unix_ns)
        ]
        if not self._pue_query:
            return screened(values, now_unix_ns)
        answer = screened(values, now_unix_ns)
        pues, refused, why = [], dict(answer.refused), answer.why
        for at_s, value in self._points(self._pue_query, start_unix_ns, end_unix_ns):
            if 1 <= value <= MOST_PUE:
                pues.append((at_s * NS_PER_S, value))
            else:
                refused["pue"] = refused.get("pue", 0) + 1
                why = f"its PUE of {value:g} is outside 1 to {MOST_PUE:g}"
        return Answer(values=answer.values, pues=pues, refused=refused, why=why)

    def _points(self, query: str, start_unix_ns: int, end_unix_ns: int) -> list[tuple[int, float]]:
        start_s, end_s = (unix_ns // NS_PER_S // STEP_S * STEP_S for unix_ns in (start_unix_ns, end_unix_ns))
        asked = urlencode({"query": query, "start": start_s, "end": end_s, "step": STEP_S})
        keys = self._keys.read() if self._keys is not None else ()
        headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
        body = get(f"{self._url}/api/v1/query_range?{asked}", headers, self._timeout_s, keys)
        found = decoded(body, PromRange).data.result
        if len(found) != 1:
            raise Unanswered(
                "series_count",
                f"{query:.80} gives {len(found)} series, not 1",
                "write a query that gives one, e.g. avg(...)" if found else "check the query in Prometheus itself",
            )
        try:
            return [(int(at_s), float(text)) for at_s, text in found[0].values]
        except (ValueError, OverflowError):
            raise Unanswered("garbage", f"{query:.80} gives a value that is no number") from None
