"""Requests to a Node's methods, and the answers that wait for a closing read. The same with and without a daemon."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from wattribute.agent.control import Deferred
from wattribute.agent.core.errors import Refused
from wattribute.agent.requests import (
    PROTOCOL,
    Basis,
    Health,
    Hello,
    JobEnd,
    JobReceipt,
    Jobs,
    JobStart,
    JobUpdate,
    Peer,
    Request,
    Units,
)


class NodeLike(Protocol):
    """What the socket needs of agent/node.py's Node."""

    @property
    def basis(self) -> Basis: ...
    @property
    def node_id(self) -> str: ...
    def start(self, request: JobStart, peer: Peer) -> dict[str, Any]: ...
    def end(self, request: JobEnd, peer: Peer) -> dict[str, Any]: ...
    def update(self, request: JobUpdate, peer: Peer) -> dict[str, Any]: ...
    def receipt(self, job_id: str) -> dict[str, Any] | None: ...
    def settled(self, job_id: str) -> bool: ...
    def jobs(self) -> list[dict[str, Any]]: ...
    def health(self) -> dict[str, Any]: ...
    def units(self, request: Units, peer: Peer) -> dict[str, Any]: ...


class Dispatch:
    """The control server's handler. `settle` is called after every tick; `interval_s` is the time between two."""

    def __init__(
        self, node: NodeLike, *, interval_s: float, version: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._node = node
        self._interval_s = interval_s
        self._version = version
        self._clock = clock
        self._waiting: list[tuple[str, float, Deferred]] = []

    def __call__(self, request: Request, peer: Peer) -> Mapping[str, object] | Deferred:
        """Carries one request out. Raises Refused."""
        match request:
            case Hello():
                return {
                    "protocol": PROTOCOL,
                    "version": self._version,
                    "node": self._node.node_id,
                    "basis": self._node.basis,
                    "interval_s": self._interval_s,
                }
            case JobStart():
                return {**self._node.start(request, peer), "interval_s": self._interval_s}
            case JobEnd():
                return self._node.end(request, peer)
            case JobUpdate():
                return self._node.update(request, peer)
            case JobReceipt():
                return self._receipt(request)
            case Jobs():
                return {"jobs": self._node.jobs()}
            case Health():
                return self._node.health()
            case Units():
                return {**self._node.units(request, peer), "interval_s": self._interval_s}

    def settle(self) -> None:
        """Answers those whose closing read is in, or who have waited for two intervals."""
        now_s, still = self._clock(), []
        for job_id, until_s, deferred in self._waiting:
            if now_s >= until_s or self._node.settled(job_id):
                deferred.resolve({"receipt": self._node.receipt(job_id)})
            else:
                still.append((job_id, until_s, deferred))
        self._waiting = still

    def _receipt(self, request: JobReceipt) -> Mapping[str, object] | Deferred:
        receipt = self._node.receipt(request.job_id)
        if receipt is None:
            raise Refused(f"no job {request.job_id!r} is known here")
        # While other members go on there is no closing read to wait for: the receipt is of what was used so far.
        if not request.wait or receipt["ended_at"] is None or self._node.settled(request.job_id):
            return {"receipt": receipt}
        deferred = Deferred()
        self._waiting.append((request.job_id, self._clock() + 2 * self._interval_s, deferred))
        return deferred


__all__ = ["Dispatch", "NodeLike"]
