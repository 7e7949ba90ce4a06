"""The ledger as CSV (RFC 4180, UTF-8, a header line); the first records are the heads of the chains.

Spreadsheets take a text that begins with = + - @ for a formula: such a text gets a ' in front, which reading takes off.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from wattribute.agent.core.errors import LedgerError
from wattribute.exporters.ledger_rows import ABOUT, About, Column, Export, Row, about_from, columns, flat, row_from

# What a spreadsheet may take for a formula (OWASP, "CSV Injection"), also behind quotes that are there already.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_QUOTED = re.compile(r"'+[=+\-@\t\r\n]")
LONGEST_FIELD = 1 << 27


def guarded(text: str) -> str:
    """A text that no spreadsheet carries out."""
    return "'" + text if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text[1:] if _QUOTED.match(text) else text


def write(out: IO[str], about: About, rows: Iterable[Row]) -> None:
    """Write an export to a file that was opened with newline="". Raises OSError."""
    every = (*columns(about.table), ABOUT)
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([column.name for column in every])
    for head in about.heads:
        known = {
            "record": "head",
            "chain": head.chain,
            "position": head.rows,
            "node_id": guarded(head.node_id),
            "hash": head.hash,
            "about": json.dumps(about.of(head), separators=(",", ":")),
        }
        # 0 in numbers that a head has none of, so that the column's type stays.
        writer.writerow([known.get(column.name, 0 if column.kind == "integer" else "") for column in every])
    texts = [place for place, column in enumerate(every[:-1]) if column.kind == "text"]
    for row in rows:
        values = list(flat(about.table, row))
        for place in texts:
            if _FORMULA.match(values[place]):
                values[place] = "'" + values[place]
        writer.writerow([*values, ""])


def read(path: str) -> Export:
    """Open an export. Raises LedgerError."""
    heads = []
    for where, fields in _records(path):
        if fields.get("record") != "head":
            break
        heads.append({**fields, **_integers(where, fields, ("chain", "position"))})
        heads[-1]["node_id"] = unguarded(fields.get("node_id") or "")
    about = about_from(path, heads, [_json(head.get("about")) for head in heads])
    every = columns(about.table)

    def rows() -> Iterator[Row]:
        for where, fields in _records(path):
            if fields.get("record") != "head":
                yield row_from(where, about.table, {column.name: _value(where, column, fields) for column in every})

    return Export(path=path, about=about, rows=rows)


def _records(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(LONGEST_FIELD)
    try:
        with open(path, encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            names = next(reader, [])
            for fields in reader:
                if not fields:
                    continue
                where = f"{path}, line {reader.line_num}"
                if len(fields) != len(names):
                    raise LedgerError(f"{where}: {len(fields)} fields, and the header has {len(names)}")
                yield where, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise LedgerError(f"{path}, line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise LedgerError(f"{path} isn't UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise LedgerError(f"{path} can't be read: {error.strerror}") from error


def _value(where: str, column: Column, fields: Mapping[str, str]) -> str | int | None:
    text = fields.get(column.name)
    if text is None:
        return None
    if column.kind == "text":
        return unguarded(text)
    if column.kind == "maybe" and not text:
        return None
    return _integers(where, fields, (column.name,))[column.name]


def _integers(where: str, fields: Mapping[str, str], names: Iterable[str]) -> dict[str, int]:
    found = {}
    for name in names:
        text = fields.get(name, "")
        if not re.fullmatch(r"-?[0-9]{1,19}", text):
            spoilt = " (a spreadsheet has rounded it)" if re.search(r"[eE][+-]?[0-9]", text) else ""
            raise LedgerError(f"{where}, column {name}: {text!r} isn't an integer{spoilt}")
        found[name] = int(text)
    return found


def _json(text: object) -> Mapping[str, Any]:
    try:
        said = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
