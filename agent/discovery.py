"""Jobs found without being told: asks every job source before each tick, applies the rules, and tells what is there.

It is read like a sensor, in a thread of its own: a kubelet that hangs costs a deadline. A source that can't look keeps
what it told last, so that a failing kubelet ends nobody's job; each has its own back-off and its own health.
"""

import logging
from collections.abc import Callable, Sequence

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.found import CgroupTree, FoundJob, JobSource
from wattribute.agent.core.model import Clock, GroupId, SourceHealth
from wattribute.agent.core.rules import Rule, apply
from wattribute.agent.core.units import NS_PER_S

log = logging.getLogger("wattribute")

FIRST_BACKOFF_NS = NS_PER_S
LAST_BACKOFF_NS = 60 * NS_PER_S


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
        self, sources: Sequence[JobSource], rules: Sequence[Rule], clock: Clock, user_name: Callable[[int], str]
    ) -> None:
        self._asked = [_Asked(source) for source in sources]
        self._rules = rules
        self._clock = clock
        self._user_name = user_name

    def jobs(self) -> list[FoundJob]:
        """All cgroups of found jobs; of two sources that tell of the same cgroup the first counts."""
        told: dict[str, FoundJob] = {}
        for asked in self._asked:
            self._ask(asked)
            for found in asked.jobs:
                told.setdefault(found.group.path, found)
        return [apply(self._rules, found, self._user_name(found.uid)) for found in told.values()]

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


class Sightings:
    """A cgroup tree that remembers which cgroups were there at the first look, and which have appeared since.

    Of one that appeared all CPU time since its making is its job's, however late its job is told; what another had used
    before the agent looked isn't.
    """

    def __init__(self, tree: CgroupTree) -> None:
        self._tree = tree
        self._seen: dict[str, dict[GroupId, bool]] = {}
        self.pids, self.reserved, self.group_of = tree.pids, tree.reserved, tree.group_of

    def children(self, path: str) -> Sequence[GroupId]:
        """The cgroups right below one."""
        children = self._tree.children(path)
        before = self._seen.get(path)
        if before is None:
            new = bool(path.strip("/")) and self._is_new(path)
            self._seen[path] = dict.fromkeys(children, new)
        elif before.keys() != set(children):
            self._seen[path] = {group: before.get(group, True) for group in children}
        return children

    def appeared(self, group: GroupId) -> bool:
        """Whether a cgroup was made after the agent first looked where it is."""
        return self._seen.get(group.path.rpartition("/")[0] or "/", {}).get(group, False)

    def _is_new(self, path: str) -> bool:
        siblings = self._seen.get(path.rpartition("/")[0] or "/", {})
        return any(new for group, new in siblings.items() if group.path == path)
