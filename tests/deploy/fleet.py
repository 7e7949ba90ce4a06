"""A fleet of simulated nodes as a scrape's targets: each node by its own name, all on one server."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.deploy.stores import Scrape


class SimulatedFleet:
    """The servers of tests.doubles.many_nodes, one process; `late` are the instances that are missing at first."""

    def __init__(self, nodes: int, late: int, ports: Sequence[int]) -> None:
        self.nodes = nodes
        self.late = [_instance(number) for number in range(nodes - late, nodes)]
        self._ports = ports

    def scrape(self, interval: str) -> Scrape:
        """Targets node-0, node-1, ..: that name is the instance."""
        targets = []
        for number in range(self.nodes):
            labels = {"instance": _instance(number), "__metrics_path__": f"/node/{number}/metrics"}
            targets.append((f"127.0.0.1:{self._ports[number % len(self._ports)]}", labels))
        return Scrape("wattribute", targets, interval)

    def admit(self) -> None:
        """The late nodes answer from now on."""
        self._get("/admit")

    def freeze(self) -> dict[str, int]:
        """Nothing grows any more; the truth in uJ: big_uj, late_uj, nodes_uj."""
        found: dict[str, int] = json.loads(self._get("/freeze"))
        return found

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[0]}{path}", timeout=60) as answer:
            return answer.read()


def _instance(number: int) -> str:
    return f"node-{number}"


@contextmanager
def simulated_fleet(nodes: int, jobs: int, late: int) -> Iterator[SimulatedFleet]:
    """`nodes` of them with `jobs` each, the last `late` missing until they are admitted."""
    command = [sys.executable, "-m", "tests.doubles.many_nodes"]
    command += [f"--nodes={nodes}", f"--jobs={jobs}", f"--late={late}"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as server:
        assert server.stdout is not None
        try:
            yield SimulatedFleet(nodes, late, [int(port) for port in server.stdout.readline().split()])
        finally:
            server.terminate()
