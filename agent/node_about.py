"""What all receipts of a node share: which domains it measures, how, by which rules, prices and products."""

from collections.abc import Iterable
from typing import Any

from wattribute.agent.climate import Climate
from wattribute.agent.core.books import Books
from wattribute.agent.core.model import DOMAIN_KINDS, Clock, DomainKind, Policy
from wattribute.agent.core.receipt import UNSEEN
from wattribute.agent.dues import Dues
from wattribute.agent.idle_words import idle_notes, idle_words
from wattribute.agent.requests import Basis
from wattribute.agent.wiring import Sensors


class About:
    """How one node's numbers are made. `notes` is what was left to a default."""

    def __init__(
        self,
        basis: Basis,
        node_id: str,
        sensors: Sensors,
        books: Books,
        climate: Climate,
        dues: Dues,
        clock: Clock,
        notes: Iterable[str],
    ) -> None:
        self._basis = basis
        self._node_id = node_id
        self._sensors = sensors
        self._books = books
        self._climate = climate
        self._dues = dues
        self._clock = clock
        self._notes = [*sensors.notes, *notes]

    def now(self) -> dict[str, Any]:
        """As it is at this moment: what is measured, and what energy costs, may change."""
        kinds: dict[DomainKind, None] = {d.kind: None for d in self._books.domains.qualities()}
        return {
            "domains": [kind for kind in DOMAIN_KINDS if kind in kinds],
            "unseen": list(self._sensors.unseen if "rest" in kinds else UNSEEN),
            "notes": [*self._notes, *idle_notes(self._books), *self._rest_notes()],
            "node": self._node_id,
            "basis": self._basis,
            "method": self._method_words(),
            "policy": self.policy(),
            **self._climate.about(self._clock.time_ns()),
            "products": self._dues.about(),
        }

    def _rest_notes(self) -> list[str]:
        return [] if self._books.rest is None else self._books.rest.notes()

    def methods(self) -> dict[tuple[DomainKind, str], str]:
        """How each domain's energy is measured and split; of GPUs each by itself."""
        methods: dict[tuple[DomainKind, str], str] = {
            (domain.kind, ""): self._sensors.method[domain.kind]
            for domain in self._books.domains.qualities()
            if domain.kind in self._sensors.method and domain.kind != "gpu"
        }
        methods.update((("gpu", device), how) for device, how in self._sensors.gpu_methods().items())
        return methods

    def policy(self) -> dict[str, Policy]:
        """Who pays for idle and for overhead."""
        return {"idle": self._books.rules.idle, "overhead": self._books.rules.overhead}

    def _method_words(self) -> dict[str, str]:
        """As a receipt has it: one line per kind, with how idle power is known."""
        by_kind: dict[str, list[str]] = {}
        for (kind, _), how in self.methods().items():
            by_kind.setdefault(kind, []).append(how)
        words = {kind: "; ".join(dict.fromkeys(hows)) for kind, hows in by_kind.items()}
        return {kind: f"{how}, {idle_words(self._books, kind)}" for kind, how in words.items()}


__all__ = ["About"]
