"""Carbon intensity and PUE that are followed over time: a provider that is asked, or a file that is looked at.

A thread asks; whoever prices energy reads what was last known. What was in force once stays so for its time: news of
the past settle what was booked (`final_price`) and change no price that was used. Units: g CO2e/kWh, Unix ns.
"""

import logging
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wattribute.agent.core.accounting import Price
from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.intensity import (
    Band,
    Pues,
    Reported,
    Timeline,
    final_price,
    in_force,
    merged,
    pue_at,
    ratios,
    rfc3339,
    used_pues,
)
from wattribute.agent.core.model import CarbonIntensity, Clock, SourceHealth
from wattribute.agent.core.prices import PriceSeries
from wattribute.agent.core.units import NS_PER_S
from wattribute.collectors.grid.cache import Cache, Kept
from wattribute.collectors.grid.feed import HOUR_NS, Answer, Feed, Unanswered

if TYPE_CHECKING:
    from wattribute.collectors.grid.series import PueFeed

HORIZON_NS = 48 * HOUR_NS
"""So long a final value is waited for; what is provisional after that stays as it was booked."""

STALE_NS = 6 * HOUR_NS
"""So long a value is held on: a quarter of the grid's daily cycle, after which a yearly average tells as much."""

GRACE_NS = HOUR_NS // 4
"""So long after its period a value that holds on is called estimated: providers are that late as a matter of course."""

NEAR_NS = 2 * HOUR_NS  # what is asked for each time
DEEP_S = 3600.0  # how often what isn't final yet is asked for too
LOOK_S = 60.0
FILE_S = 5.0
FIRST_RETRY_S = 10.0
LAST_RETRY_S = 900.0

RANKS: Mapping[str, int] = {"stale": 1, "fallback": 2, "static": 3, "default": 4}
"""How far down the chain a quality is; what isn't here is a source's own word."""

log = logging.getLogger("wattribute")


@dataclass(frozen=True, slots=True)
class _Known:
    """Everything that is told of the grid at one moment; replaced whole."""

    reported: tuple[Reported, ...]
    pues: Pues
    timeline: Timeline
    prices: PriceSeries


@dataclass(slots=True)
class _State:
    """How one source does; each change for the worse is said once."""

    name: str
    what: str
    up: bool = False
    why: str = ""
    fix: str = ""
    failures: Counter[str] = field(default_factory=Counter)
    in_a_row: int = 0
    read_ns: int = 0
    read_unix_ns: int | None = None
    gap_ns: int = 0

    def fail(self, reason: str, why: str, fix: str) -> None:
        self.failures[reason] += 1
        if self.up or why != self.why:
            log.warning("carbon intensity: %s: %s%s", self.what, why, f". Fix: {fix}" if fix else "")
        self.up, self.why, self.fix = False, why, fix
        self.in_a_row += 1

    def succeed(self, answer: Answer, now_unix_ns: int) -> None:
        if self.in_a_row:
            log.info("carbon intensity: %s: answers again", self.what)
        self.failures.update(answer.refused)
        if answer.why and answer.why != self.why:
            log.warning("carbon intensity: %s: a part of the answer isn't used: %s", self.what, answer.why)
        self.up, self.why, self.fix, self.in_a_row = True, answer.why, "", 0
        self.read_unix_ns = now_unix_ns

    def told(self) -> SourceHealth:
        return SourceHealth(
            name=self.name,
            up=self.up,
            read_ns=self.read_ns,
            last_read_unix_ns=self.read_unix_ns,
            failures=dict(self.failures),
            gap_ns=self.gap_ns,
            wraps=0,
            resets=0,
            why=self.why,
            fix=self.fix,
        )


