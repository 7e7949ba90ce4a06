"""What one declared product bills at each moment, and to whom: platform overhead, its hardware, and the product tax.

Every amount is whole nanograms, with what is left below one carried. Source: formulas.md, "Operation" (platform tax),
"Embodied" (overhead_hardware, product tax), "Varying rates".
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from wattribute.agent.core.concurrency import Parts, Presence, Remainders, by_claims
from wattribute.agent.core.model import Term
from wattribute.agent.core.products import Product
from wattribute.agent.core.units import NS_PER_S, RATE_DENOMINATOR

_SLEW_NS = NS_PER_S
"""By so much wall time and the agent's own may drift apart in a tick; more is a clock that was set."""


class Metered(NamedTuple):
    """What a product's own jobs of a kind came to in a tick, ng: JSC (operation and cooling) and ec (hardware)."""

    platform_ng: int = 0
    platform_hardware_ng: int = 0
    retraining_ng: int = 0
    retraining_hardware_ng: int = 0


NOTHING_METERED = Metered()


class Tariff:
    """One product's rates and payers. `users` pay for its platform, `buyers` its product tax.

    `stock_ng` is the part of its EPC that its users recover (u_p * EPC), 0 where there is none or it isn't known.
    """

    def __init__(self, product: Product, stock_ng: int, at_ns: int, room_ng: int | None = None) -> None:
        fleet = product.scope == "fleet"
        self.users = Presence(at_ns, product.concurrency_ppm, None if fleet else 0)
        self.buyers = Presence(at_ns, product.concurrency_ppm, None if fleet else 0)
        self.recovered_until_unix_ns: int | None = None  # of a product with a deployment
        self._remainders: dict[Term, Remainders] = {}
        self._accrued_ns = at_ns
        self._declared_ng = self._recovered_ng = 0  # since the last tick
        self._rate_rest = self._stock_rest = self._life_ns = 0
        self._room_ng: int | None = None
        self._scope = product.scope
        self.declare(product, stock_ng, at_ns, room_ng)

    def declare(self, product: Product, stock_ng: int, at_ns: int, room_ng: int | None = None) -> None:
        """The product changes at a moment, until which it has accrued. `room_ng`: no more than that falls due any more
        of its EPC, of which units have recovered a part; None: no such bound.
        """
        live = product.status != "retired"
        self._rate = product.overhead_rate if live else 0
        self.by_claim = product.tax_by == "reserved"
        # An EPC is taxed from deployment on: one that is still being made has none yet.
        self._stock_ng = stock_ng if product.status == "frozen" else 0
        self._room_ng = None if room_ng is None else max(0, room_ng - self._recovered_ng)
        life_ns = (product.lifetime_s or 0) * NS_PER_S
        if life_ns != self._life_ns:
            self._life_ns, self._stock_rest = life_ns, 0  # a rest of another life is less than a nanogram of this one
        self._deployed_unix_ns = product.deployed_unix_ns
        for presence in (self.users, self.buyers):
            presence.set_declared(product.concurrency_ppm, at_ns)
        if product.scope != self._scope:
            self._scope = product.scope
            self.set_divisor(None if product.scope == "fleet" else 0, at_ns)

    def set_divisor(self, weight_ppm: int | None, at_ns: int) -> None:
        """The weight of all payers of a fleet, ours included; None while it isn't known."""
        self.users.set_outside(weight_ppm, at_ns)
        self.buyers.set_outside(weight_ppm, at_ns)

    @property
    def in_fleet(self) -> bool:
        """Whether other nodes' jobs count."""
        return self._scope == "fleet"

    def enter(self, job_id: str, weight: int, at_ns: int, *, buys: bool) -> None:
        """A payer arrives, or goes on with another weight."""
        self.users.enter(job_id, weight, at_ns)
        if buys:
            self.buyers.enter(job_id, weight, at_ns)
        else:
            self.buyers.leave(job_id, at_ns)

    def leave(self, job_id: str, at_ns: int) -> None:
        """A payer leaves; it still pays its part of this tick."""
        self.users.leave(job_id, at_ns)
        self.buyers.leave(job_id, at_ns)

    def accrue(self, at_ns: int, unix_offset_ns: int) -> None:
        """Let time pass at the present rates: what falls due is split with the tick that it is in."""
        self.users.advance(at_ns)
        self.buyers.advance(at_ns)
        end_ns = self.users.window_ns[1]
        due = self._rate * (end_ns - self._accrued_ns) + self._rate_rest
        declared_ng, self._rate_rest = divmod(due, RATE_DENOMINATOR)
        self._declared_ng += declared_ng
        if self._stock_ng:
            due_ng = self._recover(self._accrued_ns, end_ns, unix_offset_ns)
            if self._room_ng is not None:
                due_ng = min(due_ng, self._room_ng)
                self._room_ng -= due_ng
            self._recovered_ng += due_ng
        self._accrued_ns = end_ns

    def charge(
        self, at_ns: int, unix_offset_ns: int, metered: Metered, claims: Mapping[str, int] | None = None
    ) -> Iterator[tuple[Term, Parts]]:
        """Split what fell due since the last call; the tick ends, and so do the windows of its payers.

        `claims`: what jobs claim of the node, times their weight, for a product that is taxed by it; None: by weight.
        """
        self.accrue(at_ns, unix_offset_ns)
        declared_ng, recovered_ng = self._declared_ng, self._recovered_ng
        self._declared_ng = self._recovered_ng = 0
        # What payers elsewhere owe of a declared rate their nodes book; what was metered here is only known here.
        yield from self._split(
            self.users,
            ("platform", declared_ng + metered.platform_ng, declared_ng),
            ("overhead_hardware", metered.platform_hardware_ng, 0),
            claims=claims if self.by_claim else None,
        )
        yield from self._split(self.buyers, ("product", recovered_ng, recovered_ng))

    def _split(
        self, presence: Presence, *amounts: tuple[Term, int, int], claims: Mapping[str, int] | None = None
    ) -> Iterator[tuple[Term, Parts]]:
        if presence.nobodys:
            yield from ((term, Parts({}, amount_ng, 0)) for term, amount_ng, _ in amounts if amount_ng)
            presence.close()
            return
        left = presence.left
        if left or any(amount_ng for _, amount_ng, _ in amounts):
            shares = presence.shares()
            if claims is not None:
                shares = by_claims(shares, claims)
            for term, amount_ng, abroad_ng in amounts:
                if amount_ng or (left and term in self._remainders):
                    remainders = self._remainders.setdefault(term, Remainders())
                    yield term, remainders.split(amount_ng, shares, abroad_ng)
        presence.close()

    def _recover(self, start_ns: int, end_ns: int, unix_offset_ns: int) -> int:
        """What falls due of the stock: evenly over the product's life, and all of it in the end, to a nanogram."""
        if self._deployed_unix_ns is None:
            due_ng, self._stock_rest = divmod(self._stock_ng * (end_ns - start_ns) + self._stock_rest, self._life_ns)
            return due_ng
        start_unix_ns, end_unix_ns = start_ns + unix_offset_ns, end_ns + unix_offset_ns
        until_unix_ns = self.recovered_until_unix_ns
        if until_unix_ns is not None and abs(until_unix_ns - start_unix_ns) <= _SLEW_NS:
            start_unix_ns = until_unix_ns
        self.recovered_until_unix_ns = end_unix_ns = max(start_unix_ns, end_unix_ns)
        return self._by(end_unix_ns) - self._by(start_unix_ns)

    def _by(self, unix_ns: int) -> int:
        lived_ns = unix_ns - (self._deployed_unix_ns or 0)
        return self._stock_ng * min(max(0, lived_ns), self._life_ns) // self._life_ns
