"""Rows that are kept under few names, so that one more of them doesn't write all the others again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CHUNK_ROWS = 256


class Chunks:
    """Numbered rows of plain JSON values, in chunks named `prefix` and a number that is used again."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._chunks: dict[int, dict[int, Sequence[Any]]] = {}
        self._chunk_of: dict[int, int] = {}
        self._roomy: dict[int, None] = {}
        self._changed: set[int] = set()
        self._next = 0

    def add(self, row: Sequence[Any]) -> int:
        """Keep a row; its number."""
        number, self._next = self._next, self._next + 1
        chunk = next(iter(self._roomy), None)
        if chunk is None:
            chunk = len(self._chunks)
            self._chunks[chunk] = {}
            self._roomy[chunk] = None
        self._chunk_of[number] = chunk
        self.put(number, row)
        if len(self._chunks[chunk]) >= CHUNK_ROWS:
            del self._roomy[chunk]
        return number

    def put(self, number: int, row: Sequence[Any]) -> None:
        """Another row under a number."""
        chunk = self._chunk_of[number]
        self._chunks[chunk][number] = row
        self._changed.add(chunk)

    def drop(self, number: int) -> None:
        """A row that isn't needed any more."""
        chunk = self._chunk_of.pop(number)
        del self._chunks[chunk][number]
        self._roomy[chunk] = None
        self._changed.add(chunk)

    def changed(self) -> dict[str, Any]:
        """The chunks that changed since the last call, by name; [] for an empty one."""
        changed, self._changed = self._changed, set()
        return {
            f"{self._prefix}{chunk}": [[number, *row] for number, row in self._chunks[chunk].items()]
            for chunk in sorted(changed)
        }

    def restore(self, state: Mapping[str, Any]) -> Iterator[tuple[int, list[Any]]]:
        """Take in the last that `changed` gave under each name, and tell each row; other names are left alone."""
        chunks = {
            int(name.removeprefix(self._prefix)): rows for name, rows in state.items() if name.startswith(self._prefix)
        }
        for chunk in range(max(chunks, default=-1) + 1):
            rows = self._chunks[chunk] = {number: row for number, *row in chunks.get(chunk, ())}
            self._chunk_of |= dict.fromkeys(rows, chunk)
            if len(rows) < CHUNK_ROWS:
                self._roomy[chunk] = None
        self._next = max(self._chunk_of, default=-1) + 1
        for number, chunk in sorted(self._chunk_of.items()):
            yield number, list(self._chunks[chunk][number])
