"""Nodes exchange what a fleet's products cost: whatever is lost, late or killed, all of it is billed once."""

import json
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from wattribute.agent.archive import Archive, open_archive
from wattribute.agent.archive.postgres import PostgresDatabase
from wattribute.agent.archive.sqlite import SqliteDatabase
from wattribute.agent.config.schema import Config
from wattribute.agent.core.fleet_parts import Amounts, Key, Kind, Part
from wattribute.agent.core.model import Job, Term
from wattribute.agent.core.products import Product
from wattribute.agent.core.tariff import Metered
from wattribute.agent.core.taxes import Taxes
from wattribute.agent.core.units import NS_PER_S

S = NS_PER_S
MINUTE = 60 * S
DAWN = 1_700_006_400 * S  # midnight in UTC
PPM = 1_000_000
IKS = Product(id="iks", scope="fleet")
BERT = Product(id="bert", scope="fleet", retraining_interval_s=1800, runs_on=("iks",))
Owed = Counter[tuple[str, str, Term]]
"""(job, product, term) -> ng."""


class Clock:
    """The database's, set by hand."""

    def __init__(self) -> None:
        self.unix_ns = DAWN


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for kind in (PostgresDatabase, SqliteDatabase):
        monkeypatch.setattr(kind, "now_unix_ns", lambda database: made.unix_ns)
    return made


class Node:
    """One node's taxes, what of them is durable, and what it told and heard."""

    def __init__(self, name: str, clock: Clock, *products: Product) -> None:
        self.name = name
        self.products = products or (IKS, BERT)
        self.alive: dict[str, Job] = {}
        self._clock = clock
        self._state: dict[str, Any] = {}
        self._saved: tuple[Any, ...] = ()
        self._offered: list[Part] = []
        self._start(DAWN)
        self.commit()

    def _start(self, unix_ns: int) -> None:
        self.taxes = Taxes(self.products, unix_ns)
        self.taxes.fleet.join(self.name)
        self.owed: Owed = Counter()
        self.metered = Counter[tuple[str, Term]]()
        self._unix_ns = unix_ns

    def start(self, job_id: str, *uses: str, weight_ppm: int = PPM) -> None:
        self.alive[job_id] = job = Job(id=job_id, uses=uses, weight_ppm=weight_ppm)
        self.taxes.enter(job, self._clock.unix_ns, first=True)

    def end(self, job_id: str) -> None:
        self.taxes.leave(self.alive.pop(job_id), self._clock.unix_ns)

    def tick(self, **metered: Metered) -> None:
        self._unix_ns = self._clock.unix_ns
        due = self.taxes.settle(self._unix_ns, self._unix_ns, metered)
        for job_id, owed in due.by_job.items():
            self.owed.update({(job_id, *key): ng for key, ng in owed.items()})
        for closed in due.closed:
            for job_id in closed.parts:
                self.owed.update({(job_id, *key): ng for key, ng in closed.owed(job_id).items()})
        for product_id, amounts in metered.items():
            self.metered[product_id, "platform"] += amounts.platform_ng
            self.metered[product_id, "retraining"] += amounts.retraining_ng
            hardware_ng = amounts.platform_hardware_ng + amounts.retraining_hardware_ng
            self.metered[product_id, "overhead_hardware"] += hardware_ng
        billed: Counter[tuple[str, Term]] = Counter()
        for (_, product_id, term), ng in self.owed.items():
            billed[product_id, term] += ng
        assert +billed == +Counter({(p.id, t): ng for p in self.taxes.totals() for t, ng in p.billed_ng.items()})

    def commit(self) -> None:
        """What the ledger keeps of a tick; only then others hear of it."""
        self._state |= json.loads(json.dumps(self.taxes.served_chunks()))
        saved = json.loads(json.dumps([self.taxes.save(), self.taxes.save_retraining()]))
        self._saved = (*saved, self._unix_ns, dict(self.alive), Counter(self.owed), Counter(self.metered))
        self._offered = self.taxes.fleet.waiting()

    def kill(self) -> None:
        """And start again: jobs that ended meanwhile were there until the last commit."""
        saved, retraining, unix_ns, jobs, owed, metered = self._saved
        self._start(unix_ns)
        for job in jobs.values():
            self.taxes.enter(job, unix_ns, first=False)
        self.taxes.restore_served(self._state)
        self.taxes.restore(saved, retraining, unix_ns)
        self.owed, self.metered = Counter(owed), Counter(metered)
        for job_id, job in jobs.items():
            if job_id not in self.alive:
                self.taxes.leave(job, unix_ns)
        for job_id, job in self.alive.items():
            if job_id not in jobs:
                self.taxes.enter(job, self._clock.unix_ns, first=True)
        self._offered = self.taxes.fleet.waiting()

    def exchange(self, archive: Archive, *, lost: bool = False) -> None:
        """As the courier does; the answer may be lost."""
        weights = dict.fromkeys(self.taxes.fleet.expected(), 0) | self.taxes.fleet_weights_ppm()
        archive.present(self.name, weights)
        closed = archive.exchange(self.name, self._offered)
        if not lost:
            self.taxes.fleet.hear(closed)

    def overhead(self) -> Counter[tuple[str, Term]]:
        """Billed and untaxed, by product and term."""
        found: Counter[tuple[str, Term]] = Counter()
        for product in self.taxes.totals():
            for amounts in (product.billed_ng, product.untaxed_ng):
                found.update({(product.id, term): ng for term, ng in amounts.items()})
        return +found

    def untaxed(self) -> int:
        return sum(ng for product in self.taxes.totals() for ng in product.untaxed_ng.values())


