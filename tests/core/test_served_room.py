"""What one user may have remembered of metered requests, and what is left to the others."""

import json

import pytest

from wattribute.agent.core.errors import Refused
from wattribute.agent.core.served import OTHER, ServedProduct
from wattribute.agent.core.served_room import Room, Rooms
from wattribute.agent.core.served_sender import COUNTS_MAX, Counts, Report, Sender


def test_a_user_has_a_fifth_and_root_the_rest() -> None:
    room = Room(100)
    room.take(1000, 20)
    assert (room.left(1000), room.left(1001), room.left(0)) == (0, 20, 80)
    room.take(0, 75)
    assert (room.left(1001), room.left(0)) == (5, 5)
    room.count({1000: 3})
    assert (room.left(1000), room.left(0)) == (17, 97)


def test_tenants_past_the_room_of_all_products_are_other_and_nobody_in_particular_stays() -> None:
    rooms = Rooms()
    rooms.tenants = Room(10)
    first, second = (ServedProduct(name, 100, 1000, rooms) for name in ("first", "second"))
    assert [first.tenant(name).name for name in ("a", "b", "c", "a", "")] == ["a", "b", OTHER, "a", ""]
    assert [second.tenant(name).name for name in ("a", "")] == [OTHER, ""]
    assert ServedProduct("third", 100, 1001, rooms).tenant("a").name == "a"
    again = ServedProduct("first", 100, rooms=(fresh := Rooms()))
    again.restore(json.loads(json.dumps(first.save())))
    assert (again.uid, fresh.tenants.left(1000)) == (1000, 998)


def test_senders_of_jobs_that_are_over_are_forgotten_past_the_room() -> None:
    rooms = Rooms()
    rooms.past = Room(20)
    product = ServedProduct("llm", 100, 1000, rooms)
    counts = [[["a", 1, 0, {"token": 5}]], [[], 0], {}]
    for token in "abc":
        product.remember(1000, token, counts)
    assert [product.past(1000, token) for token in "abc"] == [None, counts, counts]
    product.remember(1000, "c", None)
    assert rooms.past.left(1000) == 2


def test_a_sender_has_so_many_counts() -> None:
    sender = Sender()

    def report(tenants: int) -> Report:
        units = {f"u{number}": 1 for number in range(31)}
        return Report(token="t", until_ns=1, served=[(str(one), Counts(1, 0, units)) for one in range(tenants)])

    most = report(COUNTS_MAX // 32)
    sender.take(most, sender.more(most))
    sender.take(most, sender.more(most))
    assert Sender.restore(sender.save(), None).entries() == sender.entries() == 1 + COUNTS_MAX
    with pytest.raises(Refused, match="counts under one account"):
        sender.more(report(COUNTS_MAX // 32 + 1))
