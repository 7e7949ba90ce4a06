"""Who may register what: whose processes, under which job's id, for which product.

Here a request or a finding becomes a job, joins one that is there, or is refused; the registry keeps it.
"""

from collections.abc import Callable
from dataclasses import replace

from wattribute.agent.core.claims import Entry
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.found import FoundJob
from wattribute.agent.core.model import Job, ProcessId
from wattribute.agent.live import LiveJob
from wattribute.agent.requests import JobStart, Peer


class Admission:
    """By uid. `owner_of(uid)` gives the user label; `owns(product_id, uid)` says whether a user may register roles and
    weights for a product, `privileged(uid)` whether it may register processes of others and end their jobs.

    `uid_of` gives the user of a pid.
    """

    def __init__(
        self,
        *,
        owner_of: Callable[[int], str],
        owns: Callable[[str, int], bool],
        privileged: Callable[[int], bool],
        uid_of: Callable[[int], int | None],
    ) -> None:
        self._owner_of = owner_of
        self._owns = owns
        self._privileged = privileged
        self._uid_of = uid_of

    def check_process(self, pid: int, process: ProcessId | None, peer: Peer) -> ProcessId:
        """The process that has a pid, if there is one and the peer may register it. Raises Refused."""
        if process is None:
            raise Refused(f"there is no process {pid} here (a container needs the host's process namespace)")
        if pid != peer.pid and not self._privileged(peer.uid) and self._uid_of(pid) != peer.uid:
            raise Refused(f"process {pid} belongs to another user: only root and agent.scheduler_uids may register it")
        return process

    def check_end(self, live: LiveJob, peer: Peer) -> None:
        """Whether the peer may end a job's members. Raises Refused."""
        if peer.uid != live.uid and not self._privileged(peer.uid):
            raise Refused(f"job {live.entry.job.id!r} belongs to another user")

    def check_rejoin(self, live: LiveJob, request: JobStart, peer: Peer, *, naming: bool) -> None:
        """Whether a request may join a job that is there; `naming`: it may give its product. Raises Refused."""
        job = live.entry.job
        if live.uid != peer.uid:
            raise Refused(f"job {job.id!r} belongs to another user: choose another id")
        if not naming and request.product_id not in ("default", job.product_id):
            raise Refused(f"job {job.id!r} works for product {job.product_id!r}, not {request.product_id!r}")
        if request.role not in ("use", job.role):
            raise Refused(f"job {job.id!r} has the role {job.role!r}, not {request.role!r}")

    def requested(self, request: JobStart, peer: Peer, at_ns: int, unix_ns: int) -> LiveJob:
        """A new job as it was asked for. Raises Refused."""
        trusted = request.role == "use" and request.weight == 1
        if not trusted and not self._owns(request.product_id, peer.uid):
            asked = f"a weight of {request.weight}" if request.role == "use" else f"role {request.role!r}"
            raise Refused(
                f"{asked} for product {request.product_id!r} is for its owners: "
                f"add {self._owner_of(peer.uid)!r} to its `owners` in the agent's configuration, or by "
                "`wattribute product add --update --owner`, of which the agent hears within some seconds"
            )
        job = Job(
            id=request.job_id,
            product_id=request.product_id,
            uses=request.uses,
            role=request.role,
            phase=request.phase,
            weight_ppm=max(1, request.weight * 1_000_000 // request.nodes),
            nodes=request.nodes,
            user=self._owner_of(peer.uid),
            origin=request.origin,
            parent_job_id=request.parent_job_id if request.parent_job_id != request.job_id else None,
            labels=request.labels,
            started_unix_ns=unix_ns,
        )
        return LiveJob(Entry(job, at_ns), peer.uid)

    def found(self, found: FoundJob, at_ns: int, unix_ns: int) -> LiveJob:
        """A new job as a source found it."""
        job = Job(
            id=found.job_id,
            product_id=found.product_id or "default",
            uses=found.uses,
            role=found.role,
            phase=found.phase,
            weight_ppm=max(1, 1_000_000 // max(1, found.nodes)),
            nodes=found.nodes,
            user=self._owner_of(found.uid),
            origin=found.origin,
            labels=found.labels,
            started_unix_ns=unix_ns,
        )
        return LiveJob(Entry(job, at_ns), found.uid)


def whose(found: FoundJob, known: Callable[[str], LiveJob | None]) -> tuple[FoundJob, LiveJob | None]:
    """The job that a cgroup is of, by its id and user; `known` gives the job that an id belongs to. Raises Refused.

    A job registered under the same id by the same user is the same job. One that belongs to somebody else isn't,
    so that nobody can take over what another runs by naming it first: the found one then has an id of its own.
    """
    stem = found.job_id[:100]
    for job_id in (found.job_id, f"{stem}~{found.uid}", f"{stem}~{found.group.inode}"):
        live = known(job_id)
        if live is None or is_same(live, found) or (live.uid == found.uid and not live.running):
            return replace(found, job_id=job_id), live
    raise Refused(f"the id {found.job_id!r} and those beside it belong to others: give it one by a [[rule]]")


def is_same(live: LiveJob, found: FoundJob) -> bool:
    """Whether a job is the one that was found: the same user's, with no other product or role."""
    job = live.entry.job
    return live.uid == found.uid and found.product_id in ("", job.product_id) and found.role in ("use", job.role)


def is_unnamed(live: LiveJob) -> bool:
    """Whether a job was found, and nothing has said yet which product it works for."""
    job = live.entry.job
    return bool(live.found) and live.running and job.product_id == "default" and job.role == "use"


def check_id(job_id: str) -> None:
    """1..128 printable UTF-8 characters without a leading `_` (contract, section 2). Raises Refused."""
    if not 1 <= len(job_id) <= 128:
        raise Refused(f"a job id has 1 to 128 characters, not {len(job_id)}")
    if job_id.startswith("_"):
        raise Refused("a job id must not begin with `_`: those are the agent's own (_retired, _overflow)")
    if not job_id.isprintable():
        raise Refused("a job id must be printable UTF-8 characters")


__all__ = ["Admission", "check_id", "is_same", "is_unnamed", "whose"]
