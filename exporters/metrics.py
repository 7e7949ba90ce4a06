"""The one table of metric names: what each is called, counts, and is labelled with.

Pages, the bridge and `docs/metrics.md` are made from it: `python -m wattribute.exporters.metrics > docs/metrics.md`.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

SCHEMA = "1"
"""Version of this table, shown in wattribute_build_info; it goes up when a name, a label or a meaning changes."""

MetricType: TypeAlias = Literal["counter", "gauge"]
Section: TypeAlias = Literal["Node", "Jobs", "Products", "Carbon intensity", "Sources", "Agent"]


_ID = ("job_id",)
_JOB = ("job_id", "product_id", "role")
_PRODUCT = ("product_id",)
_PAYEE = ("product_id", "term")
_GRID = ("grid_zone", "provider", "method")
_SOURCE = ("source",)

SLURM_LABELS = ("slurm_cluster", "slurm_job_id", "array_task_id", "partition", "account")
KUBERNETES_LABELS = ("pod_uid", "pod_namespace", "pod_name", "container_name", "owner_kind", "owner_name")

_UJ, _NG, _NS = -6, -9, -9
_WEIGHTED_NS = -15  # weight in millionths times nanoseconds
_FLOAT = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. Values are integers times 10**`exponent`; an exponent of None marks a float."""

    name: str
    section: Section
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    exponent: int | None = 0
    note: str = ""

    @property
    def type(self) -> MetricType:
        """Counters are what ends in `_total`, as promtool wants it."""
        return "counter" if self.name.endswith("_total") else "gauge"

    @property
    def family(self) -> str:
        """The name as OpenMetrics has it in TYPE and HELP: a counter's without `_total`."""
        return self.name.removesuffix("_total")


