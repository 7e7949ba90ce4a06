"""What goes wrong, from outside: kill -9, bad configuration, taken ports and paths. Nothing counted is lost."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.doubles.powercap import PowercapTree, Zone
from tests.doubles.powerlaws import CpuLaw, node_cpu_ns
from tests.e2e.running import IDLE_W, W_PER_CORE, RunningAgent, Sample, check_identities, total

from wattribute.agent.client import Client
from wattribute.agent.ledger.reader import read_only

Start = Callable[..., RunningAgent]
KILLS = int(os.environ.get("WATTRIBUTE_TEST_KILLS", "8"))
BURN = """
import os, time
while os.getppid() == {parent}:
    until = time.process_time() + 0.01
    while time.process_time() < until: pass
    time.sleep(0.02)
"""


@pytest.fixture
def burners() -> Iterator[list[int]]:
    """Three busy processes."""
    code = BURN.format(parent=os.getpid())
    children = [subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(3)]
    yield [child.pid for child in children]
    for child in children:
        child.kill()
        child.wait()


def client_of(agent: RunningAgent) -> Client:
    client = Client.find({"WATTRIBUTE_AGENT__SOCKET": str(agent.socket)})
    assert client is not None
    return client


def counters(samples: list[Sample]) -> dict[tuple[str, tuple[tuple[str, str], ...]], Decimal]:
    """The counters that must survive a restart."""
    kept = ("wattribute_job_", "wattribute_node_", "wattribute_product_")
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for s in samples
        if s.name.startswith(kept) and s.name.endswith("_total")
    }


def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path, burners: list[int]) -> None:
    """No counter falls, no job vanishes, and in the end the node's joules are the double's, to the microjoule."""
    dice = random.Random(7)
    with PowercapTree(tmp_path / "sys") as tree:
        zone = tree.add_zone("package-0", limits_uw=(200_000_000,))
        agent = RunningAgent(tmp_path, tmp_path / "sys", interval_s=0.05)
        try:
            agent.start()
            for number, pid in enumerate(burners):
                client_of(agent).call("job.start", 5.0, job_id=f"job-{number}", member="m", pid=pid)
            with tree.running({zone: CpuLaw(IDLE_W, W_PER_CORE, node_cpu_ns())}):
                seen = counters(agent.samples())
                for _ in range(KILLS):
                    time.sleep(dice.uniform(0.0, 0.25))
                    page = counters(agent.samples())
                    fell = {key: (value, page.get(key)) for key, value in seen.items() if page.get(key, -1) < value}
                    assert not fell
                    seen = page
                    agent.kill()
                    agent.start()
                    samples = agent.samples()
                    check_identities(samples)
                    running = {s.labels["job_id"] for s in samples if s.name == "wattribute_job_running" and s.value}
                    assert running == {"job-0", "job-1", "job-2"}
            time.sleep(1.2)
            samples = agent.samples()
            assert total(samples, "wattribute_node_energy_joules_total") * 10**6 == zone.true_uj
            check_identities(samples)
            for number, pid in enumerate(burners):
                took_s = time.clock_gettime_ns((~pid << 3) | 2) / 1e9
                billed_s = float(total(samples, "wattribute_job_cpu_seconds_total", job_id=f"job-{number}"))
                assert billed_s == pytest.approx(took_s, abs=0.45)  # shown once a second
            assert agent.stop() == 0
        finally:
            agent.close()
    with read_only(agent.state_dir) as ledger:
        assert ledger.verify() == []


def test_energy_gathered_while_the_agent_was_away_goes_to_the_jobs_that_went_on(
    start_agent: Start, package: Zone, burners: list[int]
) -> None:
    agent = start_agent(interval_s=0.1)
    client_of(agent).call("job.start", 5.0, job_id="job", member="m", pid=burners[0])
    time.sleep(0.3)
    agent.kill()
    time.sleep(1.5)
    agent.start()
    time.sleep(1.2)
    samples = agent.samples()
    cpu_s = float(total(samples, "wattribute_job_cpu_seconds_total", job_id="job"))
    direct_j = float(total(samples, "wattribute_job_energy_joules_total", job_id="job", share="direct"))
    assert cpu_s > 0.4
    assert direct_j == pytest.approx(cpu_s * W_PER_CORE, rel=0.02)
    assert total(samples, "wattribute_node_unattributed_joules_total", reason="gap") == 0


def test_a_lost_sensor_is_an_absence_and_comes_back(start_agent: Start, package: Zone) -> None:
    agent = start_agent(interval_s=0.1)
    package.vanish()
    time.sleep(1.2)
    samples = agent.samples()
    assert total(samples, "wattribute_source_up", source="rapl") == 0
    check_identities(samples)
    package.return_()
    time.sleep(2.5)
    samples = agent.samples()
    assert total(samples, "wattribute_source_up", source="rapl") == 1
    check_identities(samples)


def refusal(agent: RunningAgent, *flags: str) -> subprocess.CompletedProcess[str]:
    command = agent.command("agent", "--listen", agent.url.removeprefix("http://"), "--socket", str(agent.socket))
    command += ["--state-dir", str(agent.state_dir), *flags]
    return subprocess.run(command, env=agent.environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[RunningAgent]:
    """An agent that isn't running, on a machine without sensors that requires RAPL."""
    agent = RunningAgent(tmp_path, tmp_path / "nothing")
    yield agent
    agent.close()


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_a_required_sensor_that_is_missing_stops_the_start(stopped: RunningAgent, tmp_path: Path) -> None:
    done = refusal(stopped, "--sys", str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert "RAPL" in one_line(done)
    assert "Fix: " in one_line(done)


def test_a_misspelt_key_names_the_right_one(stopped: RunningAgent, tmp_path: Path) -> None:
    config = tmp_path / "wattribute.toml"
    config.write_text(config.read_text().replace("interval_s", "intervall_s"))
    done = refusal(stopped)
    assert done.returncode == 2
    assert "intervall_s" in one_line(done)
    assert "interval_s" in one_line(done).split("intervall_s", 1)[1]


def test_a_port_in_use_is_said(start_agent: Start, tmp_path: Path) -> None:
    agent = start_agent()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = refusal(
            agent,
            "--listen",
            f"127.0.0.1:{port}",
            "--state-dir",
            str(tmp_path / "other"),
            "--socket",
            str(tmp_path / "o.sock"),
            "--sys",
            str(tmp_path / "sys"),
        )
    assert done.returncode == 1
    assert str(port) in one_line(done)


def test_two_agents_never_count_one_node(start_agent: Start, tmp_path: Path) -> None:
    agent = start_agent()
    done = refusal(agent, "--listen", "127.0.0.1:0", "--sys", str(tmp_path / "sys"))
    assert done.returncode == 1
    assert "is in use" in one_line(done)
    check_identities(agent.samples())


def test_a_socket_left_by_a_dead_agent_is_replaced(start_agent: Start) -> None:
    agent = start_agent()
    agent.kill()
    assert agent.socket.exists()
    agent.start()
    assert client_of(agent).call("health", 5.0)["sources"]


def test_a_state_directory_that_cannot_be_written_is_said(stopped: RunningAgent, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = refusal(stopped, "--state-dir", str(tmp_path / "file" / "state"))
    assert done.returncode == 1
    assert "file" in one_line(done)


def test_an_undeclared_product_is_a_tag_and_a_note(start_agent: Start) -> None:
    agent = start_agent()
    done = agent.run("run", "--job-id", "j", "--product", "nobody-knows", "--", "true")
    assert done.returncode == 0
    receipt = agent.receipt("j")
    assert any("nobody-knows" in note for note in receipt["notes"])
    assert receipt["taxes"] == []
    samples = agent.samples()
    assert any(s.labels.get("kind") == "undeclared" for s in samples if s.name == "wattribute_product_info")


def test_a_dead_agent_never_hurts_a_job(start_agent: Start) -> None:
    agent = start_agent()
    program = (
        "import os, signal, wattribute\n"
        "with wattribute.job('j') as job:\n"
        f"    os.kill({agent.pid}, signal.SIGKILL)\n"
        "print(job.receipt.to_dict()['basis'], 'went on')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=agent.environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "went on" in done.stdout


def test_a_stopped_agent_ends_cleanly(start_agent: Start) -> None:
    agent = start_agent()
    os.kill(agent.pid, signal.SIGINT)
    assert agent.stop() == 0
    assert not agent.socket.exists()
