"""Slurm's jobs in recorded trees: every layout, what is believed of an environment, and how lean a look is."""

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest
from tests.doubles.listed_tree import ListedTree

from wattribute.agent.core.found import FoundJob, Reservation
from wattribute.agent.core.search import WALK_EVERY
from wattribute.agent.identity import fit, job_id
from wattribute.collectors.environ import ProcessFacts
from wattribute.collectors.slurm import PATIENCE, SlurmJobs

V2 = "/system.slice/slurmstepd.scope"


class Node:
    """A tree and what its processes say; those that aren't named are root's and say nothing."""

    def __init__(self, listing: str = "") -> None:
        self.tree = ListedTree(listing)
        self.environments: dict[int, Mapping[str, str]] = {}
        self.owners: dict[int, int] = {}
        self.titles: dict[int, str] = {}
        self.read: list[int] = []
        self.prolog: dict[str, Mapping[str, str]] = {}
        self.source = SlurmJobs(
            self.tree,
            self.environ,
            uid_of=lambda pid: self.owners.get(pid, 0),
            title=lambda pid: self.titles.get(pid, ""),
            fit=fit,
            prolog=lambda number: self.prolog.get(number, {}),
        )

    def environ(self, pid: int) -> Mapping[str, str]:
        self.read.append(pid)
        return self.environments.get(pid, {})

    def process(self, pid: int, uid: int, job: int, **variables: str) -> None:
        self.owners[pid] = uid
        self.environments[pid] = {"SLURM_JOB_ID": str(job), "SLURM_CLUSTER_NAME": "jean", **variables}

    def jobs(self, calls: int = 1) -> dict[str, FoundJob]:
        found = [self.source.jobs() for _ in range(calls)][-1]
        return {job.group.path: job for job in found}


def test_v1_has_the_uid_in_the_path_and_steps_are_folded() -> None:
    node = Node("slurm_v1.txt")
    node.process(4201, 1000, 42, SLURM_JOB_PARTITION="gpu", SLURM_JOB_ACCOUNT="nlp", SLURM_JOB_NUM_NODES="4")
    node.process(4300, 1001, 43)
    jobs = node.jobs()
    assert {path: job.job_id for path, job in jobs.items()} == {
        "/slurm/uid_1000/job_42": "jean-42",
        "/slurm/uid_1001/job_43": "jean-43",
    }
    job = jobs["/slurm/uid_1000/job_42"]
    assert (job.origin, job.uid, job.nodes, job.unit) == ("slurm", 1000, 4, "")
    assert job.info == (
        {
            "slurm_cluster": "jean",
            "slurm_job_id": "42",
            "array_task_id": "",
            "partition": "gpu",
            "account": "nlp",
        },
    )
    assert job.labels == {"slurm_cluster": "jean", "slurm_job_id": "42", "partition": "gpu", "account": "nlp"}


def test_several_slurmd_on_one_host_are_one_job_by_its_id() -> None:
    node = Node("slurm_v1_nodes.txt")
    for pid, uid, job in ((4201, 1000, 42), (4202, 1000, 42), (4300, 1001, 43)):
        node.process(pid, uid, job)
    assert {path: job.job_id for path, job in node.jobs().items()} == {
        "/slurm_gpu01a/uid_1000/job_42": "jean-42",
        "/slurm_gpu01b/uid_1000/job_42": "jean-42",
        "/slurm_gpu01b/uid_1001/job_43": "jean-43",
    }


def test_v2_takes_the_uid_from_a_process_and_ignores_look_alikes() -> None:
    node = Node("slurm_v2.txt")
    node.process(4201, 1000, 42)
    node.process(4301, 1001, 43)
    node.process(990, 1001, 42)
    jobs = node.jobs()
    assert {path: (job.job_id, job.uid, job.unit) for path, job in jobs.items()} == {
        f"{V2}/job_42": ("jean-42", 1000, "slurmstepd.scope"),
        f"{V2}/job_43": ("jean-43", 1001, "slurmstepd.scope"),
    }


def test_scopes_with_a_node_name_and_in_another_slice() -> None:
    node = Node("slurm_v2_nodes.txt")
    node.process(4201, 1000, 42)
    node.process(4301, 1001, 43)
    assert {path: job.job_id for path, job in node.jobs().items()} == {
        "/system.slice/gpu01_slurmstepd.scope/job_42": "jean-42",
        "/hpc.slice/hpc-slurm.slice/gpu02_slurmstepd.scope/job_43": "jean-43",
    }


