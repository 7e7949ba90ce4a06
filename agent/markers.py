"""Says which processes of this user measure themselves right now, so that one inside another isn't billed twice.

One empty file a process, `<pid>-<start ticks>`, in a directory of this boot and pid namespace (a home directory may
be shared by machines and containers, where numbers mean other processes). Linux only: elsewhere there is nothing.
"""

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from wattribute.agent.core.model import ProcessId


def own_process(proc: Path = Path("/proc")) -> str:
    """This process's name for good, on every machine and across boots: `<boot id>-<pid namespace>/<pid>-<start>`."""
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        space = (proc / "self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:  # not Linux: by machine and moment
        import platform

        return f"{platform.node()}/{os.getpid()}-{time.time_ns()}"
    here = next(_lineage(os.getpid(), proc))
    return f"{boot}-{space}/{_name(here)}"


class Markers:
    """This process's marker among the others' below `place`. Trouble with the file system means no markers.

    `process` is this one by `own_process`.
    """

    def __init__(self, place: Path, process: str, proc: Path = Path("/proc")) -> None:
        self._space, _, name = process.partition("/")
        self._path = place / "inprocess" / self._space / name
        self._own = _parsed(name)
        self._proc = proc
        self._listed_ns = -1
        self._others: dict[ProcessId, bool] = {}  # whether it descends from this one

    @classmethod
    def of(cls, environment: Mapping[str, str], state_dir: Path | None, process: str) -> "Markers | None":
        """The user's markers, in the runtime directory, else among the state; None where there is no place for them."""
        runtime = environment.get("XDG_RUNTIME_DIR", "")
        place = Path(runtime, "wattribute") if runtime and os.access(runtime, os.W_OK) else state_dir
        return None if place is None or sys.platform != "linux" else cls(place, process)

    def raise_own(self) -> None:
        """From here on other processes of this user leave this one's tree to it."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))

    def lower_own(self) -> None:
        """Ends it."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def inside(self) -> set[ProcessId]:
        """The descendants of this process that measure themselves; what the dead left behind is removed."""
        self._list()
        return {process for process, inside in self._others.items() if inside}

    def around(self) -> list[str]:
        """The names of those that this process descends from and that measure themselves, the nearest first."""
        self._list()
        if not self._others:
            return []
        return [f"{self._space}/{_name(each)}" for each in _lineage(os.getpid(), self._proc) if each in self._others]

    def _list(self) -> None:
        try:
            state = self._path.parent.stat()
            if state.st_uid != os.getuid() or not stat.S_ISDIR(state.st_mode):
                return
            if state.st_mtime_ns != self._listed_ns:
                names = os.listdir(self._path.parent)  # noqa: PTH208 - once a second, names only
                # A file made within the same clock tick wouldn't move the time again: look once more then.
                fresh = time.time_ns() - state.st_mtime_ns < 100_000_000
                self._listed_ns = -1 if fresh else state.st_mtime_ns
                self._see({found for name in names if (found := _parsed(name)) and found != self._own})
        except OSError:
            self._others = {}
        for process in list(self._others):
            if next(_lineage(process.pid, self._proc), None) != process:
                del self._others[process]
                with contextlib.suppress(OSError):
                    self._path.with_name(_name(process)).unlink()

    def _see(self, found: set[ProcessId]) -> None:
        for process in found - self._others.keys():
            self._others[process] = any(each == self._own for each in _lineage(process.pid, self._proc))
        for process in self._others.keys() - found:
            del self._others[process]


def _name(process: ProcessId) -> str:
    return f"{process.pid}-{process.start_ticks}"


def _parsed(name: str) -> ProcessId | None:
    pid, separator, start = name.partition("-")
    digits = pid.isascii() and pid.isdigit() and start.isascii() and start.isdigit()
    return ProcessId(int(pid), int(start)) if separator and digits else None


def _lineage(pid: int, proc: Path) -> Iterator[ProcessId]:
    """A living process and those it descends from: fields 3, 4 and 22 of proc_pid_stat(5)."""
    while pid > 0:
        try:
            fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return
        if fields[0] in (b"Z", b"X"):
            return
        yield ProcessId(pid, int(fields[19]))
        pid = int(fields[1])


__all__ = ["Markers", "own_process"]
