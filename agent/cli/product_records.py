"""Where the product commands find what is known: the configuration's products, and the registry in the archive."""

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattribute.agent.archive import Archive, open_archive
from wattribute.agent.config import Loaded, load
from wattribute.agent.config.check import nearest
from wattribute.agent.core.errors import LedgerError, WattributeError
from wattribute.agent.core.lineage import Book, book
from wattribute.agent.core.products import Product
from wattribute.agent.core.provenance import Event, Registry, check, fold, registry
from wattribute.agent.creation import cost_of
from wattribute.agent.wiring import products

TRIES = 20


@dataclass(slots=True, kw_only=True)
class Draft:
    """The registry as it is now, and what is about to be added to it."""

    archive: Archive
    registry: Registry
    declared: list[Product]
    loaded: Loaded
    events: list[Event] = field(default_factory=list)

    def put(self, kind: str, product_id: str, /, **values: Any) -> None:
        """One more event, if it keeps the rules. Raises Refused."""
        now = datetime.datetime.now(datetime.UTC)
        event = {"event": kind, "id": product_id, "at": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "by": user(), **values}
        check(self.registry, event, self.declared)
        fold(self.registry, event)
        self.events.append(event)

    def book(self) -> Book:
        """What is known of all products, with what is about to be added. Raises LedgerError."""
        return book(self.registry, self.archive.jobs(), self.declared, cost_of=cost_of(self.loaded))


def known(file: Path | None) -> Book:
    """All products with their EPC, from the configuration and the archive. Raises ConfigError, LedgerError."""
    loaded = load(file, os.environ, {})
    with open_archive(loaded.config) as archive:
        return book(_registry(archive)[1], archive.jobs(), products(loaded.config), cost_of=cost_of(loaded))


def served_units(file: Path | None, product: Product) -> int | None:
    """How many millionths of its unit a product's own jobs have served, over all nodes; None where nobody tells.

    Raises ConfigError, LedgerError.
    """
    with open_archive(load(file, os.environ, {}).config, pull=False) as archive:
        served = archive.served(product.id)
    return None if served is None else served.billed.units.get(product.unit)


def one_of(found: Book, product_id: str) -> None:
    """Raises WattributeError where there is no such product; it names the nearest."""
    if product_id not in found.products:
        meant = nearest(product_id, found.products)
        hint = f'; did you mean "{meant}"?' if meant else ". See: wattribute product list"
        raise WattributeError(f'product "{product_id}" isn\'t known{hint}')


def append(file: Path | None, write: Callable[[Draft], None], *, jobs: bool = False) -> list[Event]:
    """Add to the registry what `write` puts: all of it or nothing. Returns what was added.

    `write` is called again where somebody else was faster. `jobs`: it needs the latest of what jobs cost.
    Raises Refused, ConfigError, LedgerError.
    """
    loaded = load(file, os.environ, {})
    for _ in range(TRIES):
        with _drafted(loaded, jobs) as (last, draft):
            write(draft)
            if not draft.events:
                return []
            try:
                draft.archive.append(draft.events, after=last)
                return draft.events
            except LedgerError as error:
                failure = error
        with open_archive(loaded.config, pull=False) as archive:
            if archive.last_event() == last:
                raise failure
    raise LedgerError("others change the registry of products all the time. Fix: try again later")


@contextmanager
def _drafted(loaded: Loaded, jobs: bool) -> Iterator[tuple[int, Draft]]:
    with open_archive(loaded.config, pull=jobs) as archive:
        last, folded = _registry(archive)
        yield last, Draft(archive=archive, registry=folded, declared=products(loaded.config), loaded=loaded)


def _registry(archive: Archive) -> tuple[int, Registry]:
    events = archive.events()
    try:
        return (events[-1][0] if events else 0), registry(event for _, event in events)
    except ValueError as error:
        raise LedgerError(f"{archive.name}: {error}. Fix: use the version of wattribute that wrote it") from error


def user() -> str:
    """Who is at work, by the name of the process's user: an environment variable could name anybody."""
    try:
        import pwd
    except ImportError:  # Windows
        import getpass

        return getpass.getuser()
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
