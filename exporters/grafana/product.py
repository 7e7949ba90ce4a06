"""The dashboard of a product: what its jobs cost, what it passes on to its users, and how it was amortised."""

from typing import Any

from wattribute.exporters.grafana.panels import (
    BAD,
    GOOD,
    PER_HOUR,
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
    TWICE,
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


PAID = 'term="product"'


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
        figure("Power", "Of the chosen products' jobs.", "watt", Query(rate(JOULES, PRODUCT)), width=6),
        figure(
            "Energy in the time shown",
            "Of the chosen products' jobs, short and ended ones too.",
            "joule",
            Query(grown(JOULES, PRODUCT)),
            width=6,
        ),
        figure(
            "JSC^e in the time shown",
            "Grams of CO2 equivalent of the chosen products' jobs: operation + cooling + platform + retraining. "
            f"{TWICE}",
            "massg",
            Query(grown(GRAMS, PRODUCT, JSCE)),
            width=6,
        ),
        figure(
            "ASC^e in the time shown",
            f"Grams of CO2 equivalent that the chosen products' jobs are billed for, all terms. {TWICE} {PRICE}",
            "massg",
            Query(grown(GRAMS, PRODUCT)),
            width=6,
        ),
        listing(
            "Each product",
            "The same of each one, with its kind, or that jobs merely name it (undeclared); and its jobs, running now "
            "and since the ledgers began: its own and those that use it, once on each node that they run on. " + PRICE,
            Column(seen("wattribute_product_info", PRODUCT, by="product_id, kind")),
            Column(rate(JOULES, PRODUCT, by=by), "power", "watt"),
            Column(grown(JOULES, PRODUCT, by=by), "energy", "joule"),
            Column(grown(GRAMS, PRODUCT, JSCE, by=by), "JSC^e", "massg"),
            Column(grown(GRAMS, PRODUCT, by=by), "ASC^e", "massg"),
            Column(now("wattribute_product_running_jobs", PRODUCT, by=by), "running jobs"),
            Column(now("wattribute_product_jobs_total", PRODUCT, by=by), "jobs"),
            width=24,
            height=6,
            sort="energy",
            opens={"product_id": "product"},
        ),
        graph(
            "JSC^e and ASC^e, per hour",
            f"Grams of CO2 equivalent an hour that the product's jobs are billed for. {PRICE}",
            PER_HOUR,
            Query(per_hour(rate(GRAMS, PRODUCT, JSCE, by=by)), f"{name} JSC^e"),
            Query(per_hour(rate(GRAMS, PRODUCT, by=by)), f"{name} ASC^e"),
        ),
        graph(
            "ASC^e by term, per hour",
            f"Grams of CO2 equivalent an hour, by term. {PRICE}",
            PER_HOUR,
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
            PER_HOUR,
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
    def epc(by: str, *where: str) -> str:
        return f"max by ({by}) ({series('wattribute_product_epc_grams', PRODUCT, *where)})"

    billed = "wattribute_product_billed_grams_total"
    whole = f"(sum by (product_id) ({epc('product_id, part')}) > 0)"

    def owed(method: str) -> str:
        return grown_since("wattribute_product_amortised_grams_total", f'method="{method}"')

    return [
        listing(
            "EPC of each product",
            "Embodied product cost: what making it emitted (own), and its part of what it was made from (inherited); "
            "where a part is missing, ASC^e is a lower bound. Each node says the same; the largest is shown. And what "
            "users owe of it since the ledgers began, by time and by units: the product is billed by one of them.",
            Column(epc("product_id", 'part="own"'), "own", "massg"),
            Column(epc("product_id", 'part="inherited"'), "inherited", "massg"),
            Column(
                f"max by (product_id) ({series('wattribute_product_epc_missing', PRODUCT)})",
                "known?",
                words={"0": ("known", GOOD), "1": ("missing", BAD)},
            ),
            Column(owed("time"), "owed, by time", "massg"),
            Column(owed("units"), "owed, by units", "massg"),
            width=14,
            sort="own",
            opens={"product_id": "product"},
            empty="no declared product",
        ),
        graph(
            "EPC recovered, and owed",
            "The part of the embodied product cost that users have paid, and what they owe so far, by the way of "
            "amortising it: what was owed while nobody was there to pay it stays unpaid.",
            "percentunit",
            Query(f"{now(billed, PRODUCT, PAID, by='product_id')} / {whole}", "{{product_id}} paid"),
            Query(
                f"{now('wattribute_product_amortised_grams_total', PRODUCT, by='product_id, method')}"
                f" / on (product_id) group_left () {whole}",
                "{{product_id}} owed by {{method}}",
            ),
            width=10,
            empty="nothing",
        ),
    ]


def grown_since(name: str, *where: str) -> str:
    """What products' counters came to since the ledgers began, nodes that left in the time shown included."""
    return f"sum by (product_id) (max_over_time({series(name, PRODUCT, *where)}[$__range]))"


def _taxes() -> list[Panel]:
    term = "{{product_id}} {{term}}"
    return [
        graph(
            "Overhead, per hour",
            "Grams of CO2 equivalent an hour to be taxed on behalf of the product: billed + untaxed.",
            PER_HOUR,
            Query(per_hour(rate("wattribute_product_overhead_grams_total", PRODUCT, by="product_id, term")), term),
            stacked=True,
            empty="no declared product",
        ),
        graph(
            "Billed and untaxed, per hour",
            "The part of the overhead that jobs were billed for, and the part that nobody was there to pay for.",
            PER_HOUR,
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
