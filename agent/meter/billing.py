"""The receipts of one worker: takes requests from its tally and settled windows from the agent's answers.

The reporter's thread drives it; whoever asks for a receipt may be in any thread.
"""

import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, NamedTuple

from wattribute.agent.core.model import BUCKETS_UJ
from wattribute.agent.meter.account_file import AccountFile
from wattribute.agent.meter.bills import AT_ONCE, JSCE, V_PER_NS, Bill, Bills, Price, Row
from wattribute.agent.meter.receipts import SCHEMA, RequestReceipt, bounds_of, grams_of
from wattribute.agent.meter.request import Detailed, Request
from wattribute.agent.meter.tally import Tally
from wattribute.agent.process import rfc3339
from wattribute.agent.receipts import OVERLAPPED, TERMS, grams_text
from wattribute.agent.session import Job

_NG_PER_G = 1e9
_BREATH_S = 1e-4
_RUNNING = "not settled yet: it is in flight"
_OPEN = "not settled yet: the window in which it ended isn't"
_UNKNOWN = "what it took isn't known: the agent was away, or lost the window of it"
_SHORT = "a part of what it took isn't known: the agent was restarted before it told of it"
_EARLY = "it began before its job was measured: what it took until then is in nobody's bill"
_NOBODY = "nobody measures the job now: what it took is known when somebody does"
_RETRAINING = "retraining: what its interval comes to is billed to the tenant when it is over; it is in no sum here"


class Estimate(NamedTuple):
    """What a running request took so far, at the rate of the last window: uJ, and grams CO2e of JSC^e and ASC^e."""

    energy_uj: int
    jsce_gco2e: float
    asce_gco2e: float


