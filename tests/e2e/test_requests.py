"""Metered requests end to end, in real processes that are killed, forked and left alone by their agent.

What is billed to requests, what was idle and what isn't split yet are the product's energy on every page; in the end
every request that was answered is counted once.
"""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.powercap import Zone
from tests.e2e.running import RunningAgent, Sample, check_identities, total
from tests.e2e.serving_worker import TENANTS, Board

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

WORKER = Path(__file__).with_name("serving_worker.py")
JOB, PRODUCT = "serve-llama", "llama"
INTERVAL_S = 0.1
PRODUCTS = """
[[embodied]]
component = "server"
kgco2e = 1200
lifetime_years = 4
[[product]]
id = "llama"
kind = "model"
epc_kgco2e = 1.0
lifetime_years = 0.01
scope = "node"
"""
ALONE = """
[agent]
interval_s = 0.1
[paths]
sys = "{sys}"
[collectors]
nvml = "off"
modelled = "off"
[attribution]
cpu_idle_w = 10
"""
TERMS = ("operation", "cooling", "hardware", "product")
_FLOCK = struct.Struct("hhqqi4x")


class Pages:
    """Reads the agent's page again and again: every one adds up, and nothing on it has fallen, over restarts too."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        self._seen: dict[tuple[str, tuple[tuple[str, str], ...]], Decimal] = {}

    def look(self) -> list[Sample]:
        samples = self._agent.samples()
        check_identities(samples)
        check_requests(samples)
        found = {
            (s.name, tuple(sorted(s.labels.items()))): s.value
            for s in samples
            if s.name.startswith(("wattribute_job_", "wattribute_node_", "wattribute_product_", "wattribute_tenant_"))
            and s.name.endswith(("_total", "_bucket", "_count", "_sum"))
        }
        fell = {key: (value, found.get(key)) for key, value in self._seen.items() if found.get(key, -1) < value}
        assert not fell
        self._seen = found
        return samples

    def watch(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.look()
            time.sleep(0.05)

    def until(self, done: Callable[[list[Sample]], bool], what: str) -> list[Sample]:
        """Looks until it is so, 10 s at most."""
        until_s = time.monotonic() + 10
        while not done(samples := self.look()):
            assert time.monotonic() < until_s, (what, samples)
            time.sleep(0.05)
        return samples

    def ended(self, board: Board, *, aborted: int) -> list[Sample]:
        """The page when all workers have ended: everything is settled, and counted exactly."""
        samples = self.until(
            lambda samples: (
                not total(samples, "wattribute_product_running_jobs", product_id=PRODUCT)
                and not total(samples, "wattribute_product_unsettled_joules")
            ),
            "the job ends, and its closing reading is in",
        )
        assert total(samples, "wattribute_product_unsettled_grams") == 0
        assert total(samples, "wattribute_product_requests_in_flight") == 0
        assert counts(samples) == told(board)
        assert total(samples, "wattribute_product_requests_aborted_total") == aborted
        assert total(samples, "wattribute_product_request_joules_total") > 0
        return samples


def check_requests(samples: list[Sample]) -> None:
    """Requests, idle time and what isn't split yet are what the product's job used; tenants are the product."""

    def of_product(name: str, **labels: str) -> Decimal:
        return total(samples, f"wattribute_product_{name}", product_id=PRODUCT, **labels)

    if not any(s.name == "wattribute_product_idle_joules_total" for s in samples):
        return
    joules = of_product("request_joules_total") + of_product("idle_joules_total") + of_product("unsettled_joules")
    assert joules == of_product("energy_joules_total")
    assert joules == total(samples, "wattribute_job_energy_joules_total", job_id=JOB)
    named = any(s.name == "wattribute_tenant_joules_total" for s in samples)  # else nobody has a name yet
    assert not named or of_product("request_joules_total") == total(samples, "wattribute_tenant_joules_total")
    for term in TERMS:
        parts = [of_product(f"{one}_grams_total", term=term) for one in ("request", "idle")]
        grams = sum(parts, of_product("unsettled_grams", term=term))
        assert grams == total(samples, "wattribute_job_co2e_grams_total", job_id=JOB, term=term), term
        assert not named or parts[0] == total(samples, "wattribute_tenant_grams_total", term=term), term
    for unit in ("request", "token") if named else ():
        assert of_product("units_total", unit=unit) == total(samples, "wattribute_tenant_units_total", unit=unit)


def counts(samples: list[Sample]) -> dict[tuple[str, str], int]:
    """By tenant and unit, as the page has them."""
    return {
        (tenant, unit): int(
            sum(
                s.value
                for s in samples
                if s.name == "wattribute_tenant_units_total"
                and (s.labels["tenant"], s.labels["unit"]) == (tenant, unit)
            )
        )
        for tenant in TENANTS
        for unit in ("request", "token")
    }


def told(board: Board) -> dict[tuple[str, str], int]:
    """The same, as the workers have them."""
    assert board.sum("raised") == 0
    found = {}
    for tenant in TENANTS:
        found[tenant, "request"] = board.sum("ended", tenant=tenant)
        found[tenant, "token"] = board.sum("tokens", tenant=tenant)
    return found


class Workers:
    """Worker processes of one product, and the board on which they note what they did."""

    def __init__(self, agent: RunningAgent, folder: Path) -> None:
        self._runtime = folder / "run"
        self._runtime.mkdir(mode=0o700)
        self._environment = {**agent.environment, "XDG_RUNTIME_DIR": str(self._runtime)}
        self._path = folder / "board"
        self._said = (folder / "workers.log").open("w+b")
        self._running: list[subprocess.Popen[bytes]] = []
        self.board = Board(self._path)

    def start(self, count: int) -> None:
        for number in range(count):
            self._start("load", str(self._path), str(number))

    def start_prefork(self) -> None:
        self._start("fork", str(self._path))

    def _start(self, *words: str) -> None:
        command = [sys.executable, str(WORKER), *words]
        self._running.append(subprocess.Popen(command, env=self._environment, stderr=self._said))

    def reporter(self) -> int:
        """The number of the worker that reports for all: who holds the lock of the account's byte 0."""
        (path,) = (self._runtime / "wattribute").iterdir()
        with path.open("rb") as file:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
            pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))[-1]
        return [worker.pid for worker in self._running].index(pid)

    def kill_between_steps(self, number: int) -> int:
        """SIGKILL while several requests are in flight, but none is beginning or ending; how many are in flight."""
        worker, board = self._running[number], self.board
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s:
            worker.send_signal(signal.SIGSTOP)
            os.waitpid(worker.pid, os.WUNTRACED)
            began, gone = board.sum("began", worker=number), board.sum("ended", worker=number)
            in_flight = began - gone - board.sum("aborted", worker=number)
            if in_flight >= 3 and not board.within_a_step(number):
                worker.kill()
                worker.wait()
                return in_flight
            worker.send_signal(signal.SIGCONT)
            time.sleep(0.003)
        raise AssertionError("never between two steps")

    def stop(self) -> None:
        """All end at once, of themselves, and have nothing to say but that an agent was away."""
        self.board.stop()
        for worker in self._running:
            if worker.returncode is None:
                assert worker.wait(20) == 0
        assert "Traceback" not in self.said()

    def said(self) -> str:
        self._said.seek(0)
        return self._said.read().decode()

    def close(self) -> None:
        for worker in self._running:
            worker.kill()
            worker.wait()
        self._said.close()