METRICS: tuple[Metric, ...] = (
    Metric(
        "wattribute_node_energy_joules_total",
        "Node",
        "Energy that the node used, by what measured it.",
        ("domain", "device", "quality"),
        "joules",
        _UJ,
        note="Accumulated from counter deltas alone. Per domain: joules of all jobs + unattributed = node.",
    ),
    Metric(
        "wattribute_node_unattributed_joules_total",
        "Node",
        "Energy of the node that no job is billed for, by reason.",
        ("domain", "reason"),
        "joules",
        _UJ,
        note="Reasons: idle, unreserved, unallocated (MIG), overhead, unregistered, gap.",
    ),
    Metric(
        "wattribute_node_co2e_grams_total",
        "Node",
        "Greenhouse gases of the node in grams of CO2 equivalent.",
        ("term",),
        "grams",
        _NG,
        note="Terms operation, cooling and hardware. Per term: grams of all jobs + unattributed = node.",
    ),
    Metric(
        "wattribute_node_unattributed_grams_total",
        "Node",
        "Grams of CO2 equivalent of the node that no job is billed for, by reason.",
        ("term", "reason"),
        "grams",
        _NG,
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
        _UJ,
        note="Methods: configured (per package, node or GPU), modelled, observed, extrapolated (of the whole domain).",
    ),
    Metric(
        "wattribute_node_suspended_seconds_total",
        "Node",
        "Time since the boot that the machine spent suspended.",
        unit="seconds",
        exponent=_NS,
        note="No idle power is counted for it.",
    ),
    Metric(
        "wattribute_job_info",
        "Jobs",
        "What a job is; always 1. Join on job_id.",
        ("job_id", "product_id", "role", "phase", "user", "origin", "parent_job_id"),
        note="Never changes during a job. Folded jobs (_retired, _overflow) have none.",
    ),
    Metric("wattribute_job_running", "Jobs", "1 while the job runs, then 0.", _ID),
    Metric("wattribute_job_start_time_seconds", "Jobs", "When the job started, Unix time.", _ID, "seconds", _NS),
    Metric("wattribute_job_expected_nodes", "Jobs", "On how many nodes the job says it runs.", _ID),
    Metric(
        "wattribute_job_end_time_seconds",
        "Jobs",
        "When the job ended, Unix time; absent while it runs.",
        _ID,
        "seconds",
        _NS,
    ),
    Metric(
        "wattribute_job_gpu_info",
        "Jobs",
        "A GPU that the job held; always 1.",
        ("job_id", "gpu_uuid"),
        note="To join with dcgm-exporter.",
    ),
    Metric(
        "wattribute_job_slurm_info",
        "Jobs",
        "The Slurm job that the job is; always 1.",
        ("job_id", *SLURM_LABELS),
        note="To join with sacct and Slurm exporters.",
    ),
    Metric(
        "wattribute_job_kubernetes_info",
        "Jobs",
        "A container of the job's pods; always 1.",
        ("job_id", *KUBERNETES_LABELS),
        note="To join with kube-state-metrics.",
    ),
    Metric("wattribute_job_cpu_seconds_total", "Jobs", "CPU time of the job.", _JOB, "seconds", _NS),
    Metric(
        "wattribute_job_gpu_sm_seconds_total",
        "Jobs",
        "Time that the job kept GPU multiprocessors busy, summed over GPUs.",
        _JOB,
        "seconds",
        _NS,
    ),
    Metric(
        "wattribute_job_jsc_grams_total",
        "Jobs",
        "JSC of the job, grams of CO2 equivalent: operation + cooling.",
        _JOB,
        "grams",
        _NG,
    ),
    Metric(
        "wattribute_job_jsce_grams_total",
        "Jobs",
        "JSC^e of the job, grams of CO2 equivalent: JSC + platform + retraining.",
        _JOB,
        "grams",
        _NG,
    ),
    Metric(
        "wattribute_job_asc_grams_total",
        "Jobs",
        "ASC of the job, grams of CO2 equivalent: JSC + hardware.",
        _JOB,
        "grams",
        _NG,
    ),
    Metric(
        "wattribute_job_asce_grams_total",
        "Jobs",
        "ASC^e of the job, grams of CO2 equivalent: JSC^e + hardware + overhead_hardware + product.",
        _JOB,
        "grams",
        _NG,
        note="A price, not an inventory: see below.",
    ),
    Metric(
        "wattribute_job_energy_joules_total",
        "Jobs",
        "Energy billed to the job: its own (direct) and its part of idle and overhead.",
        (*_JOB, "domain", "share", "quality"),
        "joules",
        _UJ,
        note="Each quality is its own accumulator: when it changes, the old series stays, flat.",
    ),
    Metric(
        "wattribute_job_co2e_grams_total",
        "Jobs",
        "Grams of CO2 equivalent billed to the job, by term.",
        (*_JOB, "term"),
        "grams",
        _NG,
        note="Terms: operation, cooling, platform, retraining, hardware, overhead_hardware, product.",
    ),
    Metric(
        "wattribute_product_info",
        "Products",
        "A product, declared or merely named by a job (kind undeclared); always 1.",
        ("product_id", "kind"),
    ),
    Metric("wattribute_product_running_jobs", "Products", "Jobs of the product that run now.", _PRODUCT),
    Metric("wattribute_product_jobs_total", "Products", "Jobs of the product that were registered.", _PRODUCT),
    Metric(
        "wattribute_product_weight_seconds_total",
        "Products",
        "Tax weight times time of the jobs that use the product.",
        _PRODUCT,
        "seconds",
        _WEIGHTED_NS,
    ),
    Metric(
        "wattribute_product_overhead_grams_total",
        "Products",
        "Grams of CO2 equivalent to be taxed on behalf of the product, the payee.",
        _PAYEE,
        "grams",
        _NG,
        note="billed + untaxed. Only declared products are payees.",
    ),
    Metric(
        "wattribute_product_billed_grams_total",
        "Products",
        "The part of the product's overhead that jobs were billed for.",
        _PAYEE,
        "grams",
        _NG,
    ),
    Metric(
        "wattribute_product_untaxed_grams_total",
        "Products",
        "The part of the product's overhead that nobody was there to pay for.",
        _PAYEE,
        "grams",
        _NG,
    ),
    Metric(
        "wattribute_product_epc_grams",
        "Products",
        "Embodied product cost in grams of CO2 equivalent, by where it comes from.",
        ("product_id", "part"),
        "grams",
        _NG,
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
        _UJ,
        note="The sum over its jobs' wattribute_job_energy_joules_total.",
    ),
    Metric(
        "wattribute_product_co2e_grams_total",
        "Products",
        "Grams of CO2 equivalent of the product's jobs, ended ones included.",
        ("product_id", "role", "term"),
        "grams",
        _NG,
        note="The sum over its jobs' wattribute_job_co2e_grams_total.",
    ),
    Metric(
        "wattribute_product_correction_grams",
        "Products",
        "What turned out otherwise than it was booked, later, in grams of CO2 equivalent; may be negative.",
        _PAYEE,
        "grams",
        _NG,
        note="Series keep what was first booked; receipts and the ledger have the truth. An empty product_id is what "
        "nobody paid.",
    ),
    Metric(
        "wattribute_pue_ratio",
        "Carbon intensity",
        "Power usage effectiveness in force: facility energy over IT energy.",
        _GRID,
        "ratio",
        _FLOAT,
    ),
    Metric(
        "wattribute_grid_intensity_grams_per_joule",
        "Carbon intensity",
        "Carbon intensity of electricity in force, grams of CO2 equivalent per joule.",
        _GRID,
        "grams_per_joule",
        _FLOAT,
        note="Times 3.6e6: g/kWh.",
    ),
    Metric("wattribute_source_up", "Sources", "1 if the source could be read last time.", _SOURCE),
    Metric(
        "wattribute_source_read_seconds", "Sources", "How long the source's last read took.", _SOURCE, "seconds", _NS
    ),
    Metric(
        "wattribute_source_last_read_timestamp_seconds",
        "Sources",
        "When the source was last read well, Unix time; absent if never.",
        _SOURCE,
        "seconds",
        _NS,
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
        "Time over which the source's energy is not known exactly.",
        _SOURCE,
        "seconds",
        _NS,
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
        "wattribute_agent_tick_seconds", "Agent", "How long the agent's last tick took.", unit="seconds", exponent=_NS
    ),
    Metric("wattribute_agent_ticks_total", "Agent", "Ticks that the agent made."),
    Metric(
        "wattribute_agent_ticks_late_total",
        "Agent",
        "Ticks that began more than 5 ms and a tenth of an interval late.",
    ),
    Metric(
        "wattribute_agent_cpu_seconds_total", "Agent", "CPU time of the agent itself.", unit="seconds", exponent=_NS
    ),
    Metric("wattribute_agent_resident_memory_bytes", "Agent", "Resident memory of the agent.", unit="bytes"),
    Metric(
        "wattribute_agent_energy_joules_total",
        "Agent",
        "Energy of the agent itself.",
        unit="joules",
        exponent=_UJ,
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
        exponent=_NS,
    ),
    Metric(
        "wattribute_agent_tick_lateness_seconds",
        "Agent",
        "By how much the last 600 ticks began late.",
        ("statistic",),
        "seconds",
        _NS,
        note="Statistics: p50, p95, max.",
    ),
)

