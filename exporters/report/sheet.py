"""The carbon data sheet as a value: every format is a rendering of it, so that no two can differ.

Integers are microjoules, nanograms CO2e and nanoseconds; times are Unix time. Nothing here is rounded.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Literal, cast

from wattribute.agent.core.accounting import sums_ng
from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.lineage import Lineage, Recorded, Recovery
from wattribute.agent.core.model import TERMS, Term
from wattribute.agent.core.products import MICRO, Amortise, Product
from wattribute.agent.core.records import JobRecord, NodeRecord
from wattribute.agent.core.served_record import ServedRecord
from wattribute.agent.core.uncertainty import Uncertainty
from wattribute.agent.core.units import NG_PER_G, UJ_PER_KWH

Kind = Literal["job", "product", "node"]
SUMS = ("jsc", "jsce", "asc", "asce")
SUM_NAMES: Mapping[str, str] = {"jsc": "JSC", "jsce": "JSC^e", "asc": "ASC", "asce": "ASC^e"}
OWN_TERMS: tuple[Term, ...] = ("operation", "cooling", "hardware")  # what was emitted; the others redistribute it


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What some jobs used and what that costs. `energy_uj`: (domain, share, quality) -> uJ; of a node, share is ""."""

    jobs: int = 0
    energy_uj: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    terms_ng: Mapping[Term, int] = field(default_factory=dict)
    taxes_ng: Mapping[tuple[str, Term], int] = field(default_factory=dict)
    corrections_ng: Mapping[Term, int] = field(default_factory=dict)
    cpu_ns: int = 0
    sm_ns: int = 0

    @classmethod
    def of(cls, parts: "Iterable[JobRecord | Costs]") -> "Costs":
        """The sum of some jobs, or of some sums."""
        jobs = cpu_ns = sm_ns = 0
        energy: Counter[tuple[str, str, str]] = Counter()
        terms: Counter[Term] = Counter()
        taxes: Counter[tuple[str, Term]] = Counter()
        corrections: Counter[Term] = Counter()
        for part in parts:
            jobs += part.jobs if isinstance(part, Costs) else 1
            cpu_ns, sm_ns = cpu_ns + part.cpu_ns, sm_ns + part.sm_ns
            energy.update(part.energy_uj)
            terms.update(part.terms_ng)
            taxes.update(part.taxes_ng)
            corrections.update(part.corrections_ng)
        return cls(
            jobs=jobs,
            energy_uj=dict(energy),
            terms_ng=dict(terms),
            taxes_ng=dict(taxes),
            corrections_ng=dict(corrections),
            cpu_ns=cpu_ns,
            sm_ns=sm_ns,
        )

    @property
    def whole_uj(self) -> int:
        """Microjoules of all domains."""
        return sum(self.energy_uj.values())

    @property
    def electricity_known(self) -> bool:
        """False where there are jobs, and neither energy nor operation of any is known: that isn't 0."""
        return not self.jobs or bool(self.energy_uj) or self.term_ng("operation") != 0

    @property
    def own_ng(self) -> int:
        """Operation, cooling and hardware: what these jobs emitted themselves, and what an inventory may add up."""
        return sum(self.term_ng(term) for term in OWN_TERMS)

    def term_ng(self, term: Term) -> int:
        """Nanograms of one term; 0 where there is nothing of it."""
        return self.terms_ng.get(term, 0)

    def sums_ng(self) -> dict[str, int]:
        """JSC, JSC^e, ASC and ASC^e, by their lower-case names."""
        return sums_ng({term: self.term_ng(term) for term in TERMS})

    def energy_by(self, position: int) -> dict[str, int]:
        """Microjoules by domain (0), share (1) or quality (2), the largest first."""
        found: Counter[str] = Counter()
        for key, energy_uj in self.energy_uj.items():
            found[key[position]] += energy_uj
        return dict(found.most_common())


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Jobs of one role and phase."""

    role: str
    phase: str
    costs: Costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """The carbon intensity, and where it is from; "" and None are not known.

    `gco2e_per_kwh` is the one that was in force when it was told. `factor_type` is `lifecycle` or `direct`: whether the
    making of plants and fuels is in it.
    """

    gco2e_per_kwh: Decimal | None = None
    zone: str = ""
    provider: str = ""
    method: str = ""
    factor_type: str = ""
    quality: str = ""
    year: int | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a product cost to make, ng, and what of that its users have paid back. None is not known, never 0.

    `missing`: whose EPC isn't known, so that this one's isn't. `own_part`: the part that its own users recover; the
    rest was given to its children by weight. `curve`: what was recovered up to a moment, (Unix ns, ng), oldest first.
    """

    own: Bounded | None
    inherited: Bounded | None
    recovery: Recovery
    recorded: Recorded = field(default_factory=Recorded)
    missing: tuple[str, ...] = ()
    own_part: Fraction = Fraction(1)
    curve: tuple[tuple[int, int], ...] = ()

    @property
    def epc(self) -> Bounded | None:
        """Own and inherited; None where a part isn't known."""
        return None if self.own is None or self.inherited is None else self.own + self.inherited


