"""Slurm's jobs on this node: a cgroup each, its steps folded in; the rest from one of its processes' environment.

Where Slurm puts them (slurm.schedmd.com/cgroups.html and cgroup_v2.html; `node_` where several slurmd run on a host):
    v1                     /slurm[_NODE]/uid_1000/job_42/step_0/task_0
    v2                     /system.slice/[NODE_]slurmstepd.scope/job_42/step_0/user/task_0, or another CgroupSlice
    v2, from 26.05         the same with the job's SLUID (s5K1KKYAYG5D00) for job_42, unless CgroupJobIdPaths=yes
None of these places can be written to by users: `/user.slice` and pods aren't looked into.

What a user can forge. The number is the path's, or that in the title of root's slurmstepd in a place that is root's.
The uid is the path's, the prolog's or the process's. What Slurm's prolog told is root's word. The rest is the user's to
write (he runs the process): cluster name, array ids, partition, account and node count of his own job, and its
allocation as far as the kernel doesn't limit it. An array's id that a job of another user has already is not believed.
The job of another source may still have an id that he makes up: whoever joins jobs by id compares the uid.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from wattribute.agent.core.found import CgroupTree, FoundJob, GroupId, JobEnvironment, Reservation
from wattribute.agent.core.rules import unit_of
from wattribute.agent.core.search import GroupSearch

PATIENCE = 5  # calls, about a second each, that a job may go without a process that can be read
PROCESSES = 32  # looked at in search of one with the job's environment
NODES_MAX = 1_000_000
TEXT_CHARS = 256
PHASE_CHARS = 128
MIB = 2**20

_V1 = r"/slurm(?:_[^/]+)?"
_V2 = r"(?!/user\.slice|/kubepods)(?:/[^/]+\.slice){1,4}"
_SCOPE = r"/(?:[^/]+_)?slurmstepd\.scope"
# A SLUID is s and 13 digits of Crockford's base32 (print_sluid in Slurm's src/common/sluid.c).
_SLUID = r"s[0-9A-HJKMNP-TV-Z]{13}"
_JOB = re.compile(rf"(?:{_V1}/uid_(?P<uid>\d+)|{_V2}{_SCOPE})/(?:job_(?P<number>\d+)|(?P<sluid>{_SLUID}))")
_FOLDER = re.compile(rf"{_V1}(?:/uid_\d+)?|{_V2}(?:{_SCOPE})?")
_STEPD = re.compile(r"slurmstepd: \[(?:StepId=)?(\d+)\.")


class SlurmJobs:
    """Finds them. `uid_of` and `title` tell of a process by pid, `fit` makes a job's id a valid one; `prolog` is what
    Slurm's prolog told of a job, by number ({}: nothing), and counts before the environment of its processes.

    Ids are those that a session inside would take: `CLUSTER-JOB`, of arrays `CLUSTER-ARRAY_TASK`, cluster "slurm"
    where none is known. WATTRIBUTE_JOB_ID is left to sessions: in a found job it could name anybody's.
    """

    name = "slurm"

    def __init__(
        self,
        tree: CgroupTree,
        environ: JobEnvironment,
        *,
        uid_of: Callable[[int], int | None],
        title: Callable[[int], str],
        fit: Callable[[str], str],
        prolog: Callable[[str], Mapping[str, str]] = lambda number: {},
    ) -> None:
        self._tree = tree
        self._prolog = prolog
        self._environ = environ
        self._uid_of = uid_of
        self._title = title
        self._fit = fit
        self._search = GroupSearch(tree, wanted=_is_job, enter=_is_folder, keep=_is_folder)
        self._known: dict[GroupId, FoundJob] = {}
        self._tries: dict[GroupId, int] = {}
        self._groups: list[GroupId] = []
        self._jobs: list[FoundJob] = []

    def jobs(self) -> Sequence[FoundJob]:
        """Those that are there. A job is told once its environment could be read, or by its path after PATIENCE."""
        groups = self._search.groups()
        if groups is self._groups and not self._tries:
            return self._jobs
        known: dict[GroupId, FoundJob] = {}
        tries: dict[GroupId, int] = {}
        for group in groups:
            job = self._known.get(group)
            if job is None:
                tried = self._tries.get(group, 0) + 1
                job = self._look_into(group, tried > PATIENCE)
                if job is None:
                    tries[group] = tried
            if job is not None:
                self._known[group] = known[group] = job
        self._known, self._tries, self._groups = known, tries, groups
        self._jobs = list(known.values())
        return self._jobs

    def close(self) -> None:
        """Nothing is held open."""

    def _look_into(self, group: GroupId, hurry: bool) -> FoundJob | None:
        match = _JOB.fullmatch(group.path)
        assert match is not None
        number = match["number"] or self._number(group.path)
        told = self._prolog(number) if number else {}
        if match["uid"] and told.get("SLURM_JOB_UID", match["uid"]) != match["uid"]:
            told = {}  # left of another job, whose number came again
        uid_text = match["uid"] or told.get("SLURM_JOB_UID", "")
        uid = int(uid_text) if _is_number(uid_text) else None
        variables, uid, closed = self._environment(group.path, number, uid, hurry) if number else ({}, uid, False)
        # What the prolog told isn't all (of an array not its ids): a process that can be read is worth some patience.
        # One of a heterogeneous job says the number of its first part, and has nothing to add.
        if not variables and not hurry and not (told and (closed or "SLURM_HET_JOB_ID" in told)):
            return None
        return self._told(group, number or match["sluid"], uid or 0, variables, told)

    def _number(self, path: str) -> str:
        """The job that root's slurmstepd of one of the steps is there for; "" where none says."""
        for step in self._tree.children(path):
            for pid in self._tree.pids(f"{step.path}/slurm", PROCESSES):
                title = _STEPD.match(self._title(pid))
                if title and self._uid_of(pid) == 0:
                    return title[1]
        return ""

    def _environment(
        self, path: str, number: str, uid: int | None, hurry: bool
    ) -> tuple[Mapping[str, str], int | None, bool]:
        """The environment of one of the job's processes, whose it is, and whether its user's are closed to us.

        Root's processes in a job (slurmstepd, an extern step's sleep, a prolog) count last: the job is seldom root's.
        """
        seen = uid
        roots: Mapping[str, str] = {}
        closed = False
        for pid in self._tree.pids(path, PROCESSES):
            owner = self._uid_of(pid)
            if owner is None or (uid is not None and owner not in (uid, 0)):
                continue
            variables = self._environ(pid)
            believed = variables.get("SLURM_JOB_ID") == number
            if owner:
                if believed:
                    return variables, owner, False
                closed = closed or not variables
                seen = seen or owner
            elif believed:
                roots = variables
        if seen is None and _is_number(roots.get("SLURM_JOB_UID", "")):
            seen = int(roots["SLURM_JOB_UID"])  # a process of root's says so, which slurmstepd started
        return (roots if hurry or uid == 0 else {}), seen, closed

    def _told(
        self, group: GroupId, number: str, uid: int, environment: Mapping[str, str], prolog: Mapping[str, str]
    ) -> FoundJob:
        variables = {**environment, **prolog}
        cluster = variables.get("SLURM_CLUSTER_NAME", "")
        array, task = variables.get("SLURM_ARRAY_JOB_ID", ""), variables.get("SLURM_ARRAY_TASK_ID", "")
        job_id = self._fit(f"{cluster or 'slurm'}-{number}")
        if _is_number(array) and _is_number(task):
            of_array = self._fit(f"{cluster or 'slurm'}-{array}_{task}")
            if all(job.uid == uid for job in self._known.values() if job.job_id == of_array):
                job_id = of_array
            else:
                task = ""
        else:
            task = ""
        info = {
            "slurm_cluster": _text(cluster),
            "slurm_job_id": number,
            "array_task_id": task,
            "partition": _text(variables.get("SLURM_JOB_PARTITION", "")),
            "account": _text(variables.get("SLURM_JOB_ACCOUNT", "")),
        }
        return FoundJob(
            job_id=job_id,
            group=group,
            origin="slurm",
            uid=uid,
            product_id=self._fit(product) if (product := prolog.get("product", "")) else "",
            phase=_text(prolog.get("phase", ""))[:PHASE_CHARS],
            nodes=_nodes(variables),
            unit=unit_of(group.path),
            labels={label: value for label, value in info.items() if value},
            reserved=_reserved(self._tree.reserved(group.path), variables),
            info=(info,),
        )


