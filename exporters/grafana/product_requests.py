"""The part of the product's dashboard about serving: what a request costs, tenants, stages and receipts."""

from wattribute.exporters.grafana.panels import (
    PER_HOUR,
    Column,
    Panel,
    Query,
    Row,
    distribution,
    figure,
    graph,
    listing,
)
from wattribute.exporters.grafana.promql import JSCE_TERMS, PRICE, PRODUCT, grown, now, per_hour, rate

NOT_METERED = "no metered requests"
REQUEST_JOULES, REQUEST_GRAMS = "wattribute_product_request_joules_total", "wattribute_product_request_grams_total"
IDLE_JOULES, IDLE_GRAMS = "wattribute_product_idle_joules_total", "wattribute_product_idle_grams_total"
UNITS = "wattribute_product_units_total"
JSCE, REQUESTS = f'term=~"{JSCE_TERMS}"', 'unit="request"'
BY, NAME = "product_id", "{{product_id}}"
SLOW = "Joules and grams follow their requests by a report of the meter or two, retraining by a day."


def request_rows() -> list[Row]:
    """The rows from requests to receipts."""
    return [
        Row("What a request costs", _per_request()),
        Row("Serving", _serving()),
        Row("Tenants, stages and receipts", _parts()),
    ]


def _per_request() -> list[Panel]:
    def cost(title: str, unit: str, numerator: str, says: str) -> Panel:
        ratio = f"{numerator} / ({grown(UNITS, PRODUCT, REQUESTS)} > 0)"
        return figure(title, says, unit, Query(ratio), width=6, empty=NOT_METERED)

    in_time = f"Mean over the time shown, of all requests of the chosen products, without idle. {SLOW}"
    moment = f"{rate(UNITS, PRODUCT, REQUESTS, by=BY)}"
    return [
        cost("JSC^e of a request", "massg", grown(REQUEST_GRAMS, PRODUCT, JSCE), in_time),
        cost("ASC^e of a request", "massg", grown(REQUEST_GRAMS, PRODUCT), f"{in_time} {PRICE}"),
        cost("Energy of a request", "joule", grown(REQUEST_JOULES, PRODUCT), in_time),
        cost(
            "ASC^e of a request, with idle",
            "massg",
            f"({grown(REQUEST_GRAMS, PRODUCT)} + {grown(IDLE_GRAMS, PRODUCT)})",
            f"With what it took to keep the product ready. {PRICE}",
        ),
        graph(
            "JSC^e and ASC^e of a request",
            f"Grams of CO2 equivalent, of the requests of each moment; a gap: there were none. {SLOW} {PRICE}",
            "massg",
            Query(f"{rate(REQUEST_GRAMS, PRODUCT, JSCE, by=BY)} / ({moment} > 0)", f"{NAME} JSC^e"),
            Query(f"{rate(REQUEST_GRAMS, PRODUCT, by=BY)} / ({moment} > 0)", f"{NAME} ASC^e"),
            empty=NOT_METERED,
        ),
        listing(
            "Per 1,000 units",
            "What 1,000 of each unit cost over the time shown: of output_token, 1,000 tokens that were generated. A "
            f"request has several units; each line divides the whole by one of them. {PRICE}",
            Column(_per_thousand(grown(REQUEST_GRAMS, PRODUCT, JSCE, by=BY)), "JSC^e", "massg"),
            Column(_per_thousand(grown(REQUEST_GRAMS, PRODUCT, by=BY)), "ASC^e", "massg"),
            Column(_per_thousand(grown(REQUEST_JOULES, PRODUCT, by=BY)), "energy", "joule"),
            empty=NOT_METERED,
        ),
    ]


def _per_thousand(cost: str) -> str:
    units = grown(UNITS, PRODUCT, by="product_id, unit")
    return f"1000 * {cost} / on (product_id) group_right () ({units} > 0)"


