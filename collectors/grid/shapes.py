"""The shapes of the providers' answers, checked to the letter; what else they say is passed over.

Shapes: Electricity Maps v3 (carbon-intensity/latest, /history, /past-range), WattTime v3 (login, historical), GB
carbonintensity.org.uk (/intensity, /regional), Prometheus' HTTP API (query_range); and our own cache file.
"""

from typing import Literal, TypeVar

import msgspec

from wattribute.collectors.grid.feed import Unanswered

T = TypeVar("T")


class MapsPoint(msgspec.Struct, rename="camel", frozen=True):
    """One period of Electricity Maps; a value that isn't known is null."""

    zone: str
    carbon_intensity: float | None
    datetime: str
    emission_factor_type: str = ""
    is_estimated: bool = True
    temporal_granularity: str = "hourly"


class MapsRange(msgspec.Struct, rename="camel", frozen=True):
    """`history` is in `history`, `past-range` in `data`."""

    zone: str
    history: list[MapsPoint] = []
    data: list[MapsPoint] = []
    temporal_granularity: str = "hourly"


class Token(msgspec.Struct, frozen=True):
    """WattTime's login."""

    token: str


class WattPoint(msgspec.Struct, frozen=True):
    """One period of WattTime."""

    point_time: str
    value: float


class WattMeta(msgspec.Struct, frozen=True):
    """What WattTime's values are."""

    region: str
    signal_type: str
    units: str
    data_point_period_seconds: int


class WattHistory(msgspec.Struct, frozen=True):
    """WattTime's /v3/historical."""

    data: list[WattPoint]
    meta: WattMeta


class BritishIntensity(msgspec.Struct, frozen=True):
    """g CO2/kWh; `actual` is null until it is known, and always for a region."""

    forecast: float | None = None
    actual: float | None = None


class BritishPoint(msgspec.Struct, rename={"start": "from", "end": "to"}, frozen=True):
    """One half hour of Great Britain."""

    start: str
    end: str
    intensity: BritishIntensity


class BritishNation(msgspec.Struct, frozen=True):
    """/intensity/{from}/{to}."""

    data: list[BritishPoint]


class BritishArea(msgspec.Struct, frozen=True):
    """One region, with its periods."""

    data: list[BritishPoint]
    regionid: int
    postcode: str = ""


class BritishRegion(msgspec.Struct, frozen=True):
    """/regional/intensity/{from}/{to}/regionid/{id} and .../postcode/{outward}."""

    data: BritishArea


class PromSeries(msgspec.Struct, frozen=True):
    """One series: (unix seconds, number as text)."""

    values: list[tuple[float, str]]


class PromData(msgspec.Struct, rename="camel", frozen=True):
    """What a range query gives."""

    result_type: Literal["matrix"]
    result: list[PromSeries]


class PromRange(msgspec.Struct, frozen=True):
    """/api/v1/query_range."""

    status: Literal["success"]
    data: PromData


class Cached(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """state_dir/intensity-cache.json: whose answers, since when these have been used, and the answers."""

    schema: Literal[1]
    key: str
    since_unix_ns: int
    values: list[tuple[int, int, float, Literal["final", "estimated", "forecast"], int]] = []
    pues: list[tuple[int, float]] = []


def decoded(answer: bytes, shape: type[T]) -> T:
    """An answer in its shape. Raises Unanswered."""
    try:
        return msgspec.json.decode(answer, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unanswered("garbage", f"its answer isn't as documented: {error!s:.200}") from error


def encoded(cached: Cached) -> bytes:
    """The cache as a file's content."""
    return msgspec.json.encode(cached)
