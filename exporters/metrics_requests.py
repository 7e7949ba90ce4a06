"""Metrics of served requests: how many there were of what, and who of them is billed for which joules and grams.

Grams per request and per token are ratios of these counters; QUERIES has them in PromQL.
"""

from wattribute.agent.core.model import BUCKETS_UJ
from wattribute.exporters.metric import MICRO_UNITS, NG, UJ, Metric
from wattribute.exporters.metrics_products import PRODUCT

_BY_TERM = ("product_id", "term")
_TENANT = ("product_id", "tenant")
_STAGE = ("product_id", "stage")

REQUESTS: tuple[Metric, ...] = (
    Metric(
        "wattribute_product_units_total",
        "Requests",
        "What the product served, by unit, over all tenants.",
        ("product_id", "unit"),
        exponent=MICRO_UNITS,
        note="`request` is one of the units: requests that were answered.",
    ),
    Metric(
        "wattribute_product_requests_aborted_total",
        "Requests",
        "Requests that were begun and not answered: an error, a worker that died.",
        PRODUCT,
        note="They are billed for the time that they took.",
    ),
    Metric("wattribute_product_requests_in_flight", "Requests", "Requests being answered now.", PRODUCT),
    Metric(
        "wattribute_product_request_joules_total",
        "Requests",
        "Energy billed to requests of the product.",
        PRODUCT,
        "joules",
        UJ,
        note="It follows the requests by a report of the meter or two: see unsettled.",
    ),
    Metric(
        "wattribute_product_request_grams_total",
        "Requests",
        "Grams of CO2 equivalent billed to requests of the product, by term.",
        _BY_TERM,
        "grams",
        NG,
        note="The terms of a job.",
    ),
    Metric(
        "wattribute_product_idle_joules_total",
        "Requests",
        "Energy that the product's metered jobs used when no request was there for it.",
        PRODUCT,
        "joules",
        UJ,
    ),
    Metric(
        "wattribute_product_idle_grams_total",
        "Requests",
        "Grams of CO2 equivalent of the product's metered jobs that no request was there for, by term.",
        _BY_TERM,
        "grams",
        NG,
    ),
    Metric(
        "wattribute_product_unsettled_joules",
        "Requests",
        "Energy of the product's metered jobs that is not split over requests yet.",
        PRODUCT,
        "joules",
        UJ,
        note="What was used since the last report of the meters.",
    ),
    Metric(
        "wattribute_product_unsettled_grams",
        "Requests",
        "Grams of CO2 equivalent of the product's metered jobs that are not split over requests yet, by term.",
        _BY_TERM,
        "grams",
        NG,
    ),
    Metric(
        "wattribute_tenant_units_total",
        "Requests",
        "What one tenant of the product was served, by unit.",
        (*_TENANT, "unit"),
        exponent=MICRO_UNITS,
        note="Only of products with a named tenant; then an empty tenant is nobody in particular.",
    ),
    Metric(
        "wattribute_tenant_joules_total",
        "Requests",
        "Energy billed to requests of one tenant.",
        _TENANT,
        "joules",
        UJ,
    ),
    Metric(
        "wattribute_tenant_grams_total",
        "Requests",
        "Grams of CO2 equivalent billed to requests of one tenant, by term.",
        (*_TENANT, "term"),
        "grams",
        NG,
    ),
    Metric(
        "wattribute_product_stage_joules_total",
        "Requests",
        "The parts of the energy billed to requests that the serving engine tells apart.",
        _STAGE,
        "joules",
        UJ,
        note="Stages: prefill, decode. They are contained in what requests are billed, not to be added to it.",
    ),
    Metric(
        "wattribute_product_stage_grams_total",
        "Requests",
        "The parts of the grams billed to requests that the serving engine tells apart, by term.",
        (*_STAGE, "term"),
        "grams",
        NG,
    ),
    Metric(
        "wattribute_product_receipt_joules",
        "Requests",
        "Energy of single requests, of those that have a receipt.",
        PRODUCT,
        "joules",
        UJ,
        note="With `serving.exemplars`, in OpenMetrics, a bucket names its latest request.",
        buckets=BUCKETS_UJ,
    ),
)

# What the documentation recommends and a test evaluates: by what it tells.
QUERIES: dict[str, str] = {
    "JSC^e of a request, grams": """\
sum by (product_id) (rate(wattribute_product_request_grams_total{term=~"operation|cooling|platform|retraining"}[5m]))
  / sum by (product_id) (rate(wattribute_product_units_total{unit="request"}[5m]))""",
    "ASC^e of a request, grams": """\
sum by (product_id) (rate(wattribute_product_request_grams_total[5m]))
  / sum by (product_id) (rate(wattribute_product_units_total{unit="request"}[5m]))""",
    "ASC^e of 1,000 output tokens, grams, idle time included": """\
1000 * sum by (product_id) (
    rate(wattribute_product_request_grams_total[5m]) + rate(wattribute_product_idle_grams_total[5m])
  )
  / sum by (product_id) (rate(wattribute_product_units_total{unit="output_token"}[5m]))""",
    "ASC^e of 1,000 output tokens of each tenant, grams": """\
1000 * sum by (product_id, tenant) (rate(wattribute_tenant_grams_total[5m]))
  / sum by (product_id, tenant) (rate(wattribute_tenant_units_total{unit="output_token"}[5m]))""",
    "JSC of decoding 1,000 output tokens, grams": """\
1000 * sum by (product_id) (
    rate(wattribute_product_stage_grams_total{stage="decode",term=~"operation|cooling"}[5m])
  )
  / sum by (product_id) (rate(wattribute_product_units_total{unit="output_token"}[5m]))""",
    "What 95 of 100 requests with a receipt stay below, joules": """\
histogram_quantile(0.95, sum by (product_id, le) (rate(wattribute_product_receipt_joules_bucket[5m])))""",
}
