"""Between a node and the archive, in a thread of its own: closed rows go out, divisors and products come back.

With a PostgreSQL as archive: what the node's ledger has since is delivered, the weight of its running jobs is said,
that of all others is heard, and parts of metered overhead are exchanged. With an archive of the node's own there is
only to see whether products were changed. Nothing here is waited for by a tick: what was heard is in attributes that
are replaced whole. Weights are millionths.
"""

import contextlib
import json
import logging
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wattribute.agent.archive import Archive, Unreachable, file_of, is_local, open_archive
from wattribute.agent.archive.delivery import deliver_new
from wattribute.agent.config.schema import Config
from wattribute.agent.core.errors import ConfigError, LedgerError, SensorUnavailable
from wattribute.agent.core.fleet_parts import Part, Verdict
from wattribute.agent.core.model import Clock, SourceHealth
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.divisor import PrometheusDivisor
from wattribute.agent.ledger.reader import Reader, read_only

log = logging.getLogger("wattribute")

EVERY_S = 5.0
LOOK_S = 1.0
"""A look at the node's own archive is two calls of the kernel, and whoever registers a product runs jobs of it next."""
FRESH_S = 60.0
"""How long a weight counts that a node said, and how long what was heard of the others."""
SAY_AGAIN_S = 20.0
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
ROWS_AT_ONCE = 500
BREATH_S = 0.02
"""Between two pieces of a backlog: the loop's thread shares an interpreter lock with this one."""
LEAVE_S = 3.0
KEPT_EVENTS = "product-events.json"
LAG = 0.99
"""A Prometheus that knows less than this of the weight that runs here alone hasn't scraped it yet."""

Events = Sequence[tuple[int, dict[str, Any]]]