@pytest.fixture
def agent(start_agent: Callable[..., RunningAgent]) -> RunningAgent:
    return start_agent(interval_s=INTERVAL_S, more=PRODUCTS)


@pytest.fixture
def workers(agent: RunningAgent, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(agent, tmp_path)
    yield workers
    workers.close()


def served(pages: Pages, workers: Workers, count: int) -> None:
    """Until every worker has answered something, and the page says so of named tenants."""
    pages.until(
        lambda samples: (
            counts(samples)["acme", "request"] > 0
            and all(workers.board.sum("ended", worker=worker) for worker in range(count))
        ),
        "all serve",
    )


def test_a_worker_that_is_killed_takes_no_request_along(agent: RunningAgent, workers: Workers) -> None:
    """The one that reports for all four is killed with several requests in flight: those are aborted."""
    pages = Pages(agent)
    workers.start(4)
    served(pages, workers, 4)
    in_flight = workers.kill_between_steps(workers.reporter())
    pages.watch(0.5)
    workers.stop()
    pages.ended(workers.board, aborted=workers.board.sum("aborted") + in_flight)
    assert not workers.said()


def test_an_agent_that_is_killed_twice_counts_every_request_once(agent: RunningAgent, workers: Workers) -> None:
    pages = Pages(agent)
    workers.start(3)
    served(pages, workers, 3)
    for _ in range(2):
        pages.watch(0.3)
        agent.kill()
        time.sleep(0.1)
        agent.start()
    pages.watch(0.3)
    workers.stop()
    pages.ended(workers.board, aborted=workers.board.sum("aborted"))


def test_children_of_a_server_that_forks_are_workers_of_its_product(agent: RunningAgent, workers: Workers) -> None:
    pages = Pages(agent)
    workers.start_prefork()
    served(pages, workers, 4)
    workers.stop()
    pages.ended(workers.board, aborted=workers.board.sum("aborted"))
    assert agent.receipt(JOB)["members"] == 4


def test_processes_without_an_agent_measure_their_own_requests(package: Zone, tmp_path: Path) -> None:
    """Two of one product at the same time; what they used is one job's here, afterwards."""
    (tmp_path / "wattribute.toml").write_text(ALONE.format(sys=tmp_path / "sys"))
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("WATTRIBUTE", "SLURM", "TORCHELASTIC"))},
        "WATTRIBUTE_CONFIG": str(tmp_path / "wattribute.toml"),
        "WATTRIBUTE_AGENT__SOCKET": str(tmp_path / "none.sock"),
        "XDG_STATE_HOME": str(tmp_path / "home"),
    }
    commands = [[sys.executable, str(WORKER), "alone", str(number)] for number in range(2)]
    running = [subprocess.Popen(one, env=environment, stdout=subprocess.PIPE, text=True) for one in commands]
    found = [json.loads(process.communicate(timeout=30)[0]) for process in running]
    for one in found:
        assert len(one["receipts"]) == 12
        assert all(receipt["settled"] and receipt["energy_uj"] > 0 for receipt in one["receipts"])
        assert sum(receipt["energy_uj"] for receipt in one["receipts"]) + one["idle_uj"] == one["energy_uj"]

    def said(*words: str) -> Any:
        command = [sys.executable, "-m", "wattribute", *words, "--json"]
        return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    (job,) = said("jobs")
    assert (job["job_id"], job["product_id"], job["basis"]) == (JOB, PRODUCT, "in-process")
    assert job["energy_uj"] == sum(one["energy_uj"] for one in found)
    assert said("receipt", JOB) == job


def test_an_agent_that_hangs_costs_no_request_anything(agent: RunningAgent, workers: Workers) -> None:
    pages = Pages(agent)
    workers.start(2)
    served(pages, workers, 2)
    os.kill(agent.pid, signal.SIGSTOP)
    before = workers.board.sum("ended")
    time.sleep(2)
    assert workers.board.sum("ended") > before
    os.kill(agent.pid, signal.SIGCONT)
    pages.watch(0.3)
    workers.stop()
    pages.ended(workers.board, aborted=workers.board.sum("aborted"))
