"""The joins that docs/prometheus.md shows, evaluated over pages of other exporters as their repositories have them."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.deploy.promtool import check

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "joins"
GPU = "GPU-a8394b51-c086-568a-9f1a-c1e1c934c44c"
MIG = "GPU-956348bc-d43d-23ed-53d4-857749fa2b67"


def query(holds: str) -> str:
    """The documented query that follows a line with these words."""
    text = (ROOT / "docs" / "prometheus.md").read_text()
    found = re.search(rf"^[^\n]*{re.escape(holds)}.*?```promql\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert found, holds
    return found[1]


def page(name: str, job: str, per_minute: Mapping[str, float] | None = None) -> list[dict[str, str]]:
    """A recorded page as it is scraped for ten minutes, counters growing by so much a minute."""
    rows = []
    for line in (FIXTURES / name).read_text().splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            metric, _, labels = series.partition("{")
            grows = (per_minute or {}).get(metric, 0.0)
            placed = f'{metric}{{job="{job}",instance="{job}-1",{labels}'
            rows.append({"series": placed, "values": f"{float(value)!r}+{grows!r}x10"})
    return rows


def ours(metric: str, values: str, instance: str = "n1", **labels: str) -> dict[str, str]:
    written = ",".join(
        f'{name}="{value}"' for name, value in {"job": "wattribute", "instance": instance, **labels}.items()
    )
    return {"series": f"{metric}{{{written}}}", "values": values}


def power(job_id: str, watts: float, **more: str) -> dict[str, str]:
    metric = "wattribute_job_energy_joules_total"
    return ours(metric, f"0+{watts * 60!r}x10", job_id=job_id, domain="cpu", share="direct", quality="measured", **more)


def answers(tmp_path: Path, series: list[dict[str, str]], expr: str, expected: Mapping[str, float]) -> None:
    tests = [{"expr": f"round({expr}, 1e-6)", "eval_time": "10m",
              "exp_samples": [{"labels": labels, "value": value} for labels, value in expected.items()]}]  # fmt: skip
    check(tmp_path, series, tests, [])


@pytest.fixture
def on_gpus() -> list[dict[str, str]]:
    """Two running jobs share the recorded board; one that has ended held it, and one holds a board in MIG mode."""
    held = [("train", GPU), ("tune", GPU), ("ended", GPU), ("slice", MIG)]
    rows = [ours("wattribute_job_gpu_info", "1x10", job_id=job_id, gpu_uuid=uuid) for job_id, uuid in held]
    rows += [ours("wattribute_job_running", f"{int(job_id != 'ended')}x10", job_id=job_id) for job_id, _ in held]
    # The board of two instances: the same power beside each, and once what DCGM says for "unknown".
    of_mig = 'job="dcgm",instance="dcgm-2",gpu="2",UUID="{}",GPU_I_ID="{}"'
    rows += [
        {"series": f"DCGM_FI_DEV_POWER_USAGE{{{of_mig.format(MIG, number)}}}", "values": f"{value}x10"}
        for number, value in ((1, "120"), (5, "120"), (6, "9223372036854775794"))
    ]
    return rows + page("dcgm_exporter.txt", "dcgm", {"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 2_458_740})


def test_dcgm_by_gpu_uuid(tmp_path: Path, on_gpus: list[dict[str, str]]) -> None:
    board = 40.979
    answers(
        tmp_path,
        on_gpus,
        query("What a board draws by DCGM"),
        {
            f'{{job_id="train",gpu_uuid="{GPU}"}}': board,
            f'{{job_id="tune",gpu_uuid="{GPU}"}}': board,
            f'{{job_id="slice",gpu_uuid="{MIG}"}}': 120,
        },
    )
    answers(
        tmp_path,
        on_gpus,
        query("Its jobs share it evenly"),
        {
            f'{{job_id="train",gpu_uuid="{GPU}"}}': 20.4895,
            f'{{job_id="tune",gpu_uuid="{GPU}"}}': 20.4895,
            f'{{job_id="slice",gpu_uuid="{MIG}"}}': 120,
        },
    )


def test_a_board_by_both(tmp_path: Path, on_gpus: list[dict[str, str]]) -> None:
    metric = "wattribute_node_energy_joules_total"
    measured = ours(metric, "0+2458.74x10", domain="gpu", device=GPU, quality="measured")
    other = ours(metric, "0+6000x10", domain="gpu", device="GPU-without-dcgm", quality="measured")
    answers(
        tmp_path,
        [*on_gpus, measured, other],
        query("What wattribute measured of a board"),
        {f'{{gpu_uuid="{GPU}"}}': 1},
    )


@pytest.fixture
def in_pods() -> list[dict[str, str]]:
    """A deployment's job: two containers of the pod that has labels, on one node, and another pod of it."""
    names = {"pod_namespace": "ns1", "pod_name": "pod1", "owner_kind": "Deployment", "owner_name": "vllm"}
    rows = [
        ours("wattribute_job_kubernetes_info", "1x10", job_id="ns1/vllm", container_name=name, pod_uid="uid1", **names)
        for name in ("server", "sidecar")
    ]
    rows.append(
        ours(
            "wattribute_job_kubernetes_info",
            "1x10",
            "n2",
            job_id="ns1/vllm",
            container_name="server",
            pod_uid="abc-123-xxx",
            **names,
        )
    )
    rows.append(power("ns1/vllm", 250))
    rows.append(power("ns1/vllm", 50) | {"series": power("ns1/vllm", 0)["series"].replace('"n1"', '"n2"')})
    rows.append(power("not-in-a-pod", 7))
    return rows + page("kube_state_metrics.txt", "kube-state-metrics")


