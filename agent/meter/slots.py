"""What stands in one worker's slot at a moment, carried on to a later one as virtual time goes on by itself."""

import mmap
import struct
import time
from dataclasses import dataclass

from wattribute.agent.meter import layout

_ROW = struct.Struct(f"q{layout.ROW_WORDS - 1}d")
_TRIES = 400
NS_PER_S = 1e9


@dataclass(slots=True)
class SlotRow:
    """One tenant's: counts, the weight in flight `w`, and the sums `c` and `b` that S = w V - c, A = w t - b are of."""

    requests: int
    w: float
    c: float
    b: float
    in_flight: int
    aborted: int
    units: tuple[float, ...]

    def busy_ns(self, v: float) -> int:
        """Its part of the time in which the worker had any request in flight, when virtual time is `v` seconds."""
        return max(0, int((self.w * v - self.c) * NS_PER_S))


@dataclass(slots=True)
class SlotReading:
    """All rows of a slot at one moment, `at` (monotonic seconds), and virtual time `v` then."""

    rows: list[SlotRow]
    at: float
    v: float

    def carry(self, now: float) -> None:
        """Goes on to `now`, with what is in flight in flight: V += dt / W. A clock before the last event is nothing."""
        weight = sum(row.w for row in self.rows)
        if now > self.at:
            if weight > 0:
                self.v += (now - self.at) / weight
            self.at = now

    def weighted_ns(self) -> int:
        """Weight * time in flight of all requests so far."""
        return max(0, int(sum(row.w * self.at - row.b for row in self.rows) * NS_PER_S))


def read_slot(buffer: mmap.mmap, slot: int, tenants: int, *, live: bool) -> SlotReading:
    """A slot's rows at one moment: read until two reads agree and no row is half written.

    A row of a dead worker may stay half written: each of its values is then that before its last event or after.
    """
    start = layout.row_at(slot, 0)
    end = start + tenants * layout.ROW_BYTES
    for attempt in range(_TRIES if live else 1):
        first = buffer[start:end]
        rows = [_ROW.unpack_from(first, at) for at in range(0, end - start, layout.ROW_BYTES)]
        if first == buffer[start:end] and all(row[1] == row[6] for row in rows):
            break
        if attempt > 20:  # its writer waits for a core
            time.sleep(0.0001)
    return _parse(rows)


def _parse(rows: list[tuple[float, ...]]) -> SlotReading:
    at, v = max(((max(row[1], row[6]), row[2]) for row in rows), default=(0.0, 0.0))
    return SlotReading(
        [
            SlotRow(
                requests=int(row[0]),
                w=row[3],
                c=row[4],
                b=row[5],
                in_flight=max(0, round(row[3] - row[9] + row[8])),
                aborted=int(row[10]),
                units=(row[layout.FIRST_UNITS], *row[layout.units_at(1) :]),
            )
            for row in rows
        ],
        at,
        v,
    )


__all__ = ["NS_PER_S", "SlotReading", "SlotRow", "read_slot"]
