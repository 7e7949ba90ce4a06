"""What one product, declared or merely named, has seen and billed on this node: jobs by weight, grams by term (ng)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wattribute.agent.core.amortisation import Amortised
from wattribute.agent.core.model import ProductTotals, Term
from wattribute.agent.core.owed import MOST_NG
from wattribute.agent.core.products import Product


@dataclass(slots=True)
class ProductAccount:
    """`running`: job id -> the weight in millionths with which it pays."""

    billed_ng: dict[Term, int] = field(default_factory=dict)
    untaxed_ng: dict[Term, int] = field(default_factory=dict)
    amortised: Amortised = field(default_factory=Amortised)
    running: dict[str, int] = field(default_factory=dict)
    jobs_total: int = 0
    weight_ppm: int = 0
    weight_ppm_ns: int = 0
    at_ns: int = 0

    def advance(self, at_ns: int) -> None:
        """Integrate the weight present until a moment."""
        self.weight_ppm_ns += self.weight_ppm * max(0, at_ns - self.at_ns)
        self.at_ns = max(self.at_ns, at_ns)

    def book(self, term: Term, billed_ng: int, untaxed_ng: int) -> None:
        """Overhead of a term, by what became of it."""
        if billed_ng:
            self.billed_ng[term] = self.billed_ng.get(term, 0) + billed_ng
        if untaxed_ng:
            self.untaxed_ng[term] = min(self.untaxed_ng.get(term, 0) + untaxed_ng, MOST_NG)

    @property
    def recovered_ng(self) -> int:
        """What fell due of its EPC here, billed or untaxed."""
        return self.billed_ng.get("product", 0) + self.untaxed_ng.get("product", 0)

    def totals(
        self, product_id: str, product: Product | None, epc: tuple[int | None, int | None], at_ns: int
    ) -> ProductTotals:
        """All of it at a moment, for those who show it. `epc`: its own part and what it inherits."""
        self.advance(at_ns)
        return ProductTotals(
            id=product_id,
            kind=product.kind if product else "undeclared",
            epc_own_ng=epc[0],
            epc_inherited_ng=epc[1],
            billed_ng=dict(self.billed_ng),
            untaxed_ng=dict(self.untaxed_ng),
            running_jobs=len(self.running),
            jobs_total=self.jobs_total,
            weight_ppm_ns=self.weight_ppm_ns,
            amortised_ng=self.amortised.due_ng(),
        )

    def save(self, at_ns: int) -> list[Any]:
        """What must survive a restart, as plain JSON values; the caller's own may follow."""
        self.advance(at_ns)
        return [dict(self.billed_ng), dict(self.untaxed_ng), self.jobs_total, self.weight_ppm_ns]

    def restore(self, saved: Sequence[Any], amortised: Sequence[Any] | None, at_ns: int) -> None:
        """Go on from what `save` gave. `amortised`: None in what an older version saved, which knew but time."""
        billed_ng, untaxed_ng, self.jobs_total, self.weight_ppm_ns = saved
        self.billed_ng, self.untaxed_ng, self.at_ns = dict(billed_ng), dict(untaxed_ng), at_ns
        self.amortised = Amortised()
        if amortised is None:
            self.amortised.time_ng = self.recovered_ng
        else:
            self.amortised.restore(amortised)
