"""The drawing of two cumulative costs: within its frame, whatever the figures, and safe to open."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.exporters.plots import BOTTOM, LEFT, RIGHT, TOP, Line, Plot, number, svg, text

amounts = st.one_of(st.just(0.0), st.floats(1e-30, 1e30))
three = st.tuples(amounts, amounts, amounts).map(lambda values: tuple(sorted(values)))
drawings = st.builds(
    Plot,
    title=st.text(max_size=20),
    unit=st.sampled_from(["g CO2e", "kWh"]),
    jobs=st.floats(1e-30, 1e60),
    reuse=st.builds(Line, name=st.text(max_size=20), upfront=three, per_job=three),
    scratch=st.builds(Line, name=st.text(max_size=20), upfront=three, per_job=three),
)


def plot(mark: float | None = 4.0) -> Plot:
    """8 and 1 per job against 0 and 3: level at 4 jobs."""
    reuse = Line(name="small", upfront=(7, 8, 9), per_job=(1, 1, 1))
    scratch = Line(name="large", upfront=(0, 0, 0), per_job=(3, 3, 3))
    return Plot(title="small against large", unit="kWh", jobs=8, reuse=reuse, scratch=scratch, mark=mark)


def test_in_plain_characters() -> None:
    assert text(plot(), width=30, height=7) == (
        "cumulative cost, kWh\n"
        "   |                      sss\n"
        "20 +                   sss\n"
        "   |              ssssxrrrrrr\n"
        "   |       rrrrxxxrrrr\n"
        "10 +rrrrrrxssss\n"
        "   |   sss\n"
        " 0 +sss\n"
        "   +-------------------------\n"
        "    0                  8 jobs\n"
        "r small (re-use)   s large (from scratch)   x level"
    )


def test_in_svg() -> None:
    root = ET.fromstring(svg(plot()))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}polygon")) == 1  # one has bounds
    assert [line.get("points") for line in root.findall(f"{space}polyline")] == [
        "84.0,245.3 700.0,150.7",
        "84.0,340.0 700.0,56.0",
    ]
    (dot,) = root.findall(f"{space}circle")
    assert (dot.get("cx"), dot.get("cy")) == ("392.0", "198.0")
    assert "4 jobs" in list(root.itertext())
    assert not ET.fromstring(svg(plot(mark=None))).findall(f"{space}circle")


@given(drawings)
def test_any_figures_stay_within_the_frame(drawing: Plot) -> None:
    space = "{http://www.w3.org/2000/svg}"
    for line in ET.fromstring(svg(drawing)).findall(f"{space}polyline"):
        for point in (line.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert LEFT <= x <= RIGHT
            assert TOP <= y <= BOTTOM
    assert len(text(drawing).splitlines()) >= 14 + 4


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (0.025, "0.025"), (16_800, "16,800"), (1234.5, "1,234"), (1e15, "1e+15"), (3, "3")]
)
def test_numbers_of_an_axis(value: float, shown: str) -> None:
    assert number(value) == shown
