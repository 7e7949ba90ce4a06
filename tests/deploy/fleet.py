"""A fleet of simulated nodes as a scrape's targets: each node by its own name, all on one server."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.deploy.stores import Scrape


class SimulatedFleet:
    """The server of tests.doubles.many_nodes as process `pid`."""

    def __init__(self, nodes: int, port: int, pid: int) -> None:
        self.nodes = nodes
        self.pid = pid
        self._port = port

    def scrape(self, interval: str) -> Scrape:
        """Targets node-0, node-1, ..; that name is the instance, and the path on the one server."""
        relabel = (
            {"source_labels": ["__address__"], "target_label": "instance"},
            {
                "source_labels": ["__address__"],
                "regex": r"node-(\d+)",
                "target_label": "__metrics_path__",
                "replacement": "/node/$1/metrics",
            },
            {"target_label": "__address__", "replacement": f"127.0.0.1:{self._port}"},
        )
        targets = [f"node-{number}" for number in range(self.nodes)]
        return Scrape("wattribute", targets, interval, relabel)

    def admit(self) -> None:
        """The late nodes answer from now on."""
        self._get("/admit")

    def freeze(self) -> dict[str, int]:
        """Nothing grows any more; the truth in uJ: big_uj, late_uj, nodes_uj."""
        found: dict[str, int] = json.loads(self._get("/freeze"))
        return found

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=60) as answer:
            return answer.read()


@contextmanager
def simulated_fleet(nodes: int, jobs: int, late: int) -> Iterator[SimulatedFleet]:
    """`nodes` of them with `jobs` each, the last `late` missing until they are admitted."""
    command = [sys.executable, "-m", "tests.doubles.many_nodes"]
    command += [f"--nodes={nodes}", f"--jobs={jobs}", f"--late={late}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as server:
        assert server.stdout is not None
        try:
            yield SimulatedFleet(nodes, int(server.stdout.readline()), server.pid)
        finally:
            server.terminate()
