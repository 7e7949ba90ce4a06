"""`wattribute slurm`: AdminComments by sacctmgr, the receipt of a job by Slurm's number, and the listing."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from tests.archive.rows import S, chain, told, window
from tests.doubles.agent_socket import AgentOnSocket
from tests.doubles.slurmdbd import Slurmdbd

from wattribute.agent.archive import Archive, open_archive
from wattribute.agent.cli import main
from wattribute.agent.client import Client
from wattribute.agent.config.schema import Agent, Config
from wattribute.agent.core.model import SLOTS, TERM_SLOT, Job, energy_slot
from wattribute.agent.ledger.batch import Batch, Correction, JobRow
from wattribute.agent.ledger.writer import Ledger
from wattribute.agent.slurm_comment import comment_of, first_node, is_first_node
from wattribute.agent.slurm_jobs import Asked, SlurmJob, of_archive, record_of

NODE = {"SLURM_CLUSTER_NAME": "lab", "SLURMD_NODENAME": "n1", "SLURM_NODELIST": "n[1-2]"}
NG = 10**9
FIRST = ("JobID", "User", "Account", "Partition", "Nodes", "Elapsed")
SLURM = {"slurm_job_id": "42", "slurm_cluster": "lab", "partition": "gpu", "account": "physics"}


@pytest.fixture
def slurmdbd(tmp_path: Path) -> Slurmdbd:
    return Slurmdbd(tmp_path / "slurmdbd")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentOnSocket]:
    with AgentOnSocket(tmp_path / "agent.sock") as running:
        yield running


def invoke(folder: Path, *words: str, **environment: str) -> Result:
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "WATTRIBUTE_CONFIG": None,
        "WATTRIBUTE_AGENT__STATE_DIR": str(folder / "state"),
        "WATTRIBUTE_AGENT__SOCKET": str(folder / "agent.sock"),
        "WATTRIBUTE_JOBS__SLURM_DIR": str(folder / "slurm"),
        "COLUMNS": "200",
        **environment,
    }
    return CliRunner(env=env).invoke(main, ["slurm", *words])


def run_job(folder: Path, job_id: str, *, ended: bool = True, **labels: str) -> None:
    client = Client(str(folder / "agent.sock"))
    client.call("job.start", job_id=job_id, member="m")
    client.call("job.update", job_id=job_id, labels={**SLURM, **labels})
    if ended:
        client.call("job.end", job_id=job_id, member="m")


# AdminComment


def test_a_comment_is_written_under_the_name_that_means_this_job_alone(
    tmp_path: Path, slurmdbd: Slurmdbd, agent: AgentOnSocket
) -> None:
    slurmdbd.know("41|40_6|", "42|40_7|", "40|40_8|")
    run_job(tmp_path, "lab-40_7", array_task_id="7")
    done = invoke(tmp_path, "comment", "42", PATH=slurmdbd.path, **NODE)
    assert done.exit_code == 0, done.output
    (call,) = slurmdbd.changes()
    assert call[:-1] == ["--immediate", "modify", "job", "where", "jobid=40_7", "cluster=lab", "set"]
    assert "sacct -X -n -P -j 42 -M lab " in (tmp_path / "slurmdbd/calls").read_text()
    assert call[-1] == "AdminComment=" + done.stdout.rstrip("\n")
    words = dict(word.split("=") for word in done.stdout.removeprefix("wattribute: ").split())
    assert float(words["energy_j"]) >= 1
    assert (words["nodes"], words["basis"], words["state"]) == ("1/1", "daemon", "ended")


def test_an_older_comment_of_ours_is_replaced_and_anybody_elses_stays(
    tmp_path: Path, slurmdbd: Slurmdbd, agent: AgentOnSocket
) -> None:
    run_job(tmp_path, "lab-42")
    slurmdbd.know("42|42|wattribute: energy_j=1.0")
    assert invoke(tmp_path, "comment", "42", PATH=slurmdbd.path, **NODE).exit_code == 0
    slurmdbd.know("42|42|JS1:H4sIA|x")
    done = invoke(tmp_path, "comment", "42", PATH=slurmdbd.path, **NODE)
    assert done.exit_code == 1
    assert "JS1:H4sIA|x" in done.stderr
    assert len(slurmdbd.changes()) == 1


def test_what_goes_wrong_with_slurmdbd_is_said_in_words(
    tmp_path: Path, slurmdbd: Slurmdbd, agent: AgentOnSocket
) -> None:
    run_job(tmp_path, "lab-42")
    nowhere = invoke(tmp_path, "comment", "42", PATH=str(tmp_path), **NODE)
    unknown = invoke(tmp_path, "comment", "42", PATH=slurmdbd.path, **NODE)
    slurmdbd.know("42|42|")
    slurmdbd.refuse()
    refused = invoke(tmp_path, "comment", "42", PATH=slurmdbd.path, **NODE)
    unmeasured = invoke(tmp_path, "comment", "43", "--wait", "0", PATH=slurmdbd.path, **NODE)
    assert [done.exit_code for done in (nowhere, unknown, refused, unmeasured)] == [1, 1, 1, 1]
    assert "PATH" in nowhere.stderr
    assert "doesn't know job 42" in unknown.stderr
    assert "no privilege" in refused.stderr
    assert "nobody has measured" in unmeasured.stderr


def test_a_job_that_goes_on_is_waited_for_and_then_told_as_it_is(
    tmp_path: Path, slurmdbd: Slurmdbd, agent: AgentOnSocket
) -> None:
    slurmdbd.know("42|42|")
    run_job(tmp_path, "lab-42", ended=False)
    assert "state=running" in invoke(tmp_path, "comment", "42", "--wait", "0.1", PATH=slurmdbd.path, **NODE).stdout


def waiting(folder: Path) -> list[str]:
    """The processes that were started with this folder in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{folder}/slurm\0".encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
    return found


