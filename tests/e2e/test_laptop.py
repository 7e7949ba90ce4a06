"""A machine without an agent and without a configuration: from `wattribute run` to EPC, report, comparison, proof."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix")
Wattribute = Callable[..., str]


@pytest.fixture
def wattribute(tmp_path: Path) -> Wattribute:
    """The command of a user whose files are all in a directory of the test; what it printed."""
    ours = ("WATTRIBUTE_", "SLURM_", "TORCHELASTIC_", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    state = tmp_path / "home/.local/state/wattribute"  # what it is for everybody but root
    own = {"HOME": str(tmp_path / "home"), "WATTRIBUTE_AGENT__STATE_DIR": str(state)}
    environment = {**kept, **own, "WATTRIBUTE_AGENT__SOCKET": str(tmp_path / "none.sock")}

    def call(*words: str) -> str:
        command = [sys.executable, "-m", "wattribute", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_a_creation_job_without_an_agent_is_the_products_epc(wattribute: Wattribute, tmp_path: Path) -> None:
    burn = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    receipts: dict[str, dict[str, Any]] = {}
    for product in ("small", "big"):
        wattribute("product", "add", product, "--kind", "model", "--lifetime-years", "1", "--scope", "fleet")
        for role in ("creation", "use"):
            job, file = f"{role}-{product}", tmp_path / f"{role}-{product}.json"
            told = ("--product", product, "--role", role, "--job-id", job, "--receipt", str(file))
            wattribute("run", *told, "--", sys.executable, "-c", burn)
            receipts[job] = json.loads(file.read_text())
            assert receipts[job]["basis"] == "in-process"

    made = receipts["creation-small"]
    epc = json.loads(wattribute("product", "epc", "small", "--json"))
    assert (epc["basis"], epc["creation_jobs"], epc["creation_jobs_running"]) == ("recorded", 1, 0)
    assert epc["gco2e"]["own"]["central"] == made["gco2e"]["asce"] > 0

    sheet = json.loads(wattribute("report", "job", "creation-small", "--json"))
    assert made["job_id"] in json.dumps(sheet)
    assert "creation" in wattribute("report", "product", "small", "--html")

    wattribute("product", "freeze", "small")
    assert json.loads(wattribute("product", "epc", "small", "--json"))["gco2e"]["own"] == epc["gco2e"]["own"]
    assert json.loads(wattribute("product", "compare", "small", "big", "--json"))

    verdict = json.loads(wattribute("ledger", "verify", "--json"))
    assert verdict["sound"]
    heads = {head["table"]: head for store in verdict["stores"] for head in store["heads"]}
    assert heads["windows"]["node_id"] == f"in-process-{made['node']}"
