"""The account of one metered job: what its senders reported, and how what the job used is settled by it.

Every report ends a window; at the first tick at or after its end, what the job used in it is split over the requests
that were in flight (served_window.py). Where several senders report of one job, a stretch is settled when all that
still live have told of it. Times in ns (CLOCK_BOOTTIME), energy in uJ, mass in ng, units of work in millionths.

A sender's first window is as long as its busiest slot was busy, or, without shares, begins where the account is
settled until; its first report, without any work in it, says that all until then was idle. What nobody reports of for
PATIENCE_NS is idle, and so is what is left when the job is over; a window that comes too late is cut there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from wattribute.agent.core.claims import Entry
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import (
    CPU_NS_SLOT,
    DOMAIN_KINDS,
    ENERGY_SLOTS,
    QUALITIES,
    TERM_SLOT,
    TERMS,
    Term,
    energy_slot,
)
from wattribute.agent.core.products import MICRO, REQUEST, Product
from wattribute.agent.core.served import NO_BILL, PRODUCT, RETRAINING, UNITS_MAX, ServedProduct
from wattribute.agent.core.served_sender import More, Part, Report, Sender
from wattribute.agent.core.served_window import COLUMNS, Row, Track, Window, as_bill, bills, floors
from wattribute.agent.core.units import NS_PER_S

PATIENCE_NS = 600 * NS_PER_S
AHEAD_NS = 10 * NS_PER_S
"""A window that ends later than this after now is refused: no clock of the same boot is that far off."""
SENDERS_MAX = 64

_IDLE_SLOTS = tuple(energy_slot(kind, "idle", quality) for kind in DOMAIN_KINDS for quality in QUALITIES)
_BY_TIME = ("operation", "cooling", "platform", "hardware", "overhead_hardware", "product")
_RAW_SLOTS = (*(TERM_SLOT[term] for term in TERMS if term in _BY_TIME), CPU_NS_SLOT, TERM_SLOT["retraining"])
_OVERHEAD_COLUMN, _PRODUCT_COLUMN, _CPU_COLUMN = COLUMNS - 3, COLUMNS - 2, COLUMNS - 1
_OVERHEAD_HARDWARE = 1 + TERMS.index("overhead_hardware")
_PAID: tuple[Term, ...] = ("product", "retraining", "overhead_hardware")
_NOTHING_PAID = (0,) * len(_PAID)


class Account:
    """One job's, which runs as `uid`. `product` has the totals; `unit` is what a report without shares and requests is
    split by first.
    """

    def __init__(self, product: ServedProduct, unit: str, uid: int, cpus: int, at_ns: int) -> None:
        self.product = product
        self.uid = uid
        self.settled_ns = at_ns
        self._unit = unit
        self._cpus = cpus
        self._settled: Sequence[int] = (0,) * COLUMNS  # amounts since the account began
        self._track = Track(at_ns, self._settled)
        self._raw = [0] * (COLUMNS + 1)  # the job's own totals at the last tick, with retraining
        self._paid_ng: dict[str, tuple[int, ...]] = {}  # of those, by payee, in the order of _PAID
        self._senders: dict[str, Sender] = {}
        self._served: dict[str, dict[str, int]] = {}  # by unit and tenant, since the account began
        self._split_at: dict[str, dict[str, int]] = {}  # what of it a tax was split by already: payees, "" retraining

    @classmethod
    def open(
        cls,
        product: ServedProduct,
        unit: str,
        uid: int,
        cpus: int,
        entry: Entry,
        at_ns: int,
        products: Mapping[str, Product],
        metered: Sequence[int] | None,
    ) -> "Account":
        """For a job that is reported of for the first time; `at_ns` is the last tick.

        `metered`: of a job that had an account before, its bill at the end of that. What it used in earlier segments
        without one is idle.
        """
        if metered is None and not entry.base_ns:
            account = cls(product, unit, uid, cpus, entry.started_ns)
            if at_ns > entry.started_ns:
                account.tick(at_ns, entry, products)
            return account
        account = cls(product, unit, uid, cpus, max(at_ns, entry.started_ns))
        account._raw, account._paid_ng = _raw(entry), _paid(entry)
        product.idle(now - then for now, then in zip(bill_of(entry), metered or NO_BILL, strict=True))
        return account

    def in_flight(self) -> int:
        """How many requests are under way, by those who still report."""
        now_ns = self._track.last[0]
        return sum(sender.in_flight for sender in self._senders.values() if sender.lives(now_ns))

    def entries(self) -> int:
        """How much is remembered of what its senders reported, as Sender.entries."""
        return sum(sender.entries() for sender in self._senders.values())

    def senders(self) -> Iterable[str]:
        """The tokens of those who report."""
        return self._senders.keys()

    def work(self, token: str, rows: int) -> int:
        """How many rows one more window of so many will have split: its own, and where windows of others end, all."""
        others = [sender.waiting for other, sender in self._senders.items() if other != token and sender.waiting]
        return 1 + rows * (1 + sum(map(len, others))) + sum(len(waiting[-1].rows) for waiting in others)

    def forget_windows(self) -> None:
        """What was settled can't be asked for any more."""
        for sender in self._senders.values():
            sender.done.clear()

    def unsettled(self) -> list[int]:
        """The bill of what isn't split yet."""
        now, then = as_bill(self._track.last[1]), as_bill(self._settled)
        return [a - b for a, b in zip(now, then, strict=True)]

    def report(self, report: Report, now_ns: int) -> dict[str, int]:
        """Take in a report; returns how much more was served, by unit. Raises Refused, and then nothing has changed.

        One that is older than the last of its sender changes nothing either.
        """
        sender = self._senders.get(report.token)
        if sender is not None and report.until_ns < sender.heard_ns:
            return {}
        sender, dropped, more, parts = self._checked(report, now_ns)
        if dropped is not None:
            self._remember(dropped, self._senders.pop(dropped))
        if report.token not in self._senders:
            self._senders[report.token] = sender
            self._remember(report.token, None)
        sender.take(report, more)
        served = self._count(more)
        window = None if parts is None else sender.window(report, parts, self.settled_ns)
        if window is not None:
            self._wait(sender, report, *window)
        return served

    def check(self, report: Report, now_ns: int) -> None:
        """Raises Refused where `report` would; changes nothing."""
        self._checked(report, now_ns)

    def tick(self, at_ns: int, entry: Entry, products: Mapping[str, Product]) -> None:
        """The job's totals at a tick: settles the windows that end until then."""
        raw = _raw(entry)
        more = [now - then for now, then in zip(raw, self._raw, strict=True)]
        self._raw = raw
        retrained_ng = 0
        for payee, paid_ng in _paid(entry).items():
            before_ng = self._paid_ng.get(payee, _NOTHING_PAID)
            product_ng, retraining_ng, hardware_ng = (now - then for now, then in zip(paid_ng, before_ng, strict=True))
            self._paid_ng[payee] = paid_ng
            product = products.get(payee)
            if product_ng and product is not None and product.amortise == "units":
                # It fell due with the units that were reported since the last tick, whenever they were served.
                more[_PRODUCT_COLUMN] -= product_ng
                self._split_by_units(payee, product.unit, {PRODUCT: product_ng})
            if retraining_ng:  # an interval is over: the hardware came with it, and is of no moment either
                retrained_ng += hardware_ng
        if more[-1]:
            more[_OVERHEAD_COLUMN] -= retrained_ng
            self._split_by_units("", REQUEST, {RETRAINING: more[-1], _OVERHEAD_HARDWARE: retrained_ng})
        more[_CPU_COLUMN] = max(0, more[_CPU_COLUMN])
        self._track.add(at_ns, [then + added for then, added in zip(self._track.last[1], more, strict=False)])
        self._settle(self._horizon_ns(at_ns))
        self._track.settle(self.settled_ns, self._settled)

    def close(self) -> None:
        """The job is over: what isn't split is idle, and its senders may go on in its next life."""
        self._leave_rest()
        for token, sender in self._senders.items():
            self._remember(token, sender)

    def move(self, product: ServedProduct, unit: str) -> None:
        """The job turns out to work for another product, from now on."""
        self._leave_rest()
        self.product, self._unit = product, unit

    def windows(self, token: str, seen_ns: int, slot: int) -> Iterator[tuple[int, int, list[Row]]]:
        """The settled windows of a sender that ended after a moment: since, until, and the rows of one slot."""
        sender = self._senders.get(token)
        for window in () if sender is None else sender.done:
            if window.until_ns > seen_ns:
                yield window.since_ns, window.until_ns, [row for row in window.rows if row.slot == slot]

    def save(self) -> dict[str, Any]:
        """What must survive a restart, as plain JSON values. Windows that wait don't: the next one takes their time."""
        last_ns, last = self._track.last
        return {
            "product_id": self.product.id,
            "uid": self.uid,
            "settled": [self.settled_ns, *self._settled],
            "last": [last_ns, *last],
            "raw": self._raw,
            "paid_ng": self._paid_ng,
            "served": self._served,
            "split_at": self._split_at,
            "senders": {token: sender.save() for token, sender in self._senders.items()},
        }

    @classmethod
    def restore(cls, product: ServedProduct, unit: str, cpus: int, saved: Mapping[str, Any]) -> "Account":
        """Go on from what `save` gave."""
        settled_ns, *settled = saved["settled"]
        account = cls(product, unit, saved["uid"], cpus, settled_ns)
        account._settled = settled
        account._track = Track(settled_ns, settled)
        account._track.add(saved["last"][0], saved["last"][1:])
        account._raw = list(saved["raw"])
        account._paid_ng = {payee: tuple(paid_ng) for payee, paid_ng in saved["paid_ng"].items()}
        account._served = {unit: dict(tenants) for unit, tenants in saved["served"].items()}
        account._split_at = {key: dict(tenants) for key, tenants in saved["split_at"].items()}
        account._senders = {token: Sender.restore(one, settled_ns) for token, one in saved["senders"].items()}
        return account

    def _checked(self, report: Report, now_ns: int) -> tuple[Sender, str | None, More, list[Part] | None]:
        """Who sends it, which other sender makes room for a new one, what it adds, what its window is split by."""
        if report.until_ns > now_ns + AHEAD_NS:
            raise Refused(f"until_ns is {(report.until_ns - now_ns) // NS_PER_S} s ahead: it is of CLOCK_BOOTTIME")
        sender = self._senders.get(report.token)
        dropped = None
        if sender is None:
            past, dropped = self.product.past(self.uid, report.token), self._in_the_way(now_ns)
            sender = Sender() if past is None else Sender.restore(past, None)
        more = sender.more(report)
        units = self.product.units.keys() | {unit for counts in more.served.values() for unit in counts.units}
        if len(units) > UNITS_MAX:
            raise Refused(f"more than {UNITS_MAX} units of work of product {self.product.id!r}")
        return sender, dropped, more, sender.parts(report, more, self._unit)

    def _in_the_way(self, now_ns: int) -> str | None:
        """The sender that has been silent for longest, where there is no room for one more. Raises Refused."""
        if len(self._senders) < SENDERS_MAX:
            return None
        token, sender = min(self._senders.items(), key=lambda item: item[1].heard_ns)
        if now_ns - sender.heard_ns < PATIENCE_NS:
            raise Refused(f"{SENDERS_MAX} accounts report of this job already: a sender keeps the one that it has")
        return token

    def _leave_rest(self) -> None:
        """What can be split now is; the rest is idle, and windows that wait get nothing."""
        last_ns, last = self._track.last
        self._settle(
            max((one for sender in self._senders.values() if (one := sender.reach_ns(last_ns)) <= last_ns), default=0)
        )
        self.product.idle(self.unsettled())
        self.settled_ns, self._settled = last_ns, last
        self._track.settle(last_ns, last)
        for sender in self._senders.values():
            sender.waiting.clear()

    def _remember(self, token: str, sender: Sender | None) -> None:
        self.product.remember(self.uid, token, None if sender is None else sender.save())

    def _count(self, more: More) -> dict[str, int]:
        """Book what was served on the product's tenants."""
        served: dict[str, int] = {}
        for name, counts in more.served.items():
            units = {unit: micro for unit, micro in counts.units.items() if micro}
            if counts.requests:
                units[REQUEST] = counts.requests * MICRO
            if not units and not counts.aborted:
                continue
            tenant = self.product.tenant(shown(name))
            self.product.count(tenant, units, counts.aborted)
            for unit, micro in units.items():
                served[unit] = served.get(unit, 0) + micro
                by_tenant = self._served.setdefault(unit, {})
                by_tenant[tenant.name] = by_tenant.get(tenant.name, 0) + micro
        receipts = more.receipts
        if any(receipts.counts) or receipts.latest:
            self.product.receipts(receipts.counts, receipts.sum_uj, receipts.latest)
        return served

    def _wait(self, sender: Sender, report: Report, since_ns: int, parts: list[Part]) -> None:
        rows = []
        for slot, name, weighted_ns, busy_ns in parts:
            tenant = self.product.tenant(shown(name))
            rows.append(Row(slot, name, tenant, weighted_ns, busy_ns, list(NO_BILL)))
        stages_ns, work = sender.stages(report), self.work(report.token, len(rows))
        sender.waiting.append(Window(since_ns, report.until_ns, report.workers, rows, stages_ns, work))

    def _horizon_ns(self, at_ns: int) -> int:
        """Until when can be settled at a tick."""
        senders = self._senders.values()
        reached = [sender.reach_ns(at_ns) for sender in senders]
        awaited = [reach_ns for sender, reach_ns in zip(senders, reached, strict=True) if sender.lives(at_ns)]
        horizon_ns = min(awaited) if awaited else max(reached, default=0)
        if at_ns - max(self.settled_ns, horizon_ns) > PATIENCE_NS:
            waits = any(sender.waiting for sender in senders)
            horizon_ns = max((one for one in reached if one <= at_ns), default=at_ns) if waits else at_ns
        return horizon_ns if horizon_ns <= at_ns else 0

    def _settle(self, horizon_ns: int) -> None:
        """Split what the job used until a moment, stretch by stretch between the ends of all senders' windows."""
        while self.settled_ns < horizon_ns:
            start_ns, end_ns = self.settled_ns, horizon_ns
            windows = []
            for sender in self._senders.values():
                while sender.waiting and sender.waiting[0].until_ns <= start_ns:
                    self._finish(sender)
                if sender.waiting:
                    window = sender.waiting[0]
                    if window.since_ns > start_ns:
                        end_ns = min(end_ns, window.since_ns)
                    else:
                        end_ns = min(end_ns, window.until_ns)
                        windows.append(window)
            amounts = self._track.at(end_ns)
            self._split(windows, start_ns, end_ns, [a - b for a, b in zip(amounts, self._settled, strict=True)])
            self.settled_ns, self._settled = end_ns, amounts
        for sender in self._senders.values():
            while sender.waiting and sender.waiting[0].until_ns <= self.settled_ns:
                self._finish(sender)

    def _split(self, windows: Sequence[Window], start_ns: int, end_ns: int, amounts: Sequence[int]) -> None:
        rows, weighted_ns, busy_ns, workers_ns = [], [], [], 0
        for window in windows:
            weighted, busy, workers = window.part(start_ns, end_ns)
            rows += window.rows
            weighted_ns += weighted
            busy_ns += busy
            workers_ns += workers
        idle = as_bill(amounts)
        for row, bill in zip(rows, bills(amounts, weighted_ns, busy_ns, workers_ns, self._cpus), strict=True):
            if any(bill):
                row.bill = [a + b for a, b in zip(row.bill, bill, strict=True)]
                idle = [a - b for a, b in zip(idle, bill, strict=True)]
                self.product.bill(row.tenant, bill)
        self.product.idle(idle)

    def _finish(self, sender: Sender) -> None:
        window = sender.waiting.popleft()
        if window.stages_ns:
            whole = [sum(places) for places in zip(*(row.bill for row in window.rows), strict=True)] or NO_BILL
            weights = list(window.stages_ns.values())
            by_place = [floors(amount, weights, sum(weights)) for amount in whole]
            for stage, bill in zip(window.stages_ns, zip(*by_place, strict=True), strict=True):
                self.product.stage(stage, bill)
        sender.finish(window)

    def _split_by_units(self, key: str, unit: str, amounts_ng: Mapping[int, int]) -> None:
        """What fell due at once, by place of a bill, goes to the tenants by what was reported since the last such
        amounts; nothing: idle.
        """
        served, before = self._served.get(unit, {}), self._split_at.get(key, {})
        more = {name: micro - before.get(name, 0) for name, micro in served.items() if micro > before.get(name, 0)}
        weights = list(more.values())
        for place, amount_ng in amounts_ng.items():
            left_ng = amount_ng
            for name, part_ng in zip(more, floors(amount_ng, weights, sum(weights)), strict=True):
                left_ng -= part_ng
                self.product.bill(self.product.tenant(name), _at(place, part_ng))
            if left_ng:
                self.product.idle(_at(place, left_ng))
        if more:
            self._split_at[key] = dict(served)


def shown(name: str) -> str:
    """A tenant's name as a label can show it."""
    return name if name.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in name)


def bill_of(entry: Entry) -> list[int]:
    """All that a job used so far, as a bill."""
    return [sum(entry.values[:ENERGY_SLOTS]), *(entry.values[TERM_SLOT[term]] for term in TERMS)]


def _raw(entry: Entry) -> list[int]:
    values = entry.values
    idle_uj = sum(values[slot] for slot in _IDLE_SLOTS)
    return [sum(values[:ENERGY_SLOTS]) - idle_uj, idle_uj, *(values[slot] for slot in _RAW_SLOTS)]


def _paid(entry: Entry) -> dict[str, tuple[int, ...]]:
    taxes_ng = entry.taxes_ng
    payees = dict.fromkeys(payee for payee, term in taxes_ng if term in _PAID)
    return {payee: tuple(taxes_ng.get((payee, term), 0) for term in _PAID) for payee in payees}


def _at(place: int, amount_ng: int) -> list[int]:
    bill = list(NO_BILL)
    bill[place] = amount_ng
    return bill
