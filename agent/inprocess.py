"""The agent inside a process that found none: one Node, ticked by a thread of its own while jobs run.

All jobs of a process share one Engine. It reads the sensors once more at each start and end, keeps every job's
receipt on disk (each 30 s and at the end) and may serve a private control socket, so that children join its jobs.
"""

import atexit
import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from wattribute.agent.bell import Bell, ring
from wattribute.agent.control import ControlServer, Deferred
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.core.model import ProcessId
from wattribute.agent.dispatch import Dispatch, NodeLike
from wattribute.agent.markers import Markers
from wattribute.agent.process import left_alone
from wattribute.agent.requests import JobEnd, JobReceipt, JobStart, Peer, Request, Units
from wattribute.agent.stored import ReceiptFiles

AUTOSAVE_S = 30.0
EDGE_S = 0.05  # a reading younger than this serves another start or end too
LONELY_S = 5.0  # so often is looked whether anybody is left
KEPT = 256  # receipts of ended jobs that the node has let go of, for whoever reads them late
_NEVER = float("inf")


class LocalNode(NodeLike, Protocol):
    """What an Engine needs of a Node beyond what the socket does."""

    def tick(self) -> None: ...
    def tick_at_edge(self) -> None: ...
    def foreign(self, roots: set[ProcessId]) -> None: ...
    def close(self) -> None: ...


