"""The memory that the workers of an account share, and the locks on it: one per file and process.

POSIX locks are a process's own: the kernel frees them when it dies, a child doesn't inherit them, and closing any
descriptor of the file gives them all back. So a process maps a file once and keeps it until its end.
"""

import contextlib
import errno
import mmap
import os
import secrets
import stat
import struct
import threading
import time
import zlib
from pathlib import Path

from wattribute.agent.meter import layout

_HEAD = struct.Struct("=8sII16s36s")
_WAIT_S = 0.5
_open_here: dict[tuple[int, int], "Memory"] = {}
_lost: list["Memory"] = []  # for good: letting a mapping go closes its descriptor's number, whose ever that is now
_opening = threading.Lock()


class Memory:
    """A mapped account file, or anonymous memory where `fd` is None."""

    def __init__(self, fd: int | None) -> None:
        self.buffer = mmap.mmap(-1 if fd is None else fd, layout.FILE_BYTES)
        self._fds = [] if fd is None else [fd]
        self._file = None if fd is None else _file_of(fd)
        self._lost = False
        self._owners: dict[int, object] = {}
        self._guard = threading.RLock()  # a signal's handler may come while its own thread is in here
        if fd is None:
            self.buffer[: _HEAD.size + 4] = _head()
        self.token = bytes(self.buffer[16:32]).decode("ascii")

    @property
    def shared(self) -> bool:
        """Whether other processes can see it."""
        return bool(self._fds)

    def lost(self) -> bool:
        """Whether somebody closed a descriptor of it, as who becomes a daemon closes all: all locks went along, and the
        number may be another file's by now.
        """
        self._lost = self._lost or any(_file_of(fd) != self._file for fd in self._fds)
        return self._lost

    def condemn(self) -> None:
        """What stands here is nothing that a worker writes: whoever opens the file makes a successor."""
        self.buffer[: len(layout.MAGIC)] = bytes(len(layout.MAGIC))
        self._lost = self.shared

    def take(self, byte: int, owner: object) -> bool:
        """Whether the lock is the owner's now; False where another one has it, in this process or elsewhere, and where
        the file is lost.
        """
        with self._guard:
            if byte in self._owners:
                return self._owners[byte] is owner
            if self.lost():
                return False
            if self._fds:
                import fcntl

                try:
                    fcntl.lockf(self._fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
                except OSError:
                    return False
            self._owners[byte] = owner
            return True

    def give(self, byte: int, owner: object) -> None:
        """Gives a lock back, if it is the owner's."""
        with self._guard:
            if self._owners.get(byte) is owner:
                del self._owners[byte]
                if self._fds and not self.lost():
                    import fcntl

                    fcntl.lockf(self._fds[0], fcntl.LOCK_UN, 1, byte)

    def reserve(self, start: int, length: int) -> None:
        """Makes sure that this part can be written. Raises OSError: a full disk would kill the writer by SIGBUS."""
        if self.lost():
            raise OSError(errno.EBADF, "its descriptor was closed")
        if self._fds:
            os.posix_fallocate(self._fds[0], start, length)

    def _forked(self) -> None:
        """A child has none of its parent's locks."""
        self._owners.clear()
        self._guard = threading.RLock()


def anonymous() -> Memory:
    """Memory of this process alone."""
    return Memory(None)


def shared(path: Path) -> Memory:
    """The account file at `path`, made where there is none that fits. Raises OSError.

    Directory and file are the caller's own, 0700 and 0600; links aren't followed. A file that is damaged, too short or
    of another layout or boot gets a successor of the same name: who holds the old one goes on with that.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check(os.fstat(folder), path.parent, stat.S_IWGRP | stat.S_IWOTH)
        with _opening:
            _wait_for_others(folder)
            for _ in range(8):
                memory = _existing(folder, path)
                if memory is not None:
                    return memory
                _create(folder, path.name)
    finally:
        os.close(folder)
    raise OSError(f"{path} is replaced again and again")


def _file_of(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _wait_for_others(folder: int) -> None:
    """So that of workers that start together one makes the file; without end for nobody."""
    import fcntl

    until_s = time.monotonic() + _WAIT_S
    while time.monotonic() < until_s:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            time.sleep(0.001)


def _existing(folder: int, path: Path) -> Memory | None:
    """The file as it is, if it fits."""
    try:
        fd = os.open(path.name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return None
    status = os.fstat(fd)
    key = (status.st_dev, status.st_ino)
    known = _open_here.get(key)
    if known is not None and known.lost():
        _lost.append(_open_here.pop(key))
        known = None
    if known is not None:
        known._fds.append(fd)  # closing it would give all locks back
        _check(status, path, stat.S_IRWXG | stat.S_IRWXO)
        return known
    try:
        _check(status, path, stat.S_IRWXG | stat.S_IRWXO)
        head = os.pread(fd, _HEAD.size + 4, 0)
        fits = stat.S_ISREG(status.st_mode) and status.st_size == layout.FILE_BYTES and _fits(fd, head)
        memory = Memory(fd) if fits else None
    except BaseException:
        os.close(fd)
        raise
    if memory is None:
        os.close(fd)
    else:
        _open_here[key] = memory
    return memory


def _fits(fd: int, head: bytes) -> bool:
    if len(head) != _HEAD.size + 4 or zlib.crc32(head[:-4]) != int.from_bytes(head[-4:], "little"):
        return False
    magic, version, size, _, boot = _HEAD.unpack(head[:-4])
    bank = int.from_bytes(os.pread(fd, 8, layout.ACTIVE), "little")
    same_layout = (magic, version, size) == (layout.MAGIC, layout.VERSION, layout.FILE_BYTES)
    return same_layout and boot == _boot_id() and bank in (0, 1)


def _create(folder: int, name: str) -> None:
    """A new file under this name, whole from the first moment at which it can be seen."""
    made = f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
    fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, layout.FILE_BYTES)
        os.posix_fallocate(fd, 0, layout.SLOT)
        os.pwrite(fd, _head(), 0)
        os.rename(made, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(made, dir_fd=folder)
        raise
    finally:
        os.close(fd)


def _check(status: os.stat_result, path: Path, forbidden: int) -> None:
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to user {status.st_uid}")
    if status.st_mode & forbidden:
        raise PermissionError(f"{path} is open to others: {stat.filemode(status.st_mode)}")


def _head() -> bytes:
    token = secrets.token_hex(8).encode("ascii")
    head = _HEAD.pack(layout.MAGIC, layout.VERSION, layout.FILE_BYTES, token, _boot_id())
    return head + zlib.crc32(head).to_bytes(4, "little")


def _boot_id() -> bytes:
    """Times in the file mean something within one boot only."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip().ljust(36, b"-")[:36]
    except OSError:
        return b"-" * 36


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()
    for memory in _open_here.values():
        memory._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


__all__ = ["Memory", "anonymous", "shared"]
