"""Receipts of requests: their sums are what was billed, to the microjoule, and with idle what the job used."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.powercap import PowercapTree
from tests.doubles.powerlaws import CpuLaw, node_cpu_ns
from tests.e2e.running import IDLE_W, W_PER_CORE, RunningAgent, check_identities, total

import wattribute
from wattribute.agent import process
from wattribute.agent.meter.bills import AT_ONCE, PLACES, V_PER_NS, Bill, Bills, Row
from wattribute.agent.meter.receipts import RequestReceipt, grams_of
from wattribute.agent.node import Node
from wattribute.agent.process import Process, here
from wattribute.agent.receipts import OVERLAPPED, TERMS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def amounts(energy_uj: int) -> list[int]:
    return [energy_uj, *(energy_uj * term for term in range(1, PLACES))]


def bill(number: int, tenant: str = "a", begin: int = 0, end: int | None = None, weight: float = 1) -> Bill:
    made = Bill(number, tenant, weight, begin, began_ns=0)
    if end is not None:
        made.end(end, end, {}, aborted=False)
    return made


stays = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(0, 40), st.sampled_from([1, 2, 0.5])), max_size=12
)


@given(stays=stays, energies=st.lists(st.integers(0, 1000), min_size=1, max_size=6))
def test_the_receipts_of_a_row_sum_to_the_row_whatever_is_left_goes_to_the_next(
    stays: list[tuple[str, int, int, float]], energies: list[int]
) -> None:
    bills = Bills(all_have=True)
    made = []
    for number, (tenant, begin, length, weight) in enumerate(stays):
        made.append(bill(number, tenant, begin * V_PER_NS, (begin + length) * V_PER_NS, weight))
        bills.add(made[-1])
        bills.ended(made[-1])
    given_uj = 0
    for number, energy_uj in enumerate(energies):
        until_v = 80 * V_PER_NS * (number + 1) // len(energies)
        bills.settle(until_v, [Row(tenant, amounts(energy_uj), 0) for tenant in "ab"])
        given_uj += 2 * energy_uj
    bills.finish()
    assert all(one.settled for one in made)
    sums = [sum(column) for column in zip(*(one.amounts for one in made if one.amounts), strict=True)]
    if made:
        assert sums == amounts(given_uj) or not any(one.amounts for one in made)
        assert len(bills) == 0


def test_a_request_has_its_weight_of_each_window_that_it_was_in() -> None:
    bills = Bills(all_have=True)
    first, second, later = bill(1, end=30), bill(2, begin=10, end=20, weight=3), bill(3, begin=25)
    for one in (first, second, later):
        bills.add(one)
    assert bills.settle(20, [Row("a", amounts(500), 0)]) == [second]
    assert (first.energy_uj, second.energy_uj, later.energy_uj) == (200, 300, None)
    later.end(40, 40, {}, aborted=False)
    assert bills.settle(40, [Row("a", amounts(250), 0)]) == [first, later]
    assert (first.energy_uj, later.energy_uj) == (200 + 100, 150)
    assert first.amounts == amounts(300)


def test_what_falls_to_requests_without_a_receipt_is_nobodys_here() -> None:
    bills = Bills(all_have=False)
    one = bill(1, end=10 * 1000 * V_PER_NS)
    bills.add(one)
    bills.settle(20 * 1000 * V_PER_NS, [Row("a", amounts(400), 40 * 1000 * V_PER_NS), Row("b", amounts(7), 0)])
    assert one.energy_uj == 100
    bills.finish()
    assert one.energy_uj == 100


def test_a_request_that_no_row_was_of_is_unknown_but_one_without_length_took_nothing() -> None:
    bills = Bills(all_have=True)
    lost, short, running = bill(1, end=10), bill(2, begin=10, end=10), bill(3, begin=10)
    for one in (lost, short, running):
        bills.add(one)
    assert bills.settle(20, []) == [lost, short]
    assert (lost.energy_uj, lost.amounts) == (None, None)
    assert (short.energy_uj, short.amounts) == (0, [0] * PLACES)
    assert (running.settled, running.energy_uj) == (False, None)


def test_a_window_that_nobody_tells_of_is_left_out_and_said() -> None:
    bills = Bills(all_have=True)
    before, after = bill(1, end=30), bill(2, begin=20, end=40)
    for one in (before, after):
        bills.add(one)
    bills.skip(20)
    assert bills.settle(40, [Row("a", amounts(300), 0)]) == [before, after]
    assert (before.energy_uj, after.energy_uj) == (100, 200)
    assert (before.short, after.short) == (True, False)


def test_thousands_are_settled_with_pauses_in_between() -> None:
    pauses: list[int] = []
    bills = Bills(all_have=True, pause=lambda: pauses.append(len(bills)))
    made = [bill(number, end=10) for number in range(2 * AT_ONCE + 1)]
    for one in made:
        bills.add(one)
    assert bills.settle(10, [Row("a", amounts(10**9 + 1), 0)]) == made
    assert sum(one.energy_uj or 0 for one in made) == 10**9 + 1
    assert pauses == [len(made)] * 6  # looked at twice and settled once, in three parts each


def test_what_is_known_so_far_says_until_when() -> None:
    bills = Bills(all_have=True)
    one = bill(1, begin=5)
    bills.add(one)
    assert one.so_far() == (None, 5)
    for until_v in (20, 30):
        bills.settle(until_v, [Row("a", amounts(7), 0)])
    assert one.so_far() == (amounts(14), 30)


def test_so_many_receipts_are_kept() -> None:
    bills = Bills(all_have=True, kept=2)
    for number in range(3):
        one = bill(number, end=10)
        bills.add(one)
        bills.ended(one)
    assert [bills.find(number) is None for number in range(3)] == [True, False, False]
    assert len(bills.settle(10, [Row("a", amounts(30), 0)])) == 3


def test_a_sum_of_grams_is_of_the_terms_that_are_known() -> None:
    known: dict[str, int | None] = dict.fromkeys(TERMS, 10**9)
    grams = grams_of({**known, "retraining": None})
    assert (grams["retraining"], grams["jsc"], grams["jsce"], grams["asce"]) == (None, 2.0, 3.0, 6.0)
    assert grams_of(dict.fromkeys(TERMS))["jsc"] is None


CONFIG = """
[agent]
interval_s = 0.1
[paths]
sys = "{sys}"
[collectors]
nvml = "off"
modelled = "off"
[attribution]
cpu_idle_w = 10
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with directories of their own, and a processor whose counter runs; without an agent."""
    for name in list(os.environ):
        if name.startswith(("WATTRIBUTE_", "SLURM_", "TORCHELASTIC_", "XDG_")):
            monkeypatch.delenv(name)
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WATTRIBUTE_CONFIG", str(tmp_path / "wattribute.toml"))
    (tmp_path / "wattribute.toml").write_text(CONFIG.format(sys=tmp_path / "sys"))
    monkeypatch.setattr(process, "_here", Process())
    return tmp_path


@pytest.fixture
def sensors(user: Path) -> Iterator[None]:
    with PowercapTree(user / "sys") as tree:
        zone = tree.add_zone("package-0", limits_uw=(200_000_000,))
        with tree.running({zone: CpuLaw(IDLE_W, W_PER_CORE, node_cpu_ns())}):
            yield


def burn(cpu_s: float) -> None:
    until_s = time.process_time() + cpu_s
    while time.process_time() < until_s:
        pass


def until(done: Callable[[], object]) -> None:
    until_s = time.monotonic() + 10
    while not done():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_in_a_process_that_measures_itself_receipts_and_idle_are_all_that_it_used(user: Path, sensors: None) -> None:
    with wattribute.meter("llama", receipts=True) as meter:
        until(lambda: meter.job.measured_here)
        requests = []
        for number in range(8):
            with meter.request(units={"token": 3}, tenant="ab"[number % 2]) as request:
                burn(0.02)
            requests.append(request)
        assert requests[-1].receipt is not None
        with meter.request(tenant="c") as running:
            burn(0.15)
            estimated = meter.estimate(running)
            assert estimated is not None
            assert estimated.energy_uj > 0
            assert running.receipt is not None
            assert not running.receipt.settled
        requests.append(running)
    engine = here().engine(os.environ)
    until(lambda: not meter.job.running)
    receipts = [meter.receipt(request.id) for request in requests]
    assert all(receipt is not None and receipt.settled and receipt.basis == "in-process" for receipt in receipts)
    whole = meter.job.receipt
    node = engine._node
    assert isinstance(node, Node)
    node.flush()
    (served,) = node.snapshot().served
    # On a busy machine the double's counter may stand still during a whole request.
    sums = [receipt.energy_uj for receipt in receipts if receipt is not None and receipt.energy_uj is not None]
    assert len(sums) == len(requests)
    assert sum(one.energy_uj for one in served.tenants.values()) == sum(sums) > 0
    assert sum(sums) + served.idle_uj + served.unsettled_uj == whole.energy_uj
    assert served.tenants["a"].units == {"request": 4_000_000, "token": 12_000_000}
    (last,) = [receipt for receipt in receipts if receipt is not None and receipt.tenant == "c"]
    assert json.loads(json.dumps(last.to_dict()))["schema"] == "wattribute.request/1"
    assert "tenant c" in str(last)
    assert last.terms["operation"] == pytest.approx(last.energy_uj * 480 / 3.6e12, rel=0.01)  # type: ignore[operator]
    engine.close()


WORKERS = """
import json, os, sys, time
import wattribute

