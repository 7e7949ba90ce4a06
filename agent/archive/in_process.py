"""Takes in what processes measured of themselves, without an agent: the receipts that they left on this machine.

A receipt's file is replaced while its process runs, and again when a job goes on after its end. So a part comes in
when it is over, as rows of its node's chain `in-process-NODE`; where it says something else later, rows with the
difference follow. What a part has brought already is told by the rows under its own epoch, never by memory beside
them: the time of each file is kept only so that it isn't read again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from wattribute.agent import stored
from wattribute.agent.archive import intake
from wattribute.agent.archive.database import Database, insert
from wattribute.agent.archive.facts import facts_of, parse
from wattribute.agent.archive.receipt_amounts import Amounts, Part, part_of
from wattribute.agent.archive.schema import IN_PROCESS
from wattribute.agent.ledger.batch import dump
from wattribute.agent.ledger.schema import NO_HASH, WindowRow, chained

_SEEN = "CREATE TABLE receipts_seen (name TEXT PRIMARY KEY, written_unix_ns BIGINT NOT NULL)"


class _File(NamedTuple):
    name: str
    written_unix_ns: int
    part: Part | None


def take(database: Database, state_dirs: Iterable[Path], *, now_unix_ns: int) -> int:
    """Take in what is over of the receipts below these directories; the number of new rows. Raises LedgerError."""
    found: dict[str, tuple[int, Path]] = {}
    for state_dir in dict.fromkeys(state_dirs):
        for name, written_unix_ns, path in stored.files(state_dir):
            if name not in found or found[name][0] < written_unix_ns:
                found[name] = (written_unix_ns, path)
    if not found:
        return 0
    database.create((_SEEN,), unless="receipts_seen")
    seen = _seen(database)
    files = [
        _File(name, written_unix_ns, _read(path))
        for name, (written_unix_ns, path) in found.items()
        if written_unix_ns > seen.get(name, -1)
    ]
    running = {
        file.part.job_id
        for file in files
        if file.part and not file.part.over and now_unix_ns - file.written_unix_ns < stored.QUIET_NS
    }
    ready = [file for file in files if file.part is None or file.part.job_id not in running]
    if not ready:
        return 0
    with database.transaction(writing=True):
        seen = _seen(database)  # another command may have been faster
        ready = [file for file in ready if file.written_unix_ns > seen.get(file.name, -1)]
        taken = _append(database, ready)
        insert(
            database,
            "receipts_seen",
            ("name", "written_unix_ns"),
            [(file.name, file.written_unix_ns) for file in ready],
            "ON CONFLICT (name) DO UPDATE SET written_unix_ns = excluded.written_unix_ns",
        )
    return taken


def _read(path: Path) -> Part | None:
    receipt = stored.read_part(path)
    return None if receipt is None else part_of(receipt)


def _seen(database: Database) -> dict[str, int]:
    return dict(database.rows("SELECT name, written_unix_ns FROM receipts_seen"))


def _append(database: Database, files: Sequence[_File]) -> int:
    """Rows of each node, at the end of its chain."""
    by_node: dict[str, list[WindowRow]] = {}
    started: dict[tuple[str, str], int] = {}
    parts = [(file.name, file.part) for file in files if file.part is not None]
    for name, part in sorted(parts, key=lambda pair: (pair[1].start_unix_ns, pair[0])):
        key = (part.node, part.job_id)
        if key not in started:
            started[key] = _start(database, part)
        by_node.setdefault(part.node, []).extend(_rows(database, name, part, started[key]))
    count = 0
    for node, rows in sorted(by_node.items()):
        owner = f"{IN_PROCESS}{node}"
        tips = intake.tips(database, owner, "windows")
        position, head = (tips[0].position, bytes.fromhex(tips[0].hash)) if tips else (0, NO_HASH)
        delivery = []
        for row in rows:
            position, head = position + 1, chained(head, row)
            delivery.append((position, row, head))
        if delivery:
            count += intake.deliver_within(database, owner, "windows", delivery).counted
    return count


def _start(database: Database, part: Part) -> int:
    """When the job began on this node: with its first part."""
    bodies = database.rows(
        "SELECT body FROM job_facts WHERE job_id = :job_id AND node_id = :node_id",
        {"job_id": part.job_id, "node_id": part.node},
    )
    starts = [facts_of(parse(body)).started_unix_ns for (body,) in bodies]
    return min(start for start in (part.start_unix_ns, *starts) if start)


def _rows(database: Database, name: str, part: Part, started_unix_ns: int) -> Iterator[WindowRow]:
    """What a part says beyond the rows that it has already."""
    epoch = f"in-process/{name}"
    before, start = _before(database, part.node, epoch)
    more = _difference(part.amounts, before)
    if start is None:
        start = part.start_unix_ns
    elif not more and part.end_unix_ns <= start:
        return
    end = max(part.end_unix_ns, start + 1)
    by_domain: dict[str, dict[str, int]] = {}
    for (domain, kind), amount in more.items():
        by_domain.setdefault(domain, {})[kind] = amount
    told = dump({**part.said, "started_unix_ns": started_unix_ns, "ended_unix_ns": end})
    terms = by_domain.pop("", {})
    for domain, energy in by_domain.items():
        yield WindowRow(part.node, epoch, start, part.job_id, domain, end, dump(energy), "")
    yield WindowRow(part.node, epoch, start, part.job_id, "", end, dump(terms), told)


def _before(database: Database, node: str, epoch: str) -> tuple[dict[tuple[str, str], int], int | None]:
    """What rows of an epoch hold together, and where the last of them ends."""
    sums: dict[tuple[str, str], int] = {}
    until: int | None = None
    for domain, content, end in database.rows(
        "SELECT domain, content, window_end_unix_ns FROM windows JOIN epochs USING (epoch_id)"
        " WHERE node_id = :node_id AND epoch = :epoch",
        {"node_id": node, "epoch": epoch},
    ):
        until = end if until is None else max(until, end)
        for kind, amount in intake.amounts(content).items():
            sums[domain, kind] = sums.get((domain, kind), 0) + amount
    return sums, until


def _difference(now: Amounts, before: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    keys = [*now, *(key for key in before if key not in now)]
    more = {key: now.get(key, 0) - before.get(key, 0) for key in keys}
    return {key: amount for key, amount in more.items() if amount}


__all__ = ["take"]
