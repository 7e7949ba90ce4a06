"""Processes as /proc and the per-process CPU clocks tell of them (proc(5), clock_getcpuclockid(3)).

The clock is nanoseconds of the whole thread group, without its reaped children; it needs no privilege and works until
the process is reaped. A stat line's cutime and cstime are whole ticks, each rounded down.
"""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.following import Stat

LINE_MAX = 1024
MAKE_PROCESS_CPUCLOCK_SCHED = 2  # include/linux/posix-timers_types.h: CPUCLOCK_SCHED of a process, not of a thread


class ProcFs:
    """The `Kernel` of Linux. What is text comes from `proc`; clocks are the running kernel's.

    Raises SensorUnavailable where `proc` isn't this process's own (a container without the host's pids), or where
    the kernel has no such clocks.
    """

    ascending = True

    def __init__(self, proc: Path) -> None:
        self.clock_ns = time.clock_gettime_ns
        self._tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        self.slack_ns = 2 * self._tick_ns
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._proc = str(proc)
        self._loadavg = -1
        self._check(proc)
        try:
            self._loadavg = os.open(proc / "loadavg", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SensorUnavailable(f"{proc}/loadavg: {error.strerror}", "mount /proc, or set paths.proc") from error

    def _check(self, proc: Path) -> None:
        try:
            ours = str((proc / "self").readlink())
        except OSError:
            ours = str(os.getpid())  # a tree made by hand
        if ours != str(os.getpid()):
            raise SensorUnavailable(
                f"{proc} shows another process namespace than ours (we are {ours} there)",
                "run the agent in the host's process namespace (hostPID: true, --pid=host)",
            )
        try:
            self.clock_ns(self.clock_id(os.getpid()))
        except OSError as error:
            raise SensorUnavailable(
                f"this kernel has no per-process CPU clocks: {error.strerror}", "run outside the sandbox"
            ) from error

    def clock_id(self, pid: int) -> int:
        """What clock_getcpuclockid(3) returns."""
        return (~pid << 3) | MAKE_PROCESS_CPUCLOCK_SCHED

    def is_there(self, pid: int) -> bool:
        """Whether a process has this pid. A thread's clock can't be had this way, but for the calling thread's."""
        if pid == threading.get_native_id() and pid != os.getpid():
            return False
        try:
            self.clock_ns(self.clock_id(pid))
        except OSError:
            return False
        return True

    def last_pid(self) -> int:
        """The last pid that was handed out: the last field of /proc/loadavg."""
        return int(os.pread(self._loadavg, 128, 0).rpartition(b" ")[2])

    def pids(self) -> Sequence[int]:
        """All processes, zombies too."""
        # Not iterdir(): a Path for each of 600 names costs more than all the rest of a tick.
        return [int(name) for name in os.listdir(self._proc) if name.isdecimal()]  # noqa: PTH208

    def stat(self, pid: int) -> Stat | None:
        """A process as its stat line has it; None where there is none, or none for us to see."""
        return self.parse(self._line(pid))

    def has_ended(self, pid: int) -> bool:
        """Whether a process is a zombie with no thread left, or gone."""
        fields = self._line(pid).rpartition(b") ")[2].split(b" ", 18)
        return len(fields) < 19 or (fields[0] in b"ZX" and int(fields[17]) <= 1)

    def _line(self, pid: int) -> bytes:
        try:
            fd = os.open(f"{self._proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.read(fd, LINE_MAX)
        except OSError:  # ESRCH: gone since
            return b""
        finally:
            os.close(fd)

    def parse(self, line: bytes) -> Stat | None:
        """The name (field 2) may hold anything, brackets and blanks too; None where the line isn't one."""
        fields = line.rpartition(b") ")[2].split(b" ", 22)
        try:
            return Stat(
                parent_pid=int(fields[1]),
                start_ticks=int(fields[19]),
                reaped_ns=(int(fields[13]) + int(fields[14])) * self._tick_ns,
                memory_bytes=int(fields[21]) * self._page_bytes,
            )
        except (IndexError, ValueError):
            return None

    def close(self) -> None:
        """Give the file back."""
        if self._loadavg >= 0:
            os.close(self._loadavg)
            self._loadavg = -1
