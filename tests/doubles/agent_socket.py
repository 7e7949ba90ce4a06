"""An agent on a socket of its own, in a thread: the real server and dispatch, over whatever node it is given."""

import selectors
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from tests.doubles.fake_node import FakeNode
from wattribute.agent.control import ControlServer, Deferred
from wattribute.agent.dispatch import Dispatch
from wattribute.agent.requests import Peer, Request


class AgentOnSocket:
    """Serves until the end of its `with`. `frozen` makes it accept and say nothing."""

    def __init__(self, path: Path, node: FakeNode | None = None, interval_s: float = 0.05) -> None:
        self.path = path
        self.node = node or FakeNode()
        self.frozen = threading.Event()
        self._stop = False
        self._interval_s = interval_s
        self._selector = selectors.DefaultSelector()
        self._dispatch = Dispatch(self.node, interval_s=interval_s, version="0")
        self.server = ControlServer(self._selector, path, self._handle)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _handle(self, request: Request, peer: Peer) -> Mapping[str, object] | Deferred:
        return self._dispatch(request, peer)

    def _run(self) -> None:
        due_s = 0.0
        while not self._stop:
            if self.frozen.is_set():
                time.sleep(0.01)
                continue
            for key, mask in self._selector.select(0.01):
                key.data(mask)
            self._dispatch.work()
            if time.monotonic() >= due_s:
                self.node.tick()
                self._dispatch.settle()
                self.server.expire(time.monotonic())
                due_s = time.monotonic() + self._interval_s

    def stop(self) -> None:
        self._stop = True
        if self._thread.is_alive():
            self._thread.join()
            self.server.close()
            self._selector.close()

    def __enter__(self) -> "AgentOnSocket":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
