"""A data sheet as one HTML file that fetches nothing: style and charts are in it. Light, dark, narrow and printed."""

from collections.abc import Iterator
from html import escape

from wattribute.exporters.report import svg
from wattribute.exporters.report.blocks import Bars, Block, Curve, Graph, Paragraph, Stack, Table
from wattribute.exporters.report.outline import outline, title
from wattribute.exporters.report.sheet import Sheet

_STYLE = """
:root{--ink:#1b1f24;--dim:#57606a;--paper:#fff;--rule:#d0d7de;--soft:#f6f8fa;--warn:#9a3412;--warnbg:#fff7ed;
--operation:#0072b2;--cooling:#56b4e9;--platform:#009e73;--retraining:#cc79a7;--hardware:#e69f00;
--overhead_hardware:#8c6d1f;--product:#d55e00}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9198a1;--paper:#0d1117;--rule:#30363d;--soft:#161b22;
--warn:#fdba74;--warnbg:#2a1a0e;--operation:#2b86cc;--cooling:#9ad7f5;--overhead_hardware:#b99a4b}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;color:var(--ink);
background:var(--paper)}
h1{font-size:1.5rem;line-height:1.3;overflow-wrap:anywhere}h2{font-size:1.2rem;margin:2rem 0 .5rem;
border-bottom:1px solid var(--rule);padding-bottom:.25rem}
figure{margin:1rem 0}figcaption,caption{font-weight:600;text-align:left;padding:.25rem 0}
.wide{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
tbody th{font-weight:400}td,tbody th{overflow-wrap:break-word;max-width:20rem}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}thead .n{white-space:normal}
table.facts th{color:var(--dim);width:11rem}table.facts{width:auto}table.facts td{max-width:none;overflow-wrap:anywhere}
.warning{border-left:4px solid var(--warn);background:var(--warnbg);padding:.5rem .75rem}
svg{display:block;max-width:none;overflow:visible}svg text{font:14px system-ui,sans-serif;fill:var(--ink)}
svg text.dim{fill:var(--dim)}svg text.sum{font-weight:600}svg text.weight{font-size:12px;paint-order:stroke;
stroke:var(--paper);stroke-width:4px}
.bar{stroke:var(--paper);stroke-width:1}.whisker{stroke:var(--ink);stroke-width:1.5}
.axis{fill:none;stroke:var(--rule);vector-effect:non-scaling-stroke}.line{fill:none;stroke:var(--operation);
stroke-width:2.5;vector-effect:non-scaling-stroke}.line.expected{stroke:var(--dim);stroke-dasharray:6 5;
stroke-width:1.5}.dot{fill:var(--operation)}
.box{fill:var(--soft);stroke:var(--rule);stroke-width:1.5}.box.own{stroke:var(--operation);stroke-width:2.5}
.box.missing{stroke:var(--warn);stroke-dasharray:5 4}.link{fill:none;stroke:var(--dim);stroke-width:1.5}
.tip{fill:var(--dim)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0;margin:.25rem 0}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}
.c-operation,.c-one,.c-direct{fill:var(--operation);background:var(--operation)}
.c-cooling,.c-idle{fill:var(--cooling);background:var(--cooling)}
.c-platform{fill:var(--platform);background:var(--platform)}
.c-retraining{fill:var(--retraining);background:var(--retraining)}
.c-hardware,.c-overhead{fill:var(--hardware);background:var(--hardware)}
.c-overhead_hardware{fill:var(--overhead_hardware);background:var(--overhead_hardware)}
.c-product{fill:var(--product);background:var(--product)}
@media(max-width:40rem){table.facts th{width:7rem}td:not(.n){min-width:9rem}}
@media print{body{max-width:none;padding:0;font-size:11pt}:root{--ink:#000;--paper:#fff;--rule:#bbb;--dim:#444;
--soft:#fff;--warn:#7c2d12;--warnbg:#fff}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
figure,tr,.warning{break-inside:avoid}h2,caption{break-after:avoid}.wide{overflow:visible}}
"""


def html(sheet: Sheet) -> str:
    """The whole sheet. Every text is escaped: ids are what users typed."""
    return "".join(_page(sheet))


def _page(sheet: Sheet) -> Iterator[str]:
    name = escape(title(sheet))
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    # What the page says of itself holds even where a bug let markup through: it can fetch and run nothing.
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">\n<meta name="color-scheme" '
    yield f'content="light dark">\n<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n'
    yield f"<h1><bdi>{name}</bdi></h1>\n"
    for number, section in enumerate(outline(sheet)):
        yield f'<section aria-labelledby="s{number}">\n<h2 id="s{number}">{escape(section.title)}</h2>\n'
        for place, block in enumerate(section.blocks):
            yield from _block(block, f"c{number}-{place}")
        yield "</section>\n"
    yield "</main>\n</body>\n</html>\n"


def _block(block: Block, label: str) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield f'<p class="warning">{escape(block.text)}</p>\n' if block.warning else f"<p>{escape(block.text)}</p>\n"
    elif isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Stack):
        known = any(step.bounds for step in block.steps)
        note = " A line spans from a term's low to its high bound." if known else ""
        yield from _figure(block.title + "." + note, svg.stack(block, label))
    elif isinstance(block, Bars):
        yield from _figure(block.title, svg.bars(block, label), block.legend)
    elif isinstance(block, Graph):
        yield from _figure(f"{block.title}: on each line, which part of the EPC is inherited", svg.graph(block, label))
    elif isinstance(block, Curve):
        yield from _figure(
            f"{block.title}: dashed, what was expected up to {block.whole_text}", svg.curve(block, label)
        )


def _figure(caption: str, chart: str, legend: tuple[tuple[str, str], ...] = ()) -> Iterator[str]:
    yield f'<figure><figcaption>{escape(caption)}</figcaption><div class="wide" tabindex="0">{chart}</div>'
    if legend:
        items = "".join(f'<li><i class="c-{colour}"></i>{escape(name)}</li>' for name, colour in legend)
        yield f'<ul class="legend">{items}</ul>'
    yield "</figure>\n"


def _table(table: Table) -> Iterator[str]:
    facts = not any(table.header)
    yield f'<div class="wide" tabindex="0"><table{" class=facts" if facts else ""}>'
    yield "" if facts else f"<caption>{escape(table.title)}</caption><thead><tr>"
    if not facts:
        for column, text in enumerate(table.header):
            yield f'<th scope="col"{_number(table, column)}>{escape(text)}</th>'
        yield "</tr></thead>"
    yield "<tbody>"
    for row in table.rows:
        # bdi: an id in a right-to-left script, or with an override in it, stays in its own cell.
        yield f'<tr><th scope="row"{_number(table, 0)}><bdi>{escape(row[0])}</bdi></th>'
        for column, text in enumerate(row[1:], 1):
            yield f"<td{_number(table, column)}><bdi>{escape(text)}</bdi></td>"
        yield "</tr>"
    yield "</tbody></table></div>\n"


def _number(table: Table, column: int) -> str:
    return ' class="n"' if column in table.numbers else ""


__all__ = ["html"]
