"""Metered requests on a whole node with its ledger: who may report, what is answered, what a restart leaves."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.metered_bench import Meter, MeteredBench
from tests.doubles.node_bench import S
from tests.doubles.powercap import PowercapTree

from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import TERMS
from wattribute.agent.core.products import MICRO
from wattribute.agent.core.served_room import Room
from wattribute.agent.dispatch import Dispatch
from wattribute.agent.inprocess import open_engine
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.requests import JobStart, Peer, Receipts, Served, Units

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

PRODUCTS = """
[carbon]
intensity_g_per_kwh = 480
pue = 1.2
[[product]]
id = "cloud"
scope = "node"
overhead_g_per_min = 60
[[product]]
id = "llm"
scope = "node"
epc_kgco2e = 1000
unit = "token"
expected_units = 1e6
amortise = "units"
status = "frozen"
deployed = 2023-11-14
runs_on = ["cloud"]
retraining_interval_days = 0.01
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[MeteredBench]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = MeteredBench(tmp_path, tree.add_package())
        yield made
        made.close()
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []


def test_requests_divide_what_their_job_used_and_leave_its_receipt_alone(bench: MeteredBench) -> None:
    bench.open(PRODUCTS)
    bench.tick()
    worker, meter = bench.serving("serve-llm", "llm")
    for _ in range(3):
        bench.sim.burn(worker, 900)
        bench.tick(1)
        meter.serve(a=3, b=1).report(0.5, in_flight=2)
    bench.tick(1)
    shown = bench.look_at_requests("serve-llm")["llm"]
    a, b = shown.tenants["a"], shown.tenants["b"]
    assert a.units == {"request": 9 * MICRO, "token": 9 * MICRO // 2}
    assert a.energy_uj == pytest.approx(b.energy_uj, abs=9)
    assert a.energy_uj + b.energy_uj > 3 * 30_000_000
    assert shown.in_flight == 2
    terms = dict(zip(TERMS, zip(a.terms_ng, b.terms_ng, strict=True), strict=True))
    assert terms["product"] == (4_500_000_000, 1_500_000_000)  # 1 g a token
    assert min(map(min, (terms["operation"], terms["cooling"], terms["platform"], terms["hardware"]))) > 0
    receipt = bench.receipt("serve-llm")
    assert receipt["gco2e"]["product"] == 6.0
    assert receipt["energy_uj"] == a.energy_uj + b.energy_uj + shown.idle_uj + shown.unsettled_uj


def test_only_its_user_and_root_report_of_a_job(bench: MeteredBench) -> None:
    bench.open()
    bench.tick()
    worker, meter = bench.serving("serve-llm", "llm")
    for uid, job_id, why in (
        (4711, "serve-llm", "there is no job 'serve-llm'"),
        (0, "nothing", "there is no job 'nothing'"),
    ):
        with pytest.raises(Refused, match=why):
            Meter(bench, job_id, "x", uid).report(0.0)
    Meter(bench, "serve-llm", "x", 0).serve(a=1).report(0.0)
    with pytest.raises(Refused, match="`requests` counts"):
        bench.node.serving.count("serve-llm", "y", [Served(units={"request": 1.0})], 0, {}, 0)
    with pytest.raises(Refused, match="is no count"):
        bench.node.serving.count("serve-llm", "y", [], 0, {"prefill": float("nan")}, 0)
    bench.end("serve-llm", worker.pid)
    bench.tick()
    with pytest.raises(Refused, match="has ended"):
        meter.report(0.0)
    assert bench.look_at_requests("serve-llm")["llm"].unsettled_uj == 0


def test_a_refused_first_report_opens_nothing(bench: MeteredBench) -> None:
    bench.open()
    bench.tick()
    bench.sim.make("/serving")
    bench.start("serve-llm", bench.sim.fork("/serving").pid, product_id="llm")
    with pytest.raises(Refused, match="ahead"):
        Meter(bench, "serve-llm", "x").serve(a=1).report(0.0, late_s=-30)
    bench.tick()
    assert bench.look_at_requests() == {}


def test_reports_past_a_users_room_are_refused_until_there_is_some(bench: MeteredBench) -> None:
    """Windows that could still be asked for go first; totals are as ever."""
    bench.open()
    bench.tick()
    _, meter = bench.serving("serve-llm", "llm")
    bench.node.serving._room_entries = Room(40)
    for _ in range(20):  # 4 entries each, and 3 for each window that is kept
        meter.serve(a=1).report(0.5, seen_ns=0)
        bench.tick(1)
    meter.serve(**{f"t{number}": 1 for number in range(19)})
    for _ in range(2):
        with pytest.raises(Refused, match="too much is reported"):
            meter.report(0.5)
    meter.requests = {"a": 25}
    bench.tick(1)
    meter.report(0.5)
    bench.tick(1)
    assert bench.look_at_requests("serve-llm")["llm"].tenants["a"].units["request"] == 25 * MICRO


def test_windows_of_many_accounts_cost_a_tick_no_more_than_there_is_room_for(bench: MeteredBench) -> None:
    """Each end of a window cuts all that overlap it: their rows are split again and again."""
    bench.open()
    bench.tick()
    _, meter = bench.serving("serve-llm", "llm")
    bench.node.serving._room_entries = Room(1000)
    names = {f"t{number}": 1 for number in range(20)}
    others = [Meter(bench, "serve-llm", f"token {number}").serve(**names) for number in range(9)]
    with pytest.raises(Refused, match="too much is reported"):
        for other in others:
            other.report(0.1)
    bench.tick(2)
    assert sum(bench.look_at_requests("serve-llm")["llm"].tenants[name].units["request"] for name in names) / MICRO > 60
    meter.serve(a=1).report(0.5)


def test_a_job_that_runs_again_waits_for_its_meter_from_the_beginning(bench: MeteredBench) -> None:
    """Every page adds up, also before the first report of its new life, over a restart and where none comes."""
    bench.open(PRODUCTS)
    bench.tick()
    worker, meter = bench.serving("serve-llm", "llm")
    for life in range(3):
        bench.sim.burn(worker, 900)
        bench.tick(1)
        before = bench.look_at_requests("serve-llm")["llm"]
        if life:
            assert before.unsettled_uj > 10_000_000
        if life < 2:
            meter.serve(a=1).report(0.5)
        bench.end("serve-llm", worker.pid)
        bench.tick(1)
        shown = bench.look_at_requests("serve-llm")["llm"]
        assert shown.unsettled_uj == 0
        if life:
            bench.restart()
        worker = bench.sim.fork("/serving")
        bench.start("serve-llm", worker.pid, product_id="llm")
        bench.look_at_requests("serve-llm")
    assert shown.tenants["a"].units["request"] == 2 * MICRO
    assert shown.tenants["a"].energy_uj == before.tenants["a"].energy_uj


def test_what_a_job_owes_after_its_end_is_idle(bench: MeteredBench) -> None:
    """A retraining whose interval is over later: the page adds up, over a restart and in the job's next life."""
    bench.open(PRODUCTS)
    bench.tick()
    bench.sim.make("/training")
    training = bench.sim.fork("/training")
    bench.start("retrain", training.pid, product_id="llm", role="retraining")
    worker, meter = bench.serving("serve-llm", "llm")
    for process in (training, worker):
        bench.sim.burn(process, 400)
    bench.tick(1)
    meter.serve(a=1).report(0.5)
    bench.end("serve-llm", worker.pid)
    bench.tick(1)
    retraining = TERMS.index("retraining")
    assert bench.look_at_requests("serve-llm")["llm"].idle_ng[retraining] == 0
    bench.restart()
    bench.tick(900)
    assert bench.look_at_requests("serve-llm")["llm"].idle_ng[retraining] > 0
    bench.restart()
    worker = bench.sim.fork("/serving")
    bench.start("serve-llm", worker.pid, product_id="llm")
    bench.look_at_requests("serve-llm")


def test_the_answer_tells_what_the_windows_were_billed(bench: MeteredBench) -> None:
    bench.open(PRODUCTS)
    bench.tick()
    worker, meter = bench.serving("serve-llm", "llm")
    began_ns = bench.clock.boot_ns - S // 20
    bench.sim.burn(worker, 900)
    bench.tick()
    node = Dispatch(bench.node, interval_s=1.0, version="0")
    answer = meter.serve(a=1).report(0.8, seen_ns=0)
    assert (answer["windows"], answer["until_ns"], answer["retraining_open"]) == ([], began_ns, False)
    bench.tick(0.1)
    answer = meter.serve(a=1).report(0.1, seen_ns=0)
    (window,) = answer["windows"]
    shown = bench.look_at_requests("serve-llm")["llm"].tenants["a"]
    assert (window["since_ns"], window["until_ns"]) == (began_ns, began_ns + 21 * S // 20)
    ((name, energy_uj, *terms_ng),) = window["rows"]
    assert (name, energy_uj) == ("a", shown.energy_uj)
    # The product's, by units, is told by its price; retraining comes when its interval is over.
    product = TERMS.index("product")
    assert [*terms_ng[:product], terms_ng[product] + shown.terms_ng[product]] == list(shown.terms_ng)
    assert (answer["unit"], answer["product_ng_per_unit"]) == ("token", 1e9)
    assert answer["retraining_open"]
    request = Units(id=1, job_id="serve-llm", account=meter.token, served=(), shares=(), seen_ns=answer["until_ns"])
    assert node(request, Peer(1, 0, 0)) == {**answer, "windows": [], "interval_s": 1.0}  # the last isn't settled yet


def test_after_a_kill_nothing_has_fallen_and_nothing_is_counted_twice(bench: MeteredBench) -> None:
    bench.open(PRODUCTS)
    bench.tick()
    worker, meter = bench.serving("serve-llm", "llm")
    bench.sim.burn(worker, 500)
    bench.tick()
    receipts = Receipts(counts=(0, 2), sum_uj=4000, latest=((1, "r", 2000, 7),))
    meter.serve(a=2).report(0.5, receipts=receipts)
    bench.tick()
    before = bench.look_at_requests("serve-llm")["llm"]
    meter.serve(b=5).report(0.5)  # the agent dies before the next tick: that is lost, and sent again
    bench.kill()
    bench.sim.burn(worker, 500)
    bench.clock.pass_(3)
    bench.open()
    bench.tick(0)
    assert bench.look_at_requests("serve-llm")["llm"].tenants == before.tenants
    meter.report(1.0, receipts=receipts)
    bench.tick()
    after = bench.look_at_requests("serve-llm")["llm"]
    assert {name: one.units["request"] // MICRO for name, one in after.tenants.items()} == {"a": 2, "b": 5}
    assert (after.receipt_counts[1], after.receipt_sum_uj, after.receipt_latest) == (2, 4000, {1: ("r", 2000, 7)})
    assert after.tenants["b"].energy_uj > 0


def test_a_job_that_a_reboot_ended_leaves_the_rest_idle_and_may_come_back(bench: MeteredBench) -> None:
    bench.open("[export]\nhold_s = 5\n" + PRODUCTS)
    bench.tick()
    worker, meter = bench.serving("serve-llm", "llm")
    bench.sim.burn(worker, 900)
    bench.tick()
    meter.serve(a=1).report(1.0)
    bench.reboot()
    shown = bench.look_at_requests("serve-llm")["llm"]
    assert (shown.unsettled_uj, shown.in_flight) == (0, 0)
    assert shown.idle_uj > 0
    bench.tick(1000)  # it leaves the table, and a tax of the interval comes late
    bench.look_at_requests("serve-llm")
    worker, meter = bench.serving("serve-llm", "llm")
    bench.sim.burn(worker, 900)
    bench.tick()
    meter.serve(a=1).report(1.0)
    bench.tick()
    shown = bench.look_at_requests("serve-llm")["llm"]
    assert shown.tenants["a"].energy_uj > 0
    bench.end("serve-llm", worker.pid)
    bench.tick()
    assert bench.look_at_requests("serve-llm")["llm"].unsettled_uj == 0


def test_an_engine_is_counted_from_the_outside(bench: MeteredBench) -> None:
    bench.open()
    bench.tick()
    group = bench.find("vllm", "/jobs/vllm", product_id="llm")
    bench.tick()
    serving = bench.node.serving
    for requests in (0, 4):
        served = [Served(requests=requests, units={"output_token": 100.0 * requests})]
        stages = {"prefill": requests / 16, "decode": 3 * requests / 16}
        serving.count("vllm", "engine", served, 1, stages, bench.clock.boot_ns)
        bench.sim.use(group.path, 500)
        bench.tick()
    shown = bench.look_at_requests("vllm")["llm"]
    assert shown.tenants[""].units == {"request": 4 * MICRO, "output_token": 400 * MICRO}
    assert shown.tenants[""].energy_uj == sum(uj for uj, _ in shown.stages.values())
    assert shown.stages["decode"][0] == pytest.approx(3 * shown.stages["prefill"][0], abs=3)


def test_in_a_process_of_its_own_a_meter_reports_to_the_engine_there(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").touch()
    engine = open_engine({"HOME": str(tmp_path), "WATTRIBUTE_CONFIG": str(tmp_path / "empty.toml")}, version="0")
    try:
        engine.ask(JobStart(id=0, job_id="serve-llm", member="m", product_id="llm"))
        served = (Served(tenant="a", requests=1),)
        answer = engine.ask(Units(id=1, job_id="serve-llm", account="t", served=served, shares=(), seen_ns=0))
        assert answer["interval_s"] == engine.interval_s
        with pytest.raises(Refused, match="no job"):
            engine.ask(Units(id=1, job_id="another", account="t"))
    finally:
        engine.close()
