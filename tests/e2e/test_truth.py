"""Each job's energy against the truth: power is 10 W + 20 W per busy core, so a job's own is 20 J per CPU second."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.powercap import Zone
from tests.e2e.running import W_PER_CORE, RunningAgent, check_identities, total

BURNERS = [sys.executable, "-S", str(Path(__file__).with_name("burners.py"))]
Start = Callable[..., RunningAgent]


def begin(agent: RunningAgent, job_id: str, *burner: str) -> "subprocess.Popen[str]":
    command = agent.command("run", "--job-id", job_id, "--", *BURNERS, *burner)
    return subprocess.Popen(command, env=agent.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(agent: RunningAgent, child: "subprocess.Popen[str]", job_id: str) -> tuple[dict[str, Any], float]:
    """The job's receipt, and the CPU seconds that it really took."""
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    return agent.receipt(job_id), float(out)


@pytest.mark.parametrize(
    "burner", [("steady", "2", "0.7"), ("children", "4"), ("daemons", "4"), ("brief", "200")], ids=lambda b: b[0]
)
def test_a_jobs_energy_is_within_one_percent(start_agent: Start, burner: tuple[str, ...]) -> None:
    agent = start_agent()
    receipt, cpu_s = end(agent, begin(agent, "job", *burner), "job")
    # The wrapper's own few milliseconds are the job's too: the receipt says how much CPU time it was billed for.
    assert receipt["cpu_s"] == pytest.approx(cpu_s, abs=0.15)
    assert receipt["cpu_s"] >= cpu_s * 0.99
    truth_j = receipt["cpu_s"] * W_PER_CORE
    # 0.16 J: 8 ms of one core, 3.7 % of the burst and below 1 % of the others (docs/accuracy.md has what was seen).
    assert receipt["energy_j"]["cpu"]["direct"] == pytest.approx(truth_j, rel=0.01, abs=0.16)
    assert receipt["quality"]["measured"] == 1.0
    assert receipt["settled"]
    check_identities(agent.samples())


def test_two_jobs_at_once_are_told_apart_and_never_billed_more_than_the_node(start_agent: Start, package: Zone) -> None:
    agent = start_agent()
    before_uj = package.true_uj
    busy, lazy = begin(agent, "busy", "steady", "3", "0.9"), begin(agent, "lazy", "steady", "3", "0.3")
    for _ in range(20):
        check_identities(agent.samples())
    for child, job_id in ((busy, "busy"), (lazy, "lazy")):
        receipt, _ = end(agent, child, job_id)
        truth_j = receipt["cpu_s"] * W_PER_CORE
        assert receipt["energy_j"]["cpu"]["direct"] == pytest.approx(truth_j, rel=0.01)
    samples = agent.samples()
    check_identities(samples)
    billed_uj = total(samples, "wattribute_job_energy_joules_total") * 10**6
    assert billed_uj <= package.true_uj - before_uj


def test_the_worked_example_holds_on_a_live_receipt(start_agent: Start) -> None:
    """665.6 g/kWh and PUE 1.08: 1 kJ costs 0.19968 g, at any energy, to a nanogram."""
    agent = start_agent()
    receipt, _ = end(agent, begin(agent, "job", "brief", "100"), "job")
    assert receipt["gco2e"]["operation"] == pytest.approx(receipt["energy_uj"] * 665.6 / 3.6e12, abs=1e-9)
    assert receipt["gco2e"]["jsc"] == pytest.approx(receipt["energy_uj"] * 1e-9 * 0.19968, abs=2e-9)


def test_four_processes_with_one_id_are_one_job(start_agent: Start) -> None:
    agent = start_agent()
    ranks = """
import multiprocessing, time, wattribute
def rank(i):
    with wattribute.job("torch"):
        until = time.process_time() + 0.3
        while time.process_time() < until: pass
if __name__ == "__main__":
    ps = [multiprocessing.Process(target=rank, args=(i,)) for i in range(4)]
    [p.start() for p in ps]; [p.join() for p in ps]
"""
    subprocess.run([sys.executable, "-c", ranks], env=agent.environment, check=True, timeout=60)
    receipt = agent.receipt("torch")
    assert receipt["members"] == 4
    assert 1.2 <= receipt["cpu_s"] < 1.5
    assert receipt["energy_j"]["cpu"]["direct"] == pytest.approx(receipt["cpu_s"] * W_PER_CORE, rel=0.01)


def test_a_hundred_overlapping_coroutines_are_never_billed_twice(start_agent: Start) -> None:
    agent = start_agent()
    program = """
import asyncio, time, wattribute
async def one(i):
    with wattribute.job(f"c{i}"):
        await asyncio.sleep(0.3)
        until = time.process_time() + 0.005
        while time.process_time() < until: pass
        await asyncio.sleep(0.3)
async def main():
    await asyncio.gather(*(one(i) for i in range(100)))
with wattribute.job("outer"):
    asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], env=agent.environment, check=True, timeout=60)
    done = agent.run("jobs", "--json")
    receipts = {r["job_id"]: r for r in json.loads(done.stdout)}
    inner = [receipts[f"c{i}"] for i in range(100)]
    assert sum(r["cpu_s"] for r in inner) + receipts["outer"]["cpu_s"] < 1.5
    assert all(any("overlapped" in note for note in r["notes"]) for r in inner)
    check_identities(agent.samples())
