"""What a product's metered requests are billed for: tenants, what was idle, stages, and the histogram of receipts.

Cumulative over jobs and restarts; nothing here falls. A bill is a list of microjoules and nanograms: energy, then the
terms in the order of TERMS. Units of work are integer millionths.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wattribute.agent.core.model import BUCKETS_UJ, TERMS, ServedTotals, TenantTotals
from wattribute.agent.core.served_room import Rooms

BILL = 1 + len(TERMS)
"""Places of a bill."""
RETRAINING, PRODUCT = 1 + TERMS.index("retraining"), 1 + TERMS.index("product")
OTHER = "_other"
"""Tenants past the bound, all together."""
UNITS_MAX = 32
"""So many units of work a product may have: whoever reports could make up new ones without end."""
CHUNK = 32
"""Tenants are written down by so many, so that one that was served doesn't write down all the others again."""
NO_BILL = (0,) * BILL
PAST_MAX = 256
"""So many senders of jobs that are over are remembered by product, as far as there is room for their counts."""


class Tenant:
    """What one tenant was served and is billed for."""

    __slots__ = ("_shown", "aborted", "bill", "chunk", "name", "units")

    def __init__(self, name: str, chunk: int) -> None:
        self.name = name
        self.chunk = chunk
        self.units: dict[str, int] = {}
        self.aborted = 0
        self.bill = [0] * BILL
        self._shown: TenantTotals | None = None

    def touch(self) -> None:
        """Something of it has changed."""
        self._shown = None

    def totals(self) -> TenantTotals:
        """As it is now: the same object until it changes."""
        if self._shown is None:
            self._shown = TenantTotals(
                units=dict(self.units), aborted=self.aborted, energy_uj=self.bill[0], terms_ng=tuple(self.bill[1:])
            )
        return self._shown


