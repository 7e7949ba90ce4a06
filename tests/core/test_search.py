"""What a search finds at once, what it finds late, and what it never lists."""

from tests.doubles.listed_tree import ListedTree

from wattribute.agent.core.search import WALK_EVERY, GroupSearch


def search(tree: ListedTree) -> GroupSearch:
    return GroupSearch(
        tree,
        wanted=lambda path: path.endswith("/job"),
        enter=lambda path: not path.startswith("/other"),
        keep=lambda path: path == "/kept",
    )


def paths(found: GroupSearch) -> list[str]:
    return sorted(group.path for group in found.groups())


def test_all_that_are_wanted_are_found_and_nothing_below_them() -> None:
    tree = ListedTree()
    for path in ("/a/b/job/job", "/job", "/kept/job", "/other/job"):
        tree.add(path)
    found = search(tree)
    for _ in range(2 * WALK_EVERY):
        assert paths(found) == ["/a/b/job", "/job", "/kept/job"]
    assert not any(path.startswith("/other") or path.endswith("/job") for path in tree.listed)


def test_new_folders_where_it_looks_are_walked_at_once_and_others_in_time() -> None:
    tree = ListedTree()
    for path in ("/a/b", "/kept", "/held/job"):
        tree.add(path)
    found = search(tree)
    assert paths(found) == ["/held/job"]
    for path in ("/new/x/job", "/kept/x/job", "/held/x/job", "/a/b/job"):
        tree.add(path)
    seen = [paths(found) for _ in range(WALK_EVERY)]
    at_once = ["/held/job", "/held/x/job", "/kept/x/job", "/new/x/job"]
    assert seen == [at_once] * (WALK_EVERY - 1) + [["/a/b/job", *at_once]]


def test_each_is_told_once_where_the_folders_above_were_made_anew() -> None:
    tree = ListedTree()
    tree.add("/a/b/c/job")
    found = search(tree)
    (before,) = found.groups()
    tree.remove("/a")
    assert found.groups() == []
    after = tree.add("/a/b/c/job")
    assert found.groups() == [after] != [before]


def test_between_two_walks_only_the_watched_folders_are_listed() -> None:
    tree = ListedTree()
    for number in range(100):
        tree.add(f"/a/b{number}")
    tree.add("/held/job")
    found = search(tree)
    found.groups()
    tree.listed.clear()
    found.groups()
    assert sorted(tree.listed) == ["/", "/held"]
