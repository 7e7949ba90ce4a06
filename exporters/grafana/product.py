"""The dashboard of a product: what its jobs cost, what it passes on to its users, and how it was amortised."""

from typing import Any

from wattribute.exporters.grafana.panels import (
    BAD,
    GOOD,
    Column,
    Panel,
    Query,
    Row,
    Variable,
    figure,
    graph,
    link,
    listing,
    made,
)
from wattribute.exporters.grafana.product_requests import request_rows
from wattribute.exporters.grafana.promql import (
    JSCE_TERMS,
    PRICE,
    PRODUCT,
    UNFOLDED,
    grown,
    now,
    per_hour,
    rate,
    seen,
    series,
)

JOULES = "wattribute_product_energy_joules_total"
GRAMS = "wattribute_product_co2e_grams_total"
JSCE = f'term=~"{JSCE_TERMS}"'


def dashboard() -> dict[str, Any]:
    """The dashboard `wattribute-product`."""
    return made(
        "product",
        "What a product costs: its jobs, what its users are billed for, its embodied cost, and its requests.",
        [Variable("product_id", "Product", "wattribute_product_info", "product_id", ".*")],
        [
            Row("What its jobs cost", _costs()),
            Row("Embodied product cost (EPC)", _embodied()),
            Row("What it passes on to its users", _taxes()),
            *request_rows(),
        ],
    )


def _costs() -> list[Panel]:
    by, name = "product_id", "{{product_id}}"
    return [
        figure(
            "Running jobs",
            "Its own jobs and those that use it, added up over nodes: a job counts once on each node that it runs on.",
            "none",
            Query(now("wattribute_product_running_jobs", PRODUCT, by=by), name),
        ),
        figure(
            "Jobs",
            "Its own and those that use it, since the ledgers began: a job counts once on each of its nodes.",
            "none",
            Query(now("wattribute_product_jobs_total", PRODUCT, by=by), name),
        ),
        figure("Power", "Of its jobs.", "watt", Query(rate(JOULES, PRODUCT, by=by), name)),
        figure(
            "Energy in the time shown",
            "Of its jobs, short and ended ones too.",
            "joule",
            Query(grown(JOULES, PRODUCT, by=by), name),
        ),
        figure(
            "JSC^e in the time shown",
            "Grams of CO2 equivalent of its jobs: operation + cooling + platform + retraining.",
            "massg",
            Query(grown(GRAMS, PRODUCT, JSCE, by=by), f"{name} JSC^e"),
        ),
        figure(
            "ASC^e in the time shown",
            f"Grams of CO2 equivalent that its jobs are billed for, all terms. {PRICE}",
            "massg",
            Query(grown(GRAMS, PRODUCT, by=by), f"{name} ASC^e"),
        ),
        graph(
            "JSC^e and ASC^e, per hour",
            f"Grams of CO2 equivalent an hour that the product's jobs are billed for. {PRICE}",
            "massg",
            Query(per_hour(rate(GRAMS, PRODUCT, JSCE, by=by)), f"{name} JSC^e"),
            Query(per_hour(rate(GRAMS, PRODUCT, by=by)), f"{name} ASC^e"),
        ),
        graph(
            "ASC^e by term, per hour",
            f"Grams of CO2 equivalent an hour, by term. {PRICE}",
            "massg",
            Query(per_hour(rate(GRAMS, PRODUCT, by="product_id, term")), f"{name} {{{{term}}}}"),
            stacked=True,
        ),
        graph(
            "Power by role and domain",
            "Of the product's jobs, by what they do for it: use, platform, retraining or creation.",
            "watt",
            Query(rate(JOULES, PRODUCT, by="product_id, role, domain"), f"{name} {{{{role}}}} {{{{domain}}}}"),
            stacked=True,
        ),
        graph(
            "Retraining, per hour",
            "Grams of CO2 equivalent an hour: what retraining jobs of the product emit (operation, cooling, hardware), "
            "and what its users are billed for it.",
            "massg",
            Query(
                per_hour(rate(GRAMS, PRODUCT, 'role="retraining"', 'term=~"operation|cooling|hardware"', by=by)),
                f"{name} emitted by retraining jobs",
            ),
            Query(
                per_hour(rate("wattribute_product_billed_grams_total", PRODUCT, 'term="retraining"', by=by)),
                f"{name} billed as retraining",
            ),
        ),
    ]


