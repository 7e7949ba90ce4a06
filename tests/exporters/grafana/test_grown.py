"""What counters grew by in the time shown: first amounts are in, what was there before isn't, ranges add up."""

from pathlib import Path

from tests.deploy.promtool import check

from wattribute.exporters.grafana.promql import grown
from wattribute.exporters.grafana.queries import expanded

COUNTER = "wattribute_product_energy_joules_total"


def series(name: str, instance: str, values: str, product: str = "") -> dict[str, str]:
    of = f',product_id="{product}",role="use",domain="cpu"' if product else ""
    return {"series": f'{name}{{job="wattribute",instance="{instance}"{of}}}', "values": values}


def test_what_grew_is_exact_from_the_first_sample_on(tmp_path: Path) -> None:
    """Minutes since 1970. `old` is always scraped; `new` begins at 20; `late` had 5,000 J when it was first scraped."""
    created = "wattribute_ledger_created_timestamp_seconds"
    stored = [
        series(created, "old", "-999999x60"),
        series(created, "new", "_x20 1190x40"),
        series(created, "late", "_x20 -999999x40"),
        series(COUNTER, "old", "0+60x60", "steady"),
        series(COUNTER, "old", "_x30 700x30", "short"),  # a job shorter than a scrape interval
        series(COUNTER, "new", "_x20 40+60x40", "steady"),
        series(COUNTER, "new", "_x25 90x10 stale", "gone"),
        series(COUNTER, "late", "_x20 5000+60x40", "steady"),
    ]

    def asked(minutes: int, at: str, product: str) -> dict[str, object]:
        values = {"__range": f"{minutes}m", "__range_s": str(60 * minutes)}
        return {"expr": expanded(grown(COUNTER, f'product_id="{product}"'), values), "eval_time": at}

    def test(minutes: int, at: str, product: str, joules: float) -> dict[str, object]:
        return {**asked(minutes, at, product), "exp_samples": [{"labels": "{}", "value": joules}]}

    tests = [
        test(30, "40m", "short", 700),
        test(60, "60m", "short", 700),
        test(20, "60m", "short", 0),
        test(30, "50m", "gone", 90),
        test(50, "50m", "steady", 50 * 60 + (40 + 30 * 60) + 30 * 60),
        # 10 to 25 and 25 to 40, in which 40 J of `new` were before its first sample, are 10 to 40.
        test(15, "25m", "steady", 15 * 60 + (40 + 5 * 60) + 5 * 60),
        test(15, "40m", "steady", 3 * 15 * 60),
        test(30, "40m", "steady", 30 * 60 + (40 + 20 * 60) + 20 * 60),
    ]
    check(tmp_path, stored, tests, [])
