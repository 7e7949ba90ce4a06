"""The files of a state directory: one agent at a time, readable by its owner only, bad ones moved aside.

ledger.db with its -wal and -shm, and ledger.lock. The lock is a flock, which the kernel gives back however its
holder dies. The lock's text says how far the ledger has come; it outlives the ledger and isn't synced, so that it is
exact after a kill, and behind (never ahead) after a power cut.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from wattribute.agent.core.errors import LedgerError

DATABASE = "ledger.db"
LOCK = "ledger.lock"
SIDE_FILES = ("", "-wal", "-shm")


class Mark(NamedTuple):
    """How far a ledger has come: its generation and its commits."""

    generation: int
    commits: int


class StateLock:
    """The exclusive hold of a state directory. Raises LedgerError where it can't be had."""

    def __init__(self, state_dir: Path) -> None:
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(state_dir / LOCK, flags, 0o600)
            leave_to_owner(self._fd, state_dir)
        except OSError as error:
            fix = "give --state-dir a directory that the agent may write to"
            if isinstance(error, PermissionError):  # an agent of another user's kept it, in or out of a container
                fix += f", or give it this one: sudo chown -R {os.geteuid()} {state_dir}"
            raise LedgerError(f"the ledger can't be kept in {state_dir}: {error.strerror}. Fix: {fix}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self._fields()
            os.close(self._fd)
            who = f"process {holder[2]}" if len(holder) == 3 else "another process"
            raise LedgerError(
                f"{state_dir} is in use: {who} keeps its ledger. Fix: stop that agent, or give this one another "
                "--state-dir"
            ) from error
        except OSError as error:
            os.close(self._fd)
            raise LedgerError(
                f"{state_dir} can't be locked: {error.strerror}. Fix: choose a --state-dir on a local file system"
            ) from error

    def mark(self) -> Mark:
        """What the last holder wrote; zeros where nothing is known."""
        fields = self._fields()
        return Mark(fields[0], fields[1]) if len(fields) == 3 else Mark(0, 0)

    def write(self, mark: Mark) -> None:
        """Note how far the ledger has come, after the commit that made it so."""
        text = b"%020d %020d %010d\n" % (mark.generation, mark.commits, os.getpid())
        # A mark left behind only notices less at the next start: no reason to call a finished commit failed.
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, text, 0)

    def close(self) -> None:
        """Give the directory free."""
        os.close(self._fd)

    def _fields(self) -> list[int]:
        fields = os.pread(self._fd, 100, 0).split()
        return [int(field) for field in fields] if all(field.isdigit() for field in fields) else []


def create_private(path: Path) -> None:
    """Make sure of the file, readable by its owner only; SQLite gives its side files the same mode. Raises OSError.

    Before SQLite opens it: closing a descriptor of ours later would drop SQLite's own POSIX locks.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(fd, 0o600)
        leave_to_owner(fd, path.parent)
    finally:
        os.close(fd)
    sync_dir(path.parent)


def leave_to_owner(fd: int, folder: Path) -> None:
    """A file that root made belongs to whose folder it is in: an agent that root started may have become that user."""
    made, around = os.fstat(fd), folder.stat()
    if os.geteuid() == 0 and made.st_uid == 0 and around.st_uid != 0 and made.st_nlink == 1:
        with contextlib.suppress(OSError):  # without CAP_CHOWN
            os.fchown(fd, around.st_uid, around.st_gid)


def move_aside(path: Path, unix_s: int) -> Path:
    """Rename a bad ledger and its side files; returns its new name. Raises OSError."""
    aside = path.with_name(f"{path.name}.corrupt-{unix_s}")
    again = 1
    while aside.exists():
        again += 1
        aside = path.with_name(f"{path.name}.corrupt-{unix_s}-{again}")
    for suffix in SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    sync_dir(path.parent)
    return aside


def sync_dir(folder: Path) -> None:
    """Make names that were created or changed in a directory durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
