"""A node bench whose processes and cgroups are simulated: what they use is known to the nanosecond."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from tests.doubles.found_node import MS, FoundNode, ToldJobs, found_job
from tests.doubles.node_bench import Bench, S
from tests.doubles.powercap import Package
from wattribute.agent import job_sources
from wattribute.agent.core.found import FoundJob, GroupId
from wattribute.agent.node import Node
from wattribute.collectors import host
from wattribute.collectors.cgroup import usage
from wattribute.collectors.host import HostFacts

CPUS = 4
MEMORY_BYTES = 16 << 30


class FoundBench(Bench):
    """4 CPUs and 16 GiB. `sim` is the node, `source` tells its jobs (all of this test's user)."""

    def __init__(self, folder: Path, package: Package, hierarchy: Literal["v1", "v2"] = "v2") -> None:
        super().__init__(folder, package)
        self.sim = FoundNode(folder / "node", hierarchy)
        self.kernel = self.sim.kernel
        self.paths += f'\nproc = "{self.sim.cgroups.proc}"\ncgroup = "{self.sim.cgroups.cgroup}"'
        self.source = ToldJobs()
        self.peer_uid = os.getuid()
        self.told: dict[GroupId, FoundJob] = {}

    def open(self, text: str | None = None, *, collectors: str | None = None) -> Node:
        self.sim.cgroups.flush()
        facts = HostFacts(cpu_model="", cpus=CPUS, memory_bytes=MEMORY_BYTES, packages=1)
        with ExitStack() as patches:
            patches.enter_context(patch.object(host, "host_facts", lambda *_: facts))
            patches.enter_context(patch.object(job_sources, "job_sources", self._sources))
            # No file is kept open, so that a removed cgroup is gone for a reader, as it is for the kernel's.
            patches.enter_context(patch.object(usage, "_room", lambda: 0))
            return super().open(text, collectors=collectors)

    def _sources(self, config: object, tree: Any, *_: object) -> list[ToldJobs]:
        self.source.tree = tree
        return [self.source]

    def find(self, job_id: str, path: str, **fields: Any) -> GroupId:
        """A cgroup is there from now on, and the source tells it."""
        group = self.sim.make(path)
        self.told[group] = found_job(job_id, group, **fields)
        self.source.tell(*self.told.values())
        return group

    def lose(self, path: str) -> None:
        """Its processes end, it is removed, and the source tells it no longer."""
        self.told = {group: found for group, found in self.told.items() if group.path != path}
        self.source.tell(*self.told.values())
        self.sim.remove(path)

    def tick(self, seconds: float = 1.0, cpu_uj: float = 50_000_000) -> None:
        self.sim.cgroups.flush()
        self.sim.now_ns = self.clock.boot_ns
        super().tick(seconds, cpu_uj)
        self.node.flush()  # the ledger keeps up: real time doesn't pass here

    def start(self, job_id: str, pid: int, member: str = "m", **fields: Any) -> dict[str, Any]:
        self.sim.cgroups.flush()
        return super().start(job_id, pid, member, **fields)

    def end(self, job_id: str, pid: int, member: str = "m") -> None:
        self.sim.cgroups.flush()
        super().end(job_id, pid, member)

    def suspend(self, seconds: float) -> None:
        """Boot time and wall time go on; nothing else does."""
        self.clock.pass_(seconds)
        self.clock.suspended_ns += round(seconds * S)

    def cpu_ms(self, job_id: str) -> float:
        return float(self.receipt(job_id)["cpu_s"]) * S / MS

    def close(self) -> None:
        super().close()
        self.sim.close()