def test_a_sluid_gets_its_number_from_roots_slurmstepd_alone() -> None:
    node = Node("slurm_v2_sluid.txt")
    node.process(4201, 1000, 99)
    node.titles = {4201: "slurmstepd: [99.0]"}
    assert node.jobs() == {}
    node.titles[4200] = "slurmstepd: [42.0]"
    assert node.jobs() == {}, "an environment of another job was believed"
    node.process(4201, 1000, 42, SLURM_JOB_SLUID="s5K1KKYAYG5D00")
    (job,) = node.jobs().values()
    assert (job.job_id, job.uid, job.info[0]["slurm_job_id"]) == ("jean-42", 1000, "42")


def test_a_sluid_that_nobody_explains_is_told_by_itself() -> None:
    node = Node("slurm_v2_sluid.txt")
    node.process(4201, 1000, 99)
    assert node.jobs(PATIENCE) == {}
    (job,) = node.jobs().values()
    assert (job.job_id, job.info[0]["slurm_job_id"]) == ("slurm-s5K1KKYAYG5D00", "s5K1KKYAYG5D00")


def test_the_id_is_the_one_that_a_session_inside_takes() -> None:
    for variables in ({}, {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "7"}, {"SLURM_CLUSTER_NAME": " é\x01 "}):
        node = Node("slurm_v1.txt")
        node.process(4201, 1000, 42, **variables)
        inside = fit(job_id(node.environments[4201], [], "", ""))
        assert node.jobs()["/slurm/uid_1000/job_42"].job_id == inside


def test_a_job_waits_for_a_process_and_then_never_changes() -> None:
    node = Node()
    node.tree.add(f"{V2}/job_42")
    assert node.jobs(PATIENCE) == {}
    (job,) = node.jobs().values()
    assert (job.job_id, job.uid, job.nodes) == ("slurm-42", 0, 1)
    assert job.info[0] == {
        "slurm_cluster": "",
        "slurm_job_id": "42",
        "array_task_id": "",
        "partition": "",
        "account": "",
    }
    node.tree.add(f"{V2}/job_42/step_0/user/task_0", 4201)
    node.process(4201, 1000, 42)
    assert node.jobs(WALK_EVERY + 1) == {job.group.path: job}


def test_an_environment_that_comes_in_time_is_used() -> None:
    node = Node("slurm_v2.txt")
    node.process(4301, 1001, 43)
    assert set(node.jobs(PATIENCE)) == {f"{V2}/job_43"}
    node.process(4202, 1000, 42)
    assert node.jobs()[f"{V2}/job_42"].job_id == "jean-42"


def test_another_jobs_number_or_another_users_process_is_not_believed() -> None:
    node = Node("slurm_v1.txt")
    node.process(4201, 1000, 43, SLURM_ARRAY_JOB_ID="43", SLURM_ARRAY_TASK_ID="1")
    node.process(4202, 1001, 42, SLURM_CLUSTER_NAME="other")
    job = node.jobs(PATIENCE + 1)["/slurm/uid_1000/job_42"]
    assert (job.job_id, job.uid) == ("slurm-42", 1000)


def test_an_unbelieved_environment_still_tells_whose_the_job_is() -> None:
    node = Node("slurm_v2.txt")
    node.owners[4201] = 1000
    assert node.jobs(PATIENCE + 1)[f"{V2}/job_42"].uid == 1000


def test_roots_processes_count_last() -> None:
    node = Node("slurm_v2.txt")
    node.process(4101, 0, 42, SLURM_CLUSTER_NAME="roots")
    assert f"{V2}/job_42" not in node.jobs(PATIENCE)
    job = node.jobs()[f"{V2}/job_42"]
    assert (job.job_id, job.uid) == ("roots-42", 0)


def test_a_job_with_roots_processes_alone_is_its_users_by_what_slurmstepd_gave_them() -> None:
    """salloc, or an extern step that only sleeps: the user's own may come much later."""
    node = Node("slurm_v2.txt")
    node.process(4101, 0, 42, SLURM_JOB_UID="1000")
    assert node.jobs(PATIENCE + 1)[f"{V2}/job_42"].uid == 1000


