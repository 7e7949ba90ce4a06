"""What a snapshot says, family by family, in the names of the one table; the page and the bridge both render this."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from wattribute.agent.core.model import (
    CPU_NS_SLOT,
    DOMAIN_KINDS,
    ENERGY_SLOTS,
    QUALITIES,
    REASONS,
    SHARE_KINDS,
    SM_NS_SLOT,
    TERM_SLOT,
    TERMS,
    JobTotals,
    Snapshot,
    SourceHealth,
    Term,
    energy_slot,
)
from wattribute.agent.core.units import J_PER_KWH
from wattribute.exporters.batch import Batch, Labels, Number, Owner, Series, added, cleaned, rows, summed
from wattribute.exporters.families_products import OF_ENERGY, product_batches
from wattribute.exporters.metrics import METRIC, SCHEMA
from wattribute.exporters.metrics_jobs import KUBERNETES_LABELS, SLURM_LABELS
from wattribute.exporters.served import served_batches

NODE_TERMS: tuple[Term, ...] = ("operation", "cooling", "hardware")
_FIRST_TERM, _LAST_TERM = TERM_SLOT[TERMS[0]], TERM_SLOT[TERMS[-1]] + 1
_SLOT_LABELS: tuple[Labels, ...] = tuple(
    (kind, share, quality) for kind in DOMAIN_KINDS for share in SHARE_KINDS for quality in QUALITIES
)
_INFO = METRIC["wattribute_job_info"]
JOB_STATE = (
    _INFO,
    METRIC["wattribute_job_running"],
    METRIC["wattribute_job_start_time_seconds"],
    METRIC["wattribute_job_expected_nodes"],
    METRIC["wattribute_job_end_time_seconds"],
    METRIC["wattribute_job_gpu_info"],
    METRIC["wattribute_job_slurm_info"],
    METRIC["wattribute_job_kubernetes_info"],
    METRIC["wattribute_job_weight"],
)


class JobState(NamedTuple):
    """What a job is, with the labels of wattribute_job_info: the series that folded jobs don't have."""

    info: Labels
    gpus: tuple[str, ...]
    slurm: tuple[Labels, ...]
    kubernetes: tuple[Labels, ...]
    payees: tuple[str, ...]
    ended: bool

    def series(self) -> Series:
        job_id = self.info[0]
        job = [(job_id,)]
        joins = ([(job_id, *labels) for labels in rows] for rows in (self.slurm, self.kubernetes))
        gpus = [(job_id, gpu) for gpu in self.gpus]
        weights = [(job_id, payee) for payee in self.payees]
        return [self.info], job, job, job, job if self.ended else [], gpus, *joins, weights


JOB_COUNTERS = (
    METRIC["wattribute_job_cpu_seconds_total"],
    METRIC["wattribute_job_gpu_sm_seconds_total"],
    METRIC["wattribute_job_jsc_grams_total"],
    METRIC["wattribute_job_jsce_grams_total"],
    METRIC["wattribute_job_asc_grams_total"],
    METRIC["wattribute_job_asce_grams_total"],
    METRIC["wattribute_job_energy_joules_total"],
    METRIC["wattribute_job_co2e_grams_total"],
)


class JobCounters(NamedTuple):
    """What a job (id, product, role) used and costs; `slots` are the energy slots that it shows.

    Where there are none, no energy is known: neither is what it costs, nor any sum with that.
    """

    job: Labels
    slots: tuple[int, ...]

    def series(self) -> Series:
        energy = [self.job + _SLOT_LABELS[slot] for slot in self.slots]
        sums = [self.job] if self.slots else []
        terms = [(*self.job, term) for term in (TERMS if self.slots else TERMS[OF_ENERGY:])]
        return [self.job], [self.job], sums, sums, sums, sums, energy, terms


class JobBounds(NamedTuple):
    """Of which sums and ends (low, high) a job's bounds are known."""

    job_id: str
    known: tuple[tuple[str, str], ...]

    def series(self) -> Series:
        return ([(self.job_id, *key) for key in self.known],)


def batches(snapshot: Snapshot) -> Iterator[Batch]:
    """All series of a snapshot with their values; no series comes twice, whatever the ids and labels are."""
    counters: dict[Labels, Sequence[int]] = {}
    for totals in snapshot.jobs:
        job = cleaned((totals.job.id, totals.job.product_id, totals.job.role))
        before = counters.get(job)
        counters[job] = totals.values if before is None else added([before, totals.values])
    yield from _node(snapshot)
    yield _job_states(snapshot.jobs)
    yield _job_counters(snapshot, counters)
    yield _job_bounds(snapshot.bounds_ppm)
    yield from product_batches(snapshot, counters)
    yield from served_batches(snapshot.served)
    yield from _intensity(snapshot)
    yield from _sources(snapshot.sources)
    yield from _agent(snapshot)


