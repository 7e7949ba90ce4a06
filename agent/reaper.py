"""Runs a command as a child that can't tell: signals, exit code and files are its own; orphans come to us.

As a child subreaper (prctl(2), Linux) this process inherits every descendant whose parent dies, daemons that fork
twice included, and waits for all of them, so that their CPU time ends up in its own accounts, exactly.
"""

import errno
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

NOT_FOUND = 127
NOT_EXECUTABLE = 126
_PR_SET_CHILD_SUBREAPER = 36
_SI_KERNEL = 0x80  # sigaction(2): sent by the kernel, so by the terminal, which tells its whole foreground group
_NAME_CHARS = 15


class CannotRun(Exception):
    """The command can't be started; `code` is what a shell would exit with."""

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code = code


class Outcome(NamedTuple):
    """How the command ended, as a shell has it (128+N for signal N), and what it left running."""

    code: int
    left_running: tuple[str, ...]


def find(command: str, environment: Mapping[str, str]) -> str:
    """The path of a command as exec*p(3) finds it. Raises CannotRun."""
    places = [""] if "/" in command else [place or "." for place in os.get_exec_path(environment)]
    denied = False
    for place in places:
        path = Path(place, command) if place else Path(command)
        try:
            if path.is_file() and os.access(path, os.X_OK):
                return str(path)
            denied = denied or (path.exists() and bool(command))
        except PermissionError:  # a folder that we may not look into: the next may have it
            denied = True
    if denied:
        raise CannotRun(f"{command}: not executable", NOT_EXECUTABLE)
    raise CannotRun(f"{command}: not found", NOT_FOUND)


class Reaper:
    """From its making on, signals wait for the command instead of ending this process, in threads started later too.

    They are never given back: the process ends with its command, and a late signal must not change the exit code.
    """

    def __init__(self) -> None:
        # An inherited "ignore" would let the kernel reap, and the exit code would be lost.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _forwarded() | {signal.SIGCHLD})

    def run(self, path: str, argv: Sequence[str], environment: Mapping[str, str]) -> Outcome:
        """Runs a program to its end; returns at once then, whatever it left behind. Raises CannotRun."""
        become_subreaper()
        missed: set[int] = {*signal.sigpending()}  # the terminal told its group before the command was in it
        child = self._spawn(path, list(argv), environment)
        while (status := _reap(child)) is None:
            number, from_terminal = _next_signal()
            if number != signal.SIGCHLD and (number in missed or not from_terminal):
                missed.discard(number)
                os.kill(child, number)  # not waited for yet, so the number is still its own
        ended = os.waitstatus_to_exitcode(status)
        return Outcome(128 - ended if ended < 0 else ended, _left_running())

    def _spawn(self, path: str, argv: list[str], environment: Mapping[str, str]) -> int:
        # Python ignores these two, and what is ignored is inherited; handlers of the rest end with exec.
        default = [signal.SIGPIPE, signal.SIGXFSZ]
        try:
            try:
                return os.posix_spawn(path, argv, environment, setsigmask=self._mask, setsigdef=default)
            except OSError as error:
                if error.errno != errno.ENOEXEC or _is_binary(path):
                    raise
                script = ["/bin/sh", path, *argv[1:]]  # a script without #!, as execvp(3) runs it
                return os.posix_spawn(script[0], script, environment, setsigmask=self._mask, setsigdef=default)
        except OSError as error:
            code = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
            raise CannotRun(f"{path}: {error.strerror}", code) from error


def _is_binary(path: str) -> bool:
    with open(path, "rb") as file:
        return b"\0" in file.read(80)  # as bash tells a script from a broken program


def become_subreaper() -> bool:
    """Asks the kernel for this process's orphaned descendants; False where there is no such thing."""
    if sys.platform != "linux":
        return False
    import ctypes

    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def _forwarded() -> set[int]:
    """Every signal that is the command's: all but those about this process itself, and job control's stops."""
    own = "KILL STOP CHLD TSTP TTIN TTOU CONT SEGV BUS FPE ILL ABRT TRAP SYS EMT PIPE XFSZ XCPU"
    names = {f"SIG{name}" for name in own.split()}
    return {number for number in signal.valid_signals() if getattr(number, "name", "") not in names}


def _next_signal() -> tuple[int, bool]:
    """The next signal, and whether the terminal sent it: then the command, in the same group, has it already."""
    waited = _forwarded() | {signal.SIGCHLD}
    of_terminal = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGWINCH)
    if sys.platform == "darwin":  # no sigwaitinfo
        number = signal.sigwait(waited)
        return number, number in of_terminal and os.isatty(0)
    info = signal.sigwaitinfo(waited)
    return info.si_signo, info.si_signo in of_terminal and info.si_code == _SI_KERNEL


def _reap(child: int) -> int | None:
    """Waits for all that have ended; the child's wait status if it is among them."""
    found = None
    while True:
        try:
            pid, status, _ = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status


def _left_running(proc: Path = Path("/proc")) -> tuple[str, ...]:
    """Names and numbers of the descendants that outlive the command (their own children not counted)."""
    if sys.platform != "linux":
        return ()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ()
    left = []
    try:
        pids = [int(pid) for task in (proc / "self/task").iterdir() for pid in (task / "children").read_text().split()]
        for pid in pids:
            stat = (proc / str(pid) / "stat").read_text(errors="replace")
            name, _, rest = stat.partition("(")[2].rpartition(")")
            if rest.split()[0] != "Z":
                shown = "".join(char if char.isprintable() else "?" for char in name[:_NAME_CHARS])
                left.append(f"{shown} (pid {pid})")
    except OSError:  # no such file, or one has ended meanwhile
        return (*left, "...")
    return tuple(left)


__all__ = ["CannotRun", "Outcome", "Reaper", "become_subreaper", "find"]
