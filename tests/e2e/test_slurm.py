"""A job of Slurm's from prolog to epilog, with the scripts that Slurm runs and a real agent on real cgroups."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.deploy.test_slurm_scripts import program, script
from tests.doubles.slurmdbd import Slurmdbd
from tests.e2e.running import RunningAgent, check_identities
from tests.e2e.test_found import BURNERS, Cgroups, found, launch, make_cgroups, wait_until

JOB = {
    "SLURM_JOB_ID": "42",
    "SLURM_JOB_UID": str(os.getuid()),
    "SLURM_CLUSTER_NAME": "lab",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURM_JOB_ACCOUNT": "physics",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NODELIST": "n[1-2]",
    "SLURMD_NODENAME": "n1",
    "SLURM_JOB_COMMENT": "urgent wattribute.io/product=bert",
    "SLURM_JOB_NAME": "a\nb\"c'" + "x" * 9999,
}


@pytest.fixture
def slurmd() -> Iterator[Cgroups]:
    yield from make_cgroups("slurm_test")


def test_a_job_from_prolog_to_epilog(tmp_path: Path, start_agent: Callable[..., RunningAgent], slurmd: Cgroups) -> None:
    facts = tmp_path / "slurm"
    slurmdbd = Slurmdbd(tmp_path / "slurmdbd")
    slurmdbd.know("42|42|")
    (installed := tmp_path / "installed").mkdir()
    program(installed, f'PATH={slurmdbd.path} exec {sys.executable} -m wattribute "$@"')
    agent = start_agent(interval_s=0.2, more=f'[jobs]\nslurm_dir = "{facts}"')
    output = tmp_path / "out.42"

    def call(name: str) -> None:
        """As slurmd and slurmstepd do: stderr of a TaskEpilog is the job's."""
        with output.open("a") as stderr:
            done = subprocess.run(
                [script(name, installed)],
                env={**agent.environment, **JOB},
                stdout=subprocess.PIPE,
                stderr=stderr if name == "task_epilog" else subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
            )
        assert (done.returncode, done.stdout, done.stderr or "") == (0, "", "")

    call("prolog")
    assert [path.name for path in facts.iterdir()] == ["42"]
    step = f"uid_{os.getuid()}/job_42/step_batch/task_0"
    said = {**agent.environment, "SLURM_JOB_ID": "42", "SLURM_JOB_ACCOUNT": "forged"}
    output.write_text("the job's own\n")
    launch(slurmd.make(step), *BURNERS, "steady", "0.5", "0.5", environment=said).communicate(timeout=60)
    wait_until(lambda: found(agent, "lab-42"))
    call("task_epilog")
    for folder in (step, f"uid_{os.getuid()}/job_42/step_batch", f"uid_{os.getuid()}/job_42"):
        slurmd.remove(folder)
    call("epilog")
    assert not (facts / "42").exists()
    wait_until(lambda: bool(slurmdbd.changes()) and [path.name for path in facts.iterdir()] == [".comments"])
    receipt = agent.receipt("lab-42")
    assert (receipt["product_id"], receipt["expected_nodes"], receipt["settled"]) == ("bert", 2, True)
    own, _, first, *lines = output.read_text().splitlines()
    assert (own, first) == ("the job's own", "wattribute receipt: lab-42")
    assert "  this node's part; the job has 2 nodes" in lines
    (call_,) = slurmdbd.changes()
    energy_j = f"{receipt['energy_uj'] / 1e6:.3f}"
    assert f"AdminComment=wattribute: energy_j={energy_j} " in call_[-1]
    assert call_[-1].endswith(" nodes=1/2 basis=daemon state=ended")
    listed = agent.run("slurm", "jobs", "--parsable2").stdout.splitlines()[1].split("|")
    assert listed[:2] + listed[4:8] == ["42", "42", "physics", "gpu", "1", "2"]
    assert listed[11] == f"{receipt['energy_uj'] / 1e6:.6f}"
    samples = agent.samples()
    check_identities(samples)
    (info,) = [s.labels for s in samples if s.name == "wattribute_job_slurm_info"]
    assert (info["partition"], info["account"]) == ("gpu", "physics")
