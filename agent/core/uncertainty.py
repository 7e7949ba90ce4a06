"""Between which figures each term of a job's carbon lies: low, central and high, in integer nanograms.

Worst-case intervals, which is why they add: energy x carbon intensity x PUE for what is metered, the catalogue's
bounds for hardware, the EPC's for products. Where each figure comes from: docs/uncertainty.md. What the bounds don't
cover: what no sensor sees (a receipt's `boundary.missing`), and by which policy a node's joules are split.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
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


class _Bands(NamedTuple):
    energy: Band
    intensity: Band
    pue: Band
    hardware: Band


_Term: TypeAlias = Callable[[_Bands], Bounded]


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
    return Fraction(low), Fraction(high)


def energy_band(energy_by_quality_uj: Mapping[str, int]) -> Band:
    """The band of some energy from what it is made of; without any, that of a model."""
    known = {quality: uj for quality, uj in energy_by_quality_uj.items() if uj > 0}
    whole_uj = sum(known.values())
    if not whole_uj:
        return ENERGY_BANDS["modelled"]
    bands = [(uj, ENERGY_BANDS[quality]) for quality, uj in known.items()]
    low, high = (sum((uj * band[end] for uj, band in bands), Fraction(0)) / whole_uj for end in (0, 1))
    return low, high


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
    bands = _Bands(energy_band(energy_by_quality_uj), intensity_band, pue_band, hardware_band)
    for band in (*bands, *(band for band in epc_bands.values() if band is not None)):
        if not 0 <= band[0] <= 1 <= band[1]:
            raise ValueError(f"a band must hold 1: {band[0]} to {band[1]}")
    central = {term: terms_ng.get(term, 0) for term in TERMS}
    fixed_ng = sum(ng for (payee, term), ng in taxes_ng.items() if term == "platform" and payee in declared)
    paid_ng = {payee: ng for (payee, term), ng in taxes_ng.items() if term == "product"}
    unnamed_ng = central["product"] - sum(paid_ng.values())
    missing = None in epc_bands.values() or (unnamed_ng != 0 and not epc_bands)

    def cooling(b: _Bands) -> Bounded:
        used_ng = central["operation"]
        whole_ng = used_ng + central["cooling"]
        ends = [
            e * i * max(Fraction(0), whole_ng * p - used_ng)
            for e, i, p in zip(b.energy, b.intensity, b.pue, strict=True)
        ]
        return _around(central["cooling"], *ends)

    def platform(b: _Bands) -> Bounded:
        return Bounded.exactly(fixed_ng) + _metered(central["platform"] - fixed_ng, b)

    makers: dict[Term, _Term] = {
        "operation": lambda b: _scaled(central["operation"], _product(b.energy, b.intensity)),
        "cooling": cooling,
        "platform": platform,
        "retraining": lambda b: _metered(central["retraining"], b),
        "hardware": lambda b: _scaled(central["hardware"], b.hardware),
        "overhead_hardware": lambda b: _scaled(central["overhead_hardware"], b.hardware),
    }
    known = {term: make(bands) for term, make in makers.items()}
    product = _scaled(unnamed_ng, _widest(epc_bands.values()))
    for payee, ng in paid_ng.items():
        product += _scaled(ng, epc_bands.get(payee) or EXACT)
    jsc = known["operation"] + known["cooling"]
    jsce = jsc + known["platform"] + known["retraining"]
    return Uncertainty(
        terms={**known, "product": None if missing else product},
        jsc=jsc,
        jsce=jsce,
        asc=jsc + known["hardware"],
        asce=None if missing else jsce + known["hardware"] + known["overhead_hardware"] + product,
        dominant=_dominant({**known, "product": product}, makers, bands),
    )


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
    by_quality: dict[str, int] = {}
    for (_, _, quality), energy_uj in record.energy_uj.items():
        by_quality[quality] = by_quality.get(quality, 0) + energy_uj
    return bounds(
        record.terms_ng,
        by_quality,
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


def _product(*bands: Band) -> Band:
    low = high = Fraction(1)
    for band in bands:
        low, high = low * band[0], high * band[1]
    return low, high


def _widest(bands: Iterable[Band | None]) -> Band:
    known = [EXACT, *(band for band in bands if band is not None)]
    return min(low for low, _ in known), max(high for _, high in known)


def _around(central_ng: int, *ends: Fraction) -> Bounded:
    """Rounded outwards. A term that later corrections made negative has its ends the other way round."""
    low_ng, high_ng = floor(min(ends)), ceil(max(ends))
    return Bounded(min(low_ng, central_ng), central_ng, max(high_ng, central_ng))


def _scaled(central_ng: int, band: Band) -> Bounded:
    return _around(central_ng, central_ng * band[0], central_ng * band[1])


def _metered(central_ng: int, bands: _Bands) -> Bounded:
    """Somebody else's JSC, metered as the job's own is."""
    return _scaled(central_ng, _product(bands.energy, bands.intensity, bands.pue))


def _width(bounded: Bounded) -> int:
    return bounded.high - bounded.low


def _dominant(known: Mapping[Term, Bounded], makers: Mapping[Term, _Term], bands: _Bands) -> str:
    """The widest term, and the band that makes it widest where all others are exact."""
    widest = max(TERMS, key=lambda term: _width(known[term]))
    if not _width(known[widest]):
        return ""
    if widest == "product":
        return "product: epc"
    exact = _Bands(EXACT, EXACT, EXACT, EXACT)
    causes = {name: _width(makers[widest](exact._replace(**{name: getattr(bands, name)}))) for name in _Bands._fields}
    return f"{widest}: {max(causes, key=lambda name: causes[name])}"
