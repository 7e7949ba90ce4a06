"""Tells when watched processes end, zombies included: pidfd_open(2) and one epoll for all, a microsecond a question."""

import os
import resource
import select

from wattribute.agent.core.model import ProcessId


class Ends:
    """Ended processes of those added. One that can't be had (an old kernel, too few file descriptors) stays untold."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._processes: dict[int, ProcessId] = {}
        self._fds: dict[ProcessId, int] = {}
        # Half of what the process may open is for others: a job too many must not cost the ledger its file.
        self._fds_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2

    def add(self, process: ProcessId) -> bool:
        """Wait for a process's end. The caller makes sure afterwards that the pid is still this process's."""
        if len(self._fds) >= self._fds_max or not hasattr(os, "pidfd_open"):
            return False
        try:
            fd = os.pidfd_open(process.pid)
        except OSError:
            return False
        self._epoll.register(fd, select.EPOLLIN)
        self._fds[process] = fd
        self._processes[fd] = process
        return True

    def discard(self, process: ProcessId) -> None:
        """Stop waiting."""
        fd = self._fds.pop(process, None)
        if fd is not None:
            del self._processes[fd]
            self._epoll.unregister(fd)
            os.close(fd)

    def ended(self) -> list[ProcessId]:
        """Those that ended since the last call; each is told once."""
        if not self._fds:
            return []
        ended = [self._processes[fd] for fd, _ in self._epoll.poll(0, len(self._fds))]
        for process in ended:
            self.discard(process)
        return ended

    def close(self) -> None:
        """Give all files back."""
        for process in list(self._fds):
            self.discard(process)
        self._epoll.close()
