"""What requests of a product were billed for, as the node's closed rows name it, and as a report adds it up again.

A name is KIND.WHAT.PRODUCT, and .WHOSE where it is a tenant's or a stage's: `units.token.bert.acme`,
`request.uj.bert`, `idle.hardware.bert`, `stage.uj.bert.prefill`. Dots and control characters within a part are
written `%2E`, so that it comes apart in one way only. Units: millionths of a unit, microjoules, nanograms.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from wattribute.agent.core.accounting import sums_ng
from wattribute.agent.core.model import TERM_SLOT, TERMS, ServedTotals, Term
from wattribute.agent.core.products import REQUEST

Kind: TypeAlias = Literal["units", "request", "idle", "stage"]
KINDS: tuple[Kind, ...] = ("units", "request", "idle", "stage")
ENERGY, ABORTED = "uj", "aborted"
_UNSAFE = re.compile("[%.\x00-\x1f\x7f\ud800-\udfff]")
_CODE = re.compile("%(u[0-9A-F]{4}|[0-9A-F]{2})")


class ServedName(NamedTuple):
    """A name of a closed row, in its parts; `whose` is "" where the product has it as a whole."""

    kind: Kind
    what: str
    product_id: str
    whose: str = ""

    def __str__(self) -> str:
        parts = (self.what, self.product_id, self.whose) if self.whose else (self.what, self.product_id)
        return ".".join((self.kind, *map(_encoded, parts)))


def _encoded(part: str) -> str:
    return part if part.isalnum() else _UNSAFE.sub(_written, part)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"%{code:02X}" if code < 0x100 else f"%u{code:04X}"


@functools.lru_cache(maxsize=4096)
def parse(name: str) -> ServedName | None:
    """A name in its parts; None for one that tells of no requests."""
    kind, *parts = name.split(".")
    if kind not in KINDS or not 2 <= len(parts) <= 3:
        return None
    return ServedName(kind, *(_CODE.sub(lambda found: chr(int(found[1].lstrip("u"), 16)), part) for part in parts))


def named(totals: ServedTotals) -> dict[str, int]:
    """What a product's requests were billed for so far, by name; without zeros, and without what isn't split yet."""
    product = _encoded(totals.product_id)
    found: dict[str, int] = {}

    def add(kind: Kind, whose: str, energy_uj: int, terms_ng: Sequence[int]) -> None:
        found[f"{kind}.{ENERGY}.{whose}"] = energy_uj
        for term, ng in zip(TERMS, terms_ng, strict=True):
            found[f"{kind}.{term}.{whose}"] = ng

    for tenant, served in totals.tenants.items():
        whose = f"{product}.{_encoded(tenant)}" if tenant else product
        for unit, micro in served.units.items():
            found[f"units.{_encoded(unit)}.{whose}"] = micro
        found[f"request.{ABORTED}.{whose}"] = served.aborted
        add("request", whose, served.energy_uj, served.terms_ng)
    add("idle", product, totals.idle_uj, totals.idle_ng)
    for stage, (energy_uj, terms_ng) in totals.stages.items():
        add("stage", f"{product}.{_encoded(stage)}", energy_uj, terms_ng)
    return {name: amount for name, amount in found.items() if amount}


def split_uj(amounts: Iterable[tuple[str, int]]) -> int:
    """What of all jobs' energy was split into requests and idle, uJ."""
    return sum(
        amount
        for name, amount in amounts
        if (said := parse(name)) is not None and said.kind in ("request", "idle") and said.what == ENERGY
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """What some requests were, and what they were billed for. `units`: millionths by unit; `request` is one of them."""

    units: Mapping[str, int] = field(default_factory=dict)
    aborted: int = 0
    energy_uj: int = 0
    terms_ng: Mapping[Term, int] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Iterable["Billed"]) -> "Billed":
        """Their sum."""
        units: Counter[str] = Counter()
        terms: Counter[Term] = Counter()
        aborted = energy_uj = 0
        for part in parts:
            units.update(part.units)
            terms.update(part.terms_ng)
            aborted, energy_uj = aborted + part.aborted, energy_uj + part.energy_uj
        return cls(units=dict(units), aborted=aborted, energy_uj=energy_uj, terms_ng=dict(terms))

    @property
    def requests(self) -> int:
        """How many were answered, in millionths."""
        return self.units.get(REQUEST, 0)

    def sums_ng(self) -> dict[str, int]:
        """JSC, JSC^e, ASC and ASC^e, by their lower-case names."""
        return sums_ng({term: self.terms_ng.get(term, 0) for term in TERMS})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRecord:
    """The metered requests of one product over all nodes, in the time that was asked for.

    `tenants`: "" is nobody in particular, `_other` those past the bound. `idle`: what its jobs used without a request.
    `stages`: parts of what the requests were billed for that an engine tells apart. As booked: what was corrected after
    the fact is the jobs' and in none of these.
    """

    product_id: str
    tenants: Mapping[str, Billed] = field(default_factory=dict)
    idle: Billed = field(default_factory=Billed)
    stages: Mapping[str, Billed] = field(default_factory=dict)

    @property
    def billed(self) -> Billed:
        """All of its requests together."""
        return Billed.of(self.tenants.values())

    @property
    def whole(self) -> Billed:
        """Its requests, and what its jobs used while there were none."""
        return Billed.of((self.billed, self.idle))


def served_record(product_id: str, amounts: Iterable[tuple[str, int]]) -> ServedRecord | None:
    """What closed rows of nodes say of a product's requests; None: nothing. Names of anything else are passed over."""
    sums: dict[tuple[Kind, str], Counter[str]] = {}
    for name, amount in amounts:
        said = parse(name)
        if said is not None and said.product_id == product_id:
            sums.setdefault((said.kind, said.whose), Counter())[said.what] += amount
    if not sums:
        return None

    def billed(kind: Kind, whose: str = "") -> Billed:
        counts = sums.get((kind, whose), Counter())
        return Billed(
            units=dict(sums.get(("units", whose), ())) if kind == "request" else {},
            aborted=counts[ABORTED],
            energy_uj=counts[ENERGY],
            terms_ng={what: ng for what, ng in counts.items() if what in TERM_SLOT},
        )

    return ServedRecord(
        product_id=product_id,
        tenants={whose: billed("request", whose) for kind, whose in sums if kind in ("request", "units")},
        idle=billed("idle"),
        stages={whose: billed("stage", whose) for kind, whose in sums if kind == "stage"},
    )


__all__ = ["Billed", "ServedName", "ServedRecord", "named", "parse", "served_record", "split_uj"]
