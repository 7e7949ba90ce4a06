"""Between which figures each term of a job's carbon lies: low, central and high, in integer nanograms.

Worst-case intervals, which is why they add: energy x carbon intensity x PUE for what is metered, the catalogue's
bounds for hardware, the EPC's for products. Where each figure comes from: docs/uncertainty.md. What the bounds don't
cover: what no sensor sees (a receipt's `boundary.missing`), and by which policy a node's joules are split.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Final, NamedTuple, TypeAlias

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.hardware import EXACT, Band
from wattribute.agent.core.model import TERMS, Term
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.units import g_of

ENERGY_BANDS: Final[Mapping[str, Band]] = {
    # NVML against an external meter: -7.9 % to +12.9 % by board, a gain that doesn't average out (arXiv 2312.02741);
    # true = shown / (1 + error), rounded outwards. RAPL: nothing better is published for a package (docs).
    "measured": (Fraction(88, 100), Fraction(110, 100)),
    # As measured, and the trapezoid over 1 s averages: within 6 % for a bursty 30 s job (own simulation).
    "integrated": (Fraction(82, 100), Fraction(117, 100)),
    # Models by counters err by 32 % on average and 100 % at most (Fahad et al. 2019); ours knows less. Our judgement.
    "modelled": (Fraction(1, 2), Fraction(2)),
}

PUE_UNCONFIGURED_HIGH: Final = Fraction(158, 100)  # the average of 2020 (Gitzel et al. 2023)
PUE_CONFIGURED: Final = Fraction(5, 100)  # a year's figure against the hour's: our judgement


class _Ends(NamedTuple):
    """A band as integers, so that a thousand receipts at once cost little: low / of_low to high / of_high, exactly."""

    low: int
    of_low: int
    high: int
    of_high: int


_EXACTLY = _Ends(1, 1, 1, 1)


class _Bands(NamedTuple):
    energy: _Ends
    intensity: _Ends
    pue: _Ends
    hardware: _Ends


_Span: TypeAlias = tuple[int, int]
"""The lowest and the highest of a term, in nanograms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """Bounds by term and by sum; None where a product's EPC is missing, so that the true figure may be any higher.

    `dominant` is the term with the widest interval and what makes it wide ("operation: intensity"); "" where nothing
    is uncertain.
    """

    terms: Mapping[Term, Bounded | None]
    jsc: Bounded
    jsce: Bounded
    asc: Bounded
    asce: Bounded | None
    dominant: str


def pue_band(pue: float | Fraction, *, configured: bool) -> Band:
    """The band of PUE: nobody chose one, so that it is 1.0 up to an average site's; or a configured one's error."""
    exact = Fraction(str(pue))
    if not configured:
        return min(Fraction(1), 1 / exact), max(Fraction(1), PUE_UNCONFIGURED_HIGH / exact)
    return max(1 - PUE_CONFIGURED, min(Fraction(1), 1 / exact)), 1 + PUE_CONFIGURED


def band_of(mass: Bounded) -> Band:
    """A mass's bounds as multiples of it; nothing has no width."""
    if not mass.central:
        return EXACT
    return Fraction(mass.low, mass.central), Fraction(mass.high, mass.central)


def band_texts(band: Band) -> list[str]:
    """A band as JSON has it: two exact fractions."""
    return [str(end) for end in band]


def band_of_texts(texts: Sequence[str]) -> Band:
    """A band from JSON."""
    low, high = texts
    return _fraction(low), _fraction(high)


@lru_cache(maxsize=1024)  # all jobs of a node have the same few
def _fraction(text: str) -> Fraction:
    return Fraction(text)


def energy_band(energy_by_quality_uj: Mapping[str, int]) -> Band:
    """The band of some energy from what it is made of; without any, that of a model."""
    ends = _energy_ends(energy_by_quality_uj)
    return Fraction(ends.low, ends.of_low), Fraction(ends.high, ends.of_high)


