"""Slurm's jobs as the ledgers and the agent know them: one value per job, whoever told it.

Microjoules and grams CO2e. `slurm_job_id` is sacct's JobIDRaw; an array's task and a part of a heterogeneous job have
one of their own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from wattribute.agent.client import AgentRefused, Client
from wattribute.agent.core.accounting import sums_ng
from wattribute.agent.core.model import ENERGY_SLOTS, TERM_SLOT, TERMS, Job, Term
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.units import NS_PER_S, g_of

if TYPE_CHECKING:
    from wattribute.agent.archive import Archive
    from wattribute.agent.ledger.opening import SavedJob


NAMES_MAX = 100  # a database looks for; of more, all are read


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """What a job of Slurm's used and cost. `nodes` have told of it, of the `expected_nodes` that it has.

    `user` is "" where who told it doesn't say. Energy is None where nothing could be measured, grams where a receipt
    has none.
    """

    job_id: str
    slurm_job_id: str
    cluster: str = ""
    user: str = ""
    account: str = ""
    partition: str = ""
    nodes: int = 1
    expected_nodes: int = 1
    started_unix_ns: int = 0
    ended_unix_ns: int | None = None
    energy_uj: int | None = None
    jsce_gco2e: float | None = None
    asce_gco2e: float | None = None
    basis: str = "daemon"

    @property
    def shown_id(self) -> str:
        """As sacct has it: `42`, of an array `40_7`."""
        return self.job_id.removeprefix(f"{self.cluster or 'slurm'}-")

    def is_named(self, name: str) -> bool:
        """Whether somebody means it by a number, an array's id, or its id here."""
        return name in (self.slurm_job_id, self.shown_id, self.job_id) or self.shown_id.startswith(f"{name}_")

    def elapsed_s(self, now_unix_ns: int) -> float:
        """From its start to its end, or until now."""
        return max(0, (self.ended_unix_ns or now_unix_ns) - self.started_unix_ns) / NS_PER_S


def of_archive(
    archive: "Archive", *, since_unix_ns: int | None = None, names: Sequence[str] = ()
) -> Iterator[SlurmJob]:
    """Those of all nodes, by id, with what nodes have closed by now; those of which there is news since then.

    With some names: those that `is_named`, and maybe others. Raises LedgerError.
    """
    looked_for = names if len(names) <= NAMES_MAX else ()
    for record in archive.jobs(since_unix_ns=since_unix_ns, words=looked_for):
        if "slurm_job_id" in record.slurm:
            yield _of_record(record)


def of_ledger(state_dir: Path) -> Iterator[SlurmJob]:
    """Those of this node, as they were at the agent's last commit, one by one. Raises LedgerError."""
    from wattribute.agent.ledger.reader import read_only

    with read_only(state_dir) as ledger:
        for saved in ledger.described_by('"slurm_job_id"'):
            job = Job(**saved.meta["job"])
            if "slurm_job_id" in job.labels:
                yield _of_saved(job, saved)


def of_receipts(receipts: Iterable[Mapping[str, Any]]) -> list[SlurmJob]:
    """Those among some receipts."""
    return [of_receipt(receipt) for receipt in receipts if "slurm_job_id" in receipt["labels"]]


def of_receipt(receipt: Mapping[str, Any]) -> SlurmJob:
    """The job that a receipt is of; its labels name Slurm's number."""
    return SlurmJob(
        job_id=receipt["job_id"],
        **_labels(receipt["labels"]),
        expected_nodes=receipt["expected_nodes"],
        started_unix_ns=_unix_ns(receipt["started_at"]) or 0,
        ended_unix_ns=_unix_ns(receipt["ended_at"]),
        energy_uj=receipt["energy_uj"],
        jsce_gco2e=receipt["gco2e"]["jsce"],
        asce_gco2e=receipt["gco2e"]["asce"],
        basis=receipt["basis"],
    )


