"""The dashboard of all nodes: what the organisation emits, who causes it, and what needs a look. It needs the rules."""

from typing import Any

from wattribute.exporters.grafana.fleet_health import health_row
from wattribute.exporters.grafana.panels import (
    BAD,
    GOOD,
    PER_HOUR,
    PER_KWH,
    Column,
    Panel,
    Query,
    Row,
    figure,
    graph,
    link,
    listing,
    made,
    note,
)
from wattribute.exporters.grafana.promql import INVENTORY_TERMS, PRICE, grown_of, per_hour

INVENTORY = f'{{term=~"{INVENTORY_TERMS}"}}'
TOP = 20

ENERGY = "sum by (job_id, product_id) (max_over_time(job:wattribute_job_energy_joules:sum[$__range]))"
LARGEST = f"topk({TOP}, {ENERGY})"
WHOLE = "Operation, cooling and hardware alone: the inventory, of which ASC^e is never a part."


def dashboard() -> dict[str, Any]:
    """The dashboard `wattribute-fleet`."""
    return made(
        "fleet",
        "All nodes: what is emitted, for which jobs, products and phases, and what needs a look.",
        [],
        [
            Row("The fleet", _now()),
            Row("What the organisation emits", _inventory()),
            Row("Jobs and products", _largest()),
            Row("Idle, and what nobody is billed for", _unattributed()),
            health_row(),
        ],
        refresh="5m",
    )


def _now() -> list[Panel]:
    power = "sum(fleet:wattribute_node_energy_joules:rate5m)"
    return [
        note(
            "What this dashboard needs",
            "Which rules to load, and which total is which.",
            "The panels read recording rules, so that a thousand nodes are no burden: load "
            "`deploy/prometheus/rules/*.yml` into Prometheus (docs/prometheus.md), or most of them stay empty. An "
            "organisation's total is **operation + cooling + hardware** of all nodes, jobs and idle alike. **ASC^e is "
            "a price, not an inventory**: platform, retraining, overhead_hardware and product redistribute what is "
            "already in it. How sure a job's figures are is on Job, *Bounds*. 1 Mg is a tonne.",
        ),
        figure("Nodes", "Agents that are scraped now.", "none", Query("fleet:wattribute_nodes:count")),
        figure("Power", "Of all nodes, all domains.", "watt", Query(power)),
        figure(
            "Billed to nobody, share",
            "The part of the power that no job pays for: idle, overhead, gaps.",
            "percentunit",
            Query(f"sum(fleet:wattribute_node_unattributed_joules:rate5m) / {power}"),
        ),
        figure(
            "Emissions, per hour",
            f"Grams of CO2 equivalent an hour. {WHOLE}",
            PER_HOUR,
            Query(per_hour(f"sum(fleet:wattribute_node_co2e_grams:rate5m{INVENTORY})")),
        ),
        figure(
            "Running jobs",
            "Jobs that some node says to run.",
            "none",
            Query("count(job:wattribute_job_running:max == 1)"),
            empty="none",
        ),
        figure(
            "Incomplete jobs",
            "Jobs of which a node is missing: their totals are too small. See below which.",
            "none",
            Query("count(job:wattribute_job_complete:bool == 0)"),
            steps=((None, GOOD), (1, BAD)),
            empty="none",
        ),
    ]


def _inventory() -> list[Panel]:
    last = f"instance:wattribute_node_co2e_grams:last{INVENTORY}"
    return [
        figure(
            "Emissions in the time shown",
            f"Grams of CO2 equivalent by term, idle included. {WHOLE}",
            "massg",
            Query(grown_of(last), "all"),
            Query(grown_of(last, by="term"), "{{term}}"),
            width=12,
        ),
        figure(
            "Emissions since the ledgers began",
            f"Grams of CO2 equivalent by term, of the nodes that are targets now. {WHOLE}",
            "massg",
            Query(f"sum(fleet:wattribute_node_co2e_grams:sum{INVENTORY})", "all"),
            Query(f"fleet:wattribute_node_co2e_grams:sum{INVENTORY}", "{{term}}"),
            width=12,
        ),
        graph(
            "Embodied against operational, per hour",
            f"Grams of CO2 equivalent an hour: operation and cooling, and the hardware's embodied carbon. {WHOLE}",
            PER_HOUR,
            Query(per_hour(f"fleet:wattribute_node_co2e_grams:rate5m{INVENTORY}"), "{{term}}"),
            stacked=True,
        ),
        graph(
            "Whose emissions, per hour",
            f"Grams of CO2 equivalent an hour: of jobs by role, and those that nobody is billed for. {WHOLE}",
            PER_HOUR,
            Query(
                per_hour(f"sum by (role) (fleet_role:wattribute_product_co2e_grams:rate5m{INVENTORY})"),
                "jobs: {{role}}",
            ),
            Query(
                per_hour(f"sum by (reason) (fleet_reason:wattribute_node_unattributed_grams:rate5m{INVENTORY})"),
                "nobody: {{reason}}",
            ),
            stacked=True,
        ),
        graph(
            "Emissions by phase, per hour",
            "Grams of CO2 equivalent an hour of jobs, by the phase that they name: data, experimentation, training, "
            f"inference. {WHOLE}",
            PER_HOUR,
            Query(
                _phases(per_hour(f"sum by (phase) (product_phase:wattribute_job_co2e_grams:rate5m{INVENTORY})")),
                "{{phase}}",
            ),
            stacked=True,
            empty="no jobs",
        ),
        graph(
            "Power by phase",
            "Power of jobs, by the phase that they name.",
            "watt",
            Query(_phases("sum by (phase) (product_phase:wattribute_job_energy_joules:rate5m)"), "{{phase}}"),
            stacked=True,
            empty="no jobs",
        ),
        graph(
            "Power by domain and quality",
            "Of all nodes, by what was measured and how well it is known.",
            "watt",
            Query("fleet_quality:wattribute_node_energy_joules:rate5m", "{{domain}} {{quality}}"),
            stacked=True,
        ),
        graph(
            "Carbon intensity by grid zone",
            "Grams of CO2 equivalent per kWh of electricity, in force on the nodes of each zone, and where it is from.",
            PER_KWH,
            Query(
                "3.6e6 * avg by (grid_zone, provider, method) (wattribute_grid_intensity_grams_per_joule)",
                "{{grid_zone}} {{provider}} {{method}}",
            ),
        ),
    ]


