"""Finds cgroups of one kind in a large tree without walking it each time.

A walk goes everywhere such a cgroup may be. Between two walks only those folders are listed that held one or are
always worth a look, and what is new in them is walked into.
"""

from collections.abc import Callable, Sequence
from operator import is_not
from typing import NamedTuple

from wattribute.agent.core.found import CgroupTree, GroupId

WALK_EVERY = 10  # calls, which come once a second


class GroupSearch:
    """All cgroups whose path is `wanted`, none below one. `enter`: where they may be; `keep`: what to list always."""

    def __init__(
        self,
        tree: CgroupTree,
        *,
        wanted: Callable[[str], bool],
        enter: Callable[[str], bool],
        keep: Callable[[str], bool],
    ) -> None:
        self._tree = tree
        self._wanted = wanted
        self._enter = enter
        self._keep = keep
        self._calls = 0
        self._watched: dict[str, None] = {}
        self._walked: set[GroupId] = set()
        self._sorted: dict[str, _Sorted] = {}
        self._before: dict[str, _Sorted] = {}  # what the walk before this one saw
        self._lists: list[_Sorted] = []
        self._groups: list[GroupId] = []

    def groups(self) -> list[GroupId]:
        """Those that are there now, the same object for as long as they are the same.

        One in a folder that never held any may be told up to WALK_EVERY calls late.
        """
        whole = self._calls % WALK_EVERY == 0
        self._calls += 1
        lists: list[_Sorted] = []
        if whole:
            self._before, self._sorted = self._sorted, {}
            self._watched, self._walked = {"/": None}, set()
            self._walk("/", lists)
            self._before = {}
        else:
            for folder in tuple(self._watched):
                self._list(folder, lists)
        if len(lists) != len(self._lists) or any(map(is_not, lists, self._lists)):
            self._lists = lists
            # A folder made anew may be walked into and hold one that is listed as well.
            groups = list(dict.fromkeys(group for known in lists for group in known.wanted))
            self._groups = groups if groups != self._groups else self._groups
        return self._groups

    def _list(self, folder: str, lists: "list[_Sorted]") -> None:
        known = self._sort(folder)
        lists.append(known)
        for child in known.inner:
            if child not in self._walked:
                self._walked.add(child)
                if child.path not in self._watched:  # else it was made anew and is listed anyway
                    self._walk(child.path, lists)

    def _walk(self, folder: str, lists: "list[_Sorted]") -> None:
        known = self._sort(folder)
        if known.wanted or self._keep(folder):
            self._watched[folder] = None
        lists.append(known)
        for child in known.inner:
            self._walked.add(child)
            self._walk(child.path, lists)

    def _sort(self, folder: str) -> "_Sorted":
        """What a folder holds; a tree that answers with the same object holds the same."""
        children = self._tree.children(folder)
        known = self._sorted.get(folder) or self._before.get(folder)
        if known is None or known.children is not children:
            wanted = [child for child in children if self._wanted(child.path)]
            inner = [child for child in children if not self._wanted(child.path) and self._enter(child.path)]
            known = _Sorted(children, wanted, inner)
        self._sorted[folder] = known
        return known


class _Sorted(NamedTuple):
    """A folder's cgroups: those that are wanted, and those that may hold some."""

    children: Sequence[GroupId]
    wanted: list[GroupId]
    inner: list[GroupId]
