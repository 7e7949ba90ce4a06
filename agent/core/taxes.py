"""Grams that products bill to the jobs that use them at each moment: platform overhead and product tax (EPC).

Taxes move grams, never joules; billed + untaxed = overhead, per product and term, in integer nanograms.
Source: formulas.md, "Operation" (platform tax), "Embodied" (product tax), "Varying rates".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wattribute.agent.core.concurrency import SharedRate
from wattribute.agent.core.model import TERM_SLOT, Job, ProductTotals, Term
from wattribute.agent.core.products import Product, epc_parts, own_part, payees, pays_epc
from wattribute.agent.core.units import rate_from_stock


@dataclass(slots=True)
class _Account:
    """What one product, declared or merely named, has seen and billed."""

    billed_ng: dict[Term, int] = field(default_factory=dict)
    untaxed_ng: dict[Term, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)  # job id -> weight, of it or on it
    jobs_total: int = 0
    weight_ppm: int = 0
    weight_ppm_ns: int = 0
    at_ns: int = 0

    def advance(self, at_ns: int) -> None:
        """Integrate the weight present until a moment."""
        self.weight_ppm_ns += self.weight_ppm * max(0, at_ns - self.at_ns)
        self.at_ns = max(self.at_ns, at_ns)


class Taxes:
    """The declared products' rates, and who is present to pay them. Times are the agent's nanoseconds."""

    def __init__(self, products: Iterable[Product], at_ns: int) -> None:
        self.products = {product.id: product for product in products}
        self._epc = epc_parts(self.products)
        self._accounts = {product_id: _Account(at_ns=at_ns) for product_id in self.products}
        self._rates: dict[tuple[str, Term], SharedRate] = {}
        for product in self.products.values():
            if product.overhead_rate:
                self._rates[product.id, "platform"] = SharedRate(product.overhead_rate, at_ns, product.concurrency_ppm)
            own_ng, inherited_ng = self._epc[product.id]
            if own_ng is not None and inherited_ng is not None and product.lifetime_s:
                stock_ng = int((own_ng + inherited_ng) * own_part(product.id, self.products.values()))
                rate = rate_from_stock(stock_ng, product.lifetime_s)
                self._rates[product.id, "product"] = SharedRate(rate, at_ns, product.concurrency_ppm)

    def enter(self, job: Job, at_ns: int, *, first: bool) -> None:
        """A job begins (or, not `first`, goes on): it pays for every product it uses, each once."""
        for payee in payees(job, self.products):
            for term in ("platform", "product"):
                rate = self._rates.get((payee, term))
                if rate is not None and (term == "platform" or pays_epc(job, payee, self.products)):
                    rate.enter(job.id, job.weight_ppm, at_ns)
        for product_id in self._named(job):
            account = self._accounts.setdefault(product_id, _Account(at_ns=at_ns))
            if job.id not in account.running:
                account.advance(at_ns)
                account.running[job.id] = job.weight_ppm
                account.weight_ppm += job.weight_ppm
                account.jobs_total += first

    def leave(self, job: Job, at_ns: int, owed: dict[tuple[str, Term], int]) -> None:
        """A job ends; what it owes until then is added to `owed`."""
        for (product_id, term), rate in self._rates.items():
            self._bill(product_id, term, rate.leave(job.id, at_ns), owed)
        for product_id in self._named(job):
            account = self._accounts[product_id]
            account.advance(at_ns)
            account.weight_ppm -= account.running.pop(job.id, 0)

    def settle(self, at_ns: int) -> dict[str, dict[tuple[str, Term], int]]:
        """Nanograms owed since the last call: job id -> (product, term) -> ng."""
        for account in self._accounts.values():
            account.advance(at_ns)
        owed: dict[str, dict[tuple[str, Term], int]] = {}
        for (product_id, term), rate in self._rates.items():
            for job_id, owed_ng in rate.settle(at_ns).items():
                self._bill(product_id, term, owed_ng, owed.setdefault(job_id, {}))
            untaxed_ng = rate.untaxed_ng()
            if untaxed_ng:
                untaxed = self._accounts[product_id].untaxed_ng
                untaxed[term] = untaxed.get(term, 0) + untaxed_ng
        return owed

    def missing_epc(self, job: Job) -> tuple[str, ...]:
        """Declared products that a job pays whose EPC isn't known: its ASC^e is then a lower bound."""
        return tuple(p for p in payees(job, self.products) if None in self._epc[p] and self.products[p].lifetime_s)

    def totals(self) -> list[ProductTotals]:
        """Every product seen so far, declared or merely named by a job."""
        rows = []
        for product_id, account in self._accounts.items():
            product = self.products.get(product_id)
            own_ng, inherited_ng = self._epc.get(product_id, (None, None))
            rows.append(
                ProductTotals(
                    id=product_id,
                    kind=product.kind if product else "undeclared",
                    epc_own_ng=own_ng,
                    epc_inherited_ng=inherited_ng,
                    billed_ng=dict(account.billed_ng),
                    untaxed_ng=dict(account.untaxed_ng),
                    running_jobs=len(account.running),
                    jobs_total=account.jobs_total,
                    weight_ppm_ns=account.weight_ppm_ns,
                )
            )
        return rows

    def save(self) -> dict[str, Any]:
        """What must survive a restart, as plain JSON values."""
        return {
            product_id: [account.billed_ng, account.untaxed_ng, account.jobs_total, account.weight_ppm_ns]
            for product_id, account in self._accounts.items()
        }

    def restore(self, saved: Mapping[str, Any], at_ns: int) -> None:
        """Go on from what `save` gave, with the jobs that went on already entered."""
        for product_id, (billed_ng, untaxed_ng, jobs_total, weight_ppm_ns) in saved.items():
            account = self._accounts.setdefault(product_id, _Account())
            account.billed_ng, account.untaxed_ng = dict(billed_ng), dict(untaxed_ng)
            account.jobs_total, account.weight_ppm_ns = jobs_total, weight_ppm_ns
            account.at_ns = at_ns

    def _named(self, job: Job) -> set[str]:
        return {job.product_id, *job.uses, *payees(job, self.products)}

    def _bill(self, product_id: str, term: Term, owed_ng: int, owed: dict[tuple[str, Term], int]) -> None:
        if owed_ng:
            billed = self._accounts[product_id].billed_ng
            billed[term] = billed.get(term, 0) + owed_ng
            owed[product_id, term] = owed.get((product_id, term), 0) + owed_ng


def add_taxes(values: list[int], taxes_ng: dict[tuple[str, Term], int], owed: Mapping[tuple[str, Term], int]) -> None:
    """Book owed nanograms on a job: into its totals by term, and by product."""
    for (product_id, term), owed_ng in owed.items():
        values[TERM_SLOT[term]] += owed_ng
        taxes_ng[product_id, term] = taxes_ng.get((product_id, term), 0) + owed_ng
