"""Requests to a Node's methods, and the answers that wait for a closing read. The same with and without a daemon."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from wattribute.agent.control import Deferred
from wattribute.agent.core.errors import Refused
from wattribute.agent.gpu_release import GpuHold
from wattribute.agent.requests import (
    PROTOCOL,
    Basis,
    GpuRelease,
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
    @property
    def gpu_hold(self) -> GpuHold: ...
    def start(self, request: JobStart, peer: Peer) -> dict[str, Any]: ...
    def end(self, request: JobEnd, peer: Peer) -> dict[str, Any]: ...
    def update(self, request: JobUpdate, peer: Peer) -> dict[str, Any]: ...
    def receipt(self, job_id: str, peer: Peer | None = None) -> dict[str, Any] | None: ...
    def settled(self, job_id: str) -> bool: ...
    def jobs(self, peer: Peer | None = None) -> list[dict[str, Any]]: ...
    def sees_all(self, peer: Peer | None) -> bool: ...
    def booked_ns(self, peer: Peer | None = None) -> int: ...
    def health(self, peer: Peer | None = None) -> dict[str, Any]: ...
    def units(self, request: Units, peer: Peer) -> dict[str, Any]: ...


LET_GO_S = 10.0
"""So long is waited for the driver's call that the sensor is in; then the answer says that it hangs."""


class _Waiting(NamedTuple):
    """An answer that comes when `done`, or at `until_s`."""

    done: Callable[[], bool]
    until_s: float
    answer: Callable[[], Mapping[str, object]]
    deferred: Deferred


class Dispatch:
    """The control server's handler. `settle` is called after every tick; `interval_s` is the time between two."""

    def __init__(
        self, node: NodeLike, *, interval_s: float, version: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._node = node
        self._interval_s = interval_s
        self._version = version
        self._clock = clock
        self._waiting: list[_Waiting] = []

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
                return self._receipt(request, peer)
            case Jobs():
                return {
                    "at_ns": self._node.booked_ns(peer),
                    "seen": "all" if self._node.sees_all(peer) else "own",
                    "jobs": self._node.jobs(peer),
                }
            case Health():
                return self._node.health(peer)
            case GpuRelease():
                hold = self._node.gpu_hold
                hold.ask(request, peer)
                return self._when(lambda: hold.done, LET_GO_S, hold.state)
            case Units():
                return {**self._node.units(request, peer), "interval_s": self._interval_s}

    def settle(self) -> None:
        """Answers those whose closing read is in, or who have waited long enough (for it: two intervals)."""
        now_s, still = self._clock(), []
        for waiting in self._waiting:
            if now_s >= waiting.until_s or waiting.done():
                waiting.deferred.resolve(waiting.answer())
            else:
                still.append(waiting)
        self._waiting = still

    def _when(
        self, done: Callable[[], bool], patience_s: float, answer: Callable[[], Mapping[str, object]]
    ) -> Mapping[str, object] | Deferred:
        if done():
            return answer()
        waiting = _Waiting(done, self._clock() + patience_s, answer, Deferred())
        self._waiting.append(waiting)
        return waiting.deferred

    def _receipt(self, request: JobReceipt, peer: Peer) -> Mapping[str, object] | Deferred:
        receipt = self._node.receipt(request.job_id, peer)
        if receipt is None:  # another user's job is as unknown as one that isn't there
            raise Refused(f"no job {request.job_id!r} is known here")
        # While other members go on there is no closing read to wait for: the receipt is of what was used so far.
        if not request.wait or receipt["ended_at"] is None:
            return {"receipt": receipt}
        job_id = request.job_id
        return self._when(
            lambda: self._node.settled(job_id),
            2 * self._interval_s,
            lambda: {"receipt": self._node.receipt(job_id, peer)},
        )


__all__ = ["Dispatch", "NodeLike"]
