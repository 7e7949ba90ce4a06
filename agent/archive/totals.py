"""Jobs and nodes as the archive's rows tell of them: over all nodes and time from sums, over a stretch from rows."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from wattribute.agent.archive.database import Database, Params, Value
from wattribute.agent.archive.facts import Facts, facts_of, is_provisional, joined, parse
from wattribute.agent.archive.intake import amounts
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.model import TERMS, Role, Term
from wattribute.agent.core.records import JobRecord, NodeRecord
from wattribute.agent.ledger.schema import NODE_KEY
from wattribute.agent.settlement import GIVEN_UP_NS

JOBS_AT_ONCE = 2000
_PAID_TO_OTHERS = ("platform", "retraining", "overhead_hardware", "product")
_OF_JOBS = "correction of jobs"
_IS_A_JOB = "substr(job_id, 1, 1) <> '_'"
# Windows belong to the time in which they start, so that stretches that touch add up.
IN_TIME = "window_start_unix_ns >= :first AND window_start_unix_ns < :last"
_MAX = (1 << 63) - 1

Amounts = dict[tuple[str, str], int]
"""(domain, name) -> amount."""


class Settled:
    """Up to where each node has settled what it booked at a carbon intensity that wasn't final.

    Nodes settle window by window in the order of their chains, and what nobody paid along with the rest; a window whose
    final price makes no difference gets no correction, but those after it do. After GIVEN_UP_NS a node waits no longer.
    """

    def __init__(self, database: Database) -> None:
        self._given_up = database.now_unix_ns() - GIVEN_UP_NS
        self._until: dict[str, int] = dict(
            database.rows("SELECT node_id, settled_unix_ns FROM job_facts WHERE job_id = :job_id", {"job_id": NODE_KEY})
        )

    def is_open(self, node_id: str, provisional_unix_ns: int, settled_unix_ns: int) -> bool:
        """Whether a job is still owed a final figure, by the ends of its last provisional and corrected windows."""
        return provisional_unix_ns > max(settled_unix_ns, self._until.get(node_id, 0), self._given_up)


class Known:
    """What is known of a job: its facts by node, and whether it is owed a final figure."""

    __slots__ = ("facts", "provisional")

    def __init__(self) -> None:
        self.facts: dict[str, tuple[int, Facts]] = {}
        self.provisional = False


def jobs(
    database: Database,
    product_id: str | None,
    role: Role | None,
    since_unix_ns: int | None = None,
    words: Sequence[str] = (),
) -> Iterator[JobRecord]:
    """Every job over all time, by id; in pieces, so that memory stays flat. Since a time: those with a row that ends
    later, still with all that they used. `words`: those with one of them in the id, or as a text among the facts.
    Raises LedgerError.
    """
    told: list[str] = []
    params: dict[str, Value] = {"limit": JOBS_AT_ONCE}
    if product_id is not None:
        told.append("product_id = :product_id")
        params["product_id"] = product_id
    if since_unix_ns is not None:
        told.append("until_unix_ns > :since")
        params["since"] = since_unix_ns
    if words:
        likes = []
        for number, word in enumerate(words):
            escaped = word.replace("!", "!!").replace("%", "!%").replace("_", "!_")
            params |= {f"id{number}": f"%{escaped}%", f"text{number}": f'%"{escaped}"%'}
            likes.append(f"job_id LIKE :id{number} ESCAPE '!' OR body LIKE :text{number} ESCAPE '!'")
        told.append(f"({' OR '.join(likes)})")
    fits = "".join(f" AND {one}" for one in told)
    of_piece = f"job_id BETWEEN :first AND :last AND {_IS_A_JOB}"
    if told:  # looked for between the ends of a piece alone: else each piece would go through all jobs
        of_piece += f" AND job_id IN (SELECT job_id FROM job_facts WHERE job_id BETWEEN :first AND :last{fits})"
    after = ""
    while True:
        with database.transaction(writing=False):
            ids = database.rows(
                f"SELECT DISTINCT job_id FROM job_facts WHERE job_id > :after AND {_IS_A_JOB}{fits}"
                " ORDER BY job_id LIMIT :limit",
                {**params, "after": after},
            )
            if not ids:
                return
            records = list(_records(database, of_piece, {**params, "first": ids[0][0], "last": ids[-1][0]}))
            after = ids[-1][0]
        for record in records:
            if (product_id is None or record.product_id == product_id) and (role is None or record.role == role):
                yield record


def job(database: Database, job_id: str) -> JobRecord | None:
    """One job over all time. Raises LedgerError."""
    with database.transaction(writing=False):
        return next(_records(database, f"job_id = :job_id AND {_IS_A_JOB}", {"job_id": job_id}), None)


def _known(database: Database, where: str, params: Params) -> dict[str, Known]:
    """The jobs that fit, in the order of their ids."""
    found: dict[str, Known] = {}
    settled = Settled(database)
    for job_id, node_id, until, body, provisional_unix_ns, settled_unix_ns in database.rows(
        "SELECT job_id, node_id, until_unix_ns, body, provisional_unix_ns, settled_unix_ns FROM job_facts"
        f" WHERE {where} ORDER BY job_id",
        params,
    ):
        known = found.setdefault(job_id, Known())
        known.facts[node_id] = (until, facts_of(parse(body)))
        known.provisional |= settled.is_open(node_id, provisional_unix_ns, settled_unix_ns)
    return found


def _records(database: Database, where: str, params: Params) -> Iterator[JobRecord]:
    page = _known(database, where, params)
    sums: dict[str, Amounts] = {job_id: {} for job_id in page}
    for job_id, domain, name, amount in database.stream(
        f"SELECT job_id, domain, name, amount FROM job_sums WHERE {where}", params
    ):
        if (of_job := sums.get(job_id)) is None:
            raise _unknown(job_id)
        of_job[domain, name] = of_job.get((domain, name), 0) + amount  # one row per node
    revised = dict(
        database.rows(
            f"SELECT job_id, COUNT(DISTINCT at_unix_ns) FROM corrections WHERE {where} GROUP BY job_id", params
        )
    )
    for job_id, known in page.items():
        yield record(job_id, known.facts, sums[job_id], 1 + revised.get(job_id, 0), known.provisional)


@functools.lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, str, str]:
    """`tax.platform.iks` and the like in three parts; a product's id may have dots."""
    first, _, rest = name.partition(".")
    second, _, third = rest.partition(".")
    return first, second, third


