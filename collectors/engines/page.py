"""A page of metrics in Prometheus' text format or OpenMetrics, of which only the wanted series are read.

Our own few lines: prometheus_client's parser builds every family of the page, and costs the daemon its import.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field

_OPENING = re.compile(r"\s*\{\s*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,|(?=\}))')
_REST = re.compile(r"\s*([^\s_]+)(?:\s+-?[0-9.eE+-]+)?\s*(?:#.*)?$")  # a value, a time stamp, an exemplar
_ESCAPE = re.compile(r"\\(.)")
_PARTS = ("_total", "_sum", "_count")  # what a family's series may be called besides its own name

LINE_BYTES = 1 << 16
"""No line of a series is longer: a pattern would hold up all threads of the agent for as long as it looks at it."""
MOST = 1e18
"""No counter is larger: past it a float has no whole numbers to speak of."""
Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Page:
    """What a page says of the wanted names: by name the series' values by sorted labels.

    `declared` are the wanted names whose family is there, if without a series yet. `skipped` counts lines, and
    `doubtful` names, of which a line couldn't be read.
    """

    series: dict[str, dict[Labels, float]] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    skipped: int = 0


def read_page(body: bytes, wanted: Collection[str]) -> Page:
    """The wanted series of a page. A line that isn't one is skipped and counted, as is one whose value no counter has
    (NaN, Inf, below 0).
    """
    page = Page()
    families: dict[bytes, set[str]] = {}
    for name in wanted:
        for part in ("", *_PARTS):
            families.setdefault(name.removesuffix(part).encode(), set()).add(name)
    openings = tuple(name.encode() for name in wanted)
    for line in body.split(b"\n"):
        if line.startswith(openings):
            _take(page, line[: LINE_BYTES + 1].decode("utf-8", "replace").rstrip("\r"), wanted)
        elif line.startswith(b"# TYPE "):
            page.declared |= families.get(line[7:].partition(b" ")[0], set())
    return page


def _take(page: Page, line: str, wanted: Collection[str]) -> None:
    name = re.split(r"[{\s]", line, maxsplit=1)[0]
    if name not in wanted:
        return
    read = _read(line, len(name)) if len(line) <= LINE_BYTES else None
    if read is None:
        page.skipped += 1
        page.doubtful.add(name)
        return
    labels, value = read
    page.series.setdefault(name, {})[labels] = value


def _read(line: str, at: int) -> tuple[Labels, float] | None:
    labels: dict[str, str] = {}
    opening = _OPENING.match(line, at)
    if opening is not None:
        at = opening.end()
        while line[at : at + 1] != "}":
            label = _LABEL.match(line, at)
            if label is None:
                return None
            labels[label[1]] = _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], label[2])
            at = label.end()
        at += 1
    rest = _REST.match(line, at)
    if rest is None:
        return None
    try:
        value = float(rest[1])
    except ValueError:
        return None
    return (tuple(sorted(labels.items())), value) if 0 <= value <= MOST else None
