"""The agent's books: one tick takes readings and gives every job its share, in energy and in carbon.

No clock, no I/O: times come with the readings. Each domain remembers its last reading and the cumulative use of all
jobs at that moment, so that a window of any length (a late sensor, a restart) is split by what was used in it.
Units: microjoules, nanograms, nanoseconds (CLOCK_BOOTTIME).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from wattribute.agent.core.accounting import Price, accrue_energy, accrue_hardware
from wattribute.agent.core.attribution import PPB, Demand, Split, split
from wattribute.agent.core.claims import Demands, Entry, Use, demands
from wattribute.agent.core.counters import between, integrate
from wattribute.agent.core.hardware import Hardware
from wattribute.agent.core.idle import IdleOfGpu, IdleOfUse
from wattribute.agent.core.model import (
    CPU_NS_SLOT,
    DOMAIN_KINDS,
    SLOTS,
    SM_NS_SLOT,
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
    Term,
    energy_slot,
)
from wattribute.agent.core.taxes import Taxes, add_taxes
from wattribute.agent.core.units import energy_over

Booked: TypeAlias = tuple[int, Mapping[str, int]]
"""A slot of the totals, and the microjoules by job id that go there."""

SETTLE_NS = 10_000_000_000
"""How long an ended job's use is kept for a sensor that is late; what a later one brings is then unregistered."""


@dataclass(slots=True)
class GpuUse:
    """What happened on one GPU since its energy was last read: SM time by job, and who held which part of it (ppb)."""

    jobs_ns: dict[str, int] = field(default_factory=dict)
    other_ns: int = 0
    held_ppb: dict[str, int] = field(default_factory=dict)
    foreign_ppb: int = 0
    unallocated_ppb: int = 0


