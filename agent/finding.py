"""Takes the jobs that were found into the registry: new cgroups open members, those that are gone close them."""

import logging
from collections.abc import Callable, Sequence

from wattribute.agent.core.errors import WattributeError
from wattribute.agent.core.found import FoundJob
from wattribute.agent.core.model import Clock, GroupId, SourceHealth
from wattribute.agent.discovery import Discovery, Sightings
from wattribute.agent.groups import Groups
from wattribute.agent.registry import LiveJob, Registry
from wattribute.agent.sources import Source

log = logging.getLogger("wattribute")

DEADLINE_NS = 5_000_000_000


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
        self._known: dict[GroupId, str] = {}
        self._refused: set[str] = set()

    def request(self) -> None:
        """Ask what is there now."""
        self._source.request()

    def collect(self, patience_ns: int) -> None:
        """Take what was answered; without an answer what was told last is still true."""
        told = self._source.collect(patience_ns)
        if self._source.answered_well:
            self._told = told

    def reconcile(self, registry: Registry, finished: Callable[[str], LiveJob | None], clock: Clock) -> None:
        """Open what is new; remember what is gone for `gone`."""
        told, self._told = self._told, None
        if told is None:
            return
        here = {found.group: found for found in told}
        for group in registry.roots():
            if isinstance(group, GroupId):
                self._known.setdefault(group, "")
        self.groups.miss([group for group in self._known if group not in here])
        self._known = {group: job_id for group, job_id in self._known.items() if group in here}
        for group, found in here.items():
            if group in self._known:
                continue
            known = None if found.job_id in registry.jobs else finished(found.job_id)
            age = self._sightings.age(group)
            try:
                taken = registry.find(found, clock.monotonic_ns(), clock.time_ns(), age, known)
            except WattributeError as error:
                if found.job_id not in self._refused:
                    self._refused.add(found.job_id)
                    log.warning("job %r was found in %s and isn't counted: %s", found.job_id, group.path, error)
                continue
            if taken:
                self._known[group] = found.job_id

    def gone(self) -> list[GroupId]:
        """Cgroups that were removed, or that no source tells of any more, until the last read."""
        gone = list(self.groups.gone())
        for group in gone:
            self._known.pop(group, None)
        return gone

    def health(self) -> list[SourceHealth]:
        """The state of each job source."""
        return self._discovery.health()

    def close(self) -> None:
        """Give everything back."""
        self._source.close()
        self.groups.close()
