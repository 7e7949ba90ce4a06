"""The registry of products: a pure fold over its events, and the rules that a new event must keep.

Events are JSON objects: `event` (add, set, cost, freeze, retire), `id`, `at` (RFC 3339), `by` (a user's name), and
what the kind needs (docs/products.md). Masses are [low, central, high] integer nanograms, weights exact decimal texts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, get_args

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.products import Amortise, Frozen, Product, Scope, TaxBy, find_cycle, given

PLACES = 12  # of a weight, as in WEIGHT_SCALE
FIELDS = (
    "kind",
    "version",
    "runs_on",
    "owners",
    "parents",
    "epc_ng",
    "boundary",
    "lifetime_s",
    "overhead_rate",
    "concurrency_ppm",
    "scope",
    "retraining_interval_s",
    "unit",
    "expected_micro_units",
    "amortise",
    "tax_by",
)
FIXED = ("kind", "version", "parents", "epc_ng", "boundary", "lifetime_s", "unit", "amortise")
"""What no longer changes once the EPC is frozen."""

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Work that nothing measured, entered by hand or imported: what it cost, ng, and in whose words."""

    id: str
    mass: Bounded
    note: str = ""
    at: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """When and by whom a product's EPC was fixed, what it was then, and from when it is written off."""

    epc: Frozen
    deployed_unix_ns: int
    at: str = ""
    by: str = ""


@dataclass(slots=True, kw_only=True)
class Registry:
    """What the events come to. Costs and freezes are by product id: a product of the configuration may have them."""

    products: dict[str, Product] = field(default_factory=dict)
    costs: dict[str, dict[str, Cost]] = field(default_factory=dict)
    freezes: dict[str, Freeze] = field(default_factory=dict)
    history: dict[str, list[Event]] = field(default_factory=dict)

    def effective(self, declared: Iterable[Product] = ()) -> dict[str, Product]:
        """All products. The configuration's count before the registry's of the same id; see `declared_product`."""
        configured = {product.id: declared_product(product, self.freezes.get(product.id)) for product in declared}
        return {**self.products, **configured}


def declared_product(product: Product, freeze: Freeze | None) -> Product:
    """A product of the configuration: one that states no EPC has the one that was frozen, and is open until then."""
    if product.epc_own_ng is not None:
        return product
    if freeze is None:
        return replace(product, status="open") if product.status == "frozen" else product
    deployed = freeze.deployed_unix_ns if product.deployed_unix_ns is None else product.deployed_unix_ns
    frozen = replace(product, frozen=freeze.epc, deployed_unix_ns=deployed)
    return replace(frozen, status="frozen") if product.status == "open" else frozen


def registry(events: Iterable[Event]) -> Registry:
    """Fold events, oldest first. Raises ValueError, which says which event, for one that this version can't read."""
    folded = Registry()
    for number, event in enumerate(events, 1):
        add(folded, event, number)
    return folded


