"""The tables of the ledger, the names of what a window row holds, and the bytes that its hash is made of.

A job's description and what its windows hold already are in `job`, which changes seldom; its totals are in `total`,
dense, since every tick rewrites them. `windows`, `gaps` and `corrections` are only ever added to.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from wattribute.agent.core.model import (
    CARRY_SLOT,
    CPU_NS_SLOT,
    DOMAIN_KINDS,
    QUALITIES,
    SHARE_KINDS,
    SLOTS,
    SM_NS_SLOT,
    TERM_SLOT,
    energy_slot,
)
from wattribute.agent.core.units import NS_PER_S

SCHEMA_VERSION = 2  # PRAGMA user_version
APPLICATION_ID = 0x77617474  # "watt"
WINDOW_NS = 300 * NS_PER_S
"""Closed rows span 300 s of wall time, or less where a job or the agent ended."""
NO_HASH = bytes(32)  # what the first row of a chain follows

# A row's node and epoch are long and the same for months: rows hold a number for both.
WINDOW_KEY = "epoch_id, window_start_unix_ns, job_id, domain"
WINDOW_COLUMNS = f"{WINDOW_KEY}, window_end_unix_ns, content, prices"
GAP_KEY = "epoch_id, kind, id, start_unix_ns, end_unix_ns, cause"
GAP_COLUMNS = f"{GAP_KEY}, lower_uj, upper_uj, booked_uj"
CORRECTION_KEY = "epoch_id, job_id, product_id, term, cause, window_start_unix_ns, at_unix_ns"
CORRECTION_COLUMNS = f"{CORRECTION_KEY}, window_end_unix_ns, delta_ng, detail"

Table: TypeAlias = Literal["windows", "gaps", "corrections"]
CHAINS: tuple[Table, ...] = ("windows", "gaps", "corrections")
KEYS: Mapping[Table, str] = {"windows": WINDOW_KEY, "gaps": GAP_KEY, "corrections": CORRECTION_KEY}
COLUMNS: Mapping[Table, str] = {"windows": WINDOW_COLUMNS, "gaps": GAP_COLUMNS, "corrections": CORRECTION_COLUMNS}
NODE_KEY = "_node"  # the job id under which windows tell of the whole node

TABLES_OF_1 = (
    """CREATE TABLE meta (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  node_id TEXT NOT NULL,
  boot_id TEXT NOT NULL,
  generation INTEGER NOT NULL,
  created_unix_ns INTEGER NOT NULL,
  commits INTEGER NOT NULL,
  committed_unix_ns INTEGER NOT NULL,
  prices TEXT NOT NULL,
  windows INTEGER NOT NULL,
  windows_head BLOB NOT NULL,
  gaps INTEGER NOT NULL,
  gaps_head BLOB NOT NULL
)""",
    """CREATE TABLE job (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  meta TEXT NOT NULL,
  closed BLOB NOT NULL,
  window_start_unix_ns INTEGER NOT NULL,
  finished INTEGER NOT NULL,
  crc INTEGER NOT NULL
)""",
    "CREATE INDEX job_live ON job (finished) WHERE finished = 0",
    "CREATE TABLE total (id INTEGER PRIMARY KEY, packed BLOB NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE state (name TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL)",
    """CREATE TABLE epochs (
  epoch_id INTEGER PRIMARY KEY,
  node_id TEXT NOT NULL,
  epoch TEXT NOT NULL,
  UNIQUE (node_id, epoch)
)""",
    f"""CREATE TABLE windows (
  position INTEGER PRIMARY KEY,
  epoch_id INTEGER NOT NULL,
  window_start_unix_ns INTEGER NOT NULL,
  job_id TEXT NOT NULL,
  domain TEXT NOT NULL,
  window_end_unix_ns INTEGER NOT NULL,
  content TEXT NOT NULL,
  prices TEXT NOT NULL,
  hash BLOB NOT NULL,
  UNIQUE ({WINDOW_KEY})
)""",
    f"""CREATE TABLE gaps (
  position INTEGER PRIMARY KEY,
  epoch_id INTEGER NOT NULL,
  kind TEXT NOT NULL,
  id TEXT NOT NULL,
  start_unix_ns INTEGER NOT NULL,
  end_unix_ns INTEGER NOT NULL,
  cause TEXT NOT NULL,
  lower_uj INTEGER NOT NULL,
  upper_uj INTEGER,
  booked_uj INTEGER NOT NULL,
  hash BLOB NOT NULL,
  UNIQUE ({GAP_KEY})
)""",
    *(
        f"CREATE TRIGGER {table}_never_{verb} BEFORE {verb} ON {table}"
        f" BEGIN SELECT RAISE(ABORT, '{table} are only ever added to'); END"
        for table in ("epochs", "windows", "gaps")
        for verb in ("UPDATE", "DELETE")
    ),
)
ADDED_BY_2 = (
    "CREATE TABLE heads (chain TEXT PRIMARY KEY, row_count INTEGER NOT NULL, head BLOB NOT NULL)",
    f"""CREATE TABLE corrections (
  position INTEGER PRIMARY KEY,
  epoch_id INTEGER NOT NULL,
  job_id TEXT NOT NULL,
  product_id TEXT NOT NULL,
  term TEXT NOT NULL,
  cause TEXT NOT NULL,
  window_start_unix_ns INTEGER NOT NULL,
  at_unix_ns INTEGER NOT NULL,
  window_end_unix_ns INTEGER NOT NULL,
  delta_ng INTEGER NOT NULL,
  detail TEXT NOT NULL,
  hash BLOB NOT NULL,
  UNIQUE ({CORRECTION_KEY})
)""",
    "CREATE INDEX corrections_of_job ON corrections (job_id)",
    *(
        f"CREATE TRIGGER corrections_never_{verb} BEFORE {verb} ON corrections"
        " BEGIN SELECT RAISE(ABORT, 'corrections are only ever added to'); END"
        for verb in ("UPDATE", "DELETE")
    ),
)
TABLES = (*TABLES_OF_1, *ADDED_BY_2)


class WindowRow(NamedTuple):
    """What one job used of one domain in one window. `content` is a JSON object of integers by name.

    The row with domain "" holds what belongs to no domain: nanograms by term and tax, busy time, and the remainders
    below a nanogram (`carry`, which can fall). Only that row has the prices: a JSON object of what energy cost then,
    and whose job it is (see `statement`). The windows of NODE_KEY hold what the node used (`node.QUALITY`), and what of
    it nobody paid (`unattributed.REASON`).
    """

    node_id: str
    epoch: str
    window_start_unix_ns: int
    job_id: str
    domain: str
    window_end_unix_ns: int
    content: str
    prices: str


class StoredGap(NamedTuple):
    """A gap as a row: uJ, Unix nanoseconds."""

    node_id: str
    epoch: str
    kind: str
    id: str
    start_unix_ns: int
    end_unix_ns: int
    cause: str
    lower_uj: int
    upper_uj: int | None
    booked_uj: int


class CorrectionRow(NamedTuple):
    """Carbon that turned out otherwise than it was booked: `delta_ng` is added to a job's term, for a stretch of time.

    `product_id` is the payee of a tax, else the job's own product. `cause`: intensity | retraining |
    platform | fleet_platform | fleet_retraining.
    """

    node_id: str
    epoch: str
    job_id: str
    product_id: str
    term: str
    cause: str
    window_start_unix_ns: int
    at_unix_ns: int
    window_end_unix_ns: int
    delta_ng: int
    detail: str


Row: TypeAlias = WindowRow | StoredGap | CorrectionRow
ROWS: Mapping[Table, type[Row]] = {"windows": WindowRow, "gaps": StoredGap, "corrections": CorrectionRow}

_canonical = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would build an encoder for every row


def chained(prev: bytes, row: Row) -> bytes:
    """SHA-256 of the hash before and the row's canonical bytes.

    Canonical: the columns in their order, without position and hash, as one JSON array without spaces, in ASCII with
    \\u escapes, integers in decimal, no bound as null.
    """
    return hashlib.sha256(prev + _canonical(row).encode()).digest()


def statement(prices: str, meta: Mapping[str, Any]) -> str:
    """What the "" row of a window says beside its amounts: the prices, and whose job it is; a row stands by itself."""
    job = meta.get("job")
    if job is None:
        return prices
    known = json.loads(prices) if prices else {}
    known |= {name: job.get(name) for name in _STATED}
    labels = job.get("labels") or {}
    if SLURM_LABELS[0] in labels:  # who sums a job over nodes, or by account, has these rows alone
        known["slurm"] = {name: labels[name] for name in SLURM_LABELS if name in labels}
    return _canonical(known)


SLURM_LABELS = ("slurm_job_id", "slurm_cluster", "array_task_id", "partition", "account")
_STATED = (
    "product_id",
    "uses",
    "role",
    "phase",
    "user",
    "weight_ppm",
    "nodes",
    "started_unix_ns",
    "ended_unix_ns",
)


def described_crc(key: str, meta: str, closed: bytes, window_start_unix_ns: int) -> int:
    """CRC-32 of the parts of a job that change seldom; SQLite itself doesn't notice a flipped bit in a value."""
    return zlib.crc32(b"%d" % window_start_unix_ns, zlib.crc32(closed, zlib.crc32(f"{key}\n{meta}".encode())))


