"""Jobs found without being told: asks every job source before each tick, applies the rules, and tells what is there.

It is read like a sensor, in a thread of its own: a kubelet that hangs costs a deadline. A source that can't look keeps
what it told last, so that a failing kubelet ends nobody's job; each has its own back-off and its own health.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import is_

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import CgroupTree, FoundJob, JobSource
from wattribute.agent.core.model import Clock, GroupId, SourceHealth
from wattribute.agent.core.rules import Rule, apply
from wattribute.agent.core.units import NS_PER_S
from wattribute.agent.live import Age

log = logging.getLogger("wattribute")

FIRST_BACKOFF_NS = NS_PER_S
LAST_BACKOFF_NS = 60 * NS_PER_S
RELIST_LOOKS = 10
FORGET_LOOKS = 1000


class _Asked:
    """One job source: what it told last, and how it is."""

    def __init__(self, source: JobSource) -> None:
        self.source = source
        self.jobs: Sequence[FoundJob] = ()
        self.ever = False
        self.why = self.fix = ""
        self.failures: dict[str, int] = {}
        self.read_ns = 0
        self.read_unix_ns: int | None = None
        self.retry_ns = 0
        self.backoff_ns = FIRST_BACKOFF_NS

    def fail(self, reason: str, why: str, fix: str) -> None:
        self.failures[reason] = self.failures.get(reason, 0) + 1
        if why != self.why:
            level = logging.WARNING if self.ever else logging.INFO
            log.log(level, "%s: %s%s", self.source.name, why, f". Fix: {fix}" if fix else "")
        self.why, self.fix = why, fix


class Discovery:
    """All job sources and the rules. `jobs` may block; `user_name` gives the name of a uid."""

    name = "jobs"

    def __init__(
        self,
        sources: Sequence[JobSource],
        sightings: "Sightings",
        rules: Sequence[Rule],
        clock: Clock,
        user_name: Callable[[int], str],
    ) -> None:
        self._sightings = sightings
        self._asked = [_Asked(source) for source in sources]
        self._rules = rules
        self._clock = clock
        self._user_name = user_name
        self._lists: list[Sequence[FoundJob]] = [()] * len(self._asked)
        self._told: Sequence[FoundJob] = ()

    def jobs(self) -> Sequence[FoundJob]:
        """All cgroups of found jobs; of two sources that tell of the same cgroup the first counts.

        The same object as before where no source told anything new.
        """
        self._sightings.look_again()
        for asked in self._asked:
            self._ask(asked)
        lists = [asked.jobs for asked in self._asked]
        if all(map(is_, lists, self._lists)):
            return self._told
        told: dict[str, FoundJob] = {}
        for found in chain.from_iterable(lists):
            told.setdefault(found.group.path, found)
        names = {uid: self._user_name(uid) for uid in {found.uid for found in told.values()}}
        self._told = [apply(self._rules, found, names[found.uid]) for found in told.values()]
        self._lists = lists
        return self._told

    read = jobs  # it is asked as a sensor is

    def health(self) -> list[SourceHealth]:
        """The state of each source that ever told a job, or fails with a fix to name."""
        return [
            SourceHealth(
                name=asked.source.name,
                up=not asked.why,
                read_ns=asked.read_ns,
                last_read_unix_ns=asked.read_unix_ns,
                failures=dict(asked.failures),
                gap_ns=0,
                wraps=0,
                resets=0,
                why=asked.why,
                fix=asked.fix,
            )
            for asked in self._asked
            if asked.ever or asked.why
        ]

    def close(self) -> None:
        """Give everything back."""
        for asked in self._asked:
            asked.source.close()

    def _ask(self, asked: _Asked) -> None:
        began_ns = self._clock.monotonic_ns()
        if began_ns < asked.retry_ns:
            return
        try:
            asked.jobs = asked.source.jobs()
        except SensorUnavailable as error:
            asked.fail("unavailable", error.cause, error.fix)
        except Exception as error:  # a source's bug costs its jobs, not the agent
            if "bug" not in asked.failures:
                log.exception("%s: a bug in this job source", asked.source.name)
            asked.fail("bug", f"{type(error).__name__}: {error}", "report it with the traceback in the log")
        else:
            asked.why = asked.fix = ""
            asked.ever = asked.ever or bool(asked.jobs)
            asked.backoff_ns = FIRST_BACKOFF_NS
            asked.read_unix_ns = self._clock.time_ns()
            asked.read_ns = self._clock.monotonic_ns() - began_ns
            return
        asked.retry_ns = began_ns + asked.backoff_ns
        asked.backoff_ns = min(2 * asked.backoff_ns, LAST_BACKOFF_NS)


@dataclass(slots=True)
class _Listing:
    """What a folder held: each cgroup with the look at which it appeared (0: the first of all)."""

    children: Sequence[GroupId]
    born: dict[GroupId, int]
    links: int
    look: int  # when it was listed
    asked: int  # when it was last asked for


class Sightings:
    """A cgroup tree that remembers which cgroups were there at the first look, and which have appeared since.

    A folder whose link count is as it was isn't listed again for RELIST_LOOKS looks: only one that came in the place of
    another could hide so, and whoever misses that one calls `forget`.
    """

    def __init__(self, tree: CgroupTree) -> None:
        self._tree = tree
        self._seen: dict[str, _Listing] = {}
        self._looks = 0
        self.pids, self.reserved, self.group_of = tree.pids, tree.reserved, tree.group_of
        self.links, self.owner = tree.links, tree.owner

    def look_again(self) -> None:
        """What appears from now on wasn't there at the tick before."""
        self._looks += 1
        if self._looks % FORGET_LOOKS == 0:
            self._seen = {path: seen for path, seen in self._seen.items() if self._looks - seen.asked < FORGET_LOOKS}

    def forget(self, group: GroupId) -> None:
        """A cgroup went unnoticed: the folder that held it is listed at the next look.

        If it is there after all, it is as old as any: what it used until now was somebody's.
        """
        if (seen := self._seen.get(_parent(group.path))) is not None:
            seen.links = -1
            if group in seen.born:
                seen.born[group] = 0

    def children(self, path: str) -> Sequence[GroupId]:
        """The cgroups right below one; the same object for as long as they are the same."""
        seen = self._seen.get(path)
        if seen is not None and seen.asked == self._looks and seen.links >= 0:
            return seen.children
        links = self._tree.links(path)
        if seen is not None and links == seen.links >= 0 and (not links or self._looks - seen.look < RELIST_LOOKS):
            if not links:
                seen.look = self._looks
            seen.asked = self._looks
            return seen.children
        children = self._tree.children(path)
        if seen is None:
            born = dict.fromkeys(children, self._appeared(path))
            self._seen[path] = _Listing(children, born, len(children), self._looks, self._looks)
            return children
        if seen.born.keys() != set(children):
            # One in the place of another may have hidden behind the count for some looks; so may one that came while
            # nobody listed the folder.
            hidden = links == seen.links or seen.asked < self._looks - 1 or not seen.born.keys() <= set(children)
            seen.born = {group: seen.born.get(group, self._looks - hidden) for group in children}
            seen.children = children
        seen.links, seen.look, seen.asked = len(children) if links >= 0 else -1, self._looks, self._looks
        return seen.children

    def age(self, group: GroupId) -> Age:
        """When a cgroup was made."""
        seen = self._seen.get(_parent(group.path))
        look = 0 if seen is None else seen.born.get(group, 0)
        return "old" if not look else "new" if look == self._looks else "late"

    def _appeared(self, path: str) -> int:
        """The look at which a folder was first seen: what it holds is as new. The top is as old as the machine."""
        above = self._seen.get(_parent(path)) if path != "/" else None
        if above is None:
            return 0
        return next((look for group, look in above.born.items() if group.path == path), self._looks)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
