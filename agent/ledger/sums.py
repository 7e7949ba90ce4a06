"""Whether closed rows add up: to what each job's totals say is closed, and with what nobody paid to the node.

One pass, in memory that doesn't grow with rows: amounts are summed as a linear fingerprint, `amount * hash of (job,
domain, name)` under a key drawn for this pass. Two sums that differ agree by chance once in about 2**60. Only where
they differ are the jobs in question added up one by one.
"""

import secrets
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from wattribute.agent.ledger.chains import Chain, Linked, Progress, Values
from wattribute.agent.ledger.schema import NODE_KEY

GROUPS = 4096
"""Jobs are summed in so many groups, so that one that is off is found among few."""
MOST_NAMED = 50
_HELD_IDS = 4096

Amounts = dict[tuple[str, str], int]
"""(domain, name) -> amount."""

decoded = msgspec.json.Decoder(dict[str, int]).decode


class Closed(NamedTuple):
    """What the totals of one job say is closed, by (domain, name), and which of them have no name of their own yet."""

    key: str
    amounts: Amounts
    unnamed: dict[str, tuple[str, str]]  # `unnamed.SLOT` in a row -> what it is called by now


class Trouble(NamedTuple):
    """Something that doesn't add up, in words, with the row at which it shows (position 0: none)."""

    text: str
    position: int = 0
    values: Values = ()
    column: str = ""


class Sums:
    """Adds up window rows as they pass. `ids` gives a job's number in the ledger, None where it has no totals."""

    def __init__(self, ids: Callable[[str], int | None], most_id: int) -> None:
        self._ids = ids
        self._held: dict[str, int | None] = {}
        # Where each job's last window began and ended, by the job's number: 16 bytes a job.
        self._starts = array("q", bytes(8 * (most_id + 1)))
        self._ends = array("q", bytes(8 * (most_id + 1)))
        self._key = secrets.randbits(64)
        self._groups = [0] * GROUPS
        self._unnamed: Amounts = {}
        self.jobs_uj: dict[str, int] = {}  # by domain
        self.unpaid_uj: dict[str, int] = {}
        self.node_uj: dict[str, int] = {}
        self.troubles: list[Trouble] = []
        self.more_troubles = 0
        self._without_totals: set[str] = set()

    def see(self, chain: Chain, rows: Iterable[Linked], progress: Progress | None = None) -> None:
        """Take all rows of `windows` in, following their chain."""
        key, groups = self._key, self._groups
        jobs_uj = self.jobs_uj
        last: tuple[object, object, object] = (None, None, None)
        for values in chain.follow(rows, progress):
            position = chain.rows
            _, _, start, job, domain, end, content, _ = values
            if (job, start, end) != last:  # the rows of one window stand together
                last = (job, start, end)
                self._window(position, values)
            try:
                amounts = decoded(content)
            except (msgspec.MsgspecError, TypeError, ValueError):
                self._add(Trouble(f"the content of {job!r} isn't integers by name: {content!r:.80}", position, values))
                continue
            here = 0
            for name, amount in amounts.items():
                if amount < 0 and not name.startswith("carry."):
                    self._add(Trouble(f"job {job!r}: {domain} {name} fell by {-amount}", position, values, "content"))
                if domain or not name.startswith("unnamed."):
                    here += amount * hash((key, job, domain, name))
                else:
                    self._unnamed[job, name] = self._unnamed.get((job, name), 0) + amount
            groups[hash((key, job)) % GROUPS] += here
            if not domain:
                continue
            if job != NODE_KEY:
                jobs_uj[domain] = jobs_uj.get(domain, 0) + sum(amounts.values())
            else:
                self._node(position, values, amounts)

    def _window(self, position: int, values: Values) -> None:
        _, _, start, job, _, end, _, _ = values
        held = self._held
        if job not in held:
            if len(held) >= _HELD_IDS:
                held.clear()
            held[job] = self._ids(job)
        row_id = held[job]
        if row_id is None or not 0 <= row_id < len(self._starts):
            if job not in self._without_totals and len(self._without_totals) < MOST_NAMED:
                self._without_totals.add(job)
                self._add(Trouble(f"job {job!r} has closed rows and no totals", position, values))
            return
        last_start, last_end = self._starts[row_id], self._ends[row_id]
        try:
            if start >= end or (start < last_end and (start, end) != (last_start, last_end)):
                self._add(Trouble(f"the window of {job!r} from {start} to {end} overlaps another", position, values))
            self._starts[row_id], self._ends[row_id] = start, end
        except TypeError:
            self._add(Trouble(f"the window of {job!r} begins or ends at no time", position, values))

    def _node(self, position: int, values: Values, amounts: dict[str, int]) -> None:
        """The node's own window closes after those of its jobs: what they and nobody paid is never more than it."""
        domain = values[4]
        unpaid = sum(amount for name, amount in amounts.items() if name.startswith("unattributed."))
        node = sum(amounts.values()) - unpaid
        self.unpaid_uj[domain] = self.unpaid_uj.get(domain, 0) + unpaid
        self.node_uj[domain] = self.node_uj.get(domain, 0) + node
        jobs = self.jobs_uj.get(domain, 0)
        over = jobs + self.unpaid_uj[domain] - self.node_uj[domain]
        if over > 0:
            text = (
                f"until this window, closed rows of {domain} hold {jobs} uJ of jobs and {self.unpaid_uj[domain]} that "
                f"nobody paid: {over} more than the node's {self.node_uj[domain]}"
            )
            self._add(Trouble(text, position, values))

    def _add(self, trouble: Trouble) -> None:
        if len(self.troubles) < MOST_NAMED:
            self.troubles.append(trouble)
        else:
            self.more_troubles += 1

    def off(self, closed: Iterable[Closed]) -> set[int]:
        """The groups in which a job's rows and its totals differ."""
        key, groups = self._key, list(self._groups)
        for job, amounts, unnamed in closed:
            here = 0
            renamed = dict(amounts)
            for name, called in unnamed.items():
                amount = self._unnamed.pop((job, name), 0) if self._unnamed else 0
                renamed[called] = renamed.get(called, 0) - amount
            for (domain, name), amount in renamed.items():
                here += amount * hash((key, job, domain, name))
            groups[hash((key, job)) % GROUPS] -= here
        off = {group for group, rest in enumerate(groups) if rest}
        return off | {self.group(job) for (job, _), amount in self._unnamed.items() if amount}

    def group(self, job: object) -> int:
        """The group that a job is in."""
        return hash((self._key, job)) % GROUPS