class Asked(NamedTuple):
    """Which job a script of Slurm's means: its number, the cluster, and its name in an array (`40_7`; "": none)."""

    number: str
    cluster: str = ""
    array: str = ""

    def ids(self) -> list[str]:
        """What it is probably called here, the likeliest first; a rule may have named it otherwise."""
        names = [name for name in (self.array, self.number) if name]
        clusters = dict.fromkeys((self.cluster or "slurm", "slurm"))
        return [f"{cluster}-{name}" for name in names for cluster in clusters]

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Whether a job with these labels is the one."""
        cluster = labels.get("slurm_cluster", "")
        return labels.get("slurm_job_id") == self.number and (not cluster or cluster == (self.cluster or cluster))


def asked_by(environment: Mapping[str, str], number: str) -> Asked:
    """The job with a number, as the environment of one of Slurm's scripts names it."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID", ""), environment.get("SLURM_ARRAY_TASK_ID", "")
    named = number == environment.get("SLURM_JOB_ID", "") and array and task
    return Asked(number, environment.get("SLURM_CLUSTER_NAME", ""), f"{array}_{task}" if named else "")


def receipt_of(client: Client, asked: Asked, timeout_s: float) -> dict[str, Any] | None:
    """The agent's receipt of a job, after the closing read where it has ended; None: it isn't known.

    Raises AgentUnreachable.
    """
    for job_id in asked.ids():
        try:
            found: dict[str, Any] = client.call("job.receipt", timeout_s, job_id=job_id, wait=True)["receipt"]
        except AgentRefused:
            continue
        if asked.fits(found["labels"]):
            return found
    for found in client.call("jobs", timeout_s)["jobs"]:
        if asked.fits(found["labels"]):
            if found["ended_at"]:
                found = client.call("job.receipt", timeout_s, job_id=found["job_id"], wait=True)["receipt"]
            return dict(found)
    return None


def record_of(archive: "Archive", asked: Asked, *, since_unix_ns: int | None) -> SlurmJob | None:
    """A job's sum over all nodes; by its labels only among those of which there is news since then, None: nowhere.

    Raises LedgerError.
    """
    for job_id in asked.ids():
        record = archive.job(job_id)
        if record is not None and asked.fits(record.slurm):
            return _of_record(record)
    if since_unix_ns is None:
        return None
    found = archive.jobs(since_unix_ns=since_unix_ns)
    return next((_of_record(record) for record in found if asked.fits(record.slurm)), None)


def _of_record(record: JobRecord) -> SlurmJob:
    sums = sums_ng({term: record.terms_ng.get(term, 0) for term in TERMS})
    return SlurmJob(
        job_id=record.id,
        **_labels(record.slurm),
        user=record.user,
        nodes=len(record.nodes),
        expected_nodes=record.expected_nodes,
        started_unix_ns=record.started_unix_ns,
        ended_unix_ns=record.ended_unix_ns,
        energy_uj=sum(record.energy_uj.values()) if record.energy_uj else None,
        jsce_gco2e=g_of(sums["jsce"]),
        asce_gco2e=g_of(sums["asce"]),
        basis="ledger",
    )


def _of_saved(job: Job, saved: "SavedJob") -> SlurmJob:
    values = saved.totals
    terms: dict[Term, int] = {term: values[slot] for term, slot in TERM_SLOT.items()}
    for (_, name), delta_ng in saved.corrected.corrections_ng.items():
        terms[cast(Term, name)] += delta_ng
    sums = sums_ng(terms)
    return SlurmJob(
        job_id=job.id,
        **_labels(job.labels),
        user=job.user,
        expected_nodes=job.nodes,
        started_unix_ns=job.started_unix_ns,
        ended_unix_ns=job.ended_unix_ns,
        energy_uj=sum(values[:ENERGY_SLOTS]) or None,  # which of its domains have a sensor isn't in the ledger
        jsce_gco2e=g_of(sums["jsce"]),
        asce_gco2e=g_of(sums["asce"]),
    )


def _labels(labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "slurm_job_id": labels["slurm_job_id"],
        "cluster": labels.get("slurm_cluster", ""),
        "account": labels.get("account", ""),
        "partition": labels.get("partition", ""),
    }


def _unix_ns(text: str | None) -> int | None:
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1e6) * 1000


__all__ = [
    "Asked",
    "SlurmJob",
    "asked_by",
    "of_archive",
    "of_ledger",
    "of_receipt",
    "of_receipts",
    "receipt_of",
    "record_of",
]