class Fleet:
    """Nodes that all pass the same time."""

    def __init__(self, clock: Clock, archive: Archive, *names: str) -> None:
        self.clock = clock
        self.archive = archive
        self.nodes = {name: Node(name, clock) for name in names}

    def pass_(self, seconds: float, *, but: str = "", **metered: Metered) -> None:
        """Everybody ticks, commits and exchanges; on a is metered."""
        self.clock.unix_ns += round(seconds * S)
        for name, node in self.nodes.items():
            node.tick(**(metered if name == "a" else {}))
            node.commit()
        for name, node in self.nodes.items():
            if name != but:
                node.exchange(self.archive)

    def finish(self) -> None:
        """Until all is closed and booked."""
        for node in self.nodes.values():
            for job_id in list(node.alive):
                node.end(job_id)
        for _ in range(100):
            self.pass_(200)
            groups = [group for node in self.nodes.values() for group in node.taxes.fleet._groups.values()]
            if not any(group.is_open or group.sealed for group in groups):
                break
        self.check()

    def check(self) -> None:
        """The nodes' pages add up to what was metered."""
        metered: Counter[tuple[str, Term]] = Counter()
        overhead: Counter[tuple[str, Term]] = Counter()
        for node in self.nodes.values():
            metered.update(node.metered)
            overhead.update(node.overhead())
        assert overhead == +metered
        assert not any(node.taxes.fleet.waiting() for node in self.nodes.values())


@pytest.fixture
def fleet(clock: Clock, archive: Archive) -> Fleet:
    return Fleet(clock, archive, "a", "b", "c")


ROLLED = Metered(platform_ng=1000, platform_hardware_ng=100)


def test_users_on_other_nodes_pay_everything(fleet: Fleet) -> None:
    a, b, c = fleet.nodes.values()
    b.start("x", "iks")
    c.start("y", "iks", weight_ppm=3 * PPM)
    for _ in range(30):
        fleet.pass_(10, iks=ROLLED)
    fleet.finish()
    assert (a.overhead(), a.owed) == (Counter(), Counter())
    assert b.owed == {("x", "iks", "platform"): 7500, ("x", "iks", "overhead_hardware"): 750}
    assert c.owed == {("y", "iks", "platform"): 22500, ("y", "iks", "overhead_hardware"): 2250}
    assert (b.untaxed(), c.untaxed()) == (0, 0)


