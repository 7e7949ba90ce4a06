"""AdminComments that Slurm's epilogs leave to be written, and the one process of a folder that writes them.

Slurm waits for a script, and kills its process group at its end; figures are final some seconds later, or never while
the agent is away. So a script leaves its job's number in a folder, and a process in a session of its own, at most one
at a time, goes through what is there.
"""

import contextlib
import fcntl
import json
import os
import syslog
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from wattribute.agent.core.errors import WattributeError
from wattribute.agent.slurm_folder import cant, opened, put
from wattribute.agent.slurm_jobs import Asked

_LEFT = "ended-"
_LOCK = ".comments"
_FILE_BYTES = 4096


class Left(NamedTuple):
    """A job whose comment is to be written; `name` and `key` are its file's, `since_s` is when it came (wall time)."""

    name: str
    key: tuple[int, int]
    since_s: float
    asked: Asked


def leave(folder: str, asked: Asked) -> None:
    """Notes that a job has ended. Raises WattributeError with the fix."""
    put(folder, f"{_LEFT}{asked.number}", json.dumps(asked).encode())


def work_off(folder: str, write: Callable[[Asked, bool], bool], *, patience_s: float, every_s: float) -> None:
    """Has a process go through what is left in the folder, unless one does; returns once its session is there.

    `write` is asked again each `every_s` until it says True or raises WattributeError, which syslog hears; past
    `patience_s` it is told that this is the last time. Raises WattributeError where the folder can't be had.
    """
    try:
        at = opened(folder)
    except FileNotFoundError as error:
        raise cant(folder, error) from error
    lock = _locked(at)
    if lock is None:
        return
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        os.read(ready, 1)  # nothing, where the child is gone already
        for fd in (ready, lock, at):
            os.close(fd)
        return
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.write(told, b"\0")
        os.close(told)
        _work(at, lock, write, patience_s, every_s)
    except BaseException as error:  # noqa: BLE001 - nobody is there to see a traceback
        _tell(syslog.LOG_ERR, f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _work(at: int, lock: int | None, write: Callable[[Asked, bool], bool], patience_s: float, every_s: float) -> None:
    while lock is not None:
        for left in list(_left(at)):
            if _is_done(left, write, not 0 <= time.time() - left.since_s < patience_s):
                _forget(at, left)
        if any(_left(at)):
            time.sleep(every_s)
            continue
        os.close(lock)
        # Who left something before that saw the lock held, and counts on us.
        lock = _locked(at) if any(_left(at)) else None


def _is_done(left: Left, write: Callable[[Asked, bool], bool], late: bool) -> bool:
    try:
        return write(left.asked, late) or late
    except WattributeError as error:
        _tell(syslog.LOG_WARNING, str(error))
    except Exception as error:  # noqa: BLE001 - the next job's comment is none of its business
        _tell(syslog.LOG_ERR, f"job {left.asked.number}: {type(error).__name__}: {error}")
    return True


def _left(at: int) -> Iterator[Left]:
    """What is there by now. A file that says nothing is taken away."""
    for name in sorted(os.listdir(at)):
        if not name.startswith(_LEFT):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=at)
            try:
                status, content = os.fstat(fd), os.read(fd, _FILE_BYTES)
            finally:
                os.close(fd)
            try:
                number, cluster, array = map(str, json.loads(content))
            except (ValueError, TypeError):
                os.unlink(name, dir_fd=at)
                continue
            yield Left(name, _key(status), status.st_mtime, Asked(number, cluster, array))


def _forget(at: int, left: Left) -> None:
    """Unless it was left once more meanwhile, by a job that was requeued."""
    with contextlib.suppress(FileNotFoundError):
        if _key(os.stat(left.name, dir_fd=at, follow_symlinks=False)) == left.key:
            os.unlink(left.name, dir_fd=at)


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns


def _locked(at: int) -> int | None:
    """The lock that says who goes through the folder; None: somebody has it. Raises OSError."""
    fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _tell(level: int, text: str) -> None:
    syslog.openlog("wattribute", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(level, f"slurm: {text}")
