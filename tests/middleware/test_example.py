"""examples/fastapi_app.py as its docstring says: uvicorn, a real meter, a machine without an agent."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_app.py"


@pytest.fixture
def port() -> Iterator[int]:
    environment = {
        **os.environ,
        "WATTRIBUTE_AGENT__INTERVAL_S": "0.1",
    }
    command = [sys.executable, str(EXAMPLE), "--port=0"]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    said = ""
    try:
        for line in server.stderr:
            said += line
            if found := re.search(r"running on http://127.0.0.1:(\d+)", line):
                break
        assert found is not None, said
        yield int(found[1])
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) in (0, -signal.SIGTERM)
        said += server.stderr.read()
        assert "Application shutdown complete" in said
        assert "Traceback" not in said, said
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def get(port: int, path: str) -> tuple[int, str, str]:
    """(status, body, the header) of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.headers.get("Wattribute-Receipt", "")
    connection.close()
    return found


def test_the_example_bills_its_requests(port: int) -> None:
    status, body, told = get(port, "/shout/2000?text=hello+world")
    assert (status, body) == (200, "HELLO WORLD\n" * 2000)
    assert told.endswith(";settled=?0")
    name = told.partition(";")[0].strip('"')
    until_s = time.monotonic() + 20
    while (answer := get(port, f"/wattribute/receipts/{name}"))[0] == 202 and time.monotonic() < until_s:
        time.sleep(0.05)
    assert answer[0] == 200, answer
    receipt = json.loads(answer[1])
    assert receipt["settled"]
    assert name.startswith(receipt["request_id"])
    assert receipt["energy_uj"] > 0
    assert receipt["units"] == {"word": 4000}
    assert (receipt["product_id"], receipt["tenant"], receipt["aborted"]) == ("shout", "/shout/{times}", False)
    assert ";energy-uj=" in get(port, "/shout?text=again")[2]  # there is a rate by now
    assert get(port, "/healthz")[2] == ""
