"""Charts as inline SVG. Widths are percentages, so that text keeps its size on a phone; colours are the page's classes.

Positions are floats: a chart shows, the table beside it says.
"""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from wattribute.exporters.report.blocks import Bars, Curve, Graph, Stack, Step
from wattribute.exporters.report.exact import mass
from wattribute.exporters.report.words import moment

ROW, BAR = 48, 16  # pixels: a line of text with its bar, and the bar


def stack(chart: Stack, label: str) -> str:
    """A waterfall: each term begins where the last one ended; its line spans its bounds from there."""
    placed, begin, top = [], 0, 1
    for step in chart.steps:
        placed.append((step, begin))
        top = max(top, begin + (step.bounds.high if step.bounds else step.value))
        begin += max(0, step.value)
    top = max(top, chart.total.bounds.high if chart.total.bounds else begin)
    body: list[str] = []
    for number, (step, begin) in enumerate(placed):
        body += _labels(number * ROW, step.name, step.text)
        body.append(_bar(number * ROW, begin, step, top))
        body += _whisker(number * ROW, begin, step, top)
    last = len(placed) * ROW
    body += _labels(last, chart.total.name, chart.total.text, "sum")
    body += [_bar(last, begin, step, top) for step, begin in placed]
    body += _whisker(last, 0, chart.total, top)
    return _svg(label, chart.title, last + ROW, body)


def bars(chart: Bars, label: str) -> str:
    """One bar a row, of parts that stand one after the other."""
    top = max(1, *(sum(max(0, step.value) for step in steps) for _, _, steps in chart.rows), 1)
    body: list[str] = []
    for number, (name, text, steps) in enumerate(chart.rows):
        body += _labels(number * ROW, name, text)
        begin = 0
        for step in steps:
            body.append(_bar(number * ROW, begin, step, top))
            begin += max(0, step.value)
    return _svg(label, chart.title, len(chart.rows) * ROW, body)


def curve(chart: Curve, label: str) -> str:
    """A stepless line of what was recovered, and a dashed one of what was expected."""
    ends = [at for at, _ in (*chart.points, *chart.expected)]
    first, last = min(ends), max(ends)
    top = max(1, *(value for _, value in (*chart.points, *chart.expected)))

    def path(points: Iterable[tuple[int, int]]) -> str:
        placed = (
            f"{1000 * (at - first) / max(1, last - first):.2f},{300 - 300 * max(0, value) / top:.2f}"
            for at, value in points
        )
        return "M" + "L".join(placed)

    at, value = chart.points[-1]
    x, y = 100 * (at - first) / max(1, last - first), 24 + 240 * (1 - max(0, value) / top)
    anchor = "end" if x > 50 else "start"
    body = [
        f'<text x="0" y="14" class="dim">{escape(mass(top))} CO2e</text>',
        '<svg x="0" y="24" width="100%" height="240" viewBox="0 0 1000 300" preserveAspectRatio="none">'
        '<path class="axis" d="M0,0L0,300L1000,300"/>'
        f'<path class="line expected" d="{path(chart.expected)}"/><path class="line" d="{path(chart.points)}"/></svg>',
        f'<circle class="dot" cx="{x:.2f}%" cy="{y:.1f}" r="4"/>',
        f'<text x="{x:.2f}%" y="{max(30, y - 10):.1f}" text-anchor="{anchor}">{escape(mass(value))} recovered</text>',
        f'<text x="0" y="282" class="dim">{escape(moment(first)[:10])}</text>',
        f'<text x="100%" y="282" class="dim" text-anchor="end">{escape(moment(last)[:10])}</text>',
    ]
    return _svg(label, chart.title, 290, body)


WIDE, HIGH, ACROSS, DOWN = 168, 50, 96, 20  # pixels: a product's box, and the room between layers and rows