def test_what_the_prolog_told_is_enough_where_environments_are_closed() -> None:
    """An agent without root: whose the processes are is to be seen, not what they were started with."""
    node = Node()
    node.tree.add(f"{V2}/job_42", 4200, 4201)
    node.owners[4201] = 1000
    node.prolog["42"] = {
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_UID": "1000",
        "SLURM_CLUSTER_NAME": "jean",
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_JOB_ACCOUNT": "nlp",
        "SLURM_JOB_NUM_NODES": "4",
        "product": "bert",
        "phase": "training",
    }
    (job,) = node.jobs().values()
    assert (job.job_id, job.uid, job.nodes, job.product_id, job.phase) == ("jean-42", 1000, 4, "bert", "training")
    assert job.labels == {"slurm_cluster": "jean", "slurm_job_id": "42", "partition": "gpu", "account": "nlp"}


def test_what_an_older_job_of_the_number_left_is_not_believed() -> None:
    node = Node("slurm_v1.txt")
    node.process(4201, 1000, 42, SLURM_JOB_ACCOUNT="nlp")
    node.prolog["42"] = {"SLURM_JOB_UID": "1001", "SLURM_CLUSTER_NAME": "jean", "SLURM_JOB_ACCOUNT": "theirs"}
    assert node.jobs()["/slurm/uid_1000/job_42"].labels["account"] == "nlp"


def test_the_prolog_counts_before_the_environment_which_adds_an_arrays_ids() -> None:
    node = Node()
    node.prolog["42"] = {"SLURM_JOB_ID": "42", "SLURM_CLUSTER_NAME": "jean", "SLURM_JOB_ACCOUNT": "nlp"}
    node.tree.add(f"{V2}/job_42", 4200)
    assert node.jobs() == {}, "no process of the user's yet"
    node.tree.add(f"{V2}/job_42", 4201)
    node.process(4201, 1000, 42, SLURM_JOB_ACCOUNT="others", SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="7")
    (job,) = node.jobs().values()
    assert (job.job_id, job.uid, job.labels["account"]) == ("jean-40_7", 1000, "nlp")


def test_a_part_of_a_heterogeneous_job_has_the_number_of_its_cgroup() -> None:
    """Its processes have the first part's in their environment."""
    node = Node()
    node.tree.add(f"{V2}/job_43", 4200, 4201)
    node.process(4201, 1000, 42)
    node.prolog["43"] = {"SLURM_JOB_UID": "1000", "SLURM_CLUSTER_NAME": "jean", "SLURM_HET_JOB_ID": "42"}
    (job,) = node.jobs().values()
    assert (job.job_id, job.uid) == ("jean-43", 1000)


def test_an_arrays_id_is_not_taken_from_another_user() -> None:
    node = Node("slurm_v1.txt")
    array = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "7"}
    node.process(4201, 1000, 42, **array)
    node.process(4300, 1001, 43, **array)
    jobs = node.jobs()
    assert {job.uid: job.job_id for job in jobs.values()} == {1000: "jean-40_7", 1001: "jean-43"}
    assert {job.uid: job.info[0]["array_task_id"] for job in jobs.values()} == {1000: "7", 1001: ""}
    # One user's tasks on the same node may share an id: the job is on several slurmd.
    node.tree.add("/slurm_b/uid_1000/job_42/step_0", 4290)
    node.process(4290, 1000, 42, **array)
    assert node.jobs(WALK_EVERY)["/slurm_b/uid_1000/job_42"].job_id == "jean-40_7"


