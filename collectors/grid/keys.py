"""Keys of providers, from the environment or a file that only its owner may read; never shown nor logged.

Read at each question: they are exchanged now and then.
"""

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from wattribute.collectors.grid.feed import Unanswered

KEY_BYTES = 65536
_USABLE = re.compile(r"[!-~]+")


class Keys:
    """`variables` are the environment's names for what the lines of `key_file` hold; the file goes first."""

    def __init__(self, variables: tuple[str, ...], key_file: str, environment: Mapping[str, str]) -> None:
        self._variables = variables
        self._file = Path(key_file) if key_file else None
        self._environment = environment

    def read(self) -> tuple[str, ...]:
        """One key per variable. Raises Unanswered (`key`), with where one is missing and never what it is."""
        if self._file is not None:
            found = self._lines(self._file)
            where = f"provider.key_file {self._file}"
            fix = f"write it to the file, {' and '.join(self._variables)} in a line each"
        else:
            found = tuple(self._environment.get(name, "").strip() for name in self._variables)
            where = " or ".join(self._variables)
            fix = f"set {' and '.join(self._variables)}, or provider.key_file"
        if len(found) != len(self._variables) or not all(map(_USABLE.fullmatch, found)):
            raise Unanswered("key", f"no usable key in {where}", fix)
        return found

    def warning(self) -> str:
        """What is wrong with the file's mode, or ""."""
        if self._file is None:
            return ""
        try:
            mode = self._file.stat().st_mode
        except OSError:
            return ""
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            return f"provider.key_file {self._file} can be read by others than its owner. Fix: chmod 600 {self._file}"
        return ""

    def _lines(self, file: Path) -> tuple[str, ...]:
        try:
            with file.open("rb") as content:
                text = content.read(KEY_BYTES).decode("utf-8")
        except OSError as error:
            raise Unanswered(
                "key", f"provider.key_file {file}: {error.strerror}", "let the agent's user read it: chmod 600, chown"
            ) from None
        except UnicodeDecodeError:
            return ()  # its bytes stay out of the message
        return tuple(line.strip() for line in text.splitlines() if line.strip())
