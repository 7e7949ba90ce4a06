"""Inference end to end: a real small model served over HTTP, load from another process, every request's receipt.

Receipts + idle of the product = the product's energy, and with what nobody pays for the node's, to the microjoule.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.running import RunningAgent, Sample, check_identities, total

EXAMPLES = Path(__file__).parents[2] / "examples"
PRODUCTS = """
[[product]]
id = "cluster"
kind = "platform"
overhead_g_per_min = 60.0
concurrency = 1
[[product]]
id = "tiny-lm"
kind = "model"
runs_on = ["cluster"]
epc_kgco2e = 1.0
lifetime_years = 0.01
scope = "node"
"""
REQUESTS = 60


class Server:
    """examples/serve.py as a process, and its address."""

    def __init__(self, agent: RunningAgent) -> None:
        command = [sys.executable, str(EXAMPLES / "serve.py"), "--port=0", "--train-seconds=1"]
        self._process = subprocess.Popen(command, env=agent.environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = ""
        for line in self._process.stdout:
            if line.startswith("serving on "):
                self.url = line.removeprefix("serving on ").strip()
                break
        assert self.url, "the server ended"

    def receipt(self, request_id: str) -> dict[str, Any]:
        """A request's receipt, once it is settled."""
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            with urllib.request.urlopen(f"{self.url}/wattribute/receipts/{request_id}", timeout=5) as answer:
                if answer.status == 200:
                    found: dict[str, Any] = json.load(answer)
                    return found
            time.sleep(0.1)
        raise AssertionError(f"the receipt of {request_id} doesn't settle")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(20) == 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def serving(start_agent: Callable[..., RunningAgent]) -> Iterator[tuple[RunningAgent, Server]]:
    agent = start_agent(interval_s=0.5, more=PRODUCTS)
    server = Server(agent)
    yield agent, server
    server.close()


def settled(agent: RunningAgent) -> list[Sample]:
    """The page, once nothing of the product waits to be split."""
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        samples = agent.samples()
        if not total(samples, "wattribute_product_unsettled_joules") and not total(
            samples, "wattribute_product_running_jobs", product_id="tiny-lm"
        ):
            return samples
        time.sleep(0.2)
    raise AssertionError("the product's energy doesn't settle")


def test_a_served_model_bills_its_requests_to_the_microjoule(serving: tuple[RunningAgent, Server]) -> None:
    agent, server = serving
    load = [sys.executable, str(EXAMPLES / "load.py"), server.url, f"--requests={REQUESTS}"]
    done = subprocess.run(load, capture_output=True, text=True, timeout=120, check=True, env=dict(os.environ))
    answers = json.loads(done.stdout)
    assert len(answers) == REQUESTS
    receipts = [server.receipt(answer["receipt"].partition(";")[0].strip('"')) for answer in answers]
    server.stop()
    samples = settled(agent)
    check_identities(samples)

    def of_product(name: str, **labels: str) -> Decimal:
        return total(samples, f"wattribute_product_{name}", product_id="tiny-lm", **labels)

    assert of_product("units_total", unit="request") == REQUESTS
    tokens = sum(answer["tokens"] for answer in answers)
    assert of_product("units_total", unit="token") == tokens
    assert sum(int(receipt["units"]["token"]) for receipt in receipts) == tokens
    for tenant in {answer["tenant"] for answer in answers}:
        own = [answer for answer in answers if answer["tenant"] == tenant]
        labels = {"product_id": "tiny-lm", "tenant": tenant}
        assert total(samples, "wattribute_tenant_units_total", unit="request", **labels) == len(own)
        joules = total(samples, "wattribute_tenant_joules_total", **labels)
        assert joules == sum(Decimal(r["energy_uj"]) for r in receipts if r["tenant"] == tenant) / 10**6
    # Receipts are what was billed to requests, and with the product's idle time all that it used.
    billed = of_product("request_joules_total")
    assert billed == sum(Decimal(receipt["energy_uj"]) for receipt in receipts) / 10**6
    assert billed > 0
    assert billed + of_product("idle_joules_total") == of_product("energy_joules_total", role="use")
    for term in ("operation", "cooling", "platform", "hardware", "product"):
        parts = of_product("request_grams_total", term=term) + of_product("idle_grams_total", term=term)
        assert parts == of_product("co2e_grams_total", role="use", term=term)
        assert of_product("request_grams_total", term=term) > 0, term
    per_1000_tokens = 1000 * of_product("request_grams_total") / tokens
    assert 0 < per_1000_tokens < 10 * of_product("co2e_grams_total")
