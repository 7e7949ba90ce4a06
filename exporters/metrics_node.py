"""Metrics of the node, of carbon intensity, of the sources and of the agent itself."""

from wattribute.exporters.metric import FLOAT, NG, NS, UJ, Metric

_GRID = ("grid_zone", "provider", "method")
_SOURCE = ("source",)

NODE: tuple[Metric, ...] = (
    Metric(
        "wattribute_node_energy_joules_total",
        "Node",
        "Energy that the node used, by what measured it.",
        ("domain", "device", "quality"),
        "joules",
        UJ,
        note="Accumulated from counter deltas alone. Per domain: joules of all jobs + unattributed = node.",
    ),
    Metric(
        "wattribute_node_unattributed_joules_total",
        "Node",
        "Energy of the node that no job is billed for, by reason.",
        ("domain", "reason"),
        "joules",
        UJ,
        note="Reasons: idle, unreserved, unallocated (MIG), overhead, unregistered, gap.",
    ),
    Metric(
        "wattribute_node_co2e_grams_total",
        "Node",
        "Greenhouse gases of the node in grams of CO2 equivalent.",
        ("term",),
        "grams",
        NG,
        note="Terms operation, cooling and hardware. Per term: grams of all jobs + unattributed = node.",
    ),
    Metric(
        "wattribute_node_unattributed_grams_total",
        "Node",
        "Grams of CO2 equivalent of the node that no job is billed for, by reason.",
        ("term", "reason"),
        "grams",
        NG,
    ),
    Metric(
        "wattribute_attribution_info",
        "Node",
        "How a domain's energy is measured and split, and the policies in force; always 1.",
        ("domain", "device", "method", "idle", "overhead"),
        note="`idle` and `overhead`: who pays them (reserved, equal, usage, unattributed).",
    ),
    Metric(
        "wattribute_idle_power_watts",
        "Node",
        "Idle power that energy is split by; absent where it isn't known yet, and then counts as 0.",
        ("domain", "device", "method"),
        "watts",
        UJ,
        note="Methods: configured (per package, node or GPU), modelled, observed, extrapolated (of the whole domain).",
    ),
    Metric(
        "wattribute_node_suspended_seconds_total",
        "Node",
        "Time since the boot that the machine spent suspended.",
        unit="seconds",
        exponent=NS,
        note="No idle power is counted for it.",
    ),
)

INTENSITY_TO_AGENT: tuple[Metric, ...] = (
    Metric(
        "wattribute_pue_ratio",
        "Carbon intensity",
        "Power usage effectiveness in force: facility energy over IT energy.",
        _GRID,
        "ratio",
        FLOAT,
    ),
    Metric(
        "wattribute_grid_intensity_grams_per_joule",
        "Carbon intensity",
        "Carbon intensity of electricity in force, grams of CO2 equivalent per joule.",
        _GRID,
        "grams_per_joule",
        FLOAT,
        note="Times 3.6e6: g/kWh.",
    ),
    Metric("wattribute_source_up", "Sources", "1 if the source could be read last time.", _SOURCE),
    Metric(
        "wattribute_source_released",
        "Sources",
        "1 while the source is let go of because somebody asked for it; it is not up then.",
        _SOURCE,
        note="`wattribute gpu release` does that to nvml.",
    ),
    Metric(
        "wattribute_source_device_up",
        "Sources",
        "1 if this device of the source could be read last time: a RAPL domain, a GPU.",
        (*_SOURCE, "device"),
        note="0 for all of them while the source is down; absent while it is released. unidentified-N: a GPU whose "
        "UUID could never be read.",
    ),
    Metric(
        "wattribute_source_read_seconds", "Sources", "How long the source's last read took.", _SOURCE, "seconds", NS
    ),
    Metric(
        "wattribute_source_last_read_timestamp_seconds",
        "Sources",
        "When the source was last read well, Unix time; absent if never.",
        _SOURCE,
        "seconds",
        NS,
    ),
    Metric(
        "wattribute_source_failures_total",
        "Sources",
        "Reads of the source that failed, by reason.",
        ("source", "reason"),
    ),
    Metric(
        "wattribute_source_gap_seconds_total",
        "Sources",
        "Time over which the source's energy is not known exactly, of all its devices together.",
        _SOURCE,
        "seconds",
        NS,
        note="A gap counts when it is over; that of `grid`, no live carbon intensity, as it passes.",
    ),
    Metric(
        "wattribute_counter_wraps_total",
        "Sources",
        "Times that a hardware counter of the source started over at the end of its range.",
        _SOURCE,
        note="Absent until there was one.",
    ),
    Metric(
        "wattribute_counter_resets_total",
        "Sources",
        "Times that a hardware counter of the source was reset (driver reload, suspend).",
        _SOURCE,
        note="Absent until there was one.",
    ),
    Metric(
        "wattribute_agent_tick_seconds", "Agent", "How long the agent's last tick took.", unit="seconds", exponent=NS
    ),
    Metric("wattribute_agent_ticks_total", "Agent", "Ticks that the agent made."),
    Metric(
        "wattribute_agent_ticks_late_total",
        "Agent",
        "Ticks that began more than 5 ms and a tenth of an interval late.",
    ),
    Metric("wattribute_agent_cpu_seconds_total", "Agent", "CPU time of the agent itself.", unit="seconds", exponent=NS),
    Metric("wattribute_agent_resident_memory_bytes", "Agent", "Resident memory of the agent.", unit="bytes"),
    Metric(
        "wattribute_agent_energy_joules_total",
        "Agent",
        "Energy of the agent itself.",
        unit="joules",
        exponent=UJ,
        note="Contained in overhead; not to be added to it.",
    ),
    Metric("wattribute_build_info", "Agent", "What runs here; always 1.", ("version", "python", "schema")),
    Metric(
        "wattribute_registry_info",
        "Agent",
        "Fingerprint of the declared products; always 1. Nodes that differ bill differently.",
        ("hash",),
    ),
    Metric(
        "wattribute_ledger_created_timestamp_seconds",
        "Agent",
        "When this node's ledger was created, Unix time: counters started at 0 then.",
        unit="seconds",
        exponent=NS,
    ),
    Metric(
        "wattribute_web_refused_total",
        "Agent",
        "Connections and requests that the web server turned away, by reason.",
        ("reason",),
        note="Reasons: auth, bad_request, busy, rate_limit, timeout, tls, too_large. The log says who was the last.",
    ),
    Metric(
        "wattribute_agent_tick_lateness_seconds",
        "Agent",
        "By how much the last 600 ticks began late.",
        ("statistic",),
        "seconds",
        NS,
        note="Statistics: p50, p95, max.",
    ),
)