def record(
    job_id: str, facts: Mapping[str, tuple[int, Facts]], sums: Amounts, revision: int, provisional: bool
) -> JobRecord:
    """A job's amounts in its own words."""
    told = joined(facts.values())
    energy: dict[tuple[str, str, str], int] = {}
    terms: dict[Term, int] = {}
    taxes: dict[tuple[str, Term], int] = {}
    corrections: dict[Term, int] = {}
    for (domain, name), amount in sums.items():
        first, rest, payee = _words(name)
        if domain:
            energy[domain, first, rest] = amount
        elif first in TERMS:
            terms[first] = terms.get(first, 0) + amount
        elif first in ("tax", "correction"):
            term = cast(Term, rest)
            if first == "correction":
                terms[term] = terms.get(term, 0) + amount
                corrections[term] = corrections.get(term, 0) + amount
            if first == "tax" or term in _PAID_TO_OTHERS:
                taxes[payee, term] = taxes.get((payee, term), 0) + amount
    return JobRecord(
        id=job_id,
        product_id=told.product_id,
        uses=told.uses,
        role=told.role,
        phase=told.phase,
        user=told.user,
        weight_ppm=told.weight_ppm,
        nodes=tuple(sorted(facts)),
        expected_nodes=told.expected_nodes,
        started_unix_ns=told.started_unix_ns,
        ended_unix_ns=told.ended_unix_ns,
        energy_uj=energy,
        terms_ng=terms,
        taxes_ng=taxes,
        corrections_ng=corrections,
        cpu_ns=sums.get(("", "cpu_ns"), 0),
        sm_ns=sums.get(("", "sm_ns"), 0),
        revision=revision,
        provisional=provisional,
        source=told.source,
        slurm=told.slurm,
    )


