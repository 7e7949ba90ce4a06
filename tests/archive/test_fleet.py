"""A fleet delivers to PostgreSQL, which is stopped, killed in mid-commit and cut off: totals are equal afterwards."""

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive.fleet import Node, told_by, truth_of
from tests.doubles.postgres import Postgres, running
from tests.doubles.tcp_proxy import TcpProxy, proxy
from wattribute.agent.archive import Archive, Unreachable, open_archive
from wattribute.agent.archive.postgres import PostgresDatabase
from wattribute.agent.config.schema import Agent, Config, Ledger
from wattribute.agent.core.errors import LedgerError

NODES = 4
JOBS = [f"job-{number}" for number in range(12)]


@pytest.fixture
def dice() -> random.Random:
    return random.Random(4)


@pytest.fixture
def nodes(tmp_path: Path, dice: random.Random) -> Iterator[list[Node]]:
    made = [Node(tmp_path / name, name, dice) for name in (f"node-{number}" for number in range(NODES))]
    yield made
    for node in made:
        node.close()


@pytest.fixture(scope="module")
def durable() -> Iterator[Postgres]:
    """A server that has written a commit before it acknowledges it. Not synced: only its processes are killed."""
    with running({"fsync": "off"}) as server:
        yield server


def config_of(url: str) -> Config:
    return Config(agent=Agent(state_dir="/nonexistent"), ledger=Ledger(url=url))


def work(nodes: list[Node], dice: random.Random, windows: int = 1) -> None:
    """Each node runs some of the fleet's jobs."""
    for node in nodes:
        node.work(dice.sample(JOBS, 5), windows)


def deliver_all(nodes: list[Node], archive: Archive, limit: int = 7) -> int:
    """Until nothing is left; how many rows counted."""
    counted = 0
    for node in nodes:
        more = True
        while more:
            done = node.deliver(archive, limit)
            counted, more = counted + done.counted, done.more
            assert done.refused == 0
    return counted


def check(nodes: list[Node], config: Config) -> None:
    with open_archive(config, pull=False) as archive:
        assert told_by(archive) == truth_of(nodes)
        assert archive.verify() == []


def test_jobs_on_many_nodes_are_one_each_and_an_input_of_an_epc_once(
    nodes: list[Node], dice: random.Random, config: Config
) -> None:
    for _ in range(6):
        work(nodes, dice)
        with open_archive(config, pull=False) as archive:
            deliver_all(dice.sample(nodes, NODES - 1), archive)
    with open_archive(config, pull=False) as archive:
        deliver_all(nodes, archive)
        jobs = list(archive.jobs())
        created = list(archive.jobs(product_id="product-0", role="creation"))
    assert len({job.id for job in jobs}) == len(jobs)
    assert any(len(job.nodes) == NODES for job in jobs)
    assert [job.id for job in created] == ["job-3"]
    truth = truth_of(nodes)
    assert sum(created[0].energy_uj.values()) == sum(truth["job-3", slot] for slot in range(36))
    check(nodes, config)


def test_stopped_for_an_hour_of_work(nodes: list[Node], dice: random.Random, durable: Postgres) -> None:
    config = config_of(durable.url(durable.new_database()))
    work(nodes, dice, 2)
    with open_archive(config) as archive:
        deliver_all(nodes, archive)
        durable.stop(signal.SIGQUIT)  # pg_ctl stop -m immediate
        try:
            for _ in range(12):  # windows of 300 s
                work(nodes, dice)
                for node in nodes:
                    with pytest.raises(LedgerError):
                        node.deliver(archive, 7)
            with pytest.raises(Unreachable, match="doesn't answer"):
                open_archive(config)
        finally:
            durable.start()
    with open_archive(config) as archive:
        deliver_all(nodes, archive)
        assert deliver_all(nodes, archive) == 0
    check(nodes, config)


def test_killed_in_mid_commit_again_and_again(nodes: list[Node], dice: random.Random, durable: Postgres) -> None:
    config = config_of(durable.url(durable.new_database()))
    work(nodes, dice, 30)
    open_archive(config).close()
    for _ in range(5):  # most of them fall into a delivery; on which is up to the machine
        archive = open_archive(config)
        killer = threading.Timer(dice.uniform(0.0, 0.08), durable.kill)
        killer.start()
        try:
            deliver_all(nodes, archive, limit=200)
        except LedgerError:
            pass
        finally:
            killer.join()
            durable.start()
            archive.close()
        check_never_too_much(nodes, config)
    with open_archive(config) as archive:
        deliver_all(nodes, archive)
    check(nodes, config)


