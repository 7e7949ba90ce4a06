"""Who pays a rate that concurrent payers share: the cumulative integral of rate/weight.

V(t) = integral of rate/W dt, W the sum of the weights present (fair queueing's virtual time, for varying rates).
A payer owes w * (V(leave) - V(enter)), so a start or an end costs O(1) and every moment is paid at its own rate:
with 1 then 9 g/s, two consecutive 10 s jobs owe 10 and 90, not 50 and 50 (formulas.md, "Varying rates").
"""

from dataclasses import dataclass

from wattribute.agent.core.units import RATE_DENOMINATOR

_FINE = 1 << 40
"""V is an integer in 1/_FINE of the rate's own unit per unit of weight: the rounding is below 1e-12 nanograms."""


@dataclass(slots=True)
class _Payer:
    weight: int
    settled_v: int
    carry: int


class SharedRate:
    """A rate in integer nanograms per 1e9 s, shared by weight among those present; times in nanoseconds.

    `concurrency` is a declared number (weight) of payers elsewhere and here: the divisor is then the larger of it and
    the weight seen, so that each node books its own slice only. Billed is what `settle` gave out, exact per payer to
    below a nanogram; with nobody present the rate goes to `untaxed_ng` unless a concurrency is declared.
    """

    def __init__(self, rate: int, at_ns: int, concurrency: int = 0) -> None:
        self._rate = rate
        self._at_ns = at_ns
        self._concurrency = concurrency
        self._v = 0
        self._weight = 0
        self._payers: dict[str, _Payer] = {}
        self._untaxed_num = 0

    @property
    def weight(self) -> int:
        """Sum of the weights present."""
        return self._weight

    def advance(self, at_ns: int) -> None:
        """Let time pass until `at_ns`; an earlier moment changes nothing."""
        if at_ns <= self._at_ns:
            return
        amount = self._rate * (at_ns - self._at_ns)
        self._at_ns = at_ns
        if self._weight:
            self._v += amount * _FINE // max(self._weight, self._concurrency)
        elif not self._concurrency:
            self._untaxed_num += amount

    def set_rate(self, rate: int, at_ns: int) -> None:
        """The rate changes at a moment; what went before is owed at the old one."""
        self.advance(at_ns)
        self._rate = rate

    def enter(self, payer: str, weight: int, at_ns: int) -> None:
        """A payer arrives with an integer weight >= 1. One that is present already is left as it is."""
        self.advance(at_ns)
        if payer not in self._payers:
            self._payers[payer] = _Payer(weight, self._v, 0)
            self._weight += weight

    def leave(self, payer: str, at_ns: int) -> int:
        """A payer leaves; returns the nanograms it still owes. What is left below one goes to untaxed."""
        self.advance(at_ns)
        entry = self._payers.pop(payer, None)
        if entry is None:
            return 0
        self._weight -= entry.weight
        owed_ng, carry = self._owed(entry)
        self._untaxed_num += carry // _FINE
        return owed_ng

    def settle(self, at_ns: int) -> dict[str, int]:
        """Nanograms owed by each payer since it last settled; exact to a nanogram over any number of calls."""
        self.advance(at_ns)
        owed: dict[str, int] = {}
        for payer, entry in self._payers.items():
            owed_ng, entry.carry = self._owed(entry)
            entry.settled_v = self._v
            if owed_ng:
                owed[payer] = owed_ng
        return owed

    def untaxed_ng(self) -> int:
        """Nanograms that fell due with nobody to pay, since the last call."""
        untaxed_ng, self._untaxed_num = divmod(self._untaxed_num, RATE_DENOMINATOR)
        return untaxed_ng

    def _owed(self, entry: _Payer) -> tuple[int, int]:
        return divmod(entry.weight * (self._v - entry.settled_v) + entry.carry, RATE_DENOMINATOR * _FINE)
