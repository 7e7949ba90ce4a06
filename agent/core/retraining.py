"""The retraining tax: what keeping a product trained cost in an interval, over the jobs that it served in it.

cf_rt(interval) * w_j / sum of the weights of the jobs that ended in the interval; nobody served: untaxed (formulas.md,
"Operation"). A job that is metered weighs in by the units that it served in it, ended or not. Intervals are aligned to
Unix time in UTC. Masses in nanograms, times in Unix nanoseconds.

A node ends thousands of jobs a day. Who was served is kept only for products that declare an interval or have had a
retraining job, and is written down in chunks of its own, so that one more doesn't write the others again. A metered
job, whose weight grows all the time, is a chunk by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wattribute.agent.core.attribution import apportion
from wattribute.agent.core.model import Term
from wattribute.agent.core.units import DAY_S, NS_PER_S

CHUNK_JOBS = 256
PREFIX = "served:"
_SET_BACK_NS = NS_PER_S


class Closed(NamedTuple):
    """One interval of one product, split: job id -> (JSC, hardware) in ng, and what nobody was there to pay.

    `term` is that of the JSC; `cause` what the ledger's corrections say.
    """

    product_id: str
    start_unix_ns: int
    end_unix_ns: int
    parts: Mapping[str, tuple[int, int]]
    untaxed: tuple[int, int]
    term: Term = "retraining"
    cause: str = "retraining"

    def owed(self, job_id: str) -> dict[tuple[str, Term], int]:
        """What a job owes, by product and term."""
        terms: tuple[Term, Term] = (self.term, "overhead_hardware")
        return {(self.product_id, term): ng for term, ng in zip(terms, self.parts[job_id], strict=True) if ng}


@dataclass(slots=True)
class _Interval:
    start_unix_ns: int
    end_unix_ns: int
    jsc_ng: int = 0
    hardware_ng: int = 0
    chunk_of: dict[str, int] = field(default_factory=dict)  # job id -> the chunk that it is in
    chunks: dict[int, dict[str, int]] = field(default_factory=dict)  # by number: job id -> weight
    metered: set[int] = field(default_factory=set)  # chunks that are one metered job each
    filling: int | None = None  # the chunk that others are put into


@dataclass(slots=True)
class _Product:
    interval_ns: int = DAY_S * NS_PER_S
    intervals: list[_Interval] = field(default_factory=list)  # those that are open
    untaxed: tuple[int, int] = 0, 0  # JSC and hardware of the time between them


class Retraining:
    """All products' open intervals."""

    def __init__(self) -> None:
        self._products: dict[str, _Product] = {}
        self._changed: set[tuple[str, int]] = set()
        self._closed_unix_ns = 0  # until then intervals are closed

    def follow(self, product_id: str, interval_s: int | None = None) -> None:
        """From now on it is kept whom a product serves; an interval that is open keeps its length."""
        product = self._products.setdefault(product_id, _Product())
        if interval_s is not None:
            product.interval_ns = interval_s * NS_PER_S

    def follows(self, product_id: str) -> bool:
        """Whether it is kept whom this product serves."""
        return product_id in self._products

    def serve(self, product_id: str, job_id: str, weight: int, ended_unix_ns: int) -> None:
        """A payer of a product that is followed ended. One that ends twice in an interval counts once, as the last
        time; one whose interval is closed already counts in the next.
        """
        interval = self._interval(product_id, max(ended_unix_ns, self._closed_unix_ns))
        number = interval.chunk_of.get(job_id)
        if number is None:
            number = interval.filling
            if number is None or len(interval.chunks[number]) >= CHUNK_JOBS:
                number = interval.filling = self._begin(product_id, interval)
            interval.chunk_of[job_id] = number
        elif number in interval.metered or interval.chunks[number][job_id] == weight:
            return
        interval.chunks[number][job_id] = weight
        self._changed.add((product_id, number))

    def weigh(self, product_id: str, job_id: str, weight: int, until_unix_ns: int) -> None:
        """A metered job of a product that is followed served so much more until a moment; that it ends or ended adds
        nothing to it.
        """
        if weight <= 0:
            return
        interval = self._interval(product_id, max(until_unix_ns, self._closed_unix_ns))
        number = interval.chunk_of.get(job_id)
        if number is None or number not in interval.metered:
            if number is not None:
                del interval.chunks[number][job_id]
                self._changed.add((product_id, number))
            number = self._begin(product_id, interval)
            interval.metered.add(number)
            interval.chunk_of[job_id] = number
            interval.chunks[number][job_id] = 0
        interval.chunks[number][job_id] += weight
        self._changed.add((product_id, number))

    def _begin(self, product_id: str, interval: _Interval) -> int:
        """A chunk under the first number that none of the product's has."""
        taken = {number for other in self._products[product_id].intervals for number in other.chunks}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        interval.chunks[number] = {}
        return number

    def open(self, job_id: str) -> bool:
        """Whether a job was served in an interval that isn't closed yet."""
        return any(job_id in i.chunk_of for product in self._products.values() for i in product.intervals)

    def add(self, product_id: str, jsc_ng: int, hardware_ng: int, start_unix_ns: int, end_unix_ns: int) -> None:
        """Cost of a product's retraining, spread evenly over a stretch of time, whose intervals share it.

        An absence of the agent may span many: those in between that served nobody are one amount, untaxed.
        """
        self.follow(product_id)
        start_ns = max(start_unix_ns, self._closed_unix_ns)
        end_ns = max(end_unix_ns, start_ns + 1)
        for at_ns in (start_ns, end_ns - 1):
            self._interval(product_id, at_ns)
        product = self._products[product_id]
        parts = [max(0, min(i.end_unix_ns, end_ns) - max(i.start_unix_ns, start_ns)) for i in product.intervals]
        parts.append(max(0, end_ns - start_ns - sum(parts)))
        jscs_ng, hardwares_ng = apportion(jsc_ng, parts), apportion(hardware_ng, parts)
        for interval, part_ng, hardware_part_ng in zip(product.intervals, jscs_ng, hardwares_ng, strict=False):
            interval.jsc_ng += part_ng
            interval.hardware_ng += hardware_part_ng
        product.untaxed = product.untaxed[0] + jscs_ng[-1], product.untaxed[1] + hardwares_ng[-1]

    def close(self, unix_ns: int) -> list[Closed]:
        """Split the intervals that are over; of a clock that was set back by more than a second also those to come."""
        closed = []
        for product_id, product in self._products.items():
            going_on = []
            for interval in product.intervals:
                if interval.end_unix_ns > unix_ns and interval.start_unix_ns <= unix_ns + _SET_BACK_NS:
                    going_on.append(interval)
                    continue
                closed.append(_split(product_id, interval))
                self._changed.update((product_id, number) for number in interval.chunks)
            product.intervals = going_on
            if any(product.untaxed):
                closed.append(Closed(product_id, unix_ns, unix_ns, {}, product.untaxed))
                product.untaxed = 0, 0
        if unix_ns > self._closed_unix_ns or unix_ns + _SET_BACK_NS < self._closed_unix_ns:
            self._closed_unix_ns = unix_ns
        return closed

    def served_chunks(self) -> dict[str, Any]:
        """The chunks that changed since the last call, as plain JSON values under stable names; [] for an empty one."""
        content: dict[tuple[str, int], Any] = {key: [] for key in self._changed}
        for product_id, number in self._changed:
            for interval in self._products[product_id].intervals:
                if number in interval.chunks:
                    times = interval.start_unix_ns, interval.end_unix_ns
                    jobs = [*map(list, interval.chunks[number].items())]
                    content[product_id, number] = [*times, jobs, *["metered"] * (number in interval.metered)]
        self._changed = set()
        return {f"{PREFIX}{product_id}:{number}": chunk for (product_id, number), chunk in content.items()}

    def restore_served(self, state: Mapping[str, Any]) -> None:
        """Take in all that `served_chunks` gave so far, the last of each name; other names are left alone."""
        for name, chunk in state.items():
            if name.startswith(PREFIX) and chunk:
                product_id, _, number = name.removeprefix(PREFIX).rpartition(":")
                start_unix_ns, end_unix_ns, jobs, *metered = chunk
                self.follow(product_id)
                interval = self._at(product_id, start_unix_ns, end_unix_ns)
                interval.chunks[int(number)] = dict(jobs)
                interval.chunk_of.update(dict.fromkeys(interval.chunks[int(number)], int(number)))
                if metered:
                    interval.metered.add(int(number))
                else:
                    interval.filling = int(number)

    def save(self) -> dict[str, Any]:
        """The rest of what must survive a restart, as plain JSON values."""
        return {
            "closed_unix_ns": self._closed_unix_ns,
            "products": {
                product_id: [[i.start_unix_ns, i.end_unix_ns, i.jsc_ng, i.hardware_ng] for i in product.intervals]
                for product_id, product in self._products.items()
            },
            "untaxed": {one: list(product.untaxed) for one, product in self._products.items() if any(product.untaxed)},
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `save` gave; the served come with `restore_served`."""
        self._closed_unix_ns = saved["closed_unix_ns"]
        for product_id, intervals in saved["products"].items():
            self.follow(product_id)
            for start_unix_ns, end_unix_ns, jsc_ng, hardware_ng in intervals:
                interval = self._at(product_id, start_unix_ns, end_unix_ns)
                interval.jsc_ng, interval.hardware_ng = jsc_ng, hardware_ng
        for product_id, (jsc_ng, hardware_ng) in saved.get("untaxed", {}).items():
            self._products[product_id].untaxed = jsc_ng, hardware_ng

    def _interval(self, product_id: str, unix_ns: int) -> _Interval:
        """The interval that a moment is in; one that is open already goes first."""
        product = self._products[product_id]
        for interval in product.intervals:
            if interval.start_unix_ns <= unix_ns < interval.end_unix_ns:
                return interval
        start_unix_ns = unix_ns - unix_ns % product.interval_ns
        return self._at(product_id, start_unix_ns, start_unix_ns + product.interval_ns)

    def _at(self, product_id: str, start_unix_ns: int, end_unix_ns: int) -> _Interval:
        intervals = self._products[product_id].intervals
        for interval in intervals:
            if (interval.start_unix_ns, interval.end_unix_ns) == (start_unix_ns, end_unix_ns):
                return interval
        intervals.append(_Interval(start_unix_ns, end_unix_ns))
        return intervals[-1]


def _split(product_id: str, interval: _Interval) -> Closed:
    served = {job_id: weight for jobs in interval.chunks.values() for job_id, weight in jobs.items()}
    whole = interval.jsc_ng, interval.hardware_ng
    return split_by(served, product_id, interval.start_unix_ns, interval.end_unix_ns, whole)


def split_by(
    weights: Mapping[str, int],
    product_id: str,
    start_unix_ns: int,
    end_unix_ns: int,
    whole: tuple[int, int],
    term: Term = "retraining",
    cause: str = "retraining",
) -> Closed:
    """JSC and hardware, ng, over jobs by weights above 0; without any job they are untaxed."""
    times = start_unix_ns, end_unix_ns
    if not weights or not any(whole):
        return Closed(product_id, *times, {}, whole, term, cause)
    jscs_ng, hardwares_ng = (apportion(amount_ng, list(weights.values())) for amount_ng in whole)
    both = zip(weights, jscs_ng, hardwares_ng, strict=True)
    parts = {job_id: (jsc_ng, hardware_ng) for job_id, jsc_ng, hardware_ng in both if jsc_ng or hardware_ng}
    return Closed(product_id, *times, parts, (0, 0), term, cause)


def served(state: Mapping[str, Any]) -> set[str]:
    """The jobs that may still be billed for retraining, by what `served_chunks` gave: for who reads it elsewhere."""
    chunks = (chunk for name, chunk in state.items() if name.startswith(PREFIX) and chunk)
    return {job_id for _, _, jobs, *_ in chunks for job_id, _ in jobs}
