"""Metrics of products: their taxes, their embodied cost, and the sums over their jobs."""

from wattribute.exporters.metric import NG, UJ, WEIGHTED_NS, Metric

PRODUCT = ("product_id",)
_PAYEE = ("product_id", "term")

PRODUCTS: tuple[Metric, ...] = (
    Metric(
        "wattribute_product_info",
        "Products",
        "A product, declared or merely named by a job (kind undeclared); always 1.",
        ("product_id", "kind"),
    ),
    Metric(
        "wattribute_product_running_jobs",
        "Products",
        "Jobs of the product, and jobs that use it, that run on the node now.",
        PRODUCT,
    ),
    Metric(
        "wattribute_product_jobs_total",
        "Products",
        "Jobs of the product, and jobs that use it, that were registered on the node.",
        PRODUCT,
    ),
    Metric(
        "wattribute_product_weight_seconds_total",
        "Products",
        "Tax weight times time of the jobs that use the product.",
        PRODUCT,
        "seconds",
        WEIGHTED_NS,
    ),
    Metric(
        "wattribute_product_overhead_grams_total",
        "Products",
        "Grams of CO2 equivalent to be taxed on behalf of the product, the payee.",
        _PAYEE,
        "grams",
        NG,
        note="billed + untaxed. Only declared products are payees.",
    ),
    Metric(
        "wattribute_product_billed_grams_total",
        "Products",
        "The part of the product's overhead that jobs were billed for.",
        _PAYEE,
        "grams",
        NG,
    ),
    Metric(
        "wattribute_product_untaxed_grams_total",
        "Products",
        "The part of the product's overhead that nobody was there to pay for.",
        _PAYEE,
        "grams",
        NG,
    ),
    Metric(
        "wattribute_product_epc_grams",
        "Products",
        "Embodied product cost in grams of CO2 equivalent, by where it comes from.",
        ("product_id", "part"),
        "grams",
        NG,
        note="Parts: own, inherited. The same from every node: use max, not sum.",
    ),
    Metric(
        "wattribute_product_epc_missing",
        "Products",
        "1 where a declared product's embodied cost is not known: ASC^e is then a lower bound.",
        ("product_id", "part"),
        note="The same from every node: use max, not sum.",
    ),
    Metric(
        "wattribute_product_energy_joules_total",
        "Products",
        "Energy of the product's jobs, ended ones included.",
        ("product_id", "role", "domain"),
        "joules",
        UJ,
        note="The sum over its jobs' wattribute_job_energy_joules_total.",
    ),
    Metric(
        "wattribute_product_co2e_grams_total",
        "Products",
        "Grams of CO2 equivalent of the product's jobs, ended ones included.",
        ("product_id", "role", "term"),
        "grams",
        NG,
        note="The sum over its jobs' wattribute_job_co2e_grams_total.",
    ),
    Metric(
        "wattribute_product_correction_grams",
        "Products",
        "What turned out otherwise than it was booked, later, in grams of CO2 equivalent; may be negative.",
        _PAYEE,
        "grams",
        NG,
        note="Series keep what was first booked; receipts and the ledger have the truth. An empty product_id is what "
        "nobody paid.",
    ),
    Metric(
        "wattribute_product_amortised_grams_total",
        "Products",
        "What of the product's embodied cost its users owe, by the way of amortising it.",
        ("product_id", "method"),
        "grams",
        NG,
        note="Methods: time, units. Both are told where both are known; the product is billed by one of them.",
    ),
)
