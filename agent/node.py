"""One measured node: its sensors, its jobs, its books and its record, behind the few calls that the rest needs.

The daemon drives a Node from its loop; without a daemon a process drives one of its own. `tick` reads everything and
books it; `start` and `end` only register, so that a caller is answered at once and the edge tick comes after.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from wattribute.agent.climate import Climate
from wattribute.agent.commits import Commits
from wattribute.agent.config.schema import Config
from wattribute.agent.core.books import Books
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import (
    Account,
    Clock,
    Domain,
    EnergyReading,
    Gap,
    PowerReading,
    ProcessId,
    Reading,
    Snapshot,
    SourceHealth,
    UsageReading,
)
from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.core.rounding import rounded
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.dues import Dues
from wattribute.agent.gpu_release import GpuHold
from wattribute.agent.gpus import GpuProcesses
from wattribute.agent.idle_words import idle_powers
from wattribute.agent.live import CpuTime, LiveJob
from wattribute.agent.node_about import About
from wattribute.agent.pauses import Pauses
from wattribute.agent.registry import Registry, check_id
from wattribute.agent.requests import Basis, JobEnd, JobStart, JobUpdate, Peer, Units
from wattribute.agent.serving import Serving
from wattribute.agent.sight import Sight
from wattribute.agent.sources import Source
from wattribute.agent.statement import receipt_of
from wattribute.agent.view import ShowWindow
from wattribute.agent.wiring import Sensors

if TYPE_CHECKING:
    from wattribute.agent.allotted import AllottedGpus
    from wattribute.agent.engines import Engines
    from wattribute.agent.finding import FoundJobs
    from wattribute.agent.norecord import NoRecord
    from wattribute.agent.record import Record

log = logging.getLogger("wattribute")

PATIENCE_NS = 20_000_000
EDGE_NS = 50_000_000
FRESH_NS = 30_000_000
LATE_KEPT = 600


class Web(Protocol):
    """What a Node needs of its web server: how often it refused to serve, by reason, and how its web file is."""

    @property
    def refused(self) -> Mapping[str, int]: ...
    def health(self) -> Iterable[SourceHealth]: ...


class Outlet(Protocol):
    """What a Node needs of what pushes its metrics elsewhere: how that goes."""

    def health(self) -> Iterable[SourceHealth]: ...


class Node:
    """Energy and carbon of one node, by job. Not thread-safe: one caller at a time."""

    def __init__(
        self,
        config: Config,
        *,
        basis: Basis,
        node_id: str,
        version: str,
        clock: Clock,
        cpu: CpuTime,
        sensors: Sensors,
        books: Books,
        registry: Registry,
        serving: Serving,
        record: "Record | NoRecord",
        climate: Climate,
        dues: Dues,
        notes: Iterable[str],
        resident_bytes: Callable[[], int],
        found: "FoundJobs | None" = None,
        allotted: "AllottedGpus | None" = None,
        engines: "Engines | None" = None,
    ) -> None:
        self.basis = basis
        self.node_id = node_id
        self.books = books
        self.registry = registry
        self.serving = serving
        self.record = record
        self.refused = 0
        self.web: Web | None = None
        self.otlp: Outlet | None = None
        """What serves the page, where something does."""
        self.gpu_hold = GpuHold(sensors.sources, clock, config.agent.scheduler_uids)
        self._config = config
        self._version = version
        self._clock = clock
        self._cpu = cpu
        self._sensors = sensors
        self._climate = climate
        self._dues = dues
        self._resident_bytes = resident_bytes
        self._found = found
        self._allotted = allotted
        self._engines = engines
        self._gpus = GpuProcesses(cpu, registry, None if found is None else found.groups, allotted)
        self._sight = Sight(config.export, config.agent.scheduler_uids, everybody=basis == "in-process")
        self.views = ShowWindow(round(config.export.export_age_s * NS_PER_S))
        self._about = About(basis, node_id, sensors, books, climate, dues, clock, notes)
        self._commits = Commits(
            books,
            registry,
            serving,
            record,
            climate,
            self._about,
            self.views,
            cpu,
            None if found is None else found.groups,
            clock,
            hold_s=config.export.hold_s,
        )
        self._last_tick_ns = 0
        self._cpu_read_ns = 0
        self._cpu_read_unix_ns: int | None = None
        self._edge = False
        self._edge_until_ns: int | None = None
        self._pauses = Pauses(clock.asleep_ns())
        self._ticks = 0
        self._late_ticks = 0
        self._tick_ns = 0
        self._late_ns: deque[int] = deque(maxlen=LATE_KEPT)
        self._agent_cpu_ns = 0
        self._sensed = {r.domain.kind for r in sensors.first if r.quality != "modelled"}
        self._foreign: set[ProcessId] = set()
        self._cpu_lock = threading.Lock()
        self._captured: list[UsageReading] = []

    # What jobs ask for

    def start(self, request: JobStart, peer: Peer) -> dict[str, Any]:
        """Register a job or join one; the edge tick follows as soon as the caller has its answer. Raises Refused."""
        check_id(request.job_id)
        now_ns, unix_ns = self._clock.monotonic_ns(), self._clock.time_ns()
        was_running = (job := self.registry.jobs.get(request.job_id)) is not None and job.running
        known = None if request.job_id in self.registry.jobs else self.record.finished(request.job_id)
        with self._cpu_lock:
            live = self.registry.start(request, peer, now_ns, unix_ns, known, self._name)
        self._climate.meet(live)
        if not was_running:
            live.unattributed_uj = sum(self.books.unattributed_uj.values())
            self.serving.resume(live)
        self._edge = True
        notes = self._dues.notes(live)
        for note in notes:
            live.notes.setdefault(note)
        return {"job_id": request.job_id, "joined": was_running, "notes": notes}

    def end(self, request: JobEnd, peer: Peer) -> dict[str, Any]:
        """Close one membership; the job ends with its last. Raises Refused."""
        with self._cpu_lock:
            # Cgroups are read after it, at the edge: what a dead child used is known to its tree only then.
            self.registry.feed(self._cpu.read())
            self.registry.end(request, peer, self._clock.monotonic_ns(), self._clock.time_ns())
        self._edge = True
        return {"job_id": request.job_id}

    def update(self, request: JobUpdate, peer: Peer) -> dict[str, Any]:
        """Replace a job's labels. Raises Refused."""
        live = self.registry.jobs.get(request.job_id)
        if live is None or peer.uid not in (live.uid, 0):
            raise Refused(f"there is no job {request.job_id!r}")
        live.entry.job = replace(live.entry.job, labels=request.labels)
        live.entry.changed, live.known_meta = True, False
        return {"job_id": request.job_id}

    def units(self, request: Units, peer: Peer) -> dict[str, Any]:
        """What a job has served. Raises Refused."""
        answer = self.serving.units(request, peer)
        if self._sight.age_ns and not self.sees_all(peer) and "windows" in answer:
            until_ns = self._clock.monotonic_ns() - self._sight.age_ns
            answer["windows"] = [window for window in answer["windows"] if window["until_ns"] <= until_ns]
        return answer

    def receipt(self, job_id: str, peer: Peer | None = None) -> dict[str, Any] | None:
        """What a job has used until the last tick, or None where there is none that the peer may know of."""
        live = self.registry.jobs.get(job_id) or self.record.finished(job_id)
        if live is None or not self._sight.may_see(live, peer):
            return None
        return self._receipt(live, self._about.now(), peer)

    def settled(self, job_id: str) -> bool:
        """Whether a job has ended and its closing readings are in."""
        live = self.registry.jobs.get(job_id)
        return live is not None and not live.running and self._commits.settled(live)

    def jobs(self, peer: Peer | None = None) -> list[dict[str, Any]]:
        """Receipts of the jobs that run or are still held, as far as the peer may know of them."""
        about, sight = self._about.now(), self._sight
        return [self._receipt(live, about, peer) for live in self.registry.jobs.values() if sight.may_see(live, peer)]

    def sees_all(self, peer: Peer | None) -> bool:
        """Whether a peer sees every job, exactly and as it is now."""
        return self._sight.sees_all(peer)

    def booked_ns(self, peer: Peer | None = None) -> int:
        """Until when the receipts of running jobs have what was used, by CLOCK_BOOTTIME."""
        return self._last_tick_ns if self.sees_all(peer) or not self._sight.age_ns else self.views.shown.at_ns

    def health(self, peer: Peer | None = None) -> dict[str, Any]:
        """The state of each source and of the record. Why one that tells of jobs is down may name them: it isn't told
        to everybody.
        """
        hushed = set() if self.sees_all(peer) else {h.name for h in self._finders_health()}
        sources = [
            {
                "source": h.name,
                "up": h.up,
                "why": h.why if h.name not in hushed or not h.why else "root and the agent's own user are told why",
                "fix": "" if h.name in hushed else h.fix,
                "failures": dict(h.failures),
            }
            for h in self._health()
        ]
        return {"sources": sources, "ticks": self._ticks, "late": self._late_ticks, "refused": self.refused}

    # Time

    @property
    def wants_power_samples(self) -> bool:
        """Whether a source gives power, which must be sampled at least once a second."""
        return any(isinstance(r, PowerReading) for r in self._sensors.first)

    def edge_due_ns(self) -> int | None:
        """When `edge` wants to be called (by the agent's clock); None: no job started or ended since the last tick."""
        if not self._edge:
            return None
        return self._edge_until_ns or self._last_tick_ns + EDGE_NS

    def edge(self, wake: Callable[[], None]) -> None:
        """The tick that a start or end asks for, at most one in 50 ms: first at the counters' next step, then all.

        `wake` is called from another thread when that step has come, so that the caller calls again.
        """
        now_ns = self._clock.monotonic_ns()
        if not self._edge:
            return
        stepping = [source for source in self._sensors.sources if source.fresh]
        if self._edge_until_ns is None:
            if now_ns < self._last_tick_ns + EDGE_NS:
                return
            self._edge_until_ns = now_ns + FRESH_NS
            for source in stepping:
                source.request_fresh(self._at_step, wake)
        if now_ns >= self._edge_until_ns or all(source.answered for source in stepping):
            self.tick()

    def tick_at_edge(self) -> None:
        """As `edge`, waiting: for a process that measures itself."""
        come = threading.Event()
        stepping = [source for source in self._sensors.sources if source.fresh]
        for source in stepping:
            source.request_fresh(self._at_step, come.set)
        if stepping:
            come.wait(FRESH_NS / NS_PER_S)
        self.tick()

    def tick(self, *, late: bool = False, late_ns: int | None = None, patience_ns: int = PATIENCE_NS) -> None:
        """Read everything, book it, hand it to the record. Never raises for a sensor's or the disk's sake.

        `late_ns`: by how much it begins after its time; `late`: that is too much.
        """
        began_ns = self._clock.monotonic_ns()
        at_edge = self._edge
        self._edge, self._edge_until_ns = False, None
        for source in self._sensors.sources:
            source.request()
        asked = [part for part in (self._found, self._allotted) if part is not None]
        for part in asked:
            part.request()
        if self._engines is not None:
            self._engines.request()
        energy: list[EnergyReading | PowerReading] = []
        owner = {}
        usage: list[UsageReading] = []
        for source in self._sensors.sources:
            waited_ns = self._clock.monotonic_ns() - began_ns
            for reading in source.collect(max(0, patience_ns - waited_ns)):
                if isinstance(reading, EnergyReading | PowerReading):
                    energy.append(reading)
                    owner[reading.domain] = source
                elif isinstance(reading, UsageReading):
                    usage.append(reading)
        energy = self._without_doubles(energy)
        stepped_ns = max((r.at_ns for r in energy if owner[r.domain].fresh), default=0)
        for part in asked:
            part.collect(max(0, patience_ns - (self._clock.monotonic_ns() - began_ns)))
        if self._engines is not None:
            self._engines.collect(self.registry.jobs, self.serving)
        with self._cpu_lock:
            now_ns = self._book(energy, usage, owner, stepped_ns, at_edge=at_edge)
        self._last_tick_ns = now_ns
        self._ticks += 1
        self._late_ticks += late
        if late_ns is not None:
            self._late_ns.append(late_ns)
        self._tick_ns = self._clock.monotonic_ns() - began_ns

    @property
    def version_shown(self) -> tuple[int, int]:
        """Changes whenever a snapshot would: the view's number (0: nothing measured yet) and the tick's."""
        return self.views.shown.seq, self._ticks

    def show(self) -> bool:
        """Put up what the record has by now and is old enough to be shown; True where there was news."""
        return self._commits.show()

    def problem(self) -> str:
        """Why the node isn't healthy, in words; "" where it is."""
        needed = {*self._config.collectors.require, "ledger"}
        down = [h for h in self._health() if not h.up and h.name in needed and not h.released]
        return "; ".join(f"{h.name}: {h.why}" for h in down)

    def snapshot(self) -> Snapshot:
        """The last view that the ledger has, with the sources' present health."""
        view = self.views.shown
        unix_ns = self._clock.time_ns()
        snapshot = Snapshot(
            taken_at_unix_ns=unix_ns,
            booked_ns=view.at_ns,
            booked_unix_ns=view.unix_ns,
            read_ns=view.read_ns,
            version=self._version,
            node_id=self.node_id,
            jobs=view.jobs(),
            products=view.products,
            node_energy_uj=view.node_energy_uj,
            unattributed_uj=view.unattributed_uj,
            node_co2e_ng=view.node_co2e_ng,
            unattributed_ng=view.unattributed_ng,
            corrections_ng=view.corrections_ng,
            served=view.served,
            sources=self._health(),
            pue=self._climate.pue(unix_ns),
            intensity=self._climate.intensity(unix_ns),
            ledger_created_unix_ns=self.record.created_unix_ns,
            registry_hash=self._dues.registry_hash,
            agent_tick_ns=self._tick_ns,
            agent_ticks=self._ticks,
            agent_ticks_late=self._late_ticks,
            agent_cpu_ns=self._agent_cpu_ns,
            agent_resident_bytes=self._resident_bytes(),
            agent_energy_uj=view.agent_energy_uj,
            agent_late_ns=tuple(self._late_ns),
            suspended_ns=self._clock.asleep_ns(),
            attribution=self._about.methods(),
            policy=self._about.policy(),
            idle_uw=idle_powers(self.books),
            web_refused={} if self.web is None else dict(self.web.refused),
        )
        return rounded(snapshot, self._sight.quantum_uj) if self._sight.quantum_uj else snapshot

    def flush(self, patience_s: float = 5.0) -> None:
        """Write down what was booked, wait until it is durable, and show it."""
        self._commits.flush(self._last_tick_ns, patience_s)

    def foreign(self, roots: set[ProcessId]) -> None:
        """Process trees inside ours that measure themselves: what they use is theirs."""
        with self._cpu_lock:
            for root in roots - self._foreign:
                self._cpu.watch(root)
            for root in self._foreign - roots:
                self._cpu.unwatch(root)
            self._foreign = roots

    def close(self) -> None:
        """Give the sensors back and write the rest down."""
        for source in self._sensors.sources:
            source.close()
        for part in (self._found, self._allotted, self._engines):
            if part is not None:
                part.close()
        self._climate.close()
        self.record.close()
        self._dues.close()  # last: it delivers what the record wrote

    # Inside

    def _name(self, live: LiveJob, request: JobStart, at_ns: int) -> None:
        """A found job that nothing has named a product for takes that of the first member that registers with one."""
        self.record.fold(live)
        job = replace(
            live.entry.job,
            product_id=request.product_id,
            uses=request.uses,
            phase=request.phase or live.entry.job.phase,
        )
        self.books.rename(live.entry, job, at_ns)
        live.known_meta = False

    def _at_step(self) -> None:
        """In a sensor's thread, right at its counters' step: what had been used by then."""
        with self._cpu_lock:
            self._captured = self._read_cpu()

    def _book(
        self,
        energy: list[EnergyReading | PowerReading],
        usage: list[UsageReading],
        owner: Mapping[Domain, Source[Reading]],
        stepped_ns: int,
        *,
        at_edge: bool,
    ) -> int:
        """Split and record what was read, by the CPU time at the counters' step where there was one; returns when."""
        if self._found is not None:
            for live in self._found.reconcile(self.registry, self.record, self._clock):
                live.notes |= dict.fromkeys(self._dues.notes(live))
                self._climate.meet(live)
        captured, self._captured = self._captured, []
        cpu = captured if captured and captured[0].at_ns >= stepped_ns else self._read_cpu()
        now_ns, unix_ns = cpu[0].at_ns, self._clock.time_ns()
        self.registry.feed(cpu)
        self._gpus.feed(usage, energy, self.books)
        self.registry.lose(self._cpu.gone(), now_ns, unix_ns)
        if self._found is not None:
            self.registry.lose(self._found.gone(), now_ns, unix_ns)
        accounts: dict[Account, int] = {r.consumer: r.busy_ns for r in cpu if isinstance(r.consumer, str)}
        self._agent_cpu_ns = accounts["agent"]
        asleep_ns = self._clock.asleep_ns()
        for gap in self._pauses.see(now_ns, unix_ns, asleep_ns):
            self._tell(gap)
        self._climate.follow(self.books, self.registry.jobs, self.record.corrections)
        self._dues.follow(now_ns)
        for outcome in self.books.tick(now_ns, accounts, energy, asleep_ns, unix_ns=unix_ns):
            owner[outcome.domain].note(outcome)
            if isinstance(outcome, Gap) and outcome.cause not in ("first", "stale"):
                self._commits.add_gap(unix_ns - (now_ns - outcome.start_ns), outcome)
                if outcome.resumed:
                    start, end = (rfc3339(ns + unix_ns - now_ns) for ns in (outcome.start_ns, outcome.end_ns))
                    self._tell_holders(outcome.domain.id, start, end)
        if self.gpu_hold.released:
            for domain in self.books.give_up("gpu"):
                self._tell_holders(domain.id, rfc3339(unix_ns), None)
        late = self._dues.collect(self.registry.jobs, self.record)
        done = self.books.forget_settled()
        self.serving.tick(now_ns, done)
        self.serving.late(late)
        news = bool(done) | self._commits.retire(unix_ns)
        if self._commits.due(now_ns) or news or at_edge:
            self._commits.take(now_ns, unix_ns)
        return now_ns

    def _tell(self, gap: dict[str, str | None]) -> None:
        """The machine stood still since the last tick: the window is longer, and jobs didn't run in that part of it."""
        log.info("%s", gap["cause"])
        for live in self.registry.jobs.values():
            if live.running:
                live.gaps.append(dict(gap))
                live.known_meta = False

    def _tell_holders(self, gpu: str, start: str | None, end: str | None) -> None:
        """Nobody looks at a GPU for a while: what its jobs use of it then isn't in their receipts. It is told when that
        begins, because a job may end in it, and again with its end.
        """
        cause = f"GPU {gpu} was released: its energy isn't split over jobs"
        for live in self.registry.jobs.values():
            gaps = [gap for gap in live.gaps if gap["cause"] != cause or gap["end"] is not None]
            if live.running and (gpu in live.entry.gpus or len(gaps) < len(live.gaps)):
                live.gaps = [*gaps, {"start": start, "end": end, "cause": cause}]
                live.known_meta = False

    def _read_cpu(self) -> list[UsageReading]:
        began_ns = self._clock.monotonic_ns()
        readings = self._cpu.read() if self._found is None else self._found.groups.read()
        self._cpu_read_ns = self._clock.monotonic_ns() - began_ns
        self._cpu_read_unix_ns = self._clock.time_ns()
        return readings

    def _without_doubles(self, energy: list[EnergyReading | PowerReading]) -> list[EnergyReading | PowerReading]:
        """A sensor that answers after all takes the place of the model: its first reading begins where that ends."""
        kept = [r for r in energy if r.quality != "modelled" or r.domain.kind not in self._sensed]
        self._sensed.update(r.domain.kind for r in kept if r.quality != "modelled")
        return kept

    def _health(self) -> list[Any]:
        process = SourceHealth(
            name="process",
            up=True,
            read_ns=self._cpu_read_ns,
            last_read_unix_ns=self._cpu_read_unix_ns,
            failures={},
            gap_ns=0,
            wraps=0,
            resets=0,
        )
        found = self._finders_health()
        web = () if self.web is None else self.web.health()
        otlp = () if self.otlp is None else self.otlp.health()
        outside = (*self.record.health(), *self._climate.health(), *self._dues.health(), *web, *otlp)
        return [process, *(source.health() for source in self._sensors.sources), *found, *outside]

    def _finders_health(self) -> list[SourceHealth]:
        """Of what looks for jobs, and for what they serve."""
        found = [] if self._found is None else self._found.health()
        if self._allotted is not None:
            found.append(self._allotted.health())
        if self._engines is not None:
            found += self._engines.health()
        return found

    def _receipt(self, live: LiveJob, about: Mapping[str, Any], peer: Peer | None) -> dict[str, Any]:
        unix_ns = self._clock.time_ns()
        settled = not live.running and self._commits.settled(live)
        settled = settled and not self._dues.open(live) and not self._climate.provisional(live, unix_ns)
        shown = live if self.sees_all(peer) else self._sight.shown(live, self.views.shown)
        receipt = receipt_of(shown, about, now_unix_ns=unix_ns, settled=settled, exact=live)
        if self.basis == "in-process":
            receipt["node_unattributed_uj"] = sum(self.books.unattributed_uj.values()) - live.unattributed_uj
        return receipt