class _Line:
    """One connection to the outside: how it fares, and when to try again."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._why, self._fix = "", ""
        self.up = True
        self._retry_s = 0.0
        self._took_ns = 0
        self._last_unix_ns: int | None = None
        self.due_ns = 0
        self.warning = ""

    def went_well(self, started_ns: int, again_s: float) -> None:
        if not self.up:
            log.warning("%s answers again", self.name)
        self.up, self._why, self._fix, self._retry_s = True, "", "", 0.0
        self._took_ns = self._clock.monotonic_ns() - started_ns
        self._last_unix_ns = self._clock.time_ns()
        self.due_ns = started_ns + round(again_s * NS_PER_S)

    def failed(self, reason: str, error: Exception) -> None:
        """Count it, say so once, and wait longer each time, not all nodes at the same moment."""
        self.count(reason, 1)
        self._why, _, self._fix = str(error).partition(" Fix: ")
        if self.up:
            log.warning("%s: %s", self.name, error)
        self.up = False
        self._retry_s = min(max(FIRST_RETRY_S, 2 * self._retry_s), LAST_RETRY_S)
        wait_s = self._retry_s * (0.5 + random.random() / 2)
        self.due_ns = self._clock.monotonic_ns() + round(wait_s * NS_PER_S)

    def count(self, reason: str, times: int) -> None:
        self._failures = {**self._failures, reason: self._failures.get(reason, 0) + times}

    def health(self) -> SourceHealth:
        return SourceHealth(
            name=self.name,
            up=self.up,
            read_ns=self._took_ns,
            last_read_unix_ns=self._last_unix_ns,
            failures=self._failures,
            gap_ns=0,
            wraps=0,
            resets=0,
            why=self._why or self.warning,
            fix=self._fix,
        )


class Courier:
    """What a node says to the archive and hears from it. All methods but `work` are the loop's, and return at once."""

    def __init__(self, config: Config, node_id: str, clock: Clock) -> None:
        """Opens nothing yet. Raises ConfigError where `ledger.url` needs a driver that isn't installed."""
        self.products_changed = False
        """Whether `take_events` has something new."""
        self.fleet_parts: Sequence[Part] = []
        """This node's parts of metered overhead that the archive is offered until it has closed their intervals."""
        self._closed: list[Verdict] = []
        self._config = config
        self.node_id = node_id
        self._clock = clock
        self._local = is_local(config)
        self.shares_overhead = not self._local
        """Whether other nodes can be reached, to split with them what a fleet's products cost."""
        if not self._local and not (find_spec("sqlalchemy") and find_spec("psycopg")):
            raise ConfigError(
                "ledger.url names a PostgreSQL, and its driver isn't installed: pip install 'wattribute[postgresql]'"
            )
        ledger = config.ledger
        self.hears_of_others = not self._local or bool(ledger.divisor_url)
        """Whether anything can tell what runs on other nodes."""
        self._prometheus = PrometheusDivisor(ledger.divisor_url, ledger.divisor_query) if ledger.divisor_url else None
        self._line = _Line("archive", clock)
        self._errands: list[tuple[_Line, Callable[[], None]]] = [(self._line, self._go)]
        if self._prometheus is not None:
            self._errands.append((_Line("divisor", clock), partial(self._ask, self._prometheus)))
        self._weights: Mapping[str, int] = {}
        self._heard: Mapping[str, tuple[int, int | None]] = {}  # product -> when (ns), and the weight of all others
        self._heard_all_ns: int | None = None  # when the archive last said who else there is
        self._said: tuple[int, Mapping[str, int]] | None = None
        self._archive: Archive | None = None
        self._reader: Reader | None = None
        self._seen: tuple[Any, ...] = ()
        self._position = 0
        self._events: Events = []
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wattribute-courier", daemon=True)
        if not self._local:
            self._take_up_kept()

    def start(self) -> None:
        """Begin; nothing is asked before."""
        self._thread.start()

    def present(self, weights_ppm: Mapping[str, int]) -> None:
        """The weight with which this node's running jobs use each fleet product now; a new product is said at once."""
        news = weights_ppm.keys() - self._weights.keys()
        self._weights = weights_ppm
        if news:
            self._wake.set()

    @property
    def divisors(self) -> Mapping[str, int | None]:
        """The whole fleet's weight on each product that this node uses; None: not known, or not since a minute."""
        oldest_ns = self._clock.monotonic_ns() - round(FRESH_S * NS_PER_S)
        heard, heard_all_ns = self._heard, self._heard_all_ns
        divisors: dict[str, int | None] = {}
        for product_id, own in self._weights.items():
            at_ns, weight = heard.get(product_id, (heard_all_ns, 0))
            if at_ns is None or at_ns < oldest_ns or weight is None:
                divisors[product_id] = None
            elif self._prometheus is None:
                divisors[product_id] = weight + own
            else:
                divisors[product_id] = max(weight, own) if weight >= LAG * own else None
        return divisors

    def take_events(self) -> Events:
        """All that was registered of products, oldest first, as last heard."""
        self.products_changed = False
        return self._events

    def take_closed(self) -> Sequence[Verdict]:
        """The intervals of `fleet_parts` that were found closed since the last call."""
        closed, self._closed = self._closed, []
        return closed

    def health(self) -> Sequence[SourceHealth]:
        """How the archive fares, and the Prometheus that is asked for divisors."""
        return [line.health() for line, _ in self._errands]

    def close(self) -> None:
        """Deliver what is left and take leave, within some seconds; what stays is delivered after the next start."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(LEAVE_S)

    # In the thread

    def _run(self) -> None:
        hurry = False
        while not self._stop.is_set():
            try:
                wait_s = self.work(hurry=hurry)
            except Exception as error:
                log.exception("a fault in the courier: please report it")
                self._line.failed("fault", error)
                self._hang_up()
                wait_s = LAST_RETRY_S
            hurry = self._wake.wait(wait_s)
            self._wake.clear()
        self._leave()

    def work(self, *, hurry: bool = False) -> float:
        """Do what is due, or what is well with `hurry`; how long there is nothing more to do, in seconds."""
        for line, errand in self._errands:
            started_ns = self._clock.monotonic_ns()
            if started_ns < line.due_ns and not (hurry and line.up):
                continue
            try:
                errand()
            except Unreachable as error:
                self._hang_up()
                line.failed("unreachable", error)
            except SensorUnavailable as error:
                line.failed("unreachable", error)
            except (LedgerError, ConfigError) as error:
                self._hang_up()
                line.failed("refused", error)
            else:
                line.went_well(started_ns, LOOK_S if self._local and line is self._line else EVERY_S)
        due_ns = min(line.due_ns for line, _ in self._errands) - self._clock.monotonic_ns()
        return max(0.0, due_ns / NS_PER_S)

    def _go(self) -> None:
        """One errand to the archive."""
        if self._local:
            self._look()
            return
        if self._archive is None:
            self._archive = open_archive(self._config)
        self._exchange(self._archive)
        exchanged_ns = self._clock.monotonic_ns()
        while self._deliver(self._archive) and not self._stop.wait(BREATH_S):
            if self._clock.monotonic_ns() - exchanged_ns > EVERY_S * NS_PER_S:
                self._exchange(self._archive)
                exchanged_ns = self._clock.monotonic_ns()

    def _exchange(self, archive: Archive) -> None:
        """Say what runs here, hear what runs elsewhere, and whether products were changed."""
        now_ns, weights = self._clock.monotonic_ns(), dict(self._weights)
        if self._said is None or self._said[1] != weights or now_ns - self._said[0] > SAY_AGAIN_S * NS_PER_S:
            archive.present(self.node_id, weights)
            self._said = (now_ns, weights)
        if self._prometheus is None:
            others = archive.weights_ppm(but=self.node_id, fresh_ns=round(FRESH_S * NS_PER_S))
            self._heard = {product_id: (now_ns, weight) for product_id, weight in others.items()}
            self._heard_all_ns = now_ns
        if archive.last_event() != self._position:
            self._hear_events(archive.events())
            self._keep()
        if parts := self.fleet_parts:
            self._closed = archive.exchange(self.node_id, parts)

    def _deliver(self, archive: Archive) -> bool:
        """Deliver the next rows; whether there are more."""
        if self._reader is None:
            self._reader = read_only(Path(self._config.agent.state_dir))
        done = deliver_new(self._reader, archive, limit=ROWS_AT_ONCE)
        if done.refused:
            self._line.count("conflict", done.refused)
            self._line.warning = (
                f"{done.refused} rows of this node's ledger have keys under which the archive has something else: they "
                "are kept aside there and counted nowhere. Was a ledger.db put back, or a node id given twice?"
            )
            log.error("%s", self._line.warning)
        return done.more

    def _look(self) -> None:
        """Whether the products in the node's own archive were changed: a look at two files, and seldom into them."""
        path = file_of(self._config)
        seen = tuple(_traits(Path(f"{path}{suffix}")) for suffix in ("", "-wal"))
        if seen == self._seen or seen[0] is None:
            return
        with open_archive(self._config, pull=False) as archive:
            if archive.last_event() != self._position:
                self._hear_events(archive.events())
        self._seen = seen

    def _ask(self, prometheus: PrometheusDivisor) -> None:
        """Ask the Prometheus for each product's weight."""
        heard = {key: told for key, told in self._heard.items() if key in self._weights}
        try:
            for product_id in list(self._weights):
                heard[product_id] = (self._clock.monotonic_ns(), prometheus.weight_ppm(product_id))
        finally:
            self._heard = heard

    def _hear_events(self, events: Events) -> None:
        self._events = events
        self._position = events[-1][0] if events else 0
        self.products_changed = True

    def _take_up_kept(self) -> None:
        """Products as they were heard last, for as long as the archive doesn't answer."""
        try:
            kept = json.loads(Path(self._config.agent.state_dir, KEPT_EVENTS).read_bytes())
            self._hear_events([(int(position), dict(event)) for position, event in kept])
        except (OSError, ValueError, TypeError, RecursionError):
            return  # there is nothing, or it was half written: the archive has them

    def _keep(self) -> None:
        path = Path(self._config.agent.state_dir, KEPT_EVENTS)
        written = path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk: they are asked for again after the next start
            fd = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(fd, "w") as file:
                json.dump(self._events, file)
            written.replace(path)

    def _hang_up(self) -> None:
        archive, self._archive = self._archive, None
        reader, self._reader = self._reader, None
        self._said = None
        if archive is not None:
            archive.close()
        if reader is not None:
            reader.close()

    def _leave(self) -> None:
        """The last rows, and no more presence; an archive that doesn't answer isn't called again."""
        if self._archive is not None:
            with contextlib.suppress(LedgerError, ConfigError):
                self._archive.present(self.node_id, {})
                while self._deliver(self._archive):
                    pass
        self._hang_up()


def _traits(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)
