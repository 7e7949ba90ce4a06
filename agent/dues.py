"""Who pays whom, around the books: products as they are registered, the fleet's divisors, what falls due late."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wattribute.agent.config.check import uncounted
from wattribute.agent.core.books import Books
from wattribute.agent.core.model import SourceHealth
from wattribute.agent.core.owed import add_taxes
from wattribute.agent.core.products import Product, epcs
from wattribute.agent.fleet_exchange import FleetExchange
from wattribute.agent.live import LiveJob
from wattribute.agent.product_fold import Folded, ProductFold, hash_of, told

if TYPE_CHECKING:
    from wattribute.agent.courier import Courier
    from wattribute.agent.norecord import NoRecord
    from wattribute.agent.record import Record

log = logging.getLogger("wattribute")


class Dues:
    """The products of a node. `declared` are the configuration's, which count before the registry's."""

    def __init__(self, books: Books, declared: Sequence[Product], courier: "Courier | None") -> None:
        self._books = books
        self._declared = declared
        self._courier = courier
        self._fold = ProductFold(declared, alone=courier is None or not courier.hears_of_others)
        self._following = False
        self._exchange = None
        if courier is not None and courier.shares_overhead:
            self._exchange = FleetExchange(books.taxes.fleet, courier)
        self._undeclared: set[str] = set()
        self._uncounted: set[str] = set()
        self._about: dict[str, Any] | None = None
        self._hash: str | None = None

    @property
    def registry_hash(self) -> str:
        """A name for the products as they are, so that nodes with different ones can be told apart."""
        if self._hash is None:
            self._hash = hash_of(map(repr, self._books.taxes.products.values()))
        return self._hash

    def follow(self, now_ns: int) -> None:
        """Before a tick: products that were changed, and how much weight uses those of the fleet."""
        courier = self._courier
        if courier is None:
            return
        if courier.products_changed:
            # Before anything runs the registry is waited for: who may register what is known to the first job.
            self._fold.begin(courier.take_events(), wait=not self._following)
        self._following = True
        if (folded := self._fold.take()) is not None:
            self._declare(folded, now_ns)
        taxes = self._books.taxes
        expected = {} if self._exchange is None else self._exchange.follow()
        courier.present(expected | taxes.fleet_weights_ppm())
        for product_id, weight_ppm in courier.divisors.items():
            taxes.divisor(product_id, weight_ppm, now_ns)

    def _declare(self, folded: Folded, now_ns: int) -> None:
        self._books.taxes.take(folded.declared, now_ns)
        self._about, self._hash = folded.about, folded.hash
        products = folded.declared.products
        self._warn_of_fleets(products.values())
        log.info("there are %d products now, those of the configuration among them", len(products))

    def _warn_of_fleets(self, products: Iterable[Product]) -> None:
        """Say once of what was registered for a fleet that nobody counts; the configuration's own was said at start."""
        if self._courier is None or self._courier.hears_of_others:
            return
        told = {product.id for product in self._declared} | self._uncounted
        new = [p.id for p in products if p.scope == "fleet" and p.id not in told]
        if new:
            self._uncounted.update(new)
            log.warning("%s", uncounted(new))

    def collect(self, jobs: Mapping[str, LiveJob], record: "Record | NoRecord") -> list[LiveJob]:
        """After a tick: what an interval that is over cost jobs that had ended before. Returns those still held."""
        late, self._books.late = self._books.late, []
        billed: list[LiveJob] = []
        for closed in late:
            for job_id in closed.parts:
                owed = closed.owed(job_id)
                live = jobs.get(job_id)
                if live is None:
                    record.bill_late(job_id, owed, closed.start_unix_ns, closed.end_unix_ns, closed.cause)
                    continue
                self._books.taxes.waive(add_taxes(live.entry.values, live.entry.taxes_ng, owed))
                live.entry.changed, live.known_meta = True, False
                live.reopened += 1
                billed.append(live)
        record.place_late()
        if self._exchange is not None:
            self._exchange.collect(record)
        return billed

    def open(self, live: LiveJob) -> bool:
        """Whether a tax of an ended job isn't known yet."""
        return self._books.taxes.open_retraining(live.entry.job)

    def notes(self, live: LiveJob) -> list[str]:
        """What is to be said of a job's products."""
        notes = []
        taxes = self._books.taxes
        for product_id in dict.fromkeys((live.entry.job.product_id, *live.entry.job.uses)):
            if product_id == "default" or product_id in taxes.products:
                continue
            how = "[[product]], or with `wattribute product add`" if self._courier else "[[product]]"
            alone = "" if self._courier else " here: without an agent, registered products bill nothing"
            notes.append(f"product {product_id!r} isn't declared{alone}: a tag without taxes (declare it under {how})")
            if product_id not in self._undeclared:
                self._undeclared.add(product_id)
                log.warning("%s", notes[-1])
        for product_id in taxes.missing_epc(live.entry.job):
            notes.append(f"the EPC of {product_id!r} isn't known: ASC^e is a lower bound")
        return notes

    def about(self) -> dict[str, Any]:
        """What receipts need of the products: who runs on whom, and how far off each EPC may be. JSON values."""
        if self._about is None:
            products = self._books.taxes.products
            found = epcs(products)
            self._about = {product_id: told(product, found[product_id]) for product_id, product in products.items()}
        return self._about

    def health(self) -> Sequence[SourceHealth]:
        """Of the archive."""
        return () if self._courier is None else self._courier.health()

    def close(self) -> None:
        """Take leave of the archive."""
        if self._courier is not None:
            self._courier.close()
