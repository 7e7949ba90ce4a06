"""Metered overhead of a fleet's products, split over the payers of all nodes, exactly.

Per product, kind and interval (platform: a minute; retraining: the product's own; aligned to Unix time) a node has a
part: what its jobs of that kind cost (ng), and its payers' weight (platform: millionths times milliseconds present;
retraining: millionths of the jobs served). A part of an interval that is over is sealed and never changes; once the
archive has closed the interval, every node splits the same total by the same weights. A part that came too late goes to
the current interval, without its weight. Who was there is kept as stays, from which any interval's weights follow.
Source: formulas.md, "Operation" (platform and retraining tax) and "Varying rates", with W over the product's scope.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from wattribute.agent.core.attribution import apportion
from wattribute.agent.core.chunks import Chunks
from wattribute.agent.core.fleet_parts import MOST_WAITING, MS, Amounts, Group, Key, Kind, Part, Stay, Verdict, slices
from wattribute.agent.core.retraining import Closed
from wattribute.agent.core.tariff import Metered
from wattribute.agent.core.units import DAY_S, NS_PER_S

_Place: TypeAlias = tuple[str, Kind]
_Cost: TypeAlias = tuple[int, int]

PLATFORM_S = 60
MOST_OFFERED = 240
"""So many of the oldest are offered to the archive; any of them may be there, so that they never change."""
MOST_AT_ONCE = 20
"""Intervals that are booked in one tick."""
PREFIX = "fleet:"
_SET_BACK_NS = NS_PER_S


class FleetShares:
    """A node's parts. Does nothing until it has joined; what it was given to keep it keeps nevertheless."""

    def __init__(self) -> None:
        self._node_id: str | None = None
        self._products: Mapping[str, int | None] = {}  # a fleet's -> seconds of a retraining interval
        self._groups: dict[tuple[str, Kind], Group] = {}
        self._chunks = Chunks(PREFIX)
        self._stays_of = Counter[str]()  # job id -> its stays
        self._events: list[tuple[int, str, str | None, int]] = []  # when, product, job (None: all), weight (0: leaves)
        self._verdicts: dict[Key, Verdict] = {}
        self._unix_ns = self._serial = 0

    def join(self, node_id: str) -> None:
        """Exchange parts with other nodes from now on."""
        self._node_id = node_id

    def declare(self, products: Mapping[str, int | None], at_ns: int) -> None:
        """Which products are a fleet's, and the seconds of their retraining intervals; payers of others leave."""
        self._products = products
        for (product_id, kind), group in self._groups.items():
            if kind == "retraining":
                group.length_ns = self._length_ns(product_id, kind)
            elif product_id not in products and self._node_id is not None:
                self._events.append((at_ns, product_id, None, 0))

    def takes(self, product_id: str) -> bool:
        """Whether what a product's jobs cost is exchanged."""
        return self._node_id is not None and product_id in self._products

    def enter(self, product_id: str, job_id: str, weight_ppm: int, at_ns: int) -> None:
        """A payer of the platform arrives, or goes on with another weight."""
        if self.takes(product_id):
            self._events.append((at_ns, product_id, job_id, weight_ppm))

    def leave(self, product_id: str, job_id: str, at_ns: int) -> None:
        """A payer of the platform leaves."""
        if self._node_id is not None:
            self._events.append((at_ns, product_id, job_id, 0))

    def serve(self, product_id: str, job_id: str, weight_ppm: int, unix_ns: int) -> None:
        """A job that a product served ended; twice in an interval counts once, as the last time."""
        place: _Place = (product_id, "retraining")
        group = self._group(place)
        group.open(unix_ns)
        at_ms = max(unix_ns, group.start_unix_ns) // MS
        known = group.present.get(job_id)
        if known is None:
            group.present[job_id] = self._stay(place, Stay(job_id, weight_ppm, at_ms, at_ms + 1))
        elif group.stays[known].weight_ppm != weight_ppm:
            self._put(place, known, group.stays[known]._replace(weight_ppm=weight_ppm))

    def open(self, job_id: str) -> bool:
        """Whether a job was there in an interval that isn't booked yet."""
        return self._node_id is not None and job_id in self._stays_of

    def waiting(self) -> list[Part]:
        """The oldest parts that are sealed and not booked: what the archive is to be offered."""
        return [part for group in self._groups.values() for part in list(group.sealed.values())[:MOST_OFFERED]]

    def exchanged(self, metered: Mapping[str, Metered]) -> tuple[dict[_Place, _Cost], Mapping[str, Metered]]:
        """What of a tick's cost is split over the payers of all nodes, and what over those here."""
        exchanged: dict[_Place, _Cost] = {}
        kept = dict(metered)
        for product_id in metered:
            if self.takes(product_id):
                amounts = kept.pop(product_id)
                exchanged[product_id, "platform"] = amounts.platform_ng, amounts.platform_hardware_ng
                exchanged[product_id, "retraining"] = amounts.retraining_ng, amounts.retraining_hardware_ng
        return exchanged, kept

    def expected(self) -> set[str]:
        """Products of whose platform other nodes should wait for this node's part."""
        return {
            product_id
            for (product_id, kind), group in self._groups.items()
            if kind == "platform" and (group.sealed or group.is_open)
        }

    def hear(self, verdicts: Iterable[Verdict]) -> None:
        """What the archive has closed; it is booked with the next ticks."""
        self._verdicts |= {verdict.key: verdict for verdict in verdicts}

    def settle(self, at_ns: int, start_unix_ns: int, unix_ns: int, metered: Mapping[_Place, _Cost]) -> list[Closed]:
        """A tick until `unix_ns`, in which jobs cost `metered`; gives back what closed intervals came to on this node.

        `at_ns` is its end by the agent's clock.
        """
        if self._node_id is None:
            return []
        if unix_ns + _SET_BACK_NS < self._unix_ns:
            self._set_back(start_unix_ns)
        self._unix_ns = unix_ns
        for event_ns, product_id, job_id, weight_ppm in self._events:
            when_ns = min(max(start_unix_ns, event_ns + unix_ns - at_ns), unix_ns)
            self._change(product_id, job_id, weight_ppm, when_ns)
        self._events = []
        for place, cost in metered.items():
            if any(cost):
                self._group(place).open(start_unix_ns)
                self._pass(place, start_unix_ns, unix_ns, cost)
        for place, group in self._groups.items():
            if group.is_open and group.end_unix_ns <= unix_ns:
                self._pass(place, start_unix_ns, unix_ns, (0, 0))
        return self._book(unix_ns)

    # What survives a restart

    def chunks(self) -> dict[str, Any]:
        """What changed of stays and parts since the last call, as plain JSON values under stable names."""
        return self._chunks.changed()

    def restore_chunks(self, state: Mapping[str, Any]) -> None:
        """Take in the last that `chunks` gave under each name; other names are left alone. `restore` comes next."""
        for number, (what, product_id, kind, *row) in self._chunks.restore(state):
            group = self._group((product_id, kind))
            if what == "stay":
                group.stays[number] = stay = Stay(*row)
                self._stays_of[stay.job_id] += 1
            else:
                start_unix_ns, end_unix_ns, *amounts = row
                group.sealed[number] = Part(Key(product_id, kind, start_unix_ns, end_unix_ns), Amounts(*amounts))

    def save(self) -> dict[str, Any]:
        """The rest, as plain JSON values."""
        groups = [
            [*place, g.start_unix_ns, g.end_unix_ns, g.is_open, g.jsc_ng, g.hardware_ng]
            for place, g in self._groups.items()
        ]
        return {"unix_ns": self._unix_ns, "serial": self._serial, "groups": groups}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `save` gave: payers that have entered since the start stay, the others left when it ended."""
        self._unix_ns, self._serial = saved["unix_ns"], saved["serial"]
        for product_id, kind, start_unix_ns, end_unix_ns, is_open, jsc_ng, hardware_ng in saved["groups"]:
            group = self._group((product_id, kind))
            group.start_unix_ns, group.end_unix_ns, group.is_open = start_unix_ns, end_unix_ns, is_open
            group.jsc_ng, group.hardware_ng = jsc_ng, hardware_ng
        went_on = {(product_id, job_id) for _, product_id, job_id, weight_ppm in self._events if weight_ppm}
        for place, group in self._groups.items():
            for number, stay in list(group.stays.items()):
                if place[1] == "retraining":
                    if group.is_open and stay.since_ms >= group.start_unix_ns // MS:
                        group.present[stay.job_id] = number
                elif stay.until_ms is None:
                    group.present[stay.job_id] = number
                    if (place[0], stay.job_id) not in went_on:
                        self._end(place, stay.job_id, self._unix_ns)

    # Inside

    def _length_ns(self, product_id: str, kind: Kind) -> int:
        return (PLATFORM_S if kind == "platform" else self._products.get(product_id) or DAY_S) * NS_PER_S

    def _group(self, place: _Place) -> Group:
        group = self._groups.get(place)
        if group is None:
            group = self._groups[place] = Group(self._length_ns(*place))
        return group

    def _stay(self, place: _Place, stay: Stay) -> int:
        number = self._chunks.add(["stay", *place, *stay])
        self._groups[place].stays[number] = stay
        self._stays_of[stay.job_id] += 1
        return number

    def _put(self, place: _Place, number: int, stay: Stay) -> None:
        self._groups[place].stays[number] = stay
        self._chunks.put(number, ["stay", *place, *stay])

    def _change(self, product_id: str, job_id: str | None, weight_ppm: int, unix_ns: int) -> None:
        place: _Place = (product_id, "platform")
        group = self._groups.get(place)
        if job_id is None or not weight_ppm:
            for one in () if group is None else [job_id] if job_id is not None else list(group.present):
                self._end(place, one, unix_ns)
            return
        group = self._group(place)
        known = group.present.get(job_id)
        if known is not None and group.stays[known].weight_ppm == weight_ppm:
            return
        self._end(place, job_id, unix_ns)
        group.open(unix_ns)
        since_ms = max(unix_ns, group.start_unix_ns) // MS
        group.present[job_id] = self._stay(place, Stay(job_id, weight_ppm, since_ms, None))

    def _end(self, place: _Place, job_id: str, unix_ns: int) -> None:
        """A payer of the platform leaves; what was sealed with it stays as it is, and a moment is a millisecond."""
        group = self._groups[place]
        number = group.present.pop(job_id, None)
        if number is not None:
            stay = group.stays[number]
            until_ms = max(unix_ns // MS, stay.since_ms + 1, group.start_unix_ns // MS)
            self._put(place, number, stay._replace(until_ms=until_ms))

    def _set_back(self, unix_ns: int) -> None:
        """The clock was set back: what is open ends where it was, and begins anew."""
        for place, group in self._groups.items():
            payers = {job_id: group.stays[number].weight_ppm for job_id, number in group.present.items()}
            if place[1] == "platform":
                for job_id in payers:
                    self._end(place, job_id, self._unix_ns)
            group.present = {}
            if group.is_open:
                self._seal(place, group.start_unix_ns, group.end_unix_ns, group.jsc_ng, group.hardware_ng)
            group.is_open = False
            group.start_unix_ns = group.end_unix_ns = group.jsc_ng = group.hardware_ng = 0
            self._trim(group)
            if place[1] == "platform":
                for job_id, weight_ppm in payers.items():
                    self._change(place[0], job_id, weight_ppm, unix_ns)

    def _pass(self, place: _Place, start_unix_ns: int, unix_ns: int, cost: _Cost) -> None:
        """Spread a cost evenly over a stretch of time, and seal the intervals that are over."""
        group = self._groups[place]
        pieces = group.pieces(unix_ns)
        overlaps = [max(0, min(end, unix_ns) - max(start, start_unix_ns)) for start, end in pieces]
        if not any(overlaps):
            overlaps[-1] = 1
        jscs_ng, hardwares_ng = (apportion(ng, overlaps) for ng in cost)
        jscs_ng[0] += group.jsc_ng
        hardwares_ng[0] += group.hardware_ng
        *over, last = zip(pieces, jscs_ng, hardwares_ng, strict=True)
        (group.start_unix_ns, group.end_unix_ns), group.jsc_ng, group.hardware_ng = last
        if not over:
            return
        for (start, end), jsc_ng, hardware_ng in over:
            self._seal(place, start, end, jsc_ng, hardware_ng)
        start_ms = group.start_unix_ns // MS
        if place[1] == "retraining":
            group.present = {}
        begun = any(stay.until_ms is None or stay.until_ms > start_ms for stay in group.stays.values())
        if not (begun or group.jsc_ng or group.hardware_ng):
            group.is_open, group.end_unix_ns = False, group.start_unix_ns
        self._trim(group)

    def _seal(self, place: _Place, start_unix_ns: int, end_unix_ns: int, jsc_ng: int, hardware_ng: int) -> None:
        group = self._groups[place]
        weight = sum(group.weights(place[1], start_unix_ns, end_unix_ns).values())
        if not (jsc_ng or hardware_ng or weight):
            return
        self._serial += 1
        key = Key(*place, start_unix_ns, end_unix_ns)
        self._keep(group, Part(key, Amounts(jsc_ng, hardware_ng, weight, self._serial)))
        if len(group.sealed) > MOST_WAITING:
            oldest, older = list(group.sealed)[MOST_OFFERED : MOST_OFFERED + 2]
            merged, onto = self._drop(group, oldest).amounts, group.sealed[older]
            amounts = onto.amounts._replace(
                jsc_ng=onto.amounts.jsc_ng + merged.jsc_ng,
                hardware_ng=onto.amounts.hardware_ng + merged.hardware_ng,
            )
            group.sealed[older] = onto._replace(amounts=amounts)
            self._chunks.put(older, ["part", *onto.key, *amounts])

    def _keep(self, group: Group, part: Part) -> None:
        group.sealed[self._chunks.add(["part", *part.key, *part.amounts])] = part

    def _drop(self, group: Group, number: int) -> Part:
        self._chunks.drop(number)
        return group.sealed.pop(number)

    def _trim(self, group: Group) -> None:
        """Forget the stays that no part needs any more."""
        needed = group.needs()
        for number, stay in list(group.stays.items()):
            if not needed(stay):
                del group.stays[number]
                self._chunks.drop(number)
                self._stays_of[stay.job_id] -= 1
                if not self._stays_of[stay.job_id]:
                    del self._stays_of[stay.job_id]

    def _book(self, unix_ns: int) -> list[Closed]:
        """What closed intervals came to; an overhead that came too late goes to the interval that is open."""
        found = []
        for key in list(self._verdicts)[:MOST_AT_ONCE]:
            verdict = self._verdicts.pop(key)
            group = self._group((key.product_id, key.kind))
            number = next((number for number, part in group.sealed.items() if part.key == key), None)
            if number is None:
                continue
            amounts = self._drop(group, number).amounts
            if verdict.parts.get(self._node_id or "") == amounts:
                found.append(self._split(group, verdict))
            elif amounts.jsc_ng or amounts.hardware_ng:
                group.open(unix_ns)
                group.jsc_ng += amounts.jsc_ng
                group.hardware_ng += amounts.hardware_ng
            self._trim(group)
        return [closed for closed in found if closed.parts or any(closed.untaxed)]

    def _split(self, group: Group, verdict: Verdict) -> Closed:
        """This node's slice over its own jobs."""
        key = verdict.key
        times = key.start_unix_ns, key.end_unix_ns
        jsc_ng, hardware_ng = slices(verdict.parts)[self._node_id or ""]
        weights = group.weights(key.kind, *times)
        jobs = sorted(weights)
        cause = f"fleet_{key.kind}"
        if not jobs:
            return Closed(key.product_id, *times, {}, (jsc_ng, hardware_ng), key.kind, cause)
        both = (apportion(ng, [weights[job] for job in jobs]) for ng in (jsc_ng, hardware_ng))
        parts = {job: part for job, *part in zip(jobs, *both, strict=True) if any(part)}
        return Closed(key.product_id, *times, {j: (a, b) for j, (a, b) in parts.items()}, (0, 0), key.kind, cause)


def waiting(state: Mapping[str, Any]) -> set[str]:
    """The jobs that may still be billed what the fleet metered, by what `chunks` gave: for who reads it elsewhere."""
    return {Stay(*row).job_id for _, (what, _, _, *row) in Chunks(PREFIX).restore(state) if what == "stay"}
