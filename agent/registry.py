"""The live table of jobs: who is a member, and which process tree or cgroup feeds which job.

A member is one `with job()` or one `run`: a root process and a token. CPU time of a root's tree goes to the innermost
jobs open on it, in equal parts where several overlap (threads, coroutines). Ended jobs stay until `hold_s` is over.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from wattribute.agent.admission import Admission, check_id, is_same, is_unnamed, whose
from wattribute.agent.core.books import Books
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.found import NOTHING_RESERVED, FoundJob, Reservation
from wattribute.agent.core.model import CPU_NS_SLOT, GroupId, ProcessId, Root, UsageReading
from wattribute.agent.live import Age, CpuTime, GroupTime, LiveJob
from wattribute.agent.requests import JobEnd, JobStart, Peer

LATE_NOTE = "it was recognised after it had begun: the energy of its CPU time until then counts as unregistered"


@dataclass(slots=True)
class _Feeder:
    members: dict[tuple[str, str], None] = field(default_factory=dict)  # job id and token: others may have the same
    leaves: list[str] = field(default_factory=list)  # the innermost jobs among them, by their parents
    seen_ns: int = 0
    left_ns: int = 0
    memory_bytes: int = 0
    sized: bool = False  # the innermost jobs have their parts of it


class Registry:
    """Jobs by id and roots by process. Times are the agent's; nothing here reads a clock.

    `admission` says who may register what.
    """

    def __init__(
        self,
        books: Books,
        cpu: CpuTime,
        admission: Admission,
        *,
        max_jobs: int,
        groups: GroupTime | None = None,
    ) -> None:
        self.jobs: dict[str, LiveJob] = {}
        self._books = books
        self._cpu = cpu
        self._admission = admission
        self._roots: dict[Root, _Feeder] = {}
        self._departed: dict[Root, list[str]] = {}
        self._groups = groups
        self._max_jobs = max_jobs

    def start(
        self,
        request: JobStart,
        peer: Peer,
        at_ns: int,
        unix_ns: int,
        known: LiveJob | None = None,
        name: Callable[[LiveJob, JobStart, int], None] | None = None,
    ) -> LiveJob:
        """Open a member. `known` is an ended job of that id that has left the table. Raises Refused.

        `name` gives a running job that was found, and that nothing has named a product for, the request's.
        """
        check_id(request.job_id)
        pid = request.pid or peer.pid
        process = self._admission.check_process(pid, self._cpu.identify(pid), peer)
        live = self.jobs.get(request.job_id) or known
        if live is None:
            live = self._admission.requested(request, peer, at_ns, unix_ns)
            live.folded = len(self.jobs) >= self._max_jobs
        else:
            if live is known:
                live.folded = len(self.jobs) >= self._max_jobs
            naming = name is not None and request.product_id != "default" and is_unnamed(live)
            self._admission.check_rejoin(live, request, peer, naming=naming)
            if request.member in live.members:
                raise Refused(f"member {request.member!r} of job {request.job_id!r} is open already")
            if name is not None and naming:
                name(live, request, at_ns)
        root = self._roots.get(process)
        if root is None:
            # Watched before the job opens: time that the process used until now is not the job's.
            self._cpu.watch(process, reaped_ns=request.reaped_cpu_ns)
            root = self._roots[process] = _Feeder()
        else:
            # What was reaped until now is not this member's: those that were open before share it first.
            if request.reaped_cpu_ns is not None:
                self._cpu.settle_reaped(process, request.reaped_cpu_ns)
            self._feed(process, root)
        self._shelter(live, process, parent=request.parent_job_id)
        self._join(live, request.member, process, at_ns, first=known is None)
        if request.parent_job_id and request.parent_job_id != request.job_id:
            live.parents[request.member] = request.parent_job_id
        self._lead(root)
        return live

    def find(
        self,
        found: FoundJob,
        at_ns: int,
        unix_ns: int,
        age: Age,
        finished: Callable[[str], LiveJob | None] = lambda job_id: None,
        fold: Callable[[LiveJob], None] = lambda live: None,
    ) -> LiveJob | None:
        """A source found a cgroup of a job; returns the job. None: the cgroup is gone. Raises Refused.

        `finished` gives an ended job that has left the table, `fold` moves what a job's series show to `_retired`: one
        that comes back for another product begins them anew.
        """
        groups = self._groups
        found, live = whose(found, lambda job_id: self.jobs.get(job_id) or finished(job_id))
        counter_ns = None if groups is None else groups.watch(found.group, 0 if age == "new" else None)
        if groups is None or counter_ns is None:
            return None
        fresh = live is None
        if live is None:
            live = self._admission.found(found, at_ns, unix_ns)
        elif not is_same(live, found):
            if live.entry.job.id in self.jobs:
                fold(live)
            product_id = found.product_id or live.entry.job.product_id
            live.entry.job = replace(live.entry.job, product_id=product_id, uses=found.uses, role=found.role)
        if live.entry.job.id not in self.jobs:
            live.folded = len(self.jobs) >= self._max_jobs
        live.found = {group: each for group, each in live.found.items() if group_token(group) in live.members}
        live.found[found.group] = found
        self._roots[found.group] = _Feeder()
        self._join(live, group_token(found.group), found.group, at_ns, first=fresh)
        if (around := groups.around(found.group)) is not None:
            self._put_inside(live, around)
        for root in groups.lodgers(found.group):
            for job_id in self._roots[root].leaves if root in self._roots else ():
                if job_id != live.entry.job.id:
                    # What it claims is part of what this one claims. Its labels don't change while it runs.
                    self.jobs[job_id].entry.inside = live.entry.job.id
        self._reserve(live)
        self._lead(self._roots[found.group])
        if age == "late" and around is None and (past_ns := counter_ns - groups.lodging_ns(found.group)) > 0:
            # Its CPU time is known, but not when it ran: nobody else's energy is to be taken for it. Inside of another
            # job's cgroup it was that job's.
            self._books.recognise(live.entry, past_ns)
            live.notes.setdefault(LATE_NOTE)
        return live

    def end(self, request: JobEnd, peer: Peer, at_ns: int, unix_ns: int) -> LiveJob:
        """Close a member; the job ends with its last. Raises Refused."""
        live = self.jobs.get(request.job_id)
        if live is None or request.member not in live.members:
            raise Refused(f"no open member {request.member!r} of a job {request.job_id!r}: start it first")
        self._admission.check_end(live, peer)
        process = live.members[request.member]
        if not isinstance(process, ProcessId):
            raise Refused(f"member {request.member!r} of job {request.job_id!r} is a cgroup: it ends by itself")
        root = self._roots[process]
        if request.reaped_cpu_ns is not None:
            self._cpu.settle_reaped(process, request.reaped_cpu_ns)
        self._feed(process, root)
        for note in request.notes:
            live.notes.setdefault(note)
        self._drop(live, request.member, at_ns, unix_ns)
        return live

    def feed(self, readings: Iterable[UsageReading]) -> None:
        """Take the cumulative CPU time of every root, and its memory, to the jobs that are open on it."""
        sized: dict[str, None] = {}
        for reading in readings:
            consumer = reading.consumer
            root = None if isinstance(consumer, str) else self._roots.get(consumer)
            if root is None:
                continue
            leaves = root.leaves
            self._share(root, reading.busy_ns)
            memory_bytes = reading.memory_bytes
            if memory_bytes is not None and (memory_bytes != root.memory_bytes or not root.sized):
                root.memory_bytes, root.sized = memory_bytes, True
                sized.update(dict.fromkeys(leaves))
        for job_id in sized:
            self._size(self.jobs[job_id])

    def lose(self, processes: Iterable[Root], at_ns: int, unix_ns: int) -> list[LiveJob]:
        """Root processes that died without a word, cgroups that were removed: their members leave.

        Returns the jobs that this ended.
        """
        self._departed = {p: jobs for p, jobs in self._departed.items() if any(j in self._books.jobs for j in jobs)}
        ended = []
        for process in processes:
            root = self._roots.get(process)
            leaves = list(root.leaves) if root else []
            for job_id, token in list(root.members) if root else ():
                live = self.jobs[job_id]
                self._drop(live, token, at_ns, unix_ns)
                if not live.running:
                    if isinstance(process, ProcessId):
                        live.notes.setdefault("its process ended without closing the job")
                    ended.append(live)
            if leaves:
                self._departed[process] = leaves
        return ended

    def jobs_of(self, process: Root) -> list[str]:
        """The innermost jobs open on a root, or that were until they settle: a GPU tells of it late."""
        root = self._roots.get(process)
        if root is not None:
            return root.leaves
        return [job_id for job_id in self._departed.get(process, ()) if job_id in self._books.jobs]

    def roots(self) -> Iterable[Root]:
        """The root processes and cgroups of all open members."""
        return self._roots.keys()

    def adopt(self, live: LiveJob, members: Mapping[str, tuple[Root, str | None, int]]) -> None:
        """After a restart: go on with a job whose members (token -> root, parent, tree_ns) are alive."""
        for token, (process, parent, tree_ns) in members.items():
            if process not in self._roots:
                if isinstance(process, ProcessId):
                    self._cpu.watch(process, since_ns=tree_ns)
                    if self._groups is not None:
                        self._groups.enter(process)
                elif self._groups is None or self._groups.watch(process, tree_ns) is None:
                    self._lose_group(live, process)
                    continue
                self._roots[process] = _Feeder()
            root = self._roots[process]
            root.members[live.entry.job.id, token] = None
            live.members[token] = process
            if parent:
                live.parents[token] = parent
            root.leaves = self._leaves(root)
        self._reserve(live)

    def _join(self, live: LiveJob, token: str, process: Root, at_ns: int, *, first: bool) -> None:
        """Add a member to a job, which opens with its first one."""
        job_id = live.entry.job.id
        fresh = job_id not in self.jobs and first
        if not live.running or fresh or job_id not in self._books.jobs:
            live.entry.job = replace(live.entry.job, ended_unix_ns=None)
            if live.entry.ended_ns is not None:
                live.entry.started_ns = at_ns
            self._books.open(live.entry, first=fresh)
        self.jobs[job_id] = live
        live.known_meta = False
        live.members[token] = process
        live.member_count += 1
        self._roots[process].members[job_id, token] = None

    def _lead(self, root: _Feeder) -> None:
        """Find the innermost jobs of a root anew; more than one of them overlap."""
        before, root.leaves = root.leaves, self._leaves(root)
        root.sized = False
        for job_id in set(before).difference(root.leaves):
            self._size(self.jobs[job_id])
        if len(root.leaves) > 1:
            for job_id in root.leaves:
                other = self.jobs[job_id]
                if not other.overlapped:
                    other.overlapped, other.known_meta = True, False

    def _shelter(self, live: LiveJob, process: ProcessId, parent: str | None) -> None:
        """A process tree that is opened inside a found job's cgroup: its time is taken off that job's, its parent."""
        if self._groups is not None:
            group = self._groups.enter(process, self._cpu.busy_ns(process))
            if group is not None and parent is None:
                self._put_inside(live, group)

    def _put_inside(self, live: LiveJob, group: GroupId) -> None:
        around = self._roots[group].leaves if group in self._roots else []
        job = live.entry.job
        if around and job.parent_job_id is None and job.id not in around:
            live.entry.job = replace(job, parent_job_id=around[0])

    @staticmethod
    def _reserve(live: LiveJob) -> None:
        """What is set aside for a job: the sum over its cgroups here."""
        reserved = [found.reserved for found in live.found.values()]
        cpus = [r.cpus_milli for r in reserved if r.cpus_milli is not None]
        memory = [r.memory_bytes for r in reserved if r.memory_bytes is not None]
        total = Reservation(
            cpus_milli=sum(cpus) if cpus else None,
            memory_bytes=sum(memory) if memory else None,
            exclusive=any(r.exclusive for r in reserved),
        )
        live.entry.reserved = NOTHING_RESERVED if total == NOTHING_RESERVED else total

    def _feed(self, process: ProcessId, root: _Feeder) -> None:
        self._share(root, self._cpu.busy_ns(process))

    def _share(self, root: _Feeder, busy_ns: int) -> None:
        leaves = root.leaves
        used_ns = busy_ns - root.seen_ns
        if used_ns <= 0 or not leaves:
            return
        root.seen_ns = busy_ns
        each_ns, root.left_ns = divmod(used_ns + root.left_ns, len(leaves))
        for job_id in leaves:
            entry = self.jobs[job_id].entry
            entry.values[CPU_NS_SLOT] += each_ns
            entry.changed = True

    def _leaves(self, root: _Feeder) -> list[str]:
        job_ids = dict.fromkeys(job_id for job_id, _ in root.members)
        if len(job_ids) > 1:
            for job_id, token in root.members:
                job_ids.pop(self.jobs[job_id].parents.get(token, ""), None)
        return list(job_ids or dict.fromkeys(job_id for job_id, _ in root.members))

    def _drop(self, live: LiveJob, token: str, at_ns: int, unix_ns: int) -> None:
        process = live.members.pop(token)
        live.known_meta = False
        parent = live.parents.pop(token, None)
        root = self._roots[process]
        job_id = live.entry.job.id
        del root.members[job_id, token]
        if all(other_id != job_id for other_id, _ in root.members):
            self._hand_down(root, job_id, parent)
        self._lead(root)
        if not root.members:
            self._departed[process] = [live.entry.job.id]
            del self._roots[process]
            self._unwatch(live, process)
        if not live.members:
            live.entry.job = replace(live.entry.job, ended_unix_ns=unix_ns)
            self._books.end(live.entry, at_ns)

    def _unwatch(self, live: LiveJob, process: Root) -> None:
        if isinstance(process, ProcessId):
            if self._groups is not None:
                self._groups.leave(process, self._cpu.busy_ns(process))
            self._cpu.unwatch(process)
        elif self._groups is not None:
            self._groups.unwatch(process)
            self._lose_group(live, process)
            self._reserve(live)

    @staticmethod
    def _lose_group(live: LiveJob, group: GroupId) -> None:
        """A cgroup of a job is gone; of the last one, what the job was found by stays to be shown."""
        if live.found.keys() - {group}:
            live.found.pop(group, None)

    def _size(self, live: LiveJob) -> None:
        """The memory of all that a job is the innermost on, shared where several are; what ended keeps its own."""
        if live.members:
            roots = [self._roots[root] for root in dict.fromkeys(live.members.values())]
            shares = [root.memory_bytes // len(root.leaves) for root in roots if live.entry.job.id in root.leaves]
            live.entry.memory_bytes = sum(shares)

    def _hand_down(self, root: _Feeder, job_id: str, parent: str | None) -> None:
        """A job left a root before those that were opened inside it: they are inside of what it was inside of."""
        for inner_id, token in root.members:
            inner = self.jobs[inner_id]
            if inner.parents.get(token) == job_id:
                inner.known_meta = False
                if parent is None or parent == inner_id:
                    del inner.parents[token]
                else:
                    inner.parents[token] = parent


def group_token(group: GroupId) -> str:
    """How the membership of a cgroup is named."""
    return f"cgroup {group.inode} {group.path}"
