"""A real agent whose state directory is on a disk that stands still: its calls don't return."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.node_bench import Worker
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import RunningAgent, total
from tests.tools import require

from wattribute.agent.client import AgentRefused, Client
from wattribute.agent.ledger.reader import read_only

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

DOUBLE = Path(__file__).parents[1] / "doubles" / "hung_disk.c"


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started = [Worker() for _ in range(3)]
    yield started
    for worker in started:
        worker.kill()


def test_ticks_jobs_and_pages_go_on_and_nothing_is_lost(tmp_path: Path, workers: list[Worker]) -> None:
    flag, library = tmp_path / "hangs", tmp_path / "hung_disk.so"
    subprocess.run([require("cc"), "-shared", "-fPIC", "-o", library, DOUBLE], check=True)
    old, running, new = workers
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        tree.add_package()
        agent = RunningAgent(tmp_path, tmp_path / "sys", interval_s=0.1, more="[export]\nhold_s = 0\n")
        preload = {"LD_PRELOAD": library, "HUNG_DISK": agent.state_dir, "HUNG_DISK_FLAG": flag}
        agent.environment |= {name: str(value) for name, value in preload.items()}
        agent.start()
        client = Client(str(agent.socket))

        def ask(op: str, **fields: Any) -> dict[str, Any]:
            return client.call(op, 5.0, **fields)

        def start(job_id: str, worker: Worker) -> None:
            ask("job.start", job_id=job_id, member="m", pid=worker.pid)

        def ticks() -> int:
            return int(ask("health")["ticks"])

        def pass_ticks(count: int) -> None:
            until = ticks() + count
            while ticks() < until:
                time.sleep(0.02)

        try:
            start("old", old)
            old.burn(0.05)
            ask("job.end", job_id="old", member="m")
            start("running", running)
            while any(job["job_id"] == "old" for job in ask("jobs")["jobs"]):
                time.sleep(0.02)
            pass_ticks(2)
            flag.touch()
            pass_ticks(2)
            running.burn(0.05)
            with pytest.raises(AgentRefused, match="the ledger's disk doesn't answer"):
                start("old", old)
            start("new", new)
            new.burn(0.05)
            pass_ticks(3)
            assert total(agent.samples(), "wattribute_agent_ticks_total") > 0
            flag.unlink()
            while not any(one.labels.get("job_id") == "new" for one in agent.samples()):
                time.sleep(0.02)
            start("old", old)
            for job_id in ("old", "running", "new"):
                receipt = ask("job.receipt", job_id=job_id)["receipt"]
                assert receipt["cpu_s"] >= 0.04
                assert not receipt["gaps"]
            assert agent.stop() == 0
            with read_only(agent.state_dir) as ledger:
                assert ledger.verify() == []
        finally:
            flag.unlink(missing_ok=True)
            agent.close()