def _phases(by_phase: str) -> str:
    return f'label_replace({by_phase}, "phase", "no phase named", "phase", "")'


def _largest() -> list[Panel]:
    def of_largest(name: str) -> str:
        grams = f"sum by (job_id, product_id) (max_over_time(job:wattribute_job_{name}_grams:sum[$__range]))"
        return f"{grams} and on (job_id, product_id) {LARGEST}"

    def mean(of: str) -> str:
        return f"sum by (product_id) (avg_over_time({of}[$__range]))"

    grams = "product:wattribute_product_co2e_grams:rate5m"
    return [
        listing(
            "Largest jobs",
            f"The {TOP} that used most energy, over all their nodes, as they stood last in the time shown. {PRICE}",
            Column(LARGEST, "energy", "joule"),
            Column(of_largest("jsc"), "JSC", "massg"),
            Column(of_largest("jsce"), "JSC^e", "massg"),
            Column(of_largest("asc"), "ASC", "massg"),
            Column(of_largest("asce"), "ASC^e", "massg"),
            width=24,
            sort="energy",
            opens={"job_id": "job", "product_id": "product"},
            empty="no jobs",
        ),
        graph(
            "Power of the largest jobs",
            f"The {TOP} that use most at each moment.",
            "watt",
            Query(f"topk({TOP}, sum by (job_id) (job:wattribute_job_energy_joules:rate5m))", "{{job_id}}"),
            opens=link("job", "job_id"),
            empty="no jobs",
        ),
        listing(
            "Products",
            "Means over the time shown, of a product that began within it since then: power, and grams of CO2 "
            f"equivalent an hour; inventory is operation + cooling + hardware. Totals are on Product. {PRICE}",
            Column(mean("product:wattribute_product_energy_joules:rate5m"), "power", "watt"),
            Column(per_hour(mean(f"{grams}{INVENTORY}")), "inventory an hour", PER_HOUR),
            Column(per_hour(mean(grams)), "ASC^e an hour", PER_HOUR),
            sort="power",
            opens={"product_id": "product"},
            empty="no jobs",
        ),
        listing(
            "Platform tax by job",
            "Grams of CO2 equivalent an hour that each job owes for the platforms it uses, over all nodes; the "
            f"{TOP} that owe most. A view and no bill: never add it to the jobs' own platform term.",
            Column(
                f"topk({TOP}, 3600 * sum by (job_id, product_id) (job:wattribute_job_platform_tax_grams:rate5m))",
                "tax an hour",
                PER_HOUR,
            ),
            sort="tax an hour",
            opens={"job_id": "job", "product_id": "product"},
            empty="no platform has jobs of its own",
        ),
        graph(
            "EPC recovered",
            "The part of each product's embodied cost that users have paid, where it is known.",
            "percentunit",
            Query("product:wattribute_product_epc_recovered:ratio", "{{product_id}}"),
            opens=link("product", "product_id"),
            empty="no product with a known EPC",
        ),
    ]


def _unattributed() -> list[Panel]:
    idle = 'instance:wattribute_node_unattributed_joules:rate5m{reason="idle"}'
    return [
        graph(
            "Power that nobody is billed for, by reason",
            "Of all nodes: idle, unreserved, unallocated, overhead, unregistered, gap.",
            "watt",
            Query("sum by (reason) (fleet:wattribute_node_unattributed_joules:rate5m)", "{{reason}}"),
            stacked=True,
        ),
        graph(
            "What idle costs, per hour",
            "Grams of CO2 equivalent an hour of idle that nobody is billed for, by term.",
            PER_HOUR,
            Query(per_hour('fleet_reason:wattribute_node_unattributed_grams:rate5m{reason="idle"}'), "{{term}}"),
            stacked=True,
        ),
        listing(
            "Nodes with most idle power",
            f"The {TOP} nodes with most idle power that nobody is billed for.",
            Column(
                f"topk({TOP}, sum by (instance) ({idle}))",
                "idle power",
                "watt",
            ),
            sort="idle power",
            opens={"instance": "node"},
        ),
        listing(
            "Nodes with most power",
            f"The {TOP} nodes that use most, all domains.",
            Column(f"topk({TOP}, sum by (instance) (instance:wattribute_node_energy_joules:rate5m))", "power", "watt"),
            sort="power",
            opens={"instance": "node"},
        ),
    ]
