"""A data sheet as Markdown: tables and sentences, which read as well in a terminal. Charts are HTML's."""

import re
from collections.abc import Iterator

from wattribute.exporters.report.blocks import Paragraph, Table
from wattribute.exporters.report.outline import outline, title
from wattribute.exporters.report.sheet import Sheet

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown(sheet: Sheet) -> str:
    """The whole sheet. Ids are escaped: what a user typed is shown as it is, and starts no markup."""
    return "\n".join(_lines(sheet)).rstrip() + "\n"


def _lines(sheet: Sheet) -> Iterator[str]:
    yield f"# {_escaped(title(sheet))}"
    for section in outline(sheet):
        yield ""
        yield f"## {_escaped(section.title)}"
        tables = sum(isinstance(block, Table) for block in section.blocks)
        for block in section.blocks:
            if isinstance(block, Paragraph):
                yield ""
                text = _escaped(block.text)
                yield f"**{text}**" if block.warning else text
            elif isinstance(block, Table):
                if tables > 1:
                    yield from ("", f"### {_escaped(block.title)}")
                yield from ("", *_table(block))


def _table(table: Table) -> Iterator[str]:
    rows = [table.header, *table.rows]
    cells = [[_escaped(cell) for cell in row] for row in rows]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(table.header))]
    for number, row in enumerate(cells):
        padded = [
            text.rjust(width) if column in table.numbers else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"| {' | '.join(padded)} |"
        if not number:
            rules = [
                "-" * (width - 1) + (":" if column in table.numbers else "-") for column, width in enumerate(widths)
            ]
            yield f"| {' | '.join(rules)} |"


def _escaped(text: str) -> str:
    text = "".join(_ENTITIES.get(char, char) for char in " ".join(text.split()))
    text = _SPECIAL.sub(r"\\\1", text)
    # An underscore or a caret within a word starts nothing, and is everywhere.
    return re.sub(r"(?<=\w)\\_(?=\w)", "_", text)


__all__ = ["markdown"]
