"""The cache and the keys: files that others may have damaged, and what is never shown."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.intensity import About, Reported
from wattribute.collectors.grid.cache import NAME, Cache, Kept
from wattribute.collectors.grid.feed import Unanswered
from wattribute.collectors.grid.keys import Keys

H = 3600 * 10**9
NOW = 1_700_002_800 * 10**9
ABOUT = About(zone="DE", provider="electricitymaps", method="average, lifecycle", source="x")
VALUES = (Reported(NOW - H, NOW, 302.5, "final", NOW), Reported(NOW, NOW + H, 295.0, "estimated", NOW))


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path, ABOUT)
    assert cache.read(NOW) == Kept(since_unix_ns=NOW)
    cache.write(NOW - 5, VALUES, [(NOW, 1.25)])
    assert cache.read(NOW + 9) == Kept(since_unix_ns=NOW - 5, values=VALUES, pues=((NOW, 1.25),))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(
    "other",
    [
        replace(ABOUT, zone="FR"),
        replace(ABOUT, provider="uk"),
        replace(ABOUT, method="average, direct"),
        replace(ABOUT, source="y"),
    ],
)
def test_the_cache_of_another_source_isnt_used(other: About, tmp_path: Path) -> None:
    Cache(tmp_path, ABOUT).write(NOW - 5, VALUES, [])
    assert Cache(tmp_path, other).read(NOW) == Kept(since_unix_ns=NOW)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"schema":2}', b"\xff", b"{" * 5000],
)
def test_a_damaged_cache_is_said_and_written_anew(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(content)
    cache = Cache(tmp_path, ABOUT)
    with pytest.raises(Unanswered, match="isn't used") as caught:
        cache.read(NOW)
    assert caught.value.reason == "cache"
    cache.write(NOW, VALUES, [])
    assert cache.read(NOW).values == VALUES


@pytest.mark.parametrize(
    "values", [[(0, 1, -5.0)], [(0, 1, 1501.0)], [(5, 6, 1.0), (4, 5, 1.0)], [(NOW + 9 * H, NOW + 10 * H, 5.0)]]
)
def test_values_that_cant_be_arent_used_from_a_cache_either(
    values: list[tuple[int, int, float]], tmp_path: Path
) -> None:
    cache = Cache(tmp_path, ABOUT)
    cache.write(NOW, [Reported(*value, "final", NOW) for value in values], [])
    with pytest.raises(Unanswered):
        cache.read(NOW)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_cache_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    place = tmp_path_factory.mktemp("cache")
    (place / NAME).write_bytes(content)
    with pytest.raises(Unanswered):
        Cache(place, ABOUT).read(NOW)


def test_a_place_that_cant_be_written_is_an_error_of_the_cache_alone(tmp_path: Path) -> None:
    with pytest.raises(Unanswered, match="can't be written") as caught:
        Cache(tmp_path / "nowhere", ABOUT).write(NOW, VALUES, [])
    assert caught.value.reason == "cache"
    (tmp_path / NAME).mkdir()
    with pytest.raises(Unanswered, match="can't be read"):
        Cache(tmp_path, ABOUT).read(NOW)
    with pytest.raises(Unanswered, match="can't be written"):
        Cache(tmp_path, ABOUT).write(NOW, VALUES, [])
    assert [path.name for path in tmp_path.iterdir()] == [NAME]  # nothing half-written is left


def test_the_cache_holds_no_key(tmp_path: Path) -> None:
    Cache(tmp_path, ABOUT).write(NOW, VALUES, [])
    assert set(json.loads((tmp_path / NAME).read_text())) == {"schema", "key", "since_unix_ns", "values", "pues"}


USER_AND_PASSWORD = ("WATTTIME_USER", "WATTTIME_PASSWORD")


def test_keys_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    environment = {"WATTTIME_USER": " ada ", "WATTTIME_PASSWORD": "pw"}
    assert Keys(USER_AND_PASSWORD, "", environment).read() == ("ada", "pw")
    file = tmp_path / "key"
    file.write_text("bob\n\n secret \n")
    assert Keys(USER_AND_PASSWORD, str(file), environment).read() == ("bob", "secret")
    file.write_text("bob\nchanged\n")
    assert Keys(USER_AND_PASSWORD, str(file), environment).read() == ("bob", "changed")


@pytest.mark.parametrize(
    "content", [b"", b"one\n", b"one\ntwo\nthree\n", b"sec ret\nx\n", b"a\n\xffsecret\n", b"a\nb\x00\n"]
)
def test_a_file_without_usable_keys_says_so_and_nothing_of_it(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(Unanswered) as caught:
        Keys(USER_AND_PASSWORD, str(file), {}).read()
    assert caught.value.reason == "key"
    said = str(caught.value).replace(str(file), "")
    assert not any(word in said for word in ("sec ", "ret", "secret", "three", "one"))


def test_a_missing_key_names_the_variable_or_the_file(tmp_path: Path) -> None:
    with pytest.raises(Unanswered, match="no usable key in WATTTIME_USER or WATTTIME_PASSWORD"):
        Keys(USER_AND_PASSWORD, "", {"WATTTIME_USER": "ada"}).read()
    with pytest.raises(Unanswered, match="none: No such file"):
        Keys(("X",), str(tmp_path / "none"), {}).read()


@pytest.mark.skipif(os.name == "nt", reason="modes are Unix's")
@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_key_that_others_can_read_is_a_warning_with_the_fix(mode: int, warned: bool, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("k")
    file.chmod(mode)
    warning = Keys(("X",), str(file), {}).warning()
    assert bool(warning) is warned
    assert not warned or f"chmod 600 {file}" in warning
    assert Keys(("X",), "", {}).warning() == Keys(("X",), str(tmp_path / "none"), {}).warning() == ""


def test_no_link_is_followed_that_somebody_put_in_its_way(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    cache = Cache(tmp_path, ABOUT)
    cache.path.with_name(f"{cache.path.name}.{os.getpid()}.new").symlink_to(victim)
    with pytest.raises(Unanswered, match="can't be written"):
        cache.write(NOW, VALUES, [])
    assert victim.read_text() == "mine"
    cache.write(NOW, VALUES, [])  # the link is gone
    assert cache.read(NOW).values
