"""Grams that products bill to the jobs that use them: platform, retraining, their hardware, and product tax (EPC).

Taxes move grams, never joules; billed + untaxed = overhead, per product and term, in integer nanograms.
Source: formulas.md, "Operation" (platform and retraining tax), "Embodied" (product tax), "Varying rates".
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

from wattribute.agent.core.declared import Declared, declared
from wattribute.agent.core.fleet_shares import FleetShares
from wattribute.agent.core.model import Job, ProductTotals, Term
from wattribute.agent.core.owed import Owed
from wattribute.agent.core.product_account import ProductAccount
from wattribute.agent.core.products import MICRO, REQUEST, Product, payees, pays_epc
from wattribute.agent.core.retraining import Closed, Retraining
from wattribute.agent.core.tariff import NOTHING_METERED, Metered, Tariff
from wattribute.agent.core.unit_shares import TERMS, UnitShares

Claims: TypeAlias = Mapping[str, int] | None


class Due(NamedTuple):
    """What a tick came to: owed by job id, and the retraining intervals that ended in it."""

    by_job: dict[str, Owed]
    closed: list[Closed]


class _Present(NamedTuple):
    """A job that runs, since when, with what it is work for, uses, and pays."""

    job: Job
    since_ns: int
    named: tuple[str, ...]
    payees: tuple[str, ...]


class Taxes:
    """The declared products' rates, and who is present to pay them. Times are the agent's nanoseconds.

    `fleet`: what is metered of a fleet's products, where nodes exchange it. A registry may have very many products:
    one that came with `declare` has an account and a tariff from its first job here on, and costs nothing before.

    Payers' remainders below a nanogram aren't saved: a restart costs a job at most one per product and term.
    """

    def __init__(self, products: Iterable[Product], at_ns: int) -> None:
        self.products: Mapping[str, Product] = {}
        self._accounts: dict[str, ProductAccount] = {}
        self._tariffs: dict[str, Tariff] = {}
        self._present: dict[str, _Present] = {}
        self._retraining = Retraining()
        self._by_units = UnitShares()
        self.fleet = FleetShares()
        self._ended: list[tuple[_Present, int]] = []  # since the last tick, at which moment
        self._reports: list[tuple[Job, Mapping[str, int], int]] = []  # units served, since the last tick
        self._metered: set[str] = set()  # jobs that told what they served
        self._due = Due({}, [])
        self._at_ns = at_ns
        self._unix_offset_ns: int | None = None
        self._declare(declared(products), at_ns)
        for product_id in self.products:
            self._account(product_id, at_ns)

    def declare(self, products: Iterable[Product], at_ns: int) -> None:
        """See `take`. Raises ValueError where products inherit in a circle; nothing has changed then."""
        self.take(declared(products), at_ns)

    def take(self, found: Declared, at_ns: int) -> None:
        """Other products from now on, or the same ones changed: running jobs go on under them, accounts too."""
        if self._unix_offset_ns is None:
            at_ns = self._at_ns  # nothing was billed yet: they hold from the beginning
        else:
            self._charge_units(at_ns)
            for product_id, tariff in self._tariffs.items():
                if product_id in found.products:
                    tariff.accrue(at_ns, self._unix_offset_ns)
                else:
                    self._charge(product_id, tariff, at_ns, NOTHING_METERED)
        self._declare(found, at_ns)

    def _declare(self, found: Declared, at_ns: int) -> None:
        self.products, self._epc, self._own_parts = found.products, found.parts, found.own_parts
        before, self._tariffs = self._tariffs, {}
        for product_id in self._accounts:
            if product_id in self.products:
                self._follow(product_id, before.get(product_id), at_ns)
        self._unused = dict(found.unused)
        for product_id in self._accounts:
            self._unused.pop(product_id, None)
        for present in self._present.values():
            for product_id in present.payees:
                if product_id in self._tariffs:
                    self._tariffs[product_id].leave(present.job.id, at_ns)
        fleet = {key: product for key, product in self.products.items() if product.scope == "fleet"}
        self.fleet.declare({key: product.retraining_interval_s for key, product in fleet.items()}, at_ns)
        for present in sorted(self._present.values(), key=_since):
            self._enter(present.job, max(at_ns, present.since_ns), first=False)

    def _follow(self, product_id: str, tariff: Tariff | None, at_ns: int) -> None:
        """Bill a declared product from now on, or with what has changed of it."""
        product, account = self.products[product_id], self._accounts[product_id]
        own_ng, inherited_ng = self._epc[product_id]
        stock_ng = None
        if own_ng is not None and inherited_ng is not None:
            stock_ng = int((own_ng + inherited_ng) * self._own_parts[product_id])
        account.amortised.declare(product, stock_ng, account.recovered_ng)
        room_ng = account.amortised.room_ng(account.recovered_ng) if product.amortise == "time" else None
        over_life_ng = stock_ng if stock_ng is not None and product.lifetime_s else 0
        if tariff is None:
            tariff = Tariff(product, over_life_ng, at_ns, room_ng)
        else:
            tariff.declare(product, over_life_ng, at_ns, room_ng)
        self._tariffs[product_id] = tariff
        if product.retraining_interval_s is not None:
            self._retraining.follow(product_id, product.retraining_interval_s)

    def divisor(self, product_id: str, weight_ppm: int | None, at_ns: int) -> None:
        """The weight of all payers of a product whose scope is the fleet, this node's included; None: not known now.

        Without it everything of the product is untaxed.
        """
        tariff = self._tariffs.get(product_id)
        if tariff is not None and tariff.in_fleet:
            tariff.set_divisor(weight_ppm, at_ns)

    def fleet_weights_ppm(self) -> dict[str, int]:
        """The weight of the payers here of each product whose scope is the fleet, where there are any."""
        fleet = ((product_id, tariff.users.weight) for product_id, tariff in self._tariffs.items() if tariff.in_fleet)
        return {product_id: weight_ppm for product_id, weight_ppm in fleet if weight_ppm}

    def enter(self, job: Job, at_ns: int, *, first: bool) -> None:
        """A job begins (or, not `first`, goes on, as it is now): it pays for every product it uses, each once."""
        if job.role == "retraining":
            self._retraining.follow(job.product_id)
        self._enter(job, at_ns, first=first)

    def _enter(self, job: Job, at_ns: int, *, first: bool) -> None:
        before = self._present.get(job.id)
        pays = payees(job, self.products)
        named = tuple(dict.fromkeys((job.product_id, *job.uses, *pays)))
        self._present[job.id] = _Present(job, at_ns if before is None else before.since_ns, named, pays)
        accounts = [self._account(product_id, at_ns) for product_id in named]
        if before is not None:
            for payee in set(before.payees).difference(pays):
                self.fleet.leave(payee, job.id, at_ns)
                if payee in self._tariffs:
                    self._tariffs[payee].leave(job.id, at_ns)
            self._uncount(before, at_ns)
        for payee in pays:
            if self.products[payee].status != "retired":
                buys = pays_epc(job, payee, self.products)
                self._tariffs[payee].enter(job.id, job.weight_ppm, at_ns, buys=buys)
                self.fleet.enter(payee, job.id, job.weight_ppm, at_ns)
        for product_id, account in zip(named, accounts, strict=True):
            account.advance(at_ns)
            # A product's own platform, retraining and creation jobs don't pay it: they have no weight.
            weight_ppm = job.weight_ppm if product_id in pays or product_id not in self.products else 0
            account.running[job.id] = weight_ppm
            account.weight_ppm += weight_ppm
            account.jobs_total += first

    def leave(self, job: Job, at_ns: int, *, ended: bool = True) -> None:
        """A job ends (or, not `ended`, becomes another); what it owes comes with the next tick."""
        present = self._present.pop(job.id, None)
        if present is None:
            return
        for payee in present.payees:
            self.fleet.leave(payee, job.id, at_ns)
            if payee in self._tariffs:
                self._tariffs[payee].leave(job.id, at_ns)
        self._uncount(present, at_ns)
        if ended:
            self._ended.append((present, at_ns))

    def cut_off(self, job: Job, unix_ns: int) -> None:
        """A job ended with the boot before, and was never present in this one: those it paid have served it."""
        self._serve(_Present(job, 0, (), payees(job, self.products)), unix_ns)

    def served(self, job: Job, units: Mapping[str, int], unix_ns: int) -> None:
        """A job that is on the books has served so many millionths of each unit since the last call. `request` is the
        unit that every request is one of. What it owes for them comes with the next tick.
        """
        self._reports.append((job, dict(units), unix_ns))
        for product in map(self.products.__getitem__, payees(job, self.products)):
            if product.tax_by == "units" and product.status != "retired":
                self._by_units.weigh(product, job.id, job.weight_ppm * units.get(product.unit, 0), unix_ns)

    def product_price(self, product_id: str) -> tuple[str, Fraction] | None:
        """The unit that a product is paid by, and nanograms per unit now; None where it is paid by time, or isn't."""
        product, account = self.products.get(product_id), self._accounts.get(product_id)
        price = None if product is None or account is None else account.amortised.price()
        return None if product is None or price is None or product.amortise != "units" else (product.unit, price)

    def settle(self, at_ns: int, unix_ns: int, metered: Mapping[str, Metered], claim_ppb: Claims = None) -> Due:
        """Bill what fell due since the last call. `metered`: what products' own jobs came to in this tick;
        `claim_ppb`: what jobs claimed of the node in it, None where it has no length.
        """
        start_unix_ns = unix_ns - max(0, at_ns - self._at_ns)
        self._at_ns, self._unix_offset_ns = at_ns, unix_ns - at_ns
        exchanged, metered = self.fleet.exchanged(metered)
        claims = self._claims(claim_ppb)
        for product_id, tariff in self._tariffs.items():
            self._charge(product_id, tariff, at_ns, metered.get(product_id, NOTHING_METERED), claims)
        self._charge_units(at_ns)
        for product_id in metered.keys() - self._tariffs.keys():
            # Nobody declared it, so nobody pays for it.
            self._book(product_id, "platform", 0, metered[product_id].platform_ng, at_ns)
            self._book(product_id, "overhead_hardware", 0, metered[product_id].platform_hardware_ng, at_ns)
        due, self._due = self._due, Due({}, [])
        for present, ended_ns in self._ended:
            self._serve(present, ended_ns + self._unix_offset_ns)
        self._ended = []
        self._metered &= self._present.keys()
        for product_id, amounts in metered.items():
            if amounts.retraining_ng or amounts.retraining_hardware_ng:
                costs_ng = amounts.retraining_ng, amounts.retraining_hardware_ng
                self._retraining.add(product_id, *costs_ng, start_unix_ns, unix_ns)
        shared = self.fleet.settle(at_ns, start_unix_ns, unix_ns, exchanged)
        by_units = self._by_units.settle(self._present, unix_ns)
        for closed in [*self._retraining.close(unix_ns), *shared, *by_units]:
            self._book_closed(closed, at_ns)
            if closed.parts:
                due.closed.append(closed)
        return due

    def waive(self, over: Owed) -> None:
        """What an absurd rate or EPC made a job owe, past all that can be written down, is untaxed."""
        for (product_id, term), owed_ng in over.items():
            self._book(product_id, term, -owed_ng, owed_ng, self._at_ns)

    def missing_epc(self, job: Job) -> tuple[str, ...]:
        """Declared products that a job pays whose EPC isn't known: its ASC^e is then a lower bound."""
        due = [p for p in payees(job, self.products) if self.products[p].status == "frozen"]
        return tuple(p for p in due if None in self._epc[p] and self.products[p].written_off)

    def open_retraining(self, job: Job) -> bool:
        """Whether a job that ended may still be billed for retraining, when the interval that it ended in is over, or
        for what a fleet has metered.
        """
        waits = self._retraining.open(job.id) or self.fleet.open(job.id) or self._by_units.open(job.id)
        return waits or any(present.job.id == job.id and self._servers(present.payees) for present, _ in self._ended)

    def paid(self) -> dict[str, tuple[str, ...]]:
        """The products whose taxes each job that is present pays, by job id."""
        return {job_id: present.payees for job_id, present in self._present.items() if present.payees}

    def totals(self) -> list[ProductTotals]:
        """Every product seen so far, declared or merely named by a job."""
        at_ns = self._at_ns
        used = (
            account.totals(product_id, self.products.get(product_id), self._epc.get(product_id, (None, None)), at_ns)
            for product_id, account in self._accounts.items()
        )
        return [*used, *self._unused.values()]

    def save(self) -> dict[str, Any]:
        """What must survive a restart by product, as plain JSON values."""
        saved = {}
        for product_id, account in self._accounts.items():
            tariff = self._tariffs.get(product_id)
            until_unix_ns = None if tariff is None else tariff.recovered_until_unix_ns
            saved[product_id] = [*account.save(self._at_ns), until_unix_ns, account.amortised.save()]
        return saved

    def save_retraining(self) -> dict[str, Any]:
        """What retraining has cost in the intervals that are open, as plain JSON values; see `served_chunks`."""
        return {**self._retraining.save(), "fleet": self.fleet.save(), "metered": sorted(self._metered)}

    def served_chunks(self) -> dict[str, Any]:
        """What changed since the last call of whom products served, as plain JSON values under stable names."""
        return self._retraining.served_chunks() | self.fleet.chunks() | self._by_units.chunk()

    def restore(self, saved: Mapping[str, Any], retraining: Mapping[str, Any] | None, at_ns: int) -> None:
        """Go on from what `save` and `save_retraining` gave, with the jobs that went on already entered."""
        for product_id, row in saved.items():
            *counts, until_unix_ns, amortised = (*row, None, None)[:6]  # an older version saved four or five
            self._account(product_id, at_ns).restore(counts, amortised, at_ns)
            if product_id in self._tariffs:
                self._tariffs[product_id].recovered_until_unix_ns = until_unix_ns
                self._follow(product_id, self._tariffs[product_id], at_ns)
        if retraining is not None:
            self._retraining.restore(retraining)
            self._metered = set(retraining.get("metered", ()))
            if "fleet" in retraining:  # one saved by an older version has none
                self.fleet.restore(retraining["fleet"])

    def restore_served(self, state: Mapping[str, Any]) -> None:
        """Take in the last that `served_chunks` gave under each name; other names are left alone."""
        self._retraining.restore_served(state)
        self.fleet.restore_chunks(state)
        self._by_units.restore(state)

    def _account(self, product_id: str, at_ns: int) -> ProductAccount:
        account = self._accounts.get(product_id)
        if account is None:
            account = self._accounts[product_id] = ProductAccount(at_ns=at_ns)
            if self._unused.pop(product_id, None) is not None:
                self._follow(product_id, None, at_ns)
        return account

    def _uncount(self, present: _Present, at_ns: int) -> None:
        for product_id in present.named:
            account = self._accounts[product_id]
            account.advance(at_ns)
            account.weight_ppm -= account.running.pop(present.job.id, 0)

    def _claims(self, claim_ppb: Claims) -> Claims:
        """What jobs claim, times their weight; None where no product goes by it."""
        if claim_ppb is None or not any(tariff.by_claim for tariff in self._tariffs.values()):
            return None
        here = (*(present for present, _ in self._ended), *self._present.values())
        return {one.job.id: one.job.weight_ppm * claim_ppb.get(one.job.id, 0) for one in here}

    def _charge(self, product_id: str, tariff: Tariff, at_ns: int, metered: Metered, claims: Claims = None) -> None:
        """Split what fell due until a moment, and keep it for the tick's end; what goes by units waits for them."""
        account, product = self._account(product_id, at_ns), self.products[product_id]
        for term, parts in tariff.charge(at_ns, self._unix_offset_ns or 0, metered, claims):
            billed_ng = sum(parts.payers.values())
            if product.tax_by == "units" and term in TERMS:
                self._by_units.add(product, term, billed_ng, at_ns + (self._unix_offset_ns or 0))
                account.book(term, 0, parts.untaxed_ng)
                continue
            if term == "product":
                account.amortised.time_ng += billed_ng + parts.untaxed_ng
                if product.amortise == "units":
                    continue  # what time would bill
            for job_id, owed_ng in parts.payers.items():
                self._owe(job_id, product_id, term, owed_ng)
            account.book(term, billed_ng, parts.untaxed_ng)

    def _charge_units(self, at_ns: int) -> None:
        """What was served falls due of the products that are paid by units, and weighs in where retraining is split."""
        reports, self._reports = self._reports, []
        for job, units, unix_ns in reports:
            if job.id in self._present or any(present.job.id == job.id for present, _ in self._ended):
                self._metered.add(job.id)
            payers = payees(job, self.products)
            for product_id in payers:
                product = self.products[product_id]
                micro_units = units.get(product.unit, 0)
                if (
                    micro_units
                    and (product.deployed_unix_ns or 0) <= unix_ns
                    and pays_epc(job, product_id, self.products)
                ):
                    account = self._account(product_id, at_ns)
                    owed_ng = account.amortised.serve(micro_units)
                    account.book("product", owed_ng, 0)
                    self._owe(job.id, product_id, "product", owed_ng)
            for product_id in self._servers(payers):
                if not self.fleet.takes(product_id):
                    micro_units = units.get(self.products[product_id].unit, units.get(REQUEST, 0))
                    self._retraining.weigh(product_id, job.id, job.weight_ppm * micro_units // MICRO, unix_ns)

    def _owe(self, job_id: str, product_id: str, term: Term, owed_ng: int) -> None:
        if owed_ng:
            owed = self._due.by_job.setdefault(job_id, {})
            owed[product_id, term] = owed.get((product_id, term), 0) + owed_ng

    def _servers(self, payees_of: Iterable[str]) -> list[str]:
        """The products that bill their retraining to a job; that of a fleet is untaxed unless nodes exchange it."""
        return [
            payee
            for payee in payees_of
            if self._retraining.follows(payee)
            and (product := self.products.get(payee)) is not None
            and product.status != "retired"
            and (product.scope != "fleet" or self.fleet.takes(payee))
        ]

    def _serve(self, present: _Present, ended_unix_ns: int) -> None:
        """Tell the intervals that a job ended, of the products that served it."""
        for product_id in self._servers(present.payees):
            if self.fleet.takes(product_id):
                self.fleet.serve(product_id, present.job.id, present.job.weight_ppm, ended_unix_ns)
            elif present.job.id not in self._metered:
                self._retraining.serve(product_id, present.job.id, present.job.weight_ppm, ended_unix_ns)

    def _book_closed(self, closed: Closed, at_ns: int) -> None:
        terms: tuple[tuple[Term, int], ...] = ((closed.term, 0), ("overhead_hardware", 1))
        for term, place in terms:
            billed_ng = sum(part[place] for part in closed.parts.values())
            self._book(closed.product_id, term, billed_ng, closed.untaxed[place], at_ns)

    def _book(self, product_id: str, term: Term, billed_ng: int, untaxed_ng: int, at_ns: int) -> None:
        self._account(product_id, at_ns).book(term, billed_ng, untaxed_ng)


def _since(present: _Present) -> int:
    return present.since_ns