def _node(snapshot: Snapshot) -> Iterator[Batch]:
    # psys holds package and DRAM once more: it is never among what is summed.
    energy_uj = summed((key, uj) for key, uj in snapshot.node_energy_uj.items() if key[0] in DOMAIN_KINDS)
    kinds = {labels[0] for labels in energy_uj}
    reasons = [reason for reason in REASONS if reason != "unallocated" or "gpu" in kinds]
    unattributed_uj: dict[Labels, int] = {
        (kind, reason): 0 for kind in sorted(kinds) for reason in reasons if reason != "unallocated" or kind == "gpu"
    }
    unattributed_uj |= summed((key, uj) for key, uj in snapshot.unattributed_uj.items() if key[0] in DOMAIN_KINDS)
    terms = NODE_TERMS if kinds else NODE_TERMS[OF_ENERGY:]  # without any energy known its cost isn't 0
    co2e_ng: dict[Labels, int] = {(term,): 0 for term in terms}
    co2e_ng |= summed(((term,), ng) for term, ng in snapshot.node_co2e_ng.items() if term in terms)
    unattributed_ng: dict[Labels, int] = {(term, reason): 0 for term in terms for reason in reasons}
    unattributed_ng |= summed((key, ng) for key, ng in snapshot.unattributed_ng.items() if key[0] in terms)
    yield rows("wattribute_node_energy_joules_total", energy_uj)
    yield rows("wattribute_node_unattributed_joules_total", unattributed_uj)
    yield rows("wattribute_node_co2e_grams_total", co2e_ng)
    yield rows("wattribute_node_unattributed_grams_total", unattributed_ng)
    policy = snapshot.policy.get("idle", ""), snapshot.policy.get("overhead", "")
    how = {cleaned((*domain, method, *policy)): 1 for domain, method in snapshot.attribution.items()}
    yield rows("wattribute_attribution_info", how)
    yield rows("wattribute_idle_power_watts", {cleaned(key): uw for key, uw in snapshot.idle_uw.items()})
    yield rows("wattribute_node_suspended_seconds_total", {(): snapshot.suspended_ns})


def _job_states(jobs: Sequence[JobTotals]) -> Batch:
    states: dict[str, JobState] = {}
    running: list[int] = []
    started_ns: list[int] = []
    nodes: list[int] = []
    ended_ns: list[int] = []
    weights_ppm: list[int] = []
    for totals in jobs:
        if not totals.info:
            continue
        job = totals.job
        info = cleaned((job.id, job.product_id, job.role, job.phase, job.user, job.origin, job.parent_job_id or ""))
        if info[0] in states:  # of two with one id the first is shown
            continue
        states[info[0]] = JobState(
            info,
            tuple(dict.fromkeys(cleaned(totals.gpus))),
            _joins(totals.slurm, SLURM_LABELS),
            _joins(totals.kubernetes, KUBERNETES_LABELS),
            payees := tuple(dict.fromkeys(cleaned(totals.payees))) if totals.payees else (),
            job.ended_unix_ns is not None,
        )
        running.append(int(totals.running))
        started_ns.append(job.started_unix_ns)
        nodes.append(job.nodes)
        weights_ppm += [job.weight_ppm] * len(payees)
        if job.ended_unix_ns is not None:
            ended_ns.append(job.ended_unix_ns)
    owners = list(states.values())
    gpus, slurm, kubernetes = (
        (
            [1] * sum(map(len, rows))
            for rows in zip(*[(state.gpus, state.slurm, state.kubernetes) for state in owners], strict=True)
        )
        if owners
        else ([], [], [])
    )
    ones = [1] * len(owners)
    columns = (ones, running, started_ns, nodes, ended_ns, gpus, slurm, kubernetes, weights_ppm)
    return Batch(JOB_STATE, owners, columns)


def _joins(rows: Sequence[Mapping[str, str]], names: Labels) -> tuple[Labels, ...]:
    """The label values of each series that joins a job to those of others, each once."""
    return tuple(dict.fromkeys([cleaned(tuple([row.get(name, "") for name in names])) for row in rows]))


