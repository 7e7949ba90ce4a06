"""Inference on this machine, all of it: an agent, a small real model that is trained and served, load, the bill.

    python examples/inference.py

Works without root, a GPU or RAPL, like examples/demo.py; about 20 seconds. Leaves nothing behind.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from decimal import Decimal
from pathlib import Path

from demo import HERE, WATTRIBUTE, free_port, get, wait_for

PRODUCT = "tiny-lm"
CONFIGURATION = f"""
[carbon]
pue = 1.2
intensity_g_per_kwh = 300

[[product]]
id = "{PRODUCT}"
kind = "model"
epc_kgco2e = 2.0
amortise = "units"
unit = "token"
expected_units = 1e9
scope = "node"
"""


def total(page: str, name: str, **labels: str) -> Decimal:
    """Sum of a metric over the series that have these labels, exactly."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = (line.rpartition(" ") for line in page.splitlines() if line.startswith(name + "{"))
    return sum((Decimal(value) for series, _, value in lines if all(want in series for want in wanted)), Decimal(0))


def started(environment: dict[str, str]) -> tuple["subprocess.Popen[str]", str]:
    """The server, and its address once the model is trained."""
    command = [sys.executable, str(HERE / "serve.py"), "--port=0", f"--product={PRODUCT}"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        print(line, end="", flush=True)
        if line.startswith("serving on "):
            return server, line.split()[-1]
    raise SystemExit("the server ended")


def settled(url: str, receipt: str) -> dict[str, object]:
    """The receipt that a header named, once its energy is in."""
    request_id = receipt.partition(";")[0].strip('"')
    for _ in range(100):
        with urllib.request.urlopen(f"{url}/wattribute/receipts/{request_id}", timeout=5) as answer:
            if answer.status == 200:
                return dict(json.load(answer))
        time.sleep(0.1)
    raise SystemExit(f"the receipt of {request_id} doesn't settle")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="wattribute-inference-") as name:
        folder = Path(name)
        (folder / "wattribute.toml").write_text(CONFIGURATION)
        metrics = f"http://127.0.0.1:{free_port()}"
        environment = {
            **os.environ,
            "WATTRIBUTE_CONFIG": str(folder / "wattribute.toml"),
            "WATTRIBUTE_AGENT__SOCKET": str(folder / "agent.sock"),
            "WATTRIBUTE_AGENT__STATE_DIR": str(folder / "state"),
        }
        command = [*WATTRIBUTE, "agent", "--listen", metrics.removeprefix("http://")]
        agent = subprocess.Popen(command, env=environment)
        server = None
        try:
            wait_for(f"{metrics}/healthz", agent)
            server, url = started(environment)
            load = [sys.executable, str(HERE / "load.py"), url, "--requests=300"]
            answers = json.loads(subprocess.run(load, capture_output=True, text=True, check=True).stdout)
            print(f"\n{len(answers)} requests; one header, and what it came to:\n{answers[0]['receipt']}")
            receipts = [settled(url, answer["receipt"]) for answer in answers]
            print(json.dumps(receipts[0], indent=1))
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)
            page = get(f"{metrics}/metrics")
            while total(page, "wattribute_product_unsettled_joules"):
                time.sleep(0.5)
                page = get(f"{metrics}/metrics")
        finally:
            if server is not None:
                server.kill()
                server.wait()
            agent.send_signal(signal.SIGTERM)
            agent.wait(timeout=30)
        print("\nOn /metrics:")
        print("\n".join(line for line in page.splitlines() if line.startswith("wattribute_tenant_")))
        tokens = total(page, "wattribute_product_units_total", unit="token")
        billed = total(page, "wattribute_product_request_joules_total")
        idle = total(page, "wattribute_product_idle_joules_total")
        used = total(page, "wattribute_product_energy_joules_total", product_id=PRODUCT)
        summed = sum(Decimal(str(receipt["energy_uj"])) for receipt in receipts) / 10**6
        grams = total(page, "wattribute_product_request_grams_total")
        sound = summed == billed and billed + idle == used
        print(f"\n{tokens:.0f} tokens, {1000 * grams / tokens:.6f} g CO2e (ASC^e) per 1,000 tokens")
        print(f"receipts {summed} J = requests {billed} J; + idle {idle} J = the product's {used} J: ", end="")
        print("exact" if sound else "DOES NOT BALANCE")
        return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
