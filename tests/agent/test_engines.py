"""Serving engines on a whole node with its ledger: what they tell is joined with what their job used, to a uJ."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.agent.test_node import bench, workers
from tests.doubles.agent_socket import AgentOnSocket
from tests.doubles.engine_server import EngineServer, hangs, says, vllm
from tests.doubles.fake_node import FakeNode
from tests.doubles.node_bench import Bench, Worker

from wattribute.agent.cli.findings import look_at_engines
from wattribute.agent.config import load
from wattribute.agent.config.check import problems
from wattribute.agent.config.schema import Config, Engine
from wattribute.agent.core.model import ServedTotals
from wattribute.agent.engines import Engines
from wattribute.agent.opening import SystemClock
from wattribute.agent.requests import Peer, Served, Units

__all__ = ["bench", "workers"]  # fixtures
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

MICRO = 1_000_000


@pytest.fixture
def server() -> Iterator[EngineServer]:
    with EngineServer(vllm(1000)) as made:
        yield made


def config(url: str, *, job: str = "", name: str = "", interval_s: float = 1) -> str:
    return (
        f'[[engine]]\nurl = "{url}"\nkind = "vllm"\nproduct = "chat"\njob = "{job}"\nname = "{name}"\n'
        f"interval_s = {interval_s}\n"
    )


class Watch:
    """A node whose engine is asked each second, and a worker that is the engine's process."""

    def __init__(self, bench: Bench, server: EngineServer, worker: Worker, text: str = "") -> None:
        self.bench, self.server, self.worker = bench, server, worker
        bench.open(text or config(server.url, name="e"))
        bench.tick()

    def start(self, job_id: str = "serve", **fields: Any) -> None:
        self.bench.start(job_id, self.worker.pid, product_id="chat", **fields)

    def serve(self, page: str, seconds: float = 1) -> None:
        """The engine's process works, its page becomes this, and it is read."""
        self.worker.burn()
        self.server.page = page
        self.bench.tick(seconds)

    def totals(self) -> ServedTotals:
        """What is shown, which is all that the product's jobs used: settled or not."""
        self.bench.page()
        (totals,) = self.bench.node.snapshot().served
        used_uj = sum(self.bench.receipt(job_id)["energy_uj"] for job_id in self.job_ids())
        assert sum(one.energy_uj for one in totals.tenants.values()) + totals.idle_uj + totals.unsettled_uj == used_uj
        return totals

    def job_ids(self) -> list[str]:
        return [receipt["job_id"] for receipt in self.bench.node.jobs() if receipt["product_id"] == "chat"]

    def units(self) -> Mapping[str, int]:
        return self.totals().tenants[""].units

    def billed_uj(self) -> int:
        totals = self.totals()
        return totals.tenants[""].energy_uj if totals.tenants else 0

    def health(self) -> dict[str, Any]:
        (found,) = (s for s in self.bench.node.health()["sources"] if s["source"] == "engine:e")
        return dict(found)


@pytest.fixture
def watch(bench: Bench, workers: list[Worker], server: EngineServer) -> Watch:
    return Watch(bench, server, workers[0])


def test_requests_tokens_joules_and_stages(bench: Bench, workers: list[Worker], server: EngineServer) -> None:
    server.page = vllm(1000, 50_000, 9000, prefill=10, decode=90)
    watch = Watch(bench, server, workers[0])
    watch.start()
    watch.serve(vllm(1000, 50_000, 9000, prefill=10, decode=90))
    watch.serve(vllm(1004, 50_400, 9080, prefill=11, decode=93))
    watch.serve(vllm(1005, 50_500, 9100, prefill=12, decode=96, running=2))
    totals = watch.totals()
    assert totals.tenants[""].units == {
        "request": 5 * MICRO,
        "prompt_token": 500 * MICRO,
        "output_token": 100 * MICRO,
    }
    assert totals.in_flight == 2
    billed_uj = totals.tenants[""].energy_uj
    assert billed_uj > 0
    prefill_uj, decode_uj = totals.stages["prefill"][0], totals.stages["decode"][0]
    assert prefill_uj + decode_uj == billed_uj
    assert prefill_uj == pytest.approx(billed_uj / 4, abs=5)
    assert watch.health()["up"]


