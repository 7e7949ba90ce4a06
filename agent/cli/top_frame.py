"""What `wattribute top` shows, as plain lines: jobs by power, or one job's terms. No terminal in here; watts, joules,
grams.
"""

import textwrap
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from wattribute.agent.receipts import SUMS, TERMS, grams_text, joules_text

Receipt = Mapping[str, Any]
SortKey = Literal["power", "energy", "jsce", "asce", "time", "name"]

KEYS: Mapping[str, tuple[SortKey, str]] = {
    "p": ("power", "power"),
    "e": ("energy", "energy"),
    "j": ("jsce", "JSC^e"),
    "a": ("asce", "ASC^e"),
    "t": ("time", "time"),
    "n": ("name", "name"),
}
HELP = "p e j a t n sort (power energy JSC^e ASC^e time name)  r reverse  f ended  Enter terms  q quit"
SHORT_HELP = "p e j a t n sort  r reverse  f ended  Enter terms  q quit"
HEADER = ("JOB", "PRODUCT", "ROLE", "STATE", "TIME", "POWER", "ENERGY", "JSC^e", "ASC^e", "BASED ON")
NAMES_AT = 2  # columns of text at the left; the numbers stand at the right
WIDEST_NAME = 40
NARROWEST_NAME = {"PRODUCT": 12, "JOB": 16}  # cut before a column is left out: of jobs told apart by their ends no more
DROPPED_FIRST = ("BASED ON", "ROLE", "PRODUCT", "TIME", "STATE", "JSC^e", "ENERGY", "ASC^e")  # on a narrow terminal
LEAST_WRAPPED = 20  # cells; narrower, a note would be a column of syllables
BAR = 24
_SUM_NAMES = {"jsc": "JSC", "jsce": "JSC^e", "asc": "ASC", "asce": "ASC^e"}


class Row(NamedTuple):
    """One job and the power that it drew between the last two looks; None where that can't be told yet."""

    receipt: Receipt
    power_w: float | None

    @property
    def running(self) -> bool:
        return self.receipt["ended_at"] is None


@dataclass(slots=True)
class Watch:
    """Tells power from two successive looks: the difference of energy over that of the moments it was booked at."""

    _seen: dict[str, tuple[int, int, float | None]] = field(default_factory=dict)

    def look(self, at_ns: int, receipts: Iterable[Receipt]) -> list[Row]:
        """Jobs as they are at `at_ns` (of any one clock). Looked at twice between two ticks, power stays as it was."""
        rows, seen = [], {}
        for receipt in receipts:
            power_w, energy_uj = None, receipt["energy_uj"]
            before = self._seen.get(receipt["job_id"])
            if energy_uj is not None:
                if before is not None:
                    then_ns, then_uj, power_w = before
                    if at_ns > then_ns:
                        power_w = max(0, energy_uj - then_uj) * 1e3 / (at_ns - then_ns)
                        before = None
                seen[receipt["job_id"]] = before or (at_ns, energy_uj, power_w)
            rows.append(Row(receipt, power_w if receipt["ended_at"] is None else None))
        self._seen = seen
        return rows


