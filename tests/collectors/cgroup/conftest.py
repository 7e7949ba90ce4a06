"""Fake trees of both kinds, and real cgroups where this machine lets us make them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collectors.cgroup.real_groups import RealGroups, mounted
from tests.doubles.cgroups import FakeCgroups

from wattribute.collectors.cgroup import Tree

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*"]


@pytest.fixture(params=["v1", "v2"])
def fake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeCgroups]:
    with FakeCgroups(tmp_path / request.param, request.param) as fake:
        yield fake


@pytest.fixture
def tree(fake: FakeCgroups) -> Tree:
    return Tree(fake.cgroup, fake.proc)


@pytest.fixture(params=["v1", "v2"])
def real(request: pytest.FixtureRequest) -> Iterator[RealGroups]:
    here = mounted()
    if here and request.param not in here:
        pytest.skip(f"this machine has no {request.param} hierarchy that counts CPU time")
    try:
        groups = RealGroups(here[request.param], request.param)
    except (KeyError, OSError):
        pytest.skip("no cgroup can be made here")
    yield groups
    groups.close()
