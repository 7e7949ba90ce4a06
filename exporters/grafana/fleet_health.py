"""The part of the fleet's dashboard about what needs a look: incomplete jobs, nodes that differ, lost agents."""

from wattribute.exporters.grafana.node import STATES
from wattribute.exporters.grafana.panels import Column, Query, Row, graph, listing
from wattribute.exporters.grafana.promql import rate, series

AT_NODE = {"instance": "node"}


def health_row() -> Row:
    """Tables that are empty where all is well."""
    incomplete = "on (job_id) (job:wattribute_job_complete:bool == 0)"
    up = series("wattribute_source_up")
    late, ticks = (rate(f"wattribute_agent_{name}_total", by="instance") for name in ("ticks_late", "ticks"))
    return Row(
        "What needs a look",
        [
            listing(
                "Which jobs are incomplete",
                "Jobs whose totals are too small: fewer nodes have reported than the job says it runs on, or one that "
                "it ran on went silent (lost).",
                # Without their names, which would keep Grafana from merging them to one line a job.
                Column(f"max by (job_id) (job:wattribute_job_nodes:count and {incomplete})", "reported"),
                Column(f"max by (job_id) (job:wattribute_job_expected_nodes:max and {incomplete})", "expected"),
                Column(f"max by (job_id) (job:wattribute_job_nodes_lost:count and {incomplete})", "lost"),
                opens={"job_id": "job"},
                empty="none: every job is complete",
            ),
            listing(
                "Agents that went silent",
                "Nodes that were there in the time shown and aren't now.",
                Column(
                    "last_over_time(wattribute_build_info[$__range]) unless on (job, instance) wattribute_build_info",
                ),
                opens=AT_NODE,
                empty="none",
            ),
            listing(
                "Nodes whose registry differs",
                "From that of most nodes: they know other products, or other versions of them, and bill differently.",
                Column(_unlike_most("wattribute_registry_info", "hash")),
                opens=AT_NODE,
                empty="none: all nodes agree",
            ),
            listing(
                "Nodes whose version differs",
                "From that of most nodes.",
                Column(_unlike_most("wattribute_build_info", "version")),
                opens=AT_NODE,
                empty="none: all nodes agree",
            ),
            listing(
                "Sources that are down",
                "What couldn't be read last time, by node; released: somebody asked the agent to let go of it.",
                Column(
                    f"{up} - {series('wattribute_source_released')} < 1",
                    "state",
                    words=STATES,
                ),
                opens=AT_NODE,
                empty="none",
            ),
            listing(
                "Devices that are lost",
                "GPUs and RAPL domains that can't be read while others of their source can; nobody is billed.",
                Column(f"{series('wattribute_source_device_up')} == 0 and on (job, instance, source) ({up} == 1)"),
                opens=AT_NODE,
                wide={"device": 380},
                empty="none",
            ),
            listing(
                "Products whose EPC is missing",
                "Declared products whose embodied cost isn't known: ASC^e of those who use them is a lower bound.",
                Column("product:wattribute_product_epc_missing:max == 1"),
                width=8,
                opens={"product_id": "product"},
                empty="none",
            ),
            graph(
                "Late agents",
                "The part of the ticks that began more than 5 ms and a tenth of an interval late; the 20 worst nodes.",
                "percentunit",
                Query(f"topk(20, {late} / {ticks})", "{{instance}}"),
                width=8,
                reaches=0.01,
            ),
            graph(
                "What doesn't add up",
                "By how much what must be equal differs, relative to the whole, on the worst node. 1e-12 is floating "
                "point, 1e-9 and more is a defect: please report it. The alert about it names the node.",
                "sci",
                Query("max by (identity) (instance:wattribute_conservation_error:ratio)", "{{identity}}"),
                width=8,
                reaches=1e-9,
            ),
        ],
    )


def _unlike_most(info: str, label: str) -> str:
    return f"{series(info)} unless on ({label}) topk(1, count by ({label}) ({series(info)}))"