def node_record(node_id: str, sums: Amounts) -> NodeRecord:
    """A node's amounts in its own words."""
    energy: dict[tuple[str, str], int] = {}
    unattributed: dict[tuple[str, str], int] = {}
    terms: dict[Term, int] = {}
    unattributed_ng: dict[tuple[str, Term], int] = {}
    corrections: dict[Term, int] = {}
    for (domain, name), amount in sums.items():
        first, rest, last = _words(name)
        if domain and first == "node":
            energy[domain, rest] = amount
        elif domain and first == "unattributed":
            unattributed[domain, rest] = amount
        elif first in TERMS:
            terms[first] = terms.get(first, 0) + amount
        elif first == "unattributed":
            unattributed_ng[rest, cast(Term, last)] = amount
        elif first == "correction":  # of what nobody paid, whatever the reason was
            term = cast(Term, rest)
            terms[term] = terms.get(term, 0) + amount
            corrections[term] = corrections.get(term, 0) + amount
            unattributed_ng["correction", term] = amount
        elif first == _OF_JOBS:
            term = cast(Term, rest)
            terms[term] = terms.get(term, 0) + amount
            corrections[term] = corrections.get(term, 0) + amount
    return NodeRecord(
        id=node_id,
        energy_uj=energy,
        unattributed_uj=unattributed,
        terms_ng=terms,
        unattributed_ng=unattributed_ng,
        corrections_ng=corrections,
    )


def node_totals(database: Database, node_id: str | None) -> dict[str, NodeRecord]:
    """What each node used over all time. Raises LedgerError."""
    params: Params = {"job_id": NODE_KEY}
    of_node = ""
    if node_id is not None:
        of_node, params = "AND node_id = :node_id", {**params, "node_id": node_id}
    sums: dict[str, Amounts] = {}
    with database.transaction(writing=False):
        for node, domain, name, amount in database.rows(
            f"SELECT node_id, domain, name, amount FROM job_sums WHERE job_id = :job_id {of_node} ORDER BY node_id",
            params,
        ):
            sums.setdefault(node, {})[domain, name] = amount
        _add_corrections_of_jobs(database, sums, "1 = 1", {})
    return {node: node_record(node, amounts_) for node, amounts_ in sums.items()}


def _add_corrections_of_jobs(database: Database, nodes: dict[str, Amounts], where: str, params: Params) -> None:
    """What a job's energy cost otherwise than it was booked, its node's did too. Raises LedgerError."""
    for node, term, amount in database.rows(
        "SELECT node_id, term, SUM(delta_ng) FROM corrections JOIN epochs USING (epoch_id)"
        f" WHERE term IN ('operation', 'cooling', 'hardware') AND {where} AND {_IS_A_JOB} GROUP BY node_id, term",
        params,
    ):
        if node in nodes:
            nodes[node]["", f"{_OF_JOBS}.{term}"] = int(amount)


def span(first: int | None, last: int | None) -> Params:
    """The bounds of IN_TIME."""
    return {"first": 0 if first is None else first, "last": _MAX if last is None else last}


