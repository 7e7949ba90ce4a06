"""A node made up of numbers, under the real books: whatever happens on it, every tick adds up."""

from fractions import Fraction

from wattribute.agent.core.accounting import Price
from wattribute.agent.core.books import Books, Rules
from wattribute.agent.core.claims import Entry
from wattribute.agent.core.hardware import Component, Hardware
from wattribute.agent.core.model import (
    CPU_NS_SLOT,
    ENERGY_SLOTS,
    QUALITIES,
    SHARE_KINDS,
    TERM_SLOT,
    Domain,
    EnergyReading,
    Job,
    Policy,
    PowerReading,
    Term,
    energy_slot,
)
from wattribute.agent.core.prices import PriceSeries
from wattribute.agent.core.products import Product
from wattribute.agent.core.rest import Rest
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.core.units import NS_PER_S

PACKAGE = Domain(kind="cpu", id="package-0")
S = NS_PER_S
DAWN = 1_700_006_400 * S  # midnight, when the books begin
TAX_TERMS: tuple[Term, ...] = ("platform", "retraining", "overhead_hardware", "product")


class World:
    """A node of 4 CPUs whose clocks and counters are set by hand."""

    def __init__(
        self,
        *products: Product,
        idle: Policy = "reserved",
        idle_w: int | None = 0,
        hardware: tuple[Component, ...] = (),
        pue: float = 1.0,
        prices: PriceSeries | None = None,
        rest: Rest | None = None,
    ) -> None:
        # None: to be learnt
        idle_uw = {(kind, "measured"): idle_w * 1_000_000 for kind in ("cpu", "gpu") if idle_w is not None}
        rules = Rules(
            idle=idle,
            overhead="usage",
            idle_uw=idle_uw,  # type: ignore[arg-type]
            cpus=4,
            memory_bytes=2**34,
        )
        prices = PriceSeries.constant(Price.of(Fraction(480), pue)) if prices is None else prices
        self.books = Books(rules, Hardware(hardware), Taxes(products, 0), 0, prices, rest)
        self.now_ns = self.asleep_ns = 0
        self.node_ns = self.overhead_ns = 0
        self.counters = {PACKAGE: 0}
        self.wall: list[EnergyReading | PowerReading] = []  # what else is read at the next tick
        self.entries: dict[str, Entry] = {}
        self.tick()

    def job(self, job_id: str, **fields: object) -> Entry:
        entry = Entry(Job(id=job_id, **fields), self.now_ns)  # type: ignore[arg-type]
        self.books.open(entry, first=True)
        self.entries[job_id] = entry
        return entry

    def end(self, entry: Entry) -> None:
        self.books.end(entry, self.now_ns)

    def work(self, entry: Entry, cpu_ns: int) -> None:
        entry.values[CPU_NS_SLOT] += cpu_ns
        self.node_ns += cpu_ns

    def sleep(self, seconds: float) -> None:
        """The machine is suspended: boot time goes on, and nothing else."""
        self.now_ns += round(seconds * S)
        self.asleep_ns += round(seconds * S)

    def tick(self, seconds: float = 1.0, **energy_uj: int) -> None:
        self.now_ns += round(seconds * S)
        for domain in self.counters:
            self.counters[domain] += energy_uj.get(domain.kind, 0)
        self.books.tick(
            self.now_ns,
            {"node": self.node_ns, "overhead": self.overhead_ns, "agent": 0},
            [
                EnergyReading(domain=domain, at_ns=self.now_ns, energy_uj=uj, ceiling_uw=None)
                for domain, uj in self.counters.items()
            ]
            + self.wall,
            self.asleep_ns,
            unix_ns=self.now_ns + DAWN,
        )
        self.wall = []
        self.check()

    def check(self) -> None:
        """Law 1: per domain, jobs + unattributed = the counter, in integer microjoules; grams per term likewise."""
        for domain, uj in self.counters.items():
            assert uj == self.books.node_energy_uj.get((domain.kind, domain.id, "measured"), 0)
        for kind in {*(domain.kind for domain in self.counters), "rest"}:
            of_jobs = sum(
                e.values[energy_slot(kind, share, quality)]
                for e in self.entries.values()
                for share in SHARE_KINDS
                for quality in QUALITIES
            )
            nobodys = sum(u for (of, _), u in self.books.unattributed_uj.items() if of == kind)
            assert of_jobs + nobodys == sum(u for (of, _, _), u in self.books.node_energy_uj.items() if of == kind)
        for term in ("operation", "cooling", "hardware"):
            slot = TERM_SLOT[term]
            of_jobs = sum(e.values[slot] for e in self.entries.values())
            nobodys = sum(values[slot] for values in self.books.unattributed.values())
            assert of_jobs + nobodys == self.books.node_co2e_ng[term]
        self.check_taxes()

    def check_taxes(self) -> None:
        """What was billed is what jobs have, the late ones' share of retraining included."""
        billed = {
            (p.id, term): ng for p in self.books.taxes.totals() for term, ng in p.billed_ng.items() if term in TAX_TERMS
        }
        owed: dict[tuple[str, str], int] = {}
        for entry in self.entries.values():
            for term in TAX_TERMS:
                booked = sum(ng for (_, of), ng in entry.taxes_ng.items() if of == term)
                assert booked == entry.values[TERM_SLOT[term]]
            for key, ng in entry.taxes_ng.items():
                owed[key] = owed.get(key, 0) + ng
        for closed in self.books.late:
            for parts in closed.parts.values():
                for of, ng in zip(("retraining", "overhead_hardware"), parts, strict=True):
                    owed[closed.product_id, of] = owed.get((closed.product_id, of), 0) + ng
        assert billed == {key: ng for key, ng in owed.items() if ng}


def uj_of(entry: Entry) -> int:
    return sum(entry.values[:ENERGY_SLOTS])
