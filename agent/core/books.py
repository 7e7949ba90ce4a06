"""The agent's books: one tick takes readings and gives every job its share, in energy and in carbon.

No clock, no I/O: times come with the readings. What was used by then is kept with each domain (core/domains.py).
Units: microjoules, nanograms, nanoseconds (CLOCK_BOOTTIME).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wattribute.agent.core.accounting import Price, accrue_energy, accrue_hardware
from wattribute.agent.core.attribution import Split, split
from wattribute.agent.core.billing import Bill, Meter
from wattribute.agent.core.claims import Demands, Entry, Use, demands
from wattribute.agent.core.domains import Domains
from wattribute.agent.core.gpu_use import GpuUses, gpu_demand
from wattribute.agent.core.hardware import Hardware
from wattribute.agent.core.idle_powers import IdlePowers
from wattribute.agent.core.model import (
    CPU_NS_SLOT,
    DOMAIN_KINDS,
    SLOTS,
    Account,
    Domain,
    DomainKind,
    EnergyReading,
    Gap,
    Interval,
    Job,
    Policy,
    PowerReading,
    Quality,
    Reason,
    ShareKind,
    Term,
    energy_slot,
)
from wattribute.agent.core.owed import add_taxes
from wattribute.agent.core.prices import PriceSeries
from wattribute.agent.core.rest import Rest
from wattribute.agent.core.rest_split import Followed
from wattribute.agent.core.retraining import Closed
from wattribute.agent.core.taxes import Taxes

_NODE_TERMS: tuple[Term, ...] = ("operation", "cooling", "hardware")

SETTLE_NS = 10_000_000_000
"""How long an ended job's use is kept for a sensor that is late; what a later one brings is then unregistered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How this node attributes: policies, its size (>= 1), idle power by kind and quality (uW per domain).

    Idle power that isn't given is learnt.
    """

    idle: Policy
    overhead: Policy
    idle_uw: Mapping[tuple[DomainKind, Quality], int]
    cpus: int
    memory_bytes: int


class Books:
    """All totals of one node. `jobs` are those that live, or ended a moment ago; the caller keeps the others.

    `late` is what retraining intervals that are over cost jobs that the books no longer hold: the caller takes it.
    `rest`: what a wall meter sees beyond the other domains, where there is one.
    """

    def __init__(
        self,
        rules: Rules,
        hardware: Hardware,
        taxes: Taxes,
        at_ns: int,
        prices: PriceSeries,
        rest: Rest | None = None,
    ) -> None:
        self.rules = rules
        self.rest = rest
        self.taxes = taxes
        self.prices = prices
        self.late: list[Closed] = []
        self.jobs: dict[str, Entry] = {}
        self.domains = Domains()
        self.node_energy_uj: dict[tuple[DomainKind, str, Quality], int] = {}
        self.unattributed_uj: dict[tuple[DomainKind, Reason], int] = {}
        self.node_co2e_ng: dict[Term, int] = {"operation": 0, "cooling": 0, "hardware": 0}
        self.unattributed: dict[Reason, list[int]] = {}  # totals by slot, like a job's
        self.agent_energy_uj = 0  # contained in the overhead pool, and shown
        self.idle = IdlePowers(rules.idle_uw)
        self._gpus = GpuUses()
        self._feeding: dict[str, Entry] = {}  # those of `jobs` whose cost is a product's overhead
        self._unbilled: set[str] = set()  # those that ended since the last tick: their taxes come with the next
        self._hardware = hardware
        self._followed = None if rest is None else Followed()
        self._settle_ns = SETTLE_NS if rest is None else max(SETTLE_NS, rest.settle_ns)
        self._use = Use(at_ns, 0, 0, 0, {})
        self._late_ns = 0
        self._at_ns = at_ns

    @property
    def at_ns(self) -> int:
        """Until when everything is booked."""
        return self._at_ns

    def open(self, entry: Entry, *, first: bool) -> None:
        """A job begins, or an ended one opens a new segment on the same totals."""
        entry.base_ns = entry.values[CPU_NS_SLOT]
        entry.ended_ns = None
        entry.changed = True
        self._hold(entry)
        self.taxes.enter(entry.job, entry.started_ns, first=first)

    def end(self, entry: Entry, at_ns: int) -> None:
        """A job's last member left; its energy settles with the next readings, its taxes with the next tick."""
        entry.ended_ns = at_ns
        entry.changed = True
        self._unbilled.add(entry.job.id)
        self.taxes.leave(entry.job, at_ns)

    def rename(self, entry: Entry, job: Job, at_ns: int) -> None:
        """A running job turns out to work for another product: taxes until now are the old one's."""
        self.taxes.leave(entry.job, at_ns, ended=False)
        entry.job, entry.changed = job, True
        self._hold(entry)
        self.taxes.enter(job, at_ns, first=True)

    def recognise(self, entry: Entry, cpu_ns: int) -> None:
        """CPU time from before a job was known to be its own: counted, while its energy stays whose it was."""
        entry.values[CPU_NS_SLOT] += cpu_ns
        entry.base_ns += cpu_ns
        entry.changed = True
        job_id = entry.job.id
        for use in {id(use): use for use in (self._use, *self.domains.uses())}.values():
            if job_id in use.jobs_ns:
                use.jobs_ns[job_id] += cpu_ns

    def settled(self, entry: Entry) -> bool:
        """Whether every domain that still answers has been read since the job ended, and taxes are billed."""
        if entry.ended_ns is None or entry.job.id in self._unbilled:
            return False
        if self._at_ns - entry.ended_ns > self._settle_ns:
            return True
        late_ns = self._at_ns - self._settle_ns  # a sensor that is silent for as long isn't waited for
        return self.domains.read_since(entry.ended_ns, late_ns)

    def see_gpu(
        self,
        device: str,
        jobs_ns: Mapping[str, int],
        other_ns: int,
        held_ppb: Mapping[str, int],
        foreign_ppb: int = 0,
        unallocated_ppb: int = 0,
    ) -> None:
        """What one read of a GPU's processes told: SM time since the read before by job and by everything else, the
        parts of it that jobs and unregistered processes hold now, and what was given to nobody. Comes before its
        energy in a tick.
        """
        self._gpus.see(device, jobs_ns, other_ns, held_ppb, foreign_ppb, unallocated_ppb)
        for job_id in held_ppb:
            entry = self.jobs.get(job_id)
            if entry is not None and device not in entry.gpus:
                entry.gpus[device] = None
                entry.changed = True

    def tick(
        self,
        now_ns: int,
        accounts_ns: Mapping[Account, int],
        readings: Sequence[EnergyReading | PowerReading],
        asleep_ns: int = 0,
        *,
        unix_ns: int,
    ) -> list[Gap | Interval]:
        """Book everything until `now_ns`, which is `unix_ns` of wall time; returns what each reading came to.

        `accounts_ns` is the cumulative CPU time of the node, the overhead and the agent in it; the jobs' own is in
        their totals already. `asleep_ns`: for how long the machine has been suspended since the boot.
        """
        jobs_ns = {job_id: entry.values[CPU_NS_SLOT] for job_id, entry in self.jobs.items()}
        accounts = accounts_ns["node"], accounts_ns["overhead"], accounts_ns["agent"]
        use = Use(now_ns, *accounts, jobs_ns, asleep_ns)
        outcomes: list[Gap | Interval] = []
        groups: dict[tuple[DomainKind, Quality, int], tuple[Use, list[Interval]]] = {}
        bill = Bill(self.prices, now_ns, unix_ns)
        if self._followed is not None:
            self._followed.begin()
        for reading in readings:
            outcome, before = self.domains.advance(reading, use)
            outcomes.append(outcome)
            if self.rest is not None:
                self.rest.note(outcome)
            if reading.domain.kind not in DOMAIN_KINDS:
                continue  # psys contains package and DRAM: watched, never summed
            if isinstance(outcome, Gap):
                self._book_gap(outcome, bill)
            elif reading.domain.kind == "gpu":
                self._book_gpu(outcome, use.asleep_ns - before.asleep_ns, bill)
            else:
                key = (reading.domain.kind, outcome.quality, before.at_ns)
                groups.setdefault(key, (before, []))[1].append(outcome)
        windows: dict[int, Demands] = {}
        for (kind, quality, start_ns), (before, intervals) in groups.items():
            if start_ns not in windows:
                windows[start_ns] = self._demands(before, use)
            window = windows[start_ns]
            demand = window.by_memory if kind == "dram" else window.by_cpu
            # What was lost for good, and a model that a sensor took the place of, isn't waited for.
            answer = self.domains.count(kind, quality, now_ns - SETTLE_NS)
            idle_uj = self.idle.energy_uj(kind, quality, intervals, before, use, domains=answer, cpus=self.rules.cpus)
            energy_uj = sum(i.energy_uj for i in intervals)
            parts = split(energy_uj, idle_uj, demand, self.rules.idle, self.rules.overhead)
            for interval in intervals:
                self._meter_node(interval.domain, quality, interval.energy_uj)
            self._book(kind, quality, parts, bill.price_from(start_ns), bill)
            if demand.overhead_ns:
                agent_ns = min(use.agent_ns - before.agent_ns, demand.overhead_ns)
                self.agent_energy_uj += parts.pool_uj * max(0, agent_ns) // demand.overhead_ns
        if self.rest is not None:
            outcomes += self._book_rest(self.rest, use, bill)
        held: Mapping[str, int] = {}
        claim_ppb: Mapping[str, int] | None = None
        if now_ns > self._at_ns:
            whole = windows.get(self._use.at_ns) or self._demands(self._use, use)
            self._late_ns = whole.late_ns
            held, claim_ppb = self._split_hardware(now_ns - self._at_ns, whole), whole.by_cpu.claim_ppb
        meter = Meter(self._feeding.values())
        for term, added_ng in zip(_NODE_TERMS, bill.settle(self.jobs, held), strict=True):
            self.node_co2e_ng[term] += added_ng
        self._tax(now_ns, unix_ns, meter, claim_ppb)
        self._use, self._at_ns = use, now_ns
        return outcomes

    def _tax(self, now_ns: int, unix_ns: int, meter: Meter, claim_ppb: Mapping[str, int] | None) -> None:
        due = self.taxes.settle(now_ns, unix_ns, meter.read(), claim_ppb)
        split = ((job_id, closed.owed(job_id)) for closed in due.closed for job_id in closed.parts.keys() & self.jobs)
        for job_id, owed in (*due.by_job.items(), *split):
            entry = self.jobs[job_id]
            self.taxes.waive(add_taxes(entry.values, entry.taxes_ng, owed))
            entry.changed = True
        for closed in due.closed:
            gone = {job_id: part for job_id, part in closed.parts.items() if job_id not in self.jobs}
            if gone:
                self.late.append(closed._replace(parts=gone))
        self._unbilled = set()

    def forget_settled(self) -> list[Entry]:
        """Take the ended and settled jobs off the books; the caller keeps their totals."""
        done = [entry for entry in self.jobs.values() if entry.ended_ns is not None and self.settled(entry)]
        for entry in done:
            entry.changed = True
            del self.jobs[entry.job.id]
            self._feeding.pop(entry.job.id, None)
        return done

    def holds(self, entry: Entry) -> bool:
        """Whether a job can still be billed: it runs, or ended and hasn't settled."""
        return entry.job.id in self.jobs

    def _hold(self, entry: Entry) -> None:
        self.jobs[entry.job.id] = entry
        self._feeding.pop(entry.job.id, None)
        if entry.job.role in ("platform", "retraining"):
            self._feeding[entry.job.id] = entry

    def _demands(self, before: Use, now: Use) -> Demands:
        # Use learnt late (a child's, at its reaping) was unregistered when it happened: it comes off the next window's.
        late_ns = self._late_ns if before is self._use else 0
        return demands(before, now, self.jobs, self.rules.cpus, self.rules.memory_bytes, late_ns)

    def _book_gap(self, gap: Gap, bill: Bill) -> None:
        self._meter_node(gap.domain, gap.quality, gap.lower_uj)  # at the first reading: the counter starts at 0
        if gap.lower_uj:
            self._leave(gap.domain.kind, "gap", gap.lower_uj, bill.price_from(gap.start_ns))

    def _book_gpu(self, interval: Interval, asleep_ns: int, bill: Bill) -> None:
        device = interval.domain.id
        seen = self._gpus.of(device)
        idle_uj = self.idle.energy_of_gpu_uj(interval, asleep_ns, held=seen.any)
        demand = gpu_demand(seen, interval, self.jobs)
        parts = split(interval.energy_uj, idle_uj, demand, self.rules.idle, self.rules.overhead)
        self._meter_node(interval.domain, interval.quality, interval.energy_uj)
        self._book("gpu", interval.quality, parts, bill.price_from(interval.start_ns), bill)
        self._gpus.close(device, self.jobs)

    def _book_rest(self, rest: Rest, use: Use, bill: Bill) -> list[Gap | Interval]:
        assert self._followed is not None
        found = rest.close()
        if found is None:
            return []
        # A meter that answered after the last tick tells of the time until then: this tick's are the next window's.
        before = (found.end_ns if isinstance(found, Gap) else found.at_ns) - self._at_ns < (
            use.at_ns - self._at_ns
        ) // 2
        if isinstance(found, Gap):
            self.domains.pass_over(found, use)
            self._followed.forget(before=before)
            return [found]
        outcome, _ = self.domains.advance(found, use)
        if isinstance(outcome, Gap):
            self._book_gap(outcome, bill)
            self._followed.forget(before=before)
            return [outcome]
        parts = self._followed.take(outcome.energy_uj, self.jobs, before=before)
        self._meter_node(outcome.domain, outcome.quality, outcome.energy_uj)
        self._book("rest", outcome.quality, parts, bill.price_from(outcome.start_ns), bill)
        return [outcome]

    def _split_hardware(self, duration_ns: int, window: Demands) -> dict[str, int]:
        """What each job owes of the node's making, as rate * ns; the rest is booked here."""
        claims = window.by_cpu.claim_ppb, window.by_memory.claim_ppb
        parts, left = self._hardware.split(duration_ns, *claims, self._gpus.holders(self.jobs))
        values = self.unattributed.setdefault("unreserved" if parts else "idle", [0] * SLOTS)
        self.node_co2e_ng["hardware"] += accrue_hardware(values, left)
        return parts

    def _book(self, kind: DomainKind, quality: Quality, parts: Split, price: Price, bill: Bill) -> None:
        """The jobs' part is billed at the end of the tick."""
        if self._followed is not None and kind != "rest":
            self._followed.add(parts)
        shares: dict[ShareKind, Mapping[str, int]]
        shares = {"direct": parts.direct, "idle": parts.idle, "overhead": parts.overhead}
        for share, by_job in shares.items():
            if by_job:
                bill.add(price, (energy_slot(kind, share, quality), by_job))
        for reason, energy_uj in parts.unattributed.items():
            self._leave(kind, reason, energy_uj, price)

    def _leave(self, kind: DomainKind, reason: Reason, energy_uj: int, price: Price) -> None:
        self.unattributed_uj[kind, reason] = self.unattributed_uj.get((kind, reason), 0) + energy_uj
        added_ng = accrue_energy(self.unattributed.setdefault(reason, [0] * SLOTS), energy_uj, price)
        self.node_co2e_ng["operation"] += added_ng[0]
        self.node_co2e_ng["cooling"] += added_ng[1]

    def _meter_node(self, domain: Domain, quality: Quality, energy_uj: int) -> None:
        key = (domain.kind, domain.id, quality)
        self.node_energy_uj[key] = self.node_energy_uj.get(key, 0) + energy_uj

    def save(self) -> dict[str, Any]:
        """Node totals and what the next window starts from, as plain JSON values."""
        return {
            "at_ns": self._at_ns,
            "node_energy_uj": [[*key, uj] for key, uj in self.node_energy_uj.items()],
            "unattributed_uj": [[*key, uj] for key, uj in self.unattributed_uj.items()],
            "node_co2e_ng": dict(self.node_co2e_ng),
            "unattributed": {reason: list(values) for reason, values in self.unattributed.items()},
            "agent_energy_uj": self.agent_energy_uj,
            "use": [self._use.at_ns, self._use.node_ns, self._use.asleep_ns],
            "counters": self.domains.save(),
            "rest": None if self.rest is None else self.rest.save(),
            "products": self.taxes.save(),
            "retraining": self.taxes.save_retraining(),
            **self.idle.save(),
        }

    def restore(self, saved: Mapping[str, Any], *, same_boot: bool, accounts_ns: Mapping[Account, int]) -> None:
        """Go on from what `save` gave, with the jobs that went on already opened.

        On the same boot the counters go on too, so that the time without an agent is one long window, split by what
        the jobs used meanwhile. `accounts_ns` are the present figures: what the system daemons used meanwhile isn't
        known, so that it counts as unregistered.
        """
        self.node_energy_uj = {(k, d, q): uj for k, d, q, uj in saved["node_energy_uj"]}
        self.unattributed_uj = {(k, r): uj for k, r, uj in saved["unattributed_uj"]}
        self.node_co2e_ng = dict(saved["node_co2e_ng"])
        self.unattributed = {reason: list(values) for reason, values in saved["unattributed"].items()}
        self.agent_energy_uj = saved["agent_energy_uj"]
        self.taxes.restore(saved["products"], saved.get("retraining"), self._at_ns)
        self.idle.restore(saved)
        if self.rest is not None and saved.get("rest") is not None:
            self.rest.restore(saved["rest"], same_boot=same_boot)
        if not same_boot:
            return
        use_at_ns, node_ns, asleep_ns = (*saved["use"], 0)[:3]  # one saved by an older version has two
        self._at_ns = saved["at_ns"]
        jobs_ns = {job_id: entry.values[CPU_NS_SLOT] for job_id, entry in self.jobs.items()}
        self._use = Use(
            use_at_ns,
            min(node_ns, accounts_ns["node"]),
            accounts_ns["overhead"],
            accounts_ns["agent"],
            jobs_ns,
            asleep_ns,
        )
        rest = None if self.rest is None else self.rest.domain.id  # the last of another meter is nothing to go on from
        counters = [saved for saved in saved["counters"] if saved[0] != "rest" or saved[1] == rest]
        self.domains.restore(counters, self._use)
