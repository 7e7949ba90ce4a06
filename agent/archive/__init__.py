"""The archive: closed rows of all nodes, products and costs; SQLite beside the agent, or PostgreSQL for a fleet.

It holds nothing that ledger.db of each node and the receipts of processes without an agent don't have, but for what was
registered and imported.
"""

import logging
import os
import time
from pathlib import Path

from wattribute.agent.archive.database import Database, Unreachable
from wattribute.agent.archive.store import Archive
from wattribute.agent.config.schema import Config
from wattribute.agent.core.errors import ConfigError, LedgerError
from wattribute.agent.identity import user_state_dir

__all__ = ["FILE", "Archive", "Unreachable", "file_of", "is_local", "open_archive"]

log = logging.getLogger("wattribute")

FILE = "archive.db"
POSTGRESQL = ("postgresql://", "postgres://")
SQLITE = "sqlite:///"


def open_archive(config: Config, *, pull: bool = True) -> Archive:
    """The archive that `ledger.url` names. A local one first takes in what is new on this machine (`pull`).

    That is what this node's ledger has since, and what processes without an agent measured of themselves.
    Raises LedgerError, ConfigError, with the fix.
    """
    archive = _made(_open(config))
    if pull and is_local(config):
        try:
            for what, pulled in (("this node's ledger has since", _pull), ("ran without an agent", _pull_receipts)):
                try:
                    pulled(Path(config.agent.state_dir), archive)
                except LedgerError as error:  # what is here already can still be told
                    log.warning("what %s isn't in the archive: %s", what, error)
        except BaseException:
            archive.close()
            raise
    return archive


def is_local(config: Config) -> bool:
    """Whether the archive is a file of this node, which is filled when it is read; else the agent delivers to it."""
    return not config.ledger.url.startswith(POSTGRESQL)


def file_of(config: Config) -> Path:
    """The file of a local archive. sqlite:///PATH is always from the root, also where it has four slashes."""
    url = config.ledger.url
    return Path("/", url.removeprefix(SQLITE).lstrip("/")) if url else Path(config.agent.state_dir, FILE)


def _open(config: Config) -> Database:
    url = config.ledger.url
    if url.startswith(POSTGRESQL):
        from wattribute.agent.archive.postgres import PostgresDatabase

        return PostgresDatabase(url)
    if url and not url.startswith(SQLITE):
        raise ConfigError("ledger.url is neither postgresql://USER@HOST/DATABASE nor sqlite:///PATH")
    from wattribute.agent.archive.sqlite import SqliteDatabase

    return SqliteDatabase(file_of(config))


def _made(database: Database) -> Archive:
    try:
        return Archive(database)
    except BaseException:
        database.close()
        raise


def _pull(state_dir: Path, archive: Archive) -> None:
    from wattribute.agent.archive.delivery import deliver_all
    from wattribute.agent.ledger.files import DATABASE
    from wattribute.agent.ledger.reader import read_only

    if (state_dir / DATABASE).is_file():
        with read_only(state_dir) as reader:
            deliver_all(reader, archive)


def _pull_receipts(state_dir: Path, archive: Archive) -> None:
    own = user_state_dir(os.environ)
    archive.take_receipts([state_dir, *([Path(own)] if own else [])], now_unix_ns=time.time_ns())