@pytest.mark.parametrize(
    ("variables", "kernel", "reserved"),
    [
        ({}, Reservation(), Reservation()),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_MEM_PER_NODE": "2048"}, Reservation(), Reservation(8000, 2**31)),
        ({"SLURM_JOB_CPUS_PER_NODE": "16(x4)", "SLURM_CPUS_ON_NODE": "1"}, Reservation(), Reservation(16000)),
        ({"SLURM_JOB_CPUS_PER_NODE": "72(x2),36", "SLURM_CPUS_ON_NODE": "36"}, Reservation(), Reservation(36000)),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "512"}, Reservation(), Reservation(4000, 2**31)),
        ({"SLURM_MEM_PER_CPU": "512", "SLURM_MEM_PER_NODE": "0"}, Reservation(), Reservation()),
        ({"SLURM_CPUS_ON_NODE": "-4", "SLURM_MEM_PER_NODE": "x"}, Reservation(), Reservation()),
        ({"SLURM_CPUS_ON_NODE": "1", "SLURM_MEM_PER_NODE": "1"}, Reservation(64000, 7), Reservation(64000, 7)),
        ({"SLURM_MEM_PER_NODE": "1"}, Reservation(2000, None, True), Reservation(2000, 2**20, True)),
    ],
)
def test_the_kernels_limits_come_before_what_the_job_says(
    variables: dict[str, str], kernel: Reservation, reserved: Reservation
) -> None:
    node = Node("slurm_v1.txt")
    node.tree.reservations["/slurm/uid_1000/job_42"] = kernel
    node.process(4201, 1000, 42, **variables)
    assert node.jobs()["/slurm/uid_1000/job_42"].reserved == reserved


@pytest.mark.parametrize("nodes", ["", "0", "x", "9999999", "-1"])
def test_a_senseless_number_of_nodes_is_one(nodes: str) -> None:
    node = Node("slurm_v1.txt")
    node.process(4201, 1000, 42, SLURM_NNODES=nodes)
    assert node.jobs()["/slurm/uid_1000/job_42"].nodes == 1


def test_jobs_come_and_go_and_a_cgroup_made_anew_is_another() -> None:
    node = Node("slurm_v1.txt")
    node.process(4201, 1000, 42)
    node.process(4300, 1001, 43)
    before = node.jobs()["/slurm/uid_1000/job_42"]
    node.tree.remove("/slurm/uid_1000")
    assert set(node.jobs()) == {"/slurm/uid_1001/job_43"}
    node.tree.add("/slurm/uid_1000/job_42/step_0", 5000)
    node.process(5000, 1000, 42, SLURM_CLUSTER_NAME="new")
    after = node.jobs()["/slurm/uid_1000/job_42"]
    assert after.group.inode != before.group.inode and after.job_id == "new-42"


def test_a_job_in_a_scope_that_stood_empty_is_seen_at_once() -> None:
    node = Node()
    node.tree.add(f"{V2}/system", 1)
    assert node.jobs(3) == {}
    node.tree.add(f"{V2}/job_42/step_0/user/task_0", 4201)
    node.process(4201, 1000, 42)
    assert set(node.jobs()) == {f"{V2}/job_42"}


def test_a_look_at_thousands_of_known_jobs_reads_no_process() -> None:
    node = Node()
    for number in range(3000):
        node.tree.add(f"{V2}/job_{number}/step_0/user/task_0", 10_000 + number)
        node.process(10_000 + number, 1000, number)
    assert len(node.jobs()) == 3000
    node.read.clear()
    node.tree.listed.clear()
    asked = node.tree.asked_pids
    assert len(node.jobs(WALK_EVERY)) == 3000
    assert node.read == [] and node.tree.asked_pids == asked
    assert len(node.tree.listed) <= 3 * WALK_EVERY, "more than the top, the slice and the scope was listed"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_it_reads_a_real_process() -> None:
    variables = {**os.environ, "SLURM_JOB_ID": "42", "SLURM_CLUSTER_NAME": "jean", "Z": "a=b"}
    command = [sys.executable, "-c", "print(flush=True);input()"]
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # right after exec the kernel may not have its environment in place yet
        facts = ProcessFacts()
        tree = ListedTree()
        tree.add(f"{V2}/job_42", process.pid)
        source = SlurmJobs(tree, facts.environment, uid_of=facts.owner, title=facts.title, fit=fit)
        (job,) = [source.jobs() for _ in range(PATIENCE + 1)][-1]
        assert (job.job_id, job.uid) == ("jean-42", os.getuid())
        assert facts.environment(process.pid)["Z"] == "a=b"
        assert facts.title(process.pid) == f"{sys.executable} -c print(flush=True);input()"
        process.communicate(b"\n")
    assert facts.owner(process.pid) is None and facts.environment(process.pid) == {} and facts.title(process.pid) == ""
    source.close()
    source.close()
