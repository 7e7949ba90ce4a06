"""emissions.csv as CodeCarbon keeps it: rows are appended, or the run's own row is replaced (`on_csv_write`)."""

import contextlib
import csv
import io
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

LOCK_S = 2.0
_NUMBER = re.compile(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?")


def write_row(path: Path, row: Mapping[str, Any], *, update: bool) -> None:
    """Adds one run. A file with other columns is moved to `NAME.bak` first, a second one to `NAME_0.bak`, and so on.

    With `update` the run's row, if there is one, is replaced. Raises OSError.
    """
    with _alone_in(path.parent):
        _write_row(path, row, update=update)


def _write_row(path: Path, row: Mapping[str, Any], *, update: bool) -> None:
    header = _header(path)
    if header is not None and sorted(header) != sorted(row):
        path.rename(_free_backup(path))
        header = None
    if header is None:
        _write(path, list(row), [row])
    elif update:
        with path.open(newline="", encoding="utf-8") as lines:
            kept = [old for old in csv.DictReader(lines) if old["run_id"] != row["run_id"]]
        _write(path, header, [*kept, row])
    else:
        text = _text(header, [row], head=False)
        with path.open("rb") as before:  # a row that was cut off, or an editor's, may have left no line end
            before.seek(-1, os.SEEK_END)
            begun = before.read() != b"\n"
        with path.open("a", newline="", encoding="utf-8") as out:
            out.write("\n" + text if begun else text)


def write_tasks(path: Path, rows: list[dict[str, Any]]) -> None:
    """The tasks of one run, a row each. Raises OSError."""
    _write(path, list(rows[0]), rows)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Ranks that end together write one file. Who gets no lock (some network file systems) writes all the same."""
    try:
        import fcntl

        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (ImportError, OSError):
        yield
        return
    until_s = time.monotonic() + LOCK_S
    try:
        while time.monotonic() < until_s:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        yield
    finally:
        os.close(fd)


def _header(path: Path) -> list[str] | None:
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as lines:
        return next(csv.reader(lines), None)


def _free_backup(path: Path) -> Path:
    free, number = path.with_name(f"{path.name}.bak"), 0
    while free.exists():
        free, number = path.with_name(f"{path.name}_{number}.bak"), number + 1
    return free


def _write(path: Path, header: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """All of it or nothing: whoever reads never sees half a file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(_text(header, rows, head=True), encoding="utf-8")
    part.replace(path)


def _text(header: list[str], rows: Iterable[Mapping[str, Any]], *, head: bool) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, header, lineterminator="\n")
    if head:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: _guarded(value) for name, value in row.items()})
    return out.getvalue()


def _guarded(value: Any) -> Any:
    """A name that a spreadsheet would take for a formula is shown as text. Rows that are kept have numbers as text."""
    formula = isinstance(value, str) and value[:1] in tuple("=+-@\t\r\n") and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value
