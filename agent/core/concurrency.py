"""Who is present to pay for a product, by weight, and how nanograms fall to those who were.

V(t) = integral of dt/W, W the sum of the weights present (fair queueing's virtual time): a payer's part of a window is
w * (V(leave) - V(enter)), so that a start or an end costs O(1) and every moment is paid at its own rate. With 1 then
9 g/s, two consecutive 10 s jobs owe 10 and 90, not 50 and 50 (formulas.md, "Varying rates"). Weights are integers,
times nanoseconds.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

_FINE = 1 << 96
"""V is an integer in 1/_FINE ns per unit of weight: what rounding takes from a payer's part is below 1e-15 of it."""
_BITS = 40
_WHOLE = 1 << _BITS
"""Remainders are integers in 1/_WHOLE of a nanogram."""
_GUARD = 1 << 10
"""What is so little short of a whole nanogram is one: fixed point rounds down."""
_ELSEWHERE, _NOBODY = "\0elsewhere", "\0nobody"
"""Accounts beside the payers' own; no job is called so."""


class Shares(NamedTuple):
    """Whose one window was: the payers' parts and that of payers elsewhere, of `whole`; the rest was nobody's.

    `left`: payers that aren't present any more.
    """

    payers: Mapping[str, int]
    elsewhere: int
    whole: int
    left: Collection[str]


class Parts(NamedTuple):
    """What an amount came to, ng: the three are the amount."""

    payers: Mapping[str, int]
    untaxed_ng: int
    elsewhere_ng: int


class Presence:
    """The payers of one product. A window ends with `close`, and the next begins there.

    `declared` is a weight of payers everywhere, theirs and ours: the divisor is then the larger of it and the weight
    seen, and what falls to the others is `elsewhere`. `set_outside` gives such a weight that changes; while it is
    unknown (None) the time of those who are present is nobody's (a local count would be a guess), and time without any
    is elsewhere's: every node would count it.
    """

    def __init__(self, at_ns: int, declared: int = 0, outside: int | None = 0) -> None:
        self._declared = declared
        self._outside = outside
        self._weight = 0
        self._payers: dict[str, tuple[int, int]] = {}  # weight, and V at its beginning
        self._closed: dict[str, int] = {}  # parts of those that left or changed their weight within the window
        self._at_ns = self._since_ns = at_ns
        self._v = self._since_v = 0
        self._elsewhere = 0

    @property
    def weight(self) -> int:
        """Sum of the weights present."""
        return self._weight

    @property
    def window_ns(self) -> tuple[int, int]:
        """From when to when the present window goes, as far as time was let pass."""
        return self._since_ns, self._at_ns

    @property
    def nobodys(self) -> bool:
        """Whether all of the window, as far as time was let pass, was nobody's, and nobody left in it."""
        moved = self._v != self._since_v or self._elsewhere
        return self._at_ns > self._since_ns and not moved and not self._closed

    @property
    def left(self) -> list[str]:
        """Those that left within the window and didn't come back."""
        return [payer for payer in self._closed if payer not in self._payers]

    def advance(self, at_ns: int) -> None:
        """Let time pass until `at_ns`; an earlier moment changes nothing."""
        passed_ns = at_ns - self._at_ns
        if passed_ns <= 0:
            return
        self._at_ns = at_ns
        if self._outside is None and not self._weight:
            self._elsewhere += passed_ns * _FINE
            return
        divisor = self._divisor() if self._weight or self._declared or self._outside else 0
        if divisor:
            self._v += passed_ns * _FINE // divisor
            self._elsewhere += passed_ns * (divisor - self._weight) * _FINE // divisor

    def enter(self, payer: str, weight: int, at_ns: int) -> None:
        """A payer arrives with an integer weight >= 1, or goes on with another one."""
        present = self._payers.get(payer)
        if present is not None and present[0] == weight:
            return
        self.leave(payer, at_ns)
        self.advance(at_ns)
        self._payers[payer] = weight, self._v
        self._weight += weight

    def leave(self, payer: str, at_ns: int) -> None:
        """A payer leaves; its part of the window is kept until its end. One that isn't present changes nothing."""
        if payer in self._payers:
            self.advance(at_ns)
            self._closed[payer] = self._closed.get(payer, 0) + self._part(payer)
            self._weight -= self._payers.pop(payer)[0]

    def set_declared(self, declared: int, at_ns: int) -> None:
        """Another declared weight from a moment on."""
        self.advance(at_ns)
        self._declared = declared

    def set_outside(self, weight: int | None, at_ns: int) -> None:
        """The weight of payers everywhere, as somebody else counts it, from a moment on; None: nobody knows it."""
        self.advance(at_ns)
        self._outside = weight

    def shares(self) -> Shares:
        """Whose the window was. One without any length is of those that are present, by weight."""
        length_ns = self._at_ns - self._since_ns
        if not length_ns:
            weights = {payer: weight for payer, (weight, _) in self._payers.items()}
            divisor = self._divisor()
            if not divisor:
                return Shares({}, 0, 1, self.left)
            return Shares(weights, divisor - self._weight, divisor, self.left)
        parts = dict(self._closed)
        since_v, now_v = self._since_v, self._v
        for payer, (weight, begun_v) in self._payers.items():
            part = weight * (now_v - (begun_v if begun_v > since_v else since_v))
            parts[payer] = parts[payer] + part if payer in parts else part
        return Shares(parts, self._elsewhere, length_ns * _FINE, self.left)

    def close(self) -> None:
        """The window ends; the next one begins."""
        self._since_ns, self._since_v = self._at_ns, self._v
        self._elsewhere = 0
        self._closed = {}

    def _part(self, payer: str) -> int:
        weight, begun_v = self._payers[payer]
        return weight * (self._v - max(begun_v, self._since_v))

    def _divisor(self) -> int | None:
        return None if self._outside is None else max(self._declared, self._outside, self._weight)


