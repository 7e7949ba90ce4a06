"""Carbon intensity over time: what a grid's data say, what is in force at each moment, and how far it may be off.

Intensities are g CO2e/kWh, times Unix nanoseconds (UTC), periods half-open. Direct (stack) and life-cycle factors are
two quantities, average and marginal ones too: nothing here converts or averages one into the other.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from wattribute.agent.core.accounting import EMISSION_FACTORS, Price
from wattribute.agent.core.model import CarbonIntensity
from wattribute.agent.core.prices import PriceSeries

FactorType: TypeAlias = Literal["lifecycle", "direct"]
Status: TypeAlias = Literal["final", "estimated", "forecast"]

KG_PER_LB = Fraction("0.45359237")
"""The international pound, exact by definition."""

MOST_G_PER_KWH = 1500
"""Nothing that is connected to a grid emits more (coal's worst is 937 at the stack, 1306 the worst country)."""

WORLD_G_PER_KWH: Mapping[FactorType, int] = {"lifecycle": 480, "direct": 475}
"""The world's average: 2023 (Ember, Global Electricity Review 2024); direct: 2018 (IEA, Global Energy and CO2 Status
Report 2019). Countries' life-cycle figures go from 20 to 1306."""

LIFECYCLE_RANGES: Mapping[str, tuple[Fraction, Fraction]] = {
    # Lowest and highest, g CO2e/kWh: IPCC AR5 WG3 Annex III, table A.III.2; the medians are EMISSION_FACTORS.
    "coal": (Fraction(740), Fraction(910)),
    "gas": (Fraction(410), Fraction(650)),
    "oil": (Fraction(406), Fraction(935)),  # not in AR5: Electricity Maps' direct figure, the GB operator's
    "biomass": (Fraction(130), Fraction(420)),
    "solar": (Fraction(18), Fraction(180)),
    "solar_rooftop": (Fraction(26), Fraction(60)),
    "csp": (Fraction("8.8"), Fraction(63)),
    "geothermal": (Fraction(6), Fraction(79)),
    "hydro": (Fraction(1), Fraction(2200)),
    "nuclear": (Fraction("3.7"), Fraction(110)),
    "wind_onshore": (Fraction(7), Fraction(56)),
    "wind_offshore": (Fraction(8), Fraction(35)),
}

DIRECT_FACTORS: Mapping[str, tuple[Fraction, Fraction, Fraction]] = {
    # Stack alone, g CO2e/kWh: lowest, in force, highest. In force: Electricity Maps' default direct factors; highest:
    # the GB operator's (carbonintensity.org.uk; gas in open cycle). What isn't listed emits nothing at the stack.
    "coal": (Fraction(760), Fraction(760), Fraction(937)),
    "gas": (Fraction(370), Fraction(370), Fraction(651)),
    "oil": (Fraction(406), Fraction(406), Fraction(935)),
    "biomass": (Fraction(0), Fraction(0), Fraction(120)),
}
DIRECT_SOURCE = "Electricity Maps default direct factors: coal 760, gas 370, oil 406, the rest 0"
LIFECYCLE_SOURCE = "IPCC AR5 WG3 Annex III, medians; oil: UK POST note 383"

_NOTHING = (Fraction(0), Fraction(0), Fraction(0))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def g_per_kwh_of_lb_per_mwh(value: str | float | Decimal) -> Fraction:
    """Pounds per MWh as grams per kWh, exactly: kg/MWh is g/kWh. Raises ValueError."""
    return Fraction(str(value)) * KG_PER_LB


def mix_bounds(mix: Iterable[tuple[str, float]], factor_type: FactorType) -> tuple[Fraction, Fraction, Fraction]:
    """Lowest, central and highest intensity of a generation mix (source, part), exact: sum of f_k * EF_k.

    The bounds take every source at its lowest, or at its highest, published factor. Raises KeyError for a source that
    has no factor.
    """
    low = central = high = Fraction(0)
    for source, part in mix:
        median = Fraction(EMISSION_FACTORS[source])
        if factor_type == "lifecycle":
            least, most = LIFECYCLE_RANGES[source]
        else:
            least, median, most = DIRECT_FACTORS.get(source, _NOTHING)
        share = Fraction(Decimal(str(part)))
        low, central, high = low + share * least, central + share * median, high + share * most
    return low, central, high


def unix_ns_of(text: str) -> int:
    """An RFC 3339 time with its offset (or Z) as Unix nanoseconds. Raises ValueError, which says what to write."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f'"{text:.40}" is no time; write it as 2026-01-31T13:00:00Z') from None
    if moment.tzinfo is None:
        raise ValueError(
            f'"{text:.40}" has no offset, so it could be any zone\'s; write 2026-01-31T13:00:00Z for UTC, '
            "or 2026-01-31T13:00:00+01:00"
        )
    try:
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except OverflowError:
        raise ValueError(f'"{text:.40}" is out of range') from None


def rfc3339(unix_ns: int) -> str:
    """Unix nanoseconds as UTC text, e.g. 2026-01-31T13:00:00Z; what can't be a date comes out as the first or last."""
    try:
        moment = _EPOCH + timedelta(microseconds=unix_ns // 1000)
    except OverflowError:
        moment = datetime.max.replace(tzinfo=UTC) if unix_ns > 0 else datetime.min.replace(tzinfo=UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="auto") + "Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is the same for all values of one source. `method` is "average" or "marginal", and the factor type."""

    zone: str
    provider: str
    method: str
    year: int | None = None
    source: str = ""
    licence: str = ""


class Reported(NamedTuple):
    """What a source said of one period. `final`: it won't be revised; `estimated` and `forecast` will be."""

    valid_from_unix_ns: int
    valid_until_unix_ns: int
    g_per_kwh: float
    status: Status
    retrieved_unix_ns: int


Pues: TypeAlias = Sequence[tuple[int, float]]
"""(valid_from_unix_ns, PUE), rising, at least one; before the first, the first's."""

Band: TypeAlias = tuple[Fraction, Fraction]
"""How far the true intensity may be from the one used: lowest and highest as multiples of it."""

# The reasons stand in docs/intensity.md, "How far off".
BAND_DEFAULT: Mapping[str, Band] = {
    "lifecycle": (Fraction(20, 480), Fraction(1306, 480)),
    "direct": (Fraction(0), Fraction(1306, 475)),
}
BAND_FINAL: Mapping[str, Band] = {
    "lifecycle": (Fraction(410, 490), Fraction(650, 490)),
    "direct": (Fraction(760, 937), Fraction(937, 760)),
}
BAND_ELSE: Band = (Fraction(1, 2), Fraction(2))


def band_of(quality: str, method: str) -> Band:
    """How far off a value of a quality and method may be, for those that have no bounds of their own."""
    kind, _, factor_type = method.partition(", ")
    if quality == "default":
        return BAND_DEFAULT[factor_type]
    return BAND_FINAL[factor_type] if quality == "final" and kind == "average" else BAND_ELSE


def ratios(value: CarbonIntensity) -> Band:
    """The bounds of a value as multiples of it; (1, 1) for 0 g/kWh and for a value without bounds."""
    if not value.gco2e_per_kwh or value.low_g_per_kwh is None or value.high_g_per_kwh is None:
        return Fraction(1), Fraction(1)
    central = Fraction(Decimal(str(value.gco2e_per_kwh)))
    return (
        Fraction(Decimal(str(value.low_g_per_kwh))) / central,
        Fraction(Decimal(str(value.high_g_per_kwh))) / central,
    )


def valued(
    about: About,
    g_per_kwh: float,
    quality: str,
    *,
    valid_from_unix_ns: int = 0,
    valid_until_unix_ns: int | None = None,
    bounds: tuple[float, float] | None = None,
    final: bool = True,
    retrieved_unix_ns: int | None = None,
) -> CarbonIntensity:
    """A value in force, with its bounds: those given, else by its quality."""
    if bounds is None:
        band = band_of(quality, about.method)
        bounds = round(g_per_kwh * float(band[0]), 12), round(g_per_kwh * float(band[1]), 12)
    return CarbonIntensity(
        gco2e_per_kwh=g_per_kwh,
        valid_from_unix_ns=valid_from_unix_ns,
        valid_until_unix_ns=valid_until_unix_ns,
        zone=about.zone,
        provider=about.provider,
        method=about.method,
        quality=quality,
        low_g_per_kwh=bounds[0],
        high_g_per_kwh=bounds[1],
        year=about.year,
        source=about.source,
        licence=about.licence,
        final=final,
        retrieved_unix_ns=retrieved_unix_ns,
    )


def merged(known: Iterable[Reported], news: Iterable[Reported], keep_from_unix_ns: int) -> tuple[Reported, ...]:
    """What is known once the news are in: in order, without overlaps, nothing that ended before `keep_from_unix_ns`.

    Later news of a period replace earlier ones, but what is final is replaced by final news alone.
    """
    by_start: dict[int, Reported] = {}
    for one in (*known, *news):
        other = by_start.get(one.valid_from_unix_ns)
        if other is None or one.status == "final" or other.status != "final":
            by_start[one.valid_from_unix_ns] = one
    kept: list[Reported] = []
    for one in sorted(by_start.values()):
        while kept and one.valid_from_unix_ns < kept[-1].valid_until_unix_ns:
            last = kept.pop()
            if last.status == "final" and one.status != "final":
                one = one._replace(valid_from_unix_ns=last.valid_until_unix_ns)
                kept.append(last)
            elif last.valid_from_unix_ns < one.valid_from_unix_ns:
                kept.append(last._replace(valid_until_unix_ns=one.valid_from_unix_ns))
        if one.valid_from_unix_ns < one.valid_until_unix_ns:
            kept.append(one)
    return tuple(one for one in kept if one.valid_until_unix_ns > keep_from_unix_ns)


class Timeline:
    """Which value is in force from when on; before the first, the first."""

    __slots__ = ("_starts", "_values")

    def __init__(self, steps: Iterable[tuple[int, CarbonIntensity]]) -> None:
        """Steps are (from_unix_ns, value), at least one, in rising order."""
        ordered = list(steps)
        self._starts = [start for start, _ in ordered]
        self._values = [value for _, value in ordered]

    def at(self, unix_ns: int) -> CarbonIntensity:
        """The value in force at a moment."""
        return self._values[max(0, bisect_right(self._starts, unix_ns) - 1)]

    def over(self, start_unix_ns: int, end_unix_ns: int) -> list[tuple[int, CarbonIntensity]]:
        """The steps of a period, the first from its start on; none where it is empty."""
        if start_unix_ns >= end_unix_ns:
            return []
        first = bisect_right(self._starts, start_unix_ns)
        last = bisect_right(self._starts, end_unix_ns - 1)
        inside = zip(self._starts[first:last], self._values[first:last], strict=True)
        return [(start_unix_ns, self.at(start_unix_ns)), *inside]

    def since(self, unix_ns: int) -> list[tuple[int, CarbonIntensity]]:
        """The steps from a moment on, the first from that moment."""
        first = bisect_right(self._starts, unix_ns)
        return [(unix_ns, self.at(unix_ns)), *zip(self._starts[first:], self._values[first:], strict=True)]

    def used(self, booked: "Timeline", opened_unix_ns: int, now_unix_ns: int) -> "Timeline":
        """This one, but for what was `booked` from `opened_unix_ns` until now: news don't change what was used."""
        earliest = min(opened_unix_ns, 0, *self._starts)
        return Timeline(
            [
                *self.over(earliest, opened_unix_ns),
                *booked.over(opened_unix_ns, now_unix_ns),
                *self.since(max(opened_unix_ns, now_unix_ns)),
            ]
        )

    def prices(self, pues: Pues) -> PriceSeries:
        """What energy costs by it, with the PUE of each moment."""
        starts = sorted({*self._starts, *(start for start, _ in pues)})
        steps: list[tuple[int, Price]] = []
        for start in starts:
            price = price_of(self.at(start).gco2e_per_kwh, pue_at(pues, start))
            if not steps or steps[-1][1] != price:
                steps.append((start, price))
        return PriceSeries(steps)


def in_force(
    reported: Sequence[Reported],
    about: About,
    *,
    fallback: CarbonIntensity | None,
    grace_ns: int = 0,
    stale_ns: int = 0,
) -> Timeline:
    """Which value is in force when, by what was reported (in order, without overlaps).

    Where the next one is late, the last holds on: as `estimated` for `grace_ns`, then as `stale` until `stale_ns` are
    over, then the `fallback`. Without a fallback (then at least one must be reported) it holds on as `stale` for good.
    """
    steps: list[tuple[int, CarbonIntensity]] = []
    if not reported or fallback is not None:
        assert fallback is not None
        steps.append((min(0, reported[0].valid_from_unix_ns - 1) if reported else 0, fallback))
    else:
        steps.append((min(0, reported[0].valid_from_unix_ns - 1), _value(about, reported[0], "stale")))
    for index, one in enumerate(reported):
        steps.append((one.valid_from_unix_ns, _value(about, one, one.status)))
        late_from = one.valid_until_unix_ns
        after = reported[index + 1].valid_from_unix_ns if index + 1 < len(reported) else None
        if after is not None and after <= late_from:
            continue
        holding: list[tuple[int, CarbonIntensity]] = []
        if grace_ns:
            holding.append((late_from, _value(about, one, "estimated")))
        if fallback is None or stale_ns > grace_ns:
            holding.append((late_from + grace_ns, _value(about, one, "stale")))
        if fallback is not None:
            holding.append((late_from + max(grace_ns, stale_ns), fallback))
        steps += [step for step in holding if after is None or step[0] < after]
    return Timeline(steps)


@lru_cache(maxsize=8192)  # of two days of minutes all but the last few come again with every answer
def _value(about: About, one: Reported, quality: str) -> CarbonIntensity:
    return valued(
        about,
        one.g_per_kwh,
        quality,
        valid_from_unix_ns=one.valid_from_unix_ns,
        valid_until_unix_ns=one.valid_until_unix_ns,
        final=quality == "final",
        retrieved_unix_ns=one.retrieved_unix_ns,
    )


def final_price(reported: Sequence[Reported], pues: Pues, start_unix_ns: int, end_unix_ns: int) -> Price | None:
    """What energy used evenly from start to end costs by final values alone; None where one of them is missing."""
    end_unix_ns = max(end_unix_ns, start_unix_ns + 1)
    first = bisect_right(reported, start_unix_ns, key=lambda one: one.valid_from_unix_ns) - 1
    if first < 0:
        return None
    steps: list[tuple[int, float]] = []
    covered = start_unix_ns
    for one in reported[first:]:
        if covered >= end_unix_ns:
            break
        if one.status != "final" or one.valid_from_unix_ns > covered or one.valid_until_unix_ns <= covered:
            return None
        steps.append((one.valid_from_unix_ns, one.g_per_kwh))
        covered = one.valid_until_unix_ns
    if covered < end_unix_ns:
        return None
    starts = sorted({*(start for start, _ in steps), *(start for start, _ in pues if start > steps[0][0])})
    at = [start for start, _ in steps]
    priced = [(start, price_of(steps[bisect_right(at, start) - 1][1], pue_at(pues, start))) for start in starts]
    return PriceSeries(priced).over(start_unix_ns, end_unix_ns)


def used_pues(new: Pues, booked: Pues, opened_unix_ns: int, now_unix_ns: int) -> Pues:
    """The new PUEs, but for those `booked` from `opened_unix_ns` until now; equal neighbours are one."""
    if now_unix_ns <= opened_unix_ns:
        return new
    parts = (
        ((start, pue) for start, pue in new if start < opened_unix_ns),
        ((opened_unix_ns, pue_at(booked, opened_unix_ns)),),
        ((start, pue) for start, pue in booked if opened_unix_ns < start < now_unix_ns),
        ((now_unix_ns, pue_at(new, now_unix_ns)),),
        ((start, pue) for start, pue in new if start > now_unix_ns),
    )
    joined: list[tuple[int, float]] = []
    for start, pue in (step for part in parts for step in part):
        if not joined or joined[-1][1] != pue:
            joined.append((start, pue))
    return joined


def pue_at(pues: Pues, unix_ns: int) -> float:
    """The PUE in force at a moment."""
    return pues[max(0, bisect_right(pues, unix_ns, key=lambda step: step[0]) - 1)][1]


@lru_cache(maxsize=8192)
def price_of(g_per_kwh: float, pue: float) -> Price:
    """The price of an intensity and a PUE; the same few come again with every answer of a provider."""
    return Price.of(g_per_kwh, pue)
