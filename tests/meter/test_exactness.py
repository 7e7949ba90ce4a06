"""From begin and end to the receipt, without sensors and sockets: against the plain integral, in whole numbers.

The integral looks at every stretch between two events, in fractions of the job's energy. The receipts come the whole
way: tally, account, report, settlement by the node's account of the job, and the bills of single requests.
"""

import asyncio
import random
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattribute.agent.core.claims import Entry
from wattribute.agent.core.model import CPU_NS_SLOT, TERM_SLOT, Job, energy_slot
from wattribute.agent.core.served import ServedProduct
from wattribute.agent.core.served_account import Account, bill_of
from wattribute.agent.core.served_sender import Counts, Report
from wattribute.agent.meter.account_file import AccountFile
from wattribute.agent.meter.billing import Billing
from wattribute.agent.meter.request import Request
from wattribute.agent.meter.tally import Tally
from wattribute.agent.session import Job as Session

S = 10**9
CPUS = 4
DIRECT, IDLE = energy_slot("cpu", "direct", "measured"), energy_slot("cpu", "idle", "measured")
TENANTS = ("", "acme", "zeta")
SCALE, FINE = 1 << 100, 1 << 40
"""Virtual time of the integral is in whole numbers of 1 / SCALE ns, energy of 1 / FINE uJ."""


class Bench:
    """One worker, its job and its agent, on a clock of the test's. Of every request, what the integral says."""

    def __init__(self) -> None:
        self.now_ns = time.monotonic_ns()
        self.file = AccountFile.open(None)
        self.tally = Tally(self.file, lambda: self.now_ns)
        self.billing = Billing(self.file, self.tally, Session("serve-llm", {}, {}), all_have=True)
        self.entry = Entry(Job(id="serve-llm", product_id="llm"), self.now_ns)
        self.product = ServedProduct("llm", 10)
        self.account = Account(self.product, "request", 0, CPUS, self.now_ns)
        self.requests: list[Request] = []
        self.open: dict[int, int] = {}  # weight, by place in `requests`
        self.weight = 0
        self.v = 0
        self.busy_ns = 0
        self.begun: dict[int, int] = {}  # V at the begin, or at the begin of the window
        self.own: dict[int, int] = {}  # weight * dV in this window
        self.due: list[tuple[int, int, dict[int, int]]] = []  # windows to settle: until, busy time, whose
        self.expected: dict[int, int] = {}  # uJ * FINE
        self._rest = [Fraction(0)] * 3
        self._at_ns = self._until_ns = self.report()  # the first tells that nothing was before
        self.due = []

    def begin(self, tenant: str, weight: int) -> int:
        number = len(self.requests)
        self.requests.append(self.tally.request(tenant=tenant, weight=weight, receipt=True))
        self.open[number], self.begun[number] = weight, self.v
        self.weight += weight
        return number

    def end(self, number: int) -> None:
        self.requests[number].end()
        self._until_now(number)
        weight = self.open.pop(number)
        self.weight -= weight

    def pass_(self, ns: int) -> None:
        self.now_ns += ns
        if self.weight:
            self.v += ns * SCALE // self.weight
            self.busy_ns += ns

    def report(self) -> int:
        """A window ends; when."""
        for number in self.open:
            self._until_now(number)
        report = self.file.report(self.now_ns)
        served = [(row.tenant, Counts(row.requests, row.aborted, {})) for row in report.served]
        told = Report(token="t", until_ns=report.until_ns, served=served, shares=report.shares, asks=True)
        self.account.report(told, report.until_ns)
        self.file.reported(report)
        self.due.append((report.until_ns, self.busy_ns, self.own))
        self.busy_ns, self.own = 0, {}
        return report.until_ns

    def settle(self, at_ns: int, active_uj: int, idle_uj: int, cpu_ns: int) -> None:
        """A tick at or after the last report: since the tick before the job has used so much, evenly."""
        for slot, amount in ((DIRECT, active_uj), (IDLE, idle_uj), (CPU_NS_SLOT, cpu_ns)):
            self.entry.values[slot] += amount
        self.entry.values[TERM_SLOT["operation"]] += 7 * (active_uj + idle_uj)
        self.account.tick(at_ns, self.entry, {})
        for until_ns, busy_ns, own in self.due:
            # What it used before the last tick and isn't split yet, and evenly what it used since.
            part = Fraction(until_ns - self._at_ns, at_ns - self._at_ns)
            assert 0 < part <= 1
            active, idle, cpu = (
                rest + amount * part for rest, amount in zip(self._rest, (active_uj, idle_uj, cpu_ns), strict=True)
            )
            self._rest = [amount * (1 - part) for amount in (active_uj, idle_uj, cpu_ns)]
            if busy_ns:
                active *= min(Fraction(1), busy_ns * CPUS / cpu) if cpu else 1
                whole = active + idle * Fraction(busy_ns, max(busy_ns, until_ns - self._until_ns))
                above, below = (whole * FINE / (busy_ns * SCALE)).as_integer_ratio()
                for number, own_v in own.items():
                    self.expected[number] = self.expected.get(number, 0) + own_v * above // below
            self._until_ns = until_ns
        self.due, self._at_ns = [], at_ns
        windows = [
            {"since_ns": since_ns, "until_ns": until_ns, "rows": [[row.name, *row.bill] for row in rows]}
            for since_ns, until_ns, rows in self.account.windows("t", self.billing.seen_ns, self.file.slot())
        ]
        answer: dict[str, Any] = {"windows": windows, "unit": None, "product_ng_per_unit": None}
        self.billing.take({**answer, "retraining_open": False})

    def check(self, windows: int) -> None:
        """Nothing is in flight, all is settled: sums are exact, and each request has what the integral says."""
        self.billing.finish()
        self.account.close()
        totals = self.product.totals(self.account.unsettled(), self.account.in_flight())
        billed = [[one.energy_uj, *one.terms_ng] for one in totals.tenants.values()]
        idle = [totals.idle_uj, *totals.idle_ng]
        assert [sum(place) for place in zip(idle, *billed, strict=True)] == bill_of(self.entry)
        sums_uj, ng = dict.fromkeys(TENANTS, 0), 0
        for number, request in enumerate(self.requests):
            receipt = self.billing.receipt(request.id)
            assert receipt is not None
            assert receipt.settled
            assert receipt.energy_uj is not None
            expected_uj = self.expected.get(number, 0) / FINE
            assert receipt.energy_uj == pytest.approx(expected_uj, rel=1e-6, abs=2 * windows), number
            sums_uj[request.tenant] += receipt.energy_uj
            ng += round((receipt.terms["operation"] or 0) * 10**9)
        assert sums_uj == {name: totals.tenants[name].energy_uj if name in totals.tenants else 0 for name in TENANTS}
        assert ng == sum(one.terms_ng[0] for one in totals.tenants.values())
        assert sum(one.units.get("request", 0) for one in totals.tenants.values()) == len(self.requests) * 10**6

    def _until_now(self, number: int) -> None:
        more = self.open[number] * (self.v - self.begun[number])
        if more:
            self.own[number] = self.own.get(number, 0) + more
        self.begun[number] = self.v


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1 << 32))
def test_each_receipt_is_the_plain_integral_of_its_time(seed: int) -> None:
    """Any course of 40 events, with windows that end at ticks or before them."""
    bench, dice = Bench(), random.Random(seed)

    def used() -> tuple[int, int, int]:
        return dice.randint(0, 10**12), dice.choice([0, 10**12]), dice.choice([0, S, 9 * S, 200 * S])

    for _ in range(40):
        bench.pass_(dice.choice([0, dice.randint(S, 5 * S)]))
        what = dice.choice(["begin", "begin", "end", "report"])
        if what == "begin":
            bench.begin(dice.choice(TENANTS), dice.randint(1, 3))
        elif what == "end" and bench.open:
            bench.end(dice.choice(list(bench.open)))
        elif what == "report":
            bench.pass_(S)
            until_ns = bench.report()
            late_ns = dice.choice([0, dice.randint(0, 2 * S)])
            bench.pass_(late_ns)
            bench.settle(until_ns + late_ns, *used())
    for number in list(bench.open):
        bench.pass_(S)
        bench.end(number)
    bench.pass_(S)
    bench.settle(bench.report(), *used())
    bench.check(windows=40)


