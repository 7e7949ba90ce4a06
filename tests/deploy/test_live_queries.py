"""Every query of dashboards, rules and docs, asked of a real Prometheus and a real VictoriaMetrics that scrape a real
agent with known joules: it answers, and totals are the ledger's to the microjoule, over a restart and a kill -9 too.
"""

import re
from collections.abc import Container, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from tests.deploy import asked
from tests.deploy.asked import Asked
from tests.deploy.live import COMPLETE, Live, playing_live
from tests.deploy.scene import NOT_AT_REST
from tests.deploy.stores import QueryError, Series, Store
from tests.doubles.many_nodes import BIG, BIG_PRODUCT
from tests.doubles.nvml import MissingCompiler

from wattribute.agent.core.model import TERMS

STORES = ("prometheus", "victoria-metrics")
SCRAPE_S = 0.2
HOUR_S = 3600.0
LOOKS = (
    ("working", HOUR_S),
    *(("ended", range_s) for range_s in (30.0, HOUR_S, 24 * HOUR_S)),
    ("restarted", HOUR_S),
    ("killed", HOUR_S),
)
"""When panels are looked at, and over what time: from a little more than the scene to a day."""

NONE_FELL_SILENT, ALL_ALIKE = "no agent is away", "one node is never different from the others"
MAY_BE_EMPTY = {
    "wattribute-fleet: Agents that went silent": NONE_FELL_SILENT,
    "wattribute-fleet: Nodes whose registry differs": ALL_ALIKE,
    "wattribute-fleet: Nodes whose version differs": ALL_ALIKE,
    "wattribute-fleet: Sources that are down": "none is",
    "wattribute-fleet: Devices that are lost": "none is",
    "wattribute-node: Failures": "no source failed",
    "wattribute-node: Wraps and resets of hardware counters": "no counter wrapped or was reset",
    "wattribute-product: Corrections": "nothing turned out otherwise than it was booked",
}
"""By where a query is from: why it may have no answer in the scene."""
AT_WORK = {
    "wattribute-job: Start, end, nodes": "the job hasn't ended",
}
"""And why not while jobs run."""
AT_REST = {
    "wattribute-fleet: Running jobs": "none is",
    "wattribute-fleet: Platform tax by job": "nobody is taxed any more",
    "wattribute-fleet: Billed to nobody, share": "the share of nothing: the node uses no energy any more",
    "wattribute-node: Billed to nobody, share": "the same",
    "wattribute-product: Who uses it, by weight": "nobody any more",
    "job:wattribute_job_platform_tax_grams:rate5m": "nobody is taxed any more",
}
"""And why not when all jobs have ended."""
NOT_HERE = re.compile('wattribute_job_(slurm|kubernetes)_info|method="units"')
"""No job here is Slurm's or a pod's, no product is amortised by units: their queries are only valid."""
RUNNING = re.compile("|".join(("wattribute_job_running", *NOT_AT_REST)))
"""Asks for running jobs alone."""
CHOSEN = {"job_id": "train-7"}
"""The job that had the GPU."""
FALSE_ALARMS = {"WattributeConservationBroken", "WattributeNodeTwice", "WattributeAgentsAbsent"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One scene for all queries."""
    try:
        with playing_live(tmp_path_factory.mktemp("live")) as played:
            yield played
    except MissingCompiler as missing:
        pytest.skip(str(missing))


def micro(value: Decimal) -> int:
    """Joules as whole microjoules: exact as far as floats carry."""
    return round(value * 10**6)


def nano(value: Decimal) -> int:
    return round(value * 10**9)


def by(label: str, found: list[Series]) -> dict[str, Decimal]:
    return {one.labels.get(label, ""): one.value for one in found}


def fail(found: Sequence[str]) -> None:
    """Unless there is nothing to say."""
    if found:
        pytest.fail("\n".join(sorted(set(found))), pytrace=False)


def problems(
    store: Store,
    queries: Sequence[Asked],
    at_s: float,
    range_s: float,
    *,
    jobs: bool = True,
    may_be_empty: Container[str] = MAY_BE_EMPTY,
) -> list[str]:
    """Queries that fail, and those that have no answer and should; each with its name."""
    found = []
    for query in queries:
        try:
            empty = not asked.answer(store, query, at_s, range_s)
        except QueryError as error:
            found.append(f"{query.where}: {error}: {query.expr}")
            continue
        excused = query.where in may_be_empty or NOT_HERE.search(query.expr)
        if empty and not excused and (jobs or not asked.needs_jobs().search(query.expr)):
            found.append(f"{query.where}: nothing: {query.expr}")
    return found


@pytest.mark.parametrize("name", STORES)
def test_totals_are_the_ledgers(live: Live, name: str) -> None:
    """To the microjoule and the nanogram, after the end, a restart and a kill -9."""
    scene, store = live.scene, live.nodes[name]
    for moment, at_s in scene.rest.items():

        def ask(expr: str, label: str, at_s: float = at_s) -> dict[str, Decimal]:
            return by(label, store.query(expr, at_s))

        jobs = ask("sum by (job_id) (max_over_time(wattribute_job_energy_joules_total[5m]))", "job_id")
        assert {job: micro(joules) for job, joules in jobs.items()} == scene.receipt_uj, moment
        nodes = ask("sum by (domain) (max_over_time(wattribute_node_energy_joules_total[5m]))", "domain")
        assert {domain: micro(joules) for domain, joules in nodes.items()} == scene.true_uj, moment
        products = ask("sum by (product_id) (max_over_time(wattribute_product_energy_joules_total[5m]))", "product_id")
        for product, joules in products.items():
            receipts = [one for one in scene.receipts.values() if one["product_id"] == product]
            assert micro(joules) == sum(one["energy_uj"] for one in receipts), (moment, product)
        for sum_ in ("jsc", "jsce", "asc", "asce"):
            grams = ask(f"sum by (job_id) (max_over_time(wattribute_job_{sum_}_grams_total[5m]))", "job_id")
            assert {job: nano(value) for job, value in grams.items()} == scene.receipt_ng(sum_), (moment, sum_)
        terms = ask("sum by (job_id) (max_over_time(wattribute_job_co2e_grams_total[5m]))", "job_id")
        assert {job: nano(value) for job, value in terms.items()} == {job: nano(value) for job, value in grams.items()}


@pytest.mark.parametrize("name", STORES)
def test_what_adds_up_on_the_page_adds_up_in_the_store(live: Live, name: str) -> None:
    """Per domain and term, per product and term, per served product: to the microjoule and the nanogram."""
    store = live.nodes[name]

    def ask(metric: str, label: str, at_s: float, **where: str) -> dict[str, int]:
        matchers = ",".join(f'{key}="{value}"' for key, value in where.items())
        found = by(label, store.query(f"sum by ({label}) (max_over_time({metric}{{{matchers}}}[5m]))", at_s))
        return {value: micro(amount) if "joules" in metric else nano(amount) for value, amount in found.items()}

    def added(*parts: dict[str, int]) -> dict[str, int]:
        return {key: sum(part.get(key, 0) for part in parts) for key in {key for part in parts for key in part}}

    for at_s in live.scene.rest.values():
        joules = [f"wattribute_{one}_joules_total" for one in ("job_energy", "node_unattributed", "node_energy")]
        jobs, nobody, node = (ask(one, "domain", at_s) for one in joules)
        assert added(jobs, nobody) == node
        grams = [f"wattribute_{one}_grams_total" for one in ("job_co2e", "node_unattributed", "node_co2e")]
        jobs, nobody, node = (ask(one, "term", at_s) for one in grams)
        assert {term: ng for term, ng in added(jobs, nobody).items() if term in node} == node
        assert set(jobs) == set(TERMS)
        billed, untaxed, overhead = (
            ask(f"wattribute_product_{one}_grams_total", "term", at_s, product_id="iks")
            for one in ("billed", "untaxed", "overhead")
        )
        assert added(billed, untaxed) == overhead
        assert overhead["platform"] > 0
        for product in ("llama", "chat"):
            parts = [
                ask(f"wattribute_product_{one}_joules_total", "product_id", at_s, product_id=product)
                for one in ("request", "idle")
            ]
            used = ask("wattribute_job_energy_joules_total", "product_id", at_s, product_id=product, role="use")
            assert added(*parts) == used
            assert parts[0][product] > 0
        tenants = ask("wattribute_tenant_joules_total", "product_id", at_s)
        assert tenants == ask("wattribute_product_request_joules_total", "product_id", at_s, product_id="llama")


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("path", asked.DASHBOARDS, ids=lambda path: str(path.stem))
def test_every_panel_has_data(live: Live, name: str, path: Path) -> None:
    """While jobs run, after their end at three ranges, after a restart and a kill -9."""
    store, scene = live.nodes[name], live.scene
    board = asked.dashboard(path)
    found = []
    for moment, range_s in LOOKS:
        at_s = scene.moments[moment]
        chosen = asked.variables(store, board, at_s - range_s, at_s)
        found += [f"{moment}: variable {one} is empty" for one, value in chosen.items() if value in ("", "()")]
        queries = list(asked.panels(board, {**chosen, **CHOSEN}, range_s, SCRAPE_S))
        empty = MAY_BE_EMPTY | (AT_WORK if moment == "working" else AT_REST)
        found += [f"{moment}: {one}" for one in problems(store, queries, at_s, range_s, may_be_empty=empty)]
    fail(found)


@pytest.mark.parametrize("name", STORES)
def test_panels_of_totals_show_what_receipts_say(live: Live, name: str) -> None:
    """Each job's energy and costs, the energy of the node and of its products."""
    store, scene = live.nodes[name], live.scene
    boards = [asked.dashboard(path) for path in asked.DASHBOARDS]
    everything = {"job_id": ".*", "product_id": ".*", "instance": ".*", "datasource": ""}
    for at_s in scene.rest.values():

        def shown(where: str, label: str, at_s: float = at_s, *, column: int = 0) -> dict[str, Decimal]:
            queries = [query for board in boards for query in asked.panels(board, everything, HOUR_S, SCRAPE_S)]
            return by(label, asked.answer(store, [one for one in queries if one.where == where][column], at_s, HOUR_S))

        # A recorded sum lags, by some evaluations with vmalert.
        for where in ("wattribute-job: Each job", "wattribute-fleet: Largest jobs")[: 1 + (at_s == scene.killed_s)]:
            found = shown(where, "job_id")
            assert {job: micro(joules) for job, joules in found.items()} == scene.receipt_uj, where
        for column, (title, cost) in enumerate((("JSC", "jsc"), ("JSC^e", "jsce"), ("ASC", "asc"), ("ASC^e", "asce"))):
            found = shown("wattribute-job: Each job", "job_id", column=2 + column)
            assert {job: nano(grams) for job, grams in found.items()} == scene.receipt_ng(cost), title
            (together,) = shown(f"wattribute-job: {title}", "").values()
            assert nano(together) == sum(scene.receipt_ng(cost).values()), title
        (joules,) = shown("wattribute-node: Energy in the time shown", "").values()
        assert micro(joules) == sum(scene.true_uj.values())
        for product, grown in shown("wattribute-product: Each product", "product_id", column=2).items():
            used_uj = sum(one["energy_uj"] for one in scene.receipts.values() if one["product_id"] == product)
            assert micro(grown) == used_uj, product


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("path", asked.DASHBOARDS, ids=lambda path: str(path.stem))
def test_before_the_first_job_no_panel_fails(live: Live, name: str, path: Path) -> None:
    """Those of jobs are empty; those of nodes and products aren't."""
    store, scene = live.nodes[name], live.scene
    board = asked.dashboard(path)
    range_s = scene.quiet_s - scene.began_s
    chosen = asked.variables(store, board, scene.began_s, scene.quiet_s)
    queries = list(asked.panels(board, chosen, range_s, SCRAPE_S))
    fail(problems(store, queries, scene.quiet_s, range_s, jobs=False, may_be_empty=MAY_BE_EMPTY | AT_REST))


@pytest.mark.parametrize("name", STORES)
def test_every_example_of_the_docs_has_an_answer(live: Live, name: str) -> None:
    found = []
    for moment, at_s in live.scene.moments.items():
        queries = [one for one in asked.examples() if moment == "working" or not RUNNING.search(one.expr)]
        found += [f"{moment}: {one}" for one in problems(live.nodes[name], queries, at_s, 300)]
    fail(found)


@pytest.mark.parametrize("name", STORES)
def test_every_recording_rule_has_data(live: Live, name: str) -> None:
    """As an expression, and as the series that Prometheus or vmalert writes, whose totals are the ledger's too."""
    store, at_s = live.nodes[name], live.scene.killed_s
    recorded = asked.rules("record")
    assert recorded
    fail(problems(store, recorded, at_s, 300, may_be_empty=AT_REST))
    fail(problems(store, [Asked(rule.where, f"last_over_time({rule.where}[5m])") for rule in recorded], at_s, 300))
    found = by("job_id", store.query("max_over_time(job:wattribute_job_energy_joules:sum[5m])", at_s))
    assert {job: micro(joules) for job, joules in found.items()} == live.scene.receipt_uj


@pytest.mark.parametrize("name", STORES)
def test_alerts_are_about_what_is_the_matter(live: Live, name: str) -> None:
    """A job said that it runs on two nodes; the books add up, and the node is one."""
    store = live.nodes[name]
    for at_s in live.scene.rest.values():
        true = {alert.where for alert in asked.rules("alert") if store.query(alert.expr, at_s)}
        assert not true & FALSE_ALARMS
    assert "WattributeJobIncomplete" in true


@pytest.mark.parametrize("name", STORES)
def test_a_job_on_many_nodes_has_an_exact_total_and_its_missing_nodes_are_told(live: Live, name: str) -> None:
    store, seen = live.fleets[name], live.fleet
    of_big = f'wattribute_job_energy_joules_total{{job_id="{BIG}"}}'

    def ask(expr: str, at_s: float) -> Decimal:
        (one,) = store.query(expr, at_s)
        return one.value

    total = f"sum by (job_id) (max_over_time({of_big}[5m]))"
    assert micro(ask(total, seen.complete_s)) == seen.truth["big_uj"]
    nodes = "sum(max_over_time(wattribute_node_energy_joules_total[5m]))"
    assert micro(ask(nodes, seen.complete_s)) == seen.truth["nodes_uj"]
    product = f'sum(max_over_time(wattribute_product_energy_joules_total{{product_id="{BIG_PRODUCT}"}}[5m]))'
    assert micro(ask(product, seen.complete_s)) == seen.truth["big_uj"]
    assert micro(ask(total, seen.missing_s)) <= seen.truth["big_uj"] - seen.truth["late_uj"]
    assert [int(ask(COMPLETE, at_s)) for at_s in (seen.missing_s, seen.complete_s)] == [0, 1]
    recorded = f'max_over_time(job:wattribute_job_energy_joules:sum{{job_id="{BIG}"}}[5m])'
    assert micro(ask(recorded, seen.complete_s)) == seen.truth["big_uj"]
