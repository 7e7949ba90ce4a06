"""GPUs given out of hand: the agent closes NVML and its files, tells a gap, and finds what has changed meanwhile."""

import json
import os
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.agent.test_node import bench, workers
from tests.agent.test_node_gpu import driver, gpu_j
from tests.doubles.agent_socket import AgentOnSocket
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.nvml import GpuDouble, Instance, MissingCompiler, NvmlDouble, Process, in_process
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import RunningAgent, check_identities, total

from wattribute.agent.cli import main
from wattribute.agent.client import Client
from wattribute.agent.core.errors import Refused
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.requests import GpuRelease, Peer

__all__ = ["bench", "driver", "workers"]  # fixtures

ROOT = Peer(pid=1, uid=0, gid=0)
S = 10**9


@pytest.fixture
def gpus() -> Iterator[NvmlDouble]:
    """The stand-in driver, with two GPUs whose clock runs, for another process to load."""
    try:
        double = in_process()
    except MissingCompiler as missing:
        pytest.skip(str(missing))
    double.reset(2)
    yield double
    double.reset()


@pytest.fixture
def agent(tmp_path: Path, gpus: NvmlDouble) -> Iterator[RunningAgent]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.add_package()
        running = RunningAgent(tmp_path, tmp_path / "sys", interval_s=0.1)
        running.environment |= {**gpus.env, "WATTRIBUTE_COLLECTORS__NVML": "auto"}
        yield running
        running.close()


