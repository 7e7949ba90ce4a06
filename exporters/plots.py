"""Cumulative cost of two products over jobs, as a drawing: plain characters for a terminal, or SVG that needs no file
beside it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

LEFT, RIGHT, TOP, BOTTOM = 84, 700, 56, 340
COLOURS = ("#0072B2", "#D55E00")  # told apart by the colour-blind too (Okabe and Ito)
DASHES = ("", "7 4")
MARKS = "rs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A cost that starts at `upfront` and grows by `per_job` with each job; each is (low, central, high)."""

    name: str
    upfront: tuple[float, float, float]
    per_job: tuple[float, float, float]

    def at(self, jobs: float, bound: int = 1) -> float:
        """The cost after some jobs; bound 0 is low, 2 high."""
        return self.upfront[bound] + jobs * self.per_job[bound]

    @property
    def bounded(self) -> bool:
        """Whether it has any width."""
        return self.upfront[0] != self.upfront[2] or self.per_job[0] != self.per_job[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Two lines from no job to `jobs`. `mark`: where they meet, None: nowhere."""

    title: str
    unit: str
    jobs: float
    reuse: Line
    scratch: Line
    mark: float | None = None

    @property
    def lines(self) -> tuple[Line, Line]:
        """Re-use first."""
        return self.reuse, self.scratch

    @property
    def top(self) -> float:
        """The highest cost shown; 1 where all are nothing."""
        return max(line.at(self.jobs, 2) for line in self.lines) or 1.0


def text(plot: Plot, *, width: int = 80, height: int = 14) -> str:
    """The drawing in plain characters: r for re-use, s for from-scratch, x where they are level."""
    ticks = list(_ticks(plot.top, 4))
    margin = max(len(number(tick)) for tick in ticks)
    columns = max(width - margin - 3, 10)
    rows = [[" "] * columns for _ in range(height)]
    for column in range(columns):
        jobs = plot.jobs * column / (columns - 1)
        for line, mark in zip(plot.lines, MARKS, strict=True):
            row = _row(line.at(jobs), plot.top, height)
            rows[row][column] = mark if rows[row][column] == " " else "x"
    labels = {_row(tick, plot.top, height): number(tick) for tick in ticks}
    drawn = [
        f"{labels.get(row, '').rjust(margin)} {'+' if row in labels else '|'}{''.join(cells).rstrip()}"
        for row, cells in enumerate(rows)
    ]
    end = number(plot.jobs)
    axis = [" " * margin + " +" + "-" * columns, " " * (margin + 2) + "0" + end.rjust(columns - 1) + " jobs"]
    if len(axis[1]) > width:
        axis[1] = " " * (margin + 2) + "0" + (end + " jobs").rjust(columns - 1)
    key = f"{MARKS[0]} {plot.reuse.name} (re-use)   {MARKS[1]} {plot.scratch.name} (from scratch)   x level"
    return "\n".join([f"cumulative cost, {plot.unit}", *drawn, *axis, key])


def svg(plot: Plot) -> str:
    """The drawing as one SVG document: lines, their bounds as bands, and where they meet."""
    return "\n".join(["".join(_head(plot)), *_axes(plot), *_bands(plot), *_lines(plot), *_mark(plot), "</svg>", ""])


def number(value: float) -> str:
    """A number for an axis: 16,800; 0.025; 1.2e+15."""
    if value and not 1e-4 <= abs(value) < 1e12:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.4g}"


def _row(cost: float, top: float, height: int) -> int:
    return height - 1 - round(cost / top * (height - 1))


def _ticks(top: float, most: int) -> Iterator[float]:
    """Round steps from 0 to the top, `most` + 1 of them or fewer."""
    power = 10.0 ** floor(log10(top / most))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * most >= top * (1 - 1e-9))
    count = floor(top / step * (1 + 1e-9))
    return (step * i for i in range(count + 1))


def _x(plot: Plot, jobs: float) -> str:
    return f"{LEFT + (RIGHT - LEFT) * jobs / plot.jobs:.1f}"


def _y(plot: Plot, cost: float) -> str:
    return f"{BOTTOM - (BOTTOM - TOP) * cost / plot.top:.1f}"


def _head(plot: Plot) -> Iterator[str]:
    yield '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 420" role="img" '
    yield 'font-family="system-ui, sans-serif" font-size="13" fill="#222">\n'
    yield f"<title>{_safe(plot.title)}</title>\n"
    yield '<rect width="760" height="420" fill="#fff"/>\n'
    yield f'<text x="{LEFT}" y="24" font-size="15" font-weight="600">{_safe(plot.title)}</text>\n'
    yield f'<text x="{LEFT}" y="44" fill="#555">cumulative cost, {_safe(plot.unit)}</text>'


def _axes(plot: Plot) -> Iterator[str]:
    for tick in _ticks(plot.top, 5):
        y = _y(plot, tick)
        yield f'<line x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y}" text-anchor="end" dominant-baseline="middle">{number(tick)}</text>'
    for tick in _ticks(plot.jobs, 5):
        yield f'<text x="{_x(plot, tick)}" y="{BOTTOM + 20}" text-anchor="middle">{number(tick)}</text>'
    yield f'<line x1="{LEFT}" y1="{BOTTOM}" x2="{RIGHT}" y2="{BOTTOM}" stroke="#222"/>'
    yield f'<text x="{RIGHT}" y="{BOTTOM + 38}" text-anchor="end" fill="#555">jobs</text>'


def _points(plot: Plot, corners: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_x(plot, jobs)},{_y(plot, cost)}" for jobs, cost in corners)


def _bands(plot: Plot) -> Iterator[str]:
    for line, colour in zip(plot.lines, COLOURS, strict=True):
        if line.bounded:
            end = plot.jobs
            corners = [(0, line.at(0, 2)), (end, line.at(end, 2)), (end, line.at(end, 0)), (0, line.at(0, 0))]
            yield f'<polygon points="{_points(plot, corners)}" fill="{colour}" fill-opacity="0.15"/>'


def _lines(plot: Plot) -> Iterator[str]:
    parts = ("re-use", "from scratch")
    for row, (line, colour, dash, part) in enumerate(zip(plot.lines, COLOURS, DASHES, parts, strict=True)):
        stroke = f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash or "none"}"'
        points = _points(plot, [(0, line.at(0)), (plot.jobs, line.at(plot.jobs))])
        yield f'<polyline points="{points}" fill="none" {stroke}/>'
        y = 386 + 20 * row
        yield f'<line x1="{LEFT}" y1="{y}" x2="{LEFT + 28}" y2="{y}" {stroke}/>'
        label = f"{line.name} ({part})"
        yield f'<text x="{LEFT + 36}" y="{y}" dominant-baseline="middle">{_safe(label)}</text>'


def _mark(plot: Plot) -> Iterator[str]:
    if plot.mark is not None and plot.mark <= plot.jobs:
        x, y = _x(plot, plot.mark), _y(plot, plot.reuse.at(plot.mark))
        yield f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{BOTTOM}" stroke="#555" stroke-dasharray="2 3"/>'
        yield f'<circle cx="{x}" cy="{y}" r="4.5" fill="#222"/>'
        yield f'<text x="{float(x) + 8:.1f}" y="{BOTTOM - 12}">{number(plot.mark)} jobs</text>'


def _safe(words: str) -> str:
    """Text that XML can hold: no markup, no control characters."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words))
