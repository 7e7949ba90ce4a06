"""A Node that measures nothing: it keeps members as the real one does and counts what it is told."""

import threading
from collections.abc import Iterator
from typing import Any

from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import ProcessId
from wattribute.agent.gpu_release import GpuHold
from wattribute.agent.opening import SystemClock
from wattribute.agent.receipts import blank
from wattribute.agent.requests import Basis, JobEnd, JobStart, JobUpdate, Peer, Units


class FakeNode:
    """A job is closed by the tick after its end, unless `slow`; each tick of a running job is a joule."""

    def __init__(self, basis: Basis = "daemon") -> None:
        self.basis: Basis = basis
        self.node_id = "node-1"
        self.gpu_hold = GpuHold([], SystemClock(), ())
        self.slow = False
        self.ticks = 0
        self.closed = False
        self.foreign_roots: set[ProcessId] = set()
        self.starts: list[tuple[JobStart, Peer]] = []
        self.ends: list[tuple[JobEnd, Peer]] = []
        self._receipts: dict[str, dict[str, Any]] = {}
        self._members: dict[str, set[str]] = {}
        self._settled: set[str] = set()

    def start(self, request: JobStart, peer: Peer) -> dict[str, Any]:
        if request.product_id == "forbidden":
            raise Refused("job belongs to another user")
        there = self._receipts.get(request.job_id, {}).get("product_id", request.product_id)
        if request.product_id not in ("default", there):
            raise Refused(f"job works for product {there!r}")
        self.starts.append((request, peer))
        joined = bool(self._members.setdefault(request.job_id, set()))
        self._members[request.job_id].add(request.member)
        self._settled.discard(request.job_id)
        known = self._receipts.setdefault(
            request.job_id,
            blank(request.job_id, product_id=request.product_id, energy_uj=0, parent_job_id=request.parent_job_id),
        )
        known.update(ended_at=None, settled=False, members=len(self._members[request.job_id]), basis=self.basis)
        return {"job_id": request.job_id, "joined": joined, "notes": []}

    def end(self, request: JobEnd, peer: Peer) -> dict[str, Any]:
        members = self._members.get(request.job_id, set())
        if request.member not in members:
            raise Refused("no such member")
        self.ends.append((request, peer))
        members.discard(request.member)
        if not members:
            self._receipts[request.job_id]["ended_at"] = "2026-07-31T12:00:00.000Z"
        self._receipts[request.job_id]["notes"] += list(request.notes)
        return {"job_id": request.job_id}

    def update(self, request: JobUpdate, peer: Peer) -> dict[str, Any]:
        self._receipts[request.job_id]["labels"] = request.labels
        return {"job_id": request.job_id}

    def receipt(self, job_id: str, peer: Peer | None = None) -> dict[str, Any] | None:
        known = self._receipts.get(job_id)
        return None if known is None else {**known, "settled": self.settled(job_id)}

    def settled(self, job_id: str) -> bool:
        return job_id in self._settled

    def recall(self, job_id: str, owner: int | None = None) -> list[threading.Event]:
        return []

    def jobs(self, peer: Peer | None = None) -> Iterator[dict[str, Any]]:
        return iter(list(self._receipts.values()))

    def sees_all(self, peer: Peer | None) -> bool:
        return True

    def booked_ns(self, peer: Peer | None = None) -> int:
        return 1_000_000_000

    def health(self, peer: Peer | None = None) -> dict[str, Any]:
        return {"sources": []}

    def units(self, request: Units, peer: Peer) -> dict[str, Any]:
        return {"job_id": request.job_id, "until_ns": request.until_ns or 0, "windows": []}

    def tick_at_edge(self) -> None:
        self.tick()

    def tick(self) -> None:
        self.ticks += 1
        for job_id, known in self._receipts.items():
            if job_id not in self._settled and not (self.slow and known["ended_at"]):
                known["energy_uj"] += 1_000_000
                if known["ended_at"]:
                    self._settled.add(job_id)

    def foreign(self, roots: set[ProcessId]) -> None:
        self.foreign_roots = roots

    def close(self) -> None:
        self.closed = True
