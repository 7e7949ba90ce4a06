"""CodeCarbon's emissions.csv into the archive: each run a job, in kilograms and kWh there, in nanograms and uJ here.

As CodeCarbon has it, energy holds the PUE already and emissions are those of that energy: they come apart again into
operation and cooling. Several rows of one run are its running total. Nothing is a float on the way.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from wattribute.agent.archive.store import Archive
from wattribute.agent.core.errors import LedgerError, Refused
from wattribute.agent.core.model import Role
from wattribute.agent.core.units import NG_PER_G, NS_PER_S, UJ_PER_KWH
from wattribute.agent.identity import problem
from wattribute.agent.ledger.batch import dump
from wattribute.agent.ledger.schema import NO_HASH, WindowRow, chained

NG_PER_KG = 1000 * NG_PER_G
_MAX = (1 << 63) - 1
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
EPOCH = "codecarbon"
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = Context(prec=400, rounding=ROUND_HALF_EVEN)
# Theirs and ours; the first release had energy_consumed alone.
_DOMAINS = (("cpu_energy", "cpu"), ("gpu_energy", "gpu"), ("ram_energy", "dram"))
_NEEDED = ("timestamp", "duration", "emissions", "energy_consumed")


class _Line(NamedTuple):
    """One line of the file. Energy (without PUE) in uJ by (domain, quality), emissions in ng."""

    where: str
    run: str
    task: str
    project: str
    start_unix_ns: int
    end_unix_ns: int
    energy_uj: Mapping[tuple[str, str], int]
    emissions_ng: int
    operation_ng: int
    said: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run, or one task of one: the job that it becomes, and its windows as rows of a chain of its own.

    `whole` is the node id of the whole run.
    """

    node_id: str
    whole: str
    job_id: str
    project: str
    rows: Sequence[tuple[int, WindowRow, bytes]]
    energy_uj: int
    emissions_ng: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of the runs of a file: how many are new, known already, or known and longer by now."""

    new: Sequence[Run]
    known: Sequence[Run]
    longer: Sequence[Run]


def is_codecarbon(names: Sequence[str]) -> bool:
    """Whether a CSV's header is that of an emissions.csv."""
    return "emissions" in names and bool({"run_id", "energy_consumed", "experiment_id"} & set(names))


def runs(path: str, *, product_id: str, role: Role, job_id: str | None = None) -> list[Run]:
    """The runs of a file. Raises LedgerError naming line and column; Refused for a job id that doesn't fit."""
    lines: dict[tuple[str, str], list[_Line]] = {}
    for line in _lines(path):
        lines.setdefault((line.run, line.task), []).append(line)
    if not lines:
        raise LedgerError(f"{path} has a header and no runs")
    if job_id is not None and len(lines) > 1:
        raise Refused(f"--job-id names one job, and {path} has {len(lines)} runs")
    return [
        _run(run, task, found, job_id, {"product_id": product_id, "role": role}) for (run, task), found in lines.items()
    ]


def take(archive: Archive, found: Sequence[Run], *, dry_run: bool = False) -> Added:
    """Take runs in; what is there already changes nothing. Raises LedgerError, Refused: then nothing was taken."""
    _check_parts(found)
    sorted_: dict[str, list[Run]] = {"new": [], "known": [], "longer": []}
    for run in found:
        sorted_[_state(archive, run)].append(run)
    if not dry_run:
        for run in (*sorted_["new"], *sorted_["longer"]):
            archive.deliver(run.node_id, "windows", run.rows)
    return Added(new=sorted_["new"], known=sorted_["known"], longer=sorted_["longer"])


def _check_parts(found: Sequence[Run]) -> None:
    """Refuse a file that holds a run and tasks of it."""
    wholes = {run.node_id for run in found if run.whole == run.node_id}
    for run in found:
        if run.whole != run.node_id and run.whole in wholes:
            raise Refused(
                f"the file has {run.whole!r} as a whole, and {run.job_id!r}, which is a part of it: together they "
                "would count twice: nothing is imported. Fix: take one of both out"
            )


