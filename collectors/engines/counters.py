"""From two pages of one engine to what it served between them: each series by itself, so that one that comes, goes or
begins anew (a model is loaded, the engine is restarted) changes no other's count.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattribute.collectors.engines.mappings import ABORTED, IN_FLIGHT, STAGES, Told
from wattribute.collectors.engines.page import Labels, Page
from wattribute.collectors.engines.selectors import Selector, parse

START = "process_start_time_seconds"
_SAME_START_S = 2.0
SERIES_KEPT = 10_000
"""So many series of a field are remembered when they aren't on the page any more."""
Series = tuple[str, Labels]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an engine served since the page before. `at_ns`: when its page was made, CLOCK_BOOTTIME.

    `served` by field (docstring of mappings.py; empty for the first page, from which on is counted). `in_flight` None:
    not told. `told`: the fields that the page has. `summed`: of how many series each is the sum. `restarted`: counters
    began anew. `skipped`: lines that couldn't be read.
    """

    at_ns: int
    served: Mapping[str, float]
    in_flight: float | None
    told: frozenset[str]
    summed: Mapping[str, int]
    restarted: bool = False
    skipped: int = 0


@dataclass(slots=True)
class _Counter:
    selectors: tuple[Selector, ...]
    chosen: int | None = None
    last: dict[Series, float] = field(default_factory=dict)


class Counters:
    """What is known of one engine's counters. Raises ValueError for a selector that is none."""

    def __init__(self, told: Told) -> None:
        fields = {name: _Counter(tuple(parse(text) for text in texts)) for name, texts in told.items()}
        self._gauge = fields.pop(IN_FLIGHT, _Counter(()))
        self._fields = fields
        self._start_s: float | None = None
        self._looked = False
        self._doubtful: set[str] = set()
        selectors = [selector for one in (*fields.values(), self._gauge) for selector in one.selectors]
        self.wanted = frozenset(term.name for selector in selectors for term in selector) | {START}

    def take(self, page: Page, at_ns: int) -> Work | None:
        """What was served since the page before; None where the page tells nothing of it."""
        present = {name: found for name, one in self._fields.items() if (found := _find(one, page)) is not None}
        if not present.keys() - {ABORTED, *STAGES}:
            return None
        gauge = _find(self._gauge, page)
        anew = self._began_anew(page)
        if anew:
            for one in self._fields.values():
                one.last.clear()
        fell = False
        served: dict[str, float] = {}
        for name, (number, series) in present.items():
            one = self._fields[name]
            added, of_it_fell = self._advance(one.last, series)
            fell |= of_it_fell
            if self._looked:
                # Other series than before tell it now: these have to be seen once before they count.
                served[name] = added if one.chosen in (None, number) else 0.0
            one.chosen = number
        known, self._looked = self._looked, True
        self._doubtful |= page.doubtful
        return Work(
            at_ns=at_ns,
            served=served,
            in_flight=None if gauge is None else sum(gauge[1].values()),
            told=frozenset(present) | ({IN_FLIGHT} if gauge is not None else set()),
            summed={name: len(series) for name, (_, series) in present.items()},
            restarted=known and (anew or fell),
            skipped=page.skipped,
        )

    def _began_anew(self, page: Page) -> bool:
        starts = list(page.series.get(START, {}).values())
        if len(starts) != 1:
            return False
        before_s, self._start_s = self._start_s, starts[0]
        return before_s is not None and abs(starts[0] - before_s) > _SAME_START_S

    def _advance(self, last: dict[Series, float], series: Mapping[Series, float]) -> tuple[float, bool]:
        """What was added, and whether a series fell: one that did, and one that wasn't there before, counts from 0."""
        added, fell = 0.0, False
        for key, value in series.items():
            before = last.get(key)
            last[key] = value
            if before is None:
                # It may have been there all along, in a line that couldn't be read.
                added += 0.0 if key[0] in self._doubtful else value
            else:
                added += value - before if value >= before else value
                fell |= value < before
        if len(last) > SERIES_KEPT:
            for key in last.keys() - series.keys():
                del last[key]
        return added, fell


def _find(one: _Counter, page: Page) -> tuple[int, dict[Series, float]] | None:
    """The series of the selector in use, or of the first that the page has, and which it is; None: it has none."""
    order = range(len(one.selectors))
    for number in order if one.chosen is None else (one.chosen, *order):
        selector = one.selectors[number]
        if any(term.name in page.declared or term.name in page.series for term in selector):
            return number, {
                (term.name, labels): value
                for term in selector
                for labels, value in page.series.get(term.name, {}).items()
                if term.fits(dict(labels))
            }
    return None
