"""The values that flow through the agent, and the Protocols of its two ends.

Frozen, keyword-only where they are built by hand; the unit is the last word of each name. Times named `at_ns`,
`start_ns`, `end_ns` are CLOCK_BOOTTIME nanoseconds (monotone, counting suspend); `*_unix_ns` is wall time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

DomainKind: TypeAlias = Literal["cpu", "dram", "gpu", "rest", "psys"]
Quality: TypeAlias = Literal["measured", "integrated", "modelled"]
ShareKind: TypeAlias = Literal["direct", "idle", "overhead"]
Term: TypeAlias = Literal["operation", "cooling", "platform", "retraining", "hardware", "overhead_hardware", "product"]
Role: TypeAlias = Literal["use", "platform", "retraining", "creation"]
Origin: TypeAlias = Literal["api", "run", "slurm", "kubernetes", "cgroup"]
Policy: TypeAlias = Literal["reserved", "equal", "usage", "unattributed"]
Reason: TypeAlias = Literal["idle", "unreserved", "unallocated", "overhead", "unregistered", "gap"]

DOMAIN_KINDS: tuple[DomainKind, ...] = ("cpu", "dram", "gpu", "rest")  # disjoint: these are summed
QUALITIES: tuple[Quality, ...] = ("measured", "integrated", "modelled")
SHARE_KINDS: tuple[ShareKind, ...] = ("direct", "idle", "overhead")
TERMS: tuple[Term, ...] = (
    "operation",
    "cooling",
    "platform",
    "retraining",
    "hardware",
    "overhead_hardware",
    "product",
)
PAYEE_TERMS: tuple[Term, ...] = ("platform", "retraining", "overhead_hardware", "product")  # owed to a product
ROLES: tuple[Role, ...] = ("use", "platform", "retraining", "creation")
REASONS: tuple[Reason, ...] = ("idle", "unreserved", "unallocated", "overhead", "unregistered", "gap")


BRIDGE_NS = 2_000_000_000
"""Averaged power is integrated over at most this much, where a meter isn't slower by nature; beyond it is a gap."""


class ProcessId(NamedTuple):
    """A process for good: a recycled pid has another start time. `start_ticks` is field 22 of /proc/PID/stat."""

    pid: int
    start_ticks: int


class GroupId(NamedTuple):
    """A cgroup for good: its path below the top (`/kubepods/besteffort/pod1`) and the inode of its directory."""

    path: str
    inode: int


Account: TypeAlias = Literal["node", "overhead", "agent", "unallocated"]
"""Consumers that aren't processes: all CPU time of the node (the divisor), that of the overhead cgroups, our own; on
a GPU, slices that nobody was given."""

Root: TypeAlias = ProcessId | GroupId
"""What a job's member stands on: a process with all that descends from it, or a cgroup with all that lives in it."""

Consumer: TypeAlias = Root | Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What was measured: a kind and a hardware identity (`package-0-die-1`, a GPU UUID), never an index."""

    kind: DomainKind
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReading:
    """A cumulative energy counter at one moment.

    `wraps_at_uj` is the value at which the counter starts over (powercap: max_energy_range_uj), None for one that
    never wraps. `ceiling_uw` is the most that the domain can plausibly draw: it tells a wrap from a reset.
    `resumed`: the sensor was given out of hand since the reading before, and may have been reset meanwhile.
    """

    domain: Domain
    at_ns: int
    energy_uj: int
    wraps_at_uj: int | None = None
    ceiling_uw: int | None = None
    quality: Quality = "measured"
    resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerReading:
    """An averaged power at one moment, to be integrated by trapezoid; more than `bridge_ns` isn't bridged.

    `resumed` as of an EnergyReading.
    """

    domain: Domain
    at_ns: int
    power_uw: int
    quality: Quality = "integrated"
    resumed: bool = False
    bridge_ns: int = BRIDGE_NS


class UsageReading(NamedTuple):  # a tuple: a tick makes one per job
    """Who used what. `busy_ns` is cumulative per consumer (CPU time; for a GPU, SM time on `device`).

    For a GPU the reading's presence says that the consumer holds a context on it; `memory_bytes` is resident
    memory, on a GPU its device memory, and None where it isn't known. `held_ppb` is the part of the GPU that it holds,
    in parts per billion, where the GPU is cut into slices (MIG), and None where it holds the GPU as everybody there;
    the account `unallocated` stands for slices of which no instance was made.
    """

    domain_kind: DomainKind
    consumer: Consumer
    at_ns: int
    busy_ns: int
    memory_bytes: int | None = None
    device: str = ""
    held_ppb: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One part of a source that couldn't be read this time: an absence, never a zero."""

    domain: Domain
    at_ns: int
    cause: str
    fix: str = ""