def _state(archive: Archive, run: Run) -> str:
    tips = archive.acked(run.node_id, "windows")
    if not tips:
        job = archive.job(run.job_id)
        if job is not None:
            raise Refused(f"{run.job_id!r} is a job of {', '.join(job.nodes)} already: nothing is imported")
        whole = run.whole
        if whole != run.node_id and archive.acked(whole, "windows"):
            raise Refused(f"{whole!r} is in the archive as a whole, and {run.job_id!r} is a part of it")
        parts = archive.nodes_under(f"{whole}/") if whole == run.node_id else []
        if parts:
            raise Refused(
                f"{len(parts)} task{'' if len(parts) == 1 else 's'} of {whole!r} ({parts[0]!r}"
                f"{', ...' if len(parts) > 1 else ''}) are in the archive already, and the whole run would count them "
                "twice: nothing is imported. Fix: leave this run out, or import it alone into a new archive"
            )
        return "new"
    hashes = {position: kept.hex() for position, _, kept in run.rows}
    for tip in tips:
        if hashes.get(tip.position) == tip.hash:
            return "known" if tip.position == len(run.rows) else "longer"
        if archive.hash_at("windows", tips, tip, len(run.rows)) == hashes[len(run.rows)]:
            return "known"
    raise Refused(
        f"{run.node_id!r} was imported before with other figures, or for another product: nothing is imported. "
        "Fix: import a file of a run when the run has ended"
    )


def _run(run: str, task: str, lines: Sequence[_Line], job_id: str | None, said: Mapping[str, Any]) -> Run:
    node_id = f"codecarbon-{run}/{task}" if task else f"codecarbon-{run}"
    job = job_id or node_id.replace("/", "-")
    wrong = problem(job)
    if wrong:
        raise LedgerError(f"{lines[0].where}: {job!r} can't be a job's id: {wrong}")
    if task and len(lines) > 1:
        raise LedgerError(f"{lines[1].where}, column task_name: {task!r} is there twice for the same run")
    facts = {
        **said,
        "uses": [],
        "phase": "",
        "user": "",
        "weight_ppm": 1_000_000,
        "nodes": 1,
        "started_unix_ns": lines[0].start_unix_ns,
        "source": "codecarbon",
    }
    rows: list[tuple[int, WindowRow, bytes]] = []
    head = NO_HASH
    before: _Line | None = None
    for line in lines:
        for row in _windows(node_id, job, before, line, facts):
            head = chained(head, row)
            rows.append((len(rows) + 1, row, head))
        before = line
    last = lines[-1]
    return Run(
        node_id=node_id,
        whole=f"codecarbon-{run}",
        job_id=job,
        project=last.project,
        rows=rows,
        energy_uj=sum(last.energy_uj.values()),
        emissions_ng=last.emissions_ng,
    )


def _windows(
    node_id: str, job: str, before: _Line | None, line: _Line, facts: Mapping[str, Any]
) -> Iterator[WindowRow]:
    """What a line adds to the one before it."""
    start = line.start_unix_ns if before is None else before.end_unix_ns
    end = max(line.end_unix_ns, start + 1)
    by_domain: dict[str, dict[str, int]] = {}
    for (domain, quality), amount in line.energy_uj.items():
        more = amount - (before.energy_uj.get((domain, quality), 0) if before else 0)
        if more < 0:
            raise LedgerError(f"{line.where}: {domain} energy of run {line.run} is less than in a line before it")
        if more:
            by_domain.setdefault(domain, {})[f"direct.{quality}"] = more
    operation = line.operation_ng - (before.operation_ng if before else 0)
    cooling = line.emissions_ng - line.operation_ng - (before.emissions_ng - before.operation_ng if before else 0)
    if operation < 0 or cooling < 0 or (before is not None and line.end_unix_ns < before.end_unix_ns):
        raise LedgerError(f"{line.where}, column emissions: run {line.run} had more in a line before it")
    amounts = {name: amount for name, amount in (("operation", operation), ("cooling", cooling)) if amount}
    if before is not None and not by_domain and not amounts:
        return  # the same line again
    told = dump({**line.said, **facts, "ended_unix_ns": end, "project": line.project})
    for domain, energy in by_domain.items():
        yield WindowRow(node_id, EPOCH, start, job, domain, end, dump(energy), "")
    yield WindowRow(node_id, EPOCH, start, job, "", end, dump(amounts), told)


