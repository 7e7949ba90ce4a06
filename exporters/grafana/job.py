"""The dashboard of a job, over all its nodes: what it used, what it costs up to ASC^e, and what to join it with."""

from typing import Any

from wattribute.agent.core.model import TERMS
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
    listing,
    made,
)
from wattribute.exporters.grafana.promql import JOB, PRICE, TWICE, now, rate, seen, series, total

ENERGY = "wattribute_job_energy_joules_total"
GRAMS = "wattribute_job_co2e_grams_total"
COSTS = (("jsc", "JSC"), ("jsce", "JSC^e"), ("asc", "ASC"), ("asce", "ASC^e"))
ALL = "Of the chosen jobs together."
LAST = "As it stood last in the time shown, over all nodes. Choose a time that the job ran in, or its last minutes."


def dashboard() -> dict[str, Any]:
    """The dashboard `wattribute-job`."""
    return made(
        "job",
        "What a job used and costs, over all nodes that it runs on.",
        [Variable("job_id", "Job", "wattribute_job_info", "job_id")],
        [
            Row("What it costs", _costs()),
            Row("Energy", _energy()),
            Row("Work and nodes", _work()),
            Row("What it is, and what to join it with", _joins()),
        ],
    )


def _costs() -> list[Panel]:
    def stat(title: str, says: str, name: str) -> Panel:
        return figure(title, f"{says} {ALL} {LAST}", "massg", Query(total(name, JOB)))

    def each(cost: str) -> str:
        return total(f"wattribute_job_{cost}_grams_total", JOB, by="job_id")

    return [
        figure(
            "Energy",
            f"Own energy and the job's part of idle and overhead. {ALL} {LAST}",
            "joule",
            Query(total(ENERGY, JOB)),
        ),
        figure("Power", f"What the job is billed for now. {ALL}", "watt", Query(rate(ENERGY, JOB))),
        stat("JSC", "Job Sustainability Cost: operation + cooling.", "wattribute_job_jsc_grams_total"),
        stat("JSC^e", f"JSC + platform + retraining. {TWICE}", "wattribute_job_jsce_grams_total"),
        stat("ASC", "JSC + hardware.", "wattribute_job_asc_grams_total"),
        stat(
            "ASC^e",
            f"JSC^e + hardware + overhead_hardware + product. {TWICE} {PRICE}",
            "wattribute_job_asce_grams_total",
        ),
        listing(
            "Each job",
            f"The same of each chosen job. {LAST} {PRICE}",
            Column(total(ENERGY, JOB, by="job_id"), "energy", "joule"),
            Column(rate(ENERGY, JOB, by="job_id"), "power", "watt"),
            *[Column(each(cost), name, "massg") for cost, name in COSTS],
            width=24,
            height=6,
            sort="energy",
            opens={"job_id": "job"},
        ),
        graph(
            "The seven terms of ASC^e",
            "How they grew: operation + cooling = JSC; + platform + retraining = JSC^e; then the rest of ASC^e. "
            f"{ALL} {PRICE}",
            "massg",
            *[Query(now(GRAMS, JOB, f'term="{term}"'), term) for term in TERMS],
            width=16,
            stacked=True,
        ),
        listing(
            "Terms",
            f"Grams of CO2 equivalent by term. {LAST}",
            Column(total(GRAMS, JOB, by="job_id, term"), "grams", "massg"),
            width=8,
            sort="grams",
        ),
        listing(
            "Bounds",
            "Between which figures JSC^e and ASC^e lie, at worst. Absent while a node's bound isn't known (ASC^e: a "
            "product's embodied cost is missing). `wattribute receipt JOB` has every term's, and what was modelled. "
            f"{PRICE} {LAST}",
            Column(_bound("jsce", "low"), "JSC^e at least", "massg"),
            Column(_bound("jsce", "high"), "JSC^e at most", "massg"),
            Column(_bound("asce", "low"), "ASC^e at least", "massg"),
            Column(_bound("asce", "high"), "ASC^e at most", "massg"),
            width=24,
            height=6,
            opens={"job_id": "job"},
        ),
    ]


def _bound(name: str, end: str) -> str:
    """Worst cases add up over nodes; where one of them is missing, the sum would be no bound."""
    grams = f"max_over_time({series(f'wattribute_job_{name}_grams_total', JOB)}[$__range])"
    ratio = series("wattribute_job_bound_ratio", JOB, f'sum="{name}"', f'end="{end}"')
    told = f"{grams} * on (job, instance, job_id) group_left () last_over_time({ratio}[$__range])"
    whole = f"count by (job_id) ({told}) == count by (job_id) ({grams} > 0)"
    return f"sum by (job_id) ({told}) and on (job_id) ({whole})"


