"""Lists of jobs are made in slices, each of one moment; who may see as much gets the same one."""

from collections.abc import Iterator
from functools import partial
from operator import ne
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.powercap import PowercapTree

from wattribute.agent import wire
from wattribute.agent.control import Deferred
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.listing import SLICE_S, Listing
from wattribute.agent.requests import Peer

ROOT, ALICE = Peer(1, 0, 0), Peer(1, 1000, 1000)


class Jobs:
    """A node of 100 jobs, of which the first is told as it is at the moment of asking."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.listed: list[int] = []

    def clock(self) -> float:
        self.now_s += SLICE_S / 10
        return self.now_s

    def sees_all(self, peer: Peer | None) -> bool:
        return peer is None or peer.uid == 0

    def booked_ns(self, peer: Peer | None = None) -> int:
        return round(self.now_s * 1e9)

    def jobs(self, peer: Peer | None = None) -> Iterator[dict[str, Any]]:
        assert peer is not None
        self.listed.append(peer.uid)
        return iter([{"job_id": f"job-{number}"} for number in range(100)])


def decoded(answer: object) -> Any:
    return msgspec.json.decode(wire.answer(1, answer))  # type: ignore[arg-type]


def test_a_long_list_is_answered_in_turns_and_once_for_all_who_may_see_as_much() -> None:
    node = Jobs()
    listing = Listing(node, node.clock)
    answers: dict[str, Any] = {}
    for name, peer in (("first", ROOT), ("second", ROOT), ("third", ROOT), ("alice", ALICE), ("left", ALICE)):
        asked = listing.ask(peer)
        assert isinstance(asked, Deferred)
        asked.wanted = partial(ne, name, "left")
        asked.on_answer(partial(answers.setdefault, name))
    turns = 0
    while listing.busy:
        listing.work()
        turns += 1
    assert turns > 3 * 9
    assert node.listed == [0, 0, 1000]
    assert list(answers) == ["first", "second", "third", "alice"]
    assert answers["second"] is answers["third"]
    for answer in answers.values():
        assert [job["job_id"] for job in decoded(answer)["jobs"]] == [f"job-{number}" for number in range(100)]
    assert (decoded(answers["alice"])["seen"], decoded(answers["first"])["seen"]) == ("own", "all")


@pytest.mark.parametrize("at_once", [False, True])
def test_a_receipt_that_fails_on_the_way_ends_that_list_and_nothing_else(
    at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Jobs):
        def jobs(self, peer: Peer | None = None) -> Iterator[dict[str, Any]]:
            receipts = super().jobs(peer)
            if at_once and len(self.listed) == 2:  # the second list, in the loop's own turn
                raise ZeroDivisionError
            return self.some(receipts)

        def some(self, receipts: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            yield from list(receipts)[:50]
            raise ZeroDivisionError

    node = Broken()
    listing = Listing(node, node.clock)
    answers: list[Any] = []
    for _ in range(2):
        asked = listing.ask(ROOT)
        assert isinstance(asked, Deferred)
        asked.on_answer(answers.append)
    while listing.busy:
        listing.work()
    assert [type(answer) for answer in answers] == [WattributeError] * 2
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = Bench(tmp_path, tree.add_package())
        yield made
        made.close()


def test_a_list_is_of_the_moment_at_which_it_was_begun(bench: Bench) -> None:
    bench.open("")
    worker = Worker()
    try:
        bench.tick()
        bench.start("a", worker.pid)
        worker.burn()
        bench.tick()
        before = bench.receipt("a")
        listed = bench.node.jobs()
        worker.burn()
        bench.tick(5)
        assert bench.receipt("a")["energy_uj"] > before["energy_uj"]
        bench.end("a", worker.pid)
        (told,) = listed
        assert told == before
    finally:
        worker.kill()
