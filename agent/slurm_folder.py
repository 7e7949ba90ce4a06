"""Small files in a folder that nobody but us may write to: what Slurm's prolog tells, and comments to be written."""

import contextlib
import os
import stat

from wattribute.agent.core.errors import WattributeError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def opened(folder: str) -> int:
    """A descriptor of the folder. In one that others can write to, nobody would believe anything.

    Raises FileNotFoundError where there is none, WattributeError with the fix.
    """
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise cant(folder, error) from error
    status = os.fstat(at)
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
        os.close(at)
        raise WattributeError(
            f"{folder} isn't ours alone to write to. Fix: sudo chown {os.geteuid()} {folder} && sudo chmod 755 {folder}"
        )
    return at


def put(folder: str, name: str, content: bytes) -> None:
    """Leaves a file, all of it or nothing, that all may read. Raises WattributeError with the fix."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o755)  # noqa: PTH102
            os.chmod(folder, 0o755)  # noqa: PTH101 - whatever slurmd's umask is: the agent may be any user
        at = opened(folder)
    except OSError as error:
        raise cant(folder, error) from error
    aside = f".{name}.{os.getpid()}"
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=at)
        try:
            os.fchmod(fd, 0o644)
            os.write(fd, content)
        finally:
            os.close(fd)
        os.rename(aside, name, src_dir_fd=at, dst_dir_fd=at)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(aside, dir_fd=at)
        raise cant(folder, error) from error
    finally:
        os.close(at)


def cant(folder: str, error: OSError) -> WattributeError:
    """What failed, with the fix."""
    reason = error.strerror or str(error)
    return WattributeError(f"{folder}: {reason}. Fix: run it as root, or set jobs.slurm_dir to a folder of its own")
