"""The whole of it on this machine: an agent, two jobs at once, their receipts, their lines of `/metrics`.

    make run

Works without root, a GPU or RAPL: what has no sensor is modelled, and says so. Leaves nothing behind.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from decimal import Decimal
from pathlib import Path

HERE = Path(__file__).parent
WATTRIBUTE = [sys.executable, "-m", "wattribute"]
TRAIN = [sys.executable, str(HERE / "train.py")]
JOBS = {
    "train-spirals": ("training", [*TRAIN, "--seconds=8", "--seed=1"]),
    "search-spirals": ("experimentation", [*TRAIN, "--seconds=5", "--seed=2"]),
}
CONFIGURATION = """
[carbon]
pue = 1.2
mix = { coal = 0.2, gas = 0.3, wind_onshore = 0.3, nuclear = 0.2 }

[[product]]
id = "demo-platform"
kind = "platform"
overhead_g_per_min = 50.0
concurrency = 10

[[product]]
id = "spirals"
kind = "model"
runs_on = ["demo-platform"]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def wait_for(url: str, agent: "subprocess.Popen[bytes]") -> None:
    for _ in range(200):
        try:
            get(url)
            return
        except OSError:
            if agent.poll() is not None:
                raise SystemExit(f"the agent ended with {agent.returncode}") from None
            time.sleep(0.05)
    raise SystemExit("the agent doesn't answer")


def balance(page: str) -> list[str]:
    """Per domain: joules of all jobs, what no job pays for, and the node's own, from the page's decimal text."""
    sums: dict[str, dict[str, Decimal]] = {}
    for line in page.splitlines():
        name, _, rest = line.partition("{")
        if name in ("wattribute_job_energy_joules_total", "wattribute_node_unattributed_joules_total") or (
            name == "wattribute_node_energy_joules_total"
        ):
            labels, _, value = rest.rpartition("} ")
            domain = labels.split('domain="', 1)[1].split('"', 1)[0]
            whose = sums.setdefault(domain, {"job": Decimal(0), "unattributed": Decimal(0), "node": Decimal(0)})
            key = "job" if "_job_" in name else "unattributed" if "unattributed" in name else "node"
            whose[key] += Decimal(value)
    lines = []
    for domain, whose in sums.items():
        whole = whose["job"] + whose["unattributed"]
        verdict = "exact" if whole == whose["node"] else "DOES NOT BALANCE"
        lines.append(
            f"{domain}: jobs {whose['job']} J + nobody's {whose['unattributed']} J = node {whose['node']} J: {verdict}"
        )
    return lines


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="wattribute-demo-") as name:
        folder = Path(name)
        config = folder / "wattribute.toml"
        config.write_text(CONFIGURATION)
        url = f"http://127.0.0.1:{free_port()}"
        places = {"WATTRIBUTE_CONFIG": str(config), "WATTRIBUTE_AGENT__SOCKET": str(folder / "agent.sock")}
        places["WATTRIBUTE_AGENT__STATE_DIR"] = str(folder / "state")
        environment = {**os.environ, **places}
        agent = subprocess.Popen([*WATTRIBUTE, "agent", "--listen", url.removeprefix("http://")], env=environment)
        try:
            wait_for(f"{url}/healthz", agent)
            print("\nTwo jobs at once:", flush=True)
            running = [
                subprocess.Popen(
                    [*WATTRIBUTE, "run", f"--job-id={job_id}", "--product=spirals", f"--phase={phase}", "--", *command],
                    env=environment,
                )
                for job_id, (phase, command) in JOBS.items()
            ]
            codes = [child.wait() for child in running]
            page = get(f"{url}/metrics")
        finally:
            agent.send_signal(signal.SIGTERM)
            agent_code = agent.wait(timeout=30)
        for job_id in JOBS:
            print(f"\n{job_id} on /metrics:")
            print("\n".join(line for line in page.splitlines() if f'job_id="{job_id}"' in line))
        print("\nThe node's balance, from the page's own text:")
        lines = balance(page)
        print("\n".join(lines))
        sound = not any(codes) and agent_code == 0 and not any("DOES NOT" in line for line in lines)
        return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