@dataclass(frozen=True, slots=True, kw_only=True)
class Amortised:
    """What of a product's EPC is due by now, ng, by its time and by the units it served; None is not known.

    `served_micro` (by its own metered jobs) and `expected_micro`: millionths of `unit`, in its whole life. `stock_ng`:
    what is to be paid back.
    """

    in_force: Amortise
    unit: str
    served_micro: int
    expected_micro: int | None
    stock_ng: int | None
    by_time_ng: int | None

    @property
    def by_units_ng(self) -> int | None:
        """Due for the units that were served; the last of the expected ones pays the rest."""
        if self.stock_ng is None or not self.expected_micro:
            return None
        return self.stock_ng * min(self.served_micro, self.expected_micro) // self.expected_micro

    @property
    def per_unit_by_units(self) -> Fraction | None:
        """ng that each of the expected units pays."""
        if self.stock_ng is None or not self.expected_micro:
            return None
        return Fraction(self.stock_ng * MICRO, self.expected_micro)

    @property
    def per_unit_by_time(self) -> Fraction | None:
        """ng per unit, on average: what is due by time over what was served so far."""
        if self.by_time_ng is None or not self.served_micro:
            return None
        return Fraction(self.by_time_ng * MICRO, self.served_micro)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A carbon data sheet. `total` is what it is of: the job, the product's jobs, or all jobs of the nodes.

    `uncertainty` is that of `total`, None where it isn't known. `billed_ng`: what a product's users paid it, by term.
    `served`: a product's metered requests, None where it has none.
    `hours`: (start in Unix ns, energy in uJ) hour by hour; None where nobody told of that hour.
    `runs`: the jobs one by one, for formats that list them.
    """

    kind: Kind
    id: str
    version: str
    made_unix_ns: int
    from_unix_ns: int | None = None
    to_unix_ns: int | None = None
    total: Costs = field(default_factory=Costs)
    uncertainty: Uncertainty | None = None
    job: JobRecord | None = None
    product: Product | None = None
    made: Made | None = None
    served: ServedRecord | None = None
    amortised: Amortised | None = None
    groups: tuple[Group, ...] = ()
    nodes: tuple[NodeRecord, ...] = ()
    lineage: Lineage | None = None
    billed_ng: Mapping[Term, int] = field(default_factory=dict)
    hours: tuple[tuple[int, int | None], ...] = ()
    runs: tuple[JobRecord, ...] = ()
    method: Mapping[str, str] = field(default_factory=dict)
    policy: Mapping[str, str] = field(default_factory=dict)
    included: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    basis: str = ""
    intensity: Intensity = field(default_factory=Intensity)
    pue: Decimal | None = None
    hardware: tuple[str, ...] = ()
    revision: int = 1
    provisional: bool = False
    notes: tuple[str, ...] = ()

    def bounds_of(self, name: str) -> Bounded | None:
        """The interval of a term or of `jsc`, `jsce`, `asc`, `asce`; None where it isn't known."""
        found = self.uncertainty
        if found is None:
            return None
        sums = {"jsc": found.jsc, "jsce": found.jsce, "asc": found.asc, "asce": found.asce}
        return sums[name] if name in sums else found.terms.get(cast(Term, name))

    def pue_of(self, costs: Costs) -> Fraction:
        """The PUE that some of the sheet's costs were booked at: the sheet's, unless their cooling says otherwise.

        It may have varied, or have been configured anew since.
        """
        operation_ng, cooling_ng = costs.term_ng("operation"), max(0, costs.term_ng("cooling"))
        told = None if self.pue is None else Fraction(self.pue)
        if operation_ng <= 0:
            return Fraction(1) if told is None else told
        # A window's grams are whole nanograms: that little doesn't tell two PUEs apart.
        near_ng = max(operation_ng // 10**6, 100 * max(1, costs.jobs))
        if told is not None and abs(operation_ng * (told - 1) - cooling_ng) <= near_ng:
            return told
        return Fraction(operation_ng + cooling_ng, operation_ng)

    def used_kwh(self, energy_uj: int, costs: Costs | None = None) -> Fraction:
        """Energy with what it took to cool and supply it: what a meter at the building's door would have counted.

        `costs`: whose energy it is; the sheet's, where none are given.
        """
        return Fraction(energy_uj, UJ_PER_KWH) * self.pue_of(self.total if costs is None else costs)

    def mean_g_per_kwh(self) -> Fraction | None:
        """Grams of operation per kilowatt-hour over everything in the sheet: what the energy was priced at."""
        energy_uj, operation_ng = self.total.whole_uj, self.total.term_ng("operation")
        return Fraction(operation_ng * UJ_PER_KWH, energy_uj * NG_PER_G) if energy_uj and operation_ng else None


__all__ = [
    "OWN_TERMS",
    "SUMS",
    "SUM_NAMES",
    "Amortised",
    "Costs",
    "Group",
    "Intensity",
    "Kind",
    "Made",
    "Sheet",
]