@dataclass(slots=True)
class Screen:
    """What somebody has chosen to see: order, which jobs, which one in full. `selected` is empty until a job is chosen:
    the first line is marked then, whatever job that is.
    """

    sort: SortKey = "power"
    reverse: bool = False
    ended: bool = True
    selected: str = ""
    detail: bool = False

    def press(self, key: str, rows: list[Row]) -> bool:
        """One key; False where it says to quit. An unknown one does nothing."""
        if key in ("q", "Q"):
            return False
        if key in KEYS:
            sort = KEYS[key][0]
            self.reverse = not self.reverse if sort == self.sort else False
            self.sort = sort
        elif key == "r":
            self.reverse = not self.reverse
        elif key == "f":
            self.ended = not self.ended
        elif key == "enter":
            self.detail = not self.detail
            if self.detail and (chosen := self.chosen(self.shown(rows))) is not None:
                self.selected = chosen.receipt["job_id"]
        elif key == "escape":
            self.detail = False
        elif key in ("up", "down", "pageup", "pagedown", "home", "end"):
            self._move(key, rows)
        return True

    def shown(self, rows: list[Row]) -> list[Row]:
        """The jobs in their order: those that run first."""
        wanted = [row for row in rows if self.ended or row.running]
        wanted.sort(key=lambda row: row.receipt["job_id"])
        if self.sort == "name":
            return wanted[::-1] if self.reverse else wanted
        wanted.sort(key=lambda row: _amount(row, self.sort), reverse=not self.reverse)
        return sorted(wanted, key=lambda row: not row.running)

    def chosen(self, shown: list[Row]) -> Row | None:
        """Which of these is marked."""
        found = (row for row in shown if row.receipt["job_id"] == self.selected)
        return next(found, shown[0] if shown else None)

    def _move(self, key: str, rows: list[Row]) -> None:
        ids = [row.receipt["job_id"] for row in self.shown(rows)]
        if not ids:
            return
        at = ids.index(self.selected) if self.selected in ids else 0
        step = {"up": -1, "down": 1, "pageup": -10, "pagedown": 10, "home": -len(ids), "end": len(ids)}[key]
        self.selected = "" if key == "home" else ids[min(max(at + step, 0), len(ids) - 1)]


