"""JSC, JSC^e, ASC and ASC^e from energy, PUE, carbon intensity, embodied carbon and product shares.

Two forms of one method: the live one accrues integer nanograms with carried remainders; the formulas below are the
paper's own, in grams as floats, for reports and for checking the live one. Source: formulas.md; "Towards a
Methodology and Framework for AI Sustainability Metrics", sections 2.1 to 2.4.
"""

from collections.abc import Iterable, Mapping, MutableSequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from wattribute.agent.core.model import CARRY_SLOT, TERM_SLOT, Term
from wattribute.agent.core.units import J_PER_KWH, RATE_DENOMINATOR, UJ_PER_KWH, ng_per_kwh

EMISSION_FACTORS: Mapping[str, int] = {
    # Life-cycle medians, g CO2e/kWh: IPCC AR5 WG3 Annex III, table A.III.2; oil (not in AR5): UK POST note 383.
    "coal": 820,
    "gas": 490,
    "oil": 650,
    "biomass": 230,
    "solar": 48,
    "solar_rooftop": 41,
    "csp": 27,
    "geothermal": 38,
    "hydro": 24,
    "nuclear": 12,
    "wind_onshore": 11,
    "wind_offshore": 12,
}

_OPERATION, _OPERATION_CARRY = TERM_SLOT["operation"], CARRY_SLOT["operation"]
_COOLING, _COOLING_CARRY = TERM_SLOT["cooling"], CARRY_SLOT["cooling"]
_HARDWARE, _HARDWARE_CARRY = TERM_SLOT["hardware"], CARRY_SLOT["hardware"]


def mix_intensity(mix: Iterable[tuple[str, float]]) -> Fraction:
    """Carbon intensity of a generation mix (source, part), g/kWh, exact: sum of f_k * EF_k.

    Raises KeyError for a source that has no factor.
    """
    return sum((Fraction(Decimal(str(part))) * EMISSION_FACTORS[source] for source, part in mix), Fraction(0))


@dataclass(frozen=True, slots=True)
class Price:
    """What a microjoule costs now: integer nanograms per kWh for operation, and for cooling (PUE - 1 of it)."""

    operation: int
    cooling: int

    @classmethod
    def of(cls, intensity_g_per_kwh: float | Fraction, pue: float) -> "Price":
        """From g CO2e/kWh and PUE >= 1."""
        exact = (
            intensity_g_per_kwh
            if isinstance(intensity_g_per_kwh, Fraction)
            else Fraction(Decimal(str(intensity_g_per_kwh)))
        )
        return cls(ng_per_kwh(exact), ng_per_kwh(exact * (Fraction(Decimal(str(pue))) - 1)))


def accrue_energy(values: MutableSequence[int], energy_uj: int, price: Price) -> tuple[int, int]:
    """Add the operation and cooling of some energy to a job's totals; returns the nanograms added to each.

    Exact over any number of calls: what is left below a nanogram is carried in the totals.
    """
    # In place, and of cooling only where it costs something: a tick does this for every job.
    operation_ng, values[_OPERATION_CARRY] = divmod(energy_uj * price.operation + values[_OPERATION_CARRY], UJ_PER_KWH)
    values[_OPERATION] += operation_ng
    if not price.cooling:
        return operation_ng, 0
    cooling_ng, values[_COOLING_CARRY] = divmod(energy_uj * price.cooling + values[_COOLING_CARRY], UJ_PER_KWH)
    values[_COOLING] += cooling_ng
    return operation_ng, cooling_ng


def accrue_hardware(values: MutableSequence[int], numerator: int) -> int:
    """Add embodied carbon (rate * ns, see units.RATE_DENOMINATOR) to a job's totals; returns the nanograms added."""
    owed_ng, values[_HARDWARE_CARRY] = divmod(numerator + values[_HARDWARE_CARRY], RATE_DENOMINATOR)
    values[_HARDWARE] += owed_ng
    return owed_ng


def sums_ng(terms_ng: Mapping[Term, int]) -> dict[str, int]:
    """The four costs from the seven terms, in nanograms (contract, section 5, identities)."""
    jsc = terms_ng["operation"] + terms_ng["cooling"]
    jsce = jsc + terms_ng["platform"] + terms_ng["retraining"]
    return {
        "jsc": jsc,
        "jsce": jsce,
        "asc": jsc + terms_ng["hardware"],
        "asce": jsce + terms_ng["hardware"] + terms_ng["overhead_hardware"] + terms_ng["product"],
    }


# The paper's formulas, in grams.


def operation_g(energy_j: float, intensity_g_per_kwh: float) -> float:
    """Carbon of some energy; the intensity is one number for all of it."""
    return energy_j * intensity_g_per_kwh / J_PER_KWH


def jsc_g(energy_j: float, intensity_g_per_kwh: float, pue: float = 1.0) -> float:
    """Job Sustainability Cost: energy of the job's share of all systems, with cooling and power loss, as carbon."""
    return operation_g(energy_j, intensity_g_per_kwh) * pue


def hardware_g(embodied_g: float, time_s: float, lifetime_s: float, share: float = 1.0) -> float:
    """ec(j): the part of the hardware's making that falls to a job that held `share` of it for a time."""
    return embodied_g * (time_s / lifetime_s) * share


def platform_tax_g(rate_g_per_s: float, time_s: float, weight: float, weight_sum: float) -> float:
    """A platform's overhead over the jobs that use it, at a constant rate and weight."""
    return rate_g_per_s * time_s * weight / weight_sum


def product_tax_g(epc_g: float, time_s: float, lifetime_s: float, concurrency: float, own_part: float = 1.0) -> float:
    """A product's EPC over its lifetime and concurrent jobs; `own_part` is 1 - the weights given to children."""
    return own_part * epc_g * time_s / (lifetime_s * concurrency)


def device_energy_kwh(count: int, power_w: float, time_s: float) -> float:
    """Energy of `count` devices at a constant power. The paper's RoBERTa and DistilBERT figures slip (360 for 3600)."""
    return count * power_w * time_s / J_PER_KWH