class Followed:
    """What a feed says over time. Without one, `fallback` counts for all time, and only the PUE is followed.

    `about_unix_ns` is the moment that will be asked about, where that isn't now: of a long file only what is near is
    taken. `start` begins a thread, whose two steps are `ask` and `look`. Raises ConfigError where a configured file
    can't be read at the start.
    """

    def __init__(
        self,
        feed: Feed | None,
        fallback: CarbonIntensity | None,
        pue: float,
        clock: Clock,
        *,
        cache: Cache | None = None,
        pue_feed: "PueFeed | None" = None,
        about_unix_ns: int | None = None,
    ) -> None:
        self._feed = feed
        self._fallback = fallback
        self._pue = pue
        self._clock = clock
        self._cache = cache
        self._pue_feed = pue_feed
        self._opened_unix_ns = now_unix_ns = clock.time_ns()
        self._grid = _State("grid", feed.about.provider if feed is not None else "")
        self._pue_state = _State("grid-pue", "carbon.pue_series")
        self._cache_why = ""
        self._warned = 0
        self._looked_ns = self._ask_at_ns = self._deep_at_ns = clock.monotonic_ns()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        kept = self._kept(now_unix_ns)
        self._since_unix_ns = kept.since_unix_ns
        self._answer: Answer | None = None
        self._pue_rows: Pues = kept.pues
        reported: Sequence[Reported] = kept.values
        try:
            if feed is not None and feed.whole:
                near_unix_ns = now_unix_ns if about_unix_ns is None else min(about_unix_ns, now_unix_ns)
                self._answer = feed.fetch(near_unix_ns - 2 * HORIZON_NS, now_unix_ns, now_unix_ns)
                self._grid.succeed(self._answer, now_unix_ns)
                reported = self._answer.values
            if pue_feed is not None:
                self._pue_rows = pue_feed.fetch()
                self._judge_pue(pue_feed, now_unix_ns)
        except Unanswered as error:
            raise ConfigError(error.cause) from error
        pues = self._pue_rows or [(0, pue)]
        timeline = self._timeline(reported)
        self._known = _Known(tuple(reported), pues, timeline, timeline.prices(pues))
        self._health: tuple[SourceHealth, ...] = ()
        self.look()

    @property
    def since_unix_ns(self) -> int:
        """Since when this source has been in use, over restarts."""
        return self._since_unix_ns

    @property
    def prices(self) -> PriceSeries:
        """What energy costs at every moment, as far as is known now."""
        return self._known.prices

    def now(self, unix_ns: int) -> CarbonIntensity:
        """The value in force at a moment."""
        return self._known.timeline.at(unix_ns)

    def pue(self, unix_ns: int) -> float:
        """The PUE in force at a moment."""
        return pue_at(self._known.pues, unix_ns)

    def final_price(self, start_unix_ns: int, end_unix_ns: int) -> Price | None:
        """What energy used evenly from start to end costs by final values, or None."""
        known = self._known
        if start_unix_ns < self._since_unix_ns:
            return None
        if self._feed is None:
            return known.prices.over(start_unix_ns, max(end_unix_ns, start_unix_ns + 1))
        return final_price(known.reported, known.pues, start_unix_ns, end_unix_ns)

    def provisional(self, start_unix_ns: int, end_unix_ns: int) -> bool:
        """Whether some of what was in force from start to end wasn't final, and a final value may still come."""
        if self._feed is None or not self._feed.settles or end_unix_ns <= self._clock.time_ns() - HORIZON_NS:
            return False
        steps = self._known.timeline.over(start_unix_ns, max(end_unix_ns, start_unix_ns + 1))
        return any(value.quality != "final" for _, value in steps)

    def band(self) -> Band:
        """How far off the value in force may be."""
        return ratios(self.now(self._clock.time_ns()))

    def health(self) -> list[SourceHealth]:
        """How the sources do, as of the last question or look."""
        return list(self._health)

    def start(self) -> None:
        """Ask from now on, in a thread."""
        self._thread = threading.Thread(target=self._run, name="wattribute-grid", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more. A question that is under way ends by itself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(0.5)

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._clock.monotonic_ns() >= self._ask_at_ns:
                self.ask()
            self.look()
            wait_s = (self._ask_at_ns - self._clock.monotonic_ns()) / NS_PER_S
            self._stop.wait(min(max(wait_s, 0.05), LOOK_S))

    def ask(self) -> None:
        """Ask once, take what is answered, and set when to ask next. Never raises."""
        began_ns, now_unix_ns = self._clock.monotonic_ns(), self._clock.time_ns()
        wait_s = 0.0
        if self._pue_feed is not None:
            try:
                self._take(self._answer, self._pue_feed.fetch(), now_unix_ns)
                self._judge_pue(self._pue_feed, now_unix_ns)
            except Unanswered as error:
                self._pue_state.fail(error.reason, error.cause, error.fix)
        if self._feed is not None:
            try:
                answer = self._fetch(self._feed, began_ns, now_unix_ns)
                self._take(answer, self._pue_rows, now_unix_ns)
                self._grid.succeed(answer, now_unix_ns)
            except Unanswered as error:
                self._grid.fail(error.reason, error.cause, error.fix)
                wait_s = error.retry_after_s or 0.0
            except Exception as error:
                if "bug" not in self._grid.failures:
                    log.error("carbon intensity: %s: a bug in this provider", self._grid.what, exc_info=error)
                self._grid.fail("bug", f"{type(error).__name__}: {error}", "report it with the traceback in the log")
        ended_ns = self._clock.monotonic_ns()
        self._grid.read_ns = self._pue_state.read_ns = ended_ns - began_ns
        self._ask_at_ns = ended_ns + round(max(wait_s, self._pause_s()) * NS_PER_S)

    def look(self) -> None:
        """Say it once when the quality in force falls, and when it is good again; count time without a live value."""
        at_ns, now_unix_ns = self._clock.monotonic_ns(), self._clock.time_ns()
        if self._feed is not None:
            self._look_at_grid(self.now(now_unix_ns), at_ns - self._looked_ns)
        self._looked_ns = at_ns
        states = [self._grid] if self._feed is not None else []
        if self._pue_feed is not None:
            states.append(self._pue_state)
        self._health = tuple(state.told() for state in states)

    def _look_at_grid(self, value: CarbonIntensity, since_ns: int) -> None:
        rank = RANKS.get(value.quality, 0)
        if rank >= RANKS["fallback"]:
            self._grid.gap_ns += since_ns
        if rank > self._warned and (self._grid.in_a_row or self._grid.read_unix_ns is not None):
            log.warning(
                "carbon intensity: %g g/kWh (%s, %s) in the place of a live value",
                value.gco2e_per_kwh,
                value.quality,
                f"of {rfc3339(value.valid_from_unix_ns)}" if value.quality == "stale" else value.source,
            )
            self._warned = rank
        elif not rank and self._warned:
            log.info("carbon intensity: live again, %g g/kWh (%s)", value.gco2e_per_kwh, value.quality)
            self._warned = 0

    def _judge_pue(self, feed: "PueFeed", now_unix_ns: int) -> None:
        outside = feed.outside(now_unix_ns)
        if not outside:
            self._pue_state.succeed(Answer(), now_unix_ns)
        elif outside != self._pue_state.why:
            self._pue_state.fail("stale", outside, "add rows to it")

    def _fetch(self, feed: Feed, began_ns: int, now_unix_ns: int) -> Answer:
        if feed.whole:
            return feed.fetch(now_unix_ns - 2 * HORIZON_NS, now_unix_ns, now_unix_ns)
        start_unix_ns = now_unix_ns - NEAR_NS
        deep = began_ns >= self._deep_at_ns or not self._known.reported
        if deep:
            start_unix_ns = min(start_unix_ns, self._settled_until(now_unix_ns - HORIZON_NS))
        answer = feed.fetch(start_unix_ns, now_unix_ns + feed.ahead_ns, now_unix_ns)
        if deep:
            self._deep_at_ns = began_ns + round(DEEP_S * NS_PER_S)
        return answer

    def _settled_until(self, start_unix_ns: int) -> int:
        """Until when everything from a moment on is final."""
        for one in self._known.reported:
            if one.valid_until_unix_ns > start_unix_ns:
                if one.valid_from_unix_ns > start_unix_ns or one.status != "final":
                    break
                start_unix_ns = one.valid_until_unix_ns
        return start_unix_ns

    def _take(self, answer: Answer | None, pue_rows: Pues, now_unix_ns: int) -> None:
        if answer is self._answer and pue_rows is self._pue_rows:
            return  # a file that didn't change
        feed, known = self._feed, self._known
        reported = known.reported
        if feed is not None and answer is not None and answer is not self._answer:
            keep_from_unix_ns = now_unix_ns - HORIZON_NS - HOUR_NS
            reported = tuple(answer.values) if feed.whole else merged(reported, answer.values, keep_from_unix_ns)
            if answer.pues:
                rows = {**dict(pue_rows), **dict(answer.pues)}
                pue_rows = sorted(row for row in rows.items() if row[0] > keep_from_unix_ns)
        self._answer, self._pue_rows = answer, pue_rows
        # What was used stays as it was used for as long as something may be settled by it; older memory is dropped.
        opened = max(self._opened_unix_ns, now_unix_ns - 2 * HORIZON_NS)
        timeline = self._timeline(reported).used(known.timeline, opened, now_unix_ns)
        pues = used_pues(pue_rows or [(0, self._pue)], known.pues, opened, now_unix_ns)
        self._known = _Known(reported, pues, timeline, timeline.prices(pues))
        if self._cache is not None and feed is not None:
            self._keep(self._cache, () if feed.whole else reported, () if feed.whole else pue_rows)

    def _timeline(self, reported: Sequence[Reported]) -> Timeline:
        if self._feed is None:
            assert self._fallback is not None
            return Timeline([(0, self._fallback)])
        if self._feed.whole:
            return in_force(reported, self._feed.about, fallback=None)
        return in_force(reported, self._feed.about, fallback=self._fallback, grace_ns=GRACE_NS, stale_ns=STALE_NS)

    def _kept(self, now_unix_ns: int) -> Kept:
        try:
            return Kept(since_unix_ns=now_unix_ns) if self._cache is None else self._cache.read(now_unix_ns)
        except Unanswered as error:
            self._say_of_cache(error)
            return Kept(since_unix_ns=now_unix_ns)

    def _keep(self, cache: Cache, reported: Sequence[Reported], pues: Pues) -> None:
        try:
            cache.write(self._since_unix_ns, reported, pues)
            self._cache_why = ""
        except Unanswered as error:
            self._say_of_cache(error)

    def _say_of_cache(self, error: Unanswered) -> None:
        """Nothing but a restart needs it: said once, and counted."""
        self._grid.failures[error.reason] += 1
        if error.cause != self._cache_why:
            log.warning("carbon intensity: %s", error)
        self._cache_why = error.cause

    def _pause_s(self) -> float:
        """How long to wait: the feed's own pace, or a back-off; with jitter, so that a fleet doesn't ask as one."""
        every_s = self._feed.every_s if self._feed is not None and self._pue_feed is None else FILE_S
        if self._feed is not None and not self._feed.whole:
            every_s = self._feed.every_s
            if self._grid.in_a_row:
                every_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._grid.in_a_row - 1, 10))
        return every_s * random.uniform(0.75, 1.25)
