"""What can be asked of the agent over its socket: one strict type per `op` (contract, section 7).

Decoding is done by msgspec: an unknown op or key, a wrong type or a missing field is an error that names it.
"""

from typing import Annotated, Literal

import msgspec

from wattribute.agent.core.model import Origin, Role

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Labels = dict[Name, Annotated[str, msgspec.Meta(max_length=256)]]


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end, by SO_PEERCRED: the kernel's word, not the peer's."""

    pid: int
    uid: int
    gid: int


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="hello", tag_field="op", kw_only=True):
    id: int | str


class JobStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="job.start", tag_field="op", kw_only=True):
    """Begin a job, join a running one, or open a new segment of an ended one.

    `member` is the caller's own token of this membership: job.end names it again. `pid` is the root process of the
    membership (default: the peer). `reaped_cpu_ns` is the CPU time of that process's reaped children until now, as
    getrusage(RUSAGE_CHILDREN) tells it exactly; the agent checks it against the kernel's coarser figure.
    """

    id: int | str
    job_id: Name
    member: Name
    product_id: Name = "default"
    uses: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    role: Role = "use"
    phase: Annotated[str, msgspec.Meta(max_length=128)] = ""
    weight: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    nodes: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    labels: Labels = {}
    origin: Origin = "api"
    parent_job_id: Name | None = None
    pid: Annotated[int, msgspec.Meta(ge=1)] | None = None
    reaped_cpu_ns: Annotated[int, msgspec.Meta(ge=0)] | None = None


class JobEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="job.end", tag_field="op", kw_only=True):
    """End one membership; the job ends with its last. `reaped_cpu_ns` as in JobStart, at this moment."""

    id: int | str
    job_id: Name
    member: Name
    reaped_cpu_ns: Annotated[int, msgspec.Meta(ge=0)] | None = None
    notes: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=256)], ...], msgspec.Meta(max_length=16)] = ()


class JobUpdate(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="job.update", tag_field="op", kw_only=True
):
    id: int | str
    job_id: Name
    labels: Labels


class JobReceipt(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="job.receipt", tag_field="op", kw_only=True
):
    """One job's receipt; with `wait`, once its closing read is in (two intervals at most)."""

    id: int | str
    job_id: Name
    wait: bool = False


class Jobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="jobs", tag_field="op", kw_only=True):
    id: int | str


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="health", tag_field="op", kw_only=True):
    id: int | str


class GpuRelease(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="gpu.release", tag_field="op", kw_only=True
):
    """Let go of the GPUs for `for_s` seconds; 0: take them up again."""

    id: int | str
    for_s: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 600.0


class Served(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was served on behalf of one tenant ("": nobody in particular), cumulative since the account began.

    `requests` were answered, `aborted` weren't (an error, a worker that died). `units`: how much of what: tokens,
    images, seconds.
    """

    tenant: Annotated[str, msgspec.Meta(max_length=128)] = ""
    requests: Annotated[int, msgspec.Meta(ge=0, le=1 << 60)] = 0
    aborted: Annotated[int, msgspec.Meta(ge=0, le=1 << 60)] = 0
    units: dict[Name, Annotated[float, msgspec.Meta(ge=0, le=1e18)]] = {}


class Receipts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Energy of single requests, cumulative since the account began: how many fell into each of `BUCKETS_UJ` (the last
    is for all above), their sum, and the latest of each bucket as (bucket, request's id, uJ, Unix time in ns).
    """

    counts: tuple[Annotated[int, msgspec.Meta(ge=0, le=1 << 60)], ...] = ()
    sum_uj: Annotated[int, msgspec.Meta(ge=0, le=1 << 60)] = 0
    latest: Annotated[tuple[tuple[int, Name, Amount, Amount], ...], msgspec.Meta(max_length=64)] = ()


class Units(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="units", tag_field="op", kw_only=True):
    """What a serving job has served, in batches. Counts are cumulative, so that one that is sent twice counts once.

    `account` is the sender's own token for its counts: another one begins at 0. `until_ns` (CLOCK_BOOTTIME, None: now)
    ends the window that `shares` tell of: rows of (slot, place in `served`, weight * time in flight, busy time), in ns
    since the report before; `workers` is how many processes they come from. Without `shares` the window is split by
    what was served in it. With `seen_ns` the answer has the windows that settled after that moment, of one `slot`;
    with an `until_ns` of 0 that is all: a worker asks whose counts another one reports.
    """

    id: int | str
    job_id: Name
    account: Name
    until_ns: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)] | None = None
    served: Annotated[tuple[Served, ...], msgspec.Meta(max_length=256)] = ()
    shares: Annotated[tuple[tuple[int, int, Amount, Amount], ...], msgspec.Meta(max_length=2048)] | None = None
    workers: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    in_flight: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0
    receipts: Receipts | None = None
    seen_ns: int | None = None
    slot: int = 0


Request = Hello | JobStart | JobEnd | JobUpdate | JobReceipt | Jobs | Health | GpuRelease | Units

PROTOCOL = "wattribute.control/1"
Basis = Literal["daemon", "in-process"]

__all__ = [
    "PROTOCOL",
    "Basis",
    "GpuRelease",
    "Health",
    "Hello",
    "JobEnd",
    "JobReceipt",
    "JobStart",
    "JobUpdate",
    "Jobs",
    "Peer",
    "Receipts",
    "Request",
    "Served",
    "Units",
]