def check_never_too_much(nodes: list[Node], config: Config) -> None:
    with open_archive(config) as archive:
        told, truth = told_by(archive), truth_of(nodes)
        assert all(amount <= truth[key] for key, amount in told.items())


@pytest.fixture
def network(postgres: Postgres) -> Iterator[TcpProxy]:
    with proxy(postgres.port) as one:
        yield one


def test_commits_and_their_acknowledgements_are_lost(
    nodes: list[Node], dice: random.Random, postgres: Postgres, network: TcpProxy
) -> None:
    database = postgres.new_database()
    direct, lossy = config_of(postgres.url(database)), config_of(postgres.url(database, port=network.port))
    open_archive(direct).close()
    work(nodes, dice, 8)
    failures = 0
    for _ in range(60):
        network.faults = [dice.choice(["lose_commit", "lose_reply"])] if dice.random() < 0.7 else []
        try:
            with open_archive(lossy) as archive:
                dice.choice(nodes).deliver(archive, dice.choice([1, 5, 40]))
        except Unreachable:
            failures += 1
        network.faults = []
        if dice.random() < 0.2:
            work(nodes, dice)
    assert failures > 20
    with open_archive(lossy) as archive:
        deliver_all(nodes, archive)
    check(nodes, direct)


def test_a_server_that_says_nothing_any_more_is_cut_off(
    nodes: list[Node], dice: random.Random, postgres: Postgres, network: TcpProxy
) -> None:
    database = postgres.new_database()
    direct = config_of(postgres.url(database))
    open_archive(direct).close()
    work(nodes, dice)
    archive = Archive(PostgresDatabase(postgres.url(database, port=network.port), hanging_s=0.3))
    network.faults = ["hang"]
    with pytest.raises(Unreachable), archive:
        nodes[0].deliver(archive, 100)
    with open_archive(direct) as archive:
        deliver_all(nodes, archive)
    check(nodes, direct)


def test_what_takes_long_is_not_cut_off_while_there_are_answers(
    nodes: list[Node], dice: random.Random, postgres: Postgres
) -> None:
    work(nodes, dice)
    url = postgres.url(postgres.new_database())
    with open_archive(config_of(url)) as archive:
        deliver_all(nodes, archive)
    database = PostgresDatabase(url, hanging_s=0.5)
    with Archive(database) as archive:
        with database.transaction(writing=False):
            for _ in database.stream("SELECT 1"):
                time.sleep(0.7)
            assert database.rows("SELECT COUNT(*) FROM windows") > [(0,)]
        with pytest.raises(Unreachable, match="doesn't answer"), database.transaction(writing=False):
            database.rows("SELECT pg_sleep(20)")


def test_a_ledger_put_back_is_delivered_on(
    nodes: list[Node], dice: random.Random, config: Config, tmp_path: Path
) -> None:
    with open_archive(config, pull=False) as archive:
        work(nodes, dice, 2)
        deliver_all(nodes, archive)
        nodes[0].backup(tmp_path / "backup")
        work(nodes, dice, 3)
        deliver_all(nodes, archive)
        nodes[0].restart(ledger_from=tmp_path / "backup")
        assert deliver_all(nodes, archive) == 0
        work(nodes, dice, 2)
        assert deliver_all(nodes, archive) > 0
        nodes[1].restart()
        work(nodes, dice, 1)
        deliver_all(nodes, archive)
        assert {tip.forked_after > 0 for tip in archive.acked("node-0", "windows")} == {True, False}
        assert len(archive.acked("node-1", "windows")) == 1
    check(nodes, config)


def test_many_deliver_at_once(nodes: list[Node], dice: random.Random, postgres: Postgres) -> None:
    """Each node twice: as where an agent and an import by hand run at the same time."""
    config = config_of(postgres.url(postgres.new_database()))
    work(nodes, dice, 8)
    failed: list[BaseException] = []

    def deliver(node: Node) -> None:
        more, until_s = True, time.monotonic() + 60
        while more and time.monotonic() < until_s:
            try:
                with open_archive(config) as archive:
                    while more:
                        more = node.deliver(archive, 9).more
            except Unreachable:
                continue
            except BaseException as error:
                failed.append(error)
                raise

    threads = [threading.Thread(target=deliver, args=[node]) for node in [*nodes, *nodes]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    check(nodes, config)
