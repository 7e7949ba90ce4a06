"""A node on real processes: what it shows adds up and never falls, through holds, restarts and other boots."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.doubles.node_bench import Bench, Worker
from tests.doubles.powercap import PowercapTree
from tests.e2e.running import total

from wattribute.agent.archive import open_archive
from wattribute.agent.config import load
from wattribute.agent.core.errors import Refused
from wattribute.agent.ledger.reader import read_only
from wattribute.agent.requests import JobEnd, JobStart, Peer

HOLD_1 = "[export]\nhold_s = 1\n"
PRODUCTS = """
[carbon]
intensity_g_per_kwh = 480
pue = 1.2
[[product]]
id = "platform"
kind = "platform"
scope = "node"
overhead_g_per_min = 60
[[product]]
id = "model"
kind = "model"
scope = "node"
epc_kgco2e = 1000
lifetime_years = 4
runs_on = ["platform"]
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with PowercapTree(tmp_path / "sys") as tree:
        tree.say_cpu()
        made = Bench(tmp_path, tree.add_package())
        yield made
        made.close()
    with read_only(tmp_path / "state") as ledger:
        assert ledger.verify() == []


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started = [Worker() for _ in range(3)]
    yield started
    for worker in started:
        worker.kill()


def test_what_is_shown_stays_whole_while_a_job_retires(bench: Bench, workers: list[Worker]) -> None:
    """What happens to a job isn't shown before the totals that go with it are."""
    bench.open("[export]\nhold_s = 1\nexport_age_s = 5\n")
    bench.tick()
    bench.start("a", workers[0].pid)
    for second in range(20):
        if second == 6:
            bench.end("a", workers[0].pid)
        if second < 6:
            workers[0].burn()
        bench.tick()
        bench.page(whole=second > 6)
    assert bench.joules("_retired") > 0


def test_a_job_that_comes_back_after_it_was_folded_is_counted_once(bench: Bench, workers: list[Worker]) -> None:
    pid = workers[0].pid
    bench.open(HOLD_1)
    bench.tick()
    for _ in range(3):
        bench.start("a", pid)
        bench.page()
        workers[0].burn()
        bench.tick()
        bench.page()
        bench.restart()
        bench.page()
        bench.end("a", pid)
        bench.restart()
        bench.page()
        bench.tick(2)
        assert {s.labels["job_id"] for s in bench.page() if "job_id" in s.labels} == {"_retired"}
        bench.restart()
        bench.page()
    assert Decimal(bench.receipt("a")["energy_uj"]) / 1_000_000 == bench.joules("_retired")


def test_a_job_comes_back_before_the_ledger_has_its_fold(bench: Bench, workers: list[Worker]) -> None:
    pid = workers[0].pid
    bench.open("[export]\nhold_s = 0\n")
    bench.tick()
    bench.start("a", pid)
    workers[0].burn()
    bench.tick()
    bench.page()
    bench.node.end(JobEnd(id=1, job_id="a", member="m"), Peer(pid, 0, 0))
    bench.tick()
    bench.node.start(JobStart(id=1, job_id="a", member="m", pid=pid), Peer(pid, 0, 0))
    bench.tick()
    bench.forget("a")
    bench.page()
    assert Decimal(bench.receipt("a")["energy_uj"]) / 1_000_000 == bench.joules("_retired") + bench.joules("a")


def test_without_sensor_and_model_operation_is_unknown(bench: Bench, workers: list[Worker]) -> None:
    bench.open(collectors='rapl = "off"\nmodelled = "off"\nnvml = "off"')
    bench.tick()
    bench.start("a", workers[0].pid)
    bench.tick()
    receipt = bench.receipt("a")
    unknown = {name for name, grams in receipt["gco2e"].items() if grams is None}
    assert unknown == {"operation", "cooling", "jsc", "jsce", "asc", "asce"}
    assert receipt["energy_uj"] is None and receipt["bounds"] == {"jsce": None, "asce": None}


def test_jobs_past_the_cap_stay_in_the_overflow(bench: Bench, workers: list[Worker]) -> None:
    pid = workers[0].pid
    bench.open("[export]\nhold_s = 1\nmax_jobs = 2\n")
    bench.tick()
    for number in range(5):
        bench.start(f"job-{number}", pid, f"m{number}")
        bench.page()
    for _ in range(2):
        workers[0].burn()
        bench.tick()
        shown = {s.labels["job_id"] for s in bench.page() if "job_id" in s.labels}
        assert shown == {"job-0", "job-1", "_overflow"}
        bench.restart()
    for number in range(5):
        bench.end(f"job-{number}", pid, f"m{number}")
        bench.page()
    bench.restart()
    bench.tick(2)
    assert {s.labels["job_id"] for s in bench.page() if "job_id" in s.labels} == {"_retired", "_overflow"}
    bench.start("job-4", pid)  # there is room now
    workers[0].burn()
    bench.tick()
    bench.restart()
    assert bench.joules("job-4") > 0


