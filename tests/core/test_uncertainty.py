"""Bounds of a job's terms: they hold the central figure, add up, and never get narrower by knowing less."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.accounting import sums_ng
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.hardware import EXACT, Band
from wattribute.agent.core.model import QUALITIES, TERMS, Term
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.uncertainty import (
    ENERGY_BANDS,
    Uncertainty,
    band_of,
    bounds,
    energy_band,
    from_record,
    pue_band,
    receipt_bounds,
)
from wattribute.agent.core.units import NG_PER_G

G = NG_PER_G
HALF_TO_DOUBLE: Band = (Fraction(1, 2), Fraction(2))
MEASURED = {"measured": 1_000_000}


def found(
    terms_g: Mapping[Term, int],
    energy: Mapping[str, int] = MEASURED,
    *,
    intensity: Band = EXACT,
    pue: Band = EXACT,
    hardware: Band = EXACT,
    epcs: Mapping[str, Band | None] | None = None,
    taxes_g: Mapping[tuple[str, Term], int] | None = None,
    declared: tuple[str, ...] = (),
) -> Uncertainty:
    return bounds(
        {term: g * G for term, g in terms_g.items()},
        energy,
        intensity_band=intensity,
        pue_band=pue,
        hardware_band=hardware,
        epc_bands=epcs or {},
        taxes_ng={key: g * G for key, g in (taxes_g or {}).items()},
        declared=declared,
    )


def in_g(bounded: Bounded | None) -> tuple[float, float, float] | None:
    return None if bounded is None else (bounded.low / G, bounded.central / G, bounded.high / G)


def test_measured_energy_on_a_grid_that_is_known_within_a_factor_of_two() -> None:
    one = found({"operation": 100, "cooling": 20}, intensity=HALF_TO_DOUBLE)
    assert in_g(one.terms["operation"]) == (44, 100, 220)
    assert in_g(one.terms["cooling"]) == (8.8, 20, 44)
    assert in_g(one.jsc) == in_g(one.jsce) == in_g(one.asc) == in_g(one.asce) == (52.8, 120, 264)
    assert one.dominant == "operation: intensity"


def test_without_a_pue_cooling_may_be_that_of_an_average_site() -> None:
    one = found({"operation": 100}, pue=pue_band(1.0, configured=False))
    assert in_g(one.terms["cooling"]) == (0, 0, 63.8)
    assert one.dominant == "cooling: pue"


def test_a_configured_pue_is_wrong_by_little() -> None:
    one = found({"operation": 100, "cooling": 50}, pue=pue_band(1.5, configured=True))
    low, central, high = in_g(one.jsc) or (0, 0, 0)
    assert (low, central, high) == pytest.approx((0.88 * 142.5, 150, 1.1 * 157.5))


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("pue", [1.0, 1.02, 1.1, 1.58, 2.5])
def test_no_pue_is_below_one(pue: float, configured: bool) -> None:
    low, high = pue_band(pue, configured=configured)
    assert low <= 1 <= high
    assert low * Fraction(str(pue)) >= 1


def test_hardware_has_the_catalogues_bounds() -> None:
    one = found({"hardware": 120, "overhead_hardware": 12}, hardware=(Fraction(634, 1200), Fraction(2102, 1200)))
    assert in_g(one.terms["hardware"]) == (63.4, 120, 210.2)
    assert in_g(one.terms["overhead_hardware"]) == (6.34, 12, 21.02)
    assert in_g(one.asc) == (63.4, 120, 210.2)
    assert one.dominant == "hardware: hardware"


def test_a_declared_rate_is_taken_as_it_is_and_a_metered_one_is_as_good_as_the_energy() -> None:
    taxes: dict[tuple[str, Term], int] = {("iks", "platform"): 25, ("mesh", "platform"): 10}
    one = found({"platform": 35}, taxes_g=taxes, declared=("iks",))
    assert in_g(one.terms["platform"]) == (25 + 8.8, 35, 25 + 11)
    assert one.dominant == "platform: energy"


def test_a_product_has_its_epcs_bounds_and_one_without_any_is_taken_as_it_is() -> None:
    taxes: dict[tuple[str, Term], int] = {("model", "product"): 10, ("iks", "product"): 5}
    one = found({"product": 15}, taxes_g=taxes, epcs={"model": HALF_TO_DOUBLE})
    assert in_g(one.terms["product"]) == (10, 15, 25)
    assert one.dominant == "product: epc"


def test_a_missing_epc_leaves_the_rest_bounded() -> None:
    taxes: dict[tuple[str, Term], int] = {("model", "product"): 10}
    one = found({"operation": 100, "product": 10}, taxes_g=taxes, epcs={"model": EXACT, "data": None})
    assert one.terms["product"] is None
    assert one.asce is None
    assert in_g(one.jsce) == (88, 100, 110)
    assert receipt_bounds(one)["asce"] is None


def test_what_no_product_is_named_for_has_the_widest_band_or_none() -> None:
    known = found({"product": 10}, epcs={"model": HALF_TO_DOUBLE})
    assert in_g(known.asce) == (5, 10, 20)
    assert found({"product": 10}).asce is None


def test_nothing_uncertain_has_no_dominant_term() -> None:
    one = found({}, {})
    assert one.dominant == ""
    assert in_g(one.asce) == (0, 0, 0)


def test_without_energy_the_quality_is_the_worst() -> None:
    assert energy_band({}) == energy_band({"measured": 0}) == ENERGY_BANDS["modelled"]


def test_qualities_weigh_by_their_energy() -> None:
    assert energy_band({"measured": 3, "modelled": 1}) == (Fraction(785, 1000), Fraction(1325, 1000))


def test_a_quality_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError):
        energy_band({"guessed": 1})


@pytest.mark.parametrize(
    "band", [(Fraction(2), Fraction(3)), (Fraction(0), Fraction(1, 2)), (Fraction(-1), Fraction(2))]
)
def test_a_band_that_does_not_hold_the_value_is_refused(band: Band) -> None:
    with pytest.raises(ValueError, match="must hold 1"):
        found({"operation": 1}, intensity=band)


def test_a_term_that_corrections_made_negative_keeps_its_order() -> None:
    one = found({"operation": -100})
    assert in_g(one.jsc) == (-110, -100, -88)


def test_the_band_of_a_mass() -> None:
    assert band_of(Bounded(1, 2, 5)) == (Fraction(1, 2), Fraction(5, 2))
    assert band_of(Bounded(0, 0, 5)) == EXACT


def test_a_receipts_bounds_are_grams() -> None:
    said = receipt_bounds(found({"operation": 100}))
    assert said["jsce"] == said["asce"] == [88.0, 110.0]
    assert said["terms"] == {**{str(term): [0.0, 0.0] for term in TERMS}, "operation": [88.0, 110.0]}
    assert said["dominant"] == "operation: energy"


def test_a_record_is_bounded_by_all_its_energy() -> None:
    record = JobRecord(
        id="a",
        terms_ng={"operation": 100 * G, "platform": 5 * G},
        energy_uj={("cpu", "direct", "measured"): 3, ("dram", "idle", "modelled"): 1},
        taxes_ng={("iks", "platform"): 5 * G},
    )
    one = from_record(record, intensity_band=EXACT, pue_band=EXACT, hardware_band=EXACT, epc_bands={}, declared={"iks"})
    assert in_g(one.jsce) == (83.5, 105, 137.5)


GRAMS = st.integers(0, 10**13)
BANDS = st.tuples(st.fractions(0, 1, max_denominator=1000), st.fractions(1, 100, max_denominator=1000))
TAXED: tuple[Term, ...] = ("platform", "retraining", "overhead_hardware", "product")
OWN: tuple[Term, ...] = ("operation", "cooling", "hardware")
PRODUCTS = st.sampled_from("pqr")


@dataclass(frozen=True)
class Case:
    """What `bounds` is given, in nanograms, with taxes that add up to their terms."""

    own: Mapping[Term, int]
    taxes: Mapping[tuple[str, Term], int]
    energy: Mapping[str, int]
    intensity: Band
    pue: Band
    hardware: Band
    epcs: Mapping[str, Band]
    declared: frozenset[str]

    def bounds(self) -> Uncertainty:
        terms = dict(self.own)
        for (_, term), ng in self.taxes.items():
            terms[term] = terms.get(term, 0) + ng
        return bounds(
            terms,
            self.energy,
            intensity_band=self.intensity,
            pue_band=self.pue,
            hardware_band=self.hardware,
            epc_bands=self.epcs,
            taxes_ng=self.taxes,
            declared=self.declared,
        )


CASES = st.builds(
    Case,
    own=st.fixed_dictionaries(dict.fromkeys(OWN, GRAMS)),
    taxes=st.dictionaries(st.tuples(PRODUCTS, st.sampled_from(TAXED)), GRAMS),
    energy=st.dictionaries(st.sampled_from(QUALITIES), st.integers(0, 10**12)),
    intensity=BANDS,
    pue=BANDS,
    hardware=BANDS,
    epcs=st.dictionaries(PRODUCTS, BANDS),
    declared=st.frozensets(PRODUCTS),
)


@given(CASES)
def test_bounds_hold_the_central_figure_and_add_up(case: Case) -> None:
    one = case.bounds()
    terms = {term: bounded for term, bounded in one.terms.items() if bounded is not None}
    central = sums_ng({term: bounded.central for term, bounded in terms.items()})
    assert one.asce is not None
    sums = {"jsc": one.jsc, "jsce": one.jsce, "asc": one.asc, "asce": one.asce}
    assert {name: bounded.central for name, bounded in sums.items()} == central
    for end in ("low", "high"):
        added = sums_ng({term: getattr(bounded, end) for term, bounded in terms.items()})
        assert {name: getattr(bounded, end) for name, bounded in sums.items()} == added
    assert all(bounded.low >= 0 for bounded in terms.values())


@given(CASES, st.sampled_from(["intensity", "pue", "hardware", "epcs"]), BANDS)
def test_knowing_less_never_makes_an_interval_narrower(case: Case, name: str, band: Band) -> None:
    def wider(old: Band) -> Band:
        return min(old[0], band[0]), max(old[1], band[1])

    old = getattr(case, name)
    less: Any = {product: wider(one) for product, one in old.items()} if name == "epcs" else wider(old)
    before, after = case.bounds(), replace(case, **{name: less}).bounds()
    for term in TERMS:
        a, b = before.terms[term], after.terms[term]
        assert a is not None
        assert b is not None
        assert b.low <= a.low <= a.high <= b.high


@given(CASES, st.integers(1, 10**12))
def test_a_modelled_joule_more_never_makes_an_interval_narrower(case: Case, more_uj: int) -> None:
    energy = {**case.energy, "modelled": case.energy.get("modelled", 0) + more_uj}
    before, after = case.bounds(), replace(case, energy=energy).bounds()
    assert after.jsce.low <= before.jsce.low <= before.jsce.high <= after.jsce.high


@given(CASES, st.sampled_from(OWN), st.integers(1, 10**12))
def test_more_of_a_term_is_more_at_both_ends(case: Case, term: Term, more_ng: int) -> None:
    before = case.bounds().asce
    after = replace(case, own={**case.own, term: case.own[term] + more_ng}).bounds().asce
    assert before is not None
    assert after is not None
    assert after.central == before.central + more_ng
    assert after.high >= before.high
    assert after.low >= before.low - 1  # operation and cooling are rounded each by itself


@given(CASES)
def test_the_dominant_term_has_the_widest_interval(case: Case) -> None:
    one = case.bounds()
    widths = {str(term): bounded.high - bounded.low for term, bounded in one.terms.items() if bounded is not None}
    term, _, cause = one.dominant.partition(": ")
    if one.dominant:
        assert widths[term] == max(widths.values())
        assert cause in ("energy", "intensity", "pue", "hardware", "epc")
    else:
        assert not any(widths.values())


@given(
    st.dictionaries(st.sampled_from(QUALITIES), st.integers(1, 10**12), min_size=1),
    st.integers(0, 1500),
    st.integers(100, 300),
    st.booleans(),
    BANDS,
    st.tuples(*[st.fractions(0, 1, max_denominator=100)] * 5),
)
def test_a_truth_within_the_bands_is_within_the_bounds(
    energy: Mapping[str, int], g_per_kwh: int, pue_percent: int, configured: bool, intensity: Band, at: tuple[Any, ...]
) -> None:
    """Each input anywhere in its band, each quality by itself; joules here, so that nothing is rounded on the way."""
    pue = Fraction(pue_percent, 100) if configured else Fraction(1)
    booked = sum(energy.values()) * g_per_kwh * 100
    terms: dict[Term, int] = {"operation": booked, "cooling": int(booked * (pue - 1))}
    pues = pue_band(pue, configured=configured)
    one = bounds(terms, energy, intensity_band=intensity, pue_band=pues, hardware_band=EXACT, epc_bands={}, taxes_ng={})

    def true(band: Band, place: Fraction) -> Fraction:
        return band[0] + (band[1] - band[0]) * place

    used = sum(uj * true(ENERGY_BANDS[quality], at[i]) for i, (quality, uj) in enumerate(energy.items()))
    operation = used * g_per_kwh * 100 * true(intensity, at[3])
    cooling = operation * (pue * true(pues, at[4]) - 1)
    for term, truth in (("operation", operation), ("cooling", cooling)):
        bounded = one.terms[term]  # type: ignore[index]
        assert bounded is not None
        assert bounded.low <= truth <= bounded.high
    assert one.jsc.low <= operation + cooling <= one.jsc.high
