"""What energy costs over time: a step function of wall time, so that energy is priced on the steps' own boundaries.

Times are Unix nanoseconds (UTC), steps half-open. Source: formulas.md, "Operation": sum over windows of E * CI.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from wattribute.agent.core.accounting import Price


class PriceSeries:
    """A price that holds from each step on until the next; before the first step, the first one's."""

    __slots__ = ("_prices", "_starts")

    def __init__(self, steps: Iterable[tuple[int, Price]]) -> None:
        """Steps are (valid_from_unix_ns, price), at least one, in rising order. Raises ValueError."""
        ordered = list(steps)
        self._starts: Sequence[int] = [start for start, _ in ordered]
        self._prices: Sequence[Price] = [price for _, price in ordered]
        if not ordered or any(a >= b for a, b in zip(self._starts, self._starts[1:], strict=False)):
            raise ValueError("a price series needs at least one step, each later than the one before")

    @classmethod
    def constant(cls, price: Price) -> "PriceSeries":
        """One price for all time."""
        return cls([(0, price)])

    def at(self, unix_ns: int) -> Price:
        """The price in force at a moment."""
        return self._prices[max(0, bisect_right(self._starts, unix_ns) - 1)]

    def over(self, start_unix_ns: int, end_unix_ns: int) -> Price:
        """The mean price of energy used evenly from start to end: each step weighs by its time in between."""
        first = max(0, bisect_right(self._starts, start_unix_ns) - 1)
        last = max(0, bisect_right(self._starts, end_unix_ns - 1) - 1)
        if first >= last:
            return self._prices[first]
        edges = [start_unix_ns, *self._starts[first + 1 : last + 1], end_unix_ns]
        weighed = list(zip(edges, edges[1:], self._prices[first : last + 1], strict=False))
        whole_ns = end_unix_ns - start_unix_ns
        return Price(
            _rounded(sum((end - start) * price.operation for start, end, price in weighed), whole_ns),
            _rounded(sum((end - start) * price.cooling for start, end, price in weighed), whole_ns),
        )


def _rounded(amount: int, by: int) -> int:
    return (2 * amount + by) // (2 * by)
