"""The dashboard of a node, or of several: its power, who pays for it, its sources, and what the agent itself takes."""

from typing import Any

from wattribute.exporters.grafana.panels import (
    BAD,
    GOOD,
    PER_HOUR,
    PER_KWH,
    WARNING,
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
from wattribute.exporters.grafana.promql import NODE, NOT_RETIRED, grown, now, per_hour, rate, series

INSTANCE = Variable("instance", "Node", "wattribute_build_info", "instance", ".+")

_BY_NODE = "instance, source"
STATES = {"-1": ("released", WARNING), "0": ("down", BAD), "1": ("up", GOOD)}
"""Of a source: whether it is up, less whether it is released."""


def dashboard() -> dict[str, Any]:
    """The dashboard `wattribute-node`."""
    return made(
        "node",
        "What a node uses, who pays for it, and whether it is measured well.",
        [INSTANCE],
        [
            Row("Power", _power()),
            Row("Idle, and what nobody is billed for", _unattributed()),
            Row("Carbon", _carbon()),
            Row("Sources: what it is measured with", _sources()),
            Row("The agent itself", _agent()),
        ],
    )


def _power() -> list[Panel]:
    node, free = "wattribute_node_energy_joules_total", "wattribute_node_unattributed_joules_total"
    return [
        figure("Power", "What the nodes use, all domains together.", "watt", Query(rate(node, NODE))),
        figure("Billed to jobs", "The part of the power that jobs pay for.", "watt", Query(_billed(node, free))),
        figure("Billed to nobody", "Idle, overhead and gaps that no job pays for.", "watt", Query(rate(free, NODE))),
        figure(
            "Billed to nobody, share",
            "The part of the power that no job pays for.",
            "percentunit",
            Query(f"{rate(free, NODE)} / {rate(node, NODE)}"),
        ),
        figure(
            "Energy in the time shown",
            "By how much the nodes' counters grew.",
            "joule",
            Query(grown(node, NODE)),
        ),
        figure("Nodes", "Agents that are scraped now.", "none", Query(now("wattribute_build_info", NODE))),
        graph(
            "Power by domain",
            "What the nodes use, by what was measured: cpu, dram, gpu, rest. The domains don't overlap.",
            "watt",
            Query(rate(node, NODE, by="domain"), "{{domain}}"),
            width=8,
            stacked=True,
        ),
        graph(
            "Power by quality",
            "How well it is known: read from an energy counter (measured), summed from power samples (integrated), or "
            "computed without a sensor (modelled).",
            "watt",
            Query(rate(node, NODE, by="quality"), "{{quality}}"),
            width=8,
            stacked=True,
        ),
        graph(
            "Power by node",
            "What each node uses; the 20 largest at each moment.",
            "watt",
            Query(f"topk(20, {rate(node, NODE, by='instance')})", "{{instance}}"),
            width=8,
        ),
        graph(
            "Who pays: power by job",
            "The 20 largest at each moment, and what no job pays for. _overflow is all jobs past max_jobs. Jobs that "
            "were folded away after their end use nothing.",
            "watt",
            Query(
                f"topk(20, {rate('wattribute_job_energy_joules_total', NODE, NOT_RETIRED, by='job_id')})",
                "{{job_id}}",
            ),
            Query(rate(free, NODE, by="reason"), "nobody: {{reason}}"),
            stacked=True,
            opens=link("job", "job_id"),
        ),
        graph(
            "Who pays: power by product",
            "The power of each product's jobs, and what no job pays for. Together it is all that the nodes use.",
            "watt",
            Query(rate("wattribute_product_energy_joules_total", NODE, by="product_id"), "{{product_id}}"),
            Query(rate(free, NODE, by="reason"), "nobody: {{reason}}"),
            stacked=True,
            opens=link("product", "product_id"),
        ),
    ]


def _billed(node: str, free: str) -> str:
    return f"{rate(node, NODE)} - {rate(free, NODE)}"


def _unattributed() -> list[Panel]:
    free = "wattribute_node_unattributed_joules_total"
    return [
        graph(
            "Power that nobody is billed for, by reason",
            "idle: nobody was there to pay for it. overhead: what no job caused. unregistered: processes outside of "
            "jobs. unreserved and unallocated: what was reserved or partitioned by nobody. gap: not known whose.",
            "watt",
            Query(rate(free, NODE, by="domain, reason"), "{{domain}} {{reason}}"),
            stacked=True,
        ),
        graph(
            "Idle power",
            "The idle power that energy is split by, and where it is known from. No line: not known yet, and counted "
            "as 0.",
            "watt",
            Query(
                series("wattribute_idle_power_watts", NODE),
                "{{instance}} {{domain}} {{device}} ({{method}})",
            ),
            empty="not known yet",
        ),
        listing(
            "How each domain is measured and split",
            "The method of each domain, and who pays for idle and overhead: reserved, equal, usage or unattributed.",
            Column(series("wattribute_attribution_info", NODE)),
            width=24,
            wide={"device": 380, "method": 460},
        ),
    ]


def _carbon() -> list[Panel]:
    return [
        graph(
            "Carbon by term, per hour",
            "Grams of CO2 equivalent an hour: operation (electricity), cooling (what PUE adds), hardware (embodied).",
            PER_HOUR,
            Query(per_hour(rate("wattribute_node_co2e_grams_total", NODE, by="term")), "{{term}}"),
            stacked=True,
        ),
        graph(
            "Carbon that nobody is billed for, per hour",
            "Grams of CO2 equivalent an hour that no job pays for, by term and reason.",
            PER_HOUR,
            Query(
                per_hour(rate("wattribute_node_unattributed_grams_total", NODE, by="term, reason")),
                "{{term}} {{reason}}",
            ),
            stacked=True,
        ),
        graph(
            "Carbon intensity",
            "Grams of CO2 equivalent per kWh of electricity, in force on the nodes, and where it is from.",
            PER_KWH,
            Query(
                f"3.6e6 * avg by (grid_zone, provider, method) "
                f"({series('wattribute_grid_intensity_grams_per_joule', NODE)})",
                "{{grid_zone}} {{provider}} {{method}}",
            ),
        ),
        graph(
            "PUE",
            "Power usage effectiveness in force: energy of the facility over energy of its computers.",
            "none",
            Query(
                f"avg by (grid_zone, provider, method) ({series('wattribute_pue_ratio', NODE)})",
                "PUE {{grid_zone}} {{provider}} {{method}}",
            ),
        ),
    ]


def _sources() -> list[Panel]:
    up, last = "wattribute_source_up", "wattribute_source_last_read_timestamp_seconds"
    state = f"{series(up, NODE)} - {series('wattribute_source_released', NODE)}"
    name = "{{instance}} {{source}}"
    return [
        listing(
            "Sources",
            "Which sources there are: whether the last read went well, how long ago that was, how long it took. "
            "released: somebody asked the agent to let go of it.",
            Column(f"min by ({_BY_NODE}) ({state})", "state", words=STATES),
            Column(f"time() - max by ({_BY_NODE}) ({series(last, NODE)})", "last read, ago", "s"),
            Column(f"max by ({_BY_NODE}) ({series('wattribute_source_read_seconds', NODE)})", "read time", "s"),
            width=14,
            wide={"source": 220, "state": 80},
        ),
        listing(
            "Devices",
            "The parts of each source, RAPL's domains and GPUs, and whether the last read of each went well. While one "
            "is lost, nobody is billed for its energy; once it is read again, for what its counter went on to count.",
            Column(
                f"min by ({_BY_NODE}, device) ({series('wattribute_source_device_up', NODE)})",
                "state",
                words={"0": ("lost", BAD), "1": ("up", GOOD)},
            ),
            width=10,
            wide={"device": 340, "state": 80},
            empty="no sensor has any",
        ),
        graph(
            "Age of the last good read",
            "How long ago each source was last read well. A line that climbs is a source that is stuck or gone.",
            "s",
            Query(f"time() - {series(last, NODE)}", name),
            width=8,
        ),
        graph(
            "Read time",
            "How long the last read of each source took.",
            "s",
            Query(series("wattribute_source_read_seconds", NODE), name),
            width=8,
        ),
        graph(
            "Failures",
            "Reads that failed, a second, by reason.",
            "cps",
            Query(rate("wattribute_source_failures_total", NODE, by=f"{_BY_NODE}, reason"), f"{name} {{{{reason}}}}"),
            width=8,
            empty="none",
        ),
        graph(
            "Gaps",
            "Time over which a source's energy isn't known exactly, of all its devices together. A gap counts in full "
            "at its end: then it may be longer than the time between two points of the line.",
            "s",
            Query(
                f"sum by ({_BY_NODE}) "
                f"(increase({series('wattribute_source_gap_seconds_total', NODE)}[$__rate_interval]))",
                name,
            ),
            reaches=1,
            empty="none",
        ),
        graph(
            "Wraps and resets of hardware counters",
            "Since the agent started. A wrap is the end of a counter's range and is accounted for; a reset is a "
            "driver reload or a suspend, and leaves a gap.",
            "none",
            Query(now("wattribute_counter_wraps_total", NODE, by=_BY_NODE), f"{name} wraps"),
            Query(now("wattribute_counter_resets_total", NODE, by=_BY_NODE), f"{name} resets"),
            empty="none",
        ),
    ]


def _agent() -> list[Panel]:
    late, ticks = "wattribute_agent_ticks_late_total", "wattribute_agent_ticks_total"
    return [
        graph(
            "CPU of the agent",
            "CPU time a second of one core.",
            "percentunit",
            Query(rate("wattribute_agent_cpu_seconds_total", NODE, by="instance"), "{{instance}}"),
            width=8,
        ),
        graph(
            "Memory of the agent",
            "Resident memory.",
            "bytes",
            Query(series("wattribute_agent_resident_memory_bytes", NODE), "{{instance}}"),
            width=8,
        ),
        graph(
            "Power of the agent",
            "Energy of the agent itself, a second. It is contained in overhead: don't add it.",
            "watt",
            Query(rate("wattribute_agent_energy_joules_total", NODE, by="instance"), "{{instance}}"),
            width=8,
        ),
        graph(
            "Tick",
            "How long the last tick took, and by how much the last 600 ticks began late.",
            "s",
            Query(series("wattribute_agent_tick_seconds", NODE), "{{instance}} tick"),
            Query(series("wattribute_agent_tick_lateness_seconds", NODE), "{{instance}} late, {{statistic}}"),
        ),
        graph(
            "Requests turned away",
            "Connections and requests a second that the agent's web server refused, by reason. The log says whose.",
            "reqps",
            Query(rate("wattribute_web_refused_total", NODE, by="instance, reason"), "{{instance}} {{reason}}"),
            reaches=1,
            empty="none",
        ),
        figure(
            "Late ticks",
            "The part of the ticks that began more than 5 ms and a tenth of an interval late.",
            "percentunit",
            Query(f"{rate(late, NODE)} / {rate(ticks, NODE)}"),
            steps=((None, GOOD), (0.01, WARNING), (0.1, BAD)),
            width=12,
        ),
        figure("Ticks", "Ticks a second, all nodes together.", "hertz", Query(rate(ticks, NODE)), width=12),
        listing(
            "What runs on each node",
            "Versions; when the node's ledger was created, so that its counters started at 0; the fingerprint of the "
            "declared products: nodes that differ in it bill differently; and how long since the boot the machine was "
            "suspended, for which no idle power is counted.",
            # Without their names, which would keep Grafana from merging them to one line a node.
            Column(f"max by (instance, version, python, schema) ({series('wattribute_build_info', NODE)})"),
            Column(f"max by (instance, hash) ({series('wattribute_registry_info', NODE)})"),
            Column(
                f"1000 * max by (instance) ({series('wattribute_ledger_created_timestamp_seconds', NODE)})",
                "ledger begun",
                "dateTimeAsIso",
            ),
            Column(now("wattribute_node_suspended_seconds_total", NODE, by="instance"), "suspended", "s"),
            width=24,
            opens={"instance": "node"},
        ),
    ]
