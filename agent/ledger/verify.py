"""Checks a node's ledger as evidence: its chains, and that what it holds adds up. One pass over the closed rows.

- chain: every row's hash follows from the row before it, and the last is the one that was noted;
- conservation: closed rows of each job hold what its totals say is closed; all jobs and what nobody paid are the
  node's joules, in the totals and until each of the node's own windows; requests hold no more than jobs;
- monotony: no amount falls, no windows of a job overlap; keys are unique (SQLite's own check of its indexes).
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wattribute.agent.core.model import DOMAIN_KINDS, ENERGY_SLOTS, EXPORTED_SLOTS
from wattribute.agent.core.served_record import split_uj
from wattribute.agent.ledger.batch import unpack
from wattribute.agent.ledger.chains import Break, Chain, Linked, Progress, Values, blame, fixed_candidates, named
from wattribute.agent.ledger.opening import JOB_QUERY, Damaged, SavedJob, head_of, load_job, load_state
from wattribute.agent.ledger.schema import CHAINS, COLUMNS, FIXED_NAMES, NODE_KEY, ROWS, Table, slot_names
from wattribute.agent.ledger.sums import (
    GROUPS,
    Closed,
    Sums,
    Trouble,
    added_up,
    decoded,
    differences,
    saved_node_uj,
)

MOST_GROUPS = 64
"""Past so many groups of jobs that are off, the others are counted and not added up one by one."""
NEIGHBOURS = 100


class Head(NamedTuple):
    """The end of one chain: how many rows, and the hash of the last. Kept elsewhere, it proves all rows before it."""

    table: Table
    rows: int
    hash: bytes
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong, in words; with the row at which it shows and the column, where they are known."""

    text: str
    table: str = ""
    position: int = 0
    column: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came out: the chains' ends, and what is wrong (nothing: all is sound)."""

    heads: Sequence[Head]
    problems: Sequence[Problem]


def sizes(connection: sqlite3.Connection, version: int) -> dict[Table, int]:
    """How many rows each chain says it has. Raises sqlite3.Error."""
    return {table: head_of(connection, table)[0] for table in _chains(version)}


def heads(connection: sqlite3.Connection, version: int) -> list[Head]:
    """The ends of the chains as noted, without a check. Raises sqlite3.Error."""
    (node_id,) = connection.execute("SELECT node_id FROM meta").fetchone()
    return [Head(table, *head_of(connection, table), node_id) for table in _chains(version)]


def verify(connection: sqlite3.Connection, version: int, progress: Progress | None = None) -> Verdict:
    """Check everything, within the caller's transaction. Raises sqlite3.Error."""
    lenient = connection.text_factory
    try:
        connection.text_factory = str  # much quicker, and fails where a text isn't UTF-8
        return _Verification(connection, version, progress).verdict()
    except sqlite3.OperationalError:
        connection.text_factory = lenient
        return _Verification(connection, version, progress).verdict()
    finally:
        connection.text_factory = lenient


def _chains(version: int) -> tuple[Table, ...]:
    return CHAINS if version > 1 else CHAINS[:2]


class _Epochs(dict[int, tuple[str, str]]):
    """(node, epoch) by number."""

    def __missing__(self, number: int) -> tuple[str, str]:
        return "", f"number {number}, which isn't there"