def test_ten_thousand_at_once_have_exactly_their_parts() -> None:
    """Tasks of one event loop, all in flight together, which end in any order."""
    bench, dice = Bench(), random.Random(5)

    async def serve(ends: asyncio.Event) -> None:
        number = bench.begin(dice.choice(TENANTS), dice.randint(1, 3))
        await ends.wait()
        bench.end(number)

    async def all_at_once() -> None:
        ends = [asyncio.Event() for _ in range(10_000)]
        tasks = []
        for group in range(0, len(ends), 200):
            tasks += [asyncio.create_task(serve(one)) for one in ends[group : group + 200]]
            await asyncio.sleep(0)
            bench.pass_(dice.randint(S // 100, S // 10))
        assert bench.tally.count_in_flight() == 10_000
        bench.settle(bench.report(), 10**14, 10**13, 10**9)
        dice.shuffle(ends)
        for group in range(0, len(ends), 200):
            for one in ends[group : group + 200]:
                one.set()
            await asyncio.sleep(0)
            bench.pass_(dice.randint(S // 100, S // 10))
            if group % 2000 == 0:
                bench.settle(bench.report(), dice.randint(10**13, 10**14), 10**13, 10**9)
        await asyncio.gather(*tasks)

    asyncio.run(all_at_once())
    assert bench.tally.count_in_flight() == 0
    bench.settle(bench.report(), 10**14, 10**13, 10**9)
    bench.check(windows=8)