def add(folded: Registry, event: Event, number: int) -> None:
    """Add the event of this number, as `fold` does. Raises ValueError, which says which event."""
    try:
        fold(folded, event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{event.get('event')!r} of {event.get('id')!r}" if isinstance(event, Mapping) else repr(event)
        raise ValueError(f"product event {number} ({what}) can't be read: {error!r}") from error


def fold(folded: Registry, event: Event) -> None:
    """Add one event to what went before, whether or not it keeps the rules. Raises as a wrong lookup does."""
    product_id, kind = str(event["id"]), event["event"]
    if kind == "add":
        folded.products[product_id] = _changed(_blank(product_id), event)
    elif kind == "set":
        folded.products[product_id] = _changed(folded.products[product_id], event)
    elif kind == "cost":
        costs = folded.costs.setdefault(product_id, {})
        if event["cost_id"] in costs and not event.get("replaces"):
            return  # the same again
        costs[event["cost_id"]] = Cost(
            id=event["cost_id"],
            mass=Bounded(*_masses(event["ng"])),
            note=event.get("note", ""),
            at=event.get("at", ""),
            by=event.get("by", ""),
        )
    elif kind == "freeze":
        inherited = {parent: Bounded(*_masses(values)) for parent, values in event["inherited_ng"].items()}
        freeze = Freeze(
            epc=Frozen(own=Bounded(*_masses(event["own_ng"])), inherited=inherited),
            deployed_unix_ns=_amount(event["deployed_unix_ns"]),
            at=event.get("at", ""),
            by=event.get("by", ""),
        )
        folded.freezes[product_id] = freeze
        if product_id in folded.products:
            before = folded.products[product_id]
            folded.products[product_id] = replace(
                before,
                status="retired" if before.status == "retired" else "frozen",
                frozen=freeze.epc,
                deployed_unix_ns=freeze.deployed_unix_ns,
            )
    elif kind == "retire":
        folded.products[product_id] = replace(folded.products[product_id], status="retired")
    else:
        raise ValueError(f"there is no such event as {kind!r}")
    folded.history.setdefault(product_id, []).append(event)


def _blank(product_id: str) -> Product:
    return Product(id=product_id, status="open")


def _changed(product: Product, event: Event) -> Product:
    values = {key: event[key] for key in FIELDS if key in event}
    if "parents" in values:
        values["parents"] = {parent: exact(weight) for parent, weight in values["parents"].items()}
    for key in ("runs_on", "owners"):
        if key in values:
            values[key] = tuple(values[key])
            if not all(isinstance(name, str) for name in values[key]):
                raise ValueError(f"{key} holds something else than names")
    for key in ("kind", "version", "boundary", "unit"):
        if not isinstance(values.get(key, ""), str):
            raise ValueError(f"{key} is no text")
    if values.get("scope") not in (None, *get_args(Scope)):
        raise ValueError(f"there is no scope {values['scope']!r}")
    if values.get("amortise", "time") not in get_args(Amortise):
        raise ValueError(f"nothing is amortised by {values['amortise']!r}")
    if values.get("tax_by", "weight") not in get_args(TaxBy):
        raise ValueError(f"nothing is taxed by {values['tax_by']!r}")
    for key in ("overhead_rate", "concurrency_ppm", "lifetime_s", "retraining_interval_s", "expected_micro_units"):
        if values.get(key, 0) is not None or key in ("overhead_rate", "concurrency_ppm"):
            _amount(values.get(key, 0))
    if values.get("retraining_interval_s") == 0:
        raise ValueError("retraining_interval_s is 0")
    if "epc_ng" in values:
        low, central, high = _masses(values.pop("epc_ng") or ()) or (None, None, None)
        values |= {"epc_low_ng": low, "epc_own_ng": central, "epc_high_ng": high}
    changed = replace(product, **values)
    _ = changed.own  # bounds in order
    return changed


def _masses(values: Iterable[Any]) -> list[int]:
    return [_amount(value) for value in values]


def _amount(value: Any) -> int:
    """A tick reckons with it: an archive that others may write to isn't trusted with its type."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no whole number from 0 on")
    return value


def exact(weight: str) -> Fraction:
    """A weight's text as an exact number of at most twelve places. Raises ValueError, which says what is wrong."""
    try:
        value = Decimal(weight)
    except InvalidOperation:
        raise ValueError(f"{weight!r} is no number") from None
    if not value.is_finite():
        raise ValueError(f"{weight!r} is no number")
    if not 0 <= value <= 1:
        raise ValueError(f"{weight} isn't between 0 and 1")
    if value * 10**PLACES % 1:
        raise ValueError(f"{weight} has more than {PLACES} places")
    return Fraction(value)


def check(folded: Registry, event: Event, declared: Iterable[Product] = ()) -> None:
    """Raises Refused, which says what is wrong and what to do, where an event may not be appended to the registry.

    `declared` are the configuration's products, which may be parents, have costs and be frozen.
    """
    _Rules(folded, declared).check(event)


class _Rules:
    """What holds for a new event, given what is known so far."""

    def __init__(self, folded: Registry, declared: Iterable[Product]) -> None:
        self._registry = folded
        self._declared = {product.id: product for product in declared}
        self._products = folded.effective(self._declared.values())

    def check(self, event: Event) -> None:
        product_id, kind = event["id"], event["event"]
        if kind == "add":
            if product_id in self._registry.products:
                raise Refused(f'product "{product_id}" is registered already; change it with --update')
            self._not_declared(product_id)
            self._check_new(_changed(_blank(product_id), event))
        elif kind == "set":
            self._check_set(product_id, event)
        elif kind == "cost":
            self._check_cost(product_id, event)
        elif kind == "freeze":
            self._check_freeze(product_id, event)
        elif kind == "retire":
            self._not_declared(product_id)
            if self._product(product_id).status == "retired":
                raise Refused(f'product "{product_id}" is retired already')
        else:
            raise Refused(f"there is no such event as {kind!r}")

    def _product(self, product_id: str) -> Product:
        found = self._products.get(product_id)
        if found is None:
            raise Refused(f'product "{product_id}" isn\'t registered{self._meant(product_id)}')
        return found

    def _not_declared(self, product_id: str) -> None:
        if product_id in self._declared:
            raise Refused(f'product "{product_id}" is declared in the configuration, which counts: change it there')

    def _check_set(self, product_id: str, event: Event) -> None:
        self._not_declared(product_id)
        before = self._product(product_id)
        if before.status == "retired":
            raise Refused(f'product "{product_id}" is retired and no longer changes')
        after = _changed(before, event)
        if before.status == "frozen":
            late = [key for key in FIXED if key in event and not _same(before, after, key)]
            if late:
                names = ", ".join(_WORDS.get(key, key) for key in late)
                raise Refused(
                    f'product "{product_id}" is frozen, so its {names} no longer changes; '
                    "add the next version as a product of its own"
                )
        if after.epc_own_ng is not None and self._registry.costs.get(product_id):
            raise Refused(
                f'product "{product_id}" has costs entered by hand, which a declared EPC would leave out; '
                "enter the rest with product cost"
            )
        self._check_new(after, before)

    def _check_new(self, product: Product, before: Product | None = None) -> None:
        """A product that would come, or would take the place of `before`."""
        for relation, ids, old in (
            ("parent", product.parents, before.parents if before else ()),
            ("runs-on", product.runs_on, before.runs_on if before else ()),
        ):
            for other in [one for one in ids if one not in old]:
                if other == product.id:
                    raise Refused(f'product "{product.id}" can\'t be its own {relation}')
                if other not in self._products:
                    raise Refused(f'product "{product.id}": {relation} "{other}" isn\'t registered{self._meant(other)}')
                if self._products[other].status == "retired":
                    raise Refused(f'product "{product.id}": {relation} "{other}" is retired; nothing new stands on it')
        after = {**self._products, product.id: product}
        for would, edges in (
            ("inherit from itself", {one.id: tuple(one.parents) for one in after.values()}),
            ("run on itself", {one.id: one.runs_on for one in after.values()}),
        ):
            circle = find_cycle(edges, [product.id])
            if circle:
                raise Refused(f'product "{product.id}" would {would}: {" -> ".join(circle)}')
        gave = given(after.values())
        for parent in product.parents:
            if gave[parent] > 1 and not (before and before.parents.get(parent) == product.parents[parent]):
                left = 1 - gave[parent] + product.parents[parent]
                raise Refused(
                    f'product "{product.id}": "{parent}" gave away all but {float(left):.12g} of its EPC; '
                    f"a weight of {float(product.parents[parent]):.12g} is too much"
                )
        if product.amortise == "units" and not product.written_off:
            raise Refused(
                f'product "{product.id}": to amortise it by units, say how many it is expected to serve in its life '
                "(--expected-units N), or amortise it by time"
            )
        if product.tax_by != "weight" and (product.concurrency_ppm or product.scope == "fleet"):
            raise Refused(
                f'product "{product.id}": taxes by {product.tax_by} are split over the jobs of one node, and a '
                "concurrency or the scope fleet counts those of others by weight; take --scope node without "
                "--concurrency, or --tax-by weight"
            )
        payable(product)

    def _check_cost(self, product_id: str, event: Event) -> None:
        product = self._product(product_id)
        if product.epc_own_ng is not None:
            where = "in the configuration" if product_id in self._declared else "with --epc-kg"
            raise Refused(
                f'product "{product_id}" has a declared EPC ({where}), of which a cost would be left out; '
                "declare the whole figure, or let the EPC be computed"
            )
        if min(event["ng"]) < 0:
            raise Refused(f'product "{product_id}": a cost is at least 0')
        there = self._registry.costs.get(product_id, {}).get(event["cost_id"])
        if there is not None and not event.get("replaces"):
            raise Refused(
                f'product "{product_id}" has another cost with the id "{event["cost_id"]}" '
                f"({there.mass.central / 1e12:g} kg, {there.note!r}); add --replace if that one is wrong"
            )
        if there is None and event.get("replaces"):
            raise Refused(f'product "{product_id}" has no cost with the id "{event["cost_id"]}" to replace')

    def _check_freeze(self, product_id: str, event: Event) -> None:
        product = self._product(product_id)
        if product_id in self._declared and product.epc_own_ng is not None:
            raise Refused(f'product "{product_id}" has its EPC declared in the configuration: set its status there')
        if product.frozen is not None:
            raise Refused(f'product "{product_id}" is frozen already')
        still_open = [parent for parent in product.parents if not self._settled(parent)]
        if still_open:
            raise Refused(
                f'product "{product_id}": its parent "{still_open[0]}" isn\'t frozen yet, so what it inherits still '
                f"changes; freeze that first"
            )
        if set(event["inherited_ng"]) != set(product.parents):
            raise Refused(f'product "{product_id}" changed meanwhile: try again')
        payable(product)

    def _settled(self, product_id: str) -> bool:
        """Whether a product's EPC moves no more, nor that of what it inherits from."""
        seen = {product_id}
        for one in (queue := [product_id]):
            product = self._products.get(one)
            if product is not None and product.frozen is not None:
                continue
            if one not in self._declared or product is None or product.epc_own_ng is None or product.status == "open":
                return False
            queue.extend(parent for parent in product.parents if parent not in seen)
            seen.update(product.parents)
        return True

    def _meant(self, word: str) -> str:
        meant = get_close_matches(word, self._products, n=1) if len(self._products) <= 10_000 else []
        return f'; did you mean "{meant[0]}"?' if meant else "; add it first (product add), or see: product list"


_WORDS = {"epc_ng": "declared EPC", "lifetime_s": "lifetime", "amortise": "way of amortising it"}


def _same(before: Product, after: Product, key: str) -> bool:
    if key == "epc_ng":
        return (before.epc_low_ng, before.epc_own_ng, before.epc_high_ng) == (
            after.epc_low_ng,
            after.epc_own_ng,
            after.epc_high_ng,
        )
    return bool(getattr(before, key) == getattr(after, key))


def payable(product: Product) -> None:
    """Raises Refused where every node would bill a product's overhead or EPC in full. A unit is served on one node."""
    by_time = product.lifetime_s if product.amortise == "time" else None
    if (product.overhead_rate or by_time) and not product.concurrency_ppm and product.scope is None:
        what = "overhead" if product.overhead_rate else "EPC"
        raise Refused(
            f'product "{product.id}": its {what} would be billed in full by every node; give it a concurrency (how '
            "many jobs use it at once, on all nodes together), or a scope: fleet (counted by the shared ledger) or "
            "node (only jobs of one node use it)"
        )
