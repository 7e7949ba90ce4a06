"""One worker thread per sensor, so that a read that hangs costs a deadline and never the agent.

A source is asked once a tick; what it answers late is taken at the next tick, with its own time stamps. A failing
source is asked again after a back-off; its health is what `/metrics` and `doctor` show.
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, runtime_checkable

from wattribute.agent.core.errors import SensorGone, SensorUnavailable
from wattribute.agent.core.model import Clock, Fault, FreshCollector, Gap, Interval, SourceHealth
from wattribute.agent.core.units import NS_PER_S

log = logging.getLogger("wattribute")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

FIRST_BACKOFF_NS = NS_PER_S
LAST_BACKOFF_NS = 60 * NS_PER_S


class Readable(Protocol[T_co]):
    """A Collector, or what is asked as one is."""

    @property
    def name(self) -> str: ...
    def read(self) -> Sequence[T_co]: ...
    def close(self) -> None: ...


@runtime_checkable
class Releasable(Protocol):
    """A collector that can let go of what it reads, until it is read again."""

    def release(self) -> None: ...


@runtime_checkable
class OfDevices(Protocol):
    """A collector that tells which devices it knows, and whether each could be read last time. From any thread."""

    def devices(self) -> Mapping[str, bool]: ...


@dataclass(slots=True)
class Release:
    """A sensor that is given out of hand until `until_ns`: by `done` the collector has let go of it."""

    until_ns: int
    why: str
    done: threading.Event = field(default_factory=threading.Event)


class Source(Generic[T]):
    """A collector behind a deadline. `threaded` False reads in the caller's thread: for what can't block."""

    def __init__(self, collector: Readable[T], clock: Clock, *, deadline_ns: int, threaded: bool = True) -> None:
        self.name = collector.name
        self.up = True
        self.why = ""
        self.fix = ""
        self._collector = collector
        self._devices: Callable[[], Mapping[str, bool]] = (
            collector.devices if isinstance(collector, OfDevices) else dict
        )
        self._clock = clock
        self._deadline_ns = deadline_ns
        self._failures: dict[str, int] = {}
        self._read_ns = 0
        self._last_read_unix_ns: int | None = None
        self._gap_ns = 0
        self._gap = (0, 0)  # from when to when the last one went, over all devices
        self._wraps = 0
        self._resets = 0
        self._asked_at_ns: int | None = None
        self._retry_at_ns = 0
        self._backoff_ns = FIRST_BACKOFF_NS
        self.absent = False
        self.answered_well = False  # the last `collect` had an answer, and it was no error
        self._gone = False
        self._faults: dict[str, Fault] = {}
        self._answers: queue.SimpleQueue[tuple[Sequence[T] | Exception, int]] = queue.SimpleQueue()
        self.fresh = threaded and isinstance(collector, FreshCollector)
        self._at_step: Callable[[], None] = lambda: None
        self._wake: Callable[[], None] = lambda: None
        self._release: Release | None = None
        self._requests: queue.SimpleQueue[str | Release] | None = None
        if threaded:
            self._requests = queue.SimpleQueue()
            threading.Thread(target=self._work, name=f"wattribute-{self.name}", daemon=True).start()

    def request_fresh(self, at_step: Callable[[], None], wake: Callable[[], None]) -> None:
        """Ask for a read at the counters' next step. In the worker, `at_step` is called right at it, for what must be
        read at the same moment, and `wake` once the answer can be collected.
        """
        self._at_step, self._wake = at_step, wake
        self.request("fresh")

    def release(self, until_ns: int, why: str) -> Release:
        """Let go of the sensor until `until_ns` (by the clock), or until `resume`. Returns at once: `done` of the
        answer tells when it has happened, which a call that hangs holds up. A last read comes before it.
        """
        if self._release is None:
            self.request()
        release = self._release = Release(until_ns, why)
        log.info("%s: %s", self.name, why)
        if self._requests is not None:
            self._requests.put(release)
        else:
            self._let_go(release)
        return release

    def resume(self) -> None:
        """Read the sensor again from the next request on."""
        if self._release is not None:
            log.info("%s: taken up again", self.name)
            self._release = None
            self._retry_at_ns = 0

    @property
    def released(self) -> bool:
        """Whether it was let go of, and all that was read before is collected."""
        return self._release is not None and self._release.done.is_set() and self._asked_at_ns is None

    @property
    def answered(self) -> bool:
        """Whether nothing asked for is outstanding."""
        return self._asked_at_ns is None or not self._answers.empty()

    def request(self, how: str = "now") -> None:
        """Ask for a read, unless one is under way or the source is backing off. Never blocks."""
        now_ns = self._clock.monotonic_ns()
        if self._release is not None:
            if now_ns < self._release.until_ns:
                return
            self.resume()
        if self._gone or now_ns < self._retry_at_ns:
            return
        if self._asked_at_ns is not None:
            late_ns = now_ns - self._asked_at_ns
            if late_ns > self._deadline_ns and self.up:
                self._fail(
                    "timeout", f"no answer for {late_ns / NS_PER_S:.1f} s", "see the kernel log; it is still asked"
                )
            return
        self._asked_at_ns = now_ns
        if self._requests is not None:
            self._requests.put(how)

    def collect(self, patience_ns: int) -> list[T]:
        """What has arrived, waiting at most `patience_ns` for what was just asked."""
        self.answered_well = False
        if self._asked_at_ns is None:
            return []
        if self._requests is None:
            self._answers.put(self._read(self._collector.read))
        late = self._clock.monotonic_ns() - self._asked_at_ns > self._deadline_ns
        try:
            answer, took_ns = self._answers.get(timeout=0 if late or patience_ns <= 0 else patience_ns / NS_PER_S)
        except queue.Empty:
            return []
        self._asked_at_ns = None
        self._read_ns = took_ns
        if isinstance(answer, Exception):
            self._take_error(answer)
            return []
        self._take_good(answer)
        self.answered_well = True
        return list(answer)

    def note(self, outcome: Gap | Interval) -> None:
        """Count what a reading of this source came to."""
        if isinstance(outcome, Interval):
            self._wraps += outcome.wrapped
        elif outcome.cause not in ("first", "stale"):
            self._pass_over(outcome.start_ns, outcome.end_ns)
            self._resets += outcome.cause == "reset"

    def _pass_over(self, start_ns: int, end_ns: int) -> None:
        """Time that several devices lack counts once."""
        since_ns, until_ns = self._gap
        if start_ns <= until_ns and since_ns <= end_ns:
            start_ns, end_ns = min(start_ns, since_ns), max(end_ns, until_ns)
            self._gap_ns -= until_ns - since_ns
        self._gap = start_ns, end_ns
        self._gap_ns += end_ns - start_ns

    def health(self) -> SourceHealth:
        """The source's state now."""
        release = self._release
        return SourceHealth(
            name=self.name,
            up=self.up and release is None,
            read_ns=self._read_ns,
            last_read_unix_ns=self._last_read_unix_ns,
            failures=dict(self._failures),
            gap_ns=self._gap_ns,
            wraps=self._wraps,
            resets=self._resets,
            why=self.why if release is None else release.why,
            fix=self.fix if release is None else "",
            released=release is not None,
            devices={} if release else {device: read and self.up for device, read in self._devices().items()},
        )

    def close(self) -> None:
        """Let the worker go and give the sensor back; a worker that hangs is left behind."""
        self._gone = True
        if self._requests is not None:
            self._requests.put("")
        else:
            self._collector.close()

    def _work(self) -> None:
        requests = self._requests
        assert requests is not None
        while how := requests.get():
            if isinstance(how, Release):
                self._let_go(how)
            elif how == "fresh" and isinstance(self._collector, FreshCollector):
                self._answers.put(self._read(self._step))
                self._wake()
            else:
                self._answers.put(self._read(self._collector.read))
        self._collector.close()

    def _let_go(self, release: Release) -> None:
        if isinstance(self._collector, Releasable):
            try:
                self._collector.release()
            except Exception:
                log.exception("%s: a bug in letting go of it", self.name)
                return
        release.done.set()

    def _step(self) -> Sequence[T]:
        assert isinstance(self._collector, FreshCollector)
        readings = self._collector.read_fresh()
        self._at_step()
        return readings

    def _read(self, read: Callable[[], Sequence[T]]) -> tuple[Sequence[T] | Exception, int]:
        began_ns = self._clock.monotonic_ns()
        answer: Sequence[T] | Exception
        try:
            answer = read()
        except Exception as error:  # noqa: BLE001 - any collector's bug marks its source, and the agent lives
            answer = error
        return answer, self._clock.monotonic_ns() - began_ns

    def _take_good(self, readings: Sequence[T]) -> None:
        if not readings and not self.up and self._faults:
            return  # all its parts are in trouble, and aren't asked each time: that is no recovery
        self._last_read_unix_ns = self._clock.time_ns()
        self._backoff_ns = FIRST_BACKOFF_NS
        faults = [reading for reading in readings if isinstance(reading, Fault)]
        for fault in faults:
            self._failures["part"] = self._failures.get("part", 0) + 1
            told = self._faults.get(fault.domain.id)
            if told is None or told.cause != fault.cause:
                log.warning("%s: %s: %s%s", self.name, fault.domain.id, fault.cause, _fix_words(fault.fix))
        # A lost device isn't asked each time: what was the matter holds until it is read again.
        lost = {device for device, read in self._devices().items() if not read}
        still = {device: fault for device, fault in self._faults.items() if device in lost}
        self._faults = still | {fault.domain.id: fault for fault in faults}
        was_up, self.up = self.up, len(faults) < len(readings) or not readings
        if self.up and not was_up:
            log.info("%s: reads again", self.name)
        first = next(iter(self._faults.values()), None)
        self.why, self.fix = ("", "") if first is None else (first.cause, first.fix)

    def _take_error(self, error: Exception) -> None:
        if isinstance(error, SensorGone):
            self._gone = True
            self._fail("gone", str(error), "")
        elif isinstance(error, SensorUnavailable):
            self.absent = error.absent
            self._fail("unavailable", error.cause, error.fix)
        else:
            if "bug" not in self._failures:
                log.error("%s: a bug in this collector", self.name, exc_info=error)
            self._fail("bug", f"{type(error).__name__}: {error}", "report it with the traceback in the log")
        self._retry_at_ns = self._clock.monotonic_ns() + self._backoff_ns
        self._backoff_ns = min(2 * self._backoff_ns, LAST_BACKOFF_NS)

    def _fail(self, reason: str, why: str, fix: str) -> None:
        self._failures[reason] = self._failures.get(reason, 0) + 1
        if self.up or why != self.why:
            # What was never there is no news to somebody who didn't ask for it.
            log.log(
                logging.WARNING if self._last_read_unix_ns else logging.INFO,
                "%s: %s%s",
                self.name,
                why,
                _fix_words(fix),
            )
        self.up, self.why, self.fix = False, why, fix


def _fix_words(fix: str) -> str:
    return f". Fix: {fix}" if fix else ""