def test_time_without_requests_is_idle_and_with_one_under_way_it_isnt(watch: Watch) -> None:
    watch.start()
    watch.serve(vllm(1000))
    idle_uj = watch.totals().idle_uj
    watch.serve(vllm(1000))
    watch.serve(vllm(1000))
    totals = watch.totals()
    assert not totals.tenants
    assert totals.idle_uj > idle_uj
    watch.serve(vllm(1000, running=1))
    watch.serve(vllm(1000, running=1))
    idle_uj = watch.totals().idle_uj
    watch.serve(vllm(1001))
    watch.serve(vllm(1001))
    assert watch.billed_uj() > watch.totals().idle_uj - idle_uj > 0


def test_the_absence_of_an_engine_is_idle(watch: Watch) -> None:
    watch.start()
    watch.serve(vllm(1000))
    watch.serve(vllm(1003))
    billed_uj = watch.billed_uj()
    watch.server.server_close()
    for _ in range(4):
        watch.serve("")
    health = watch.health()
    assert (health["up"], health["why"]) == (False, "nobody listens there")
    totals = watch.totals()
    assert totals.tenants[""].energy_uj == billed_uj
    assert totals.unsettled_uj < totals.idle_uj


def test_counters_that_begin_anew_are_told_once(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    watch.start()
    watch.serve(vllm(1000))
    watch.serve(vllm(1003))
    with caplog.at_level("INFO", "wattribute"):
        watch.serve(vllm(2))
        watch.serve(vllm(5))
    assert watch.units()["request"] == 8 * MICRO
    assert (watch.health()["up"], watch.health()["why"]) == (True, "doesn't tell decode_s prefill_s")
    assert [r.getMessage() for r in caplog.records if "anew" in r.getMessage()] == [
        "engine:e: its counters began anew: counted from 0"
    ]
    (source,) = (s for s in watch.bench.node.snapshot().sources if s.name == "engine:e")
    assert source.resets == 1


def test_a_page_that_cant_be_read_for_a_while_loses_nothing(watch: Watch) -> None:
    watch.start()
    watch.serve(vllm(1000))
    watch.server.trouble = says(503)
    watch.serve(vllm(1004))
    assert watch.health()["why"] == "it answers 503"
    watch.server.trouble = None
    watch.serve(vllm(1006), 3)
    watch.serve(vllm(1007))
    assert watch.units()["request"] == 7 * MICRO
    assert watch.health()["up"]


def test_counts_wait_until_it_is_known_whose_they_are(watch: Watch, workers: list[Worker]) -> None:
    watch.serve(vllm(1003))
    health = watch.health()
    assert not health["up"]
    assert "no job of product" in health["why"]
    assert "--product chat" in health["fix"]
    watch.start()
    watch.bench.start("other", workers[1].pid, product_id="chat")
    watch.serve(vllm(1005))
    health = watch.health()
    assert "several jobs" in health["why"]
    assert 'job = "..."' in health["fix"]
    assert watch.bench.node.snapshot().served == []
    watch.bench.end("other", workers[1].pid)
    watch.serve(vllm(1006))
    watch.serve(vllm(1008))
    assert watch.health()["up"]
    assert watch.units()["request"] == 8 * MICRO


def test_a_job_that_is_named_has_to_run_for_the_product(
    bench: Bench, workers: list[Worker], server: EngineServer
) -> None:
    watch = Watch(bench, server, workers[0], config(server.url, name="e", job="mine"))
    watch.start("another")
    watch.serve(vllm(1001))
    assert "doesn't run on this node" in watch.health()["why"]
    bench.start("mine", workers[1].pid)
    watch.serve(vllm(1001))
    assert 'has product "default"' in watch.health()["why"]
    bench.end("mine", workers[1].pid)


def test_what_a_meter_tells_of_the_same_job_does_not_count_twice(watch: Watch) -> None:
    watch.start()
    watch.serve(vllm(1003))
    metered = Units(id=1, job_id="serve", account="m", served=(Served(requests=2),), shares=())
    watch.bench.node.units(metered, Peer(watch.worker.pid, os.getuid(), os.getgid()))
    watch.serve(vllm(1005))
    assert "a meter of its own" in watch.health()["why"]
    assert watch.units()["request"] == (3 + 2) * MICRO


def test_another_job_of_the_product_has_an_account_of_its_own(watch: Watch) -> None:
    watch.start("first")
    watch.serve(vllm(1003))
    watch.serve(vllm(1005))
    watch.bench.end("first", watch.worker.pid)
    watch.start("second")
    watch.serve(vllm(1009))
    watch.serve(vllm(1010))
    assert watch.units()["request"] == 10 * MICRO


def test_an_agent_that_was_away_counts_on_from_where_it_looks_again(watch: Watch) -> None:
    watch.start()
    watch.serve(vllm(1000))
    watch.serve(vllm(1004))
    before = watch.units()["request"]
    assert before == 4 * MICRO
    watch.server.page = vllm(1500)
    watch.bench.restart()
    watch.serve(vllm(1500))
    watch.serve(vllm(1503))
    watch.serve(vllm(1503))
    assert watch.units()["request"] == 7 * MICRO


class Booked:
    """Keeps what is counted."""

    def __init__(self) -> None:
        self.served: list[Served] = []

    def metered(self, job_id: str) -> bool:
        return False

    def count(self, job_id: str, account: str, served: Any, in_flight: int, stages: Any, until_ns: int) -> None:
        self.served += served


def test_an_engine_that_hangs_delays_nobody(watch: Watch, server: EngineServer) -> None:
    """Threads of their own: the loop goes on, and the other engine is counted."""
    watch.start()
    jobs = watch.bench.node.registry.jobs
    with EngineServer() as slow:
        slow.trouble = hangs
        both = tuple(Engine(url=url, kind="vllm", product="chat", interval_s=0.1) for url in (slow.url, server.url))
        engines = Engines(both, SystemClock())
        booked = Booked()
        while not booked.served:
            engines.request()
            engines.collect(jobs, booked)
        assert [health.last_read_unix_ns is not None for health in engines.health()] == [False, True]
        slow.released.set()
        engines.close()


def test_doctor_shows_each_engine(server: EngineServer, tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    agent = f'[agent]\nsocket = "{tmp_path / "none.sock"}"\n'
    path.write_text(agent + config(server.url) + config("http://127.0.0.1:1", name="gone"))
    good, gone = look_at_engines(load(path, {}, {}).config)
    assert good.ok
    assert good.source == f"engine:{server.url[7:-8]}"
    assert good.why == "tells aborted in_flight output_token prompt_token request, not decode_s prefill_s"
    assert (gone.source, gone.ok, gone.why) == ("engine:gone", False, "nobody listens there")


def test_doctor_tells_what_keeps_a_running_agent_from_counting(server: EngineServer, tmp_path: Path) -> None:
    class Node(FakeNode):
        def health(self, peer: Peer | None = None) -> dict[str, Any]:
            return {"sources": sources}

    path, socket = tmp_path / "w.toml", tmp_path / "agent.sock"
    path.write_text(f'[agent]\nsocket = "{socket}"\n{config(server.url, name="e")}')
    sources: list[dict[str, Any]] = []
    with AgentOnSocket(socket, Node()):
        (unknown,) = look_at_engines(load(path, {}, {}).config)
        assert not unknown.ok and unknown.why.endswith("; the agent that runs doesn't know it")
        sources.append({"source": "engine:e", "up": False, "why": "no job", "fix": "start one"})
        (jobless,) = look_at_engines(load(path, {}, {}).config)
        assert (jobless.ok, jobless.why[-8:], jobless.fix) == (False, "; no job", "start one")
        sources[0]["up"] = True
        (good,) = look_at_engines(load(path, {}, {}).config)
        assert (good.ok, good.fix) == (True, "")


@pytest.mark.parametrize(
    ("engines", "said"),
    [
        ([{"url": "127.0.0.1:8000"}], "isn't http://"),
        ([{"url": "http://u:p@h/"}], "has a user"),
        ([{}, {}], "read already"),
        ([{"name": "a"}, {"name": "a", "url": "http://h:9"}], 'two engines are named "a"'),
        ([{"product": "_p"}], "product can't be"),
        ([{"job": "_p"}], "job can't be"),
        ([{"counters": {"image": "sum(x)"}}], ".counters.image = 'sum(x)'"),
        ([{"counters": {"_x": "x"}}], "a unit can't be '_x'"),
        ([{"kind": "other"}], "needs counters"),
        ([{"kind": "other", "counters": {"in_flight": "x"}}], "needs counters"),
        ([{"kind": "other", "counters": {"image": 'x{a="b"} + y'}}, {"url": "http://h:9", "name": "b"}], ""),
    ],
)
def test_what_is_wrong_with_an_engine_is_told(engines: list[dict[str, Any]], said: str) -> None:
    default = {"url": "http://127.0.0.1:8000", "kind": "vllm", "product": "chat"}
    found = problems(Config(engine=tuple(Engine(**{**default, **engine}) for engine in engines)))
    assert [key for key, _ in found] == ["engine"] * bool(said)
    assert said in "".join(why for _, why in found)