class Billing:
    """Of one worker's requests; `all_have`: each has a receipt."""

    def __init__(self, file: AccountFile, tally: Tally, job: Job, *, all_have: bool) -> None:
        self.seen_ns = _boottime_ns()
        self.open_unix_ns: int | None = None  # since when the job is measured
        self.of_job: Mapping[str, Any] | None = None  # the job's own receipt, as JSON has it, a while ago
        self._file = file
        self._tally = tally
        self._job = job
        self._all_have = all_have
        self._bills = Bills(all_have=all_have, pause=_breathe)
        self._lock = threading.RLock()  # a signal's handler may ask while its own thread is in here
        self._strays: dict[str, Row] = {}
        self._price: Price | None = None
        self._retraining_open = False

    def hear(self) -> None:
        """Takes what has ended since, some at a time: in between others have their turn at interpreter and lock."""
        while self._more():
            _breathe()

    def _more(self) -> bool:
        with self._lock:
            self._hear_ended(AT_ONCE)
            return len(self._tally.ended) > 0

    def waiting(self) -> bool:
        """Whether a request waits for a window."""
        with self._lock:
            self._hear_ended()
            return len(self._bills) > 0 or bool(self._tally.watched)

    @property
    def any(self) -> bool:
        """Whether any request has a receipt."""
        with self._lock:
            return self._bills.any

    def take(self, answer: Mapping[str, Any]) -> None:
        """What the agent says of windows that were settled since it was asked last."""
        if "windows" not in answer:
            return
        with self._lock:
            self._hear()
            unit, ng = answer["unit"], answer["product_ng_per_unit"]
            self._price = None if unit is None or ng is None else Price(unit, ng)
            self._retraining_open = bool(answer["retraining_open"])
            for window in answer["windows"]:
                if window["until_ns"] > self.seen_ns:
                    self.seen_ns = window["until_ns"]
                    self._settle(window["since_ns"], window["until_ns"], window["rows"])

    def renewed(self) -> bool:
        """Whether the worker lost its slot: its next has a virtual time of its own, and nothing of before is known."""
        with self._file.taking, self._lock:  # nobody's request of the new slot is heard before that
            if not self._file.renew():
                return False
            self.seen_ns = _boottime_ns()
            self._bills = Bills(all_have=self._all_have, pause=_breathe)
            self._strays = {}
            return True

    def finish(self) -> None:
        """No window comes any more."""
        with self._lock:
            self._bills.finish()

    def settled(self, request_id: str) -> bool:
        """Whether there is nothing to wait for."""
        with self._lock:
            bill = self._find(request_id)
            return bill is None or bill.settled

    def receipt(self, request_id: str) -> RequestReceipt | None:
        """As far as it is known; None for a request that isn't, or whose receipt isn't kept any more."""
        with self._lock:
            bill = self._find(request_id)
            return None if bill is None else RequestReceipt(self._parts(bill))

    def estimate(self, request: Request) -> Estimate | None:
        """Of a request with a receipt; None before the first window with any work. Waits for no settlement."""
        rate = self._bills.rate
        if rate is None or not isinstance(request, Detailed) or not request.wanted:
            return None
        if request._row.tally is not self._tally:
            return None
        now_v = _fine(self._tally.v_ns())
        bill = self._bills.find(request.number)
        if bill is None and request.v_end is not None:
            with self._lock:
                self._hear_ended()
                bill = self._bills.find(request.number)
        known: list[int] | None = None
        if bill is not None:
            known, since_v = bill.so_far()
            more_v = 0 if bill.settled else bill.overlap_v(since_v, now_v)
        elif request._row.over:  # the parent process's, or no more kept
            return None
        else:
            more_v = round(request.weight * max(0, now_v - _fine(request.v_begin)))
        energy_uj = rate.energy_uj * more_v // rate.busy_v
        jsce_ng = rate.jsce_ng * more_v // rate.busy_v
        asce_ng = rate.asce_ng * more_v // rate.busy_v
        if known is not None:
            energy_uj += known[0]
            jsce_ng += sum(known[place] for place in JSCE)
            asce_ng += sum(known[1:])
        return Estimate(energy_uj, jsce_ng / _NG_PER_G, asce_ng / _NG_PER_G)

    def _hear(self) -> None:
        """Requests that began or ended since."""
        for request in self._tally.in_flight():
            self._bill(request)
        self._hear_ended()

    def _hear_ended(self, most: int = sys.maxsize) -> None:
        ended = self._tally.ended
        while ended and most > 0:
            request = ended.popleft()
            most -= 1
            bill = self._bill(request)
            assert request.v_end is not None  # as of those that have ended
            bill.end(_fine(request.v_end), request.ended_unix_ns or 0, request.units, aborted=request.aborted)
            self._bills.ended(bill)

    def _bill(self, request: Detailed) -> Bill:
        bill = self._bills.find(request.number)
        if bill is None:
            row = request._row
            v_begin, began_ns = _fine(request.v_begin), request.began_unix_ns
            bill = Bill(request.number, row.name, request.weight, v_begin, began_ns, row.prefix)
            bill.units = request.units
            self._bills.add(bill)
        return bill

    def _find(self, request_id: str) -> Bill | None:
        """That of one request, without a look at the others in flight."""
        self._hear_ended()
        number = _number(request_id)
        bill = self._bills.find(number)
        if bill is None:
            request = self._tally.find_in_flight(number)
            bill = None if request is None else self._bill(request)
        return bill if bill is not None and bill.id == request_id else None

    def _settle(self, since_ns: int, until_ns: int, answered: list[list[Any]]) -> None:
        since_v_ns, v_ns = self._file.v_at(since_ns), self._file.v_at(until_ns)
        if since_v_ns is not None and not self._strays:
            self._bills.skip(_fine(since_v_ns))  # as far as the window before, or over one that a restart took along
        rows = self._strays
        for tenant, *amounts in answered:
            busy_v = (self._file.busy_at(until_ns, tenant) or 0) * V_PER_NS
            before = rows.get(tenant)
            if before is not None:
                amounts = [a + b for a, b in zip(before.amounts, amounts, strict=True)]
                busy_v += before.busy_v
            rows[tenant] = Row(tenant, tuple(amounts), busy_v)
        if v_ns is None:  # a report that this worker had no part in, or long ago: with the next one
            return
        self._strays = {}
        energies_uj: dict[int, list[int]] = {}
        latest: dict[int, Bill] = {}
        for bill in self._bills.settle(_fine(v_ns), rows.values()):
            bill.price, bill.retraining_open = self._price, self._retraining_open
            energy_uj = bill.energy_uj
            if energy_uj is not None:
                bucket = bisect_left(BUCKETS_UJ, energy_uj)
                energies_uj.setdefault(bucket, []).append(energy_uj)
                latest[bucket] = bill
        for bucket, bill in latest.items():
            self._file.add_receipts(bucket, energies_uj[bucket], bill.id, bill.ended_ns or 0)

    def _parts(self, bill: Bill) -> dict[str, Any]:
        """A receipt as JSON has it."""
        amounts = bill.amounts
        price, retraining_open = self._price, self._retraining_open
        if bill.settled:
            price, retraining_open = bill.price, bill.retraining_open
        terms_ng: dict[str, int | None] = dict.fromkeys(TERMS)
        notes = [] if bill.settled else [_RUNNING if bill.ended_ns is None else _OPEN]
        if amounts is not None:
            terms_ng.update(zip(TERMS, amounts[1:], strict=True))
        elif bill.settled:
            notes = [_UNKNOWN]
        if bill.short and amounts is not None:
            notes.append(_SHORT)
        if self.open_unix_ns is None or bill.began_ns < self.open_unix_ns:
            notes.append(_EARLY)
        if price is not None and amounts is not None:
            served = _served(bill, price.unit)
            terms_ng["product"] = amounts[-1] + round(served * price.ng)
            each = grams_text(price.ng / _NG_PER_G)
            notes.append(f"what the product cost to make is written off by units: {each} for each {price.unit}")
        if retraining_open:
            terms_ng["retraining"] = None
            notes.append(_RETRAINING)
        if self._job.agent_path is None and not self._job.measured_here:
            notes.append(_NOBODY)
        if self.of_job is not None and OVERLAPPED in self.of_job["notes"]:
            notes.append(OVERLAPPED)  # the other jobs' part is in no request
        ended_ns = bill.ended_ns
        grams = grams_of(terms_ng)
        return {
            "schema": SCHEMA,
            "request_id": bill.id,
            "job_id": self._job.id,
            "product_id": self._job.product_id,
            "tenant": bill.tenant,
            "weight": bill.weight,
            "started_at": rfc3339(bill.began_ns / 1e9),
            "ended_at": None if ended_ns is None else rfc3339(ended_ns / 1e9),
            "duration_s": max(0, (time.time_ns() if ended_ns is None else ended_ns) - bill.began_ns) / 1e9,
            "aborted": bill.aborted,
            "units": dict(bill.units),
            "energy_uj": None if amounts is None else amounts[0],
            "energy_j": None if amounts is None else amounts[0] / 1e6,
            "gco2e": grams,
            "quality": None if self.of_job is None else self.of_job["quality"],
            "bounds": None if self.of_job is None else bounds_of(grams, self.of_job),
            "basis": "in-process" if self._job.measured_here else "daemon",
            "settled": bill.settled and not retraining_open,
            "retraining_open": retraining_open,
            "notes": notes,
        }


def _served(bill: Bill, unit: str) -> float:
    """How much of a unit: an answered request is one `request`."""
    if unit == "request":
        return 0.0 if bill.aborted or bill.ended_ns is None else 1.0
    return bill.units.get(unit, 0.0)


def _number(request_id: str) -> int:
    """A request's number in its process, as its name has it; 0: none."""
    _, _, number = request_id.rpartition("-")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 20 else 0


def _breathe() -> None:
    """Others have their turn at the interpreter."""
    time.sleep(_BREATH_S)


def _fine(v_ns: float) -> int:
    return int(v_ns * V_PER_NS)


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns()


__all__ = ["Billing", "Estimate"]