def _embodied() -> list[Panel]:
    def epc(by: str) -> str:
        return f"max by ({by}) ({series('wattribute_product_epc_grams', PRODUCT)})"

    recovered = grown_since("wattribute_product_amortised_grams_total", by="product_id, method")
    return [
        figure(
            "EPC",
            "Embodied product cost: what making it emitted (own), and its part of what it was made from (inherited). "
            "Each node says the same; the largest is shown.",
            "massg",
            Query(epc("product_id, part"), "{{product_id}} {{part}}"),
            width=8,
            empty="not known",
        ),
        figure(
            "Is its EPC known?",
            "Where it isn't, ASC^e is a lower bound.",
            "none",
            Query(
                f"max by (product_id, part) ({series('wattribute_product_epc_missing', PRODUCT)})",
                "{{product_id}} {{part}}",
            ),
            steps=((None, GOOD), (1, BAD)),
            words={"0": "known", "1": "missing"},
            width=8,
            empty="no declared product",
        ),
        figure(
            "EPC that users owe so far",
            "What was amortised since the ledgers began, by time and by units where both are known. The product is "
            "billed by one of them.",
            "massg",
            Query(recovered, "{{product_id}} by {{method}}"),
            width=8,
            empty="nothing",
        ),
        graph(
            "EPC recovered",
            "The part of the embodied product cost that users owe so far, by the way of amortising it.",
            "percentunit",
            Query(
                f"{now('wattribute_product_amortised_grams_total', PRODUCT, by='product_id, method')}"
                f" / on (product_id) group_left () (sum by (product_id) ({epc('product_id, part')}) > 0)",
                "{{product_id}} by {{method}}",
            ),
            empty="nothing",
        ),
        listing(
            "Products",
            "Declared products by kind, and those that jobs merely name (undeclared).",
            Column(seen("wattribute_product_info", PRODUCT, by="product_id, kind")),
        ),
    ]


def grown_since(name: str, *, by: str) -> str:
    """What counters of products came to since the ledgers began, nodes that left in the time shown included."""
    return f"sum by ({by}) (max_over_time({series(name, PRODUCT)}[$__range]))"


def _taxes() -> list[Panel]:
    term = "{{product_id}} {{term}}"
    return [
        graph(
            "Overhead, per hour",
            "Grams of CO2 equivalent an hour to be taxed on behalf of the product: billed + untaxed.",
            "massg",
            Query(per_hour(rate("wattribute_product_overhead_grams_total", PRODUCT, by="product_id, term")), term),
            stacked=True,
            empty="no declared product",
        ),
        graph(
            "Billed and untaxed, per hour",
            "The part of the overhead that jobs were billed for, and the part that nobody was there to pay for.",
            "massg",
            Query(
                per_hour(rate("wattribute_product_billed_grams_total", PRODUCT, by="product_id")),
                "{{product_id}} billed",
            ),
            Query(
                per_hour(rate("wattribute_product_untaxed_grams_total", PRODUCT, by="product_id")),
                "{{product_id}} untaxed",
            ),
            stacked=True,
            empty="no declared product",
        ),
        graph(
            "Weight of those who use it",
            "Tax weights of the jobs that use the product now, added up: weight seconds a second.",
            "none",
            Query(rate("wattribute_product_weight_seconds_total", PRODUCT, by="product_id"), "{{product_id}}"),
            width=8,
        ),
        graph(
            "Who uses it, by weight",
            "The tax weight of each job that uses the product, over its nodes; the 20 largest at each moment.",
            "none",
            Query(
                f"topk(20, {now('wattribute_job_weight', PRODUCT, UNFOLDED, by='job_id, product_id')})",
                "{{job_id}} uses {{product_id}}",
            ),
            width=8,
            stacked=True,
            opens=link("job", "job_id"),
            empty="nobody",
        ),
        graph(
            "Corrections",
            "What turned out otherwise than it was booked, later; may be negative. The other panels keep what was "
            "first booked: receipts and the ledger have the truth. Without a product: what nobody paid.",
            "massg",
            Query(now("wattribute_product_correction_grams", PRODUCT, by="product_id, term"), term),
            width=8,
            empty="none",
        ),
    ]