def test_each_minute_is_paid_by_those_who_were_there(fleet: Fleet) -> None:
    _, b, c = fleet.nodes.values()
    b.start("x", "iks")
    for _ in range(6):
        fleet.pass_(10, iks=ROLLED)
    b.end("x")
    c.start("y", "iks")
    for _ in range(6):
        fleet.pass_(10, iks=Metered(platform_ng=9000))
    fleet.finish()
    assert b.owed["x", "iks", "platform"] == 6000
    assert c.owed["y", "iks", "platform"] == 54000


def test_nobody_there_is_untaxed_where_it_was_metered(fleet: Fleet) -> None:
    for _ in range(6):
        fleet.pass_(10, iks=ROLLED)
    fleet.finish()
    assert fleet.nodes["a"].untaxed() == 6600


def test_retraining_is_paid_by_the_jobs_served_on_all_nodes(fleet: Fleet) -> None:
    a, b, c = fleet.nodes.values()
    fleet.pass_(10, bert=Metered(retraining_ng=700, retraining_hardware_ng=70))
    b.start("x", "bert")
    c.start("y", "bert", weight_ppm=6 * PPM)
    fleet.pass_(10)
    b.end("x")
    c.end("y")
    fleet.pass_(10)
    assert b.taxes.open_retraining(Job(id="x", uses=("bert",)))
    fleet.finish()
    assert not b.taxes.open_retraining(Job(id="x", uses=("bert",)))
    assert b.owed == {("x", "bert", "retraining"): 100, ("x", "bert", "overhead_hardware"): 10}
    assert c.owed == {("y", "bert", "retraining"): 600, ("y", "bert", "overhead_hardware"): 60}
    assert a.overhead() == Counter()


def test_a_node_that_is_away_for_longer_than_the_grace(fleet: Fleet) -> None:
    """Its payers' weight in those minutes is lost, what it metered isn't."""
    a, b, _ = fleet.nodes.values()
    b.start("x", "iks")
    for _ in range(30):
        fleet.pass_(10, but="a", iks=ROLLED)
    assert b.owed == Counter()
    for _ in range(12):
        fleet.pass_(10)
    fleet.finish()
    assert b.owed["x", "iks", "platform"] == 30_000
    assert a.overhead() == Counter()


def part_of(weight: int, *, minute: int = 0, kind: Kind = "platform", jsc_ng: int = 10) -> Part:
    start = DAWN + minute * MINUTE
    return Part(Key("iks", kind, start, start + MINUTE), Amounts(jsc_ng, 1, weight, 1 + minute))


def test_nodes_that_are_present_are_waited_for_and_no_others(archive: Archive, clock: Clock) -> None:
    ours, theirs = part_of(5), part_of(2**70)
    archive.present("a", {"iks": 5})
    archive.present("b", {"iks": 0})
    archive.present("c", {"other": 5})
    assert archive.exchange("a", [ours]) == []
    clock.unix_ns += 30 * S
    assert archive.exchange("a", [ours]) == []
    (verdict,) = archive.exchange("b", [theirs])
    assert verdict == (ours.key, {"a": ours.amounts, "b": theirs.amounts})
    assert archive.exchange("a", [ours]) == [verdict]
    assert archive.exchange("c", [ours]) == [verdict]  # too late
    assert archive.exchange("a", [part_of(7)]) == [verdict]  # never changed
    clock.unix_ns += 31 * S
    (verdict,) = archive.exchange("a", [part_of(5, minute=1)])  # b hasn't said anything for a minute
    assert list(verdict.parts) == ["a"]


def test_the_grace(archive: Archive, clock: Clock) -> None:
    minute, retraining = part_of(5), part_of(5, kind="retraining")
    for passed_s in (0, 30, 30):
        clock.unix_ns += passed_s * S
        archive.present("b", {"iks": 5})
        assert archive.exchange("a", [minute, retraining]) == []
    clock.unix_ns += S
    assert [verdict.key for verdict in archive.exchange("a", [minute, retraining])] == [minute.key]
    clock.unix_ns += 539 * S
    assert archive.exchange("a", [retraining]) == []
    clock.unix_ns += S
    assert [verdict.key for verdict in archive.exchange("a", [retraining])] == [retraining.key]