METRIC: dict[str, Metric] = {metric.name: metric for metric in METRICS}

_INTRODUCTION = """\
# Metrics

<!-- Generated: python -m wattribute.exporters.metrics > docs/metrics.md -->

What `/metrics` shows, in the text format 0.0.4 and in OpenMetrics 1.0 by content negotiation. Base units: joules,
grams of CO2 equivalent, seconds, ratios 0..1. Counters start at 0 when a job registers, never fall, survive restarts
and stay for `hold_s` after the job's end; then their values move, in the same snapshot, to `job_id="_retired"`. Jobs
registered past `max_jobs` are in `job_id="_overflow"` from the start. Leave both out of job panels with
`job_id!~"_.*"` and in for sums.

Joules, grams and seconds are printed as exact integers with an exponent (`1234567e-6` is 1.234567 J): no digit is
lost to floating point before the reader's own arithmetic.
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
- per job: operation + cooling = JSC; + platform + retraining = JSC^e; JSC + hardware = ASC;
  JSC^e + hardware + overhead_hardware + product = ASC^e.

ASC^e is a price, not an inventory. An organisation's total is operation + cooling + hardware of jobs of all roles
plus the unattributed grams (and the declared overhead of machines that no agent meters); platform, retraining,
overhead_hardware and product only redistribute what is already in it.
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
    yield "\n" + _IDENTITIES.rstrip()


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in reference())