def added_up(rows: Iterable[Values], concerned: Callable[[str], bool]) -> dict[str, Amounts]:
    """What closed rows hold of the jobs in question, by job."""
    found: dict[str, Amounts] = {}
    for values in rows:
        job, domain, content = values[3], values[4], values[6]
        if not concerned(job):
            continue
        sums = found.setdefault(job, {})
        try:
            amounts = decoded(content)
        except (msgspec.MsgspecError, TypeError, ValueError):
            continue
        for name, amount in amounts.items():
            sums[domain, name] = sums.get((domain, name), 0) + amount
    return found


def differences(in_rows: Amounts, closed: Closed) -> Iterator[tuple[str, str, int, int | None]]:
    """(domain, name, what rows hold, what the totals say) where they differ; None: totals know no such name."""
    left = dict(in_rows)
    called = {at: name for name, at in closed.unnamed.items()}
    for at, amount in closed.amounts.items():
        found = left.pop(at, 0) + (left.pop(("", called[at]), 0) if at in called else 0)
        if found != amount:
            yield (*at, found, amount)
    for (domain, name), amount in left.items():
        if amount:
            yield domain, name, amount, None


def energy_uj(amounts: Amounts) -> dict[str, int]:
    """A job's microjoules by domain."""
    found: dict[str, int] = {}
    for (domain, _), amount in amounts.items():
        if domain:
            found[domain] = found.get(domain, 0) + amount
    return found


def saved_node_uj(books: Any) -> tuple[dict[str, int], dict[str, int]] | None:
    """(the node's, nobody's) microjoules by domain as the agent saved them; None where it saved none."""
    if not isinstance(books, dict) or not {"node_energy_uj", "unattributed_uj"} <= books.keys():
        return None
    node: dict[str, int] = {}
    unpaid: dict[str, int] = {}
    for kind, _, _, amount in books["node_energy_uj"]:
        node[kind] = node.get(kind, 0) + amount
    for kind, _, amount in books["unattributed_uj"]:
        unpaid[kind] = unpaid.get(kind, 0) + amount
    return node, unpaid
