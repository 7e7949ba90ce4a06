"""What a provider last said, kept in state_dir/intensity-cache.json, so that a restart begins with it.

Written whole to another name and renamed. A cache of another provider, zone or kind of factor isn't used.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wattribute.agent.core.intensity import About, Reported
from wattribute.collectors.grid.feed import Unanswered, screened
from wattribute.collectors.grid.shapes import Cached, decoded, encoded

NAME = "intensity-cache.json"
MOST_BYTES = 4 * 2**20


def key_of(about: About) -> str:
    """Whose answers a cache holds."""
    return " | ".join((about.provider, about.zone, about.method, about.source))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was kept: since when this source has been in use, and what it said."""

    since_unix_ns: int
    values: tuple[Reported, ...] = ()
    pues: tuple[tuple[int, float], ...] = ()


class Cache:
    """The file of one source."""

    def __init__(self, state_dir: Path, about: About) -> None:
        self.path = state_dir / NAME
        self._key = key_of(about)

    def read(self, now_unix_ns: int) -> Kept:
        """What was kept for this source; nothing where there is none. Raises Unanswered for a file that is damaged."""
        try:
            with self.path.open("rb") as file:
                content = file.read(MOST_BYTES)
        except FileNotFoundError:
            return Kept(since_unix_ns=now_unix_ns)
        except OSError as error:
            raise Unanswered("cache", f"{self.path}: can't be read: {error.strerror}") from None
        try:
            cached = decoded(content, Cached)
            values = tuple(Reported(*value) for value in cached.values)
            if cached.key != self._key:
                return Kept(since_unix_ns=now_unix_ns)
            if values:
                values = tuple(screened(values, now_unix_ns).values)
        except Unanswered as error:
            raise Unanswered(
                "cache", f"{self.path} isn't used: {error.cause}", f"none needed: it is written anew. Or rm {self.path}"
            ) from None
        return Kept(
            since_unix_ns=min(cached.since_unix_ns, now_unix_ns),
            values=values,
            pues=tuple((start, pue) for start, pue in cached.pues if pue >= 1),
        )

    def write(self, since_unix_ns: int, values: Sequence[Reported], pues: Sequence[tuple[int, float]]) -> None:
        """Keep it. Raises Unanswered where it can't be written: nothing but a restart needs it."""
        cached = Cached(schema=1, key=self._key, since_unix_ns=since_unix_ns, values=list(values), pues=list(pues))
        there = self.path.with_name(f"{NAME}.{os.getpid()}.new")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW  # its name can be guessed
            with open(os.open(there, flags, 0o644), "wb") as file:
                file.write(encoded(cached))
            there.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                there.unlink()
            raise Unanswered("cache", f"{self.path}: can't be written: {error.strerror}", "check the disk") from None
