"""The tables of names in an account file, tenants and units: a name keeps its place, so a row needs none."""

import mmap
from collections.abc import Callable, Sequence

from wattribute.agent.meter import layout


class Names:
    """One table. Any worker adds to it, under the lock that `locked` takes for the time of a call.

    `first` are names that have their places without standing there.
    """

    def __init__(
        self,
        buffer: mmap.mmap,
        start: int,
        room: int,
        locked: Callable[[Callable[[], int]], int],
        first: Sequence[str] = (),
    ) -> None:
        self._buffer = buffer
        self._start = start
        self._room = room
        self._locked = locked
        self._names = list(first)
        self._first = len(self._names)
        self._places = {name: at for at, name in enumerate(self._names)}

    def all(self) -> list[str]:
        """The names so far, in their places."""
        self._read()
        return self._names

    def place(self, name: str, limit: int) -> int:
        """Where a name stands, added where it wasn't; -1 where `limit` names are there, or nothing may be added now."""
        found = self._places.get(name)
        if found is None:
            self._read()
            found = self._places.get(name)
        if found is None and len(self._names) < min(limit, self._room):
            found = self._locked(lambda: self._add(name, limit))
        return -1 if found is None else found

    def _add(self, name: str, limit: int) -> int:
        self._read()
        at = self._places.get(name, len(self._names))
        if at == len(self._names):
            if at >= min(limit, self._room):
                return -1
            text = name.encode("utf-8")
            start = self._start + layout.WORD + (at - self._first) * layout.NAME_STRIDE
            self._buffer[start + layout.WORD : start + layout.WORD + len(text)] = text
            self._buffer[start : start + layout.WORD] = len(text).to_bytes(8, "little")
            self._buffer[self._start : self._start + layout.WORD] = (at + 1 - self._first).to_bytes(8, "little")
            self._read()
        return at

    def _read(self) -> None:
        stored = int.from_bytes(self._buffer[self._start : self._start + layout.WORD], "little")
        for at in range(len(self._names) - self._first, min(stored, self._room - self._first)):
            start = self._start + layout.WORD + at * layout.NAME_STRIDE
            length = int.from_bytes(self._buffer[start : start + layout.WORD], "little")
            text = self._buffer[start + layout.WORD : start + layout.WORD + min(length, layout.NAME_BYTES)]
            name = text.decode("utf-8", "replace")
            self._places.setdefault(name, len(self._names))
            self._names.append(name)


__all__ = ["Names"]
