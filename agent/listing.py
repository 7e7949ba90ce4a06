"""Answers to `jobs`, made some milliseconds at a time: thousands of receipts take half a second, and a start waits.

One list is made at a time, each of one moment. Who asks meanwhile gets the next one, together with those who may see as
much: neither memory nor work grows with how many ask.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from wattribute.agent import wire
from wattribute.agent.control import Deferred
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.requests import Peer

log = logging.getLogger("wattribute")

SLICE_S = 0.005


class Lister(Protocol):
    """What is needed of agent/node.py's Node. `jobs` tells of the moment at which it is called."""

    def jobs(self, peer: Peer | None = None) -> Iterator[dict[str, Any]]: ...
    def sees_all(self, peer: Peer | None) -> bool: ...
    def booked_ns(self, peer: Peer | None = None) -> int: ...


class _Asked(NamedTuple):
    """Those who wait for the same list."""

    peer: Peer
    waiting: list[Deferred]


class _List:
    """One answer, as far as it is made, of the moment of its first piece."""

    def __init__(self, node: Lister, peer: Peer) -> None:
        self._node = node
        self._peer = peer
        self._head: dict[str, object] = {}
        self._receipts: Iterator[dict[str, Any]] = iter(())
        self._rows: list[dict[str, Any]] = []
        self._encoded: list[bytes] = []

    def go_on(self, clock: Callable[[], float]) -> Mapping[str, object] | None:
        """Make more of it; the answer, once it is all there."""
        until_s = clock() + SLICE_S
        if not self._head:
            node, peer = self._node, self._peer
            self._head = {"at_ns": node.booked_ns(peer), "seen": "all" if node.sees_all(peer) else "own"}
            self._receipts = node.jobs(peer)
        for receipt in self._receipts:
            self._rows.append(receipt)
            if clock() > until_s:
                self._encoded.append(wire.encoded(self._rows))
                self._rows = []
                return None
        return {
            **self._head,
            "jobs": wire.joined([*self._encoded, wire.encoded(self._rows)]) if self._encoded else self._rows,
        }


class Listing:
    """Lists that are being made, for the agent's loop: while `busy`, it calls `work` in each of its turns."""

    def __init__(self, node: Lister, clock: Callable[[], float]) -> None:
        self._node = node
        self._clock = clock
        self._asked: dict[int | None, _Asked] = {}  # by uid; None: of those who see all
        self._making: tuple[_List, list[Deferred]] | None = None
        self._ready: deque[tuple[Deferred, Mapping[str, object] | WattributeError]] = deque()

    @property
    def busy(self) -> bool:
        """Whether somebody waits for a list."""
        return bool(self._making or self._ready or self._asked)

    def ask(self, peer: Peer) -> Mapping[str, object] | Deferred:
        """The jobs that a peer may know of: at once, where they are few and nobody else waits."""
        deferred = Deferred()
        if self.busy:
            seen = None if self._node.sees_all(peer) else peer.uid
            self._asked.setdefault(seen, _Asked(peer, [])).waiting.append(deferred)
            return deferred
        made = _List(self._node, peer)
        answer = made.go_on(self._clock)
        if answer is not None:
            return answer
        self._making = made, [deferred]
        return deferred

    def work(self) -> None:
        """Give one answer, or make some milliseconds' worth of a list."""
        if self._ready:
            deferred, answer = self._ready.popleft()
            deferred.resolve(answer)
        elif self._making is not None:
            made, waiting = self._making
            done: Mapping[str, object] | WattributeError | None
            try:
                done = made.go_on(self._clock)
            except Exception:  # as in control.carried_out: nobody else is there to catch it
                log.exception("op Jobs failed")
                done = WattributeError("the agent failed at that; its log has the traceback")
            if done is not None:
                self._making = None
                self._ready.extend((deferred, done) for deferred in waiting)
        elif self._asked:
            asked = self._asked.pop(next(iter(self._asked)))
            if waiting := [deferred for deferred in asked.waiting if deferred.wanted()]:
                self._making = _List(self._node, asked.peer), waiting


__all__ = ["Lister", "Listing"]
