"""Cgroups that only the rules name: by path, by systemd unit, or a user's whole slice.

Those inside or above what another source found are told as well: which of them counts is the caller's to say.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from wattribute.agent.core.found import CgroupTree, FoundJob, GroupId
from wattribute.agent.core.rules import WILD, Rule, apply, fits, fits_path, fits_unit, plain, unit_of
from wattribute.agent.core.search import GroupSearch

PATIENCE = 5  # calls, about a second each, until a cgroup without processes is taken for root's

_USER = re.compile(r"/user\.slice/user-(\d+)\.slice")
_OF_USER = re.compile(rf"{_USER.pattern}(?:/.*)?")
# Units are looked for where systemd alone makes cgroups, and below a user's own systemd for rules that name him.
_SLICES = re.compile(r"(?!/user\.slice|/kubepods)(?:/[^/]+\.slice)+")
_USER_SLICES = re.compile(rf"/user\.slice|{_USER.pattern}(?:/user@\d+\.service(?:/[^/]+\.slice)*)?")
_UNIT_ENDS = (".service", ".scope", ".slice")


class NamedCgroups:
    """Finds them. `rules` are all that are configured, in their order: those by label are for other sources.

    A pattern means the outermost cgroups that fit. Job ids: the rule's, else the unit's name without `.service`,
    `user-NAME`, or the path without its first `/`. `user_name` tells a uid's name ("": none is known), `uid_of` whose
    a process is, `fit` makes an id a valid one.
    """

    name = "cgroup"

    def __init__(
        self,
        tree: CgroupTree,
        rules: Sequence[Rule],
        *,
        user_name: Callable[[int], str],
        uid_of: Callable[[int], int | None],
        fit: Callable[[str], str],
    ) -> None:
        self._tree = tree
        self._all = tuple(rules)
        self._rules = tuple(rule for rule in rules if not rule.label and (rule.cgroup or rule.unit or rule.user))
        self._user_name = user_name
        self._uid_of = uid_of
        self._fit = fit
        self._search = GroupSearch(tree, wanted=self._is_wanted, enter=self._may_hold, keep=self._is_kept)
        self._known: dict[GroupId, FoundJob | None] = {}
        self._tries: dict[GroupId, int] = {}
        self._groups: list[GroupId] = []
        self._jobs: list[FoundJob] = []

    def jobs(self) -> Sequence[FoundJob]:
        """Those that are there; none without a rule that names any."""
        groups = self._search.groups() if self._rules else []
        if groups is self._groups and not self._tries:
            return self._jobs
        known: dict[GroupId, FoundJob | None] = {}
        tries: dict[GroupId, int] = {}
        for group in groups:
            if group in self._known:
                known[group] = self._known[group]
                continue
            uid = self._uid(group.path)
            if uid is None:
                tries[group] = self._tries.get(group, 0) + 1
                if tries[group] <= PATIENCE:
                    continue
            known[group] = self._told(group, uid or 0)
        self._known, self._tries, self._groups = known, tries, groups
        self._jobs = [job for job in known.values() if job is not None]
        return self._jobs

    def close(self) -> None:
        """Nothing is held open."""

    def _told(self, group: GroupId, uid: int) -> FoundJob | None:
        user_name = self._user_name(uid)
        last = _last(group.path)
        unit = last if last.endswith(_UNIT_ENDS) else unit_of(group.path)
        found = FoundJob(job_id="", group=group, origin="cgroup", uid=uid, unit=unit)
        for rule in self._rules:
            if _names(rule, group.path) and fits(rule, found, user_name):
                job_id = self._fit(_job_id(rule, group.path, user_name or str(uid)))
                reserved = self._tree.reserved(group.path)
                return apply(self._all, replace(found, job_id=job_id, reserved=reserved), user_name)
        return None

    def _uid(self, path: str) -> int | None:
        user = _OF_USER.fullmatch(path)
        if user:
            return int(user[1])
        return next((uid for pid in self._tree.pids(path, 1) if (uid := self._uid_of(pid)) is not None), None)

    def _is_wanted(self, path: str) -> bool:
        return any(_names(rule, path) for rule in self._rules)

    def _may_hold(self, path: str) -> bool:
        return any(_leads_to(rule, path) for rule in self._rules)

    def _is_kept(self, path: str) -> bool:
        return path.count("/") == 1 or any(
            rule.cgroup and _fixed(rule.cgroup).rpartition("/")[0] in (path, plain(path)) for rule in self._rules
        )


def _names(rule: Rule, path: str) -> bool:
    """Whether a rule names this cgroup, as far as its path says."""
    if rule.unit:
        last = _last(path)
        return (
            last.endswith(_UNIT_ENDS)
            and fits_unit(rule, last, path)
            and (not rule.cgroup or fits_path(rule.cgroup, path))
        )
    if rule.cgroup:
        return fits_path(rule.cgroup, path)
    return _USER.fullmatch(path) is not None


def _leads_to(rule: Rule, path: str) -> bool:
    """Whether a cgroup that the rule names may lie below this one."""
    if rule.cgroup:
        fixed, wild = _fixed(rule.cgroup), bool(WILD.search(rule.cgroup))
        return any(fixed.startswith(f"{form}/") or (wild and form.startswith(fixed)) for form in (path, plain(path)))
    if rule.unit:
        return bool(_SLICES.fullmatch(path) or (rule.user and _USER_SLICES.fullmatch(path)))
    return path == "/user.slice"


def _fixed(pattern: str) -> str:
    """What every path that fits begins with."""
    return WILD.split(pattern, maxsplit=1)[0]


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _job_id(rule: Rule, path: str, user: str) -> str:
    if rule.unit:
        unit = _last(path).removesuffix(".service")
        return f"user-{user}-{unit}" if _OF_USER.fullmatch(path) else unit
    return path.removeprefix("/") if rule.cgroup else f"user-{user}"