def _is_job(path: str) -> bool:
    return _JOB.fullmatch(path) is not None


def _is_folder(path: str) -> bool:
    return _FOLDER.fullmatch(path) is not None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def _number(variables: Mapping[str, str], *names: str) -> int | None:
    """The first of some variables that holds a number above 0 (a memory of 0 means all of the node's)."""
    return next(
        (int(variables[name]) for name in names if _is_number(variables.get(name, "")) and int(variables[name])), None
    )


def _nodes(variables: Mapping[str, str]) -> int:
    nodes = _number(variables, "SLURM_JOB_NUM_NODES", "SLURM_NNODES") or 1
    return nodes if nodes <= NODES_MAX else 1


def _reserved(kernel: Reservation, variables: Mapping[str, str]) -> Reservation:
    """What the kernel limits the job to, which can't be made up; what it doesn't limit, as Slurm told the job."""
    cpus, memory_mib = _cpus(variables), _number(variables, "SLURM_MEM_PER_NODE")
    per_cpu_mib = _number(variables, "SLURM_MEM_PER_CPU")
    if memory_mib is None and cpus and per_cpu_mib:
        memory_mib = cpus * per_cpu_mib
    return Reservation(
        cpus_milli=kernel.cpus_milli if kernel.cpus_milli is not None else cpus and cpus * 1000,
        memory_bytes=kernel.memory_bytes if kernel.memory_bytes is not None else memory_mib and memory_mib * MIB,
        exclusive=kernel.exclusive,
    )


def _cpus(variables: Mapping[str, str]) -> int | None:
    """CPUs of the job on this node. Where its nodes differ (`72(x2),36`) nothing says which one this is: then those of
    the step, which may be fewer.
    """
    same = re.fullmatch(r"(\d{1,9})(?:\(x\d+\))?", variables.get("SLURM_JOB_CPUS_PER_NODE", ""), re.ASCII)
    return (int(same[1]) or None) if same else _number(variables, "SLURM_CPUS_ON_NODE")


def _text(value: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in value[:TEXT_CHARS])
