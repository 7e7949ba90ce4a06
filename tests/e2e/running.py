"""A real agent in a process of its own, on a powercap double whose power follows the node's CPU time."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

IDLE_W, W_PER_CORE = 10, 20
CONFIGURATION = f"""
[agent]
interval_s = {{interval_s}}
[attribution]
cpu_idle_w = {IDLE_W}
[collectors]
require = ["rapl"]
nvml = "off"
modelled = "off"
[carbon]
intensity_g_per_kwh = 665.6
pue = 1.08
{{more}}
"""


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: Decimal


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RunningAgent:
    """Starts, kills and restarts one agent on the same state; `environment` is what its jobs need."""

    def __init__(self, folder: Path, sys_tree: Path, *, interval_s: float = 1.0, more: str = "") -> None:
        self.state_dir = folder / "state"
        self.socket = folder / "agent.sock"
        self.url = f"http://127.0.0.1:{free_port()}"
        self._config = folder / "wattribute.toml"
        self._config.write_text(CONFIGURATION.format(interval_s=interval_s, more=more))
        self._sys = sys_tree
        self._process: subprocess.Popen[bytes] | None = None
        self._log = (folder / "agent.log").open("ab")
        places = {"WATTRIBUTE_CONFIG": self._config, "WATTRIBUTE_AGENT__SOCKET": self.socket}
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("WATTRIBUTE", "SLURM", "TORCHELASTIC"))}
        (runtime := folder / "runtime").mkdir(mode=0o700, exist_ok=True)  # where meters have their accounts
        places |= {"XDG_STATE_HOME": folder / "home", "XDG_RUNTIME_DIR": runtime}
        self.environment = {**clean, **{k: str(v) for k, v in places.items()}}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> None:
        command = [sys.executable, "-m", "wattribute", "agent", "--listen", self.url.removeprefix("http://")]
        command += ["--socket", str(self.socket), "--state-dir", str(self.state_dir), "--sys", str(self._sys)]
        self._process = subprocess.Popen(command, env=self.environment, stderr=self._log)
        if wait:
            self.wait()

    def wait(self) -> None:
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            try:
                self.get("/healthz")
                return
            except OSError:
                assert self._process is not None
                assert self._process.poll() is None, "the agent ended"
                time.sleep(0.02)
        raise AssertionError("the agent doesn't answer")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._log.close()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return str(answer.read().decode())

    def samples(self) -> list[Sample]:
        return parse(self.get("/metrics"))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "wattribute", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`wattribute ARGUMENTS` to its end."""
        return subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def receipt(self, job_id: str) -> dict[str, Any]:
        done = self.run("receipt", job_id, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def parse(page: str) -> list[Sample]:
    """The page's samples with their exact decimal text; the official parser must take it too."""
    accepted = sum(len(family.samples) for family in text_string_to_metric_families(page))
    found = []
    for line in page.splitlines():
        if line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        name, _, rest = series.partition("{")
        labels = dict(pair.split("=", 1) for pair in rest.rstrip("}").split('",') if pair) if rest else {}
        found.append(Sample(name, {k: v.strip('"') for k, v in labels.items()}, Decimal(value)))
    assert accepted == len(found)
    return found


def total(samples: list[Sample], name: str, **labels: str) -> Decimal:
    """Sum of a metric over the series that have these labels."""
    chosen = (s for s in samples if s.name == name and labels.items() <= s.labels.items())
    return sum((s.value for s in chosen), Decimal(0))


def check_identities(samples: list[Sample]) -> None:
    """Every identity of a page, exactly, in decimal arithmetic."""
    domains = {s.labels["domain"] for s in samples if s.name == "wattribute_node_energy_joules_total"}
    assert domains
    for domain in domains:
        jobs = total(samples, "wattribute_job_energy_joules_total", domain=domain)
        nobody = total(samples, "wattribute_node_unattributed_joules_total", domain=domain)
        assert jobs + nobody == total(samples, "wattribute_node_energy_joules_total", domain=domain)
    for term in ("operation", "cooling", "hardware"):
        jobs = total(samples, "wattribute_job_co2e_grams_total", term=term)
        nobody = total(samples, "wattribute_node_unattributed_grams_total", term=term)
        assert jobs + nobody == total(samples, "wattribute_node_co2e_grams_total", term=term)
    for product in {s.labels["product_id"] for s in samples if s.name == "wattribute_product_overhead_grams_total"}:
        for term in ("platform", "retraining", "overhead_hardware", "product"):
            labels = {"product_id": product, "term": term}
            billed = total(samples, "wattribute_product_billed_grams_total", **labels)
            untaxed = total(samples, "wattribute_product_untaxed_grams_total", **labels)
            assert billed + untaxed == total(samples, "wattribute_product_overhead_grams_total", **labels)
    for job in {s.labels["job_id"] for s in samples if s.name == "wattribute_job_jsc_grams_total"}:

        def grams(*terms: str, job: str = job) -> Decimal:
            name = "wattribute_job_co2e_grams_total"
            return sum((total(samples, name, job_id=job, term=term) for term in terms), Decimal(0))

        jsc = total(samples, "wattribute_job_jsc_grams_total", job_id=job)
        jsce = total(samples, "wattribute_job_jsce_grams_total", job_id=job)
        assert jsc == grams("operation", "cooling")
        assert jsce == jsc + grams("platform", "retraining")
        assert total(samples, "wattribute_job_asc_grams_total", job_id=job) == jsc + grams("hardware")
        rest = grams("hardware", "overhead_hardware", "product")
        assert total(samples, "wattribute_job_asce_grams_total", job_id=job) == jsce + rest
