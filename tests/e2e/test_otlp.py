"""A real agent that pushes to a Collector: what arrives is what its page shows; one that hangs delays nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from tests.doubles.otlp_collector import Collector, points
from tests.e2e.running import RunningAgent


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_one_that_hangs_delays_no_tick_and_then_hears_what_the_page_shows(
    start_agent: Callable[..., RunningAgent],
) -> None:
    with Collector() as collector:
        collector.answers = [None]
        more = f'[otlp]\nendpoint = "{collector.url}"\ninterval_s = 1\ntimeout_s = 0.3'
        agent = start_agent(interval_s=0.1, more=more)

        def shown(name: str, **labels: str) -> Decimal:
            found = (s for s in agent.samples() if s.name == name and labels.items() <= s.labels.items())
            return sum((s.value for s in found), Decimal(0))

        def pushed(name: str, **labels: str) -> float:
            found = points(collector.requests[-1:])
            return sum(p.value for p in found if p.metric.name == name and labels.items() <= p.attributes.items())

        wait_until(lambda: bool(collector.paths))
        before = shown("wattribute_agent_ticks_total")
        wait_until(lambda: shown("wattribute_source_failures_total", source="otlp", reason="timeout") == 1)
        assert shown("wattribute_agent_ticks_total") >= before + 2
        assert shown("wattribute_source_up", source="otlp") == 0
        count = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"
        assert agent.run("run", "--job-id", "j", "--", "sh", "-c", count).returncode == 0
        of_job = "wattribute_job_energy_joules_total"
        wait_until(lambda: pushed(of_job, job_id="j") > 0)
        wait_until(lambda: pushed(of_job, job_id="j") == pytest.approx(float(shown(of_job, job_id="j")), rel=1e-12))
        cpu_j = pushed("hw.energy", **{"hw.type": "cpu"})
        assert 0 < cpu_j <= float(shown("wattribute_node_energy_joules_total", domain="cpu")) * (1 + 1e-12)
        wait_until(lambda: shown("wattribute_source_up", source="otlp") == 1)


def test_an_endpoint_that_is_none_stops_the_start(tmp_path: Path) -> None:
    own = {"WATTRIBUTE_OTLP__ENDPOINT": "collector:4318", "WATTRIBUTE_AGENT__STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "wattribute", "agent", "--socket", str(tmp_path / "s"), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "otlp.endpoint" in done.stderr
    assert "http://127.0.0.1:4318" in done.stderr