def graph(chart: Graph, label: str) -> str:
    """A layered graph, ancestors at the left; it keeps its size, and scrolls where it is wider than the page."""
    depth = max((node.depth for node in chart.lineage.nodes), default=0)
    layers: dict[int, list[str]] = {}
    for node in chart.lineage.nodes:
        layers.setdefault(depth - node.depth, []).append(node.id)
    _untangle(layers, [(edge.parent, edge.child) for edge in chart.lineage.edges])
    tallest = max(map(len, layers.values()))
    width = len(layers) * WIDE + (len(layers) - 1) * ACROSS
    height = tallest * (HIGH + DOWN) - DOWN
    place: dict[str, tuple[float, float]] = {}
    for layer, ids in layers.items():
        top = (height - (len(ids) * (HIGH + DOWN) - DOWN)) / 2
        for row, product_id in enumerate(ids):
            place[product_id] = 1 + layer * (WIDE + ACROSS), 1 + top + row * (HIGH + DOWN)
    body = [
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="tip" d="M0,0L8,4L0,8z"/></marker></defs>'
    ]
    weights = []
    for edge in chart.lineage.edges:
        (x1, y1), (x2, y2) = place[edge.parent], place[edge.child]
        x1, y1, y2 = x1 + WIDE, y1 + HIGH / 2, y2 + HIGH / 2
        bend = (x1 + x2) / 2
        body.append(
            f'<path class="link" marker-end="url(#tip)" '
            f'd="M{x1:g},{y1:g}C{bend:g},{y1:g} {bend:g},{y2:g} {x2:g},{y2:g}"/>'
        )
        # At 0.3 of the curve: nearer to the parent, where lines that meet at a child are still apart.
        x, y = 0.343 * x1 + 0.63 * bend + 0.027 * x2, 0.784 * y1 + 0.216 * y2
        weights.append(
            f'<text class="weight" x="{x:g}" y="{y + 4:g}" text-anchor="middle">{float(edge.weight):.3g}</text>'
        )
    body += weights  # over all lines
    for node in chart.lineage.nodes:
        x, y = place[node.id]
        known = "EPC unknown" if node.epc is None else mass(node.epc.central) + " CO2e"
        kind = "not registered" if node.kind == "undeclared" else node.kind
        classes = "box" + (" own" if node.id == chart.product_id else "") + (" missing" if node.epc is None else "")
        body.append(
            f"<g><title>{escape(f'{node.id}: {kind}, {known}')}</title>"
            f'<rect class="{classes}" x="{x:g}" y="{y:g}" width="{WIDE - 2}" height="{HIGH - 2}" rx="4"/>'
            f'<text x="{x + 10:g}" y="{y + 20:g}">{escape(_short(node.id))}</text>'
            f'<text class="dim" x="{x + 10:g}" y="{y + 39:g}">{escape(known)}</text></g>'
        )
    return _svg(label, chart.title, height, body, width=width)


def _untangle(layers: dict[int, list[str]], links: Sequence[tuple[str, str]]) -> None:
    """Order each layer by where its neighbours stand (the barycentre of Sugiyama's method), a few times over."""
    near: dict[str, list[str]] = {}
    for parent, child in links:
        near.setdefault(parent, []).append(child)
        near.setdefault(child, []).append(parent)
    for turn in range(4):
        row = {one: (place + 0.5) / len(ids) for ids in layers.values() for place, one in enumerate(ids)}
        for layer in sorted(layers, reverse=bool(turn % 2)):

            def centre(one: str, row: dict[str, float] = row) -> float:
                beside = [row[other] for other in near.get(one, ())]
                return sum(beside) / len(beside) if beside else row[one]

            layers[layer].sort(key=centre)
            row.update({one: (place + 0.5) / len(layers[layer]) for place, one in enumerate(layers[layer])})


def _short(text: str, most: int = 20) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _labels(y: int, name: str, text: str, kind: str = "") -> Iterator[str]:
    classes = f' class="{kind}"' if kind else ""
    yield f'<text x="0" y="{y + 16}"{classes}>{escape(name)}</text>'
    yield f'<text x="100%" y="{y + 16}" text-anchor="end"{classes}>{escape(text)}</text>'


def _bar(y: int, begin: int, step: Step, top: int) -> str:
    x, width = 100 * begin / top, 100 * max(0, step.value) / top
    title = f"<title>{escape(f'{step.name}: {step.text}')}</title>"
    place = f'x="{x:.3f}%" y="{y + 22}" width="{width:.3f}%" height="{BAR}"'
    return f'<rect class="bar c-{step.colour}" {place}>{title}</rect>'


def _whisker(y: int, begin: int, step: Step, top: int) -> Iterator[str]:
    if step.bounds is None or step.bounds.low == step.bounds.high:
        return
    left, right = (100 * max(0, begin + end) / top for end in (step.bounds.low, step.bounds.high))
    middle = y + 22 + BAR // 2
    yield f'<line class="whisker" x1="{left:.3f}%" x2="{right:.3f}%" y1="{middle}" y2="{middle}"/>'
    for x in (left, right):
        yield f'<line class="whisker" x1="{x:.3f}%" x2="{x:.3f}%" y1="{middle - 5}" y2="{middle + 5}"/>'


def _svg(label: str, title: str, height: float, body: Iterable[str], width: int | None = None) -> str:
    across = "100%" if width is None else str(width)
    return (
        f'<svg role="img" aria-labelledby="{label}" width="{across}" height="{height:g}"><title id="{label}">'
        f"{escape(title)}. The table beside it says the same.</title>{''.join(body)}</svg>"
    )


__all__ = ["bars", "curve", "graph", "stack"]
