"""Accounts of metered jobs, around the books: what serving processes and engines report, and what is shown of it.

Requests only divide what their job has: nothing here changes a job's totals. Times are CLOCK_BOOTTIME's, in ns.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wattribute.agent.core.books import Books
from wattribute.agent.core.claims import Entry
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import Clock, ServedTotals
from wattribute.agent.core.products import MICRO, REQUEST, payees, pays_epc
from wattribute.agent.core.served import NO_BILL, ServedProduct, products_in
from wattribute.agent.core.served_account import Account, bill_of
from wattribute.agent.core.served_room import ENTRIES_MAX, PRODUCTS_MAX, Room, Rooms
from wattribute.agent.core.served_sender import ENGINE, Counts, Receipts, Report
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.ledger.batch import dump
from wattribute.agent.live import LiveJob
from wattribute.agent.registry import Registry
from wattribute.agent.requests import Peer, Served, Units

COUNT_MAX = 1e18
ACCOUNTS = "accounts"


class Serving:
    """All metered jobs of a node, and their products' totals over jobs and restarts."""

    def __init__(self, books: Books, registry: Registry, clock: Clock, tenants_max: int) -> None:
        self._books = books
        self._registry = registry
        self._clock = clock
        self._tenants_max = tenants_max
        self._products: dict[str, ServedProduct] = {}
        self._accounts: dict[str, Account] = {}
        self._rooms, self._room_products, self._room_entries = Rooms(), Room(PRODUCTS_MAX), Room(ENTRIES_MAX)
        self._refused_uids: set[int] = set()  # since the last tick, for want of room
        self._known = False  # the ledger has no account either

    def units(self, request: Units, peer: Peer) -> dict[str, Any]:
        """One report over the socket, or only the question what was billed for those before. Raises Refused."""
        live = self._live(request.job_id, peer)
        receipts = request.receipts
        account = self._accounts.get(request.job_id)
        if request.until_ns != 0:
            account = self._report(
                live,
                Report(
                    token=request.account,
                    until_ns=self._clock.monotonic_ns() if request.until_ns is None else request.until_ns,
                    served=_counts(request.served),
                    shares=request.shares,
                    workers=request.workers,
                    in_flight=request.in_flight,
                    receipts=None if receipts is None else Receipts(receipts.counts, receipts.sum_uj, receipts.latest),
                    asks=request.seen_ns is not None,
                ),
            )
        answer: dict[str, Any] = {"job_id": request.job_id, "until_ns": 0 if account is None else account.settled_ns}
        if request.seen_ns is not None:
            answer |= self._billed(live, account, request.account, request.seen_ns, request.slot)
        return answer

    def metered(self, job_id: str) -> bool:
        """Whether a meter tells what a job serves: what an engine's page tells too would count twice."""
        account = self._accounts.get(job_id)
        return account is not None and any(not token.startswith(ENGINE) for token in account.senders())

    def count(
        self,
        job_id: str,
        account: str,
        served: Sequence[Served],
        in_flight: int,
        stages: Mapping[str, float],
        until_ns: int,
    ) -> None:
        """What an engine has served, counted from the outside; `stages`: seconds, cumulative too. Raises Refused."""
        self._report(
            self._live(job_id),
            Report(
                token=account,
                until_ns=until_ns,
                served=_counts(served),
                in_flight=in_flight,
                stages_ns={stage: round(_sane(stage, seconds) * NS_PER_S) for stage, seconds in stages.items()},
            ),
        )

    def resume(self, live: LiveJob) -> None:
        """A job runs again. If it was metered, what it uses waits for its meter from the beginning on."""
        job = live.entry.job
        if live.metered is not None and job.id not in self._accounts and job.product_id in self._products:
            self._accounts[job.id] = self._account(live, self._products[job.product_id])

    def tick(self, now_ns: int, done: Sequence[Entry]) -> None:
        """After the books' tick: settles what can be. `done` are the jobs that have just left the books."""
        if not self._accounts:
            return
        products = self._books.taxes.products
        over = {entry.job.id: entry for entry in done}
        for job_id, account in list(self._accounts.items()):
            entry = self._books.jobs.get(job_id) or over[job_id]
            product_id = entry.job.product_id
            account.tick(now_ns, entry, products)
            if product_id != account.product.id:
                account.move(self._product(product_id, account.product.uid), self._unit(product_id))
            if job_id in over:
                self._close(job_id, bill_of(entry))
        self._refused_uids.clear()

    def late(self, jobs: Iterable[LiveJob]) -> None:
        """What was billed to jobs that were over already. Of metered ones it is idle: whose it was isn't known now."""
        for live in jobs:
            product = self._products.get(live.entry.job.product_id)
            if live.metered is not None and product is not None:
                bill = bill_of(live.entry)
                product.idle(now - then for now, then in zip(bill, live.metered, strict=True))
                live.metered = bill

    def totals(self) -> list[ServedTotals]:
        """What is shown of every product: a copy, as of the last tick."""
        unsettled: dict[str, list[int]] = {}
        in_flight: dict[str, int] = {}
        for account in self._accounts.values():
            product_id = account.product.id
            in_flight[product_id] = in_flight.get(product_id, 0) + account.in_flight()
            sums = unsettled.get(product_id, NO_BILL)
            unsettled[product_id] = [a + b for a, b in zip(sums, account.unsettled(), strict=True)]
        return [
            product.totals(unsettled.get(product_id, NO_BILL), in_flight.get(product_id, 0))
            for product_id, product in self._products.items()
        ]

    def save(self) -> dict[str, str]:
        """What changed since the last call, as JSON texts by name, for the batch that has the jobs' totals."""
        state: dict[str, str] = {}
        for product in self._products.values():
            state |= {name: dump(one) for name, one in product.save().items()}
        if self._accounts or not self._known:
            state[ACCOUNTS] = dump({job_id: account.save() for job_id, account in self._accounts.items()})
            self._known = not self._accounts
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the last that `save` gave under each name, with the jobs that go on on the books again.

        The account of a job that doesn't is closed, and what wasn't split of it is idle.
        """
        for product_id in products_in(state):
            product = ServedProduct(product_id, self._tenants_max, rooms=self._rooms)
            product.restore(state)
            self._add(product)
        for job_id, saved in state.get(ACCOUNTS, {}).items():
            product = self._products[saved["product_id"]]
            self._accounts[job_id] = Account.restore(product, self._unit(product.id), self._books.rules.cpus, saved)
            if job_id not in self._books.jobs:
                live = self._registry.jobs.get(job_id)
                self._close(job_id, None if live is None else bill_of(live.entry))

    def _close(self, job_id: str, bill: list[int] | None) -> None:
        """A job is over. That its totals are in its product's is remembered with the job, which may come back."""
        self._accounts.pop(job_id).close()
        live = self._registry.jobs.get(job_id)
        if live is not None:
            live.metered, live.known_meta = bill, False
        self._known = False

    def _live(self, job_id: str, peer: Peer | None = None) -> LiveJob:
        """The job, where the peer may report of it (None: we do). Raises Refused."""
        live = self._registry.jobs.get(job_id)
        if live is None or (peer is not None and peer.uid not in (live.uid, 0)):
            raise Refused(f"there is no job {job_id!r}")
        if not self._books.holds(live.entry):
            raise Refused(f"job {job_id!r} has ended")
        return live

    def _report(self, live: LiveJob, report: Report) -> Account:
        """Take a report in; the account begins with the first. Raises Refused."""
        job, now_ns = live.entry.job, self._clock.monotonic_ns()
        account = self._accounts.get(job.id)
        rows = len(report.served if report.shares is None else report.shares)
        entries = rows + 1 if account is None else account.work(report.token, rows)
        entries += len(report.served) + sum(len(one.units) for _, one in report.served)
        if self._room_entries.left(live.uid) < entries:
            self._make_room(live.uid, entries)
        if account is None:
            account = self._open(live, report, now_ns)
        units = account.report(report, now_ns)
        self._room_entries.take(live.uid, entries)
        # Also where nothing was served: else a metered job weighs in for retraining as one job when it ends.
        self._books.taxes.served(job, units, self._clock.time_ns())
        return account

    def _open(self, live: LiveJob, report: Report, now_ns: int) -> Account:
        """The account of a job that is reported of for the first time, if the report holds. Raises Refused."""
        job = live.entry.job
        known = self._products.get(job.product_id)
        if known is None and self._room_products.left(live.uid) <= 0:
            raise Refused("too many products have metered requests: give the job one that is known")
        product = known or ServedProduct(job.product_id, self._tenants_max, live.uid, self._rooms)
        Account(product, self._unit(product.id), live.uid, self._books.rules.cpus, now_ns).check(report, now_ns)
        if known is None:
            self._add(product)
        account = self._accounts[job.id] = self._account(live, product)
        return account

    def _account(self, live: LiveJob, product: ServedProduct) -> Account:
        unit, cpus, products = self._unit(product.id), self._books.rules.cpus, self._books.taxes.products
        return Account.open(product, unit, live.uid, cpus, live.entry, self._books.at_ns, products, live.metered)

    def _product(self, product_id: str, uid: int) -> ServedProduct:
        known = self._products.get(product_id)
        return known or self._add(ServedProduct(product_id, self._tenants_max, uid, self._rooms))

    def _add(self, product: ServedProduct) -> ServedProduct:
        self._products[product.id] = product
        self._room_products.take(product.uid)
        return product

    def _make_room(self, uid: int, entries: int) -> None:
        """For more of what a user's jobs report, if need be by what could still be asked for. Raises Refused."""
        if uid not in self._refused_uids and self._count_entries(uid) < entries:
            for account in self._accounts.values():
                if account.uid == uid:
                    account.forget_windows()
            if self._count_entries(uid) < entries:
                self._refused_uids.add(uid)
        if uid in self._refused_uids:
            raise Refused("too much is reported of metered jobs: fewer tenants, units, accounts or rows")

    def _count_entries(self, uid: int) -> int:
        """How many more a user may have, by what is remembered now: not each report is, and not for long."""
        used: Counter[int] = Counter()
        for account in self._accounts.values():
            used[account.uid] += account.entries()
        self._room_entries.count(used)
        return self._room_entries.left(uid)

    def _unit(self, product_id: str) -> str:
        """What a product counts by."""
        product = self._books.taxes.products.get(product_id)
        return REQUEST if product is None else product.unit

    def _billed(self, live: LiveJob, account: Account | None, token: str, seen_ns: int, slot: int) -> dict[str, Any]:
        """The settled windows of a sender, and what is to be known of that which comes apart from them."""
        job, taxes = live.entry.job, self._books.taxes
        pays = job.product_id in payees(job, taxes.products) and pays_epc(job, job.product_id, taxes.products)
        price = taxes.product_price(job.product_id) if pays else None
        return {
            "windows": [
                {"since_ns": since_ns, "until_ns": until_ns, "rows": [[row.name, *row.bill] for row in rows]}
                for since_ns, until_ns, rows in (() if account is None else account.windows(token, seen_ns, slot))
            ],
            "product_ng_per_unit": None if price is None else float(price[1]),
            "unit": None if price is None else price[0],
            "retraining_open": taxes.open_retraining(job),
        }


def _counts(served: Sequence[Served]) -> list[tuple[str, Counts]]:
    """In whole millionths. Raises Refused for a count that is none."""
    return [
        (
            one.tenant,
            Counts(one.requests, one.aborted, {unit: _micro(unit, count) for unit, count in one.units.items()}),
        )
        for one in served
    ]


def _micro(unit: str, count: float) -> int:
    if unit == REQUEST:
        raise Refused(f"units: {REQUEST!r} is what `requests` counts")
    return round(_sane(unit, count) * MICRO)


def _sane(name: str, count: float) -> float:
    if 0 <= count <= COUNT_MAX:
        return count
    raise Refused(f"{name}: {count} is no count")


__all__ = ["Serving"]
