"""A fleet in one Prometheus and in one VictoriaMetrics: memory, scrapes, rules, the Fleet dashboard, an exact total.

    python -m benchmarks.fleet [--nodes 1000] [--jobs 20] [--minutes 3] [--store prometheus]

Simulated nodes, their pages by the real exporter and all from one small process, scraped every 15 s, with the rules of
deploy/prometheus/rules as they are. One job runs on all nodes; ten nodes are missing at first. Memory is what the store
holds after these minutes: Prometheus writes a block to disk only after two hours, and holds more until then.
"""

import argparse
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from tests.deploy import asked
from tests.deploy.fleet import SimulatedFleet, simulated_fleet
from tests.deploy.live import COMPLETE
from tests.deploy.stores import QueryError, Store, prometheus, victoria_metrics
from tests.doubles.many_nodes import BIG

LATE = 10
INTERVAL_S = 15
HEAVIEST = 3
RULES_METRIC: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "prometheus": ("prometheus_rule_group_last_duration_seconds", "rule_group", {}),
    "victoria-metrics": ("vmalert_iteration_duration_seconds", "group", {"quantile": "0.99"}),
}
SERIES_METRIC: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "prometheus": ("prometheus_tsdb_head_series", {}),
    "victoria-metrics": ("vm_cache_entries", {"type": "storage/hour_metric_ids"}),
}
OF_BIG = f'wattribute_job_energy_joules_total{{job_id="{BIG}"}}'
RECORDED = f'job:wattribute_job_energy_joules:sum{{job_id="{BIG}"}}'
POLL_S = 3.0
WAIT_S = 420.0


