"""CSV series: what is read, what is refused with its line, and what holds outside of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.errors import ConfigError
from wattribute.agent.core.intensity import in_force, rfc3339
from wattribute.collectors.grid.feed import Unanswered
from wattribute.collectors.grid.series import PueFeed, SeriesFeed, intensities, pues

HEAD = "valid_from,gco2e_per_kwh\n"
H = 3600 * 10**9
T = 1_700_002_800 * 10**9


def write(tmp_path: Path, text: str | bytes, name: str = "s.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        intensities(path)
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "2023-11-14T23:00:00Z,400\n2023-11-15T00:00:00Z,300.5\n",
        HEAD + "2023-11-15T00:00:00+01:00,400\n2023-11-14T19:00:00-05:00,300.5\n",
        "\ufeff" + HEAD + "2023-11-14T23:00:00Z,4e2\r\n\r\n2023-11-15T00:00:00Z, 300.5",
        'valid_from, gco2e_per_kwh\n"2023-11-14T23:00:00Z","400"\n2023-11-15T00:00:00Z,300.5\n',
    ],
)
def test_a_series_is_its_rows_in_utc(text: str, tmp_path: Path) -> None:
    assert intensities(write(tmp_path, text)) == ((T, 400.0), (T + H, 300.5))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("2023-11-14T23:00:00,400", 'line 2: "2023-11-14T23:00:00" has no offset'),
        ("2023-11-14,400", 'line 2: "2023-11-14" has no offset'),
        ("14.11.2023,400", 'line 2: "14.11.2023" is no time; write it as 2026-01-31T13:00:00Z'),
        ("2023-11-14T23:00:00Z,1501", "line 2: 1501 g/kWh is outside 0 to 1500"),
        ("2023-11-14T23:00:00Z,-1", "line 2: -1 g/kWh is outside 0 to 1500"),
        ("2023-11-14T23:00:00Z,nan", 'line 2: "nan" is no number'),
        ("2023-11-14T23:00:00Z,inf", 'line 2: "inf" is no number'),
        ("2023-11-14T23:00:00Z,1_0", 'line 2: "1_0" is no number'),
        ("2023-11-14T23:00:00Z,", 'line 2: "" is no number'),
        ("2023-11-14T23:00:00Z,400,5", "line 2: has 3 values, not 2; write decimals with a point"),
        ('2023-11-14T23:00:00Z,"400,5"', 'line 2: "400,5" is no number; write decimals with a point'),
        ("2023-11-14T23:00:00Z", "line 2: has 1 values, not 2"),
        (
            "2023-11-14T23:00:00Z,1\n2023-11-14T22:00:00Z,2",
            "line 3: 2023-11-14T22:00:00Z is earlier than the row before; sort by time",
        ),
        (
            "2023-11-14T23:00:00Z,1\n2023-11-15T00:00:00+01:00,2",
            "line 3: 2023-11-15T00:00:00+01:00 repeats the time of the row before",
        ),
        ("", "has no rows under valid_from,gco2e_per_kwh"),
    ],
)
def test_a_row_that_cant_be_is_refused_with_its_line(rows: str, said: str, tmp_path: Path) -> None:
    text = refusal(write(tmp_path, HEAD + rows))
    assert text.startswith("s.csv")
    assert said in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the first line must be valid_from,gco2e_per_kwh"),
        (b"time,g\n", "the first line must be valid_from,gco2e_per_kwh (it is time,g)"),
        (b"valid_from;gco2e_per_kwh\n", "the first line must be"),
        (b"valid_from,pue\n", "the first line must be"),
        (HEAD.encode() + b'2023-11-14T23:00:00Z,"400\n', "not CSV text"),
        (b"\xff\xfe\x00", "not CSV text in UTF-8"),
        (HEAD.encode() + b"2023-11-14T23:00:00Z,4\x00\n", "s.csv"),
    ],
)
def test_what_is_no_series_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    assert said in refusal(write(tmp_path, content))


def test_a_file_that_isnt_there_or_is_a_folder_is_refused(tmp_path: Path) -> None:
    assert "can't be read: No such file" in refusal(tmp_path / "none.csv")
    assert "can't be read: Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize(("text", "fine"), [("1", True), ("1.58", True), ("20", True), ("0.99", False), ("21", False)])
def test_a_pue_is_at_least_1(text: str, fine: bool, tmp_path: Path) -> None:
    path = write(tmp_path, f"valid_from,pue\n2023-11-14T23:00:00Z,{text}\n")
    if fine:
        assert pues(path) == ((T, float(text)),)
    else:
        with pytest.raises(ConfigError, match="line 2: a PUE of"):
            pues(path)


def test_outside_of_its_rows_a_series_is_stale(tmp_path: Path) -> None:
    rows = "".join(f"{rfc3339(T + n * H)},{100 + n}\n" for n in (0, 1, 2, 10))
    feed = SeriesFeed(write(tmp_path, HEAD + rows), "lifecycle")
    timeline = in_force(feed.fetch(0, 0, 0).values, feed.about, fallback=None)
    seen = [
        (timeline.at(T + round(at * H)).gco2e_per_kwh, timeline.at(T + round(at * H)).quality)
        for at in (-0.1, 0, 2, 9.9, 10, 10.9, 11, 999)
    ]
    assert seen == [
        (100, "stale"),
        (100, "final"),
        (102, "final"),
        (102, "final"),
        (110, "final"),
        (110, "final"),
        (110, "stale"),
        (110, "stale"),
    ]


def test_a_single_row_holds_for_good(tmp_path: Path) -> None:
    feed = SeriesFeed(write(tmp_path, HEAD + "2023-11-14T23:00:00Z,400\n"), "lifecycle")
    timeline = in_force(feed.fetch(0, 0, 0).values, feed.about, fallback=None)
    assert timeline.at(T + 10**5 * H).quality == "final"


def test_of_a_long_series_what_is_near_is_taken(tmp_path: Path) -> None:
    rows = "".join(f"{rfc3339(T + n * H)},{100 + n}\n" for n in range(48))
    feed = SeriesFeed(write(tmp_path, HEAD + rows), "lifecycle")
    values = feed.fetch(T + 40 * H + 1, 0, 0).values
    assert [one.g_per_kwh for one in values] == [140 + n for n in range(8)]
    assert values[-1].valid_until_unix_ns == T + 48 * H


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "2023-11-14T23:00:00Z,400\n")
    feed = SeriesFeed(path, "lifecycle")
    first = feed.fetch(0, 0, 0)
    assert feed.fetch(0, 0, 1) is first
    write(tmp_path, HEAD + "2023-11-14T23:00:00Z,400\n2023-11-15T00:00:00Z,500\n")
    assert [one.g_per_kwh for one in feed.fetch(0, 0, 2).values] == [400, 500]
    write(tmp_path, HEAD + "2023-11-14T23:00:00Z,oops\n")
    with pytest.raises(Unanswered, match="line 2") as caught:
        feed.fetch(0, 0, 3)
    assert caught.value.reason == "series"
    path.unlink()
    with pytest.raises(Unanswered, match="No such file"):
        feed.fetch(0, 0, 4)


def test_a_pue_says_when_it_is_outside_of_its_rows(tmp_path: Path) -> None:
    feed = PueFeed(write(tmp_path, "valid_from,pue\n2023-11-14T23:00:00Z,1.2\n2023-11-15T00:00:00Z,1.3\n"))
    assert feed.outside(0) == ""
    feed.fetch()
    assert feed.outside(T) == feed.outside(T + 2 * H - 1) == ""
    assert "its first row, of 2023-11-14T23:00:00Z" in feed.outside(T - 1)
    assert "its last row, of 2023-11-15T00:00:00Z" in feed.outside(T + 2 * H)


@given(st.text(max_size=80), st.booleans())
def test_any_text_is_a_series_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, text: str, headed: bool) -> None:
    path = tmp_path_factory.mktemp("series") / "s.csv"
    path.write_text((HEAD if headed else "") + text, encoding="utf-8", errors="replace")
    try:
        assert intensities(path)
    except ConfigError as error:
        assert "s.csv" in str(error)
