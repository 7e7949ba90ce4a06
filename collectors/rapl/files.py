"""Small kernel files: opened without hanging, parsed strictly, and each failure put in words with one fix."""

import errno
import os
import shlex
import stat

from wattribute.agent.core.errors import SensorUnavailable

LINE_BYTES = 64  # a counter has at most 20 digits
U64_MOST = 2**64 - 1
LOAD = "sudo modprobe intel_rapl_msr"
RELOAD = "sudo sh -c 'modprobe -r intel_rapl_msr; modprobe intel_rapl_msr'"


def parse_uj(line: bytes, wraps_at_uj: int | None, path: str) -> int:
    """A counter's line as microjoules: digits with white space around, at most its range. Raises SensorUnavailable."""
    digits = line.strip()
    # bytes.isdigit knows ASCII only; int() alone would take "-1", "+1" and "1_000".
    if not digits.isdigit() or len(line) >= LINE_BYTES:
        what = f"holds {line[:24]!r}" if line else "is empty"
        raise SensorUnavailable(f"{path} {what}, not microjoules", RELOAD)
    energy_uj = int(digits)
    if energy_uj > (wraps_at_uj or U64_MOST):
        raise SensorUnavailable(f"{path} holds {energy_uj}, above its range of {wraps_at_uj or U64_MOST} uJ", RELOAD)
    return energy_uj


def open_regular(path: str) -> int:
    try:
        # O_NONBLOCK: a FIFO in the counter's place must not hang us.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise unavailable(path, error) from error
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    what = "a FIFO" if stat.S_ISFIFO(mode) else "no regular file"
    raise SensorUnavailable(f"{path} is {what}, not a counter", "wattribute agent --sys /sys")


def read_text(path: str) -> str:
    fd = open_regular(path)
    try:
        return os.pread(fd, 4096, 0).decode("ascii", "replace").strip()
    except OSError as error:
        raise unavailable(path, error) from error
    finally:
        os.close(fd)


def read_number(path: str) -> int | None:
    try:
        return parse_uj(read_text(path).encode(), None, path)
    except SensorUnavailable:
        return None


def unavailable(path: str, error: OSError) -> SensorUnavailable:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR):
        return SensorUnavailable(f"{path} is gone ({reason})", LOAD)
    if error.errno not in (errno.EACCES, errno.EPERM):
        return SensorUnavailable(f"{path}: {reason}", RELOAD)
    uid = os.geteuid()
    try:
        status = os.stat(path)  # noqa: PTH116
        rights = f"owner uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}"
    except OSError:
        rights = "a directory on the way is closed"
    zone, _, _ = path.rpartition("/")
    tree, _, _ = zone.rpartition("/")
    # Where the zones lie flat one command opens them all: to us alone, since fine energy readings leak secrets.
    files = f"{shlex.quote(tree)}/intel-rapl*:*/energy_uj" if tree.endswith("/powercap") else shlex.quote(path)
    command = shlex.quote(f"chown {uid} {files} && chmod u+r {files}")
    return SensorUnavailable(
        f"{path}: {reason} ({rights}; we are uid {uid})",
        f"sudo sh -c {command}  # until the next boot; a udev rule keeps it, see docs/sensors-rapl.md",
    )
