"""Metered requests as closed rows of the nodes tell of them: units, energy and grams of a product, by tenant."""

from collections.abc import Iterator

from wattribute.agent.archive.database import Database
from wattribute.agent.archive.intake import amounts
from wattribute.agent.archive.totals import IN_TIME, span
from wattribute.agent.core.served_record import ServedRecord, served_record
from wattribute.agent.ledger.schema import NODE_KEY


def served(database: Database, product_id: str, first: int | None, last: int | None) -> ServedRecord | None:
    """What requests of a product were over all nodes, in windows that start in [first, last) (None: no bound).

    None where no closed row tells of any. Raises LedgerError.
    """
    with database.transaction(writing=False):
        if first is None and last is None:
            return served_record(product_id, _sums(database))
        return served_record(product_id, _rows(database, first, last))


def _sums(database: Database) -> Iterator[tuple[str, int]]:
    yield from database.stream(
        "SELECT name, amount FROM job_sums WHERE job_id = :job_id AND domain = ''", {"job_id": NODE_KEY}
    )


def _rows(database: Database, first: int | None, last: int | None) -> Iterator[tuple[str, int]]:
    for (content,) in database.stream(
        f"SELECT content FROM windows WHERE job_id = :job_id AND domain = '' AND {IN_TIME}",
        {"job_id": NODE_KEY, **span(first, last)},
    ):
        yield from amounts(content).items()
