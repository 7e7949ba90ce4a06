"""What the reporter of an account does: reads all slots, takes in the dead, and tells what wasn't told yet."""

import time

from wattribute.agent.meter import layout
from wattribute.agent.meter.bank import Bank
from wattribute.agent.meter.memory import Memory
from wattribute.agent.meter.names import Names
from wattribute.agent.meter.receipt_counts import ReceiptCounts
from wattribute.agent.meter.report import Report, Row
from wattribute.agent.meter.slots import NS_PER_S, SlotReading, read_slot

SHARES = 1000
"""Rows of one report, if no fewer are asked for: a line of the socket holds about so many."""
_DEATH_SEEN_S = 10.0
"""After its last sign a dead worker's requests are billed for no longer: perhaps nobody was there to report."""
_UNITS_MOST = 1e18
_NOTHING = bytes(layout.TENANTS * layout.WORD)


class Reporting:
    """The reporter's work, from the bank that holds."""

    def __init__(self, memory: Memory, bank: Bank, tenants: Names, kinds: Names) -> None:
        self._memory = memory
        self._bank = bank
        self._tenants = tenants
        self._kinds = kinds
        self._last: Report | None = None
        self._words = memoryview(memory.buffer).cast("q")
        self._floats = memoryview(memory.buffer).cast("d")

    def report(self, now_ns: int, most: int) -> Report:
        """All slots until `now_ns` (monotonic), with at most so many shares."""
        live = self._read(now_ns)
        until_ns = now_ns + _boottime_ahead_ns()
        rows = self._untold(live, most)
        self._note(until_ns, live, rows)
        self._bank.made(now_ns)
        self._bank.save()
        served, places = self._served(live, {tenant for _, tenant, _, _ in rows})
        self._last = Report(
            until_ns=until_ns,
            shares=tuple((slot, places[tenant], weighted, busy) for slot, tenant, weighted, busy in rows),
            served=served,
            workers=max(1, len(live)),
            in_flight=sum(row.in_flight for reading in live.values() for row in reading.rows),
        )
        return self._last

    def reported(self, report: Report) -> None:
        """What the last report told of is told."""
        if report is self._last:
            self._last = None
            tenants = {name: at for at, name in enumerate(self._tenants.all())}
            for slot, place, weighted_ns, busy_ns in report.shares:
                self._bank.tell(slot, tenants[report.served[place].tenant], weighted_ns, busy_ns)
            self._bank.save()

    def receipts(self) -> ReceiptCounts:
        """Of all workers."""
        counts = self._bank.receipts()
        for slot in range(layout.SLOTS):
            if self._generation(slot) > self._bank.taken_in(slot):
                counts.merge(self._receipts(slot))
        return counts

    def _read(self, now_ns: int) -> dict[int, SlotReading]:
        """Live slots, carried on to now; dead ones are taken into the bank."""
        live: dict[int, SlotReading] = {}
        dead = []
        try:
            for slot in range(layout.SLOTS):
                generation = self._generation(slot)
                if generation <= self._bank.taken_in(slot):
                    continue
                is_dead = self._memory.take(layout.LOCK_SLOT + slot, self)
                if is_dead:
                    dead.append(slot)
                reading = read_slot(self._memory.buffer, slot, len(self._tenants.all()), live=not is_dead)
                if is_dead:
                    seen = max(reading.at, self._bank.at_ns / NS_PER_S)
                    reading.carry(min(now_ns / NS_PER_S, seen + _DEATH_SEEN_S))
                    self._bank.take_in(slot, generation, reading, self._receipts(slot))
                else:
                    reading.carry(now_ns / NS_PER_S)
                    live[slot] = reading
            if dead:
                self._bank.save()
        finally:
            for slot in dead:
                self._memory.give(layout.LOCK_SLOT + slot, self)
        return live

    def _untold(self, live: dict[int, SlotReading], most: int) -> list[tuple[int, int, int, int]]:
        """(slot, tenant, weighted, busy) that no report told of: the largest, where they are too many."""
        rows = []
        for slot in range(layout.SLOTS):
            told_weighted, told_busy = self._bank.told(slot)
            reading = live.get(slot)
            if reading is None:
                if told_busy.tobytes() == _NOTHING:
                    continue
                busy, weighted = [max(0, -told) for told in told_busy], max(0, -told_weighted)
            else:
                busy = [max(0, row.busy_ns(reading.v) - told_busy[at]) for at, row in enumerate(reading.rows)]
                weighted = max(0, reading.weighted_ns() - told_weighted)
            whole, before = sum(busy), 0
            for tenant, busy_ns in enumerate(busy):
                if busy_ns:
                    after = before + busy_ns
                    rows.append((slot, tenant, weighted * after // whole - weighted * before // whole, busy_ns))
                    before = after
        if len(rows) > most:
            rows = sorted(rows, key=lambda row: row[3], reverse=True)[:most]
        return rows

    def _note(self, until_ns: int, live: dict[int, SlotReading], rows: list[tuple[int, int, int, int]]) -> None:
        """For receipts: where each worker's virtual time was, and what the rows of its slot are."""
        place = self._bank.reports % layout.REPORTS
        busy = {(slot, tenant): busy_ns for slot, tenant, _, busy_ns in rows}
        until = layout.UNTILS // layout.WORD + place
        self._words[until] = 0
        for slot, reading in live.items():
            start = layout.slot_at(slot)
            self._floats[(start + layout.V_AT) // layout.WORD + place] = reading.v
            column = (start + layout.BUSY_AT) // layout.WORD + place
            for tenant in range(len(reading.rows)):
                self._floats[column + tenant * layout.REPORTS] = busy.get((slot, tenant), 0)
        self._words[until] = until_ns

    def _served(self, live: dict[int, SlotReading], shared: set[int]) -> tuple[tuple[Row, ...], dict[int, int]]:
        """Cumulative rows of all tenants that anything is known of, and where each stands among them."""
        served: list[Row] = []
        places: dict[int, int] = {}
        kinds = self._kinds.all()
        for tenant, name in enumerate(self._tenants.all()):
            requests, aborted, units = self._bank.past(tenant)
            for reading in live.values():
                if tenant < len(reading.rows):
                    row = reading.rows[tenant]
                    requests, aborted = requests + row.requests, aborted + row.aborted
                    units = [sum(pair) for pair in zip(units, row.units, strict=True)]
            if requests or aborted or tenant in shared or any(units):
                places[tenant] = len(served)
                told = {kind: min(amount, _UNITS_MOST) for kind, amount in zip(kinds, units, strict=False) if amount}
                served.append(Row(tenant=name, requests=requests, aborted=aborted, units=told))
        return tuple(served), places

    def _receipts(self, slot: int) -> ReceiptCounts:
        start = layout.slot_at(slot) + layout.RECEIPTS
        for _ in range(20):
            text = self._memory.buffer[start : start + layout.RECEIPT_BYTES]
            if text[:8] == text[-8:]:
                break
            time.sleep(0.0001)
        return ReceiptCounts.of(text[8:-8])

    def _generation(self, slot: int) -> int:
        return self._words[layout.generation_at(slot) // layout.WORD]


def _boottime_ahead_ns() -> int:
    """CLOCK_BOOTTIME less CLOCK_MONOTONIC: the time asleep."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


__all__ = ["SHARES", "Reporting"]
