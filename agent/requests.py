"""What can be asked of the agent over its socket: one strict type per `op` (contract, section 7).

Decoding is done by msgspec: an unknown op or key, a wrong type or a missing field is an error that names it.
"""

from typing import Annotated, Literal

import msgspec

from wattribute.agent.core.model import Origin, Role

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
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


Request = Hello | JobStart | JobEnd | JobUpdate | JobReceipt | Jobs | Health

PROTOCOL = "wattribute.control/1"
Basis = Literal["daemon", "in-process"]

__all__ = [
    "PROTOCOL",
    "Basis",
    "Health",
    "Hello",
    "JobEnd",
    "JobReceipt",
    "JobStart",
    "JobUpdate",
    "Jobs",
    "Peer",
    "Request",
]