def _serving() -> list[Panel]:
    return [
        graph(
            "Units served, a second",
            "What the product served, by unit; request: requests that were answered.",
            "short",
            Query(rate(UNITS, PRODUCT, by="product_id, unit"), f"{NAME} {{{{unit}}}}"),
            empty=NOT_METERED,
        ),
        graph(
            "Requests in flight, and aborted ones",
            "Requests being answered now; and those a second that ended without an answer. They are billed for the "
            "time that they took.",
            "none",
            Query(now("wattribute_product_requests_in_flight", PRODUCT, by=BY), f"{NAME} in flight"),
            Query(rate("wattribute_product_requests_aborted_total", PRODUCT, by=BY), f"{NAME} aborted a second"),
            empty=NOT_METERED,
        ),
        graph(
            "Power of requests and of idle",
            "Power that requests are billed for, and that the metered jobs used when no request was there for it.",
            "watt",
            Query(rate(REQUEST_JOULES, PRODUCT, by=BY), f"{NAME} requests"),
            Query(rate(IDLE_JOULES, PRODUCT, by=BY), f"{NAME} idle"),
            stacked=True,
            empty=NOT_METERED,
        ),
        graph(
            "Idle carbon, per hour",
            "Grams of CO2 equivalent an hour of metered jobs that no request was there for, by term.",
            PER_HOUR,
            Query(per_hour(rate(IDLE_GRAMS, PRODUCT, by="product_id, term")), f"{NAME} {{{{term}}}}"),
            stacked=True,
            empty=NOT_METERED,
        ),
        graph(
            "Not settled yet: energy",
            "Energy that isn't split over requests yet: what was used since the last report of the meters. A line that "
            "climbs is a meter that doesn't report.",
            "joule",
            Query(now("wattribute_product_unsettled_joules", PRODUCT, by=BY), NAME),
            empty=NOT_METERED,
        ),
        graph(
            "Not settled yet: carbon",
            "Grams of CO2 equivalent that aren't split over requests yet, by term.",
            "massg",
            Query(now("wattribute_product_unsettled_grams", PRODUCT, by="product_id, term"), f"{NAME} {{{{term}}}}"),
            stacked=True,
            empty=NOT_METERED,
        ),
    ]


def _parts() -> list[Panel]:
    tenant = "product_id, tenant"
    receipts = "wattribute_product_receipt_joules_bucket"
    return [
        listing(
            "Tenants",
            f"Of products with named tenants, over the time shown. An empty tenant is nobody in particular. {PRICE}",
            Column(grown("wattribute_tenant_joules_total", PRODUCT, by=tenant), "energy", "joule"),
            Column(grown("wattribute_tenant_grams_total", PRODUCT, JSCE, by=tenant), "JSC^e", "massg"),
            Column(grown("wattribute_tenant_grams_total", PRODUCT, by=tenant), "ASC^e", "massg"),
            Column(grown("wattribute_tenant_units_total", PRODUCT, REQUESTS, by=tenant), "requests"),
            width=14,
            sort="energy",
            empty="no named tenants",
        ),
        listing(
            "Stages",
            "What of the requests' energy and carbon the serving engine tells apart: prefill, decode. Contained in "
            f"what requests are billed: don't add it to that. {PRICE}",
            Column(grown("wattribute_product_stage_joules_total", PRODUCT, by="product_id, stage"), "energy", "joule"),
            Column(
                grown("wattribute_product_stage_grams_total", PRODUCT, JSCE, by="product_id, stage"), "JSC^e", "massg"
            ),
            Column(grown("wattribute_product_stage_grams_total", PRODUCT, by="product_id, stage"), "ASC^e", "massg"),
            width=10,
            empty="no stages",
        ),
        distribution(
            "Receipts by energy",
            "How many single requests, of those with a receipt, took how many joules. All chosen products together.",
            "joule",
            Query(f"sum by (le) (increase({receipts}{{{PRODUCT}}}[$__rate_interval]))", "{{le}}"),
            empty="no receipts",
        ),
        graph(
            "What most receipts stay below",
            "Joules that half of the requests with a receipt, 95 and 99 of 100 stay below, interpolated in a bucket.",
            "joule",
            *[
                Query(f"histogram_quantile({part}, {rate(receipts, PRODUCT, by='product_id, le')})", f"{NAME} {named}")
                for part, named in ((0.5, "half"), (0.95, "95 %"), (0.99, "99 %"))
            ],
            empty="no receipts",
        ),
    ]