class _Verification:
    def __init__(self, connection: sqlite3.Connection, version: int, progress: Progress | None) -> None:
        self._connection = connection
        self._version = version
        self._progress = progress
        epochs = connection.execute("SELECT epoch_id, node_id, epoch FROM epochs")
        self._epochs = _Epochs((number, (node_id, epoch)) for number, node_id, epoch in epochs)
        self._problems: list[Problem] = []
        self._split_uj = 0

    def verdict(self) -> Verdict:
        self._check_pages()
        state = self._state()
        (most_id,) = self._connection.execute("SELECT COALESCE(MAX(id), 0) FROM job").fetchone()
        sums = Sums(self._job_id, most_id)
        chains = [Chain(table) for table in _chains(self._version)]
        ends = []
        for chain in chains:
            if chain.table == "windows":
                sums.see(chain, self._rows("windows"), self._progress)
            else:
                for _ in chain.follow(self._rows(chain.table), self._progress):
                    pass
            ends.append(chain.end(*head_of(self._connection, chain.table)))
        totals_uj: dict[str, int] = {}
        off = sums.off(self._closed(totals_uj))
        found = self._differences(sums, off, chains[0].breaks)
        for chain, end in zip(chains, ends, strict=True):
            self._blame(chain, found)
            if end:
                self._say(end, table=chain.table, position=chain.rows)
        for trouble in sums.troubles:
            self._trouble(trouble)
        if sums.more_troubles:
            self._say(f"{sums.more_troubles} more rows of windows don't add up")
        self._say_differences(sums, off, found)
        self._check_finished()
        self._check_node(totals_uj, saved_node_uj(state.get("books")))
        self._check_requests(totals_uj)
        return Verdict(heads=heads(self._connection, self._version), problems=self._problems)

    def _say(self, text: str, **where: Any) -> None:
        self._problems.append(Problem(text=text, **where))

    def _check_pages(self) -> None:
        for (text,) in self._connection.execute("PRAGMA integrity_check(10)"):
            if text != "ok":
                self._say(str(text))

    def _state(self) -> Mapping[str, Any]:
        try:
            return load_state(self._connection)
        except Damaged as error:
            self._say(str(error))
            return {}

    def _rows(self, table: Table) -> Iterator[Linked]:
        """The rows of a chain as they are stored, one by one."""
        epochs = self._epochs
        for row in self._connection.execute(f"SELECT {COLUMNS[table]}, position, hash FROM {table} ORDER BY position"):
            yield epochs[row[0]] + row[1:-2], row[-2], row[-1]

    def _job_id(self, key: str) -> int | None:
        found = self._connection.execute("SELECT id FROM job JOIN total USING (id) WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    # Totals

    def _jobs(self) -> Iterator[tuple[str, SavedJob, list[int]]]:
        """Key, job and what is closed of it, of each job that is sound."""
        for row in self._connection.execute(JOB_QUERY):
            with contextlib.suppress(Damaged):  # said already
                yield row[0], load_job(row), unpack(row[2])

    def _closed(self, totals_uj: dict[str, int]) -> Iterator[Closed]:
        """What is closed by each job's totals; checks them, and adds the jobs' joules up by domain on the way."""
        width = ENERGY_SLOTS // len(DOMAIN_KINDS)
        for row in self._connection.execute(JOB_QUERY):
            key = row[0]
            try:
                job = load_job(row)
            except Damaged as error:
                self._say(str(error), row={"job_id": key})
                continue
            closed = unpack(row[2])
            if closed and job.totals[:EXPORTED_SLOTS] != closed[:EXPORTED_SLOTS]:
                self._check_growth(key, job, closed)
            if not key.startswith("_"):
                for number, domain in enumerate(DOMAIN_KINDS):
                    spent = sum(job.totals[number * width : (number + 1) * width])
                    if spent:
                        totals_uj[domain] = totals_uj.get(domain, 0) + spent
            found = _closed_of(key, job.meta, closed)
            if key == NODE_KEY:
                self._split_uj = split_uj((name, amount) for (_, name), amount in found.amounts.items())
            yield found

    def _check_growth(self, key: str, job: SavedJob, closed: Sequence[int]) -> None:
        names = slot_names(job.meta, len(closed))[:EXPORTED_SLOTS]
        for (domain, name), now, before in zip(names, job.totals, closed, strict=False):
            if now < before:
                self._say(f"job {key!r}: {domain} {name} fell from {before} to {now}", row={"job_id": key})

    def _check_finished(self) -> None:
        """A job that was forgotten has nothing open: its totals are what is closed."""
        for (key,) in self._connection.execute(
            "SELECT key FROM job JOIN total USING (id) WHERE finished <> 0 AND packed <> closed LIMIT 50"
        ):
            if not str(key).startswith("_"):
                self._say(f"job {key!r} is over, and its totals aren't what is closed of it", row={"job_id": key})

    def _differences(
        self, sums: Sums, off: set[int], breaks: Sequence[Break]
    ) -> dict[str, list[tuple[str, str, int, int | None]]]:
        """Where rows and totals of the jobs in question differ, by job."""
        named_groups = set(sorted(off)[:MOST_GROUPS])
        broken = {one.values[3] for one in breaks}
        if not named_groups and not broken:
            return {}

        def concerned(job: object) -> bool:
            return job in broken or sums.group(job) in named_groups

        in_rows = added_up((values for values, _, _ in self._rows("windows")), concerned)
        found: dict[str, list[tuple[str, str, int, int | None]]] = {}
        for key, job, closed in self._jobs():
            if concerned(key):
                different = list(differences(in_rows.pop(key, {}), _closed_of(key, job.meta, closed)))
                if different:
                    found[key] = different
        return found

    def _say_differences(
        self, sums: Sums, off: set[int], found: Mapping[str, list[tuple[str, str, int, int | None]]]
    ) -> None:
        for key, different in found.items():
            for domain, name, in_rows, said in different:
                totals = "nothing" if said is None else said
                self._say(
                    f"job {key!r}: closed rows hold {in_rows} of {domain} {name}, its totals {totals}",
                    row={"job_id": key, "domain": domain},
                )
        if len(off) > MOST_GROUPS:
            self._say(f"the same of jobs in {len(off) - MOST_GROUPS} more of {GROUPS} groups")

    def _check_node(self, jobs_uj: Mapping[str, int], saved: tuple[dict[str, int], dict[str, int]] | None) -> None:
        if saved is None:
            return
        node_uj, unpaid_uj = saved
        for domain in DOMAIN_KINDS:
            jobs, unpaid, node = (amounts.get(domain, 0) for amounts in (jobs_uj, unpaid_uj, node_uj))
            if jobs + unpaid != node:
                self._say(
                    f"{domain}: all jobs hold {jobs} uJ and nobody paid {unpaid}: together {jobs + unpaid}, and the "
                    f"node used {node}",
                    row={"domain": domain},
                )

    def _check_requests(self, jobs_uj: Mapping[str, int]) -> None:
        """Requests only divide what jobs used."""
        jobs = sum(jobs_uj.values())
        if self._split_uj > jobs:
            self._say(f"requests and their products' idle hold {self._split_uj} uJ, and all jobs {jobs}")

    # Words

    def _trouble(self, trouble: Trouble) -> None:
        row = dict(zip(ROWS["windows"]._fields, trouble.values, strict=True))
        at = f" (windows position {trouble.position}, {named('windows', trouble.values)})"
        self._say(trouble.text + at, table="windows", position=trouble.position, column=trouble.column, row=row)

    def _blame(self, chain: Chain, found: Mapping[str, list[tuple[str, str, int, int | None]]]) -> None:
        for one in chain.breaks:
            candidates = self._candidates(one, found) if one.kind == "columns" else {}
            column, text = blame(one, chain.breaks, candidates)
            row = dict(zip(ROWS[chain.table]._fields, one.values, strict=True))
            self._say(text, table=chain.table, position=one.position, column=column, row=row)
        if chain.more_breaks:
            self._say(f"the chain of {chain.table} breaks at {chain.more_breaks} more positions", table=chain.table)

    def _candidates(
        self, one: Break, found: Mapping[str, list[tuple[str, str, int, int | None]]]
    ) -> dict[str, list[Any]]:
        """Values that the columns of a broken row may have had: those of rows nearby, and what the totals ask for."""
        columns = ROWS[one.table]._fields
        near: dict[str, dict[Any, None]] = {name: {} for name in columns}
        for values in [one.values, *self._near(one)]:
            for name, value in zip(columns, values, strict=True):
                unit = name.rpartition("_")[2]
                for other in columns:
                    if other == name or (unit in ("ns", "uj", "ng") and other.endswith(unit)):
                        near[other][value] = None
        for node_id, epoch in self._epochs.values():
            near["node_id"][node_id] = near["epoch"][epoch] = None
        for name, known in fixed_candidates(one.table).items():
            near[name] |= dict.fromkeys(known)
        if one.table == "windows":
            near["job_id"] |= dict.fromkeys(found)
            near["content"] |= dict.fromkeys(_contents(one.values, found.get(one.values[3], ())))
        return {name: list(values) for name, values in near.items()}

    def _near(self, one: Break) -> Iterator[Values]:
        for row in self._connection.execute(
            f"SELECT {COLUMNS[one.table]} FROM {one.table} WHERE position BETWEEN ? AND ? AND position <> ?",
            (one.position - NEIGHBOURS, one.position + NEIGHBOURS, one.position),
        ):
            yield self._epochs[row[0]] + row[1:]


def _closed_of(key: str, meta: Mapping[str, Any], closed: Sequence[int]) -> Closed:
    fixed = 0 if key == NODE_KEY else len(FIXED_NAMES)
    amounts = {name: amount for name, amount in zip(FIXED_NAMES[:fixed], closed, strict=False) if amount}
    if len(closed) <= fixed:
        return Closed(key, amounts, {})
    names = slot_names(meta, len(closed))
    amounts |= {names[slot]: closed[slot] for slot in range(fixed, len(closed)) if closed[slot]}
    late = range(fixed, len(closed)) if fixed else ()
    return Closed(key, amounts, {f"unnamed.{slot}": names[slot] for slot in late})


def _contents(values: Values, different: Sequence[tuple[str, str, int, int | None]]) -> Iterator[str]:
    """What a row's content would be with the amounts that its job's totals ask for."""
    try:
        amounts = decoded(values[6])
    except (TypeError, ValueError):
        return
    wanted = {name: (said or 0) - found for domain, name, found, said in different if domain == values[4]}
    everywhere = {name: amount + wanted.get(name, 0) for name, amount in amounts.items()}
    yield _dumped(everywhere)
    for name, more in wanted.items():
        if name in amounts:
            yield _dumped({**amounts, name: amounts[name] + more})
        # It was there and is gone: the order of names is part of the text.
        rest = [(other, amount) for other, amount in amounts.items() if other != name]
        for place in range(len(rest) + 1):
            yield _dumped(dict([*rest[:place], (name, more), *rest[place:]]))


def _dumped(amounts: Mapping[str, int]) -> str:
    return json.dumps({name: amount for name, amount in amounts.items() if amount}, separators=(",", ":"))
