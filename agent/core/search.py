"""Finds cgroups of one kind in a large tree without walking it each time.

A walk goes everywhere such a cgroup may be. Between two walks only those folders are listed that held one or are
always worth a look, and what is new in them is walked into.
"""

from collections.abc import Callable, Iterator

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

    def groups(self) -> list[GroupId]:
        """Those that are there now. One in a folder that never held any may be told up to WALK_EVERY calls late."""
        whole = self._calls % WALK_EVERY == 0
        self._calls += 1
        if whole:
            self._watched = {"/": None}
            self._walked = set()
            return list(self._walk("/"))
        # A folder made anew may be walked into and hold one that is listed as well.
        return list(dict.fromkeys(group for folder in tuple(self._watched) for group in self._list(folder)))

    def _list(self, folder: str) -> Iterator[GroupId]:
        for child in self._tree.children(folder):
            if self._wanted(child.path):
                yield child
            elif child not in self._walked and self._enter(child.path):
                self._walked.add(child)
                if child.path not in self._watched:  # else it was made anew and is listed anyway
                    yield from self._walk(child.path)

    def _walk(self, folder: str) -> Iterator[GroupId]:
        if self._keep(folder):
            self._watched[folder] = None
        for child in self._tree.children(folder):
            if self._wanted(child.path):
                self._watched[folder] = None
                yield child
            elif self._enter(child.path):
                self._walked.add(child)
                yield from self._walk(child.path)
