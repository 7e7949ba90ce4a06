"""The tables of the archive: the same for SQLite and PostgreSQL.

Rows are kept as their node closed them, each with its chain, position and hash, so that every node's chain can be
verified again from here. `job_sums` and `job_facts` follow from them, and are changed in the same transaction.
"""

import hashlib
from collections.abc import Mapping, Sequence

from wattribute.agent.ledger.schema import CHAINS, ROWS, Table

SCHEMA_VERSION = 1
NO_HASH = "0" * 64  # what the first row of a chain follows
IN_PROCESS = "in-process-"
"""Before a node's name: whose chain it is that tells what processes without an agent measured there."""

# A row's columns beside chain, position, epoch_id and hash: node and epoch are long, and the same for months.
COLUMNS: Mapping[Table, Sequence[str]] = {table: ROWS[table]._fields[2:] for table in CHAINS}
KEYS: Mapping[Table, Sequence[str]] = {
    "windows": ("window_start_unix_ns", "job_id", "domain"),
    "gaps": ("kind", "id", "start_unix_ns", "end_unix_ns", "cause"),
    "corrections": ("job_id", "product_id", "term", "cause", "window_start_unix_ns", "at_unix_ns"),
}
_NUMBERS = {"delta_ng", "lower_uj", "booked_uj"}


def _column(name: str) -> str:
    if name == "upper_uj":
        return "  upper_uj BIGINT"
    kind = "BIGINT" if name in _NUMBERS or name.endswith("_unix_ns") else "TEXT"
    return f"  {name} {kind} NOT NULL"


def _rows_table(table: Table) -> str:
    lines = [
        f"CREATE TABLE {table} (",
        "  chain BIGINT NOT NULL,",
        "  position BIGINT NOT NULL,",
        "  epoch_id BIGINT NOT NULL,",
        *(f"{_column(name)}," for name in COLUMNS[table]),
        "  hash TEXT NOT NULL,",
        "  PRIMARY KEY (chain, position),",
        f"  UNIQUE (epoch_id, {', '.join(KEYS[table])})",
        ")",
    ]
    return "\n".join(lines)


TABLES: Sequence[str] = (
    "CREATE TABLE archive_counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
    f"INSERT INTO archive_counters VALUES ('schema', {SCHEMA_VERSION}), ('chains', 0), ('epochs', 0)",
    "CREATE TABLE nodes (node_id TEXT PRIMARY KEY, deliveries BIGINT NOT NULL, delivered_unix_ns BIGINT NOT NULL)",
    "CREATE TABLE epochs (epoch_id BIGINT PRIMARY KEY, node_id TEXT NOT NULL, epoch TEXT NOT NULL,"
    " UNIQUE (node_id, epoch))",
    # A chain that forked off another one shares that one's rows up to `forked_after`.
    """CREATE TABLE chains (
  chain BIGINT PRIMARY KEY,
  node_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  parent BIGINT,
  forked_after BIGINT NOT NULL,
  position BIGINT NOT NULL,
  hash TEXT NOT NULL
)""",
    "CREATE INDEX chains_of_node ON chains (node_id, kind)",
    *(_rows_table(table) for table in CHAINS),
    "CREATE INDEX windows_in_time ON windows (window_start_unix_ns)",
    "CREATE INDEX corrections_of_job ON corrections (job_id, at_unix_ns)",
    # Rows whose key another chain has already. `same`: with the same content; else they are counted nowhere.
    """CREATE TABLE refused (
  chain BIGINT NOT NULL,
  position BIGINT NOT NULL,
  body TEXT NOT NULL,
  same BIGINT NOT NULL,
  hash TEXT NOT NULL,
  PRIMARY KEY (chain, position)
)""",
    """CREATE TABLE job_sums (
  job_id TEXT NOT NULL,
  node_id TEXT NOT NULL,
  domain TEXT NOT NULL,
  name TEXT NOT NULL,
  amount BIGINT NOT NULL,
  PRIMARY KEY (job_id, node_id, domain, name)
)""",
    """CREATE TABLE job_facts (
  job_id TEXT NOT NULL,
  node_id TEXT NOT NULL,
  until_unix_ns BIGINT NOT NULL,
  product_id TEXT NOT NULL,
  body TEXT NOT NULL,
  provisional_unix_ns BIGINT NOT NULL,
  settled_unix_ns BIGINT NOT NULL,
  PRIMARY KEY (job_id, node_id)
)""",
    "CREATE INDEX job_facts_of_product ON job_facts (product_id)",
    "CREATE TABLE product_events (position BIGINT PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL)",
    """CREATE TABLE presence (
  node_id TEXT NOT NULL,
  product_id TEXT NOT NULL,
  weight_ppm BIGINT NOT NULL,
  at_unix_ns BIGINT NOT NULL,
  PRIMARY KEY (product_id, node_id)
)""",
    # Weights are decimal integers: those of many jobs at once may have more than 64 bits.
    """CREATE TABLE fleet_parts (
  product_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  start_unix_ns BIGINT NOT NULL,
  end_unix_ns BIGINT NOT NULL,
  node_id TEXT NOT NULL,
  jsc_ng BIGINT NOT NULL,
  hardware_ng BIGINT NOT NULL,
  weight TEXT NOT NULL,
  serial BIGINT NOT NULL,
  at_unix_ns BIGINT NOT NULL,
  PRIMARY KEY (product_id, kind, start_unix_ns, end_unix_ns, node_id)
)""",
    # `parts`: those that count, as JSON [node, jsc_ng, hardware_ng, weight, serial]; [] where nothing was metered.
    """CREATE TABLE fleet_closed (
  product_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  start_unix_ns BIGINT NOT NULL,
  end_unix_ns BIGINT NOT NULL,
  jsc_ng BIGINT NOT NULL,
  hardware_ng BIGINT NOT NULL,
  weight TEXT NOT NULL,
  parts TEXT NOT NULL,
  at_unix_ns BIGINT NOT NULL,
  PRIMARY KEY (product_id, kind, start_unix_ns, end_unix_ns)
)""",
)


def hash_of_event(before: str, body: str) -> str:
    """SHA-256 of the hash before and a product event's JSON, in hexadecimal."""
    return hashlib.sha256(bytes.fromhex(before) + body.encode()).hexdigest()
