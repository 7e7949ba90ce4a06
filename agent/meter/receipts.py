"""A request's receipt as a value: its part of what its process used while it was in flight.

Energy in microjoules and joules, carbon in grams CO2e. The shape is `wattribute.request/1` (docs/requests.md).
"""

import json
from collections.abc import Mapping
from typing import Any

from wattribute.agent.receipts import SUMS, TERMS, grams_text, joules_text

SCHEMA = "wattribute.request/1"
_NG_PER_G = 1_000_000_000
_NAMES = {"jsc": "JSC", "jsce": "JSC^e", "asc": "ASC", "asce": "ASC^e"}
_PARTS = {
    "jsc": ("operation", "cooling"),
    "jsce": ("operation", "cooling", "platform", "retraining"),
    "asc": ("operation", "cooling", "hardware"),
    "asce": TERMS,
}


class RequestReceipt:
    """What one request took and what that cost the climate, as far as it is known. A value: it doesn't change."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts: dict[str, Any] = json.loads(json.dumps(parts))

    @property
    def request_id(self) -> str:
        return str(self._parts["request_id"])

    @property
    def job_id(self) -> str:
        """The job of the serving processes; its receipt has all that they used."""
        return str(self._parts["job_id"])

    @property
    def product_id(self) -> str:
        return str(self._parts["product_id"])

    @property
    def tenant(self) -> str:
        """On whose behalf; "" for nobody in particular."""
        return str(self._parts["tenant"])

    @property
    def started_at(self) -> str:
        """RFC 3339, UTC."""
        return str(self._parts["started_at"])

    @property
    def ended_at(self) -> str | None:
        """RFC 3339, UTC; None while it is in flight."""
        value = self._parts["ended_at"]
        return None if value is None else str(value)

    @property
    def aborted(self) -> bool:
        """Whether it ended without an answer."""
        return bool(self._parts["aborted"])

    @property
    def units(self) -> dict[str, float]:
        """How much of what it was served, as far as it was told."""
        return dict(self._parts["units"])

    @property
    def energy_uj(self) -> int | None:
        """Microjoules of all domains; None until the first window of its time is settled."""
        value = self._parts["energy_uj"]
        return None if value is None else int(value)

    @property
    def energy_j(self) -> float | None:
        """The same in joules."""
        return None if self.energy_uj is None else self.energy_uj / 1e6

    @property
    def terms(self) -> dict[str, float | None]:
        """Grams CO2e by term; None: not known yet."""
        return {term: self._grams(term) for term in TERMS}

    @property
    def jsc_gco2e(self) -> float | None:
        """Operation and cooling."""
        return self._grams("jsc")

    @property
    def jsce_gco2e(self) -> float | None:
        """JSC and the request's part of running its platforms and retraining its products."""
        return self._grams("jsce")

    @property
    def asc_gco2e(self) -> float | None:
        """JSC and the request's part of the hardware."""
        return self._grams("asc")

    @property
    def asce_gco2e(self) -> float | None:
        """All of it: JSC^e, hardware, hardware of the overhead, and what the products cost to make."""
        return self._grams("asce")

    @property
    def basis(self) -> str:
        """Who measured: `daemon` or `in-process`."""
        return str(self._parts["basis"])

    @property
    def quality(self) -> dict[str, float] | None:
        """What part of the job's energy was measured, integrated and modelled; None before that is known."""
        value = self._parts["quality"]
        return None if value is None else dict(value)

    @property
    def bounds(self) -> dict[str, Any] | None:
        """Between which grams each sum and term lies, as far as the job's own do; None before that is known.

        They say how far off the energy and its carbon may be, not how else the requests might share it.
        """
        value: dict[str, Any] | None = self.to_dict()["bounds"]
        return value

    @property
    def settled(self) -> bool:
        """False while something is open; asking for the receipt again later has it."""
        return bool(self._parts["settled"])

    @property
    def retraining_open(self) -> bool:
        """Whether its part of a retraining is open until the interval of that is over."""
        return bool(self._parts["retraining_open"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What is open, and how the figures came about."""
        return tuple(self._parts["notes"])

    def to_dict(self) -> dict[str, Any]:
        """The whole receipt, as JSON has it; a copy."""
        copy: dict[str, Any] = json.loads(json.dumps(self._parts))
        return copy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RequestReceipt) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash((self.request_id, self.settled, self.energy_uj))

    def __repr__(self) -> str:
        return f"<RequestReceipt {self.request_id!r} {grams_text(self.asce_gco2e)} {joules_text(self.energy_uj)}>"

    def __str__(self) -> str:
        parts = self._parts
        units = ", ".join(f"{amount:g} {unit}" for unit, amount in self.units.items())
        tenant = f", tenant {self.tenant}" if self.tenant else ""
        lines = [
            ("product", f"{self.product_id}, job {self.job_id}{tenant}"),
            ("time", f"{parts['duration_s']:.3f} s" + ("" if self.ended_at else ", in flight")),
            *([("units", units)] if units else []),
            ("energy", joules_text(self.energy_uj)),
            *((_NAMES[name], grams_text(self._grams(name))) for name in SUMS),
            *([("bounds", bounds)] if (bounds := self._bounds()) else []),
            ("basis", self.basis + self._made_of() + ("" if self.settled else ", not settled yet")),
            *(("note", note) for note in self.notes),
        ]
        width = max(len(name) for name, _ in lines)
        head = f"wattribute receipt of a request: {self.request_id}"
        return "\n".join([head, *(f"  {name:<{width}}  {text}" for name, text in lines)])

    def _bounds(self) -> str:
        for name in ("asce", "jsce"):
            ends = (self._parts["bounds"] or {}).get(name)
            if ends is not None:
                return f"{_NAMES[name]} {grams_text(ends[0])} to {grams_text(ends[1])}"
        return ""

    def _made_of(self) -> str:
        quality = self.quality or {}
        return "".join(f", {ratio:.0%} {name}" for name, ratio in quality.items() if ratio)

    def _grams(self, name: str) -> float | None:
        value = self._parts["gco2e"][name]
        return None if value is None else float(value)


def grams_of(terms_ng: Mapping[str, int | None]) -> dict[str, float | None]:
    """Grams by term and their sums, from nanograms. A sum is of the terms that are known: None where JSC isn't."""
    grams: dict[str, float | None] = {term: None if ng is None else ng / _NG_PER_G for term, ng in terms_ng.items()}
    for name, parts in _PARTS.items():
        known = [ng for term in parts if (ng := terms_ng[term]) is not None]
        grams[name] = sum(known) / _NG_PER_G if known else None
    return grams


def bounds_of(grams: Mapping[str, float | None], job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Between which grams a request's terms lie: each as far off as the same term of the job, whose receipt `job` is.

    Worst cases, so they add; None where the job has none, a sum None where one of its terms isn't known.
    """
    known, bands = job["gco2e"], (job["bounds"] or {}).get("terms")
    if bands is None:
        return None
    terms: dict[str, list[float] | None] = {}
    for term in TERMS:
        central, whole, band = grams[term], known[term], bands[term]
        if central is None or band is None:
            terms[term] = None
        else:
            terms[term] = [central * end / whole if whole else central for end in band]
    found: dict[str, Any] = {"terms": terms}
    for name, parts in _PARTS.items():
        ends = [terms[term] for term in parts]
        found[name] = None if None in ends else [sum(end[side] for end in ends if end) for side in (0, 1)]
    return found


__all__ = ["SCHEMA", "RequestReceipt", "bounds_of", "grams_of"]
