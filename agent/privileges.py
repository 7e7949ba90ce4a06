"""An agent that root starts becomes a user without a right: what it opened before stays open, what comes is the user's.

`confine` comes before any thread: what it takes away is each thread's own, and inherited (prctl(2), capset(2)).
`become` comes once the sensors are open: the C library gives the new ids to every thread (nptl(7)), the kernel takes
their capabilities with them (capabilities(7)), and what came of it is read back, thread by thread.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EINVAL, EPERM
from pathlib import Path

from wattribute.agent.core.errors import ConfigError, WattributeError

_SET_DUMPABLE, _CAPBSET_READ, _CAPBSET_DROP, _SET_NO_NEW_PRIVS = 4, 23, 24, 38  # linux/prctl.h
_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_NO_CAPABILITY = "0" * 16
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom an agent becomes, with the user's own groups. `changes`: it is somebody else (root) until then."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    changes: bool


def account_of(name: str) -> Account:
    """The user that `agent.user` names. Raises ConfigError where there is none, or it is root."""
    import pwd

    try:
        found = pwd.getpwnam(name)
    except KeyError as error:
        raise ConfigError(
            f'agent.user "{name}": this machine has no such user. '
            f"Fix: sudo useradd --system --shell /usr/sbin/nologin {name}"
        ) from error
    if found.pw_uid == 0:
        raise ConfigError(f'agent.user "{name}" is root: to stay root, leave agent.user empty')
    groups = tuple(sorted(set(os.getgrouplist(name, found.pw_gid))))
    changes = os.geteuid() != found.pw_uid
    return Account(name=name, uid=found.pw_uid, gid=found.pw_gid, groups=groups, home=found.pw_dir, changes=changes)


def confine(account: Account) -> None:
    """Take from this thread, and all that it will start, each way to more than it has.

    Root keeps its rights until `become`; who is the account already has none from here on. Raises ConfigError for
    anybody else, WattributeError where the kernel refuses.
    """
    if account.changes and os.geteuid() != 0:
        raise ConfigError(
            f'agent.user "{account.name}": only root can become it, and this is uid {os.geteuid()}. Fix: start the '
            f"agent as root or as {account.name}, or leave agent.user empty"
        )
    with _said(account):
        kernel = _Kernel()
        kernel.prctl(_SET_NO_NEW_PRIVS, 1)
        with suppress(OSError):  # before Linux 4.3 there is none
            kernel.prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
        _drop_bounding(kernel)
        kernel.keep_capabilities(account.changes)
    if not account.changes:
        _verify(account, ids=False)


def become(account: Account, environment: MutableMapping[str, str]) -> None:
    """Be the account for good, in every thread, without any capability. Raises WattributeError: then don't go on.

    The environment's HOME and user are the account's afterwards: libpq and others look for files there.
    """
    if not account.changes:
        return
    with _said(account):
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
        kernel = _Kernel()
        kernel.keep_capabilities(False)  # a securebit may have kept them
        kernel.prctl(_SET_DUMPABLE, 0)  # nobody of the same uid may take our descriptors, and no core holds our keys
    _verify(account, ids=True)
    environment.update({"HOME": account.home, "USER": account.name, "LOGNAME": account.name})
    for part in (__file__, os.__file__):
        if not os.access(part, os.R_OK):
            raise WattributeError(
                f"{account.name} can't read {part}, and the agent loads parts of itself as they are needed. "
                "Fix: install it where everybody may read, with the system's Python: /usr/bin/python3 -m venv --clear "
                "/opt/wattribute; where root's umask closed that: sudo chmod -R go+rX /opt/wattribute"
            )


def hand_over(folder: Path, account: Account, ours: Callable[[str], bool]) -> None:
    """Give a folder of root's to the account, with all that is in it. Raises WattributeError, with the fix.

    One that isn't there, isn't root's, or may be written to by others is left as it is. One that holds a name that
    isn't `ours` is an error: it may be anybody's.
    """
    fd = -1
    try:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & _OTHERS_WRITE:
            return
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        for name in os.listdir(fd):  # noqa: PTH208 - a descriptor is no path
            if not ours(name):
                raise WattributeError(
                    f"{folder} is root's and holds more than the agent's files ({name}): it isn't given to "
                    f"{account.name}. Fix: name a folder of its own, or sudo chown {account.name}: {folder}"
                )
        # The folder itself comes last: until then nobody but root can change what is in it.
        for _, _, names, inner in os.fwalk(".", topdown=False, dir_fd=fd):
            for name in names:
                found = os.stat(name, dir_fd=inner, follow_symlinks=False)
                if found.st_uid == 0 and found.st_nlink == 1 and not stat.S_ISLNK(found.st_mode):
                    os.chown(name, account.uid, account.gid, dir_fd=inner, follow_symlinks=False)
            os.fchown(inner, account.uid, account.gid)
    except FileNotFoundError:
        return
    except OSError as error:
        raise WattributeError(
            f"{folder} can't be given to {account.name}: {error.strerror}. "
            f"Fix: sudo chown -R {account.name}: {folder}, or start the agent with CAP_CHOWN"
        ) from error
    finally:
        if fd >= 0:
            os.close(fd)


@contextmanager
def _said(account: Account) -> Iterator[None]:
    """Puts a failed call in words."""
    try:
        yield
    except OSError as error:
        raise WattributeError(
            f"the agent can't become {account.name}: {error.strerror}. Fix: start it as root with CAP_SETUID and "
            "CAP_SETGID, or leave agent.user empty"
        ) from error


class _Kernel:
    """Calls that Python has no name for. Raises OSError."""

    def __init__(self) -> None:
        import ctypes  # 2 ms for the few who want it

        self._ctypes = ctypes
        self._libc = ctypes.CDLL(None, use_errno=True)

    def prctl(self, option: int, value: int) -> int:
        long = self._ctypes.c_ulong
        return self._checked(self._libc.prctl(option, long(value), long(0), long(0), long(0)))

    def keep_capabilities(self, keep: bool) -> None:
        """Empties the inheritable set of this thread, and the permitted and effective ones unless they are kept."""
        header = (self._ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        sets = (self._ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; the first 32, then the others
        if keep:
            self._checked(self._libc.capget(header, sets))
            sets[2] = sets[5] = 0
        self._checked(self._libc.capset(header, sets))

    def _checked(self, result: int) -> int:
        if result < 0:
            number = self._ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def _drop_bounding(kernel: _Kernel) -> None:
    """Empty the bounding set, where we may (CAP_SETPCAP): without it no_new_privs alone bars the way back."""
    for capability in range(64):
        try:
            if kernel.prctl(_CAPBSET_READ, capability):
                kernel.prctl(_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno not in (EINVAL, EPERM):  # EINVAL: past the last one that this kernel knows
                raise
            return


def _verify(account: Account, *, ids: bool) -> None:
    """Read back what every thread may. Raises WattributeError for the first that may more than the account."""
    bounding = _status(Path("/proc/thread-self/status"))["CapBnd"]
    wanted = {f"Cap{name}": _NO_CAPABILITY for name in ("Inh", "Prm", "Eff", "Amb")}
    wanted |= {"CapBnd": bounding, "NoNewPrivs": "1"}
    if ids:
        wanted |= {"Uid": "\t".join([str(account.uid)] * 4), "Gid": "\t".join([str(account.gid)] * 4)}
        wanted |= {"Groups": " ".join(map(str, account.groups))}
    for thread, status in _threads():
        for name, value in wanted.items():
            if (found := status.get(name, "").strip()) != value:
                raise WattributeError(
                    f"thread {thread} didn't become {account.name}: {name} is {found!r}, not {value!r}. "
                    "Fix: leave agent.user empty, and report it with the kernel's version"
                )


def _threads() -> Iterator[tuple[str, Mapping[str, str]]]:
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            yield task.name, _status(task / "status")


def _status(path: Path) -> dict[str, str]:
    pairs = (line.partition(":\t") for line in path.read_text(errors="replace").splitlines())
    return {name: value for name, _, value in pairs}


__all__ = ["Account", "account_of", "become", "confine", "hand_over"]