def device_files(pid: int) -> list[str]:
    """The driver's files that a process has open."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue  # closed meanwhile
        found += [target] if "/nvidia" in target else []
    return found


def wait_for(what: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 10
    while not what():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def release(agent: RunningAgent, *flags: str) -> dict[str, object]:
    done = agent.run("gpu", "release", "--json", *flags)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def released(agent: RunningAgent) -> bool:
    """As the page tells it, which then says nothing of single GPUs."""
    samples = agent.samples()
    told = total(samples, "wattribute_source_released", source="nvml") == 1
    gpus = [s for s in samples if s.name == "wattribute_source_device_up" and s.labels["source"] == "nvml"]
    assert bool(gpus) is not told
    return told


def up(agent: RunningAgent) -> bool:
    return total(agent.samples(), "wattribute_source_up", source="nvml") == 1


def test_a_real_agent_lets_go_and_takes_up_what_has_changed(agent: RunningAgent, gpus: NvmlDouble) -> None:
    agent.start()
    assert up(agent)
    assert not released(agent)
    assert device_files(agent.pid)
    answer = release(agent, "--for", "10m")
    assert (answer["released"], answer["source"]) == (True, True)
    assert not device_files(agent.pid)
    assert gpus.calls("shutdown") == 1
    assert not up(agent)
    assert released(agent)
    told = {source["source"]: source for source in client_of(agent).call("health", 5.0)["sources"]}["nvml"]
    assert "released by user" in told["why"]
    assert agent.get("/healthz")  # asked for, so nobody is to restart it
    before = {s.labels["device"] for s in agent.samples() if s.labels.get("domain") == "gpu" and "device" in s.labels}
    gpus.gpus[0].mig()
    gpus.gpus[0].instances(Instance(1, 3, 60))
    gpus.count(3)
    assert not release(agent, "--end")["released"]
    wait_for(lambda: up(agent) and bool(device_files(agent.pid)))
    nobody = "wattribute_node_unattributed_joules_total"
    wait_for(lambda: total(agent.samples(), nobody, domain="gpu", reason="gap") > 0)
    samples = agent.samples()
    assert total(samples, "wattribute_source_gap_seconds_total", source="nvml") > 0
    after = {s.labels["device"] for s in samples if s.labels.get("domain") == "gpu" and "device" in s.labels}
    assert after - before == {gpus.gpus[2].uuid}
    assert total(samples, "wattribute_counter_resets_total", source="nvml") == 0
    check_identities(samples)
    assert agent.stop() == 0
    with read_only(agent.state_dir) as ledger:
        assert ledger.verify() == []
        rows = [gap for gap in ledger.gaps() if gap.cause == "released"]
    assert {row.id for row in rows} == {gpu.uuid for gpu in gpus.gpus[:2]}
    for row in rows:
        assert row.start_unix_ns < row.end_unix_ns
        assert row.upper_uj is not None
        assert 0 < row.booked_uj == row.lower_uj <= row.upper_uj


def client_of(agent: RunningAgent) -> Client:
    client = Client.find({"WATTRIBUTE_AGENT__SOCKET": str(agent.socket)})
    assert client is not None
    return client


def test_without_an_agent_none_holds_a_gpu(agent: RunningAgent) -> None:
    answer = release(agent)
    assert (answer["agent"], answer["released"]) == (False, True)


def test_an_agent_without_gpus_holds_none(agent: RunningAgent) -> None:
    agent.environment["WATTRIBUTE_COLLECTORS__NVML"] = "off"
    agent.start()
    assert client_of(agent).call("gpu.release", 5.0) == {"released": True, "until": None, "source": False}


def node_j(bench: Bench, gpu: GpuDouble) -> Decimal:
    return total(bench.page(), "wattribute_node_energy_joules_total", domain="gpu", device=gpu.uuid)


def test_jobs_keep_their_gpus_and_the_energy_between_is_a_gap(
    bench: Bench, workers: list[Worker], driver: NvmlDouble
) -> None:
    gpu = driver.gpus[0]
    gpu.energy_uj = 10**15  # above what could have come since a reset: it has gone on
    bench.tick()
    counted_uj = gpu.energy_uj - round(node_j(bench, gpu) * 10**6)
    gpu.processes(Process(workers[0].pid))
    bench.start("a", workers[0].pid)
    bench.tick()
    before_j = gpu_j(bench)[0]
    bench.node.gpu_hold.ask(GpuRelease(id=1, for_s=20), ROOT)
    wait_for(lambda: bench.node.gpu_hold.done)
    inits = driver.calls("init")
    for _ in range(18):
        bench.tick()
    assert driver.calls("init") == inits
    assert bench.receipt("a")["ended_at"] is None
    assert gpu_j(bench)[0] == before_j
    for _ in range(6):
        bench.tick()
    page = bench.page()
    assert driver.calls("init") == inits + 1
    gap_j = total(page, "wattribute_node_unattributed_joules_total", domain="gpu", reason="gap")
    assert gap_j >= 2 * 1900  # two GPUs at 100 W
    assert gpu_j(bench)[0] > before_j  # it holds it still
    assert any("was released" in gap["cause"] for gap in bench.receipt("a")["gaps"])
    assert node_j(bench, gpu) * 10**6 == gpu.energy_uj - counted_uj
    check_identities(page)


def test_a_job_that_ends_meanwhile_says_so(bench: Bench, workers: list[Worker], driver: NvmlDouble) -> None:
    driver.gpus[0].processes(Process(workers[0].pid))
    bench.start("a", workers[0].pid)
    bench.tick()
    bench.node.gpu_hold.ask(GpuRelease(id=1, for_s=20), ROOT)
    wait_for(lambda: bench.node.gpu_hold.done)
    bench.tick(2)
    bench.end("a", workers[0].pid)
    bench.tick(12)
    (gap,) = bench.receipt("a")["gaps"]
    assert "was released" in gap["cause"]
    assert gap["end"] is None


def test_a_release_that_the_agent_doesnt_outlive_is_a_gap(
    bench: Bench, workers: list[Worker], driver: NvmlDouble
) -> None:
    gpu = driver.gpus[0]
    gpu.processes(Process(workers[0].pid))
    driver.gpus[1].processes(Process(workers[0].pid))
    bench.start("a", workers[0].pid)
    bench.tick()
    before_j, counted_j = gpu_j(bench)[0], node_j(bench, gpu)
    bench.node.gpu_hold.ask(GpuRelease(id=1, for_s=600), ROOT)
    wait_for(lambda: bench.node.gpu_hold.done)
    bench.tick(2)
    driver.count(1)  # the other one isn't back yet
    bench.kill()
    bench.clock.pass_(30)
    bench.open()
    bench.tick()
    assert gpu_j(bench)[0] == before_j
    assert node_j(bench, gpu) > counted_j
    driver.count(2)
    bench.tick(61)
    billed_j = gpu_j(bench)[0] - before_j
    page = bench.page()
    gap_j = total(page, "wattribute_node_unattributed_joules_total", domain="gpu", reason="gap")
    assert billed_j <= 6200  # the first one since the restart, at 100 W, and nothing of the second
    assert gap_j > 3000 + 9000
    check_identities(page)


def test_a_release_that_is_over_before_the_driver_answers_is_none(bench: Bench, driver: NvmlDouble) -> None:
    hold = bench.node.gpu_hold
    driver.delay("energy", 0.2)
    hold.ask(GpuRelease(id=1, for_s=5), ROOT)
    bench.clock.pass_(5)
    assert hold.done
    assert hold.state()["released"] is False
    driver.delay("energy", 0)


def test_a_counter_that_was_reset_meanwhile_is_told_as_that(
    bench: Bench, workers: list[Worker], driver: NvmlDouble
) -> None:
    driver.gpus[0].processes(Process(workers[0].pid))
    bench.start("a", workers[0].pid)
    bench.tick(60)
    bench.node.gpu_hold.ask(GpuRelease(id=1, for_s=5), ROOT)
    wait_for(lambda: bench.node.gpu_hold.done)
    bench.tick(2)
    driver.gpus[0].energy_uj = 0
    driver.fail("init", 9)
    for _ in range(8):
        bench.tick()
    assert total(bench.page(), "wattribute_source_up", source="nvml") == 0
    driver.fail("init", 0)
    for _ in range(12):  # tried again with a back-off, as any source
        bench.tick()
    page = bench.page()
    assert total(page, "wattribute_source_up", source="nvml") == 1
    assert total(page, "wattribute_counter_resets_total", source="nvml") == 1
    assert total(page, "wattribute_counter_wraps_total", source="nvml") == 0
    (gap,) = bench.receipt("a")["gaps"]
    assert gap["end"] is not None


def test_a_call_that_hangs_holds_it_up_and_nothing_else(bench: Bench, driver: NvmlDouble) -> None:
    hold = bench.node.gpu_hold
    driver.delay("energy", 0.2)
    bench.node.gpu_hold.ask(GpuRelease(id=1), ROOT)
    assert not hold.done
    assert hold.state()["released"] is False
    bench.tick()
    driver.delay("energy", 0)
    wait_for(lambda: hold.done)
    assert hold.state()["released"] is True


def test_only_who_may_is_heard(bench: Bench, driver: NvmlDouble) -> None:
    with pytest.raises(Refused, match="only root"):
        bench.node.gpu_hold.ask(GpuRelease(id=1), Peer(pid=1, uid=12345, gid=1))
    assert bench.node.gpu_hold.done


@pytest.mark.parametrize("duration", ["soon", "0", "-1", "25h", "1d"])
def test_a_time_that_is_none_is_said(duration: str) -> None:
    done = CliRunner().invoke(main, ["gpu", "release", "--for", duration])
    assert done.exit_code == 2
    assert "like 90s, 10m or 1h" in done.stderr


def test_an_agent_that_holds_on_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with AgentOnSocket(tmp_path / "a.sock") as agent:
        monkeypatch.setenv("WATTRIBUTE_AGENT__SOCKET", str(agent.path))
        held = {"released": False, "until": "2026-01-01T00:00:00Z", "source": True}
        monkeypatch.setattr(agent.node.gpu_hold, "state", lambda: held)
        done = CliRunner().invoke(main, ["gpu", "release", "--json"])
    assert done.exit_code == 1
    assert "as soon as it does" in done.stderr
    assert json.loads(done.stdout) == {"agent": True, **held}
