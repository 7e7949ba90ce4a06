"""Which jobs run on which GPU, as the files say that dcgm-exporter reads (--hpc-job-mapping-dir).

A scheduler's prolog and epilog write them: one file per GPU, named by its index (`0`) or, of a MIG instance, by index
and instance (`2.0`), with one job id per line; empty while nobody has it.
"""

import os
import re
import stat
from collections.abc import Mapping
from typing import NamedTuple

from wattribute.agent.core.errors import SensorUnavailable

FILES = 256  # 32 GPUs of 7 instances, and themselves
FILE_BYTES = 65536
ID_CHARS = 128
_NAME = re.compile(r"\d{1,4}(?:\.\d{1,4})?", re.ASCII)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class _Seen(NamedTuple):
    """A file as it was read. `sure`: it was read again later and looked the same from outside."""

    looks: tuple[int, int, int]
    ids: tuple[str, ...]
    refused: int
    sure: bool


class GpuMap:
    """Reads them. `refused` counts the lines and files of the last read that were not believed.

    A file is believed that is root's or the folder's owner's, which nobody else may write to, and no link.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._fd = -1
        self._seen: dict[str, _Seen] = {}
        self.refused = 0

    def read(self) -> Mapping[str, tuple[str, ...]]:
        """File name -> job ids as they are written there (of Slurm that is SLURM_JOB_ID without the cluster).

        Raises SensorUnavailable where the folder can't be opened, or where anybody may rename what is in it.
        """
        owner = self._open()
        try:
            names = sorted(name for name in os.listdir(self._fd) if _NAME.fullmatch(name))  # noqa: PTH208
        except OSError as error:
            raise self._unavailable(error) from error
        seen = {name: one for name in names[:FILES] if (one := self._look(name, owner)) is not None}
        self._seen = seen
        self.refused = sum(one.refused for one in seen.values()) + len(names[FILES:])
        return {name: one.ids for name, one in seen.items()}

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._seen = {}

    def _open(self) -> int:
        """The folder's owner. It is opened again once another folder has its name."""
        try:
            status = os.stat(self._folder)  # noqa: PTH116
            if self._fd >= 0 and not os.path.samestat(status, os.fstat(self._fd)):
                self.close()
            if self._fd < 0:
                self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                status = os.fstat(self._fd)
        except OSError as error:
            self.close()
            raise self._unavailable(error) from error
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise SensorUnavailable(f"{self._folder}: anybody may write to it", f"sudo chmod o-w {self._folder}")
        return status.st_uid

    def _unavailable(self, error: OSError) -> SensorUnavailable:
        reason = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            return SensorUnavailable(f"{self._folder}: {reason}", f"sudo mkdir -p {self._folder}", absent=True)
        if isinstance(error, NotADirectoryError):
            return SensorUnavailable(f"{self._folder}: {reason}", "set jobs.gpu_map_dir to the folder of the files")
        return SensorUnavailable(f"{self._folder}: {reason}", f"sudo chmod o+rx {self._folder}")

    def _look(self, name: str, owner: int) -> _Seen | None:
        before = self._seen.get(name)
        try:
            if before is not None and before.sure:
                status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                if _looks(status) == before.looks:
                    return before
            # O_NONBLOCK: a FIFO in the file's place must not hang us.
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError:
            return _Seen((0, 0, 0), (), 1, False)
        try:
            status = os.fstat(fd)
            looks = _looks(status)
            sure = before is not None and before.looks == looks  # a change within the clock's tick shows in neither
            believed = stat.S_ISREG(status.st_mode) and status.st_uid in (0, owner)
            if not believed or status.st_mode & _OTHERS_WRITE or status.st_size > FILE_BYTES:
                return _Seen((0, 0, 0), (), 1, False)
            ids, refused = _parse(os.pread(fd, FILE_BYTES, 0))
            return _Seen(looks, ids, refused, sure)
        except OSError:
            return _Seen((0, 0, 0), (), 1, False)
        finally:
            os.close(fd)


def _looks(status: os.stat_result) -> tuple[int, int, int]:
    # The change time and not mtime, which can be set and doesn't see a chmod.
    return status.st_ino, status.st_ctime_ns, status.st_size


def _parse(content: bytes) -> tuple[tuple[str, ...], int]:
    """The job ids, each once, and how many lines hold none that is valid."""
    lines = [line.strip().decode("utf-8", "surrogateescape") for line in content.split(b"\n")]
    filled = [line for line in lines if line]
    valid = [line for line in filled if len(line) <= ID_CHARS and line.isprintable() and not line.startswith("_")]
    return tuple(dict.fromkeys(valid)), len(filled) - len(valid)
