"""The ledger as JSON lines: one object per row, in UTF-8; the first ones are the heads of the chains."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from wattribute.agent.core.errors import LedgerError
from wattribute.exporters.ledger_rows import About, Export, Row, about_from, columns, flat, row_from


def write(out: IO[str], about: About, rows: Iterable[Row]) -> None:
    """Write an export. Raises OSError."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    for head in about.heads:
        record = {"record": "head", "chain": head.chain, "position": head.rows, "node_id": head.node_id}
        out.write(encode({**record, "hash": head.hash, "about": about.of(head)}) + "\n")
    names = [column.name for column in columns(about.table)]
    for row in rows:
        out.write(encode(dict(zip(names, flat(about.table, row), strict=True))) + "\n")


def read(path: str) -> Export:
    """Open an export. Raises LedgerError."""
    heads: list[Mapping[str, Any]] = []
    for _, record in _records(path):
        if record.get("record") != "head":
            break
        heads.append(record)
    about = about_from(path, heads, [head.get("about", {}) for head in heads])

    def rows() -> Iterator[Row]:
        for line, record in _records(path):
            if record.get("record") != "head":
                yield row_from(f"{path}, line {line}", about.table, record)

    return Export(path=path, about=about, rows=rows)


def _records(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise LedgerError(f"{path}, line {number}: not JSON ({error})") from error
                if not isinstance(record, dict):
                    raise LedgerError(f"{path}, line {number}: not a JSON object")
                yield number, record
    except UnicodeDecodeError as error:
        raise LedgerError(f"{path} isn't UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise LedgerError(f"{path} can't be read: {error.strerror}") from error
