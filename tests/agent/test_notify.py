"""sd_notify: what is told over a real datagram socket, and that nothing is where nobody listens."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wattribute.agent.notify import Notifier


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@wattribute-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    made = Manager(address)
    yield made
    made.socket.close()


def test_ready_with_the_first_tick_and_alive_with_each(manager: Manager, address: str) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    notifier = Notifier(environment, interval_s=1.0)
    assert environment == {"A": "b"}  # no child hears of it
    assert notifier.listens
    for status in ("0 jobs run", "0 jobs run", "1 jobs run"):
        notifier.ticked(status)
    notifier.stopping()
    notifier.close()
    assert manager.heard() == [
        ["READY=1", "WATCHDOG=1", "STATUS=0 jobs run"],
        ["WATCHDOG=1"],
        ["WATCHDOG=1", "STATUS=1 jobs run"],
        ["STOPPING=1"],
    ]


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_a_slow_tick_asks_for_more_time(manager: Manager, address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"}, interval_s=60.0)
    notifier.ticked("")
    notifier.close()
    assert manager.heard() == [["READY=1", "WATCHDOG_USEC=180000000", "WATCHDOG=1"]]


@pytest.mark.parametrize("address", ["path"], indirect=True)
@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}])
def test_a_watchdog_that_is_not_ours_is_not_fed(manager: Manager, address: str, watchdog: dict[str, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, **watchdog}, interval_s=1.0)
    notifier.ticked("")
    notifier.ticked("")
    notifier.close()
    assert manager.heard() == [["READY=1"]]


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_what_nobody_heard_is_said_again(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address}, interval_s=1.0)
    notifier.ticked("early")
    late = Manager(address)
    notifier.ticked("early")
    notifier.close()
    assert late.heard() == [["READY=1", "STATUS=early"]]
    late.socket.close()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "/nobody/here"}])
def test_nobody_to_tell_is_no_error(environment: dict[str, str]) -> None:
    notifier = Notifier(environment, interval_s=1.0)
    notifier.ticked("x")
    notifier.stopping()
    notifier.close()
    assert environment == {}
