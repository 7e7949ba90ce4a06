"""What Slurm's prolog has told of a job, as root: one JSON object per job in a folder, named by the job's number.

It holds variables of Slurm's own (SLURM_JOB_ACCOUNT, ...), and `product` and `phase` where the job's comment names
them. An agent without root reads here what it may not read in other users' environments.
"""

import json
import os
import stat
from collections.abc import Mapping

FILE_BYTES = 65536
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class PrologFacts:
    """Reads one folder. Nothing here raises: what isn't there, can't be read or isn't believed is empty.

    A file is believed that is root's or the folder's owner's, in a folder and a file that nobody else may write to.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def told(self, number: str) -> Mapping[str, str]:
        """Name -> text, of the job with this number (digits)."""
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return {}
        try:
            status = os.fstat(folder)
            if status.st_mode & _OTHERS_WRITE:
                return {}
            # O_NONBLOCK: a FIFO in the file's place must not hang us.
            fd = os.open(number, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
            try:
                return _parse(_content(fd, status.st_uid))
            finally:
                os.close(fd)
        except OSError:
            return {}
        finally:
            os.close(folder)


def _content(fd: int, owner: int) -> bytes:
    status = os.fstat(fd)
    believed = stat.S_ISREG(status.st_mode) and status.st_uid in (0, owner) and not status.st_mode & _OTHERS_WRITE
    return os.pread(fd, FILE_BYTES, 0) if believed and status.st_size <= FILE_BYTES else b""


def _parse(content: bytes) -> Mapping[str, str]:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(said, dict):
        return {}
    return {name: text for name, text in said.items() if isinstance(text, str)}
