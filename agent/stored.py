"""The receipts that processes without a daemon leave in the user's state directory: one file a job and process.

A file's name is a digest, never made from the job's name. Files are replaced whole and readable by their owner only.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wattribute.agent.receipts import SCHEMA

_log = logging.getLogger("wattribute")
_FOLDER = "receipts"
_FILE_BYTES = 1 << 20
_DIGITS = 32
_NAME = re.compile(r"[0-9a-f]{32}\.json")
QUIET_NS = 120 * 10**9
"""A running process writes each 30 s: one that hasn't for so long is gone."""
GONE = "its process went away without a word: what it used after this isn't known"


def write_atomic(path: Path, text: str, mode: int) -> None:
    """Writes a file so that whoever reads it sees the old one or the new one, never a half. Raises OSError."""
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class ReceiptFiles:
    """Where one process keeps its receipts. `process` tells it from every other one, on every machine."""

    def __init__(self, state_dir: Path | None, process: str) -> None:
        self._folder = None if state_dir is None else state_dir / _FOLDER
        self._process = process
        self._warned = False

    def save(self, receipt: Mapping[str, Any]) -> bool:
        """Writes one receipt; where that can't be done, says so once and goes on."""
        try:
            if self._folder is None:
                raise FileNotFoundError("no home directory; set XDG_STATE_HOME")
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # By its start, too: an id that comes back after the process has let go of it is another part.
            key = "\0".join((receipt["job_id"], self._process, str(receipt["started_at"])))
            name = hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]
            write_atomic(self._folder / f"{name}.json", json.dumps(receipt) + "\n", 0o600)
        except OSError as error:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "receipts can't be stored in %s: %s. Fix: set WATTRIBUTE_AGENT__STATE_DIR to a directory you own",
                    self._folder or "the state directory",
                    error.strerror or error,
                )
            return False
        return True


def stored(state_dirs: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Every part that processes have left in these state directories; what isn't a receipt is passed over.

    A process that was killed couldn't tell its end: such a part ends where it was last written, and notes it.
    """
    for folder in dict.fromkeys(state_dir / _FOLDER for state_dir in state_dirs):
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))  # noqa: PTH208
        except OSError:
            continue
        for name in names:
            part = read_part(folder / name)
            if part is not None:
                yield part if part.get("ended_at") else _gone(part, folder / name)


def _gone(part: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        written_unix_ns = path.stat().st_mtime_ns
    except OSError:
        return part
    if time.time_ns() - written_unix_ns < QUIET_NS:
        return part
    from wattribute.agent.core.receipt import rfc3339

    return {**part, "ended_at": rfc3339(written_unix_ns), "notes": [*part.get("notes", ()), GONE]}


def files(state_dir: Path) -> Iterator[tuple[str, int, Path]]:
    """The files that receipts are kept in: the name that tells one from every other, when it was written (Unix ns)."""
    try:
        with os.scandir(state_dir / _FOLDER) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with contextlib.suppress(OSError):
                        yield entry.name[:_DIGITS], entry.stat(follow_symlinks=False).st_mtime_ns, Path(entry.path)
    except OSError:
        return


def read_part(path: Path) -> dict[str, Any] | None:
    """One part; None for what isn't a receipt."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe would be waited for
    try:
        with open(os.open(path, flags), "rb") as file:
            part = json.loads(file.read(_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(part, dict) and part.get("schema") == SCHEMA and isinstance(part.get("job_id"), str)
    return part if known else None


__all__ = ["GONE", "QUIET_NS", "ReceiptFiles", "files", "read_part", "stored", "write_atomic"]
