"""Lets a process that begins or ends measuring itself tell those it descends from, who measure themselves as well.

They read their sensors at once, so that what the inner one used is billed to it alone, and not to both until the next
reading. An abstract Unix socket for each process (unix(7), Linux): no path, nothing to clean up. Only our own user's
rings count, and a ring that nobody answers within 50 ms is no harm: the next reading sees the marker.
"""

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable

from wattribute.agent.peer import peer_of

RING_S = 0.05


class Bell:
    """Answers rings in its caller's selectors loop, after `rung` has returned. Without a name to be had, it is mute."""

    def __init__(self, selector: selectors.BaseSelector, process: str, rung: Callable[[], None]) -> None:
        self._selector = selector
        self._rung = rung
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        with contextlib.suppress(OSError):
            self._listener.bind(_address(process))
            self._listener.listen(16)
            selector.register(self._listener, selectors.EVENT_READ, self._answer)

    def close(self) -> None:
        """Stops answering."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._listener)
        self._listener.close()

    def _answer(self, mask: int) -> None:
        try:
            link, _ = self._listener.accept()
        except OSError:  # whoever rang has left
            return
        with link:
            if peer_of(link).uid == os.getuid():
                self._rung()


def ring(processes: Iterable[str]) -> None:
    """Rings at each process (by its name in `markers`) and waits until it has answered, 50 ms in all at the most."""
    deadline_s = time.monotonic() + RING_S
    for process in processes:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(max(deadline_s - time.monotonic(), 0.001))
            link.connect(_address(process))
            link.recv(1)  # it hangs up when it has read its sensors


def _address(process: str) -> str:
    return f"\0wattribute/{os.getuid()}/{process}"


__all__ = ["Bell", "ring"]