def by_claims(shares: Shares, claims: Mapping[str, int]) -> Shares:
    """The payers' time together, over them by their claims (>= 0) in place of weight; nobody's where none claims."""
    payers_part = sum(shares.payers.values())
    claimed = {payer: claims.get(payer, 0) for payer in shares.payers}
    whole = sum(claimed.values())
    if not whole:
        return shares._replace(payers=claimed)
    payers = {payer: payers_part * claim for payer, claim in claimed.items()}
    return Shares(payers, shares.elsewhere * whole, shares.whole * whole, shares.left)


class Remainders:
    """Splits amounts of whole nanograms over the payers of window after window, and carries what is left below one.

    The parts are the amount at every call, and none is negative. What a payer got is within 1 ng of the exact sum of
    its shares while these come to 1 ng a window; of smaller ones it can be a few ng behind for a while (no rule that
    doesn't know the future does better). What is carried for a payer that leaves passes to nobody's account.
    """

    def __init__(self) -> None:
        self._carried: dict[str, int] = {_ELSEWHERE: 0, _NOBODY: 0}

    def split(self, amount_ng: int, shares: Shares, abroad_ng: int = 0) -> Parts:
        """`abroad_ng` is how much of the amount others book where it falls to payers elsewhere; of the rest that is
        untaxed here.
        """
        carried, whole = self._carried, shares.whole
        scaled = rest = amount_ng << _BITS
        parts: dict[str, int] = {}
        left_ng = amount_ng
        for payer, share in shares.payers.items():
            due = scaled * share // whole
            rest -= due
            due += carried.get(payer, 0)
            part_ng = (due + _GUARD) >> _BITS
            if part_ng > 0:
                parts[payer] = part_ng
                left_ng -= part_ng
                due -= part_ng << _BITS
            carried[payer] = due
        abroad = (abroad_ng << _BITS) * shares.elsewhere // whole
        nobodys = rest - abroad + sum(carried.pop(payer, 0) for payer in shares.left)
        for account, due in ((_ELSEWHERE, abroad), (_NOBODY, nobodys)):
            due += carried[account]
            parts[account] = max(0, (due + _GUARD) >> _BITS)
            left_ng -= parts[account]
            carried[account] = due - (parts[account] << _BITS)
        if left_ng > 0:
            for payer in sorted(carried, key=carried.__getitem__, reverse=True)[:left_ng]:
                parts[payer] = parts.get(payer, 0) + 1
                carried[payer] -= _WHOLE
        elif left_ng:
            self._take_back(-left_ng, parts)
        elsewhere_ng, untaxed_ng = parts.pop(_ELSEWHERE), parts.pop(_NOBODY)
        return Parts(parts, untaxed_ng, elsewhere_ng)

    def _take_back(self, over_ng: int, parts: dict[str, int]) -> None:
        """Several that owe nothing now got a nanogram too early: others wait for as much, those who left last."""
        carried = self._carried
        accounts = (_ELSEWHERE, _NOBODY)
        payers = sorted(parts, key=lambda payer: (payer not in accounts, payer not in carried, carried.get(payer, 0)))
        while over_ng:
            for payer in payers:
                back_ng = min(over_ng, parts[payer], over_ng if payer in accounts else 1)
                parts[payer] -= back_ng
                carried[payer if payer in carried else _NOBODY] += back_ng << _BITS
                over_ng -= back_ng
