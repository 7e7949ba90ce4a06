"""The account that the worker processes of a product share: each counts in its own slot, one reports for all.

Counts are in shared memory from the moment a request ends, so a worker that is killed takes none along; nor does a
killed reporter, whose successor goes on from what the last one had told. Where there can't be a file, or not one more
worker in any, the account is this process's own memory, with a token of its own.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from wattribute.agent.meter import layout
from wattribute.agent.meter.bank import Bank, taken_in
from wattribute.agent.meter.memory import Memory, anonymous, shared
from wattribute.agent.meter.names import Names
from wattribute.agent.meter.receipt_counts import ReceiptCounts
from wattribute.agent.meter.report import Report
from wattribute.agent.meter.reporting import SHARES, Reporting
from wattribute.agent.process import here

if TYPE_CHECKING:
    from wattribute.agent.requests import Receipts

_FILES = 16
_LOCK_TRIES = 200
_known: "weakref.WeakSet[AccountFile]" = weakref.WeakSet()


class AccountFile:
    """One worker's end of an account. A child of a fork gets a slot of its own, at its first request."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.taking = threading.RLock()
        """Held while a slot is taken, or lost. Only in a `with`: nothing that a signal raises can leave it held."""
        self._slot: int | None = None
        self._reporting: Reporting | None = None
        self._detach: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._enter(self._mapped(path))
        _known.add(self)

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """The account at `path`, a file on a tmpfs, or for None one of this process alone. Raises nothing.

        Of more than SLOTS workers that live at once, the rest share a second file beside the first, and so on: each
        file is an account of its own, with its own token and reporter, so nothing is lost.
        """
        return cls(path)

    @property
    def token(self) -> str:
        """The account's name. Another one only after a fork of a process alone, or where the first had no room."""
        return self.memory.token

    @property
    def shared(self) -> bool:
        """Whether other processes can see it."""
        return self.memory.shared

    def slot(self) -> int:
        """The number of this worker's own slot, taken at the first call."""
        slot = self._slot
        if slot is None:
            with self.taking:
                if self._slot is None:
                    try:
                        self._slot = self._taken()
                    except (ArithmeticError, ValueError):  # numbers that no worker writes
                        self.memory.condemn()
                        self._slot = self._taken()
                slot = self._slot
        return slot

    @property
    def own_slot(self) -> int:
        """The same for who counts nothing: -1 before the first call of `slot`, and after `renew` or a fork."""
        return -1 if self._slot is None else self._slot

    @property
    def generation(self) -> int:
        """How many workers have had the own slot so far, this one included."""
        return self._word(layout.generation_at(self.slot()))

    def is_reporter(self) -> bool:
        """Whether this process reports for all: it holds the lock of byte 0, or gets it now."""
        if self._reporting is None and self.memory.take(layout.LOCK_REPORTER, self):
            self._reporting = Reporting(self.memory, Bank(self.memory), self.tenants, self.kinds)
        return self._reporting is not None

    def report(self, now_ns: int | None = None, *, rows: int = SHARES) -> Report:
        """What all slots have until `now_ns` (CLOCK_MONOTONIC, None: now). Only the reporter may ask: RuntimeError.

        Of shares the `rows` largest; the others come with the next report.

        Slots of dead workers are taken in: what they had in flight is billed until now, 10 s after their last sign at
        most, and counted as aborted.
        """
        if not self.is_reporter():
            raise RuntimeError("another process reports")
        assert self._reporting is not None
        try:
            return self._reporting.report(time.monotonic_ns() if now_ns is None else now_ns, rows)
        except (ArithmeticError, ValueError):
            self.memory.condemn()
            raise

    def reported(self, report: Report) -> None:
        """The last report was taken in: its shares count as told. Those of any other come again with the next."""
        if self._reporting is not None:
            self._reporting.reported(report)

    def v_at(self, until_ns: int) -> float | None:
        """Virtual time of the own slot (ns) at one of the last 64 reports; None where that isn't known any more."""
        value = self._noted(until_ns, layout.V_AT)
        return None if value is None else value * 1e9

    def busy_at(self, until_ns: int, tenant: str) -> int | None:
        """The busy time (ns) in the own slot's row of a tenant in that report: 0 without a row, None as `v_at`."""
        names = self.tenants.all()
        if tenant not in names:
            return None if self._noted(until_ns, layout.V_AT) is None else 0
        column = layout.BUSY_AT + names.index(tenant) * layout.REPORTS * layout.WORD
        value = self._noted(until_ns, column)
        return None if value is None else int(value)

    def add_receipts(self, bucket: int, energies_uj: Sequence[int], id: str, unix_ns: int) -> None:
        """More receipts of this worker, in a bucket of BUCKETS_UJ; name (48 bytes) and Unix time of the last one."""
        self._receipts.add(bucket, energies_uj, id, unix_ns)
        self._writes += 1
        count = self._writes.to_bytes(8, "little")
        start = layout.slot_at(self.slot()) + layout.RECEIPTS
        self.memory.buffer[start : start + layout.RECEIPT_BYTES] = count + self._receipts.words().tobytes() + count

    def receipts(self) -> "Receipts":
        """Receipts of all workers, those that are gone included. Right only in the reporter's process."""
        if not self.is_reporter():
            raise RuntimeError("another process reports")
        assert self._reporting is not None
        return self._reporting.receipts().told()

    def on_detach(self, method: Callable[[], None]) -> None:
        """A bound method to call before this process loses its slot, by `close`."""
        self._detach.append(weakref.WeakMethod(method))

    def renew(self) -> bool:
        """Whether the locks were lost, with descriptors that somebody closed, or the file was found damaged: then this
        worker has another slot from its next request on, and what was in this one is for the reporter to take in.
        """
        lost = self.memory.lost()
        if lost:
            with self.taking:
                self._detached()
                self._enter(self._mapped(self._path))
        return lost

    def leave(self) -> None:
        """Gives the slot back, and the reporter's part: what was in it is for the reporter to take in.

        Whoever leaves then asks `left_over`: another one may have done so after the last look of who reported.
        """
        with self.taking:
            self._detached()
            if self._slot is not None:
                self.memory.give(layout.LOCK_SLOT + self._slot, self)
            self._slot = None
        self.resign()

    def resign(self) -> None:
        """Another one may report."""
        self._reporting = None
        self.memory.give(layout.LOCK_REPORTER, self)

    def left_over(self) -> bool:
        """Whether there are counts of a worker that is gone, which nobody has taken in yet."""
        memory = self.memory
        for slot in range(layout.SLOTS):
            untold = self._word(layout.generation_at(slot)) > taken_in(memory, slot)
            if untold and memory.take(layout.LOCK_SLOT + slot, self):
                memory.give(layout.LOCK_SLOT + slot, self)
                return True
        return False

    def close(self) -> None:
        """Leaves for good: later counts reach nobody."""
        with self.taking:
            self.leave()
            self._path = None
            self._enter(anonymous())

    def _detached(self) -> None:
        for reference in self._detach:
            method = reference()
            if method is not None:
                method()

    def _enter(self, memory: Memory) -> None:
        self.memory = memory
        self.tenants = Names(
            memory.buffer, layout.TENANT_NAMES, layout.TENANTS, self._while_locked, first=("", "_other")
        )
        self.kinds = Names(memory.buffer, layout.KIND_NAMES, layout.KINDS, self._while_locked)
        self._slot = None
        self._receipts = ReceiptCounts()
        self._writes = 0
        self._reporting = None

    def _mapped(self, path: Path | None) -> Memory:
        if path is None:
            return anonymous()
        try:
            return shared(path)
        except (OSError, ImportError) as error:
            here().say_once(
                f"account {path}", "requests are counted for this process alone, %s can't be used: %s", path, error
            )
            return anonymous()

    def _taken(self) -> int:
        """A slot of this account, else of one of those beside it, else of this process's own."""
        if self.memory.lost():
            self._enter(self._mapped(self._path))
        path, count = self._path, 1
        while self.memory.shared and path is not None:
            try:
                slot = self._free_slot()
                if slot is None and self.is_reporter():  # nobody has taken in the dead ones
                    self.report()
                    slot = self._free_slot()
            except OSError as error:
                here().say_once(f"account room {path}", "%s has no room: %s", path, error)
                break
            if slot is not None:
                return slot
            self.memory.give(layout.LOCK_REPORTER, self)
            count += 1
            if count > _FILES:
                break
            self._enter(self._mapped(path.with_name(f"{path.name}.{count}")))
        if self.memory.shared:
            self.memory.give(layout.LOCK_REPORTER, self)
            self._enter(anonymous())
        slot = self._free_slot()
        assert slot is not None
        return slot

    def _free_slot(self) -> int | None:
        """Takes a slot that nobody has and whose last worker's counts were taken in. Raises OSError without room."""
        memory = self.memory
        for slot in range(layout.SLOTS):
            if not memory.take(layout.LOCK_SLOT + slot, self):
                continue
            start = layout.slot_at(slot)
            generation = self._word(layout.generation_at(slot))
            if generation == taken_in(memory, slot):
                try:
                    memory.reserve(start, layout.SLOT_BYTES)
                except OSError:
                    memory.give(layout.LOCK_SLOT + slot, self)
                    raise
                memory.buffer[start : start + layout.SLOT_BYTES] = bytes(layout.SLOT_BYTES)
                at = layout.generation_at(slot)
                memory.buffer[at : at + layout.WORD] = (generation + 1).to_bytes(8, "little")
                return slot
            memory.give(layout.LOCK_SLOT + slot, self)
        return None

    def _noted(self, until_ns: int, column: int) -> float | None:
        """What the reporter noted of the own slot at a report."""
        if self._slot is None:
            return None
        buffer = self.memory.buffer
        untils = memoryview(buffer)[layout.UNTILS : layout.UNTILS + layout.REPORTS * layout.WORD].cast("q")
        for place, noted_ns in enumerate(untils):
            if noted_ns == until_ns:
                start = layout.slot_at(self._slot) + column + place * layout.WORD
                value: float = memoryview(buffer)[start : start + layout.WORD].cast("d")[0]
                return value if untils[place] == until_ns else None
        return None

    def _while_locked(self, add: Callable[[], int]) -> int:
        """Runs `add` while no other worker adds a name; -1 where another one takes too long."""
        owner = object()
        for _ in range(_LOCK_TRIES):
            if self.memory.take(layout.LOCK_NAMES, owner):
                try:
                    return add()
                finally:
                    self.memory.give(layout.LOCK_NAMES, owner)
            time.sleep(0)
        return -1

    def _word(self, at: int) -> int:
        return int.from_bytes(self.memory.buffer[at : at + layout.WORD], "little")

    def _forked(self) -> None:
        """In a child: slot and lock are the parent's; memory of a process alone isn't shared with children."""
        self.taking = threading.RLock()
        self._enter(self.memory if self.memory.shared else anonymous())


def _after_fork() -> None:
    for file in list(_known):
        file._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


__all__ = ["SHARES", "AccountFile"]
