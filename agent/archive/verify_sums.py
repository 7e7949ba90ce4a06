"""Whether what the archive made of its rows follows from them: sums, and what a job is.

Sums are compared by a linear fingerprint under a key drawn for this pass, as in ledger.sums: two that differ agree by
chance once in about 2**60. Only jobs of groups that are off are added up one by one. What a job is is compared in the
order of jobs, which the database sorts: so memory grows neither with rows nor with jobs.
"""

import heapq
import secrets
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

import msgspec

from wattribute.agent.archive.database import Database
from wattribute.agent.archive.facts import NOTHING_SAID, facts_of, is_provisional, parse
from wattribute.agent.archive.schema import COLUMNS
from wattribute.agent.ledger.chains import Values
from wattribute.agent.ledger.schema import ROWS, Table
from wattribute.agent.ledger.sums import GROUPS, decoded

MOST_GROUPS = 64
"""Past so many groups of jobs that are off, the others are counted and not added up one by one."""
MOST_TOLD = 50

Count: TypeAlias = Callable[[Values], str]
"""Takes a row in; says what is wrong with what it holds."""


class Ledgers:
    """Adds up all rows that count, as they pass."""

    def __init__(self) -> None:
        self._key = secrets.randbits(64)
        self._groups = [0] * GROUPS

    def of(self, table: Table) -> Count | None:
        """What takes a table's rows in; None: they hold no sums."""
        return {"windows": self._window, "corrections": self._correction}.get(table)

    def _window(self, values: Values) -> str:
        node, _, _, job, domain, _, content, _ = values
        key = self._key
        try:
            here = 0
            for name, amount in decoded(content).items():
                if not name.startswith("carry."):
                    here += amount * hash((key, job, node, domain, name))
            self._groups[hash((key, job, node)) % GROUPS] += here
        except (msgspec.MsgspecError, TypeError, ValueError):
            return f"no integers by name: {content!r:.80}"
        return ""

    def _correction(self, values: Values) -> str:
        node, _, job, product, term, _, _, _, _, delta, _ = values
        if type(delta) is not int:
            return f"no integer: {delta!r:.80}"
        name = f"correction.{term}.{product}"
        self._groups[hash((self._key, job, node)) % GROUPS] += delta * hash((self._key, job, node, "", name))
        return ""

    def problems(self, database: Database) -> Iterator[str]:
        """Where sums aren't those of the rows. Raises LedgerError."""
        key, groups = self._key, list(self._groups)
        for job, node, domain, name, amount in database.stream(
            "SELECT job_id, node_id, domain, name, amount FROM job_sums"
        ):
            if type(amount) is int:
                groups[hash((key, job, node)) % GROUPS] -= amount * hash((key, job, node, domain, name))
            else:
                groups[hash((key, job, node)) % GROUPS] += 1
        off = [group for group, rest in enumerate(groups) if rest]
        if not off:
            return
        told = 0
        for told, text in enumerate(self._differences(database, set(off[:MOST_GROUPS])), start=1):
            if told <= MOST_TOLD:
                yield text
        if told > MOST_TOLD:
            yield f"the same of {told - MOST_TOLD} more sums"
        if len(off) > MOST_GROUPS:
            yield f"the same of jobs in {len(off) - MOST_GROUPS} more of {GROUPS} groups"

    def _differences(self, database: Database, off: set[int]) -> Iterator[str]:
        sums: dict[tuple[Any, ...], int] = {}
        adding: tuple[tuple[Table, Any], ...] = (("windows", _add_window), ("corrections", _add_correction))
        for table, add in adding:
            for values in database.stream(
                f"SELECT node_id, epoch, {', '.join(COLUMNS[table])} FROM {table} JOIN epochs USING (epoch_id)"
            ):
                row = dict(zip(ROWS[table]._fields, values, strict=True))
                if hash((self._key, row["job_id"], row["node_id"])) % GROUPS in off:
                    add(sums, row)
        for job, node, domain, name, amount in database.stream(
            "SELECT job_id, node_id, domain, name, amount FROM job_sums ORDER BY job_id, node_id, domain, name"
        ):
            if hash((self._key, job, node)) % GROUPS in off:
                in_rows = sums.pop((job, node, domain, name), 0)
                if in_rows != amount or type(amount) is not int:
                    yield f"job {job!r} on {node}: its rows hold {in_rows} of {domain} {name}, its sum {amount}"
        for (job, node, domain, name), in_rows in sums.items():
            if in_rows:
                yield f"job {job!r} on {node}: its rows hold {in_rows} of {domain} {name}, its sum nothing"


