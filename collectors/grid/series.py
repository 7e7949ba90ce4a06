"""Intensity and PUE over time from CSV files: `valid_from,gco2e_per_kwh` and `valid_from,pue`.

Times are RFC 3339 with their offset (or Z). A row holds until the next one, the last for one typical step (the median)
longer; outside of that the nearest row holds on, flagged stale. A single row holds for good.
"""

import csv
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.intensity import MOST_G_PER_KWH, About, Reported, rfc3339, unix_ns_of
from wattribute.collectors.grid.feed import Answer, Unanswered

MOST_BYTES = 64 * 2**20  # five minutes' steps for twelve years
MOST_PUE = 20.0
FOR_GOOD_NS = 2**62

Rows = tuple[tuple[int, float], ...]


def intensities(path: Path) -> Rows:
    """The rows of an intensity series. Raises ConfigError, which names file and line."""
    return _read(path, "gco2e_per_kwh", _intensity, _stamp(path))


def pues(path: Path) -> Rows:
    """The rows of a PUE series. Raises ConfigError, which names file and line."""
    return _read(path, "pue", _pue, _stamp(path))


class SeriesFeed:
    """An intensity series, read again when the file changes; the whole file is the answer."""

    every_s = 5.0
    ahead_ns = 0
    settles = True
    whole = True

    def __init__(self, path: Path, factor_type: str) -> None:
        self.path = path
        self.about = About(
            zone="", provider="series", method=f"average, {factor_type}", source=f"{path.name}, as configured"
        )
        self._rows: Rows = ()
        self._answer = Answer()

    def fetch(self, start_unix_ns: int, end_unix_ns: int, now_unix_ns: int) -> Answer:
        """The file as it is now, from the row on that is in force at the start; the same object as long as it doesn't
        change. Raises Unanswered.
        """
        rows = _unless_wrong(intensities, self.path)
        if rows is self._rows:
            return self._answer
        self._rows = rows
        starts = [start for start, _ in rows]
        step_ns = typical_step_ns(starts)
        first = max(0, bisect_right(starts, start_unix_ns) - 1)
        starts, rows = starts[first:], rows[first:]
        ends = [*starts[1:], starts[-1] + step_ns]
        values = [
            Reported(start, end, g_per_kwh, "final", now_unix_ns)
            for (start, g_per_kwh), end in zip(rows, ends, strict=True)
        ]
        self._answer = Answer(values=values)
        return self._answer


class PueFeed:
    """A PUE series, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: Rows = ()

    def fetch(self) -> Rows:
        """The file as it is now. Raises Unanswered."""
        self._rows = _unless_wrong(pues, self.path)
        return self._rows

    def outside(self, unix_ns: int) -> str:
        """In a sentence, that a moment is before the first row, or more than a typical step after the last; or ""."""
        if not self._rows:
            return ""
        starts = [start for start, _ in self._rows]
        if starts[0] <= unix_ns < starts[-1] + typical_step_ns(starts):
            return ""
        edge = "first" if unix_ns < starts[0] else "last"
        at = starts[0] if edge == "first" else starts[-1]
        return f"{self.path.name}: its {edge} row, of {rfc3339(at)}, holds for a time that it doesn't cover"


def typical_step_ns(starts: Sequence[int]) -> int:
    """The median distance of rows; for good where there is but one row."""
    steps = sorted(b - a for a, b in pairwise(starts))
    return steps[len(steps) // 2] if steps else FOR_GOOD_NS - starts[0]


def _unless_wrong(read: Callable[[Path], Rows], path: Path) -> Rows:
    try:
        return read(path)
    except ConfigError as error:
        raise Unanswered("series", str(error), "mend the file; it is read again when it changes") from error


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when the file does."""
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"{path.absolute()}: can't be read: {error.strerror or error}") from error
    return status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=4)
def _read(path: Path, column: str, value_of: Callable[[str], float], stamp: tuple[int, int, int]) -> Rows:
    shown = path.absolute()
    if stamp[1] > MOST_BYTES:
        raise ConfigError(f"{shown}: larger than {MOST_BYTES >> 20} MiB")
    rows: list[tuple[int, float]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.reader(lines, strict=True)
            header = [cell.strip() for cell in next(table, [])]
            if header != ["valid_from", column]:
                raise ConfigError(f"{shown}: the first line must be valid_from,{column} (it is {','.join(header):.60})")
            for row in table:
                if not row:
                    continue
                try:
                    start, value = _row(row, value_of)
                except ValueError as error:
                    raise ConfigError(f"{shown}, line {table.line_num}: {error}") from None
                if rows and start <= rows[-1][0]:
                    how = "repeats the time of" if start == rows[-1][0] else "is earlier than"
                    raise ConfigError(f"{shown}, line {table.line_num}: {row[0]} {how} the row before; sort by time")
                rows.append((start, value))
    except OSError as error:
        raise ConfigError(f"{shown}: can't be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{shown}: not CSV text in UTF-8: {error}") from error
    if not rows:
        raise ConfigError(f"{shown}: has no rows under valid_from,{column}")
    return tuple(rows)


def _row(row: list[str], value_of: Callable[[str], float]) -> tuple[int, float]:
    if len(row) != 2:
        hint = "; write decimals with a point" if len(row) == 3 else ""
        raise ValueError(f"has {len(row)} values, not 2{hint}")
    return unix_ns_of(row[0]), value_of(row[1])


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        hint = "; write decimals with a point" if "," in text else ""
        raise ValueError(f'"{text:.40}" is no number{hint}') from None
    if not math.isfinite(value) or "_" in text:
        raise ValueError(f'"{text:.40}" is no number')
    return value


def _intensity(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= MOST_G_PER_KWH:
        raise ValueError(f"{value:g} g/kWh is outside 0 to {MOST_G_PER_KWH} (the unit is g CO2e per kWh)")
    return value


def _pue(text: str) -> float:
    value = _number(text)
    if not 1 <= value <= MOST_PUE:
        raise ValueError(f"a PUE of {value:g} is outside 1 to {MOST_PUE:g}")
    return value
