"""Takes the jobs that were found into the registry: new cgroups open members, those that are gone close them."""

import logging
from collections.abc import Sequence
from typing import Protocol

from wattribute.agent.core.errors import SensorUnavailable, WattributeError
from wattribute.agent.core.found import FoundJob
from wattribute.agent.core.model import Clock, GroupId, SourceHealth
from wattribute.agent.discovery import Discovery, Sightings
from wattribute.agent.groups import Groups
from wattribute.agent.ledger.past import NotYet
from wattribute.agent.live import LiveJob
from wattribute.agent.registry import Registry
from wattribute.agent.sources import Source

log = logging.getLogger("wattribute")

DEADLINE_NS = 5_000_000_000


class Past(Protocol):
    """What the record knows of jobs: ended ones by id; `fold` lets a job's series begin anew."""

    def finished(self, job_id: str) -> LiveJob | None: ...
    def fold(self, live: LiveJob) -> None: ...


class FoundJobs:
    """Discovery behind a deadline, and the cgroups that it told. `inline`: asked in the tick's own thread."""

    def __init__(
        self, discovery: Discovery, sightings: Sightings, groups: Groups, clock: Clock, *, inline: bool = False
    ) -> None:
        self.groups = groups
        self._discovery = discovery
        self._sightings = sightings
        self._source: Source[FoundJob] = Source(discovery, clock, deadline_ns=DEADLINE_NS, threaded=not inline)
        self._told: Sequence[FoundJob] | None = None
        self._told_late = self._overdue = False
        self._known: dict[GroupId, str] = {}
        self._refused: set[str] = set()
        self._settled: Sequence[FoundJob] = ()  # what was told last, if all of it is taken in

    def request(self) -> None:
        """Ask what is there now."""
        self._overdue = not self._source.answered  # asked at an earlier tick, and not answered yet
        self._source.request()

    def collect(self, patience_ns: int) -> None:
        """Take what was answered; without an answer what was told last is still true."""
        told = self._source.collect(patience_ns)
        if self._source.answered_well:
            self._told, self._told_late = told, self._overdue

    def reconcile(self, registry: Registry, record: Past, clock: Clock) -> list[LiveJob]:
        """Open what is new, and return those jobs; remember what is gone for `gone`."""
        told, self._told = self._told, None
        opened: list[LiveJob] = []
        if told is None or (told and told == self._settled):
            return opened
        self._settled = told
        here = {found.group: found for found in told}
        for group in registry.roots():
            if isinstance(group, GroupId):
                self._known.setdefault(group, "")
        missed = [group for group in self._known if group not in here]
        # After a restart a source may need a while until it knows a job again that was running before.
        missed = [group for group in missed if self._known[group] or not self._is_there(group)]
        if len(missed) + len(here) < len(self._known):
            self._settled = ()  # some aren't told yet: to be looked at again
        self.groups.miss(missed)
        for group in missed:
            del self._known[group]
        for group, found in sorted(here.items(), key=lambda item: len(item[0].path)):  # the outer ones first
            if self._known.get(group):
                continue
            if group in self._known:  # from before a restart
                self._known[group] = found.job_id
                continue
            age = self._sightings.age(group)
            if age == "new" and self._told_late:
                age = "late"  # what it used until the tick before isn't this window's
            try:
                live = registry.find(found, clock.monotonic_ns(), clock.time_ns(), age, record.finished, record.fold)
            except NotYet:
                self._settled = ()  # it is looked at again; what it uses until then is unregistered
                continue
            except WattributeError as error:
                if found.job_id not in self._refused:
                    self._refused.add(found.job_id)
                    log.warning("job %r was found in %s and isn't counted: %s", found.job_id, group.path, error)
                continue
            if live is not None:
                self._known[group] = found.job_id
                opened.append(live)
            else:
                self._settled = ()
        return opened

    def gone(self) -> list[GroupId]:
        """Cgroups that were removed, or that no source tells of any more, until the last read."""
        gone = list(self.groups.gone())
        for group in gone:
            self._known.pop(group, None)
            self._sightings.forget(group)
        return gone

    def _is_there(self, group: GroupId) -> bool:
        try:
            return group in self._sightings.children(group.path.rpartition("/")[0] or "/")
        except SensorUnavailable:
            return True  # not known

    def health(self) -> list[SourceHealth]:
        """The state of each job source."""
        return self._discovery.health()

    def close(self) -> None:
        """Give everything back."""
        self._source.close()
        self.groups.close()
