"""`agent.user`: who can be had, and whose places are handed over. The drop itself is tests/e2e/test_unprivileged.py."""

import os
import pwd
import socket
import threading
from pathlib import Path

import pytest
from tests.doubles.powercap import NOBODY, unprivileged

from wattribute.agent.core.errors import ConfigError, SensorUnavailable, WattributeError
from wattribute.agent.core.model import Reading
from wattribute.agent.opening import SystemClock
from wattribute.agent.privileges import Account, account_of, confine, hand_over
from wattribute.agent.sources import Source
from wattribute.agent.unprivileged import wait_for_answers

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="missing: root")


def mine(name: str) -> bool:
    return name.startswith("ledger") or name in ("receipts", "agent.sock")


@pytest.fixture
def nobody() -> Account:
    return Account(name="nobody", uid=NOBODY, gid=NOBODY, groups=(NOBODY,), home="/", changes=True)


def test_an_unknown_user_names_the_fix() -> None:
    with pytest.raises(ConfigError, match=r'agent.user "nosuch": this machine has no such user. Fix: sudo useradd'):
        account_of("nosuch")


@needs_root
def test_root_is_no_user_to_become() -> None:
    with pytest.raises(ConfigError, match=r"leave agent.user empty"):
        account_of("root")


@needs_root
def test_only_root_or_the_user_itself_can_become_it() -> None:
    assert account_of("nobody").changes
    with unprivileged():
        assert not account_of("nobody").changes
        with pytest.raises(ConfigError, match="only root can become it, and this is uid 65534"):
            confine(account_of("daemon"))


@needs_root
def test_a_users_own_groups_come_with_him(nobody: Account) -> None:
    groups = account_of("nobody").groups
    assert groups == tuple(sorted(set(os.getgrouplist("nobody", pwd.getpwnam("nobody").pw_gid))))


@needs_root
def test_what_root_left_is_handed_over_but_links_are_not_followed(tmp_path: Path, nobody: Account) -> None:
    folder, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    (folder / "receipts").mkdir(parents=True)
    folder.chmod(0o700)
    (folder / "receipts/one").write_text("1")
    (folder / "ledger.db").write_text("x")
    elsewhere.mkdir()
    (elsewhere / "secret").write_text("s")
    (folder / "ledger.link").symlink_to(elsewhere / "secret")
    (folder / "ledger.folder").symlink_to(elsewhere)
    os.link(elsewhere / "secret", folder / "ledger.hard")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "agent.sock"))
    hand_over(folder, nobody, mine)
    owners = {str(path.relative_to(tmp_path)): path.lstat().st_uid for path in tmp_path.rglob("*")}
    given = ("state", "state/receipts", "state/receipts/one", "state/ledger.db", "state/agent.sock")
    assert {name for name, uid in owners.items() if uid} == set(given)
    assert (elsewhere / "secret").stat().st_uid == 0


@needs_root
@pytest.mark.parametrize("trap", ["other", "writable", "link", "theirs"])
def test_a_folder_that_is_not_roots_alone_is_left_as_it_is(tmp_path: Path, nobody: Account, trap: str) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    (folder / "ledger.db").write_text("x")
    handed = folder
    if trap == "other":
        (folder / "somebody's").write_text("y")
    elif trap == "writable":
        folder.chmod(0o1777)
    elif trap == "link":
        handed = tmp_path / "link"
        handed.symlink_to(folder)
    else:
        os.chown(folder, 1, 1)
    before = folder.stat().st_uid
    if trap == "other":
        with pytest.raises(WattributeError, match=r"holds more than the agent's files \(somebody's\)"):
            hand_over(handed, nobody, mine)
    else:
        hand_over(handed, nobody, mine)
    hand_over(tmp_path / "nowhere", nobody, mine)
    assert folder.stat().st_uid == before
    assert (folder / "ledger.db").stat().st_uid == 0


@needs_root
def test_what_can_not_be_given_names_the_fix(tmp_path: Path) -> None:
    impossible = Account(name="x", uid=2**32 - 2, gid=1, groups=(), home="/", changes=True)
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/ledger.db").write_text("")
    hand_over(tmp_path / "state", impossible, mine)  # any number is a user to the kernel
    with pytest.raises(WattributeError, match="Fix: sudo chown -R x: /proc/sys"):
        hand_over(Path("/proc/sys/kernel/random"), impossible, lambda name: True)


class Hanging:
    """A sensor whose driver doesn't come back until it is let go."""

    name = "nvml"

    def __init__(self) -> None:
        self.free = threading.Event()

    def read(self) -> list[Reading]:
        self.free.wait()
        return []

    def close(self) -> None:
        pass


def test_no_root_is_given_up_while_a_read_of_roots_hangs() -> None:
    collector = Hanging()
    source: Source[Reading] = Source(collector, SystemClock(), deadline_ns=1)
    source.request()
    with pytest.raises(SensorUnavailable, match=r'nvml hangs in its first read.*collectors.nvml = "off"'):
        wait_for_answers([source], 0.01)
    collector.free.set()
    wait_for_answers([source])
    source.close()
