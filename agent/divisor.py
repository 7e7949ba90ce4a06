"""A fleet product's concurrent weight from a Prometheus, where no shared ledger is at hand or asked for.

Source: prometheus.io/docs/prometheus/latest/querying/api, "Instant queries".
"""

import json
import math
from decimal import Decimal, InvalidOperation
from urllib.parse import quote

from wattribute.agent.core.errors import SensorUnavailable

TIMEOUT_S = 5.0
MOST_PPM = 10**15  # a thousand million jobs


class PrometheusDivisor:
    """Asks `query` of a Prometheus, with `$product` in it replaced."""

    def __init__(self, url: str, query: str) -> None:
        self._url = url.rstrip("/")
        self._query = query

    def weight_ppm(self, product_id: str) -> int | None:
        """The product's concurrent weight in millionths; None where nobody knows of it.

        Blocks for some seconds at most. Raises SensorUnavailable, with the fix.
        """
        from wattribute.collectors.grid.feed import Unanswered
        from wattribute.collectors.grid.http import get

        query = self._query.replace("$product", _escaped(product_id))
        try:
            answer = get(f"{self._url}/api/v1/query?query={quote(query, safe='')}", {}, TIMEOUT_S)
            return _ppm(answer)
        except Unanswered as error:
            raise SensorUnavailable(
                f"ledger.divisor_url {self._url}: {error.cause}", "check ledger.divisor_url, and that Prometheus runs"
            ) from error
        except (ValueError, LookupError, TypeError, RecursionError, InvalidOperation) as error:
            raise SensorUnavailable(
                f"ledger.divisor_url {self._url}: {error!s:.200}",
                f"try the query there: {query:.200}; it has to give one number",
            ) from error


def _escaped(text: str) -> str:
    """As it stands in a quoted PromQL string."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _ppm(answer: bytes) -> int | None:
    told = json.loads(answer)
    if told["status"] != "success":
        raise ValueError(f"Prometheus says {told.get('error', told['status'])}")
    kind, result = told["data"]["resultType"], told["data"]["result"]
    if kind == "vector":
        if len(result) > 1:
            raise ValueError(f"the query gives {len(result)} series, not one: sum them")
        if not result:
            return None
        result = result[0]["value"]
    elif kind != "scalar":
        raise ValueError(f"the query gives a {kind}, not a number")
    weight = Decimal(result[1])
    if math.isnan(weight):
        return None
    ppm = weight * 1_000_000
    if not 0 <= ppm <= MOST_PPM:
        raise ValueError(f"the weight can't be {result[1]}")
    return round(ppm)