def _lines(path: str) -> Iterator[_Line]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            names = next(reader, [])
            _check_header(path, names)
            for fields in reader:
                if not fields:
                    continue
                where = f"{path}, line {reader.line_num}"
                if len(fields) != len(names):
                    raise LedgerError(
                        f"{where}: {len(fields)} fields, and the header has {len(names)}: the file was cut off, or "
                        "columns changed in it"
                    )
                yield _line(where, dict(zip(names, fields, strict=True)))
    except csv.Error as error:
        raise LedgerError(f"{path}, line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise LedgerError(f"{path} isn't UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise LedgerError(f"{path} can't be read: {error.strerror}") from error


def _check_header(path: str, names: Sequence[str]) -> None:
    if not names:
        raise LedgerError(f"{path} is empty")
    if len(names) == 1:
        for mark, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if mark in names[0]:
                raise LedgerError(f"{path}, line 1: columns are separated by {called}. Fix: save it with commas")
    missing = [name for name in _NEEDED if name not in names]
    if not {"run_id", "experiment_id"} & set(names):
        missing.append("run_id")
    if missing:
        raise LedgerError(f"{path}, line 1: no column {', '.join(missing)}: it isn't an emissions.csv of CodeCarbon")
    twice = [name for name in _NEEDED if names.count(name) > 1]
    if twice:
        raise LedgerError(f"{path}, line 1: column {twice[0]} is there twice")


def _line(where: str, fields: Mapping[str, str]) -> _Line:
    if fields.get("codecarbon_version", "").startswith("wattribute"):
        raise LedgerError(
            f"{where}: this is a report of wattribute's, whose jobs are in its ledger already. Fix: move jobs with "
            "wattribute ledger export"
        )
    run = fields.get("run_id") or fields.get("experiment_id") or ""
    if not run.strip():
        raise LedgerError(f"{where}, column run_id: it is empty")
    if "/" in run:
        raise LedgerError(f"{where}, column run_id: {run[:60]!r} has a /, which is between a run and its task")
    end = _time(where, fields["timestamp"])
    duration = _number(where, "duration", fields["duration"])
    pue = Fraction(_number(where, "pue", fields["pue"])) if fields.get("pue", "").strip() else Fraction(1)
    if pue < 1:
        raise LedgerError(f"{where}, column pue: {fields['pue']} is below 1")
    emissions = _scaled(where, "emissions", fields["emissions"], NG_PER_KG)
    consumed = _scaled(where, "energy_consumed", fields["energy_consumed"], UJ_PER_KWH)
    energy: dict[tuple[str, str], int] = {}
    for column, domain in _DOMAINS:
        if column in fields:
            with_pue = _scaled(where, column, fields[column], UJ_PER_KWH)
            energy[domain, _quality(domain, fields)] = int(with_pue / pue)
    parts = sum(energy.values())
    left = int(consumed / pue) - parts
    if left > len(energy) + parts // 1_000_000 or not energy:
        energy["rest", "modelled"] = left
    elif left < -len(energy) - parts // 1_000_000:
        raise LedgerError(f"{where}, column energy_consumed: it is less than its parts together")
    operation = int(emissions / pue)
    zone = "-".join(part for part in (fields.get("country_iso_code", ""), fields.get("region", "")) if part)
    used = sum(energy.values())
    said = {
        "operation_ng_per_kwh": int(Fraction(operation * UJ_PER_KWH, used)) if used else 0,
        "zone": zone,
        "provider": "codecarbon",
        "quality": "static",
        "final": True,
    }
    return _Line(
        where,
        run.strip(),
        fields.get("task_name", "").strip(),
        fields.get("project_name", ""),
        end - int(Fraction(duration) * NS_PER_S),
        end,
        energy,
        int(emissions),
        operation,
        said,
    )


def _quality(domain: str, fields: Mapping[str, str]) -> str:
    """CodeCarbon reads NVIDIA's GPUs; whether it read a CPU or guessed from its name isn't in the file."""
    return "measured" if domain == "gpu" and "nvidia" in fields.get("gpu_model", "").lower() else "modelled"


def _time(where: str, text: str) -> int:
    """CodeCarbon writes local time without its zone: taken as UTC, so that the same file is the same everywhere."""
    try:
        moment = datetime.fromisoformat(text.strip())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return (moment - _UNIX) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError) as error:
        raise LedgerError(
            f"{where}, column timestamp: {text[:60]!r} isn't a time such as 2026-01-31T12:00:00"
        ) from error


def _number(where: str, column: str, text: str) -> Decimal:
    shown = text.strip()
    if not _NUMBER.fullmatch(shown):
        why = "isn't a number"
        if not shown or shown.lower() in ("nan", "null", "none"):
            why = "is no number: CodeCarbon didn't measure it"
        elif re.fullmatch(r"-?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?", shown):
            why = "has a decimal comma. Fix: save it with points"
        raise LedgerError(f"{where}, column {column}: {text[:60]!r} {why}")
    value = Decimal(shown)
    if value < 0:
        raise LedgerError(f"{where}, column {column}: {shown} is below 0")
    if value.adjusted() > 18:
        raise LedgerError(f"{where}, column {column}: {shown} is more than there can be")
    return value


def _scaled(where: str, column: str, text: str, scale: int) -> Fraction:
    """An amount in our unit, rounded once, half to even: a Fraction, so that what it is divided by stays exact."""
    value = _EXACT.multiply(_number(where, column, text), Decimal(scale))
    whole = int(value.to_integral_value(rounding=ROUND_HALF_EVEN))
    if whole > _MAX:
        raise LedgerError(f"{where}, column {column}: {text.strip()} is more than there can be")
    return Fraction(whole)


__all__ = ["Added", "Run", "is_codecarbon", "runs", "take"]