def test_where_nothing_was_metered_the_parts_arent_kept_twice(archive: Archive) -> None:
    one = Part(part_of(5).key, Amounts(0, 0, 5, 1))
    assert archive.exchange("a", [one]) == [(one.key, {})]
    assert archive.exchange("b", []) == []


@pytest.mark.parametrize("seed", range(2))
def test_any_course_bills_what_was_metered_once(fleet: Fleet, clock: Clock, config: Config, seed: int) -> None:
    """Random lives, lost answers, nodes that are away, kills at any moment, an archive that is opened anew."""
    dice = random.Random(seed)
    nodes = list(fleet.nodes.values())
    fleet.nodes["d"] = control = Node("d", clock)
    nodes.append(control)
    away: dict[str, int] = {}
    archive = fleet.archive
    ended = 0
    for step in range(120):
        clock.unix_ns += round(dice.choice([0.3, 5, 20, 47, 90]) * S)
        for node in nodes:
            if node is not control and dice.random() < 0.3:
                node.start(f"{node.name}-{step}", *dice.choice([("iks",), ("bert",), ("bert", "iks")]),
                           weight_ppm=dice.choice([1, 2, 3, 7]) * PPM)  # fmt: skip
            if node.alive and dice.random() < 0.3:
                node.end(dice.choice(list(node.alive)))
                ended += 1
            if dice.random() < 0.8:
                busy = node in (nodes[0], control)
                amounts = [dice.randrange(10**9) if busy else 0 for _ in range(4)]
                node.tick(iks=Metered(*amounts[:2]), bert=Metered(*dice.choice([amounts, [0] * 4])))
                if dice.random() < 0.6:
                    node.commit()
            if dice.random() < 0.03:
                node.kill()
            if dice.random() < 0.02:
                away[node.name] = step + dice.randrange(20)
            if away.get(node.name, 0) <= step and dice.random() < 0.7:
                node.exchange(archive, lost=dice.random() < 0.2)
        if dice.random() < 0.02:
            with open_archive(config, pull=False) as again:
                dice.choice(nodes).exchange(again)
    for node in nodes:
        node.tick()
    fleet.finish()
    billed = sum(sum(node.owed.values()) for node in nodes)
    assert ended > 30
    assert billed > 0.8 * sum(sum(node.metered.values()) for node in nodes)
    assert sum(control.owed.values()) == 0
    assert not any(node.taxes.open_retraining(Job(id=job[0], uses=("bert",))) for node in nodes for job in node.owed)


@pytest.mark.parametrize("when", ["between publish and close", "between close and billing"])
def test_killed_in_between(fleet: Fleet, clock: Clock, archive: Archive, when: str) -> None:
    a, b, c = fleet.nodes.values()
    for node, job_id in ((b, "x"), (c, "y")):
        node.start(job_id, "iks")
    for _ in range(6):
        fleet.pass_(9.9, iks=ROLLED)
    clock.unix_ns += S
    for node in (a, b, c):
        node.tick()
        node.commit()
    a.exchange(archive)
    if when == "between publish and close":
        b.exchange(archive)
        b.kill()
        c.exchange(archive)
    else:
        c.exchange(archive)
        b.exchange(archive)  # which closes it
        b.kill()
        b.exchange(archive)
        b.tick()  # billed, not committed
        assert b.owed["x", "iks", "platform"]
        b.kill()
        assert not b.owed
    fleet.finish()
    assert b.owed["x", "iks", "platform"] == c.owed["y", "iks", "platform"] == 3000


def test_products_of_one_node_are_as_before(clock: Clock, archive: Archive) -> None:
    node = Node("a", clock, Product(id="iks"), replace(BERT, runs_on=(), scope="node"))
    node.start("x", "iks", "bert")
    clock.unix_ns += 10 * S
    node.tick(iks=ROLLED)
    assert node.overhead() == {("iks", "platform"): 1000, ("iks", "overhead_hardware"): 100}
    assert node.taxes.fleet.waiting() == []
