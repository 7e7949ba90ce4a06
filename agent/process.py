"""What there is once in a process: its engine, if it measures itself, what it has already said, and its own clocks.

The one place with state of its own outside objects: jobs of a process share one engine, and a fork starts afresh.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from wattribute.agent.inprocess import Engine

_log = logging.getLogger("wattribute")
_SAID_MAX = 100  # names come from users: a loop over bad ones must not fill the memory


class Process:
    """What jobs of this process share. Replaced as a whole in a forked child: the parent's thread isn't there."""

    def __init__(self) -> None:
        self.stuck_until_s = float("-inf")
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._said: set[str] = set()

    def engine(self, environment: Mapping[str, str]) -> "Engine":
        """This process's engine, opened at the first call. Raises WattributeError where the configuration is wrong."""
        from wattribute import __version__
        from wattribute.agent.inprocess import open_engine

        with self._lock:
            if self._engine is None:
                self._engine = open_engine(environment, version=__version__)
            return self._engine

    def say_once(self, key: str, text: str, *values: object, exc_info: bool = False) -> None:
        """A warning of the logger `wattribute`, once: never an exception, also under `python -W error`."""
        if key not in self._said and len(self._said) < _SAID_MAX:
            self._said.add(key)
            _log.warning(text, *values, exc_info=exc_info)

    def hush(self, key: str) -> None:
        """Takes a warning as given: whoever calls says it in their own way."""
        self._said.add(key)

    def forked(self) -> "Process":
        """A child's: it measures itself afresh, and doesn't say again what has been said."""
        child = Process()
        child._said = set(self._said)
        return child


_here = Process()


def _after_fork() -> None:
    global _here
    _here = _here.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def here() -> Process:
    """The process that this code runs in."""
    return _here


def left_alone() -> bool:
    """Whether nobody is left but threads that don't count. A child that a thread forked lives as long as any thread."""
    return not threading.main_thread().is_alive() and all(thread.daemon for thread in threading.enumerate())


class Used(NamedTuple):
    """Clocks of this process at one moment: wall time, monotonic time, CPU time with that of reaped children."""

    unix_s: float
    monotonic_ns: int
    cpu_ns: int

    def since(self, began: "Used", *, ended: bool) -> dict[str, Any]:
        """The fields of a receipt that tell of the time between two moments."""
        return {
            "started_at": rfc3339(began.unix_s),
            "ended_at": rfc3339(self.unix_s) if ended else None,
            "duration_s": (self.monotonic_ns - began.monotonic_ns) / 1e9,
            "cpu_s": (self.cpu_ns - began.cpu_ns) / 1e9,
        }


def used_here() -> Used:
    """The clocks of this process, now."""
    return Used(time.time(), time.monotonic_ns(), time.process_time_ns() + (reaped_cpu_ns() or 0))


def reaped_cpu_ns() -> int | None:
    """CPU time of the children that this process has waited for: exact, in nanoseconds (getrusage(2)); None: no say."""
    if sys.platform == "win32":
        return None
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round((used.ru_utime + used.ru_stime) * 1e9)


def rfc3339(unix_s: float) -> str:
    """Wall time as RFC 3339 in UTC, to the millisecond."""
    whole_s = int(unix_s)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole_s))}.{int((unix_s - whole_s) * 1000):03d}Z"


__all__ = ["Process", "Used", "here", "left_alone", "reaped_cpu_ns", "rfc3339", "used_here"]
