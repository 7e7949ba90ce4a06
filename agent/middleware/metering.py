"""What the middlewares share: the meter of this process, opened at its first request, and what stands in for a request
where there is none.
"""

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from wattribute.agent.process import here

if TYPE_CHECKING:
    from wattribute.agent.meter.billing import Estimate
    from wattribute.agent.meter.meter import Meter
    from wattribute.agent.meter.receipts import RequestReceipt
    from wattribute.agent.meter.request import Request

SKIPPED = ("/health", "/healthz", "/livez", "/readyz", "/metrics")


class Unmetered:
    """Stands in for a request that isn't metered, so that the application needn't ask."""

    id = tenant = ""
    receipt = None

    def add(self, units: object = None, /, **more: float) -> None:
        """Nothing: nobody counts here."""

    def end(self, units: object = None, aborted: bool = False) -> None:
        """Nothing: it never began."""


UNMETERED = Unmetered()


class Metering:
    """The meter of a middleware: the one that was given, or its own, of `product` (default: the environment variable
    WATTRIBUTE_PRODUCT_ID, else `default`). Nothing here raises but the constructor, ValueError.
    """

    def __init__(self, product: str | None, uses: Iterable[str], meter: "Meter | None", *, receipts: bool) -> None:
        names = (uses,) if isinstance(uses, str) else tuple(uses)
        if meter is not None and (product is not None or names):
            raise ValueError("a meter has its product and what it uses: give them, or the meter")
        if not isinstance(product, str | None):
            raise ValueError(f"product must be a string, not {product!r}; a meter goes by meter=...")
        if meter is not None and not hasattr(meter, "begin"):
            raise ValueError(f"meter must be one of wattribute.meter(), not {meter!r}")
        self._product, self._uses = product, names
        self._given = meter is not None
        self._meter = meter
        self._receipts = receipts
        self.begin: Callable[[str], Request | Unmetered] = self._begin_with_receipt if receipts else self._begin
        """Begins a request of a tenant now."""
        self._lock = threading.Lock()

    def start(self) -> None:
        """Opens a meter of its own and starts it."""
        try:
            meter = self._opened()
            if not self._given:
                meter.start()
        except Exception:  # noqa: BLE001 - a defect of ours must not keep a server from starting
            tell("opening a meter")

    def stop(self) -> None:
        """Ends a meter of its own; a later request opens it again."""
        if self._given or self._meter is None:
            return
        try:
            with self._lock:
                meter, self._meter = self._meter, None
            if meter is not None:
                meter.stop()
        except Exception:  # noqa: BLE001 - nor from ending
            tell("closing a meter")

    def _begin(self, tenant: str) -> "Request | Unmetered":
        try:
            return (self._meter or self._opened()).begin(tenant)
        except Exception:  # noqa: BLE001 - nor may it cost anybody an answer
            tell("beginning a request")
            return UNMETERED

    def _begin_with_receipt(self, tenant: str) -> "Request | Unmetered":
        try:
            return (self._meter or self._opened()).begin(tenant, 1, True)
        except Exception:  # noqa: BLE001 - as above
            tell("beginning a request")
            return UNMETERED

    def end(self, request: "Request | Unmetered", aborted: bool) -> None:
        """Ends it now."""
        try:
            request.end(None, aborted)
        except Exception:  # noqa: BLE001
            tell("ending a request")

    def estimate(self, request: "Request") -> "Estimate | None":
        """What a running request took so far, at the rate of the last window. May raise."""
        return None if self._meter is None else self._meter.estimate(request)

    def receipt(self, request_id: str) -> "RequestReceipt | None":
        """What a request took, as far as it is known; None for one that isn't known here."""
        try:
            return None if self._meter is None else self._meter.receipt(request_id)
        except Exception:  # noqa: BLE001
            tell("reading the receipt of a request")
            return None

    def _opened(self) -> "Meter":
        from wattribute.agent.meter.meter import meter

        with self._lock:
            if self._meter is None:
                product = self._product or os.environ.get("WATTRIBUTE_PRODUCT_ID") or "default"
                self._meter = meter(product, uses=self._uses, receipts=self._receipts)
            return self._meter


def tell(doing: str) -> None:
    """Says once, with the traceback of the exception being handled, what went wrong here."""
    here().say_once(f"defect {doing}", "an error of wattribute's own while %s", doing, exc_info=True)


def without_tenant() -> None:
    """Says once, with the traceback of the exception being handled, that a request's tenant couldn't be told."""
    here().say_once("tenant", "whose a request is couldn't be told, so it has no tenant", exc_info=True)


def skipped(paths: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Which paths aren't metered: (exactly these, all that begin with one of these). One that ends with a slash stands
    for all below it; another also for itself with a slash, where it redirects to.
    """
    names = [paths] if isinstance(paths, str) else list(paths)
    below = tuple(name for name in names if name.endswith("/"))
    return frozenset([*names, *(f"{name}/" for name in names if name not in below)]), below


__all__ = ["SKIPPED", "UNMETERED", "Metering", "Unmetered", "skipped", "tell", "without_tenant"]
