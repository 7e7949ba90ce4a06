"""What a scrape costs, per 10,000 series: our page beside prometheus_client's rendering of as many counters.

    python -m benchmarks.scrape [--jobs 330] [--repeats 21]

CPU time of this process, median of the repeats, everything in one run. Every number on our page changes between two
scrapes, as if each job had used something. Ratios are the thing to rely on.
"""

import argparse
import gzip
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from wattribute.agent.core.model import (
    ENERGY_SLOTS,
    SHARE_KINDS,
    SLOTS,
    CarbonIntensity,
    DomainKind,
    Job,
    JobTotals,
    Quality,
    Snapshot,
    energy_slot,
)
from wattribute.exporters.negotiation import Format
from wattribute.exporters.prometheus import PrometheusPage

MEASURED: tuple[tuple[DomainKind, str, Quality], ...] = (
    ("cpu", "package-0", "measured"),
    ("dram", "package-0", "measured"),
    ("gpu", "GPU-5f3c", "measured"),
)


def snapshots(jobs: int) -> Iterator[Snapshot]:
    """Snapshots without end, in which every counter of every job moves each time."""
    known = [
        Job(id=f"job-{i}-train", product_id=f"product-{i % 20}", phase="training", user="alice") for i in range(jobs)
    ]
    used = [energy_slot(kind, share, quality) for kind, _, quality in MEASURED for share in SHARE_KINDS]
    moving = [*used, *range(ENERGY_SLOTS, SLOTS)]
    for step in itertools.count(1):
        totals = []
        for i, job in enumerate(known):
            values = [0] * SLOTS
            for slot in moving:
                values[slot] = (123_456_789 + 977 * i + 31 * slot) * (1000 + step)
            totals.append(JobTotals(job=job, values=values))
        yield Snapshot(
            taken_at_unix_ns=step,
            version="0",
            node_id="node",
            jobs=totals,
            products=[],
            node_energy_uj=dict.fromkeys(MEASURED, 10**15 * step),
            unattributed_uj={},
            node_co2e_ng={},
            unattributed_ng={},
            sources=[],
            pue=1.0,
            intensity=CarbonIntensity(
                gco2e_per_kwh=480.0, valid_from_unix_ns=0, valid_until_unix_ns=None, zone="", provider="", method=""
            ),
            ledger_created_unix_ns=0,
            registry_hash="",
        )


def cpu_ms(prepare: Callable[[], object], scrape: Callable[[], object], repeats: int) -> float:
    """Median CPU milliseconds of `scrape`, each after a `prepare` that isn't counted; the first is left out."""
    spent = []
    for _ in range(repeats + 1):
        prepare()
        start_ns = time.process_time_ns()
        scrape()
        spent.append((time.process_time_ns() - start_ns) / 1e6)
    return statistics.median(spent[1:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scrape", description="CPU time of a scrape")
    parser.add_argument("--jobs", type=int, default=330, help="jobs on the page, about 30 series each")
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()

    page = PrometheusPage()
    source = snapshots(options.jobs)
    page.publish(next(source))
    series = sum(not line.startswith(b"#") for line in page.text().splitlines())
    scale = 10_000 / series

    disable_created_metrics()
    registry = CollectorRegistry()
    counter = Counter(
        "energy_joules", "Energy.", ["job_id", "product_id", "role", "domain", "share"], registry=registry
    )
    for i in range(series):
        counter.labels(f"job-{i // 9}-train", f"product-{i % 20}", "use", "cpu", f"share-{i % 9}").inc(123.456789 * i)

    def ours(form: Format, *, compressed: bool) -> float:
        return cpu_ms(
            lambda: page.publish(next(source)), lambda: page.page(form, compressed=compressed), options.repeats
        )

    def theirs(render: Callable[[], bytes]) -> float:
        return cpu_ms(lambda: None, render, max(3, options.repeats // 5))

    rows = [
        ("text", ours("text", compressed=False), theirs(lambda: generate_latest(registry))),
        ("openmetrics", ours("openmetrics", compressed=False), theirs(lambda: generate_openmetrics(registry))),
        # start_http_server compresses at level 9, which is gzip.compress's default
        ("text, gzip", ours("text", compressed=True), theirs(lambda: gzip.compress(generate_latest(registry)))),
        (
            "openmetrics, gzip",
            ours("openmetrics", compressed=True),
            theirs(lambda: gzip.compress(generate_openmetrics(registry))),
        ),
    ]
    print(f"{series} series of {options.jobs} jobs, {len(page.text()) / 1e6:.2f} MB as text; CPU ms per 10,000 series:")
    print(f"{'':20}{'wattribute':>12}{'prometheus_client':>20}{'ratio':>8}")
    for name, our_ms, their_ms in rows:
        print(f"{name:20}{our_ms * scale:12.1f}{their_ms * scale:20.1f}{their_ms / our_ms:7.1f}x")


if __name__ == "__main__":
    main()