def bounds(
    terms_ng: Mapping[Term, int],
    energy_by_quality_uj: Mapping[str, int],
    *,
    intensity_band: Band,
    pue_band: Band,
    hardware_band: Band,
    epc_bands: Mapping[str, Band | None],
    taxes_ng: Mapping[tuple[str, Term], int],
    declared: Collection[str] = (),
) -> Uncertainty:
    """The bounds of a job's terms. Bands are (low, high) multiples of the central figure, low <= 1 <= high.

    `epc_bands`: by product whose EPC the job pays for, that EPC's band; None: it has none, and ASC^e is a lower
    bound. One that isn't named is taken as it is, and what no product is named for has the widest band. `declared`:
    products whose platform tax is a declared rate, which is taken as it is; a metered one is as uncertain as the job's
    own energy. Raises KeyError for a quality that doesn't exist, ValueError for a band that doesn't hold 1.
    """
    bands = _Bands(_energy_ends(energy_by_quality_uj), _ends(intensity_band), _ends(pue_band), _ends(hardware_band))
    epc_ends = {payee: _ends(band) for payee, band in epc_bands.items() if band is not None}
    central = {term: terms_ng.get(term, 0) for term in TERMS}
    used_ng, metered_ng = central["operation"], central["platform"]
    paid_ng: dict[str, int] = {}
    for (payee, term), ng in taxes_ng.items():
        if term == "product":
            paid_ng[payee] = ng
        elif term == "platform" and payee in declared:
            metered_ng -= ng
    fixed_ng = central["platform"] - metered_ng
    unnamed_ng = central["product"] - sum(paid_ng.values())
    missing = len(epc_ends) < len(epc_bands) or (unnamed_ng != 0 and not epc_bands)

    def platform(b: _Bands) -> _Span:
        low, high = _metered(metered_ng, b)
        return fixed_ng + low, fixed_ng + high

    makers: dict[Term, Callable[[_Bands], _Span]] = {
        "operation": lambda b: _scaled(used_ng, _product(b.energy, b.intensity)),
        "cooling": lambda b: _cooling(used_ng, central["cooling"], b),
        "platform": platform,
        "retraining": lambda b: _metered(central["retraining"], b),
        "hardware": lambda b: _scaled(central["hardware"], b.hardware),
        "overhead_hardware": lambda b: _scaled(central["overhead_hardware"], b.hardware),
    }
    spans = {term: make(bands) for term, make in makers.items()}
    parts = [_scaled(ng, epc_ends.get(payee, _EXACTLY)) for payee, ng in paid_ng.items()]
    if unnamed_ng:
        parts.append(_scaled(unnamed_ng, _widest(epc_ends.values())))
    spans["product"] = sum(low for low, _ in parts), sum(high for _, high in parts)
    known = {term: Bounded(low, central[term], high) for term, (low, high) in spans.items()}
    jsc = known["operation"] + known["cooling"]
    jsce = jsc + known["platform"] + known["retraining"]
    return Uncertainty(
        terms={**known, "product": None} if missing else known,
        jsc=jsc,
        jsce=jsce,
        asc=jsc + known["hardware"],
        asce=None if missing else jsce + known["hardware"] + known["overhead_hardware"] + known["product"],
        dominant=_dominant(spans, makers, bands),
    )