def test_while_the_agent_is_away_one_process_waits_however_many_jobs_end(tmp_path: Path, slurmdbd: Slurmdbd) -> None:
    slurmdbd.know(*(f"{number}|{number}|" for number in (41, 42)))
    environment = {
        **NODE,
        "PATH": slurmdbd.path,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "WATTRIBUTE_AGENT__SOCKET": str(tmp_path / "agent.sock"),
        "WATTRIBUTE_JOBS__SLURM_DIR": str(tmp_path / "slurm"),
    }
    command = [sys.executable, "-m", "wattribute", "slurm", "epilog", "--comment"]
    for number in ("41", "42", "42"):  # the last was requeued
        done = subprocess.run(
            command, env={**environment, "SLURM_JOB_ID": number}, capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert len(waiting(tmp_path)) == 1
    assert slurmdbd.changes() == []
    with AgentOnSocket(tmp_path / "agent.sock"):
        for number in ("41", "42"):
            run_job(tmp_path, f"lab-{number}", slurm_job_id=number)
        until_s = time.monotonic() + 30
        while waiting(tmp_path) and time.monotonic() < until_s:
            time.sleep(0.05)
    assert waiting(tmp_path) == []
    assert sorted(call[4] for call in slurmdbd.changes()) == ["jobid=41", "jobid=42"]
    assert os.listdir(tmp_path / "slurm") == [".comments"]


@given(
    st.builds(
        SlurmJob,
        job_id=st.text(),
        slurm_job_id=st.text(),
        nodes=st.integers(1, 10**6),
        expected_nodes=st.integers(1, 10**6),
        ended_unix_ns=st.none() | st.integers(0, 1 << 62),
        energy_uj=st.none() | st.integers(0, 1 << 62),
        jsce_gco2e=st.none() | st.floats(0, 1e9),
        asce_gco2e=st.none() | st.floats(0, 1e9),
        basis=st.sampled_from(["daemon", "ledger"]),
    )
)
def test_a_comment_is_one_short_line_without_quotes(job: SlurmJob) -> None:
    text = comment_of(job)
    assert text.isascii() and text.isprintable() and len(text) <= 200
    assert not set(text) & set("\"'`|")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n[1-2]", "n1"),
        ("gpu[007-009,12]-ib,login", "gpu007-ib"),
        ("a,b[1-2]", "a"),
        ("r[1-2]n[08-10]", "r1n08"),
        ("", ""),
    ],
)
def test_the_first_of_a_host_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_one_node_writes_the_comment() -> None:
    assert is_first_node(NODE)
    assert not is_first_node({**NODE, "SLURMD_NODENAME": "n2"})
    assert is_first_node({})


@given(st.text(alphabet="n1-[],0a", max_size=40))
def test_any_host_list_has_an_answer(nodes: str) -> None:
    assert isinstance(first_node(nodes), str)


# The receipt


def test_the_receipt_of_the_job_that_a_script_runs_for(tmp_path: Path, agent: AgentOnSocket) -> None:
    run_job(tmp_path, "nightly")  # as a rule names it
    done = invoke(tmp_path, "receipt", SLURM_JOB_ID="42", **NODE)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "wattribute receipt: nightly")
    assert json.loads(invoke(tmp_path, "receipt", "--json", SLURM_JOB_ID="42", **NODE).stdout)["job_id"] == "nightly"
    other = {**NODE, "SLURM_CLUSTER_NAME": "other"}
    assert invoke(tmp_path, "receipt", SLURM_JOB_ID="42", **other).exit_code == 1
    assert invoke(tmp_path, "receipt", SLURM_JOB_ID="43", **NODE).exit_code == 1
    assert "SLURM_JOB_ID" in invoke(tmp_path, "receipt").stderr


# The listing


