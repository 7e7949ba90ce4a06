"""Folds the registry of products beside the loop: 10,000 of them take half a second.

Python's threads share one interpreter lock, so that the thread rests between its steps: the loop's ticks don't wait for
it. A registry of some hundred products is folded at once.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from wattribute.agent.core.declared import AT_ONCE, Declared, Steps, at_once, declared_in_steps, pieces
from wattribute.agent.core.products import Epc, Product, counted_alone
from wattribute.agent.core.uncertainty import band_of, band_texts

if TYPE_CHECKING:
    from wattribute.agent.core.provenance import Registry

log = logging.getLogger("wattribute")

Events = Sequence[tuple[int, Mapping[str, Any]]]

SMALL = 300
"""So many events are folded in the tick that hears of them: some milliseconds."""
WORK_S, REST_S = 0.002, 0.004


class Folded(NamedTuple):
    """A registry as a node goes on under it; `about`: what receipts tell of products, `hash`: a name for all of it."""

    declared: Declared
    about: dict[str, Any]
    hash: str


class ProductFold:
    """From events to products. `configured` are the configuration's own, which count before the registry's; `alone`:
    nobody can tell what runs on other nodes.
    """

    def __init__(self, configured: Sequence[Product], *, alone: bool) -> None:
        self._configured = configured
        self._alone = alone
        self._wanted: Events | None = None
        self._ready: Folded | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._events: Events = ()
        self._registry: Registry | None = None  # what `_events` come to

    def begin(self, events: Events, *, wait: bool = False) -> None:
        """The registry has changed: fold it, beside the caller unless it is small or `wait`."""
        with self._lock:
            self._wanted = events
            if self._thread is not None:
                return  # it takes these up next
            if not wait and len(events) > SMALL:
                self._thread = threading.Thread(target=self._run, name="wattribute-products", daemon=True)
                self._thread.start()
                return
        self._fold(at_once)

    def take(self) -> Folded | None:
        """What was folded since the last call; None where nothing was, or it couldn't be."""
        with self._lock:
            ready, self._ready = self._ready, None
        return ready

    def _run(self) -> None:
        while True:
            try:
                self._fold(_at_leisure)
            except Exception:
                log.exception("a fault in folding the registry of products: please report it")
            with self._lock:
                if self._wanted is None:
                    self._thread = None
                    return

    def _fold(self, make: Callable[[Steps[Folded]], Folded]) -> None:
        with self._lock:
            events, self._wanted = self._wanted, None
        if events is None:
            return
        try:
            ready = make(self._folded(events))
        except ValueError as error:
            log.error("the registry of products can't be read, and what was known of it stays: %s", error)
            return
        with self._lock:
            self._ready = ready

    def _folded(self, events: Events) -> Steps[Folded]:
        registry = yield from self._registered(events)
        products: Iterable[Product] = registry.effective(self._configured).values()
        if self._alone:
            products = map(counted_alone, products)
        declared = yield from declared_in_steps(products)
        about, texts = {}, []
        for some in pieces(declared.products.values()):
            for product in some:
                about[product.id] = told(product, declared.epcs[product.id])
                texts.append(repr(product))
            yield
        return Folded(declared, about, hash_of(texts))

    def _registered(self, events: Events) -> Steps["Registry"]:
        """What events come to: only those that are new are folded, unless another archive came in the place of one."""
        from wattribute.agent.core.provenance import Registry, add  # only where products are registered

        registry, known = self._registry, len(self._events)
        self._registry = None  # it is half folded until the end
        if registry is not None:
            for start in range(0, known, AT_ONCE):
                if events[start : min(known, start + AT_ONCE)] != self._events[start : start + AT_ONCE]:
                    registry = None
                    break
                yield
        if registry is None:
            registry, known = Registry(), 0
        for number, (_, event) in enumerate(islice(events, known, None), known + 1):
            add(registry, event, number)
            if not number % AT_ONCE:
                yield
        self._registry, self._events = registry, events
        return registry


def told(product: Product, epc: Epc) -> dict[str, Any]:
    """What receipts need of a product: on whom it runs, and how far off its EPC may be. JSON values."""
    return {
        "runs_on": list(product.runs_on),
        "parents": list(product.parents),
        "declared_rate": bool(product.overhead_rate),
        "written_off": product.written_off and product.status != "open",
        "epc_band": None if epc.total is None else band_texts(band_of(epc.total)),
    }


def hash_of(texts: Iterable[str]) -> str:
    """The same for the same products, each by its `repr`, in whatever order."""
    return hashlib.sha256(json.dumps(sorted(texts)).encode()).hexdigest()[:16]


def _at_leisure(steps: Steps[Folded]) -> Folded:
    """What steps come to, with a rest now and then."""
    while True:
        until_s = time.monotonic() + WORK_S
        while time.monotonic() < until_s:
            try:
                next(steps)
            except StopIteration as done:
                made: Folded = done.value
                return made
        time.sleep(REST_S)


__all__ = ["Folded", "ProductFold", "hash_of", "told"]
