"""Counts of single requests' energy by bucket, their sum in uJ, and the latest of each bucket, as words in memory."""

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from wattribute.agent.meter import layout

if TYPE_CHECKING:
    from wattribute.agent.requests import Receipts

_SUM = layout.BUCKETS
_LATEST = layout.BUCKETS + 1
_MOST = (1 << 60) - 1


class ReceiptCounts:
    """Counts, then the sum, then (Unix ns, uJ, id) of the latest per bucket; all 0 at first."""

    def __init__(self, words: "array[int] | None" = None) -> None:
        self._words = array("q", bytes(layout.RECEIPT_WORDS * layout.WORD)) if words is None else words

    @classmethod
    def of(cls, text: bytes) -> Self:
        """From the bytes in the file."""
        return cls(array("q", text))

    def words(self) -> "array[int]":
        """As it stands in the file."""
        return self._words

    def add(self, bucket: int, energies_uj: Sequence[int], name: str, unix_ns: int) -> None:
        """More receipts of a bucket; the last one's name and time."""
        words = self._words
        words[bucket] += len(energies_uj)
        words[_SUM] = min(_MOST, words[_SUM] + sum(energies_uj))
        text = name.encode("utf-8")[: layout.ID_BYTES].ljust(layout.ID_BYTES, b"\0")
        at = _LATEST + bucket * layout.LATEST_WORDS
        words[at : at + layout.LATEST_WORDS] = array("q", [unix_ns, min(_MOST, energies_uj[-1]), *array("q", text)])

    def merge(self, other: "ReceiptCounts") -> None:
        """Adds the counts of others; of two latest ones, the later."""
        mine, theirs = self._words, other._words
        for at in range(layout.BUCKETS):
            mine[at] += theirs[at]
        mine[_SUM] = min(_MOST, mine[_SUM] + theirs[_SUM])
        for at in range(_LATEST, layout.RECEIPT_WORDS, layout.LATEST_WORDS):
            if theirs[at] > mine[at]:
                mine[at : at + layout.LATEST_WORDS] = theirs[at : at + layout.LATEST_WORDS]

    def told(self) -> "Receipts":
        """As the agent is told."""
        from wattribute.agent.requests import Receipts

        words = self._words
        latest = []
        for bucket in range(layout.BUCKETS):
            at = _LATEST + bucket * layout.LATEST_WORDS
            name = words[at + 2 : at + layout.LATEST_WORDS].tobytes().rstrip(b"\0").decode("utf-8", "ignore")
            if words[bucket] and name:
                latest.append((bucket, name, words[at + 1], words[at]))
        return Receipts(counts=tuple(words[: layout.BUCKETS]), sum_uj=words[_SUM], latest=tuple(latest))


__all__ = ["ReceiptCounts"]
