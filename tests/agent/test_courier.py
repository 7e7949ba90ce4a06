"""The courier: rows go out and divisors come back, an archive that is away costs the wait, nothing old is believed."""

import json
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.archive.fleet import Node, told_by, truth_of
from tests.doubles.postgres import Postgres, running

from wattribute.agent import courier as module
from wattribute.agent.archive import FILE, open_archive
from wattribute.agent.config.schema import Agent, Config, Ledger
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.courier import KEPT_EVENTS, Courier

S = 1_000_000_000
WEIGHT = 1_000_000


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time_ns(self) -> int:
        return 1_800_000_000 * S + self.now_ns

    def asleep_ns(self) -> int:
        return 0

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * S)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(postgres: Postgres, tmp_path: Path) -> Config:
    """The configuration of a node of a fleet, whose archive is empty."""
    (tmp_path / "state").mkdir()
    return config_of(tmp_path / "state", url=postgres.url(postgres.new_database()))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "state", "node-0", random.Random(1))
    yield made
    made.close()


def config_of(state_dir: Path, *, url: str = "", divisor_url: str = "") -> Config:
    return Config(agent=Agent(state_dir=str(state_dir)), ledger=Ledger(url=url, divisor_url=divisor_url))


def until(true: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until_s
        time.sleep(0.01)


# Out


def test_what_is_new_is_delivered_and_what_is_left_at_the_end(fleet: Config, node: Node, clock: Clock) -> None:
    node.work(["job-1", "job-2"], 5)
    courier = Courier(fleet, "node-0", clock)
    courier.work()
    node.work(["job-1"], 2)
    with open_archive(fleet) as archive:
        assert 0 < sum(told_by(archive).values()) < sum(truth_of([node]).values())
    clock.wait(4)
    courier.work()  # not due
    clock.wait(2)
    courier.work()
    with open_archive(fleet) as archive:
        assert told_by(archive) == truth_of([node])
    node.work(["job-2"])
    courier.start()
    until(lambda: courier.health()[0].last_read_unix_ns is not None)
    courier.close()
    courier.close()
    with open_archive(fleet) as archive:
        assert told_by(archive) == truth_of([node])
        assert archive.weights_ppm(but="", fresh_ns=60 * S) == {}


def test_a_backlog_goes_out_in_pieces_between_which_it_listens(
    fleet: Config, node: Node, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(module, "BREATH_S", 0.0)
    node.work(["job-1", "job-2"], 10)
    Courier(fleet, "node-0", clock).work()
    with open_archive(fleet) as archive:
        assert told_by(archive) == truth_of([node])


def test_an_archive_that_is_away_is_called_less_and_less(
    postgres: Postgres, fleet: Config, node: Node, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    node.work(["job-1"], 3)
    courier = Courier(fleet, "node-0", clock)
    courier.work()
    courier.present({"iks": WEIGHT})
    courier.work(hurry=True)
    assert courier.divisors == {"iks": WEIGHT}
    node.work(["job-1"], 3)
    postgres.stop()
    waits = []
    try:
        clock.wait(6)
        for _ in range(9):
            waits.append(courier.work())
            clock.wait(waits[-1])
        (health,) = courier.health()
        assert (health.up, health.failures) == (False, {"unreachable": 9})
        assert "doesn't answer" in health.why
        assert "check that PostgreSQL runs" in health.fix
        assert "geheim" not in health.why + caplog.text
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert courier.divisors == {"iks": None}
        courier.present({"iks": WEIGHT, "new": 1})
        assert courier.work(hurry=True) > 0
        assert courier.health()[0].failures["unreachable"] <= 10
    finally:
        postgres.start()
    for wait, most in zip(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert most / 2 <= wait <= most
    clock.wait(60)
    courier.work()
    assert courier.health()[0].up
    assert courier.divisors == {"iks": WEIGHT, "new": 1}
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    with open_archive(fleet) as archive:
        assert told_by(archive) == truth_of([node])
    courier.close()


def test_two_ledgers_of_one_name_are_told_apart_loudly(
    fleet: Config, node: Node, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Node(tmp_path / "other", "node-0", random.Random(2))
    other.work(["job-1"])
    node.work(["job-1"])
    with open_archive(fleet) as archive:
        other.deliver(archive, 100)
    other.close()
    courier = Courier(fleet, "node-0", clock)
    courier.work()
    (health,) = courier.health()
    assert health.up
    assert health.failures == {"conflict": 4}
    assert "a node id given twice" in health.why
    assert "counted nowhere" in caplog.text
    clock.wait(6)
    courier.work()
    assert courier.health()[0].failures == {"conflict": 4}
    courier.close()


def test_it_starts_without_the_archive_and_stops_at_once(tmp_path: Path, node: Node, clock: Clock) -> None:
    courier = Courier(config_of(tmp_path / "state", url="postgresql://127.0.0.1:1/x"), "node-0", clock)
    courier.start()
    courier.present({"iks": 5})
    until(lambda: not courier.health()[0].up)
    assert courier.divisors == {"iks": None}
    courier.close()
    assert not any(thread.name == "wattribute-courier" for thread in threading.enumerate())


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'wattribute\[postgresql\]'"):
        Courier(config_of(tmp_path, url="postgresql://127.0.0.1:1/x"), "node-0", clock)
    Courier(config_of(tmp_path), "node-0", clock)


# Back


def test_divisors_are_the_others_as_heard_and_ones_own_as_it_is(
    fleet: Config, node: Node, clock: Clock, tmp_path: Path
) -> None:
    ours, theirs = Courier(fleet, "node-0", clock), Courier(fleet, "node-1", clock)
    theirs.present({"iks": 3 * WEIGHT, "bert": 7})
    theirs.work()
    ours.present({"iks": WEIGHT, "mine": 2})
    assert ours.divisors == {"iks": None, "mine": None}
    ours.work()
    assert ours.divisors == {"iks": 4 * WEIGHT, "mine": 2}
    ours.present({"iks": 2 * WEIGHT, "bert": 1})
    assert ours.divisors == {"iks": 5 * WEIGHT, "bert": 8}
    clock.wait(59)
    assert ours.divisors == {"iks": 5 * WEIGHT, "bert": 8}
    clock.wait(2)
    assert ours.divisors == {"iks": None, "bert": None}
    ours.present({})
    assert ours.divisors == {}
    ours.work()
    theirs.work()
    assert theirs.divisors == {"iks": 3 * WEIGHT, "bert": 7}
    ours.close()
    theirs.close()


def test_products_are_heard_and_kept_for_when_the_archive_is_away(
    fleet: Config, node: Node, clock: Clock, tmp_path: Path
) -> None:
    with open_archive(fleet) as archive:
        archive.append([{"kind": "add", "id": "ä"}], after=0)
    courier = Courier(fleet, "node-0", clock)
    assert not courier.products_changed
    courier.work()
    assert courier.products_changed
    assert courier.take_events() == [(1, {"kind": "add", "id": "ä"})]
    assert not courier.products_changed
    clock.wait(6)
    courier.work()
    assert not courier.products_changed
    courier.close()
    kept = tmp_path / "state" / KEPT_EVENTS
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    away = config_of(tmp_path / "state", url="postgresql://127.0.0.1:1/x")
    later = Courier(away, "node-0", clock)
    assert later.products_changed
    assert later.take_events() == [(1, {"kind": "add", "id": "ä"})]
    for bad in ("", "{", "[[1]]", "7", '[["x",{}]]', "[[1,5]]"):
        kept.write_text(bad)
        assert Courier(away, "node-0", clock).take_events() == []


def test_alone_it_only_looks_whether_products_were_changed(tmp_path: Path, clock: Clock) -> None:
    config = config_of(tmp_path)
    courier = Courier(config, "node-0", clock)
    courier.present({"iks": WEIGHT})
    courier.work()
    assert not (tmp_path / FILE).exists()
    with open_archive(config) as archive:
        archive.append([{"k": 1}], after=0)
        clock.wait(6)
        courier.work()
        assert courier.take_events() == [(1, {"k": 1})]
        archive.append([{"k": 2}], after=1)
    clock.wait(6)
    courier.work()
    assert courier.products_changed
    assert len(courier.take_events()) == 2
    looks = 0

    def count(*_: object, **__: object) -> None:
        nonlocal looks
        looks += 1

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "open_archive", count)
        clock.wait(6)
        courier.work()
    assert looks == 0
    assert courier.divisors == {"iks": None}
    (tmp_path / FILE).write_text("something else" * 1000)
    clock.wait(6)
    courier.work()
    (health,) = courier.health()
    assert (health.up, health.failures) == (False, {"refused": 1})
    assert len(courier.take_events()) == 2


# A Prometheus in the shared ledger's place


class Prometheus(BaseHTTPRequestHandler):
    """Answers queries as Prometheus does, or as it shouldn't."""

    answer: bytes = b""
    status = 200
    asked: list[str]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        assert url.path == "/prom/api/v1/query"
        type(self).asked.append(parse_qs(url.query)["query"][0])
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def prometheus() -> Iterator[tuple[type[Prometheus], str]]:
    class Handler(Prometheus):
        asked: list[str] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield Handler, f"http://127.0.0.1:{server.server_port}/prom/"
    server.shutdown()
    server.server_close()


def vector(*values: str) -> bytes:
    result = [{"metric": {}, "value": [1_800_000_000.5, value]} for value in values]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def test_a_prometheus_is_asked_for_each_product(
    prometheus: tuple[type[Prometheus], str], tmp_path: Path, clock: Clock
) -> None:
    handler, url = prometheus
    courier = Courier(config_of(tmp_path, divisor_url=url), "node-0", clock)
    courier.work()
    handler.answer = vector("4.25")
    courier.present({'a"\\\nb': 2 * WEIGHT})
    clock.wait(6)
    courier.work()
    assert courier.divisors == {'a"\\\nb': 4_250_000}
    assert handler.asked == ['sum(rate(wattribute_product_weight_seconds_total{product_id="a\\"\\\\\\nb"}[5m]))']
    clock.wait(61)
    assert courier.divisors == {'a"\\\nb': None}


@pytest.mark.parametrize(
    ("value", "divisor"),
    [("3", 3_000_000), ("1", WEIGHT), ("0.9999999", WEIGHT), ("0.5", None), ("0", None), ("NaN", None), ("1e3", 10**9)],
)  # fmt: skip
def test_what_it_knows_less_of_than_runs_here_it_has_not_scraped_yet(
    value: str, divisor: int | None, prometheus: tuple[type[Prometheus], str], tmp_path: Path, clock: Clock
) -> None:
    handler, url = prometheus
    handler.answer = vector(value)
    courier = Courier(config_of(tmp_path, divisor_url=url), "node-0", clock)
    courier.present({"iks": WEIGHT})
    courier.work()
    assert courier.divisors == {"iks": divisor}
    assert courier.health()[1].up


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (200, vector("1", "2"), "gives 2 series, not one: sum them"),
        (200, vector("-1"), "can't be -1"),
        (200, vector("+Inf"), "can't be +Inf"),
        (200, vector("1e300"), "can't be 1e300"),
        (200, vector("x"), "ledger.divisor_url"),
        (200, b"{", "ledger.divisor_url"),
        (200, b'{"status":"error","error":"parse error"}', "Prometheus says parse error"),
        (200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}', "gives a matrix"),
        (200, b"[]", "ledger.divisor_url"),
        (400, b'{"status":"error"}', "answers 400"),
        (500, b"", "answers 500"),
    ],
)
def test_an_answer_that_is_none_is_told_with_the_fix(
    status: int, answer: bytes, why: str, prometheus: tuple[type[Prometheus], str], tmp_path: Path, clock: Clock
) -> None:
    handler, url = prometheus
    handler.status, handler.answer = status, answer
    courier = Courier(config_of(tmp_path, divisor_url=url), "node-0", clock)
    courier.present({"iks": WEIGHT})
    courier.work()
    archive, divisor = courier.health()
    assert archive.up
    assert (divisor.name, divisor.up, divisor.failures) == ("divisor", False, {"unreachable": 1})
    assert why in divisor.why
    assert divisor.fix
    assert courier.divisors == {"iks": None}


def test_a_scalar_or_nothing(prometheus: tuple[type[Prometheus], str], tmp_path: Path, clock: Clock) -> None:
    handler, url = prometheus
    handler.answer = b'{"status":"success","data":{"resultType":"scalar","result":[1.5,"8"]}}'
    courier = Courier(config_of(tmp_path, divisor_url=url), "node-0", clock)
    courier.present({"iks": WEIGHT})
    courier.work()
    assert courier.divisors == {"iks": 8 * WEIGHT}
    handler.answer = vector()
    clock.wait(6)
    courier.work()
    assert courier.divisors == {"iks": None}
