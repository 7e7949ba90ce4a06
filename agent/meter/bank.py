"""The reporter's own state: what was told, and what workers served that are gone. Two banks in the file take turns.

A bank is written whole beside the one that holds, then one byte says that it holds: a reporter may be killed at any
moment, and its successor goes on from the last bank that was whole.
"""

from array import array

from wattribute.agent.meter import layout
from wattribute.agent.meter.memory import Memory
from wattribute.agent.meter.receipt_counts import ReceiptCounts
from wattribute.agent.meter.slots import SlotReading


class Bank:
    """The state as it was saved last. Only the reporter saves."""

    def __init__(self, memory: Memory) -> None:
        self._buffer = memory.buffer
        self._words, self._units = array("q"), array("d")
        start = layout.BANK + self._active() * layout.BANK_BYTES
        self._words.frombytes(self._buffer[start : start + layout.PAST_UNITS * layout.WORD])
        self._units.frombytes(self._buffer[start + layout.PAST_UNITS * layout.WORD : start + layout.BANK_BYTES])

    def _active(self) -> int:
        return self._buffer[layout.ACTIVE] & 1

    def save(self) -> None:
        """Makes this the state that holds."""
        bank = 1 - self._active()
        start = layout.BANK + bank * layout.BANK_BYTES
        self._buffer[start : start + layout.BANK_BYTES] = self._words.tobytes() + self._units.tobytes()
        self._buffer[layout.ACTIVE] = bank

    @property
    def reports(self) -> int:
        """How many reports were made; the next one's place among the last is this, modulo REPORTS."""
        return self._words[0]

    @property
    def at_ns(self) -> int:
        """When the last report was made, monotonic."""
        return self._words[1]

    def made(self, at_ns: int) -> None:
        """A report was made."""
        self._words[0] += 1
        self._words[1] = at_ns

    def taken_in(self, slot: int) -> int:
        """Up to which generation a slot's workers are in the counts here."""
        return self._words[layout.TAKEN_IN + slot]

    def told(self, slot: int) -> tuple[int, "array[int]"]:
        """(weighted, busy by tenant) in ns that reports told of a slot; below 0: owed, of workers that are gone."""
        start = layout.TOLD_BUSY + slot * layout.TENANTS
        return self._words[layout.TOLD_WEIGHTED + slot], self._words[start : start + layout.TENANTS]

    def tell(self, slot: int, tenant: int, weighted_ns: int, busy_ns: int) -> None:
        """A row of a report was taken."""
        self._words[layout.TOLD_WEIGHTED + slot] += weighted_ns
        self._words[layout.TOLD_BUSY + slot * layout.TENANTS + tenant] += busy_ns

    def take_in(self, slot: int, generation: int, last: SlotReading, receipts: ReceiptCounts) -> None:
        """A worker is gone: what it had in flight was aborted, and its slot begins at 0 for the next."""
        words, units = self._words, self._units
        for tenant, row in enumerate(last.rows):
            words[layout.TOLD_BUSY + slot * layout.TENANTS + tenant] -= row.busy_ns(last.v)
            words[layout.PAST_REQUESTS + tenant] += row.requests
            words[layout.PAST_ABORTED + tenant] += row.aborted + row.in_flight
            for kind, amount in enumerate(row.units):
                units[tenant * layout.KINDS + kind] += amount
        words[layout.TOLD_WEIGHTED + slot] -= last.weighted_ns()
        words[layout.TAKEN_IN + slot] = generation
        past = self.receipts()
        past.merge(receipts)
        words[layout.PAST_RECEIPTS : layout.PAST_RECEIPTS + layout.RECEIPT_WORDS] = past.words()

    def past(self, tenant: int) -> tuple[int, int, list[float]]:
        """(requests, aborted, units) that a tenant was served by workers that are gone."""
        start = tenant * layout.KINDS
        units = self._units[start : start + layout.KINDS].tolist()
        return self._words[layout.PAST_REQUESTS + tenant], self._words[layout.PAST_ABORTED + tenant], units

    def receipts(self) -> ReceiptCounts:
        """Those of workers that are gone."""
        return ReceiptCounts(self._words[layout.PAST_RECEIPTS : layout.PAST_RECEIPTS + layout.RECEIPT_WORDS])


def taken_in(memory: Memory, slot: int) -> int:
    """As Bank.taken_in, without reading the bank."""
    start = layout.BANK + (memory.buffer[layout.ACTIVE] & 1) * layout.BANK_BYTES
    at = start + (layout.TAKEN_IN + slot) * layout.WORD
    return int.from_bytes(memory.buffer[at : at + layout.WORD], "little")


__all__ = ["Bank", "taken_in"]