def frame(screen: Screen, rows: list[Row], title: str, *, width: int, height: int) -> tuple[list[str], int | None]:
    """At most `height` lines of at most `width` cells, and which of them is the selected job's."""
    shown = screen.shown(rows)
    chosen = screen.chosen(shown)
    lines, marked = [title, _summary(screen, rows)], None
    screen.detail = screen.detail and chosen is not None and chosen.receipt["job_id"] == screen.selected  # or it's gone
    if screen.detail and chosen is not None:
        lines += ["", *detail(chosen, width)]
        return _fitted([*lines[: height - 1], "Enter back  q quit"], width, height), None
    room = max(1, height - len(lines) - 2)
    at = shown.index(chosen) if chosen is not None else 0
    first = max(0, min(at - room + 1 + room // 4, len(shown) - room)) if at >= room else 0
    cells = [HEADER, *(_cells(row) for row in shown[first : first + room])]
    table = columns(cells, width) if shown else ["no jobs yet. Start one: wattribute run -- COMMAND"]
    if shown:
        marked = len(lines) + 1 + at - first
    lines += table
    return _fitted([*lines, HELP if len(HELP) <= width else SHORT_HELP], width, height), marked


def columns(cells: list[tuple[str, ...]], width: int) -> list[str]:
    """Aligned to at most `width` cells: columns are left out, then names cut, where the terminal is narrow."""
    names = list(HEADER)
    sizes = {name: max(cell_width(row[at]) for row in cells) for at, name in enumerate(names)}
    for name in HEADER[:NAMES_AT]:
        sizes[name] = min(sizes[name], WIDEST_NAME)
    least = {name: min(size, NARROWEST_NAME.get(name, size)) for name, size in sizes.items()}
    for name in DROPPED_FIRST:
        if sum(least[n] for n in names) + 2 * (len(names) - 1) > width:
            names.remove(name)
    over = sum(sizes[n] for n in names) + 2 * (len(names) - 1) - width
    for name in NARROWEST_NAME:
        if name in names and over > 0:
            cut = min(over, sizes[name] - least[name])
            sizes[name], over = sizes[name] - cut, over - cut
    sizes["JOB"] = max(1, sizes["JOB"] - max(0, over))
    left = {"JOB", "PRODUCT", "ROLE", "STATE", "BASED ON"}
    return [
        "  ".join(fit(row[HEADER.index(name)], sizes[name], right=name not in left) for name in names).rstrip()
        for row in cells
    ]


def detail(row: Row, width: int) -> list[str]:
    """One job in full: its terms up to ASC^e, its energy by domain and share, what it is based on."""
    receipt = row.receipt
    uses = f" (uses {', '.join(receipt['uses'])})" if receipt["uses"] else ""
    phase = f", phase {receipt['phase']}" if receipt["phase"] else ""
    lines = _wrapped(f"{receipt['job_id']}: {receipt['product_id']}{uses}, role {receipt['role']}{phase}", width)
    grams: Mapping[str, float | None] = receipt["gco2e"]
    most = max((value for value in map(grams.get, TERMS) if value), default=0.0)
    for term in TERMS:
        value = grams.get(term)
        bar = "#" * round(BAR * value / most) if value and most else ""
        lines.append(f"  {term:<18} {grams_text(value):>16}  {bar}".rstrip())
    lines.append("  " + "   ".join(f"{_SUM_NAMES[name]} {grams_text(grams.get(name))}" for name in SUMS))
    lines.append(f"energy {joules_text(receipt['energy_uj'])}, power {_power(row)}")
    for domain, shares in receipt["energy_j"].items():
        told = "no sensor" if shares is None else ", ".join(f"{kind} {value:,.3f} J" for kind, value in shares.items())
        lines.append(f"  {domain:<5} {told}")
    lines.append("based on " + _quality(receipt))
    return lines + [line for note in receipt["notes"] for line in _wrapped(f"- {note}", width)]


def cell_width(text: str) -> int:
    """How many cells of a terminal it takes: wide letters two, combining ones none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Exactly `width` cells: filled up, or cut with an ellipsis."""
    over = cell_width(text) > width
    while cell_width(text) > width - over and text:
        text = text[:-1]
    text = f"{text}…" if over and width else text
    pad = " " * (width - cell_width(text))
    return pad + text if right else text + pad


def _wrapped(text: str, width: int) -> list[str]:
    cells = width if cell_width(text) <= len(text) else width // 2  # of wide letters half as many
    return textwrap.wrap(text, max(LEAST_WRAPPED, cells), subsequent_indent="  ", break_on_hyphens=False)


def _fitted(lines: list[str], width: int, height: int) -> list[str]:
    lines = lines if len(lines) <= height else [*lines[: height - 1], lines[-1]]
    return [fit(line, width).rstrip() for line in lines]


def _summary(screen: Screen, rows: list[Row]) -> str:
    running = [row for row in rows if row.running]
    known = [row.power_w for row in running if row.power_w is not None]
    power = f"{sum(known):,.1f} W" if known else "—"
    order = next(words for key, words in KEYS.values() if key == screen.sort)
    ended = f"{len(rows) - len(running)} ended{'' if screen.ended else ' (hidden)'}"
    modelled = "; ~ modelled" if any(row.receipt["quality"].get("modelled") for row in rows) else ""
    return f"{len(running)} running at {power}, {ended}; by {order}{', reversed' if screen.reverse else ''}{modelled}"


def _cells(row: Row) -> tuple[str, ...]:
    receipt = row.receipt
    return (
        receipt["job_id"],
        receipt["product_id"],
        receipt["role"],
        "running" if row.running else "ended",
        _time(receipt["duration_s"]),
        _power(row),
        f"{'~' if receipt['quality'].get('modelled') else ''}{joules_text(receipt['energy_uj'])}",
        grams_text(receipt["gco2e"].get("jsce")),
        grams_text(receipt["gco2e"].get("asce")),
        _quality(receipt),
    )


def _amount(row: Row, key: SortKey) -> float:
    receipt = row.receipt
    value: float | None
    if key == "power":
        value = row.power_w
    elif key == "energy":
        value = receipt["energy_uj"]
    elif key == "time":
        value = receipt["duration_s"]
    else:
        value = receipt["gco2e"].get(key)
    return -1.0 if value is None else float(value)  # what isn't known stands below nothing


def _power(row: Row) -> str:
    if row.power_w is None:
        return "—"
    about = "~" if row.receipt["quality"].get("modelled") else ""
    if row.power_w >= 10_000:
        return f"{about}{row.power_w / 1000:,.1f} kW"
    return f"{about}{row.power_w:,.1f} W" if row.power_w >= 1 else f"{about}{row.power_w:.3f} W"


def _quality(receipt: Receipt) -> str:
    """What most of its energy is based on: modelled is never passed off as measured."""
    parts = {name: part for name, part in receipt["quality"].items() if part}
    if not parts:
        return "—"
    if len(parts) == 1:
        return str(next(iter(parts)))
    return ", ".join(f"{part:.0%} {name}" for name, part in sorted(parts.items(), key=lambda item: -item[1]))


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "—"
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    return f"{days}d {hours:02}:{minutes:02}" if days else f"{hours:02}:{minutes:02}:{whole % 60:02}"