def own(url: str, name: str, **where: str) -> list[tuple[dict[str, str], float]]:
    """The series of this name on a store's own page of metrics that have these labels."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    return [(one.labels, one.value) for one in samples if one.name == name and where.items() <= one.labels.items()]


def rules_s(store: Store) -> dict[str, float]:
    """How long each group of rules took to evaluate lately, seconds."""
    name, label, where = RULES_METRIC[store.name]
    found = {labels[label].rpartition(";")[2]: value for labels, value in own(store.rules_url, name, **where)}
    return {group: seconds for group, seconds in found.items() if group.startswith("wattribute")}


def wait_for(store: Store, expr: str) -> None:
    until_s = time.monotonic() + WAIT_S
    while True:
        try:
            if store.query(expr):
                return
        except QueryError as error:  # it is too busy to answer in time
            print(error, file=sys.stderr)
        if time.monotonic() > until_s:
            raise SystemExit(f"{store.name}: never so: {expr}")
        time.sleep(POLL_S)


def number(store: Store, expr: str) -> float:
    """The one value of a query."""
    (one,) = store.query(expr)
    return float(one.value)


def dashboard_s(store: Store, minutes: float) -> list[tuple[float, str]]:
    """Each query of the Fleet dashboard over these minutes: seconds, and what panel it is of; slowest first."""
    (path,) = (path for path in asked.DASHBOARDS if path.stem.endswith("fleet"))
    board, end_s, range_s = asked.dashboard(path), time.time(), minutes * 60
    chosen = asked.variables(store, board, end_s - range_s, end_s)
    found = []
    for query in asked.panels(board, chosen, range_s, INTERVAL_S):
        began_s = time.monotonic()
        asked.answer(store, query, end_s, range_s)
        found.append((time.monotonic() - began_s, query.where.partition(": ")[2]))
    return sorted(found, reverse=True)


def measured(store: Store, fleet: SimulatedFleet, minutes: float) -> Mapping[str, str]:
    """All rows of the table of one store."""
    began_s, began_cpu_s = time.monotonic(), store.cpu_s
    wait_for(store, f"sum(up) == {fleet.nodes - LATE}")
    time.sleep(max(0.0, minutes * 60 - (time.monotonic() - began_s)))
    wait_for(store, f"{COMPLETE} == 0")
    busy = (store.cpu_s - began_cpu_s) / (time.monotonic() - began_s)
    there = f'instance!~"{"|".join(fleet.late)}"'
    scrapes = store.query(f"scrape_duration_seconds{{{there}}}[1m]")
    scrapes_ms = sorted(float(value) * 1e3 for one in scrapes for _, value in one.points)
    failed = number(store, f"sum(count_over_time(up{{{there}}}[1m])) - sum(sum_over_time(up{{{there}}}[1m]))")
    rules = rules_s(store)
    series, which = SERIES_METRIC[store.name]
    board = dashboard_s(store, minutes)
    middle, most, all_ms = (scrapes_ms[int(part * (len(scrapes_ms) - 1))] for part in (0.5, 0.95, 1.0))
    rows = {
        "series scraped": f"{number(store, 'sum(scrape_samples_scraped)'):,.0f}",
        "samples a second": f"{number(store, 'sum(sum_over_time(scrape_samples_scraped[1m]))') / 60:,.0f}",
        "series in all, those of rules included": f"{own(f'{store.url}/metrics', series, **which)[0][1]:,.0f}",
        "CPU of the store, % of a core": f"{busy * 100:.0f}",
        "resident memory of the store, MB": f"{store.resident_mb:,.0f}",
        "scrape, ms: p50, p95, max": f"{middle:.1f}, {most:.1f}, {all_ms:.1f}",
        "scrapes that failed in a minute": f"{failed:.0f}",
        "rules, s: all groups of a minute": f"{sum(rules.values()):.1f}",
        "rules, s: the slowest group": "{1:.1f} ({0})".format(*max(rules.items(), key=lambda one: one[1])),
        f"Fleet dashboard, s: all {len(board)} queries": f"{sum(seconds for seconds, _ in board):.1f}",
        **{
            f"  {rank}. slowest": f"{seconds:.2f} ({where})"
            for rank, (seconds, where) in enumerate(board[:HEAVIEST], 1)
        },
        f"while {LATE} nodes are missing": "marked incomplete",
    }
    fleet.admit()
    wait_for(store, f"sum(up) == {fleet.nodes}")
    truth, frozen_s = fleet.freeze(), time.time()
    wait_for(store, f"count(timestamp(wattribute_agent_ticks_total) > {frozen_s}) == {fleet.nodes}")
    query = f"sum by (job_id) (max_over_time({OF_BIG}[1h]))"
    asked_s, total_uj = timed(lambda: round(number(store, query) * 1e6))
    rows |= {f"a {fleet.nodes}-node job's total, uJ from the truth": f"{total_uj - truth['big_uj']}"}
    rows |= {"  asked in, s": f"{asked_s:.2f}"}
    # A rule's value is of when its run began, and an earlier rule's of the run before, with vmalert.
    wait_for(store, f"{COMPLETE} == 1 and timestamp({COMPLETE}) > {frozen_s + INTERVAL_S}")
    wait_for(store, f"changes({RECORDED}[2m]) == 0 and timestamp({RECORDED}) > {frozen_s + INTERVAL_S}")
    rows |= {"marked complete, and at rest, after, s": f"{time.time() - frozen_s:.0f}"}
    rows |= {"  by its recording rule, uJ from the truth": f"{round(number(store, RECORDED) * 1e6) - truth['big_uj']}"}
    return rows


def timed(ask: Callable[[], float]) -> tuple[float, float]:
    began_s = time.monotonic()
    found = ask()
    return time.monotonic() - began_s, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=20, help="of each node")
    parser.add_argument("--minutes", type=float, default=3, help="of scraping with ten nodes missing")
    parser.add_argument("--store", choices=RULES_METRIC, action="append", help="default: both, one after the other")
    options = parser.parse_args()
    print(f"{options.nodes} nodes of {options.jobs} jobs, every {INTERVAL_S} s, {options.minutes:g} minutes")
    for name in options.store or RULES_METRIC:
        opened = prometheus if name == "prometheus" else victoria_metrics
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            fleet = stack.enter_context(simulated_fleet(options.nodes, options.jobs, LATE))
            store = stack.enter_context(opened(folder, [fleet.scrape(f"{INTERVAL_S}s")], asked.RULES))
            rows = measured(store, fleet, options.minutes)
        print(f"{'':52}{name}")
        for row, value in rows.items():
            print(f"{row:52}{value}", flush=True)


if __name__ == "__main__":
    main()
