"""The archive: the closed rows of every node, what was registered of products, and who runs what now."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wattribute.agent.archive import fleet_shares, in_process, intake, reading, served, totals
from wattribute.agent.archive.database import Database, insert
from wattribute.agent.archive.intake import Delivery, Taken, Tip
from wattribute.agent.archive.reading import Kept, Strand
from wattribute.agent.archive.schema import NO_HASH, SCHEMA_VERSION, TABLES, hash_of_event
from wattribute.agent.archive.verify import Head, heads, problems
from wattribute.agent.core.errors import LedgerError
from wattribute.agent.core.fleet_parts import Part, Verdict
from wattribute.agent.core.model import Role
from wattribute.agent.core.records import JobRecord, NodeRecord
from wattribute.agent.core.served_record import ServedRecord
from wattribute.agent.ledger.schema import Table


class Archive:
    """An open archive, for one thread. After a LedgerError open another one."""

    def __init__(self, database: Database) -> None:
        """Makes the tables where there are none. Raises LedgerError."""
        self._database = database
        database.create(TABLES, unless="archive_counters")
        found = database.rows("SELECT value FROM archive_counters WHERE name = 'schema'")
        if not found or type(found[0][0]) is not int:
            raise LedgerError(
                f"{database.name} doesn't say its schema: somebody has changed it. Fix: put a backup of it back, or "
                "give another ledger.url"
            )
        version = found[0][0]
        if version != SCHEMA_VERSION:
            raise LedgerError(
                f"{database.name} was written by a newer wattribute (schema {version}, this one knows "
                f"{SCHEMA_VERSION}). Fix: install that version"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Where it is, in words, without a password."""
        return self._database.name

    def close(self) -> None:
        """Let go of it; may be called twice."""
        self._database.close()

    # Jobs and nodes

    def jobs(
        self,
        *,
        product_id: str | None = None,
        role: Role | None = None,
        from_unix_ns: int | None = None,
        to_unix_ns: int | None = None,
        since_unix_ns: int | None = None,
        words: Sequence[str] = (),
    ) -> Iterator[JobRecord]:
        """One record per job over all nodes, by id; with a time, what it used in windows that start in it.

        `since_unix_ns`: only those that nodes have told of for a time after it, with all that they used. `words`: only
        those with one of these in the id, or as a text in what nodes told. Raises LedgerError.
        """
        if from_unix_ns is None and to_unix_ns is None:
            return totals.jobs(self._database, product_id, role, since_unix_ns, words)
        return iter(totals.jobs_in(self._database, product_id, role, from_unix_ns, to_unix_ns))

    def job(self, job_id: str) -> JobRecord | None:
        """One job over all nodes and time; None: never heard of. Raises LedgerError."""
        return totals.job(self._database, job_id)

    def node_totals(
        self, *, node_id: str | None = None, from_unix_ns: int | None = None, to_unix_ns: int | None = None
    ) -> dict[str, NodeRecord]:
        """What nodes used, and what of it nobody paid, by node id. Raises LedgerError."""
        if from_unix_ns is None and to_unix_ns is None:
            return totals.node_totals(self._database, node_id)
        return totals.node_totals_in(self._database, node_id, from_unix_ns, to_unix_ns)

    def served(
        self, product_id: str, *, from_unix_ns: int | None = None, to_unix_ns: int | None = None
    ) -> ServedRecord | None:
        """What metered requests of a product were, by tenant, over all nodes; None: none known. Raises LedgerError."""
        return served.served(self._database, product_id, from_unix_ns, to_unix_ns)

    # What nodes deliver

    def deliver(self, node_id: str, table: Table, rows: Delivery) -> Taken:
        """Take rows of one chain in: see intake.deliver. Raises LedgerError."""
        return intake.deliver(self._database, node_id, table, rows)

    def take_receipts(self, state_dirs: Iterable[Path], *, now_unix_ns: int) -> int:
        """Take in what processes without an agent have left: see in_process.take. Raises LedgerError."""
        return in_process.take(self._database, state_dirs, now_unix_ns=now_unix_ns)

    def acked(self, node_id: str, table: Table) -> list[Tip]:
        """The chains of a node and how far the archive has each, newest first. Raises LedgerError."""
        return intake.tips(self._database, node_id, table)

    def nodes_under(self, prefix: str) -> list[str]:
        """The nodes of which there are rows and whose id begins so. Raises LedgerError."""
        found = self._database.rows(
            "SELECT DISTINCT node_id FROM chains WHERE substr(node_id, 1, CAST(:length AS INTEGER)) = :prefix"
            " ORDER BY node_id",
            {"length": len(prefix), "prefix": prefix},
        )
        return [node_id for (node_id,) in found]

    def hash_at(self, table: Table, tips: Sequence[Tip], tip: Tip, position: int) -> str | None:
        """The hash at a position of one of a node's chains; None past its end. Raises LedgerError."""
        known = {one.chain: one for one in tips}
        return intake.hashes(self._database, table, known, tip, position, position).get(position)

    def strands(self, table: Table) -> list[Strand]:
        """The chains of a table, each after the one that it left. Raises LedgerError."""
        return reading.strands(self._database, table)

    def kept(
        self, table: Table, strand: Strand, *, from_unix_ns: int | None = None, to_unix_ns: int | None = None
    ) -> Iterator[Kept]:
        """A chain's own rows, in order; with a time, those that overlap it. Raises LedgerError."""
        return reading.kept(self._database, table, strand, from_unix_ns, to_unix_ns)

    # Products

    def events(self) -> list[tuple[int, dict[str, Any]]]:
        """What was registered of products, oldest first: (position, event). Raises LedgerError."""
        found = self._database.rows("SELECT position, body FROM product_events ORDER BY position")
        try:
            return [(position, json.loads(body)) for position, body in found]
        except (ValueError, TypeError, RecursionError) as error:
            raise LedgerError(
                f"{self.name}: what was registered of products can't be read any more ({error}). Fix: wattribute "
                "ledger verify names what was changed"
            ) from error

    def last_event(self) -> int:
        """The position of the last event; 0: there are none. Raises LedgerError."""
        ((position,),) = self._database.rows("SELECT COALESCE(MAX(position), 0) FROM product_events")
        return int(position)

    def append(self, events: Sequence[Mapping[str, Any]], *, after: int) -> int:
        """Add events past position `after`, all or none; the new last position.

        Raises LedgerError where somebody else has added some since: read them, and decide again.
        """
        bodies = []
        for event in events:
            try:
                bodies.append(json.dumps(event, separators=(",", ":"), allow_nan=False))
            except (TypeError, ValueError) as error:
                raise LedgerError(f"a product's event can't be kept: {error}") from error
        with self._database.transaction(writing=True):
            # The lock of this row makes two who append follow one another.
            self._database.run("UPDATE archive_counters SET value = value WHERE name = 'schema'")
            last = self._database.rows("SELECT position, hash FROM product_events ORDER BY position DESC LIMIT 1")
            position, head = last[0] if last else (0, NO_HASH)
            if position != after:
                raise LedgerError(
                    f"somebody else has changed products meanwhile (event {position}, not {after}). Fix: try again"
                )
            rows = []
            for position, body in enumerate(bodies, start=after + 1):
                head = hash_of_event(head, body)
                rows.append((position, body, head))
            insert(self._database, "product_events", ("position", "body", "hash"), rows)
        return after + len(bodies)

    # Who runs what now

    def present(self, node_id: str, weights_ppm: Mapping[str, int]) -> None:
        """Say with what weight a node's running jobs use each product, in place of what it said before.

        Raises LedgerError.
        """
        with self._database.transaction(writing=True):
            now = self._database.now_unix_ns()
            self._database.run("DELETE FROM presence WHERE node_id = :node_id", {"node_id": node_id})
            insert(
                self._database,
                "presence",
                ("node_id", "product_id", "weight_ppm", "at_unix_ns"),
                [(node_id, product_id, weight, now) for product_id, weight in sorted(weights_ppm.items())],
            )

    def weights_ppm(self, *, but: str, fresh_ns: int) -> dict[str, int]:
        """The weight on each product over all nodes but one, as they said it within a time. Raises LedgerError."""
        found = self._database.rows(
            "SELECT product_id, CAST(SUM(weight_ppm) AS BIGINT) FROM presence"
            " WHERE at_unix_ns > :after AND node_id <> :but GROUP BY product_id",
            {"after": self._database.now_unix_ns() - fresh_ns, "but": but},
        )
        return {product_id: int(weight) for product_id, weight in found}

    def exchange(self, node_id: str, parts: Sequence[Part]) -> list[Verdict]:
        """Offer a node's parts of metered overhead: see fleet_shares.exchange. Raises LedgerError."""
        return fleet_shares.exchange(self._database, node_id, parts)

    # Evidence

    def verify(self) -> list[str]:
        """What is wrong, in words; nothing: chains and sums are sound. Raises LedgerError."""
        try:
            with self._database.transaction(writing=False):
                return list(problems(self._database))
        except LedgerError:
            if not self._database.be_lenient():
                raise
        with self._database.transaction(writing=False):
            return list(problems(self._database))

    def heads(self) -> list[Head]:
        """Where each chain ends, to be kept elsewhere. Raises LedgerError."""
        return heads(self._database)
