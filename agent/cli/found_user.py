"""What `doctor` says of `agent.user`: whether there is one, and what he won't get to see once root is given up."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from wattribute.agent.config import Config
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.model import Finding
from wattribute.agent.privileges import Account, account_of
from wattribute.collectors.containers.source import SOCKETS


def look_at_user(config: Config) -> Iterator[Finding]:
    """One Finding where `agent.user` is set."""
    name = config.agent.user
    if not name:
        return
    try:
        account = account_of(name)
    except ConfigError as error:
        why, _, fix = str(error).partition(". Fix: ")
        yield Finding(source="user", path=name, ok=False, why=why, fix=fix or 'agent.user = ""')
        return
    lost = [f"{what} ({path})" for what, path in _wanted(config) if _exists(path) and not _may_read(account, path)]
    why = f"uid {account.uid}: what an agent that root starts becomes once its sensors are open"
    if config.jobs.slurm == "auto":
        why += "; of Slurm's jobs it knows what the kernel and the prolog tell (docs/slurm.md)"
    if not lost:
        yield Finding(source="user", path=name, ok=True, why=why)
        return
    fix = f"let {name} read it, or do without: docs/systemd.md says what each is for"
    yield Finding(source="user", path=name, ok=False, why=f"{why}; it can't read {', '.join(lost)}", fix=fix)


def owned_by(folder: Path, name: str) -> bool | None:
    """Whether an agent that root starts, and that becomes `name`, has a folder, or is given it; None: it's nobody else.

    What we may do in it ourselves says nothing of that: root in a container may less, root elsewhere more than he may.
    """
    try:
        account = account_of(name) if name and os.geteuid() == 0 else None
    except ConfigError:
        return None
    return folder.stat().st_uid in (0, account.uid) if account is not None else None


def _wanted(config: Config) -> Iterator[tuple[str, str]]:
    """What is opened while the agent runs, by its path; "" where it isn't configured."""
    if config.jobs.containers == "auto":
        yield from (("names of containers", socket) for socket in SOCKETS)
    if config.jobs.kubernetes == "auto":
        yield "the kubelet's token", config.kubernetes.token_file
        yield "kubernetes.ca_file", config.kubernetes.ca_file
    yield "jobs.gpu_map_dir", config.jobs.gpu_map_dir
    yield "provider.key_file", config.provider.key_file
    yield "carbon.series", config.carbon.series or ""
    yield "web.config_file", config.web.config_file
    yield "the program", __file__
    yield "Python", os.__file__


def _exists(path: str) -> bool:
    return bool(path) and os.path.lexists(path)


def _may_read(account: Account, path: str) -> bool:
    """By the modes on the way, as far as we may see them ourselves (an access list may say otherwise)."""
    try:
        full = Path(path).resolve(strict=True)
        on_the_way = all(_allows(account, folder.stat(), 0o1) for folder in full.parents)
        status = full.stat()
    except OSError:
        return False
    wanted = {stat.S_IFSOCK: 0o2, stat.S_IFDIR: 0o5}.get(stat.S_IFMT(status.st_mode), 0o4)
    return on_the_way and _allows(account, status, wanted)


def _allows(account: Account, status: os.stat_result, wanted: int) -> bool:
    shift = 6 if status.st_uid == account.uid else 3 if status.st_gid in account.groups else 0
    return (status.st_mode >> shift) & wanted == wanted
