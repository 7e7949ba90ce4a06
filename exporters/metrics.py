"""The one table of metric names: what each is called, counts, and is labelled with.

Pages, the bridge and `docs/metrics.md` are made from it: `python -m wattribute.exporters.metrics > docs/metrics.md`.
"""

import sys
from collections.abc import Iterator

from wattribute.exporters.metric import Metric
from wattribute.exporters.metrics_jobs import JOBS
from wattribute.exporters.metrics_node import INTENSITY_TO_AGENT, NODE
from wattribute.exporters.metrics_products import PRODUCTS
from wattribute.exporters.metrics_requests import QUERIES, REQUESTS

SCHEMA = "1"
"""Version of this table, shown in wattribute_build_info; it goes up when a name, a label or a meaning changes."""

METRICS: tuple[Metric, ...] = (*NODE, *JOBS, *PRODUCTS, *REQUESTS, *INTENSITY_TO_AGENT)

METRIC: dict[str, Metric] = {metric.name: metric for metric in METRICS}

_INTRODUCTION = """\
# Metrics

<!-- Generated: python -m wattribute.exporters.metrics > docs/metrics.md -->

What `/metrics` shows, in the text format 0.0.4 and in OpenMetrics 1.0 by content negotiation. Base units: joules,
grams of CO2 equivalent, seconds, ratios 0..1. Counters start at 0 when a job registers, never fall, survive restarts
and stay for `hold_s` after the job's end; then their values move, in the same snapshot, to `job_id="_retired"`. Jobs
registered past `max_jobs` are in `job_id="_overflow"` from the start. Leave both out of job panels with
`job_id!~"_.*"` and in for sums.

Joules, grams, seconds and units are printed as exact integers with an exponent (`1234567e-6` is 1.234567 J): no digit
is lost to floating point before the reader's own arithmetic.
"""

_IDENTITIES = """\
## What adds up

On every page (a scrape is one consistent snapshot), exactly:

- per domain: `wattribute_job_energy_joules_total` over all jobs + `wattribute_node_unattributed_joules_total`
  = `wattribute_node_energy_joules_total`;
- per term operation, cooling, hardware: `wattribute_job_co2e_grams_total` over all jobs
  + `wattribute_node_unattributed_grams_total` = `wattribute_node_co2e_grams_total`;
- per product and term: `wattribute_product_billed_grams_total` + `wattribute_product_untaxed_grams_total`
  = `wattribute_product_overhead_grams_total`;
- per product, in joules and by term in grams: `wattribute_product_request_*_total` + `wattribute_product_idle_*_total`
  + `wattribute_product_unsettled_*` = all that the product's metered jobs used;
- per product with named tenants: units, joules and grams of its tenants = the product's;
- per job: operation + cooling = JSC; + platform + retraining = JSC^e; JSC + hardware = ASC;
  JSC^e + hardware + overhead_hardware + product = ASC^e.

ASC^e is a price, not an inventory. An organisation's total is operation + cooling + hardware of jobs of all roles
plus the unattributed grams (and the declared overhead of machines that no agent meters); platform, retraining,
overhead_hardware and product only redistribute what is already in it.
"""

_COST_OF_A_REQUEST = """\
## What a request costs

It is a ratio of two counters, over a time that you choose, so there is no series for it. All terms together are
ASC^e; operation, cooling, platform and retraining are JSC^e; operation and cooling are JSC. Without idle it is what
the requests themselves were billed for; with idle, they also carry what it took to keep the product ready.

Joules and grams follow their requests by a report of the meter or two: take a range of many reports. Retraining is
booked once per interval of the product (a day where nothing else is said): only a longer range has it in. Over a range
without requests a ratio is NaN.
"""


def reference() -> Iterator[str]:
    """The lines of docs/metrics.md."""
    yield _INTRODUCTION
    section = ""
    for metric in METRICS:
        if metric.section != section:
            section = metric.section
            yield f"{'' if section == METRICS[0].section else chr(10)}## {section}\n"
            yield "| metric | type | labels | what it says |"
            yield "|---|---|---|---|"
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        says = f"{metric.help} {metric.note}".strip()
        yield f"| `{metric.name}` | {metric.type} | {labels} | {says} |"
    yield "\n" + _IDENTITIES
    yield _COST_OF_A_REQUEST.rstrip()
    for what, query in QUERIES.items():
        yield f"\n{what}:\n\n```promql\n{query}\n```"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in reference())