def _energy() -> list[Panel]:
    return [
        graph(
            "Power by domain",
            "What the job is billed for, by what was measured.",
            "watt",
            Query(rate(ENERGY, JOB, by="job_id, domain"), "{{job_id}} {{domain}}"),
            stacked=True,
        ),
        graph(
            "Power by share",
            "The job's own (direct), and its part of idle and overhead.",
            "watt",
            Query(rate(ENERGY, JOB, by="job_id, share"), "{{job_id}} {{share}}"),
            stacked=True,
        ),
        listing(
            "Energy by domain and share",
            LAST,
            Column(total(ENERGY, JOB, by="job_id, domain, share"), "energy", "joule"),
            sort="energy",
        ),
        listing(
            "Energy by quality",
            f"How well it is known: measured, integrated (from power samples) or modelled (without a sensor). {LAST}",
            Column(total(ENERGY, JOB, by="job_id, domain, quality"), "energy", "joule"),
            sort="energy",
        ),
    ]


def _work() -> list[Panel]:
    cpu, sm = "wattribute_job_cpu_seconds_total", "wattribute_job_gpu_sm_seconds_total"
    reporting = f"count by (job_id) ({seen('wattribute_job_info', JOB, by='job_id, instance')})"
    started = series("wattribute_job_start_time_seconds", JOB)
    expected = seen("wattribute_job_expected_nodes", JOB, by="job_id")
    running = now("wattribute_job_running", JOB, by="job_id")
    return [
        figure("CPU time", f"{ALL} {LAST}", "s", Query(total(cpu, JOB)), width=6),
        figure(
            "GPU SM time",
            f"Time that the job kept GPU multiprocessors busy, over all GPUs. {ALL} {LAST}",
            "s",
            Query(total(sm, JOB)),
            width=6,
        ),
        figure(
            "Complete?",
            "Whether all nodes of all chosen jobs have reported. While some are missing every total here is too small.",
            "none",
            Query(f"min({reporting} >= bool {expected})"),
            steps=((None, BAD), (1, GOOD)),
            words={"0": "nodes are missing", "1": "complete"},
            width=12,
        ),
        listing(
            "Start, end, nodes",
            "When the job began and ended, over its nodes; how many nodes reported in the time shown, on how many it "
            "says it runs, and on how many it runs now. No end: it runs, or ended out of the time shown.",
            Column(
                f"1000 * min by (job_id) (last_over_time({started}[$__range]))",
                "started",
                "dateTimeAsIso",
            ),
            Column(
                # On some nodes a job may be over while it runs on others.
                f"1000 * {seen('wattribute_job_end_time_seconds', JOB, by='job_id')} unless on (job_id) {running} > 0",
                "ended",
                "dateTimeAsIso",
            ),
            Column(reporting, "nodes that reported"),
            Column(expected, "nodes expected"),
            Column(running, "nodes it runs on now"),
            width=24,
            height=6,
            opens={"job_id": "job"},
        ),
        graph(
            "Cores and GPUs kept busy",
            "CPU seconds and GPU SM seconds a second: how many cores, and how many GPUs' multiprocessors, worth.",
            "none",
            Query(rate(cpu, JOB, by="job_id"), "{{job_id}} cores"),
            Query(rate(sm, JOB, by="job_id"), "{{job_id}} GPU SMs"),
        ),
        listing(
            "Nodes",
            f"What the job used on each of its nodes, and its JSC there. {LAST}",
            Column(total(ENERGY, JOB, by="job_id, instance"), "energy", "joule"),
            Column(total("wattribute_job_jsc_grams_total", JOB, by="job_id, instance"), "JSC", "massg"),
            sort="energy",
            opens={"instance": "node"},
        ),
    ]


def _joins() -> list[Panel]:
    info = "job_id, product_id, role, phase, user, origin, parent_job_id"
    return [
        listing(
            "The job",
            "What it is, as it was registered.",
            Column(seen("wattribute_job_info", JOB, by=info)),
            width=24,
            height=5,
            opens={"product_id": "product"},
        ),
        listing(
            "Whose taxes it pays",
            "The products that the job uses, with the weight that it pays their taxes by, over its nodes.",
            Column(
                f"sum by (job_id, product_id) (last_over_time({series('wattribute_job_weight', JOB)}[$__range]))",
                "weight",
            ),
            sort="weight",
            opens={"product_id": "product"},
            empty="no declared product",
        ),
        listing(
            "GPUs",
            "GPUs that the job held. gpu_uuid is what dcgm-exporter calls UUID: join its series on it.",
            Column(seen("wattribute_job_gpu_info", JOB, by="job_id, instance, gpu_uuid")),
            wide={"gpu_uuid": 380},
            empty="none",
        ),
        listing(
            "Slurm",
            "The Slurm job that it is: join sacct and Slurm exporters on slurm_job_id and slurm_cluster.",
            Column(
                seen(
                    "wattribute_job_slurm_info",
                    JOB,
                    by="job_id, slurm_cluster, slurm_job_id, array_task_id, partition, account",
                )
            ),
            width=24,
            height=5,
            empty="none",
        ),
        listing(
            "Kubernetes",
            "Containers of the job's pods: join kube-state-metrics on pod_uid (its uid).",
            Column(
                seen(
                    "wattribute_job_kubernetes_info",
                    JOB,
                    by="job_id, pod_namespace, pod_name, container_name, owner_kind, owner_name, pod_uid",
                )
            ),
            width=24,
            height=5,
            empty="none",
        ),
    ]
