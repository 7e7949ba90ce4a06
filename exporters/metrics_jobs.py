"""Metrics of jobs: what each is, used and costs."""

from wattribute.exporters.metric import MICRO_UNITS, NG, NS, UJ, Metric

_ID = ("job_id",)
_JOB = ("job_id", "product_id", "role")

SLURM_LABELS = ("slurm_cluster", "slurm_job_id", "array_task_id", "partition", "account")
KUBERNETES_LABELS = ("pod_uid", "pod_namespace", "pod_name", "container_name", "owner_kind", "owner_name")

JOBS: tuple[Metric, ...] = (
    Metric(
        "wattribute_job_info",
        "Jobs",
        "What a job is; always 1. Join on job_id.",
        ("job_id", "product_id", "role", "phase", "user", "origin", "parent_job_id"),
        note="Never changes during a job. Folded jobs (_retired, _overflow) have none.",
    ),
    Metric("wattribute_job_running", "Jobs", "1 while the job runs, then 0.", _ID),
    Metric("wattribute_job_start_time_seconds", "Jobs", "When the job started, Unix time.", _ID, "seconds", NS),
    Metric("wattribute_job_expected_nodes", "Jobs", "On how many nodes the job says it runs.", _ID),
    Metric(
        "wattribute_job_end_time_seconds",
        "Jobs",
        "When the job ended, Unix time; absent while it runs.",
        _ID,
        "seconds",
        NS,
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
    Metric(
        "wattribute_job_weight",
        "Jobs",
        "Tax weight with which the job uses a product, whose taxes it pays by it; absent once it has ended.",
        ("job_id", "product_id"),
        exponent=MICRO_UNITS,
        note="Of declared products, also those that others run on. A job on N nodes weighs an Nth on each.",
    ),
    Metric("wattribute_job_cpu_seconds_total", "Jobs", "CPU time of the job.", _JOB, "seconds", NS),
    Metric(
        "wattribute_job_gpu_sm_seconds_total",
        "Jobs",
        "Time that the job kept GPU multiprocessors busy, summed over GPUs.",
        _JOB,
        "seconds",
        NS,
    ),
    Metric(
        "wattribute_job_jsc_grams_total",
        "Jobs",
        "JSC of the job, grams of CO2 equivalent: operation + cooling.",
        _JOB,
        "grams",
        NG,
    ),
    Metric(
        "wattribute_job_jsce_grams_total",
        "Jobs",
        "JSC^e of the job, grams of CO2 equivalent: JSC + platform + retraining.",
        _JOB,
        "grams",
        NG,
    ),
    Metric(
        "wattribute_job_asc_grams_total",
        "Jobs",
        "ASC of the job, grams of CO2 equivalent: JSC + hardware.",
        _JOB,
        "grams",
        NG,
    ),
    Metric(
        "wattribute_job_asce_grams_total",
        "Jobs",
        "ASC^e of the job, grams of CO2 equivalent: JSC^e + hardware + overhead_hardware + product.",
        _JOB,
        "grams",
        NG,
        note="A price, not an inventory: see below.",
    ),
    Metric(
        "wattribute_job_energy_joules_total",
        "Jobs",
        "Energy billed to the job: its own (direct) and its part of idle and overhead.",
        (*_JOB, "domain", "share", "quality"),
        "joules",
        UJ,
        note="Each quality is its own accumulator: when it changes, the old series stays, flat.",
    ),
    Metric(
        "wattribute_job_co2e_grams_total",
        "Jobs",
        "Grams of CO2 equivalent billed to the job, by term.",
        (*_JOB, "term"),
        "grams",
        NG,
        note="Terms: operation, cooling, platform, retraining, hardware, overhead_hardware, product.",
    ),
    Metric(
        "wattribute_job_bound_ratio",
        "Jobs",
        "How far off the job's JSC^e or ASC^e may be: its lower or upper bound over the figure itself.",
        ("job_id", "sum", "end"),
        "ratio",
        MICRO_UNITS,
        note="`sum`: jsce, asce; `end`: low, high. Worst case, worked out once a minute; absent where no bound is "
        "known (a missing EPC leaves ASC^e without one), and with export.export_age_s or export.round_j.",
    ),
)