def test_the_agents_jobs_are_listed_as_sacct_lists_them(tmp_path: Path, agent: AgentOnSocket) -> None:
    run_job(tmp_path, "lab-40_7", array_task_id="7", ended=False)
    run_job(tmp_path, "slurm-9", ended=False, slurm_job_id="9", slurm_cluster="")
    Client(str(tmp_path / "agent.sock")).call("job.start", job_id="no-slurm", member="m")
    done = invoke(tmp_path, "jobs")
    assert done.exit_code == 0, done.output
    header, *rows = done.stdout.splitlines()
    assert header.split() == [*FIRST, "Energy", "JSC^e", "ASC^e", "State"]
    assert [row.split()[0] for row in rows] == ["40_7", "9"]
    header, row = invoke(tmp_path, "jobs", "-P", "-j", "40").stdout.splitlines()
    fields = dict(zip(header.split("|"), row.split("|"), strict=True))
    assert (fields["JobID"], fields["JobIDRaw"], fields["Account"], fields["State"]) == (
        "40_7", "42", "physics", "RUNNING",
    )  # fmt: skip
    (only,) = json.loads(invoke(tmp_path, "jobs", "-j", "9", "--json").stdout)
    assert only["energy_uj"] >= 0
    assert "no job" in invoke(tmp_path, "jobs", "-u", "nobody-else").stderr


def test_a_nodes_ledger_is_read_through_once_with_what_was_corrected_and_what_was_forgotten(tmp_path: Path) -> None:
    used = [0] * SLOTS
    used[energy_slot("cpu", "direct", "measured")], used[TERM_SLOT["operation"]] = 5_000_000, 3 * NG
    opened = Ledger.open(tmp_path / "state", node_id="n", boot_id="b", clock_unix_ns=time.time_ns)
    with closing(opened) as ledger:
        jobs = [Job(id=f"lab-{n}", labels={**SLURM, "slurm_job_id": str(n)}, started_unix_ns=S * n) for n in (41, 42)]
        jobs += [Job(id="plain"), Job(id="no-energy", labels={"slurm_job_id": "7"}, nodes=2, started_unix_ns=S)]
        rows = [JobRow.of(job.id, used if job.id != "no-energy" else [0] * SLOTS, {"job": asdict(job)}) for job in jobs]
        fix = Correction("lab-41", "", "operation", "intensity", S, 2 * S, -NG)
        for batch in (
            Batch(seq=1, at_unix_ns=90 * S, jobs=rows, corrections=[fix]),
            Batch(seq=2, at_unix_ns=99 * S, forget=["lab-41"]),
        ):
            assert ledger.submit(batch)
            assert select.select([ledger.wakeup_fd], [], [], 10)[0]
            os.read(ledger.wakeup_fd, 8)
    done = invoke(tmp_path, "jobs", "-S", "1970-01-01", "--json")
    found = {job["job_id"]: (job["energy_uj"], job["jsce_gco2e"]) for job in json.loads(done.stdout)}
    assert found == {"no-energy": (None, 0.0), "lab-41": (5_000_000, 2.0), "lab-42": (5_000_000, 3.0)}
    assert invoke(tmp_path, "jobs", "-j", "none", "--json").stdout == "[]\n"


def test_a_time_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    assert invoke(tmp_path, "jobs", "-S", "yesterday-ish").exit_code == 2
    assert invoke(tmp_path, "jobs", "-S", "0001-01-01").exit_code == 2
    assert invoke(tmp_path, "jobs", "-S", "2026-01-02", "-E", "2026-01-01").exit_code == 2
    assert invoke(tmp_path, "jobs").exit_code == 1, "neither a ledger nor an agent"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(Config(agent=Agent(state_dir=str(tmp_path / "state"))), pull=False) as opened:
        yield opened


def test_a_job_on_many_nodes_is_one_line_of_the_fleets_ledger(archive: Archive) -> None:
    facts: dict[str, Any] = {"user": "ada", "nodes": 3, "slurm": SLURM, "started_unix_ns": S, "ended_unix_ns": 9 * S}
    for node in ("n1", "n2"):
        said = facts if node == "n1" else {**facts, "slurm": None}  # an older one
        rows = [
            window("lab-42", node=node, direct__measured=5),
            told("lab-42", node=node, facts=said, operation=3, platform=2, hardware=4),
            told("plain", node=node, facts={"user": "ada"}, operation=3),
        ]
        archive.deliver(node, "windows", chain(rows))
    (job,) = of_archive(archive)
    assert (job.shown_id, job.user, job.account, job.nodes, job.expected_nodes) == ("42", "ada", "physics", 2, 3)
    assert (job.energy_uj, job.jsce_gco2e, job.asce_gco2e) == (10, 1e-8, 1.8e-8)
    assert list(of_archive(archive, since_unix_ns=300 * S)) == []
    for name in ("42", "lab-42", "lab"):
        assert list(of_archive(archive, names=["x", name])) == [job]
    assert list(of_archive(archive, names=["4_", "%"])) == []
    assert record_of(archive, Asked("42", "lab"), since_unix_ns=None) == job
    assert record_of(archive, Asked("42", "other"), since_unix_ns=0) is None


def test_a_job_of_which_no_energy_is_known_used_unknown_energy_not_none_at_all(archive: Archive) -> None:
    rows = [told("lab-42", facts={"slurm": SLURM, "started_unix_ns": S}, hardware=4)]
    archive.deliver("n1", "windows", chain(rows))
    (job,) = of_archive(archive)
    assert (job.energy_uj, job.asce_gco2e) == (None, 4e-9)
    assert "energy_j=unknown" in comment_of(job)
