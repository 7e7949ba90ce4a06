"""What the table of metric names has of each: one family of series, its type and its unit."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

MetricType: TypeAlias = Literal["counter", "gauge", "histogram"]
Section: TypeAlias = Literal["Node", "Jobs", "Products", "Requests", "Carbon intensity", "Sources", "Agent"]

UJ, NG, NS = -6, -9, -9
MICRO_UNITS = -6
WEIGHTED_NS = -15  # weight in millionths times nanoseconds
FLOAT = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. Values are integers times 10**`exponent`; an exponent of None marks a float.

    A histogram has the upper ends of its `buckets`, integers of the same exponent; the last, +Inf, goes without saying.
    """

    name: str
    section: Section
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    exponent: int | None = 0
    note: str = ""
    buckets: tuple[int, ...] = ()

    @property
    def type(self) -> MetricType:
        """What has buckets is a histogram; counters are what ends in `_total`, as promtool wants it."""
        if self.buckets:
            return "histogram"
        return "counter" if self.name.endswith("_total") else "gauge"

    @property
    def family(self) -> str:
        """The name as OpenMetrics has it in TYPE and HELP: a counter's without `_total`."""
        return self.name.removesuffix("_total")

    @property
    def le(self) -> tuple[str, ...]:
        """The label values of a histogram's buckets, as OpenMetrics wants its floats: 0.001, 1.0, +Inf."""
        return (*[repr(end / 10 ** -(self.exponent or 0)) for end in self.buckets], "+Inf")

    @property
    def numbers(self) -> int:
        """How many numbers a series of it takes; a histogram's: one per bucket, cumulative, then count and sum."""
        return len(self.buckets) + 3 if self.buckets else 1