def _fixed_names() -> tuple[tuple[str, str], ...]:
    names = [("", "")] * SLOTS
    for kind in DOMAIN_KINDS:
        for share in SHARE_KINDS:
            for quality in QUALITIES:
                names[energy_slot(kind, share, quality)] = (kind, f"{share}.{quality}")
    for term, slot in TERM_SLOT.items():
        names[slot] = ("", term)
    names[CPU_NS_SLOT], names[SM_NS_SLOT] = ("", "cpu_ns"), ("", "sm_ns")
    for term, slot in CARRY_SLOT.items():
        names[slot] = ("", f"carry.{term}")
    return tuple(names)


FIXED_NAMES = _fixed_names()


def slot_names(meta: Mapping[str, Any], slots: int) -> list[tuple[str, str]]:
    """(domain, name) of each of a job's totals; `taxes` in its description names those past the fixed ones.

    The node's own row names all of its totals (`names`).
    """
    if "names" in meta:
        return [(domain, name) for domain, name in meta["names"]]
    taxes = [("", f"tax.{term}.{product_id}") for product_id, term in meta.get("taxes", ())]
    names = [*FIXED_NAMES, *taxes]
    return [*names, *(("", f"unnamed.{slot}") for slot in range(len(names), slots))][:slots]


def contents(totals: Sequence[int], closed: Sequence[int], meta: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """What was used since the last close, by domain and name; what didn't change isn't in it."""
    slots = max(len(totals), len(closed))
    found: dict[str, dict[str, int]] = {}
    for slot, (domain, name) in enumerate(slot_names(meta, slots)):
        now = totals[slot] if slot < len(totals) else 0
        before = closed[slot] if slot < len(closed) else 0
        if now != before:
            found.setdefault(domain, {})[name] = now - before
    return found
