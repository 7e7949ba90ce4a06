"""Batches of series: families with what they have in common, a list of owners (jobs, products).

An owner's labels stay from snapshot to snapshot, so that a page renders them once. The numbers change: they lie flat, a
column per family.
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from wattribute.agent.core.model import EXPORTED_SLOTS
from wattribute.exporters.metric import Metric
from wattribute.exporters.metrics import METRIC

Labels: TypeAlias = tuple[str, ...]
Series: TypeAlias = Sequence[Sequence[Labels]]
Number: TypeAlias = int | float

LABEL_CHARACTERS = 256  # ids have 128 at most; what is longer got past the door

_UNPRINTABLE = re.compile("[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\U0010ffff]")


class Owner(Hashable, Protocol):
    """Who series belong to: a hashable value from which their labels follow."""

    def series(self) -> Series:
        """The label values of each series, by family of the batch."""
        ...


class Exemplar(NamedTuple):
    """One of those that a bucket counts: the latest request in it."""

    request_id: str
    energy_uj: int
    at_unix_ns: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Families with the same owners, and for each a column of numbers: owner by owner, series by series.

    No other batch has these families, and no two owners have a series in common. A series takes as many numbers as its
    metric says: one, or those of a histogram.
    """

    metrics: tuple[Metric, ...]
    owners: Sequence[Owner]
    columns: Sequence[Sequence[Number]]
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)  # of the first column: place -> what is counted


class Rows(NamedTuple):
    """All series of a family that is a batch of its own."""

    rows: tuple[Labels, ...]

    def series(self) -> Series:
        return (self.rows,)


def cleaned(values: Labels) -> Labels:
    """Label values that can't break a page: control characters, line separators and lone surrogates replaced.

    The registry lets in nothing of the kind; this is the second line. A newline stays, escaped by who renders.
    """
    together = "".join(values)  # one look at all of them: they are nearly always good
    if together.isprintable() and (len(together) <= LABEL_CHARACTERS or max(map(len, values)) <= LABEL_CHARACTERS):
        return values
    return tuple([_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value)[:LABEL_CHARACTERS] for value in values])


def added(totals: Sequence[Sequence[int]]) -> Sequence[int]:
    """The sums of totals, slot by slot; those past EXPORTED_SLOTS aren't shown."""
    return [sum(column) for column in zip(*[values[:EXPORTED_SLOTS] for values in totals], strict=True)]


def rows(name: str, values: Mapping[Labels, Number]) -> Batch:
    """A family on its own."""
    return Batch((METRIC[name],), (Rows(tuple(values)),), (tuple(values.values()),))


def summed(pairs: Iterable[tuple[Labels, int]]) -> dict[Labels, int]:
    """Label values to numbers; what has the same labels once cleaned is added up."""
    sums: dict[Labels, int] = {}
    for raw, number in pairs:
        labels = cleaned(raw)
        sums[labels] = sums.get(labels, 0) + number
    return sums
