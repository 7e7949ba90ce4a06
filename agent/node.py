"""One measured node: its sensors, its jobs, its books and its record, behind the few calls that the rest needs.

The daemon drives a Node from its loop; without a daemon a process drives one of its own. `tick` reads everything and
books it; `start` and `end` only register, so that a caller is answered at once and the edge tick comes after.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wattribute.agent.admission import check_id
from wattribute.agent.bound_ratios import BoundRatios
from wattribute.agent.climate import Climate
from wattribute.agent.commits import Commits
from wattribute.agent.condition import Condition
from wattribute.agent.config.schema import Config
from wattribute.agent.core.books import Books
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import BRIDGE_NS, Account, Clock, Gap, PowerReading, ProcessId, Snapshot
from wattribute.agent.core.receipt import rfc3339
from wattribute.agent.core.rounding import rounded
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.cpu_reads import CpuReads
from wattribute.agent.dues import Dues
from wattribute.agent.gpu_release import GpuHold, tell_holders
from wattribute.agent.gpus import GpuProcesses
from wattribute.agent.idle_words import idle_powers
from wattribute.agent.live import CpuTime, LiveJob
from wattribute.agent.node_about import About
from wattribute.agent.node_receipts import NodeReceipts
from wattribute.agent.pauses import Pauses, tell_jobs
from wattribute.agent.registry import Registry
from wattribute.agent.requests import Basis, JobEnd, JobStart, JobUpdate, Peer, Units
from wattribute.agent.rounds import Read, Rounds
from wattribute.agent.serving import Serving
from wattribute.agent.sight import Sight
from wattribute.agent.view import ShowWindow
from wattribute.agent.wiring import Sensors

if TYPE_CHECKING:
    from wattribute.agent.allotted import AllottedGpus
    from wattribute.agent.engines import Engines
    from wattribute.agent.finding import FoundJobs
    from wattribute.agent.norecord import NoRecord
    from wattribute.agent.record import Record
    from wattribute.agent.user_names import UserNames

PATIENCE_NS = 20_000_000
EDGE_NS = 50_000_000
FRESH_NS = 30_000_000
LATE_KEPT = 600
HELD_S = 900.0
"""So long a process that measures itself holds its ended jobs: no page shows them, and `hold_s` may be 0."""


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
        names: "UserNames | None",
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
        self.gpu_hold = GpuHold(sensors.sources, clock, config.agent.scheduler_uids)
        self._config = config
        self._version = version
        self._clock = clock
        self._cpu = cpu
        self._names = names
        self._climate = climate
        self._dues = dues
        self._resident_bytes = resident_bytes
        self._found = found
        groups = None if found is None else found.groups
        self._gpus = GpuProcesses(cpu, registry, groups, allotted)
        self._reads = CpuReads(cpu, groups, clock)
        self._rounds = Rounds(sensors, clock, found, allotted, engines)
        self.condition = Condition(self._reads, self._rounds, record, climate, dues)
        self.wants_power_samples = any(isinstance(r, PowerReading) and r.bridge_ns == BRIDGE_NS for r in sensors.first)
        """Whether a source gives power that must be sampled at least once a second."""
        self._sight = Sight(config.export, config.agent.scheduler_uids, everybody=basis == "in-process")
        self.views = ShowWindow(round(config.export.export_age_s * NS_PER_S))
        self._bounds = BoundRatios()
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
            groups,
            clock,
            hold_s=HELD_S if basis == "in-process" else config.export.hold_s,
        )
        self._receipts = NodeReceipts(climate, dues, self._commits, self.views, self._sight, self._about, clock)
        self._last_tick_ns = 0
        self._edge = False
        self._edge_until_ns: int | None = None
        self._pauses = Pauses(clock.asleep_ns())
        self._ticks = 0
        self._late_ticks = 0
        self._tick_ns = 0
        self._late_ns: deque[int] = deque(maxlen=LATE_KEPT)
        self._agent_cpu_ns = 0
        self._foreign: set[ProcessId] = set()

    # What jobs ask for

    def start(self, request: JobStart, peer: Peer) -> dict[str, Any]:
        """Register a job or join one; the edge tick follows as soon as the caller has its answer. Raises Refused."""
        check_id(request.job_id)
        now_ns, unix_ns = self._clock.monotonic_ns(), self._clock.time_ns()
        was_running = (job := self.registry.jobs.get(request.job_id)) is not None and job.running
        known = None if request.job_id in self.registry.jobs else self.record.finished(request.job_id)
        with self._reads.lock:
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
        with self._reads.lock:
            # Cgroups are read after it, at the edge: what a dead child used is known to its tree only then.
            self.registry.feed(self._cpu.read())
            self.registry.end(request, peer, self._clock.monotonic_ns(), self._clock.time_ns())
        self._edge = True
        return {"job_id": request.job_id}

    def recall(self, job_id: str, owner: int | None = None) -> list[threading.Event]:
        """Begin to ask what `start` (by that user) or `receipt` has to know of a job, and tell when it is known."""
        question = None if job_id in self.registry.jobs else self.record.recall(job_id)
        name = None if owner is None or self._names is None else self._names.ask(owner)
        known = None if question is None else question.done
        return [asked for asked in (known, name) if asked is not None]

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
        receipt = self._receipts.of(live, peer)
        if self.basis == "in-process":
            receipt["node_unattributed_uj"] = sum(self.books.unattributed_uj.values()) - live.unattributed_uj
        return receipt

    def settled(self, job_id: str) -> bool:
        """Whether a job has ended and its closing readings are in: one that has left the table has had them."""
        live = self.registry.jobs.get(job_id)
        return live is None or (not live.running and self._commits.settled(live))

    def jobs(self, peer: Peer | None = None) -> Iterator[dict[str, Any]]:
        """Receipts of the jobs that run or are held, as far as the peer may know of them: see NodeReceipts.all."""
        return self._receipts.all(self.registry.jobs.values(), peer)

    def sees_all(self, peer: Peer | None) -> bool:
        """Whether a peer sees every job, exactly and as it is now."""
        return self._sight.sees_all(peer)

    def booked_ns(self, peer: Peer | None = None) -> int:
        """Until when the receipts of running jobs have what was used, by CLOCK_BOOTTIME."""
        return self._last_tick_ns if self.sees_all(peer) or not self._sight.age_ns else self.views.shown.at_ns

    def health(self, peer: Peer | None = None) -> dict[str, Any]:
        """The state of each source and of the record. Why one that tells of jobs is down isn't told to everybody."""
        sources = self.condition.told(whole=self.sees_all(peer))
        return {"sources": sources, "ticks": self._ticks, "late": self._late_ticks, "refused": self.refused}

    # Time

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
        if self._edge_until_ns is None:
            if now_ns < self._last_tick_ns + EDGE_NS:
                return
            self._edge_until_ns = now_ns + FRESH_NS
            self._rounds.step(self._reads.capture, wake)
        if now_ns >= self._edge_until_ns or self._rounds.stepped:
            self.tick()

    def tick_at_edge(self) -> None:
        """As `edge`, waiting: for a process that measures itself."""
        come = threading.Event()
        if self._rounds.step(self._reads.capture, come.set):
            come.wait(FRESH_NS / NS_PER_S)
        self.tick()

    def tick(self, *, late: bool = False, late_ns: int | None = None, patience_ns: int = PATIENCE_NS) -> None:
        """Read everything, book it, hand it to the record. Never raises for a sensor's or the disk's sake.

        `late_ns`: by how much it begins after its time; `late`: that is too much.
        """
        began_ns = self._clock.monotonic_ns()
        at_edge = self._edge
        self._edge, self._edge_until_ns = False, None
        read = self._rounds.read(began_ns, patience_ns, self.registry.jobs, self.serving)
        with self._reads.lock:
            now_ns = self._book(read, at_edge=at_edge)
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
        return self.condition.problem(self._config.collectors.require)

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
            sources=self.condition.sources(),
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
            web_refused=self.condition.web_refused(),
            # Ratios to the millionth would tell the totals that aren't to be known.
            bounds_ppm={} if self._sight.blurs else self._bounds.of(self.registry.jobs, view, self.record.about),
        )
        return rounded(snapshot, self._sight.quantum_uj) if self._sight.quantum_uj else snapshot

    def flush(self, patience_s: float = 5.0) -> None:
        """Write down what was booked, wait until it is durable, and show it."""
        self._commits.flush(self._last_tick_ns, patience_s)

    def foreign(self, roots: set[ProcessId]) -> None:
        """Process trees inside ours that measure themselves: what they use is theirs."""
        with self._reads.lock:
            for root in roots - self._foreign:
                self._cpu.watch(root)
            for root in self._foreign - roots:
                self._cpu.unwatch(root)
            self._foreign = roots

    def close(self) -> None:
        """Give the sensors back and write the rest down."""
        self._rounds.close()
        self._cpu.close()
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

    def _book(self, read: Read, *, at_edge: bool) -> int:
        """Split and record what was read, by the CPU time at the counters' step where there was one; returns when."""
        if self._found is not None:
            for live in self._found.reconcile(self.registry, self.record, self._clock):
                live.notes |= dict.fromkeys(self._dues.notes(live))
                self._climate.meet(live)
        cpu = self._reads.take(read.stepped_ns)
        now_ns, unix_ns = cpu[0].at_ns, self._clock.time_ns()
        self.registry.feed(cpu)
        self._gpus.feed(read.usage, read.energy, self.books)
        self.registry.lose(self._cpu.gone(), now_ns, unix_ns)
        if self._found is not None:
            self.registry.lose(self._found.gone(), now_ns, unix_ns)
        accounts: dict[Account, int] = {r.consumer: r.busy_ns for r in cpu if isinstance(r.consumer, str)}
        self._agent_cpu_ns = accounts["agent"]
        asleep_ns = self._clock.asleep_ns()
        for gap in self._pauses.see(now_ns, unix_ns, asleep_ns):
            tell_jobs(self.registry.jobs.values(), gap)
        self._climate.follow(self.books, self.registry.jobs, self.record.corrections)
        self._dues.follow(now_ns)
        for outcome in self.books.tick(now_ns, accounts, read.energy, asleep_ns, unix_ns=unix_ns):
            if outcome.domain in read.owner:  # rest has no source of its own
                read.owner[outcome.domain].note(outcome)
            if isinstance(outcome, Gap) and outcome.cause not in ("first", "stale"):
                self._commits.add_gap(unix_ns - (now_ns - outcome.start_ns), outcome)
                if outcome.resumed:
                    start, end = (rfc3339(ns + unix_ns - now_ns) for ns in (outcome.start_ns, outcome.end_ns))
                    tell_holders(self.registry.jobs.values(), outcome.domain.id, start, end)
        if self.gpu_hold.released:
            for domain in self.books.domains.give_up("gpu"):
                tell_holders(self.registry.jobs.values(), domain.id, rfc3339(unix_ns), None)
        late = self._dues.collect(self.registry.jobs, self.record)
        done = self.books.forget_settled()
        self.serving.tick(now_ns, done)
        self.serving.late(late)
        news = bool(done) | self._commits.retire(unix_ns)
        if self._commits.due(now_ns) or news or at_edge:
            self._commits.take(now_ns, unix_ns)
        return now_ns
