"""Who a pid on a GPU is: a process for good, NVIDIA's MPS server, or nobody that we can see.

NVML tells pids alone. Which process that is, the caller of the collector knows; what it is called, /proc does.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from wattribute.agent.core.model import ProcessId

HIDDEN: Final = -1
"""Start time of a process that can't be identified: outside our pid namespace, or gone. It belongs to no job."""

_MPS: Final = "nvidia-cuda-mps"
"""The server and the control daemon of MPS; /proc cuts names at 15 characters (TASK_COMM_LEN), so both are this."""

_ROOT_NAMESPACE: Final = "pid:[4026531836]"
"""The pid namespace of the host, whose inode is fixed (PROC_PID_INIT_INO, include/linux/proc_ns.h)."""


def command_in(proc: Path) -> Callable[[int], str]:
    """Reads a process's name below a /proc; "" where there is no such process."""

    def command_of(pid: int) -> str:
        try:
            return (proc / str(pid) / "comm").read_text(errors="replace").strip()
        except OSError:
            return ""

    return command_of


def in_nested_namespace(proc: Path) -> bool:
    """Whether we live in a container's own pid namespace; no where that can't be told."""
    try:
        return (proc / "self/ns/pid").readlink().name != _ROOT_NAMESPACE
    except OSError:
        return False


class Processes:
    """The processes behind the pids of one collector's GPUs.

    `identify` gives the process behind a pid of our pid namespace, or None; `command_of` its name. `nested`: the
    driver may name one process by two pids (see `SmTime`).
    """

    def __init__(
        self,
        identify: Callable[[int], ProcessId | None],
        command_of: Callable[[int], str] = lambda pid: "",
        *,
        nested: bool = False,
    ) -> None:
        self.nested = nested
        self._identify = identify
        self._command_of = command_of
        self._identities: dict[int, ProcessId | None] = {}  # of one read: a process may hold contexts on all GPUs
        self._is_server: dict[ProcessId, bool] = {}

    def begin_read(self) -> None:
        """Pids may have been recycled since the read before; what is known of processes stays while they do."""
        now = {known for known in self._identities.values() if known is not None}
        self._is_server = {process: server for process, server in self._is_server.items() if process in now}
        self._identities.clear()

    def sort(self, pids: Iterable[int]) -> tuple[dict[int, ProcessId], dict[int, ProcessId]]:
        """Those who hold a context for themselves, and the MPS servers among them, by pid.

        A server's context stands for its clients', which are listed beside it. Where it is alone, it is a process
        like any other: somebody has to pay for the context.
        """
        tenants: dict[int, ProcessId] = {}
        servers: dict[int, ProcessId] = {}
        for pid in pids:
            known = self._known(pid)
            if known is not None and self._serves(known):
                servers[pid] = known
            else:
                tenants[pid] = known or ProcessId(pid, HIDDEN)
        return (tenants, servers) if tenants else (servers, {})

    def _known(self, pid: int) -> ProcessId | None:
        if pid not in self._identities:
            self._identities[pid] = self._identify(pid)
        return self._identities[pid]

    def _serves(self, process: ProcessId) -> bool:
        serves = self._is_server.get(process)
        if serves is None:
            serves = self._is_server[process] = self._command_of(process.pid).startswith(_MPS)
        return serves
