"""PromQL of the dashboards: totals, power and sums of metrics in the one table, and filters by the variables."""

from wattribute.exporters.metrics import METRIC

NODE = 'instance=~"$instance"'
JOB = 'job_id=~"$job_id"'
PRODUCT = 'product_id=~"$product_id"'
UNFOLDED = 'job_id!~"_.*"'
"""Leaves `_retired` and `_overflow` out: a panel of jobs."""

NOT_RETIRED = 'job_id!="_retired"'
"""For power: what an ended job had used moves there in one step, which is no power."""

JSCE_TERMS = "operation|cooling|platform|retraining"
INVENTORY_TERMS = "operation|cooling|hardware"
"""What an organisation emits; the other terms redistribute it."""

PRICE = (
    "ASC^e is a price, not an inventory: platform, retraining, overhead_hardware and product redistribute what is "
    "already in operation, cooling and hardware. Don't add it up to an organisation's total."
)

TWICE = "With a platform chosen besides those that use it, the platform's own jobs are in this twice."


def series(name: str, *where: str) -> str:
    """The selector of a metric with label matchers. Raises KeyError for a name that isn't in the table."""
    base = name.removesuffix("_bucket")
    if not METRIC[base].buckets and base != name:
        raise KeyError(name)
    return f"{name}{{{', '.join(where)}}}" if where else name


def rate(name: str, *where: str, by: str = "") -> str:
    """Per second, over what Grafana takes for a moment: watts of joules."""
    return _sum(f"rate({series(name, *where)}[$__rate_interval])", by)


def now(name: str, *where: str, by: str = "") -> str:
    """The values as they stand, added up."""
    return _sum(series(name, *where), by)


def total(name: str, *where: str, by: str = "") -> str:
    """What counters of jobs stood at last in the time shown, over nodes: exact where `increase` extrapolates."""
    return _sum(f"max_over_time({series(name, *where)}[$__range])", by)


def grown(name: str, *where: str, by: str = "") -> str:
    """By how much counters of nodes or products grew in the time shown: exact, for they never fall."""
    return grown_of(series(name, *where), by=by)


def grown_of(counter: str, *, by: str = "") -> str:
    """The same of a selector, also of a recorded one that has `instance`.

    A counter stood at 0 before its first sample where its node was scraped without it when the time shown began, or
    began its ledger since: else a product's first job would be left out up to its first scrape, a short one whole.
    """
    created = series("wattribute_ledger_created_timestamp_seconds")
    scraped_late = (
        f"max by (job, instance) "
        f"(0 * {created} offset $__range or last_over_time({created}[$__range]) <= bool time() - $__range_s)"
    )
    began = (
        f"({counter} offset $__range"
        f" or min_over_time({counter}[$__range]) * on (job, instance) group_left () {scraped_late})"
    )
    return _sum(f"max_over_time({counter}[$__range]) - {began}", by)


def seen(name: str, *where: str, by: str) -> str:
    """What was last said in the time shown, one of each `by`: of infos and other gauges, also of what has ended."""
    return f"max by ({by}) (last_over_time({series(name, *where)}[$__range]))"


def per_hour(expr: str) -> str:
    """A rate per second as one per hour."""
    return f"3600 * {expr}"


def _sum(expr: str, by: str) -> str:
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"
