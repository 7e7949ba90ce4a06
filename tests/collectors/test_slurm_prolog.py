"""What Slurm's prolog leaves of a job, written as it does and read as the agent does, also from hostile hands."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.errors import WattributeError
from wattribute.agent.slurm_facts import drop, facts_of, keep
from wattribute.collectors.slurm_prolog import FILE_BYTES, PrologFacts

PROLOG = {  # as slurmd 22.05 gave it to its prolog
    "SLURMD_NODENAME": "n1",
    "SLURM_CLUSTER_NAME": "lab",
    "SLURM_JOB_ID": "5",
    "SLURM_JOB_UID": "1000",
    "SLURM_JOB_USER": "alice",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURM_JOB_ACCOUNT": "(null)",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_CPUS_PER_NODE": "1(x2)",
    "SLURM_JOB_COMMENT": "urgent; wattribute.io/product=bert-base,wattribute.io/phase=training wattribute.io/product=b",
    "SLURM_JOB_STDOUT": "/home/alice/out.%j",
}


def test_what_the_prolog_was_given_is_what_the_agent_reads(tmp_path: Path) -> None:
    folder = tmp_path / "slurm"
    before = os.umask(0o077)  # as slurmd may have been started
    try:
        keep(str(folder), PROLOG)
    finally:
        os.umask(before)
    assert PrologFacts(str(folder)).told("5") == {
        "SLURM_JOB_ID": "5",
        "SLURM_JOB_UID": "1000",
        "SLURM_CLUSTER_NAME": "lab",
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_CPUS_PER_NODE": "1(x2)",
        "product": "bert-base",
        "phase": "training",
    }
    assert (folder.stat().st_mode & 0o777, (folder / "5").stat().st_mode & 0o777) == (0o755, 0o644)
    keep(str(folder), {**PROLOG, "SLURM_JOB_PARTITION": "cpu"})  # requeued
    assert PrologFacts(str(folder)).told("5")["SLURM_JOB_PARTITION"] == "cpu"
    drop(str(folder), PROLOG)
    drop(str(folder), PROLOG)
    assert PrologFacts(str(folder)).told("5") == {}
    assert os.listdir(folder) == []


@given(st.dictionaries(st.sampled_from([*PROLOG, "HOME"]), st.text(max_size=3000)))
def test_facts_of_any_environment_are_short_printable_texts(environment: dict[str, str]) -> None:
    facts = facts_of(environment)
    assert all(text.isprintable() and 0 < len(text) <= 1024 for text in facts.values())
    assert len(json.dumps(facts)) < FILE_BYTES


@pytest.mark.parametrize("number", ["", "../../etc/passwd", "4 2", "٤٢", "1" * 40])
def test_a_number_that_is_none_makes_no_file(tmp_path: Path, number: str) -> None:
    with pytest.raises(WattributeError, match="SLURM_JOB_ID"):
        keep(str(tmp_path / "slurm"), {"SLURM_JOB_ID": number})
    assert os.listdir(tmp_path) == []


def test_nothing_is_written_or_believed_where_others_can_write(tmp_path: Path) -> None:
    folder = tmp_path / "slurm"
    keep(str(folder), PROLOG)
    folder.chmod(0o777)
    with pytest.raises(WattributeError, match="chmod 755"):
        keep(str(folder), PROLOG)
    assert PrologFacts(str(folder)).told("5") == {}
    folder.chmod(0o755)
    (folder / "5").chmod(0o666)
    assert PrologFacts(str(folder)).told("5") == {}


def test_a_link_is_followed_by_neither(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"SLURM_JOB_ACCOUNT": "x"}')
    folder = tmp_path / "slurm"
    folder.mkdir(0o755)
    (folder / "5").symlink_to(secret)
    assert PrologFacts(str(folder)).told("5") == {}
    keep(str(folder), PROLOG)  # takes the link's place
    assert secret.read_text() == '{"SLURM_JOB_ACCOUNT": "x"}'
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    with pytest.raises(WattributeError):
        keep(str(linked), PROLOG)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"[" * 60000, b"\xff", b'{"a":1,"b":null}', b" " * FILE_BYTES + b"{}"]
)
def test_a_file_that_says_nothing_is_no_fact(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "7").write_bytes(content)
    assert PrologFacts(str(tmp_path)).told("7") == {}


def test_a_pipe_or_no_file_is_no_fact(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "8")
    facts = PrologFacts(str(tmp_path))
    assert (facts.told("8"), facts.told("9"), PrologFacts(str(tmp_path / "no")).told("9")) == ({}, {}, {})