class Stretch:
    """Everything over a stretch of time [first, last), from the rows themselves; all of it in memory at once."""

    def __init__(self, database: Database, first: int | None, last: int | None) -> None:
        self._database = database
        self.params = span(first, last)
        self.sums: dict[tuple[str, str], Amounts] = {}  # (job, node) -> amounts
        self._provisional: dict[tuple[str, str], int] = {}
        self._settled: dict[tuple[str, str], int] = {}
        self._revised: dict[str, set[int]] = {}

    def read(self, jobs_: str, params: Params) -> "Stretch":
        """Read what `jobs_` says of job_id. Raises LedgerError."""
        for job_id, node_id, domain, content, prices, end in self._database.stream(
            "SELECT job_id, node_id, domain, content, prices, window_end_unix_ns FROM windows JOIN epochs USING"
            f" (epoch_id) WHERE {IN_TIME} AND {jobs_}",
            {**self.params, **params},
        ):
            key = (job_id, node_id)
            sums = self.sums.setdefault(key, {})
            for name, amount in amounts(content).items():
                sums[domain, name] = sums.get((domain, name), 0) + amount
            if prices and is_provisional(parse(prices)):
                self._provisional[key] = max(end, self._provisional.get(key, 0))
        for job_id, node_id, product_id, term, cause, delta, at, end in self._database.stream(
            "SELECT job_id, node_id, product_id, term, cause, delta_ng, at_unix_ns, window_end_unix_ns FROM corrections"
            f" JOIN epochs USING (epoch_id) WHERE {IN_TIME} AND {jobs_}",
            {**self.params, **params},
        ):
            key = (job_id, node_id)
            sums = self.sums.setdefault(key, {})
            name = f"correction.{term}.{product_id}"
            sums["", name] = sums.get(("", name), 0) + delta
            self._revised.setdefault(job_id, set()).add(at)
            if cause == "intensity":
                self._settled[key] = max(end, self._settled.get(key, 0))
        return self

    def jobs(self) -> Iterator[JobRecord]:
        """The jobs, by id. Raises LedgerError."""
        by_job: dict[str, list[str]] = {}
        for job_id, node_id in sorted(self.sums):
            by_job.setdefault(job_id, []).append(node_id)
        known = _known(self._database, _IS_A_JOB, {}) if by_job else {}
        settled = Settled(self._database)
        for job_id, nodes in by_job.items():
            keys = [(job_id, node_id) for node_id in nodes]
            if job_id not in known or not known[job_id].facts.keys() >= set(nodes):
                raise _unknown(job_id)
            yield record(
                job_id,
                {node_id: known[job_id].facts[node_id] for node_id in nodes},
                _summed(self.sums[key] for key in keys),
                1 + len(self._revised.get(job_id, ())),
                any(settled.is_open(key[1], self._provisional.get(key, 0), self._settled.get(key, 0)) for key in keys),
            )


def jobs_in(
    database: Database, product_id: str | None, role: Role | None, first: int | None, last: int | None
) -> list[JobRecord]:
    """The jobs of a stretch of time, with what they used in it. Raises LedgerError."""
    with database.transaction(writing=False):
        found = list(Stretch(database, first, last).read(_IS_A_JOB, {}).jobs())
    return [
        job
        for job in found
        if (product_id is None or job.product_id == product_id) and (role is None or job.role == role)
    ]


def node_totals_in(
    database: Database, node_id: str | None, first: int | None, last: int | None
) -> dict[str, NodeRecord]:
    """What each node used in a stretch of time. Raises LedgerError."""
    with database.transaction(writing=False):
        read = Stretch(database, first, last).read("job_id = :job_id", {"job_id": NODE_KEY})
        nodes = {node: sums for (_, node), sums in sorted(read.sums.items()) if node_id in (None, node)}
        _add_corrections_of_jobs(database, nodes, IN_TIME, read.params)
    return {node: node_record(node, sums) for node, sums in nodes.items()}


def _unknown(job_id: str) -> LedgerError:
    return LedgerError(
        f"the archive has amounts of job {job_id!r} and nothing of what it is: somebody has changed it. Fix: "
        "wattribute ledger verify names what was changed"
    )


def _summed(many: Iterable[Amounts]) -> Amounts:
    whole: Amounts = {}
    for sums in many:
        for key, amount in sums.items():
            whole[key] = whole.get(key, 0) + amount
    return whole