def by_quality(energy: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """How good the sum of some energy is: microjoules by quality, from (kind, quality, microjoules).

    A rest is a difference: with the parts it is as good as the meter at the wall. Where that was integrated, what was
    measured beside it counts as integrated.
    """
    sums: dict[str, int] = {}
    loose_uj = 0
    for kind, quality, energy_uj in energy:
        sums[quality] = sums.get(quality, 0) + energy_uj
        if kind == "rest" and quality != "measured":
            loose_uj += energy_uj
    if loose_uj:
        sums["integrated"] = sums.get("integrated", 0) + sums.pop("measured", 0)
    return sums


def from_record(
    record: JobRecord,
    *,
    intensity_band: Band,
    pue_band: Band,
    hardware_band: Band,
    epc_bands: Mapping[str, Band | None],
    declared: Collection[str] = (),
) -> Uncertainty:
    """The bounds of one job as closed rows tell of it; the rest as in `bounds`."""
    return bounds(
        record.terms_ng,
        by_quality((kind, quality, uj) for (kind, _, quality), uj in record.energy_uj.items()),
        intensity_band=intensity_band,
        pue_band=pue_band,
        hardware_band=hardware_band,
        epc_bands=epc_bands,
        taxes_ng=record.taxes_ng,
        declared=declared,
    )


def receipt_bounds(found: Uncertainty) -> dict[str, object]:
    """What a receipt says under `bounds`: [low, high] in grams by sum and by term, null where unknown."""
    sums = {"jsc": found.jsc, "jsce": found.jsce, "asc": found.asc, "asce": found.asce}
    return {
        **{name: _grams(bounded) for name, bounded in sums.items()},
        "terms": {term: _grams(found.terms[term]) for term in TERMS},
        "dominant": found.dominant,
    }


def _grams(bounded: Bounded | None) -> list[float] | None:
    return None if bounded is None else [g_of(bounded.low), g_of(bounded.high)]


def _ends(band: Band) -> _Ends:
    """Raises ValueError for a band that doesn't hold 1."""
    (low, of_low), (high, of_high) = band[0].as_integer_ratio(), band[1].as_integer_ratio()
    if not (0 <= low <= of_low and of_high <= high):
        raise ValueError(f"a band must hold 1: {band[0]} to {band[1]}")
    return _Ends(low, of_low, high, of_high)


_ENERGY_ENDS: Final[Mapping[str, _Ends]] = {quality: _ends(band) for quality, band in ENERGY_BANDS.items()}
_ENERGY_OF: Final = lcm(*(of for ends in _ENERGY_ENDS.values() for of in (ends.of_low, ends.of_high)))


def _energy_ends(energy_by_quality_uj: Mapping[str, int]) -> _Ends:
    low = high = whole_uj = 0
    for quality, energy_uj in energy_by_quality_uj.items():
        if energy_uj > 0:
            ends = _ENERGY_ENDS[quality]
            whole_uj += energy_uj
            low += energy_uj * ends.low * (_ENERGY_OF // ends.of_low)
            high += energy_uj * ends.high * (_ENERGY_OF // ends.of_high)
    if not whole_uj:
        return _ENERGY_ENDS["modelled"]
    return _Ends(low, whole_uj * _ENERGY_OF, high, whole_uj * _ENERGY_OF)


def _product(a: _Ends, b: _Ends) -> _Ends:
    return _Ends(a.low * b.low, a.of_low * b.of_low, a.high * b.high, a.of_high * b.of_high)


def _widest(bands: Iterable[_Ends]) -> _Ends:
    known = [_EXACTLY, *bands]
    low = min(known, key=lambda ends: Fraction(ends.low, ends.of_low))
    high = max(known, key=lambda ends: Fraction(ends.high, ends.of_high))
    return _Ends(low.low, low.of_low, high.high, high.of_high)


def _scaled(central_ng: int, ends: _Ends) -> _Span:
    """Rounded outwards. A term that later corrections made negative has its ends the other way round."""
    low, of_low, high, of_high = ends
    if central_ng < 0:
        low, of_low, high, of_high = high, of_high, low, of_low
    return central_ng * low // of_low, -(-central_ng * high // of_high)


def _metered(central_ng: int, bands: _Bands) -> _Span:
    """Somebody else's JSC, metered as the job's own is."""
    return _scaled(central_ng, _product(_product(bands.energy, bands.intensity), bands.pue)) if central_ng else (0, 0)


def _cooling(used_ng: int, central_ng: int, bands: _Bands) -> _Span:
    """What energy x intensity x PUE leaves of operation and cooling beside operation; a PUE is never below 1."""
    low, of_low, high, of_high = _product(bands.energy, bands.intensity)
    pue, whole_ng = bands.pue, used_ng + central_ng
    low, of_low = low * max(0, whole_ng * pue.low - used_ng * pue.of_low), of_low * pue.of_low
    high, of_high = high * max(0, whole_ng * pue.high - used_ng * pue.of_high), of_high * pue.of_high
    return min(low // of_low, high // of_high, central_ng), max(-(-low // of_low), -(-high // of_high), central_ng)


def _width(span: _Span) -> int:
    return span[1] - span[0]


def _dominant(spans: Mapping[Term, _Span], makers: Mapping[Term, Callable[[_Bands], _Span]], bands: _Bands) -> str:
    """The widest term, and the band that makes it widest where all others are exact."""
    widest = max(TERMS, key=lambda term: _width(spans[term]))
    if not _width(spans[widest]):
        return ""
    if widest == "product":
        return "product: epc"
    make, exact = makers[widest], _Bands(_EXACTLY, _EXACTLY, _EXACTLY, _EXACTLY)
    causes = {
        name: _width(make(exact._replace(**{name: ends}))) for name, ends in zip(_Bands._fields, bands, strict=True)
    }
    return f"{widest}: {max(causes, key=lambda name: causes[name])}"
