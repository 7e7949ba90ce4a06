"""The ledger as Parquet (the extra `parquet`): typed columns with what they say, the heads in the file's metadata."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from wattribute.agent.core.errors import LedgerError
from wattribute.exporters.ledger_rows import About, Column, Export, Row, about_from, columns, flat, row_from

ROWS_AT_ONCE = 20_000
"""Rows per group: about 10 MB in memory at once."""
KEY = b"wattribute"
_MISSING = "Parquet needs pyarrow. Fix: pip install 'wattribute[parquet]'"


def write(path: str, about: About, rows: Iterable[Row]) -> None:
    """Write an export. Raises LedgerError without pyarrow, OSError."""
    pyarrow, parquet = _library()
    every = columns(about.table)
    heads = [
        {
            "chain": head.chain,
            "position": head.rows,
            "node_id": head.node_id,
            "hash": head.hash,
            "about": about.of(head),
        }
        for head in about.heads
    ]
    schema = pyarrow.schema([_field(pyarrow, column) for column in every], metadata={KEY: json.dumps(heads).encode()})
    left = iter(rows)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while some := list(islice(left, ROWS_AT_ONCE)):
            by_column = zip(*(flat(about.table, row) for row in some), strict=True)
            arrays = [pyarrow.array(values, type=field.type) for values, field in zip(by_column, schema, strict=True)]
            writer.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=schema))


def read(path: str) -> Export:
    """Open an export. Raises LedgerError."""
    pyarrow, parquet = _library()
    try:
        with parquet.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
        heads: list[Mapping[str, Any]] = json.loads(metadata.get(KEY, b"[]"))
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise LedgerError(f"{path} can't be read as Parquet: {error}") from error
    about = about_from(path, heads, [head.get("about", {}) for head in heads])

    def rows() -> Iterator[Row]:
        number = 0
        try:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                    for record in batch.to_pylist():
                        number += 1
                        yield row_from(f"{path}, row {number}", about.table, record)
        except (OSError, pyarrow.ArrowException) as error:
            raise LedgerError(f"{path} can't be read as Parquet: {error}") from error

    return Export(path=path, about=about, rows=rows)


def _field(pyarrow: Any, column: Column) -> Any:
    kind = pyarrow.string() if column.kind == "text" else pyarrow.int64()
    return pyarrow.field(column.name, kind, nullable=column.kind == "maybe", metadata={"description": column.says})


def _library() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise LedgerError(_MISSING) from error
    return pyarrow, pyarrow.parquet