class ServedProduct:
    """One product's totals. At most `tenants_max` tenants have a name of their own, and of all products' together as
    many as user `uid`, whose job was the first, has room for; who comes later is `_other`, for good: a tenant never
    leaves.
    """

    def __init__(self, product_id: str, tenants_max: int, uid: int = 0, rooms: Rooms | None = None) -> None:
        self.id = product_id
        self.uid = uid
        self._rooms = Rooms() if rooms is None else rooms
        self.units: dict[str, None] = {}
        self._tenants_max = tenants_max
        self._tenants: dict[str, Tenant] = {}
        self._idle = [0] * BILL
        self._stages: dict[str, list[int]] = {}
        self._receipt_counts = [0] * (len(BUCKETS_UJ) + 1)
        self._receipt_sum_uj = 0
        self._receipt_latest: dict[int, tuple[str, int, int]] = {}
        self._past: dict[tuple[int, str], list[Any]] = {}  # by user and token, the latest last
        self._past_changed = False
        self._changed = True  # what isn't a tenant's
        self._changed_chunks: set[int] = set()

    def tenant(self, name: str) -> Tenant:
        """The account of a tenant by the name that it is shown under; `_other` past the bound."""
        known = self._tenants.get(name)
        if known is None:
            named = len(self._tenants) - (OTHER in self._tenants)
            full = named >= self._tenants_max or (name != "" and self._rooms.tenants.left(self.uid) <= 0)
            shown = OTHER if full else name
            known = self._tenants.get(shown)
            if known is None:
                known = self._add(shown, len(self._tenants) // CHUNK)
                self._changed_chunks.add(known.chunk)
        return known

    def count(self, tenant: Tenant, units: Mapping[str, int], aborted: int) -> None:
        """So many more units were served, so many more requests weren't."""
        for unit, micro in units.items():
            self.units.setdefault(unit)
            tenant.units[unit] = tenant.units.get(unit, 0) + micro
        tenant.aborted += aborted
        self._touch(tenant)

    def bill(self, tenant: Tenant, bill: Sequence[int]) -> None:
        """A tenant's part of what a job used."""
        tenant.bill = [a + b for a, b in zip(tenant.bill, bill, strict=True)]
        self._touch(tenant)

    def idle(self, bill: Iterable[int]) -> None:
        """What a job used that no request was there for."""
        self._idle = [a + b for a, b in zip(self._idle, bill, strict=True)]
        self._changed = True

    def stage(self, stage: str, bill: Sequence[int]) -> None:
        """What of the bills of requests went into one stage of serving."""
        before = self._stages.get(stage, NO_BILL)
        self._stages[stage] = [a + b for a, b in zip(before, bill, strict=True)]
        self._changed = True

    def receipts(self, counts: Sequence[int], sum_uj: int, latest: Iterable[tuple[int, str, int, int]]) -> None:
        """So many more requests in each bucket, with the latest of some: (bucket, id, uJ, Unix ns)."""
        for bucket, more in enumerate(counts):
            self._receipt_counts[bucket] += more
        self._receipt_sum_uj += sum_uj
        for bucket, request_id, energy_uj, unix_ns in latest:
            known = self._receipt_latest.get(bucket)
            if known is None or known[2] <= unix_ns:
                self._receipt_latest[bucket] = (request_id, energy_uj, unix_ns)
        self._changed = True

    def past(self, uid: int, token: str) -> list[Any] | None:
        """What a sender had told when its job was over: it may go on with the same counts in the job's next life."""
        return self._past.get((uid, token))

    def remember(self, uid: int, token: str, counts: list[Any] | None) -> None:
        """A sender's job is over; None: it is back."""
        known = self._forget((uid, token))
        self._past_changed |= known or counts is not None
        if counts is not None:
            self._keep((uid, token), counts)
            while len(self._past) > PAST_MAX or (self._past and self._rooms.past.left(uid) < 0):
                self._forget(next(iter(self._past)))

    def totals(self, unsettled: Sequence[int], in_flight: int) -> ServedTotals:
        """A copy of everything; `unsettled` is the bill that isn't split yet."""
        return ServedTotals(
            product_id=self.id,
            tenants={name: tenant.totals() for name, tenant in self._tenants.items()},
            idle_uj=self._idle[0],
            idle_ng=tuple(self._idle[1:]),
            unsettled_uj=unsettled[0],
            unsettled_ng=tuple(unsettled[1:]),
            in_flight=in_flight,
            stages={stage: (bill[0], tuple(bill[1:])) for stage, bill in self._stages.items()},
            receipt_counts=tuple(self._receipt_counts),
            receipt_sum_uj=self._receipt_sum_uj,
            receipt_latest=dict(self._receipt_latest),
        )

    def save(self) -> dict[str, Any]:
        """What changed since the last call, as plain JSON values under stable names."""
        found: dict[str, Any] = {}
        if self._changed:
            found[f"requests:{self.id}"] = {
                "uid": self.uid,
                "idle": self._idle,
                "stages": self._stages,
                "counts": self._receipt_counts,
                "sum_uj": self._receipt_sum_uj,
                "latest": [[bucket, *one] for bucket, one in self._receipt_latest.items()],
            }
        if self._changed_chunks:
            chunks: dict[int, list[Any]] = {number: [] for number in self._changed_chunks}
            for tenant in self._tenants.values():
                if tenant.chunk in chunks:
                    chunks[tenant.chunk].append([tenant.name, tenant.units, tenant.aborted, tenant.bill])
            found |= {f"tenants:{number}:{self.id}": tenants for number, tenants in sorted(chunks.items())}
        if self._past_changed:
            found[f"senders:{self.id}"] = [[*key, counts] for key, counts in self._past.items()]
        self._changed, self._past_changed, self._changed_chunks = False, False, set()
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take in the last that `save` gave under each name; names of anything else are left alone."""
        saved = state[f"requests:{self.id}"]
        self.uid = saved.get("uid", 0)
        self._idle, self._stages = list(saved["idle"]), {stage: list(b) for stage, b in saved["stages"].items()}
        self._receipt_counts, self._receipt_sum_uj = list(saved["counts"]), saved["sum_uj"]
        self._receipt_latest = {bucket: (one, uj, unix_ns) for bucket, one, uj, unix_ns in saved["latest"]}
        for uid, token, counts in state.get(f"senders:{self.id}", ()):
            self._keep((uid, token), counts)
        number = 0
        while (chunk := state.get(f"tenants:{number}:{self.id}")) is not None:
            for name, units, aborted, bill in chunk:
                tenant = self._add(name, number)
                tenant.units, tenant.aborted, tenant.bill = dict(units), aborted, list(bill)
                self.units |= dict.fromkeys(units)
            number += 1
        self._changed = False

    def _add(self, name: str, chunk: int) -> Tenant:
        if name not in ("", OTHER):
            self._rooms.tenants.take(self.uid)
        tenant = self._tenants[name] = Tenant(name, chunk)
        return tenant

    def _keep(self, key: tuple[int, str], counts: list[Any]) -> None:
        self._past[key] = counts
        self._rooms.past.take(key[0], _counts_in(counts))

    def _forget(self, key: tuple[int, str]) -> bool:
        """Whether it was known."""
        counts = self._past.pop(key, None)
        if counts is not None:
            self._rooms.past.take(key[0], -_counts_in(counts))
        return counts is not None

    def _touch(self, tenant: Tenant) -> None:
        tenant.touch()
        self._changed_chunks.add(tenant.chunk)


def _counts_in(sender: Sequence[Any]) -> int:
    """How many counts of a sender that is gone are remembered: of its tenants, each with its units."""
    return sum(1 + len(units) for _, _, _, units in sender[0])


def products_in(state: Mapping[str, Any]) -> list[str]:
    """The products whose totals `save` wrote there."""
    return [name.removeprefix("requests:") for name in state if name.startswith("requests:")]


__all__ = [
    "BILL",
    "NO_BILL",
    "OTHER",
    "PRODUCT",
    "RETRAINING",
    "UNITS_MAX",
    "ServedProduct",
    "Tenant",
    "products_in",
]