def test_kube_state_metrics_by_pod_uid(tmp_path: Path, in_pods: list[dict[str, str]]) -> None:
    answers(tmp_path, in_pods, query("Power of jobs by a label of their pods"), {'{label_app="example"}': 300})
    on_nodes = query("On which nodes of the cluster")
    named = '{job_id="ns1/vllm",pod_uid="abc-123-xxx",namespace="ns1",pod="pod1",node="node1"}'
    answers(tmp_path, in_pods, on_nodes, {named: 1})


def slurm(job_id: str, number: str, account: str) -> dict[str, str]:
    return ours(
        "wattribute_job_slurm_info", "1x10", job_id=job_id, slurm_cluster="c1", slurm_job_id=number, array_task_id="",
        partition="gpu", account=account,
    )  # fmt: skip


def test_slurm_job_exporter_by_the_jobs_number(tmp_path: Path) -> None:
    """60e9 ns a minute and core: two cores are 2 CPU seconds a second for job 1, one core 1 for job 2."""
    rows = page("slurm_job_exporter.txt", "slurm", {"slurm_job_core_usage_total": 60e9})
    rows += [slurm("c1-1", "1", "group1"), slurm("c1-2", "2", "group2"), slurm("c1-3", "3", "group2")]
    rows += [power("c1-1", 40), power("c1-2", 15), power("c1-3", 99)]
    expected = {'{slurm_job_id="1",account="group1"}': 20, '{slurm_job_id="2",account="group2"}': 15}
    answers(tmp_path, rows, query("slurm-job-exporter counted"), expected)


def test_ceems_by_the_jobs_number(tmp_path: Path) -> None:
    grows = {"ceems_compute_unit_cpu_user_seconds_total": 90, "ceems_compute_unit_cpu_system_seconds_total": 30}
    rows = page("ceems.txt", "ceems", grows)
    rows += [slurm("c1-1009248", "1009248", "a"), power("c1-1009248", 40)]
    answers(tmp_path, rows, query("The same with CEEMS"), {'{slurm_job_id="1009248"}': 20})


def test_as_they_come_the_series_of_a_board_match_twice(tmp_path: Path, on_gpus: list[dict[str, str]]) -> None:
    """Why the documented query takes `max by`."""
    boards = 'label_replace(DCGM_FI_DEV_POWER_USAGE, "gpu_uuid", "$1", "UUID", "(.*)")'
    with pytest.raises(AssertionError, match="many-to-many matching not allowed"):
        answers(tmp_path, on_gpus, f"wattribute_job_gpu_info * on (gpu_uuid) group_left () {boards}", {})
