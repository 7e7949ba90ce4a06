"""Says which processes of this user measure themselves right now, so that one inside another isn't billed twice.

One empty file a process, `<pid>-<start ticks>`, in a directory of this boot and pid namespace (a home directory may
be shared by machines and containers, where numbers mean other processes). Linux only: elsewhere there is nothing.
"""

import contextlib
import os
import stat
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from wattribute.agent.core.model import ProcessId


def start_ticks(pid: int, proc: Path = Path("/proc")) -> int | None:
    """When a process started, in clock ticks since boot: field 22 of proc_pid_stat(5); None if it has ended."""
    try:
        fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def own_process(proc: Path = Path("/proc")) -> str:
    """This process's name for good, on every machine and across boots: `<boot id>-<pid namespace>/<pid>-<start>`."""
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        space = (proc / "self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:  # not Linux: by machine and moment
        import platform

        return f"{platform.node()}/{os.getpid()}-{time.time_ns()}"
    return f"{boot}-{space}/{os.getpid()}-{start_ticks(os.getpid(), proc)}"


class Markers:
    """This process's marker among the others' below `folder`. Trouble with the file system means no markers."""

    def __init__(self, folder: Path, process: str, proc: Path = Path("/proc")) -> None:
        self._path = folder / process
        self._proc = proc
        self._listed_ns = -1
        self._others: set[ProcessId] = set()

    @classmethod
    def of(cls, environment: Mapping[str, str], state_dir: Path | None, process: str) -> "Markers | None":
        """The user's markers, in the runtime directory, else among the state; None where there is no place for them.

        `process` is this one by `own_process`.
        """
        runtime = environment.get("XDG_RUNTIME_DIR", "")
        place = Path(runtime, "wattribute") if runtime and os.access(runtime, os.W_OK) else state_dir
        if place is None or sys.platform != "linux":
            return None
        space, _, name = process.partition("/")
        return cls(place / "inprocess" / space, name)

    def raise_own(self) -> None:
        """From here on other processes of this user leave this one's tree to it."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))

    def lower_own(self) -> None:
        """Ends it."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def others(self) -> set[ProcessId]:
        """The other processes that measure themselves; what dead ones left behind is removed."""
        try:
            state = self._path.parent.stat()
            if state.st_uid != os.getuid() or not stat.S_ISDIR(state.st_mode):
                return set()
            if state.st_mtime_ns != self._listed_ns:
                names = os.listdir(self._path.parent)  # noqa: PTH208 - once a second, names only
                # A file made within the same clock tick wouldn't move the time again: look once more then.
                fresh = time.time_ns() - state.st_mtime_ns < 100_000_000
                self._listed_ns = -1 if fresh else state.st_mtime_ns
                self._others = {found for name in names if (found := _parsed(name)) and name != self._path.name}
        except OSError:
            return set()
        for process in list(self._others):
            if start_ticks(process.pid, self._proc) != process.start_ticks:
                self._others.discard(process)
                with contextlib.suppress(OSError):
                    self._path.with_name(f"{process.pid}-{process.start_ticks}").unlink()
        return set(self._others)


def _parsed(name: str) -> ProcessId | None:
    pid, separator, start = name.partition("-")
    digits = pid.isascii() and pid.isdigit() and start.isascii() and start.isdigit()
    return ProcessId(int(pid), int(start)) if separator and digits else None


__all__ = ["Markers", "own_process", "start_ticks"]
