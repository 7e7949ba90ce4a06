"""Serving engines that were configured by the address of their metrics: read in threads of their own, each at its
interval, and booked at the next tick as what their product's job has served.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from wattribute.agent.config.engines import name_of
from wattribute.agent.config.schema import Engine
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import Clock, SourceHealth
from wattribute.agent.core.served_sender import ENGINE
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.live import LiveJob
from wattribute.agent.requests import Served
from wattribute.agent.sources import Source
from wattribute.collectors.engines import ABORTED, REQUEST, STAGES, EngineCollector, Work, listed

log = logging.getLogger("wattribute")

SPARE_NS = 5 * NS_PER_S


class Serving(Protocol):
    """Who books what was served. `served` and `stages` (in seconds) are cumulative since the account began; `until_ns`
    ends the window since the count before. Raises Refused. `metered`: whether the job tells of itself.
    """

    def metered(self, job_id: str) -> bool: ...

    def count(
        self,
        job_id: str,
        account: str,
        served: Sequence[Served],
        in_flight: int,
        stages: Mapping[str, float],
        until_ns: int,
    ) -> None: ...


@dataclass(slots=True)
class _Watched:
    """One engine: what it served since `account` began, which is for one job alone."""

    engine: Engine
    collector: EngineCollector
    source: Source[Work]
    due_ns: int = 0
    job_id: str = ""
    account: str = ""
    sums: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)  # served, and no job known yet that did it
    untold: frozenset[str] | None = None
    misses: int = 0
    restarts: int = 0
    why: str = ""
    fix: str = ""
    said: str = ""


def collector_of(engine: Engine, clock: Clock) -> EngineCollector:
    """What reads a configured engine."""
    return EngineCollector(
        f"{ENGINE}{name_of(engine)}",
        engine.url,
        engine.kind,
        counters=engine.counters,
        timeout_s=engine.timeout_s,
        now_ns=clock.monotonic_ns,
    )


class Engines:
    """All engines of the configuration. `threaded` False: each is read in the tick's own thread."""

    def __init__(self, engines: Sequence[Engine], clock: Clock, *, threaded: bool = True) -> None:
        self._clock = clock
        self._since = clock.time_ns()  # part of every account's name: after a restart they begin at 0
        self._all = [self._watch(engine, threaded) for engine in engines]

    def _watch(self, engine: Engine, threaded: bool) -> _Watched:
        collector = collector_of(engine, self._clock)
        # Its own time-out comes first, and says more; a name that isn't resolved has none.
        deadline_ns = round(2 * engine.timeout_s * NS_PER_S) + SPARE_NS
        return _Watched(engine, collector, Source(collector, self._clock, deadline_ns=deadline_ns, threaded=threaded))

    def request(self) -> None:
        """Ask the engines whose interval is over. Never blocks."""
        now_ns = self._clock.monotonic_ns()
        for one in self._all:
            if now_ns >= one.due_ns:
                one.source.request()
                interval_ns = round(one.engine.interval_s * NS_PER_S)
                one.due_ns += interval_ns
                if one.due_ns <= now_ns:
                    one.due_ns = now_ns + interval_ns

    def collect(self, jobs: Mapping[str, LiveJob], serving: Serving) -> None:
        """Book what has arrived by now. An engine that no job is known for keeps its counts until one is."""
        for one in self._all:
            for work in one.source.collect(0):
                self._take(one, work, jobs, serving)
            missed = sum(one.source.health().failures.values())
            if missed != one.misses:
                one.misses = missed
                self._miss(one, jobs, serving)

    def health(self) -> list[SourceHealth]:
        """The state of each engine: whether it is read, and whether what it tells can be counted."""
        return [self._health(one) for one in self._all]

    def close(self) -> None:
        """Let the threads go."""
        for one in self._all:
            one.source.close()

    def _take(self, one: _Watched, work: Work, jobs: Mapping[str, LiveJob], serving: Serving) -> None:
        self._tell(one, work)
        for name, added in work.served.items():
            one.waiting[name] = one.waiting.get(name, 0.0) + added
        job_id = self._job(one, jobs)
        if not job_id:
            return
        if serving.metered(job_id):
            one.job_id, one.waiting = "", {}
            one.why = f'job "{job_id}" has a meter of its own: each request would count twice'
            one.fix = "leave out the [[engine]], or the meter in front of it"
            return
        if job_id != one.job_id:
            one.job_id, one.sums = job_id, {}
            one.account = f"{one.source.name} {self._since} {work.at_ns}"
        for name, added in one.waiting.items():
            one.sums[name] = one.sums.get(name, 0.0) + added
        one.waiting = {}
        self._count(one, serving, round(work.in_flight or 0), work.at_ns)

    def _miss(self, one: _Watched, jobs: Mapping[str, LiveJob], serving: Serving) -> None:
        """While nobody listens at its address an engine serves nothing: its time is idle, not of who comes next.

        One that doesn't answer well may have served: that is seen when it does again, and the window is longer.
        """
        live = jobs.get(one.job_id)
        if one.source.absent and live is not None and live.running:
            self._count(one, serving, 0, self._clock.monotonic_ns())

    @staticmethod
    def _count(one: _Watched, serving: Serving, in_flight: int, until_ns: int) -> None:
        sums = one.sums
        served = Served(
            requests=int(sums.get(REQUEST, 0)),
            aborted=int(sums.get(ABORTED, 0)),
            units={name: value for name, value in sums.items() if name not in (REQUEST, ABORTED, *STAGES)},
        )
        stages = {stage: sums[name] for name, stage in STAGES.items() if name in sums}
        try:
            serving.count(one.job_id, one.account, [served], in_flight, stages, until_ns)
        except Refused as error:
            one.why, one.fix = str(error), ""

    def _job(self, one: _Watched, jobs: Mapping[str, LiveJob]) -> str:
        """The job that the engine is; "" where that isn't known, and then why."""
        engine = one.engine
        before, one.why, one.fix = one.why, "", ""
        running = [job_id for job_id, live in jobs.items() if live.running and self._serves(live, engine.product)]
        if engine.job:
            if engine.job in running:
                return engine.job
            live = jobs.get(engine.job)
            if live is None or not live.running:
                one.why = f'job "{engine.job}" doesn\'t run on this node: its counts wait for it'
                one.fix = f"`wattribute jobs` lists what runs: set job to one of product {engine.product}"
            else:
                job = live.entry.job
                one.why = f'job "{engine.job}" has product "{job.product_id}" and role {job.role}: its counts wait'
                one.fix = f'set product to the job\'s, or let it run with role use for product "{engine.product}"'
        elif len(running) == 1:
            return running[0]
        elif running:
            ids = ", ".join(sorted(running)[:3]) + (", ..." if len(running) > 3 else "")
            one.why = f'several jobs of product "{engine.product}" run ({ids}): which one it is isn\'t known'
            one.fix = 'name it in its [[engine]]: job = "..."'
        else:
            one.why = f'no job of product "{engine.product}" with role use runs on this node: its counts wait for one'
            one.fix = (
                f"start it by `wattribute run --product {engine.product} -- ...`, give its unit or container that "
                'product by a [[rule]], or name its job: job = "..."'
            )
        if one.why == before != one.said:  # once is no news: a job is found a moment after its engine
            one.said = before
            log.warning("%s: %s. Fix: %s", one.source.name, one.why, one.fix)
        return ""

    @staticmethod
    def _serves(live: LiveJob, product_id: str) -> bool:
        job = live.entry.job
        return job.product_id == product_id and job.role == "use"

    @staticmethod
    def _tell(one: _Watched, work: Work) -> None:
        """Say once what isn't told, and that the engine began anew."""
        untold = one.collector.fields - work.told
        if untold != one.untold:
            one.untold = untold
            if untold:
                log.info("%s: its page doesn't tell %s", one.source.name, listed(untold))
        if work.restarted:
            one.restarts += 1
            log.info("%s: its counters began anew: counted from 0", one.source.name)

    @staticmethod
    def _health(one: _Watched) -> SourceHealth:
        health = one.source.health()
        if health.up and one.why:
            health = replace(health, up=False, why=one.why, fix=one.fix)
        elif health.up and one.untold:
            health = replace(health, why=f"doesn't tell {listed(one.untold)}")
        return replace(health, resets=one.restarts)