Reading: TypeAlias = EnergyReading | PowerReading | UsageReading | Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What `doctor` says of one source: where it is, whether it can be read, and the one command that mends it."""

    source: str
    path: str
    ok: bool
    why: str
    resolution: str = ""
    wraps_at_uj: int | None = None
    value: str = ""
    quality: Quality | None = None
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Energy of one domain between two reads; the quality travels on to a label and a receipt."""

    domain: Domain
    start_ns: int
    end_ns: int
    energy_uj: int
    quality: Quality
    wrapped: bool = False


GapCause: TypeAlias = Literal["first", "wrapped", "reset", "stale", "implausible", "absent", "released"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A stretch whose energy isn't known exactly; at least `lower_uj` was used, at most `upper_uj` (None: no bound).

    `resumed`: the sensor was given out of hand in it, whatever the cause says of its counter.
    """

    domain: Domain
    start_ns: int
    end_ns: int
    cause: GapCause
    lower_uj: int
    upper_uj: int | None
    quality: Quality
    resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A unit of work. `weight_ppm` is the tax weight in millionths (weight / nodes); joules never look at it."""

    id: str
    product_id: str = "default"
    uses: tuple[str, ...] = ()
    role: Role = "use"
    phase: str = ""
    weight_ppm: int = 1_000_000
    nodes: int = 1
    user: str = ""
    origin: Origin = "api"
    parent_job_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    started_unix_ns: int = 0
    ended_unix_ns: int | None = None


# One job's totals are a flat list of integers, so that a row is packed in one call and a page is rendered by slot.
# slot = (domain * 3 + share) * 3 + quality, then the terms, then the scalars below.
ENERGY_SLOTS = len(DOMAIN_KINDS) * len(SHARE_KINDS) * len(QUALITIES)
TERM_SLOT = {term: ENERGY_SLOTS + i for i, term in enumerate(TERMS)}
CPU_NS_SLOT = ENERGY_SLOTS + len(TERMS)
SM_NS_SLOT = CPU_NS_SLOT + 1
EXPORTED_SLOTS = SM_NS_SLOT + 1
# What is left below a nanogram of operation, cooling and hardware: kept, never shown.
CARRY_SLOT: dict[Term, int] = {
    "operation": EXPORTED_SLOTS,
    "cooling": EXPORTED_SLOTS + 1,
    "hardware": EXPORTED_SLOTS + 2,
}
SLOTS = EXPORTED_SLOTS + 3


@cache  # 72 of them, which a receipt asks for a hundred times
def energy_slot(kind: DomainKind, share: ShareKind, quality: Quality) -> int:
    """Index of a job's microjoules of one domain, share and quality in its totals."""
    return (DOMAIN_KINDS.index(kind) * 3 + SHARE_KINDS.index(share)) * 3 + QUALITIES.index(quality)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTotals:
    """A job and its totals at one commit: `values` has EXPORTED_SLOTS or more integers (uJ, ng, ns).

    Folded series are JobTotals too, with id `_retired` or `_overflow` and `info` False.
    `taxes_ng` holds (product_id, term) -> nanograms billed to the job.
    """

    job: Job
    values: Sequence[int]
    taxes_ng: Mapping[tuple[str, Term], int] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    running: bool = True
    info: bool = True
    slurm: tuple[Mapping[str, str], ...] = ()  # what joins it to series of others: one mapping per series
    kubernetes: tuple[Mapping[str, str], ...] = ()
    payees: tuple[str, ...] = ()  # the products whose taxes it pays now


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductTotals:
    """A product, declared or merely named, and what was taxed on its behalf (ng by term). None: EPC not known."""

    id: str
    kind: str
    epc_own_ng: int | None
    epc_inherited_ng: int | None
    billed_ng: Mapping[Term, int]
    untaxed_ng: Mapping[Term, int]
    running_jobs: int = 0
    jobs_total: int = 0
    weight_ppm_ns: int = 0
    amortised_ng: Mapping[str, int] = field(default_factory=dict)  # what of the EPC is due by `time` and by `units`


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantTotals:
    """What one tenant of a product was served and is billed for: micro-units by unit (`request` is one of them),
    microjoules, and nanograms in the order of TERMS.
    """

    units: Mapping[str, int]
    aborted: int
    energy_uj: int
    terms_ng: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTotals:
    """What a product's metered jobs served, and who of its requests is billed for what.

    Tenants + idle + unsettled = all that these jobs used, exactly, in energy and by term. `idle` is what no request was
    there for, `unsettled` what isn't split yet (less than two reports of the meters). `stages`: the parts of what was
    billed to requests that an engine tells apart (`prefill`, `decode`), as (uJ, ng by term). `receipts`: how many
    requests that have one lie in each of BUCKETS_UJ, with the latest of each: bucket -> (id, uJ, Unix ns).
    """

    product_id: str
    tenants: Mapping[str, TenantTotals]
    idle_uj: int
    idle_ng: Sequence[int]
    unsettled_uj: int
    unsettled_ng: Sequence[int]
    in_flight: int = 0
    stages: Mapping[str, tuple[int, Sequence[int]]] = field(default_factory=dict)
    receipt_counts: Sequence[int] = ()
    receipt_sum_uj: int = 0
    receipt_latest: Mapping[int, tuple[str, int, int]] = field(default_factory=dict)


# Upper ends of the histogram of what single requests took: 1 mJ to 100 kJ; what is above has a bucket of its own.
BUCKETS_UJ: tuple[int, ...] = (*tuple(m * 10**e for e in range(3, 11) for m in (1, 3)), 10**11)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHealth:
    """One source's state: up or not, how long its last read took, its failures by reason, its gaps."""

    name: str
    up: bool
    read_ns: int
    last_read_unix_ns: int | None
    failures: Mapping[str, int]
    gap_ns: int
    wraps: int
    resets: int
    why: str = ""
    fix: str = ""
    released: bool = False  # down because somebody asked for it
    devices: Mapping[str, bool] = field(default_factory=dict)  # of the parts that it knows: could it be read last time?


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonIntensity:
    """Grams CO2e per kWh in force over [valid_from, valid_until), with where it comes from.

    `method`: "average" or "marginal", and the factor type ("average, lifecycle"). `quality`: final, estimated or
    forecast (a source's own word), stale (the last known holds on), fallback, static or default. `final`: the
    source's last word. The low and high are those between which it certainly lies.
    """

    gco2e_per_kwh: float
    valid_from_unix_ns: int
    valid_until_unix_ns: int | None
    zone: str
    provider: str
    method: str
    quality: str = "default"
    low_g_per_kwh: float | None = None
    high_g_per_kwh: float | None = None
    year: int | None = None
    source: str = ""
    licence: str = ""
    final: bool = True
    retrieved_unix_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One consistent view of everything, as committed to the ledger: the only thing an exporter sees.

    Totals are those of an earlier moment, `booked_ns` (CLOCK_BOOTTIME) and `booked_unix_ns`; energy is that of each
    kind's last reading, `read_ns`. A power is the difference of two totals over that of two such moments.
    """

    taken_at_unix_ns: int
    version: str
    node_id: str
    jobs: Sequence[JobTotals]
    products: Sequence[ProductTotals]
    node_energy_uj: Mapping[tuple[DomainKind, str, Quality], int]  # (kind, device, quality)
    unattributed_uj: Mapping[tuple[DomainKind, Reason], int]
    node_co2e_ng: Mapping[Term, int]
    unattributed_ng: Mapping[tuple[Term, Reason], int]
    sources: Sequence[SourceHealth]
    pue: float
    intensity: CarbonIntensity
    ledger_created_unix_ns: int
    registry_hash: str
    booked_ns: int = 0
    booked_unix_ns: int = 0
    read_ns: Mapping[DomainKind, int] = field(default_factory=dict)
    corrections_ng: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (product, term), signed
    served: Sequence[ServedTotals] = ()
    agent_tick_ns: int = 0
    agent_ticks: int = 0
    agent_ticks_late: int = 0
    agent_cpu_ns: int = 0
    agent_resident_bytes: int = 0
    agent_energy_uj: int = 0
    agent_late_ns: Sequence[int] = ()  # by how much each of the last ticks began late
    suspended_ns: int = 0
    attribution: Mapping[tuple[DomainKind, str], str] = field(default_factory=dict)  # (kind, device) -> how it is split
    policy: Mapping[str, Policy] = field(default_factory=dict)  # idle, overhead
    idle_uw: Mapping[tuple[DomainKind, str, str], int] = field(default_factory=dict)  # (kind, device, how known)
    web_refused: Mapping[str, int] = field(default_factory=dict)  # by reason
    bounds_ppm: Mapping[str, Mapping[tuple[str, str], int]] = field(default_factory=dict)  # job -> (sum, end) -> ratio


class Collector(Protocol):
    """Reads one thing from the outside.

    `read` returns what could be read and a Fault for each part that couldn't; it raises SensorUnavailable where
    nothing can be read (it will be called again, after a back-off) and SensorGone where nothing ever will be.
    It may block: whoever calls it keeps the deadline. `close` gives everything back and may be called twice.
    """

    @property
    def name(self) -> str: ...
    def read(self) -> Sequence[Reading]: ...
    def close(self) -> None: ...


@runtime_checkable
class FreshCollector(Collector, Protocol):
    """A collector whose counters move in steps: `read_fresh` waits for the next one (ms), so that it is true now."""

    def read_fresh(self) -> Sequence[Reading]: ...


class Exporter(Protocol):
    """Writes snapshots to the outside. `publish` is called once per commit; it must not block or raise."""

    def publish(self, snapshot: Snapshot) -> None: ...
    def close(self) -> None: ...


class Clock(Protocol):
    """The only clock: CLOCK_BOOTTIME where there is one, and wall time; how long the machine has been suspended."""

    def monotonic_ns(self) -> int: ...
    def time_ns(self) -> int: ...
    def asleep_ns(self) -> int: ...