def _add_window(sums: dict[tuple[Any, ...], int], row: dict[str, Any]) -> None:
    try:
        amounts = decoded(row["content"])
    except (msgspec.MsgspecError, TypeError, ValueError):
        return  # said already
    for name, amount in amounts.items():
        if not name.startswith("carry."):
            at = (row["job_id"], row["node_id"], row["domain"], name)
            sums[at] = sums.get(at, 0) + amount


def _add_correction(sums: dict[tuple[Any, ...], int], row: dict[str, Any]) -> None:
    at = (row["job_id"], row["node_id"], "", f"correction.{row['term']}.{row['product_id']}")
    if type(row["delta_ng"]) is int:
        sums[at] = sums.get(at, 0) + row["delta_ng"]


# What a job is

_FACTS = (
    "SELECT job_id, node_id, 0, until_unix_ns, product_id, body, provisional_unix_ns, settled_unix_ns FROM job_facts"
    " ORDER BY job_id, node_id"
)
_SAID = (
    "SELECT job_id, node_id, 1, window_end_unix_ns, prices FROM windows JOIN epochs USING (epoch_id)"
    " WHERE domain = '' ORDER BY job_id, node_id, window_end_unix_ns"
)
_SETTLED = (
    "SELECT job_id, node_id, 2, MAX(CASE WHEN cause = 'intensity' THEN window_end_unix_ns ELSE 0 END) FROM corrections"
    " JOIN epochs USING (epoch_id) GROUP BY job_id, node_id ORDER BY job_id, node_id"
)
_SUMMED = "SELECT DISTINCT job_id, node_id, 3 FROM job_sums ORDER BY job_id, node_id"


def facts(database: Database) -> Iterator[str]:
    """Where what is known of a job isn't what its latest rows say. Raises LedgerError."""
    streams = [database.stream(sql) for sql in (_FACTS, _SAID, _SETTLED, _SUMMED)]
    told = 0
    try:
        for (job, node), rows in groupby(heapq.merge(*streams, key=itemgetter(0, 1)), key=itemgetter(0, 1)):
            for text in _of_job(rows):
                told += 1
                if told <= MOST_TOLD:
                    yield f"job {job!r} on {node}: {text}"
    except TypeError:
        yield "job_facts: a name that is no text stands where a job or a node belongs"
    if told > MOST_TOLD:
        yield f"the same of {told - MOST_TOLD} more jobs"


def _of_job(rows: Iterator[tuple[Any, ...]]) -> Iterator[str]:
    kept: tuple[Any, ...] | None = None
    until = provisional = settled = others = 0
    bodies: set[str] = set()
    early = False  # rows that end before 1970 leave no trace that could be checked
    for row in rows:
        kind = row[2]
        if kind == 0:
            kept = row[3:]
            continue
        others += 1
        if kind == 1:
            end, prices = row[3:]
            early |= end <= 0
            if end > until:
                until, bodies = end, set()
            if end == until > 0:
                bodies.add(prices)
            if _is_provisional(prices):
                provisional = max(provisional, end)
        elif kind == 2:
            settled = max(settled, row[3])
    if kept is None:
        yield "it has rows, and job_facts nothing of it"
    elif not others:
        yield "it is in job_facts, and no row is of it"
    else:
        kept_until, product_id, body, kept_provisional, kept_settled = kept
        if not until:
            right = early or (kept_until, product_id, body) == (0, NOTHING_SAID.product_id, "")
        else:
            right = kept_until == until and body in bodies and product_id == facts_of(parse(body)).product_id
        if not right:
            yield f"job_facts says that it is {_short(product_id, body)}, its latest row something else"
        if (kept_provisional, kept_settled) != (provisional, settled):
            yield (
                f"job_facts has it provisional until {kept_provisional} and settled until {kept_settled}, its rows "
                f"until {provisional} and {settled}"
            )


def _is_provisional(prices: str) -> bool:
    """Like facts.is_provisional, without reading what can't say so."""
    return (
        '"final"' in prices
        and ('"final":true' not in prices or '"final":false' in prices)
        and (is_provisional(parse(prices)))
    )


def _short(product_id: object, body: object) -> str:
    return f"of product {product_id!r}: {body!s:.120}"