class Engine:
    """Owns `node` and a thread. Every method may be called from any thread.

    `interval_s` is the time between two readings. `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        node: LocalNode,
        *,
        process: str,
        files: ReceiptFiles,
        markers: Markers | None,
        interval_s: float,
        version: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pid = os.getpid()
        self.interval_s = interval_s
        self._node = node
        self._files = files
        self._markers = markers
        self._clock = clock
        self._lock = threading.RLock()
        self._open: set[str] = set()  # jobs whose closing read isn't in, or isn't on disk
        self._kept: dict[str, dict[str, Any]] = {}  # the latest last
        self._edge = False
        self._ticked_s = -_NEVER
        self._next_tick_s = self._next_save_s = _NEVER
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        self._dispatch = Dispatch(node, interval_s=interval_s, version=version, clock=clock)
        self._bell = None if markers is None else Bell(self._selector, process, self._tick)
        self._server: ControlServer | None = None
        self._next_expiry_s = _NEVER
        self._thread = threading.Thread(target=self._run, name="wattribute", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def peer(self) -> Peer:
        """This process, as the kernel would introduce it."""
        if not hasattr(os, "getuid"):  # Windows
            return Peer(pid=self.pid, uid=0, gid=0)
        return Peer(pid=self.pid, uid=os.getuid(), gid=os.getgid())

    def ask(self, request: JobStart | JobEnd | Units) -> Mapping[str, Any]:
        """Begins or ends a membership of this process, with a reading of the sensors; or takes in what a job of it has
        served. Raises Refused.
        """
        with self._lock:
            answer = self._carry_out(request, self.peer)
            assert not isinstance(answer, Deferred)  # only receipts are waited for
            if isinstance(request, Units):
                return answer
            if self._clock() - self._ticked_s >= EDGE_S:
                self._tick()
        self._wake_up()
        return answer

    def serve(self, socket_path: Path) -> None:
        """Lets this user's other processes join, as they would with the daemon. Raises WattributeError."""
        with self._lock:
            self._server = ControlServer(self._selector, socket_path, self._handle, mode=0o600, clock=self._clock)
            self._next_expiry_s = self._clock()
        self._wake_up()

    def receipt(self, job_id: str) -> dict[str, Any] | None:
        """What the job has used until now; its closing read, once it has ended. None for a job unknown here."""
        with self._lock:
            fresh = self._clock() - self._ticked_s < EDGE_S
            known = self._node.receipt(job_id)
            if known is None:
                return self._kept.get(job_id)
            if self._closed or self._node.settled(job_id) or (fresh and known["ended_at"] is None):
                return known
            self._tick()
            return self._node.receipt(job_id)

    def close(self) -> None:
        """Stops measuring. The receipts of jobs that still run are kept as they are. May be called twice."""
        with self._lock:
            if self._closed or os.getpid() != self.pid:
                return
            if self._open:
                self._tick()
            self._save(self._open)
            self._closed = True
            if self._open:
                self._leave()
        atexit.unregister(self.close)
        self._wake_up()
        self._thread.join()
        for part in (self._server, self._bell):
            if part is not None:
                part.close()
        self._selector.close()
        self._wake.close()
        self._woken.close()
        self._node.close()

    def _handle(self, request: Request, peer: Peer) -> Mapping[str, object] | Deferred:
        """What the control server calls, in the engine's thread and under its lock; edge reads follow the reply."""
        if isinstance(request, JobReceipt) and self._clock() - self._ticked_s >= EDGE_S:
            self._tick()
        return self._carry_out(request, peer)

    def _carry_out(self, request: Request, peer: Peer) -> Mapping[str, object] | Deferred:
        first = isinstance(request, JobStart) and not self._open
        if first and self._markers is not None:
            self._markers.raise_own()
            ring(self._markers.around())  # before the start: between the two nobody is billed, and never both
        try:
            answer = self._dispatch(request, peer)
        except WattributeError:
            if first:
                self._leave()
            raise
        if isinstance(request, JobStart | JobEnd):
            self._note(request)
        return answer

    def _leave(self) -> None:
        if self._markers is not None:
            self._markers.lower_own()
            ring(self._markers.around())

    def _note(self, request: JobStart | JobEnd) -> None:
        now_s = self._clock()
        if not self._open:
            self._next_save_s = now_s + AUTOSAVE_S
        self._open.add(request.job_id)
        self._next_tick_s = min(self._next_tick_s, max(now_s, self._ticked_s + EDGE_S))

    def _tick(self) -> None:
        if self._markers is not None:
            self._node.foreign(self._markers.inside())
        if self._edge:
            self._edge = False
            self._node.tick_at_edge()
        else:
            self._node.tick()
        self._ticked_s = self._clock()
        self._next_tick_s = self._ticked_s + self.interval_s
        self._dispatch.settle()
        done = {job_id for job_id in self._open if self._node.settled(job_id)}
        if done:
            self._keep(self._save(done))
            self._open -= done
        if done and not self._open:
            self._leave()
        if not self._open:
            self._next_tick_s = self._next_save_s = _NEVER

    def _save(self, job_ids: set[str]) -> list[dict[str, Any]]:
        receipts = [receipt for job_id in job_ids if (receipt := self._node.receipt(job_id)) is not None]
        for receipt in receipts:
            self._files.save(receipt)
        return receipts

    def _keep(self, receipts: list[dict[str, Any]]) -> None:
        for receipt in receipts:
            self._kept.pop(receipt["job_id"], None)
            self._kept[receipt["job_id"]] = receipt
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway
            self._wake.send(b"\0")

    def _drain(self, mask: int) -> None:
        self._woken.recv(4096)

    def _run(self) -> None:
        while True:
            due_s = min(self._next_tick_s, self._next_expiry_s)
            wait_s = min(max(due_s - self._clock(), 0.0), LONELY_S, self._dispatch.wait_s)
            ready = self._selector.select(wait_s)
            with self._lock:
                if self._closed:
                    return
                if left_alone():
                    self._save(self._open)
                    return
                for key, mask in ready:
                    if key.fd in self._selector.get_map():  # unless an event before it closed it
                        key.data(mask)
                self._dispatch.work()
                now_s = self._clock()
                if self._server is not None and now_s >= self._next_expiry_s:
                    self._server.expire(now_s)
                    self._next_expiry_s = now_s + 1.0
                if now_s >= self._next_tick_s:
                    self._tick()
                if now_s >= self._next_save_s:
                    self._save(self._open)
                    self._next_save_s = now_s + AUTOSAVE_S


def open_engine(environment: Mapping[str, str], *, version: str) -> Engine:
    """An Engine by the user's configuration. Raises WattributeError where that is wrong."""
    from wattribute.agent.config import load
    from wattribute.agent.identity import user_state_dir
    from wattribute.agent.markers import own_process
    from wattribute.agent.opening import open_in_process

    loaded = load(None, environment, {})
    home = user_state_dir(environment)
    state_dir = Path(home) if home else None
    if not loaded.is_default("agent.state_dir"):
        state_dir = Path(loaded.config.agent.state_dir)
    process = own_process()
    node = open_in_process(environment)
    interval_s = loaded.config.agent.interval_s
    return Engine(
        node,
        process=process,
        files=ReceiptFiles(state_dir, process),
        markers=Markers.of(environment, state_dir, process),
        interval_s=min(interval_s, 1.0) if node.wants_power_samples else interval_s,
        version=version,
    )


__all__ = ["Engine", "LocalNode", "open_engine"]