meter = wattribute.meter("llama", uses=["cluster"], receipts=True)
workers = []
for worker in range(3):
    read, write = os.pipe()
    if os.fork() == 0:
        ids = []
        meter.start()
        time.sleep(0.3)
        for number in range(6):
            with meter.request(units={"token": 5}, tenant=f"t{number % 2}") as request:
                until = time.process_time() + 0.02
                while time.process_time() < until: pass
            ids.append(request.id)
        until = time.monotonic() + 10
        while time.monotonic() < until and not all(meter.receipt(each).settled for each in ids):
            time.sleep(0.02)
        with os.fdopen(write, "w") as file:
            json.dump([meter.receipt(each).to_dict() for each in ids], file)
        if worker == 0:
            os.kill(os.getpid(), 9)
        meter.stop()
        sys.exit(0)
    os.close(write)
    workers.append(read)
receipts = []
for worker in workers:
    with os.fdopen(worker) as file:
        receipts += json.load(file)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
print(json.dumps(receipts))
"""
PRODUCTS = """
[[product]]
id = "cluster"
kind = "platform"
scope = "node"
overhead_g_per_min = 60.0
[[product]]
id = "llama"
kind = "model"
scope = "node"
epc_kgco2e = 1000.0
unit = "token"
expected_units = 1e6
amortise = "units"
status = "frozen"
deployed = 2023-11-14
"""


def test_a_receipt_says_that_another_job_of_the_process_had_its_part(user: Path, sensors: None) -> None:
    with wattribute.job("beside"), wattribute.meter("llama", receipts=True) as meter:
        until(lambda: meter.job.measured_here)
        with meter.request() as request:
            burn(0.02)
        until(lambda: OVERLAPPED in str(request.receipt))
    until(lambda: not meter.job.running)
    assert OVERLAPPED in meter.job.receipt.notes
    here().engine(os.environ).close()


def test_workers_of_one_job_share_what_it_used_to_the_microjoule(
    user: Path, sensors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATTRIBUTE_CONFIG")
    agent = RunningAgent(user, user / "sys", interval_s=0.1, more=PRODUCTS)
    try:
        agent.start()
        done = subprocess.run(
            [sys.executable, "-c", WORKERS], env=agent.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        receipts: list[dict[str, Any]] = json.loads(done.stdout)
        until(lambda: total(agent.samples(), "wattribute_product_running_jobs", product_id="llama") == 0)
        until(lambda: not total(agent.samples(), "wattribute_product_unsettled_joules"))
        samples = agent.samples()
        check_identities(samples)
        whole = agent.receipt("serve-llama")
    finally:
        agent.close()
    assert len(receipts) == 18
    assert all(receipt["settled"] and receipt["basis"] == "daemon" for receipt in receipts)

    def of_product(name: str, **labels: str) -> Decimal:
        return total(samples, f"wattribute_product_{name}", product_id="llama", **labels)

    joules = Decimal(sum(receipt["energy_uj"] for receipt in receipts)) / 10**6
    assert joules == of_product("request_joules_total")
    assert joules + of_product("idle_joules_total") == of_product("energy_joules_total", role="use")
    assert round((joules + of_product("idle_joules_total")) * 10**6) == whole["energy_uj"]
    assert of_product("units_total", unit="request") == 18
    assert of_product("units_total", unit="token") == 90
    assert all(receipt["gco2e"]["product"] == 5.0 for receipt in receipts)  # 1 g a token
    for term in ("operation", "platform", "hardware"):
        grams = sum(receipt["gco2e"][term] for receipt in receipts)
        assert grams == pytest.approx(float(of_product("request_grams_total", term=term)), abs=1e-9)
        assert grams > 0
    assert whole["members"] == 3
    assert RequestReceipt(receipts[0]).jsce_gco2e
