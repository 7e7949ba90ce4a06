"""What /proc says of one process: the environment it was started with, its owner and its title.

A process can overwrite its environment and its title: neither proves anything about it. Source: proc(5).
"""

import os
from collections.abc import Mapping

READ_BYTES = 4 * 2**20  # the kernel's default for arguments and environment together is a quarter of an 8 MiB stack


class ProcessFacts:
    """Reads below one /proc. Nothing here raises OSError: what can't be read, or is gone, is empty."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc

    def environment(self, pid: int) -> Mapping[str, str]:
        """Name -> value. Another user's needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH."""
        entries = self._read(pid, "environ").decode("utf-8", "replace").split("\0")
        return {name: value for name, equals, value in (entry.partition("=") for entry in entries) if equals}

    def owner(self, pid: int) -> int | None:
        """The real uid; None where the process is gone."""
        # Not the file's owner: that is root wherever a process may not be dumped.
        for line in self._read(pid, "status").split(b"\n"):
            if line.startswith(b"Uid:"):
                return int(line.split()[1])
        return None

    def title(self, pid: int) -> str:
        """The command line with spaces between the arguments."""
        return self._read(pid, "cmdline").rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")

    def _read(self, pid: int, name: str) -> bytes:
        try:
            fd = os.open(f"{self._proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            parts, left = [], READ_BYTES
            while left and (part := os.read(fd, min(left, 65536))):  # proc answers in pages
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
        except OSError:
            return b""
        finally:
            os.close(fd)
