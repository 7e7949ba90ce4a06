"""A node on real processes, a powercap double and a real ledger, whose clock is set by hand.

Every page is checked: it adds up, and nothing on it has fallen since the one before, over restarts too.
"""

import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.doubles.powercap import Package
from tests.e2e.running import Sample, check_identities, parse, total
from wattribute.agent.config import Loaded, load
from wattribute.agent.config.schema import Config
from wattribute.agent.courier import Courier
from wattribute.agent.ledger.past import OpenReader
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.node import Node
from wattribute.agent.opening import open_node
from wattribute.agent.record import Record
from wattribute.agent.requests import JobEnd, JobStart, Peer
from wattribute.agent.site import Site
from wattribute.collectors.process.collector import Processes

S = 1_000_000_000
KEPT = ("wattribute_job_", "wattribute_node_", "wattribute_product_")
WORKER = """
import sys, time
for line in sys.stdin:
    until = time.process_time() + float(line)
    while time.process_time() < until: pass
    print(flush=True)
"""


class HandClock:
    """Boot time and wall time, moved by hand."""

    def __init__(self) -> None:
        self.boot_ns = 1000 * S
        self.unix_ns = 1_700_000_000 * S
        self.suspended_ns = 0
        self.on_pass: Callable[[int], None] = lambda duration_ns: None

    def monotonic_ns(self) -> int:
        return self.boot_ns

    def time_ns(self) -> int:
        return self.unix_ns

    def asleep_ns(self) -> int:
        return self.suspended_ns

    def pass_(self, seconds: float) -> None:
        self.boot_ns += round(seconds * S)
        self.unix_ns += round(seconds * S)
        self.on_pass(round(seconds * S))


class Worker:
    """A process that burns CPU time when told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def burn(self, cpu_s: float = 0.01) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{cpu_s}\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Bench:
    """One node that can be killed and opened again; checks every page against the one before."""

    def __init__(self, folder: Path, package: Package) -> None:
        self.clock = HandClock()
        self.boot = "boot-1"
        self.package = package
        self.text = ""
        self.dram_uj = 3_000_000
        self.collectors = 'modelled = "off"\nnvml = "off"'
        self.paths = f'sys = "{folder}/sys"'
        self.kernel: Processes | None = None  # this machine's own
        self.attribution = "cpu_idle_w = 10"
        self.peer_uid = 0
        self.patience_s = 5.0  # a test's machine may be busy
        self.open_reader: OpenReader = read_only
        self._folder = folder
        self._before: dict[tuple[str, tuple[tuple[str, str], ...]], Decimal] = {}
        self._node: Node | None = None

    @property
    def node(self) -> Node:
        assert self._node is not None
        return self._node

    def close(self) -> None:
        """Stop without a last tick."""
        if self._node is not None:
            self._node.close()

    def open(self, text: str | None = None, *, collectors: str | None = None) -> Node:
        """Begin, or go on from what the ledger has; without arguments as configured before."""
        self.text = self.text if text is None else text
        self.collectors = self.collectors if collectors is None else collectors
        path = self._folder / "wattribute.toml"
        path.write_text(
            f'[agent]\nstate_dir = "{self._folder}/state"\n[paths]\n{self.paths}\n'
            f"[attribution]\n{self.attribution}\n[collectors]\n{self.collectors}\n{self.text}"
        )
        loaded: Loaded = load(path, {}, {})
        config: Config = loaded.config
        state_dir = Path(config.agent.state_dir)
        record = Record.open(
            state_dir,
            node_id="n",
            boot=self.boot,
            clock=self.clock,
            patience_s=self.patience_s,
            open_reader=self.open_reader,
        )
        self._courier = Courier(config, "n", self.clock)
        self._courier.work()
        self._node = open_node(
            loaded, "daemon", "n", self.clock, record, courier=self._courier, kernel=self.kernel, inline=True
        )
        return self._node

    def hear(self) -> None:
        """What the courier's thread would do by now."""
        self._courier.work(hurry=True)

    def kill(self) -> None:
        """As kill -9 after the last commit: nothing is said."""
        self.node.flush()
        self.node.close()

    def restart(self, text: str | None = None) -> None:
        self.kill()
        self.open(text)
        self.tick(0)

    def reboot(self) -> None:
        self.kill()
        self.boot += "x"
        self.clock.boot_ns = 5 * S
        self.package.package.reset()
        self.open()
        self.tick(0)

    def tick(self, seconds: float = 1.0, cpu_uj: float = 50_000_000) -> None:
        self.clock.pass_(seconds)
        self.package.package.add(round(cpu_uj * seconds))
        if self.package.dram is not None and self.dram_uj:
            self.package.dram.add(round(self.dram_uj * seconds))
        self.node.tick(patience_ns=2 * S)
        self.node.show()

    def start(self, job_id: str, pid: int, member: str = "m", **fields: Any) -> dict[str, Any]:
        answer = self.node.start(
            JobStart(id=1, job_id=job_id, member=member, pid=pid, **fields), Peer(pid, self.peer_uid, 0)
        )
        self.tick(0.05)
        return answer

    def end(self, job_id: str, pid: int, member: str = "m") -> None:
        self.node.end(JobEnd(id=1, job_id=job_id, member=member), Peer(pid, self.peer_uid, 0))
        self.tick(0.05)

    def receipt(self, job_id: str) -> dict[str, Any]:
        receipt = self.node.receipt(job_id)
        assert receipt is not None
        return receipt

    def page(self, *, whole: bool = True) -> list[Sample]:
        """What is shown adds up (if there is something yet), and nothing has fallen."""
        self.node.flush()
        samples = self.look()
        if whole:
            check_identities(samples)
        return samples

    def forget(self, job_id: str) -> None:
        """A job that comes back after it was folded begins its series anew."""
        self._before = {key: value for key, value in self._before.items() if ("job_id", job_id) not in key[1]}

    def look(self) -> list[Sample]:
        """What is shown now, without waiting for the disk: no series has fallen, nor any sum over jobs."""
        samples = parse(Site(self.node).metrics_text().decode())
        now = {}
        for s in samples:
            if s.name.endswith("_total") and s.name.startswith(KEPT):
                now[s.name, tuple(sorted(s.labels.items()))] = s.value
                rest = tuple(sorted((k, v) for k, v in s.labels.items() if k != "job_id"))
                now["sum of " + s.name, rest] = now.get(("sum of " + s.name, rest), Decimal(0)) + s.value
        for key, value in self._before.items():
            gone = not key[0].startswith("sum of") and dict(key[1]).get("job_id", "_")[0] != "_"
            if key in now or not gone:
                assert now.get(key, Decimal(0)) >= value, (key, value, now.get(key))
        self._before = now
        return samples

    def joules(self, job_id: str) -> Decimal:
        return total(self.page(), "wattribute_job_energy_joules_total", job_id=job_id)
