"""Requests to a Node's methods, and the answers that wait: for a closing read, for the ledger's disk, for their length.

The same with and without a daemon. Nothing here waits itself: the loop calls `work` and `settle`.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from wattribute.agent.control import Deferred, carried_out
from wattribute.agent.core.errors import Refused
from wattribute.agent.gpu_release import GpuHold
from wattribute.agent.listing import Lister, Listing
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


class NodeLike(Lister, Protocol):
    """What the socket needs of agent/node.py's Node."""

    @property
    def basis(self) -> Basis: ...
    @property
    def node_id(self) -> str: ...
    @property
    def gpu_hold(self) -> GpuHold: ...
    def recall(self, job_id: str, owner: int | None = None) -> list[threading.Event]: ...
    def start(self, request: JobStart, peer: Peer) -> dict[str, Any]: ...
    def end(self, request: JobEnd, peer: Peer) -> dict[str, Any]: ...
    def update(self, request: JobUpdate, peer: Peer) -> dict[str, Any]: ...
    def receipt(self, job_id: str, peer: Peer | None = None) -> dict[str, Any] | None: ...
    def settled(self, job_id: str) -> bool: ...
    def health(self, peer: Peer | None = None) -> dict[str, Any]: ...
    def units(self, request: Units, peer: Peer) -> dict[str, Any]: ...


LET_GO_S = 10.0
"""So long is waited for the driver's call that the sensor is in; then the answer says that it hangs."""


START_S, RECEIPT_S = 0.08, 2.0
"""So long a start or a receipt waits for what the ledger knows of it: a job waits 0.1 s, then it measures itself."""
LOOK_S = 0.005
"""So often whoever waits for a user's name is looked after: unlike the ledger's, that answer wakes nobody."""

_Answer = Callable[[], Mapping[str, object] | Deferred]


class _Waiting(NamedTuple):
    """An answer that comes when `done`, or at `until_s`."""

    done: Callable[[], bool]
    until_s: float
    answer: _Answer
    deferred: Deferred

    def resolve(self) -> None:
        """Give it, if anybody is left to take it."""
        if not self.deferred.wanted():
            self.deferred.resolve(Refused("whoever asked has left"))
            return
        answer = carried_out(self.answer, "that was waited for")
        if isinstance(answer, Deferred):  # it has to wait once more
            answer.wanted = self.deferred.wanted
            answer.on_answer(self.deferred.resolve)
        else:
            self.deferred.resolve(answer)


class Dispatch:
    """The control server's handler. `settle` is called after every tick; `interval_s` is the time between two.

    `work` is called in every turn of the loop, which turns again within `wait_s`.
    """

    def __init__(
        self, node: NodeLike, *, interval_s: float, version: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._node = node
        self._interval_s = interval_s
        self._version = version
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._recalling: list[_Waiting] = []
        self._listing = Listing(node, clock)

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
                return self._recalled(
                    request.job_id,
                    peer.uid,
                    START_S,
                    lambda: {**self._node.start(request, peer), "interval_s": self._interval_s},
                )
            case JobEnd():
                return self._node.end(request, peer)
            case JobUpdate():
                return self._node.update(request, peer)
            case JobReceipt():
                return self._recalled(request.job_id, None, RECEIPT_S, lambda: self._receipt(request, peer))
            case Jobs():
                return self._listing.ask(peer)
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
        self._waiting = self._resolved(self._waiting)

    @property
    def wait_s(self) -> float:
        """After how many seconds `work` is to be called again at the latest."""
        if self._listing.busy:
            return 0.0
        due_s = min((waiting.until_s for waiting in self._recalling), default=math.inf)
        return min(max(0.0, due_s - self._clock()), LOOK_S if self._recalling else math.inf)

    def work(self) -> None:
        """Answers those whose job the ledger has told of, or who can't wait for it; makes more of a long answer."""
        if self._recalling:
            self._recalling = self._resolved(self._recalling)
        if self._listing.busy:
            self._listing.work()

    def _resolved(self, all_waiting: list[_Waiting]) -> list[_Waiting]:
        """Resolves what can be; the rest."""
        now_s, still = self._clock(), []
        for waiting in all_waiting:
            if now_s >= waiting.until_s or waiting.done():
                waiting.resolve()
            else:
                still.append(waiting)
        return still

    def _recalled(
        self, job_id: str, owner: int | None, patience_s: float, answer: _Answer
    ) -> Mapping[str, object] | Deferred:
        """What is answered once the ledger has said what it knows of a job, and the system who its owner is.

        Raises NotYet.
        """
        awaited = [asked for asked in self._node.recall(job_id, owner) if not asked.is_set()]
        if not awaited:
            return answer()
        until_s = self._clock() + patience_s
        waiting = _Waiting(lambda: all(asked.is_set() for asked in awaited), until_s, answer, Deferred())
        self._recalling.append(waiting)
        return waiting.deferred

    def _when(self, done: Callable[[], bool], patience_s: float, answer: _Answer) -> Mapping[str, object] | Deferred:
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
            # It may have left the table by then.
            lambda: self._recalled(job_id, None, RECEIPT_S, lambda: {"receipt": self._node.receipt(job_id, peer)}),
        )


__all__ = ["Dispatch", "NodeLike"]