def _job_counters(snapshot: Snapshot, counters: Mapping[Labels, Sequence[int]]) -> Batch:
    pairs = {(kind, quality) for kind, _, quality in snapshot.node_energy_uj if kind in DOMAIN_KINDS}
    usual = tuple(sorted(energy_slot(kind, share, quality) for kind, quality in pairs for share in SHARE_KINDS))
    owners: list[Owner] = []
    columns: list[list[int]] = [[] for _ in JOB_COUNTERS]
    cpu_ns, sm_ns, jsc_ng, jsce_ng, asc_ng, asce_ng, energy_uj, terms_ng = columns
    for job, values in counters.items():
        slots = usual
        shown_uj = [values[slot] for slot in slots]
        if sum(shown_uj) != sum(values[:ENERGY_SLOTS]):
            # The job holds joules of a quality that the node no longer has: they stay, flat.
            slots = tuple([slot for slot in range(ENERGY_SLOTS) if slot in usual or values[slot]])
            shown_uj = [values[slot] for slot in slots]
        owners.append(JobCounters(job, slots))
        terms = values[_FIRST_TERM:_LAST_TERM]
        operation, cooling, platform, retraining, hardware, overhead_hardware, product = terms
        jsc = operation + cooling
        jsce = jsc + platform + retraining
        cpu_ns.append(values[CPU_NS_SLOT])
        sm_ns.append(values[SM_NS_SLOT])
        if not slots:
            terms_ng += terms[OF_ENERGY:]
            continue
        jsc_ng.append(jsc)
        jsce_ng.append(jsce)
        asc_ng.append(jsc + hardware)
        asce_ng.append(jsce + hardware + overhead_hardware + product)
        energy_uj += shown_uj
        terms_ng += terms
    return Batch(JOB_COUNTERS, owners, columns)


def _job_bounds(bounds_ppm: Mapping[str, Mapping[tuple[str, str], int]]) -> Batch:
    found = {JobBounds(cleaned((job_id,))[0], tuple(ratios)): ratios for job_id, ratios in bounds_ppm.items()}
    column = [ppm for ratios in found.values() for ppm in ratios.values()]
    return Batch((METRIC["wattribute_job_bound_ratio"],), list(found), [column])


def _intensity(snapshot: Snapshot) -> Iterator[Batch]:
    intensity = snapshot.intensity
    labels = cleaned((intensity.zone, intensity.provider, intensity.method))
    for name, value in (
        ("wattribute_pue_ratio", snapshot.pue),
        ("wattribute_grid_intensity_grams_per_joule", intensity.gco2e_per_kwh / J_PER_KWH),
    ):
        if math.isfinite(value):
            yield rows(name, {labels: value})


def _sources(sources: Sequence[SourceHealth]) -> Iterator[Batch]:
    health: dict[Labels, SourceHealth] = {}
    for source in sources:
        health.setdefault(cleaned((source.name,)), source)
    yield rows("wattribute_source_up", {name: int(source.up) for name, source in health.items()})
    yield rows("wattribute_source_released", {name: int(source.released) for name, source in health.items()})
    devices = {
        cleaned((*name, device)): read for name, source in health.items() for device, read in source.devices.items()
    }
    yield rows("wattribute_source_device_up", {labels: int(read) for labels, read in devices.items()})
    yield rows("wattribute_source_read_seconds", {name: source.read_ns for name, source in health.items()})
    read_at = {name: source.last_read_unix_ns for name, source in health.items()}
    yield rows(
        "wattribute_source_last_read_timestamp_seconds", {name: at for name, at in read_at.items() if at is not None}
    )
    yield rows(
        "wattribute_source_failures_total",
        summed(((*name, why), n) for name, source in health.items() for why, n in source.failures.items()),
    )
    yield rows("wattribute_source_gap_seconds_total", {name: source.gap_ns for name, source in health.items()})
    # promtool takes `counter` in a name for its type and complains: a page without wraps and resets is clean.
    wraps = {name: source.wraps for name, source in health.items() if source.wraps}
    resets = {name: source.resets for name, source in health.items() if source.resets}
    yield rows("wattribute_counter_wraps_total", wraps)
    yield rows("wattribute_counter_resets_total", resets)


def _agent(snapshot: Snapshot) -> Iterator[Batch]:
    python = ".".join(map(str, sys.version_info[:3]))
    for name, labels, value in (
        ("wattribute_agent_tick_seconds", (), snapshot.agent_tick_ns),
        ("wattribute_agent_ticks_total", (), snapshot.agent_ticks),
        ("wattribute_agent_ticks_late_total", (), snapshot.agent_ticks_late),
        ("wattribute_agent_cpu_seconds_total", (), snapshot.agent_cpu_ns),
        ("wattribute_agent_resident_memory_bytes", (), snapshot.agent_resident_bytes),
        ("wattribute_agent_energy_joules_total", (), snapshot.agent_energy_uj),
        ("wattribute_build_info", cleaned((snapshot.version, python, SCHEMA)), 1),
        ("wattribute_registry_info", cleaned((snapshot.registry_hash,)), 1),
        ("wattribute_ledger_created_timestamp_seconds", (), snapshot.ledger_created_unix_ns),
    ):
        yield rows(name, {labels: value})
    yield rows("wattribute_web_refused_total", {(reason,): count for reason, count in snapshot.web_refused.items()})
    late_ns = sorted(snapshot.agent_late_ns)
    if late_ns:
        last = len(late_ns) - 1
        statistics: dict[Labels, Number] = {
            ("p50",): late_ns[last // 2],
            ("p95",): late_ns[last * 19 // 20],
            ("max",): late_ns[-1],
        }
        yield rows("wattribute_agent_tick_lateness_seconds", statistics)