def test_sums_in_the_ledger_are_not_jobs(bench: Bench, workers: list[Worker]) -> None:
    bench.open(HOLD_1)
    bench.tick()
    bench.start("a", workers[0].pid)
    bench.end("a", workers[0].pid)
    bench.tick(2)
    bench.page()
    fold = '_["_retired", "default", "use"]'
    assert bench.node.receipt(fold) is None
    with pytest.raises(Refused):
        bench.start(fold, workers[0].pid)


def test_members_that_joined_and_left_are_known_after_a_restart(bench: Bench, workers: list[Worker]) -> None:
    first, second, _ = workers
    bench.open("")
    bench.tick()
    bench.start("a", first.pid, "rank-0")
    bench.start("a", second.pid, "rank-1")
    bench.start("a", first.pid, "rank-2")
    bench.restart()
    second.burn(0.1)
    bench.tick()
    assert bench.receipt("a")["cpu_s"] > 0.09
    bench.end("a", first.pid, "rank-0")
    bench.end("a", first.pid, "rank-2")
    bench.restart()
    first.burn(0.3)  # not a member any more
    bench.tick()
    assert bench.receipt("a")["cpu_s"] < 0.2
    bench.end("a", second.pid, "rank-1")
    bench.restart()
    assert bench.receipt("a")["ended_at"]
    assert bench.receipt("a")["members"] == 3


def test_taxes_are_known_by_product_after_a_restart(bench: Bench, workers: list[Worker]) -> None:
    bench.open(PRODUCTS)
    bench.tick()
    bench.node.start(JobStart(id=1, job_id="a", member="m", pid=workers[0].pid, product_id="model"), Peer(1, 0, 0))
    bench.tick(0)
    bench.page()
    bench.tick(60)
    bench.restart()
    receipt = bench.receipt("a")
    owed = {(tax["product_id"], tax["term"]): tax["gco2e"] for tax in receipt["taxes"]}
    assert owed["platform", "platform"] == receipt["gco2e"]["platform"] == pytest.approx(60, abs=0.1)
    assert owed["model", "product"] == pytest.approx(receipt["gco2e"]["product"])


def test_products_keep_their_running_jobs_over_a_restart(bench: Bench, workers: list[Worker]) -> None:
    bench.open(PRODUCTS)
    bench.tick()
    bench.start("a", workers[0].pid, product_id="model")
    bench.start("b", workers[1].pid, product_id="elsewhere")
    bench.tick(10)
    bench.restart()
    bench.tick(10)
    page = bench.page()
    for product, seconds in (("platform", 20), ("model", 20), ("elsewhere", 20)):
        assert total(page, "wattribute_product_running_jobs", product_id=product) == 1
        assert total(page, "wattribute_product_jobs_total", product_id=product) == 1
        weight_s = total(page, "wattribute_product_weight_seconds_total", product_id=product)
        assert float(weight_s) == pytest.approx(seconds, abs=0.2)
    bench.end("a", workers[0].pid)
    assert total(bench.page(), "wattribute_product_running_jobs", product_id="model") == 0


def test_a_job_of_the_boot_before_pays_nothing_for_this_one(bench: Bench, workers: list[Worker]) -> None:
    bench.open(PRODUCTS)
    bench.tick()
    bench.start("a", workers[0].pid, product_id="model")
    bench.tick(60)
    overhead = "wattribute_product_overhead_grams_total"
    before = total(bench.page(), overhead, product_id="platform", term="platform")
    bench.reboot()  # boot time is far below what it was
    assert bench.receipt("a")["ended_at"]
    bench.start("b", workers[0].pid, product_id="model")
    bench.tick(60)
    after = total(bench.page(), overhead, product_id="platform", term="platform")
    assert float(after - before) == pytest.approx(60, abs=0.2)
    assert bench.receipt("b")["gco2e"]["platform"] == pytest.approx(60, abs=0.2)
    bench.start("a", workers[1].pid)
    bench.tick(60)
    assert bench.receipt("a")["gco2e"]["platform"] == pytest.approx(90, abs=0.2)
    assert total(bench.page(), "wattribute_product_jobs_total", product_id="model") == 2


