"""Who pays whom, around the books: products as they are registered, the fleet's divisors, what falls due late."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wattribute.agent.config.check import uncounted
from wattribute.agent.core.books import Books
from wattribute.agent.core.model import SourceHealth
from wattribute.agent.core.owed import add_taxes
from wattribute.agent.core.products import Product, counted_alone, epcs
from wattribute.agent.core.uncertainty import band_of, band_texts
from wattribute.agent.fleet_exchange import FleetExchange
from wattribute.agent.live import LiveJob

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
            self._hash = hash_of_products(self._books.taxes.products.values())
        return self._hash

    def follow(self, now_ns: int) -> None:
        """Before a tick: products that were changed, and how much weight uses those of the fleet."""
        courier = self._courier
        if courier is None:
            return
        if courier.products_changed:
            self._declare(courier.take_events(), now_ns)
        taxes = self._books.taxes
        expected = {} if self._exchange is None else self._exchange.follow()
        courier.present(expected | taxes.fleet_weights_ppm())
        for product_id, weight_ppm in courier.divisors.items():
            taxes.divisor(product_id, weight_ppm, now_ns)

    def _declare(self, events: Iterable[tuple[int, Mapping[str, Any]]], now_ns: int) -> None:
        from wattribute.agent.core.provenance import registry  # only where products are registered

        try:
            products = list(registry(event for _, event in events).effective(self._declared).values())
            if self._courier is None or not self._courier.hears_of_others:
                products = [counted_alone(product) for product in products]
            self._books.taxes.declare(products, now_ns)
        except ValueError as error:
            log.error("the registry of products can't be read, and what was known of it stays: %s", error)
            return
        self._about = self._hash = None
        self._warn_of_fleets(products)
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
            self._about = {
                product_id: {
                    "runs_on": list(product.runs_on),
                    "parents": list(product.parents),
                    "declared_rate": bool(product.overhead_rate),
                    "written_off": product.written_off and product.status != "open",
                    "epc_band": None if (whole := found[product_id].total) is None else band_texts(band_of(whole)),
                }
                for product_id, product in products.items()
            }
        return self._about

    def health(self) -> Sequence[SourceHealth]:
        """Of the archive."""
        return () if self._courier is None else self._courier.health()

    def close(self) -> None:
        """Take leave of the archive."""
        if self._courier is not None:
            self._courier.close()


def hash_of_products(products: Iterable[Product]) -> str:
    """The same for the same products, in whatever order."""
    text = json.dumps(sorted(map(repr, products)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
