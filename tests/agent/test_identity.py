"""Names that fit, and the id of a job that nobody named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent import identity
from wattribute.agent.core import model
from wattribute.agent.receipts import TERMS


def job_id(**environment: str) -> str:
    return identity.job_id(environment, ["train.py"], "20260731T120501", "0e37")


def test_what_is_repeated_from_the_model_is_the_same() -> None:
    assert identity.ROLES == model.ROLES
    assert TERMS == model.TERMS


@pytest.mark.parametrize("name", ["a", "x" * 128, "日本-é", "a b", "bert/ft:7", "a_"])
def test_good_names_stay(name: str) -> None:
    assert identity.problem(name) is None
    assert identity.fit(name) == name


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("", "empty"),
        ("x" * 129, "129"),
        ("a\nb", "printed"),
        ("a\udc80", "UTF-8"),
        ("_a", "reserved"),
        ("\u200b", "pri"),
    ],
)
def test_bad_names_are_told_why(name: str, word: str) -> None:
    assert word in (identity.problem(name) or "")


@given(st.text(st.characters(), max_size=300))
def test_every_text_can_be_made_to_fit_and_then_stays(text: str) -> None:
    fitted = identity.fit(text)
    assert identity.problem(fitted) is None
    assert identity.fit(fitted) == fitted
    fitted.encode()


def test_names_that_differ_only_in_what_is_lost_stay_two() -> None:
    assert identity.fit("a\x00b") != identity.fit("a\x01b")
    assert identity.fit("x" * 10_000) != identity.fit("x" * 10_001)
    assert identity.fit("_test") != "test"
    assert identity.fit("job-7\n") == "job-7"


def test_the_order_of_where_an_id_comes_from() -> None:
    slurm = {"SLURM_JOB_ID": "77", "TORCHELASTIC_RUN_ID": "run-1"}
    assert job_id(WATTRIBUTE_JOB_ID="mine", **slurm) == "mine"
    assert job_id(**slurm) == "slurm-77"
    assert job_id(SLURM_CLUSTER_NAME="alps", **slurm) == "alps-77"
    assert job_id(SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="3", **slurm) == "slurm-70_3"
    assert job_id(TORCHELASTIC_RUN_ID="run-1") == "run-1"
    assert job_id(TORCHELASTIC_RUN_ID="none") == "train-20260731T120501-0e37"


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/home/me/train.py"], "train"),
        (["python", "-u", "src/fit.py", "--config", "x"], "fit"),
        (["/usr/lib/pkg/__main__.py"], "pkg"),
        (["torchrun", "--nproc", "4", "main.py"], "main"),
        (["/bin/true"], "true"),
        (["C:\\me\\train.py"], "train"),
        ([""], "python"),
        (["-c"], "python"),
        (["-"], "python"),
        ([".py"], "python"),
        ([], "python"),
    ],
)
def test_a_run_is_called_after_its_script(argv: list[str], name: str) -> None:
    assert identity.script_name(argv) == name


@given(st.lists(st.text(), max_size=4))
def test_an_id_of_ones_own_always_fits(argv: list[str]) -> None:
    assert identity.problem(identity.job_id({}, argv, "20260731T120501", "0e37")) is None


@pytest.mark.parametrize(
    ("text", "count"), [("4", 4), ("", 1), ("0", 1), ("-1", 1), ("many", 1), ("9" * 50, 1), ("²", 1)]
)
def test_nodes_are_slurms_count(text: str, count: int) -> None:
    assert identity.nodes({"SLURM_JOB_NUM_NODES": text}) == count


def test_labels_are_the_schedulers() -> None:
    environment = {"SLURM_JOB_ID": "7", "SLURM_JOB_PARTITION": "gpu", "SLURM_JOB_ACCOUNT": "lab\n"}
    assert identity.labels(environment) == {"slurm_job_id": "7", "partition": "gpu", "account": "lab?"}
    assert identity.labels({}) == {}