@pytest.mark.parametrize("boots", ["the same", "another"])
def test_other_products_and_prices_after_a_restart(bench: Bench, workers: list[Worker], boots: str) -> None:
    bench.open(PRODUCTS)
    bench.tick()
    bench.start("a", workers[0].pid, product_id="model")
    bench.start("p", workers[1].pid, product_id="platform", role="platform")
    bench.start("c", workers[2].pid, product_id="model", role="creation", weight=3, nodes=2)
    bench.tick()
    bench.page()
    new = '[carbon]\nmix = { solar = 1.0 }\n[[product]]\nid = "new"\nscope = "node"\noverhead_g_per_min = 1\n'
    for text in (new, PRODUCTS, ""):
        if boots == "the same":
            bench.restart(text)
        else:
            bench.text = text
            bench.reboot()
        bench.page()
        for worker in workers:
            worker.burn()
        bench.tick()
        bench.page()
    if boots == "the same":
        for job_id, worker in zip("apc", workers, strict=True):
            bench.end(job_id, worker.pid)
    bench.tick()
    bench.page()
    assert bench.receipt("p")["gco2e"]["platform"] == 0
    assert {tax["product_id"] for tax in bench.receipt("c")["taxes"]} == {"platform"}


def test_a_sensor_that_answers_after_all_takes_the_models_place(bench: Bench) -> None:
    assert bench.package.dram is not None
    bench.package.dram.garble(b"")
    bench.dram_uj = 0
    bench.open(collectors='modelled = "auto"\nnvml = "off"')
    bench.tick()
    bench.tick()
    modelled = total(bench.page(), "wattribute_node_energy_joules_total", domain="dram", quality="modelled")
    assert modelled > 0
    bench.package.dram.restore()
    bench.dram_uj = 3_000_000
    bench.clock.pass_(120)  # past any back-off
    for _ in range(4):
        bench.tick()
    page = bench.page()
    measured = total(page, "wattribute_node_energy_joules_total", domain="dram", quality="measured")
    assert measured == 9  # 3 W over the ticks since the first that read it
    so_far = total(page, "wattribute_node_energy_joules_total", domain="dram", quality="modelled")
    bench.tick()
    assert total(bench.page(), "wattribute_node_energy_joules_total", domain="dram", quality="modelled") == so_far


def test_a_long_export_age_keeps_few_views(bench: Bench) -> None:
    bench.open("[export]\nexport_age_s = 3600\n")
    for _ in range(200):
        bench.tick()
        bench.node.flush()
    assert bench.node.views.aging <= 5
    bench.tick(3600)
    bench.page()


def test_a_pue_series_is_a_pue_that_somebody_gave(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "pue.csv").write_text("valid_from,pue\n2023-11-14T00:00:00Z,1.5\n2023-11-14T22:13:25Z,1.0\n")
    bench.open(f'[carbon]\nintensity_g_per_kwh = 100\npue_series = "{tmp_path}/pue.csv"\n')
    about = bench.node._about.now()
    assert not [note for note in about["notes"] if "PUE" in note]
    bench.clock.pass_(10)
    about = bench.node._about.now()
    assert (about["pue"], about["bands"]["pue"]) == (1.0, ["19/20", "21/20"]), "a job may have been charged at 1.5"


@pytest.mark.parametrize(("factors", "g_per_kwh"), [("lifecycle", "480"), ("direct", "475")])
def test_the_note_names_the_default_that_is_in_force(bench: Bench, factors: str, g_per_kwh: str) -> None:
    bench.open(f'[carbon]\nfactor_type = "{factors}"\n')
    (note,) = [note for note in bench.node._about.now()["notes"] if "intensity" in note]
    assert f"defaulted to {g_per_kwh} g/kWh" in note


def test_a_fleets_product_that_nobody_counts_is_warned_of_once(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench.close()
    bench.open('[[product]]\nid = "said"\nscope = "fleet"\noverhead_g_per_min = 1\n')
    with open_archive(load(tmp_path / "wattribute.toml", {}, {}).config) as archive:
        archive.append([{"event": "add", "id": "new", "scope": "fleet"}], after=0)
        bench.hear()
        bench.tick()
        archive.append([{"event": "add", "id": "other"}], after=1)
    bench.hear()
    bench.tick()
    warned = [record.message for record in caplog.records if 'scope = "fleet"' in record.message]
    assert len(warned) == 1
    assert warned[0].startswith('product "new": scope = "fleet", and nothing says')