@dataclass(slots=True)
class _Meter:
    reading: EnergyReading | PowerReading
    use: Use


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How this node attributes: policies, prices, its size (>= 1), idle power by kind and quality (uW per domain).

    Idle power that isn't given is learnt.
    """

    idle: Policy
    overhead: Policy
    price: Price
    idle_uw: Mapping[tuple[DomainKind, Quality], int]
    cpus: int
    memory_bytes: int


class Books:
    """All totals of one node. `jobs` are those that live, or ended a moment ago; the caller keeps the others."""

    def __init__(self, rules: Rules, hardware: Hardware, taxes: Taxes, at_ns: int) -> None:
        self.rules = rules
        self.taxes = taxes
        self.jobs: dict[str, Entry] = {}
        self.node_energy_uj: dict[tuple[DomainKind, str, Quality], int] = {}
        self.unattributed_uj: dict[tuple[DomainKind, Reason], int] = {}
        self.node_co2e_ng: dict[Term, int] = {"operation": 0, "cooling": 0, "hardware": 0}
        self.unattributed: dict[Reason, list[int]] = {}  # totals by slot, like a job's
        self.agent_energy_uj = 0  # contained in the overhead pool, and shown
        self.idle: dict[DomainKind, IdleOfUse] = {}  # learnt, of all domains of a kind together
        self.idle_gpus: dict[str, IdleOfGpu] = {}
        self._gpu_use: dict[str, GpuUse] = {}
        self._gpu_holders: dict[str, GpuUse] = {}
        self._hardware = hardware
        self._meters: dict[Domain, _Meter] = {}
        self._use = Use(at_ns, 0, 0, 0, {})
        self._late_ns = 0
        self._at_ns = at_ns

    def open(self, entry: Entry, *, first: bool) -> None:
        """A job begins, or an ended one opens a new segment on the same totals."""
        entry.base_ns = entry.values[CPU_NS_SLOT]
        entry.ended_ns = None
        entry.changed = True
        self.jobs[entry.job.id] = entry
        self.taxes.enter(entry.job, entry.started_ns, first=first)

    def end(self, entry: Entry, at_ns: int) -> None:
        """A job's last member left; its energy settles with the next readings."""
        entry.ended_ns = at_ns
        entry.changed = True
        owed: dict[tuple[str, Term], int] = {}
        self.taxes.leave(entry.job, at_ns, owed)
        add_taxes(entry.values, entry.taxes_ng, owed)

    def rename(self, entry: Entry, job: Job, at_ns: int) -> None:
        """A running job turns out to work for another product: taxes until now are the old one's."""
        owed: dict[tuple[str, Term], int] = {}
        self.taxes.leave(entry.job, at_ns, owed)
        add_taxes(entry.values, entry.taxes_ng, owed)
        entry.job, entry.changed = job, True
        self.taxes.enter(job, at_ns, first=True)

    def recognise(self, entry: Entry, cpu_ns: int) -> None:
        """CPU time from before a job was known to be its own: counted, while its energy stays whose it was."""
        entry.values[CPU_NS_SLOT] += cpu_ns
        entry.base_ns += cpu_ns
        entry.changed = True
        job_id = entry.job.id
        for use in {id(use): use for use in (self._use, *(meter.use for meter in self._meters.values()))}.values():
            if job_id in use.jobs_ns:
                use.jobs_ns[job_id] += cpu_ns

    def settled(self, entry: Entry) -> bool:
        """Whether every domain that still answers has been read since the job ended."""
        if entry.ended_ns is None:
            return False
        if self._at_ns - entry.ended_ns > SETTLE_NS:
            return True
        late_ns = self._at_ns - SETTLE_NS  # a sensor that is silent for as long isn't waited for
        ended_ns = entry.ended_ns
        return all(not late_ns <= meter.reading.at_ns < ended_ns for meter in self._meters.values())

    def meters(self) -> dict[Domain, Quality]:
        """The domains that have been read, and how good their last reading was."""
        return {domain: meter.reading.quality for domain, meter in self._meters.items()}

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
        seen = self._gpu_use.setdefault(device, GpuUse())
        for job_id, busy_ns in jobs_ns.items():
            seen.jobs_ns[job_id] = seen.jobs_ns.get(job_id, 0) + busy_ns
        seen.other_ns += other_ns
        # Who held it at the start of the window and now; each counts for as long as it lived.
        seen.held_ppb |= held_ppb
        seen.foreign_ppb = max(seen.foreign_ppb, foreign_ppb)
        seen.unallocated_ppb = unallocated_ppb
        self._gpu_holders[device] = GpuUse(
            held_ppb=dict(held_ppb), foreign_ppb=foreign_ppb, unallocated_ppb=unallocated_ppb
        )
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
    ) -> list[Gap | Interval]:
        """Book everything until `now_ns`; returns what each reading came to.

        `accounts_ns` is the cumulative CPU time of the node, the overhead and the agent in it; the jobs' own is in
        their totals already. `asleep_ns`: for how long the machine has been suspended since the boot.
        """
        jobs_ns = {job_id: entry.values[CPU_NS_SLOT] for job_id, entry in self.jobs.items()}
        accounts = accounts_ns["node"], accounts_ns["overhead"], accounts_ns["agent"]
        use = Use(now_ns, *accounts, jobs_ns, asleep_ns)
        outcomes: list[Gap | Interval] = []
        groups: dict[tuple[DomainKind, Quality, int], tuple[Use, list[Interval]]] = {}
        booked: list[Booked] = []
        for reading in readings:
            outcome, before = self._advance(reading, use)
            outcomes.append(outcome)
            if reading.domain.kind not in DOMAIN_KINDS:
                continue  # psys contains package and DRAM: watched, never summed
            if isinstance(outcome, Gap):
                self._book_gap(outcome)
            elif reading.domain.kind == "gpu":
                self._book_gpu(outcome, use.asleep_ns - before.asleep_ns, booked)
            else:
                key = (reading.domain.kind, outcome.quality, before.at_ns)
                groups.setdefault(key, (before, []))[1].append(outcome)
        windows: dict[int, Demands] = {}
        for (kind, quality, start_ns), (before, intervals) in groups.items():
            if start_ns not in windows:
                windows[start_ns] = self._demands(before, use)
            window = windows[start_ns]
            demand = window.by_memory if kind == "dram" else window.by_cpu
            idle_uj = self._idle_uj(kind, quality, intervals, before, use)
            energy_uj = sum(i.energy_uj for i in intervals)
            parts = split(energy_uj, idle_uj, demand, self.rules.idle, self.rules.overhead)
            for interval in intervals:
                self._meter_node(interval.domain, quality, interval.energy_uj)
            self._book(kind, quality, parts, booked)
            if demand.overhead_ns:
                agent_ns = min(use.agent_ns - before.agent_ns, demand.overhead_ns)
                self.agent_energy_uj += parts.pool_uj * max(0, agent_ns) // demand.overhead_ns
        held: Mapping[str, int] = {}
        if now_ns > self._at_ns:
            whole = windows.get(self._use.at_ns) or self._demands(self._use, use)
            self._late_ns = whole.late_ns
            held = self._split_hardware(now_ns - self._at_ns, whole)
        self._bill(booked, held)
        for job_id, owed in self.taxes.settle(now_ns).items():
            entry = self.jobs[job_id]
            add_taxes(entry.values, entry.taxes_ng, owed)
            entry.changed = True
        self._use, self._at_ns = use, now_ns
        return outcomes

    def forget_settled(self) -> list[Entry]:
        """Take the ended and settled jobs off the books; the caller keeps their totals."""
        done = [entry for entry in self.jobs.values() if entry.ended_ns is not None and self.settled(entry)]
        for entry in done:
            entry.changed = True
            del self.jobs[entry.job.id]
        return done

    def holds(self, entry: Entry) -> bool:
        """Whether a job can still be billed: it runs, or ended and hasn't settled."""
        return entry.job.id in self.jobs

    def _advance(self, reading: EnergyReading | PowerReading, use: Use) -> tuple[Gap | Interval, Use]:
        meter = self._meters.get(reading.domain)
        last = meter.reading if meter is not None else None
        if isinstance(reading, EnergyReading):
            asleep_ns = use.asleep_ns - (use if meter is None else meter.use).asleep_ns
            outcome = between(last if isinstance(last, EnergyReading) else None, reading, asleep_ns)
        else:
            outcome = integrate(last if isinstance(last, PowerReading) else None, reading)
        if not (isinstance(outcome, Gap) and outcome.cause == "stale"):
            self._meters[reading.domain] = _Meter(reading, use)
        return outcome, meter.use if meter is not None else use

    def _demands(self, before: Use, now: Use) -> Demands:
        # Use learnt late (a child's, at its reaping) was unregistered when it happened: it comes off the next window's.
        late_ns = self._late_ns if before is self._use else 0
        return demands(before, now, self.jobs, self.rules.cpus, self.rules.memory_bytes, late_ns)

    def _idle_uj(self, kind: DomainKind, quality: Quality, intervals: Sequence[Interval], before: Use, now: Use) -> int:
        """The idle part of a window's energy: by the power that is configured per domain, else by what was learnt."""
        asleep_ns = now.asleep_ns - before.asleep_ns
        idle_uw = self.rules.idle_uw.get((kind, quality))
        if idle_uw is not None:
            awake = [max(0, i.end_ns - i.start_ns - asleep_ns) for i in intervals]
            pairs = zip(intervals, awake, strict=True)
            return sum(min(i.energy_uj, energy_over(idle_uw, awake_ns)) for i, awake_ns in pairs)
        energy_uj = sum(i.energy_uj for i in intervals)
        awake_ns = max(0, now.at_ns - before.at_ns - asleep_ns)
        learner = self.idle.setdefault(kind, IdleOfUse())
        # What was lost for good, and a model that a sensor took the place of, isn't waited for.
        late_ns = now.at_ns - SETTLE_NS
        domains = sum(
            domain.kind == kind and meter.reading.quality == quality and meter.reading.at_ns >= late_ns
            for domain, meter in self._meters.items()
        )
        if len(intervals) == domains and awake_ns:
            learner.see(energy_uj, max(0, now.node_ns - before.node_ns), awake_ns, self.rules.cpus)
        if learner.idle is None:
            return 0
        return energy_over(learner.idle.power_uw * len(intervals) // domains, awake_ns)

    def _book_gap(self, gap: Gap) -> None:
        self._meter_node(gap.domain, gap.quality, gap.lower_uj)  # at the first reading: the counter starts at 0
        if gap.lower_uj:
            self._leave(gap.domain.kind, "gap", gap.lower_uj)

    def _book_gpu(self, interval: Interval, asleep_ns: int, booked: list[Booked]) -> None:
        device = interval.domain.id
        seen = self._gpu_use.get(device, GpuUse())
        awake_ns = max(0, interval.end_ns - interval.start_ns - asleep_ns)
        present = {j: self._present(self.jobs[j], interval) for j in seen.held_ppb if j in self.jobs}
        claims = {j: ppb * seen.held_ppb[j] // PPB for j, ppb in present.items() if ppb}
        use_ns = {job_id: busy_ns for job_id, busy_ns in seen.jobs_ns.items() if busy_ns and job_id in self.jobs}
        other_ns = seen.other_ns + sum(seen.jobs_ns.values()) - sum(use_ns.values())
        if not use_ns and not other_ns:
            # A context that holds a GPU without using it keeps it awake: its holders pay, by what they hold.
            use_ns, other_ns = claims, seen.foreign_ppb
        demand = Demand(
            use_ns=use_ns,
            present_ppb=present,
            claim_ppb=claims,
            other_ns=other_ns,
            foreign_claim_ppb=seen.foreign_ppb,
            unallocated_ppb=seen.unallocated_ppb,
        )
        idle_uw = self.rules.idle_uw.get(("gpu", interval.quality))
        if idle_uw is None:
            learner = self.idle_gpus.setdefault(device, IdleOfGpu())
            held = bool(seen.held_ppb or seen.foreign_ppb or seen.jobs_ns or seen.other_ns)
            learner.see(interval.energy_uj, interval.end_ns - awake_ns, interval.end_ns, held=held)
            idle_uw = 0 if learner.idle is None else learner.idle.power_uw
        parts = split(interval.energy_uj, energy_over(idle_uw, awake_ns), demand, self.rules.idle, self.rules.overhead)
        self._meter_node(interval.domain, interval.quality, interval.energy_uj)
        self._book("gpu", interval.quality, parts, booked)
        for job_id, busy_ns in seen.jobs_ns.items():
            if job_id in self.jobs:
                self.jobs[job_id].values[SM_NS_SLOT] += busy_ns
        # Who holds it now held it at the start of the next window.
        now = self._gpu_holders.get(device, GpuUse())
        self._gpu_use[device] = replace(now, jobs_ns={}, held_ppb=dict(now.held_ppb))

    @staticmethod
    def _present(entry: Entry, interval: Interval) -> int:
        end_ns = interval.end_ns if entry.ended_ns is None else min(interval.end_ns, entry.ended_ns)
        lived_ns = end_ns - max(interval.start_ns, entry.started_ns)
        return max(0, lived_ns) * PPB // (interval.end_ns - interval.start_ns)

    def _split_hardware(self, duration_ns: int, window: Demands) -> dict[str, int]:
        """What each job owes of the node's making, as rate * ns; the rest is booked here."""
        held = {
            gpu: {job_id: ppb for job_id, ppb in now.held_ppb.items() if job_id in self.jobs}
            for gpu, now in self._gpu_holders.items()
        }
        claims = window.by_cpu.claim_ppb, window.by_memory.claim_ppb
        parts, left = self._hardware.split(duration_ns, *claims, held)
        values = self.unattributed.setdefault("unreserved" if parts else "idle", [0] * SLOTS)
        self.node_co2e_ng["hardware"] += accrue_hardware(values, left)
        return parts

    def _book(self, kind: DomainKind, quality: Quality, parts: Split, booked: list[Booked]) -> None:
        """The jobs' part is billed at the end of the tick."""
        for share, by_job in (("direct", parts.direct), ("idle", parts.idle), ("overhead", parts.overhead)):
            if by_job:
                booked.append((energy_slot(kind, share, quality), by_job))  # type: ignore[arg-type]
        for reason, energy_uj in parts.unattributed.items():
            self._leave(kind, reason, energy_uj)

    def _bill(self, booked: Sequence[Booked], held: Mapping[str, int]) -> None:
        """Energy with its carbon, and the hardware's: each job is visited once."""
        price = self.rules.price
        operation_ng = cooling_ng = hardware_ng = 0
        for job_id, entry in self.jobs.items():
            values = entry.values
            energy_uj = 0
            for slot, by_job in booked:
                part_uj = by_job.get(job_id)
                if part_uj:
                    values[slot] += part_uj
                    energy_uj += part_uj
            if energy_uj:
                entry.changed = True
                added = accrue_energy(values, energy_uj, price)
                operation_ng += added[0]
                cooling_ng += added[1]
            numerator = held.get(job_id)
            if numerator:
                entry.changed = True
                hardware_ng += accrue_hardware(values, numerator)
        self.node_co2e_ng["operation"] += operation_ng
        self.node_co2e_ng["cooling"] += cooling_ng
        self.node_co2e_ng["hardware"] += hardware_ng

    def _leave(self, kind: DomainKind, reason: Reason, energy_uj: int) -> None:
        self.unattributed_uj[kind, reason] = self.unattributed_uj.get((kind, reason), 0) + energy_uj
        self._price(self.unattributed.setdefault(reason, [0] * SLOTS), energy_uj)

    def _price(self, values: list[int], energy_uj: int) -> None:
        operation_ng, cooling_ng = accrue_energy(values, energy_uj, self.rules.price)
        self.node_co2e_ng["operation"] += operation_ng
        self.node_co2e_ng["cooling"] += cooling_ng

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
            "counters": [
                [d.kind, d.id, m.reading.at_ns, m.reading.energy_uj]
                for d, m in self._meters.items()
                if isinstance(m.reading, EnergyReading) and m.reading.quality == "measured"
            ],
            "products": self.taxes.save(),
            "idle": {kind: learner.save() for kind, learner in self.idle.items()},
            "idle_gpus": {device: learner.save() for device, learner in self.idle_gpus.items()},
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
        self.taxes.restore(saved["products"], self._at_ns)
        self.idle = {kind: IdleOfUse.restore(values) for kind, values in saved.get("idle", {}).items()}
        self.idle_gpus = {gpu: IdleOfGpu.restore(values) for gpu, values in saved.get("idle_gpus", {}).items()}
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
        for kind, domain_id, at_ns, energy_uj in saved["counters"]:
            domain = Domain(kind=kind, id=domain_id)
            self._meters[domain] = _Meter(EnergyReading(domain=domain, at_ns=at_ns, energy_uj=energy_uj), self._use)
