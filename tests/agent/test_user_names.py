"""Names of users are kept, and a directory server that doesn't answer holds nobody up."""

import threading
import time

from wattribute.agent.user_names import FRESH_S, MOST_ASKED, OVERDUE_S, UserNames


class Directory:
    """Answers while it is `up`; counts how often it was asked."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.up.set()
        self.now_s = 0.0
        self.asked: list[int] = []
        self.called = "user"

    def look_up(self, uid: int) -> str:
        self.asked.append(uid)
        self.up.wait()
        return f"{self.called}-{uid}"

    def names(self) -> UserNames:
        return UserNames(self.look_up, clock=lambda: self.now_s)


def known(names: UserNames, uid: int) -> str:
    asked = names.ask(uid)
    assert asked is None or asked.wait(10)
    return names(uid)


def test_a_name_is_asked_for_once_and_again_when_it_is_old() -> None:
    directory = Directory()
    names = directory.names()
    assert [known(names, 1), names(1), names.resolve(1)] == ["user-1"] * 3
    assert directory.asked == [1]
    directory.now_s, directory.called = FRESH_S + 1, "renamed"
    names(1)
    while names(1) != "renamed-1":  # the old one counts meanwhile
        time.sleep(0.001)
    assert directory.asked == [1, 1]


def test_while_nobody_answers_a_user_is_a_number_and_is_not_waited_for_twice() -> None:
    directory = Directory()
    names = directory.names()
    directory.up.clear()
    asked = names.ask(1)
    assert asked is not None
    assert names(1) == "1"
    directory.now_s = 2 * OVERDUE_S
    assert names.ask(1) is None
    for uid in range(2, 2 * MOST_ASKED):
        names.ask(uid)
    directory.up.set()
    assert asked.wait(10)
    assert names(1) == "user-1"
    while known(names, 5000) != "user-5000":
        time.sleep(0.001)
    assert len(directory.asked) == MOST_ASKED + 1
