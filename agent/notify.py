"""Tells systemd how the agent fares: sd_notify(3), a datagram of lines. Without NOTIFY_SOCKET it does nothing.

The watchdog is fed by finished ticks alone, so that an agent whose loop hangs is restarted, however alive it looks.
"""

import os
import socket
from collections.abc import MutableMapping

TICKS_TO_MISS = 3


class Notifier:
    """Takes the three variables out of the environment: no child of the agent's may speak in its name."""

    def __init__(self, environment: MutableMapping[str, str], *, interval_s: float) -> None:
        path = environment.pop("NOTIFY_SOCKET", "")
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        watched_pid = environment.pop("WATCHDOG_PID", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        self._watchdog = watchdog_us.isdecimal() and watched_pid in ("", str(os.getpid()))
        self._first = ["READY=1"]
        least_us = round(TICKS_TO_MISS * interval_s * 1e6)
        if self._watchdog and int(watchdog_us) < least_us:  # a slow tick is no hang
            self._first.append(f"WATCHDOG_USEC={least_us}")
        self._status = ""

    @property
    def listens(self) -> bool:
        """Whether anybody does: else a status needn't be made up."""
        return self._socket is not None

    def ticked(self, status: str) -> None:
        """A tick is over: ready with the first, alive with each, and how it stands, in one line. Never blocks."""
        lines = [*self._first]
        if self._watchdog:
            lines.append("WATCHDOG=1")
        if status != self._status:
            lines.append(f"STATUS={status}")
        if lines and self._send(lines):
            self._first, self._status = [], status

    def stopping(self) -> None:
        """The last ticks are being written down."""
        self._send(["STOPPING=1"])

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, lines: list[str]) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:  # full, or gone: what wasn't heard is said again after the next tick
            return False
        return True


__all__ = ["Notifier"]
