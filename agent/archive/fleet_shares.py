"""Nodes exchange their parts of a fleet's metered overhead; whoever comes first closes an interval.

A part, once there, is never changed. The row of a closed interval holds the parts that count, so that no lock is
needed: a part that isn't in it came too late, whenever it was written. Every statement may be repeated.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from wattribute.agent.archive.database import Database, insert
from wattribute.agent.core.fleet_parts import Amounts, Key, Kind, Part, Verdict
from wattribute.agent.core.units import NS_PER_S

GRACE_NS: Mapping[Kind, int] = {"platform": 60 * NS_PER_S, "retraining": 600 * NS_PER_S}
"""So long after the first part of an interval the others are waited for."""
LATELY_NS = 60 * NS_PER_S

_PART = ("product_id", "kind", "start_unix_ns", "end_unix_ns", "node_id")
_AMOUNTS = ("jsc_ng", "hardware_ng", "weight", "serial")
_KEY = "product_id = :product_id AND kind = :kind AND start_unix_ns = :start_unix_ns AND end_unix_ns = :end_unix_ns"


def exchange(database: Database, node_id: str, parts: Sequence[Part]) -> list[Verdict]:
    """Offer a node's parts, close what can be closed; what is closed of these intervals. Raises LedgerError."""
    known = _closed(database, parts)
    waiting = sorted(part for part in parts if part.key not in known)  # all nodes in one order: none waits in a circle
    if waiting:
        with database.transaction(writing=True):
            now_unix_ns = database.now_unix_ns()
            rows = [
                (*p.key, node_id, p.amounts.jsc_ng, p.amounts.hardware_ng, str(p.amounts.weight), p.amounts.serial)
                for p in waiting
            ]
            insert(
                database,
                "fleet_parts",
                (*_PART, *_AMOUNTS, "at_unix_ns"),
                [(*row, now_unix_ns) for row in rows],
                "ON CONFLICT DO NOTHING",
            )
            for part in waiting:
                if _ready(database, part.key, now_unix_ns):
                    _close(database, part.key, now_unix_ns)
        known |= _closed(database, waiting)
    return list(known.values())


def _ready(database: Database, key: Key, now_unix_ns: int) -> bool:
    """Whether nobody is to be waited for any more: who uses a platform is known, who has served jobs isn't."""
    params = key._asdict()
    ((first_unix_ns,),) = database.rows(f"SELECT MIN(at_unix_ns) FROM fleet_parts WHERE {_KEY}", params)
    if now_unix_ns - first_unix_ns > GRACE_NS[key.kind]:
        return True
    return key.kind == "platform" and not database.rows(
        "SELECT node_id FROM presence WHERE product_id = :product_id AND at_unix_ns > :after"
        f" AND node_id NOT IN (SELECT node_id FROM fleet_parts WHERE {_KEY}) LIMIT 1",
        {**params, "after": now_unix_ns - LATELY_NS},
    )


def _close(database: Database, key: Key, now_unix_ns: int) -> None:
    """Say for good which parts count, as they are seen now."""
    found = database.rows(f"SELECT node_id, {', '.join(_AMOUNTS)} FROM fleet_parts WHERE {_KEY}", key._asdict())
    parts = sorted((node, jsc, hardware, int(weight), serial) for node, jsc, hardware, weight, serial in found)
    jsc_ng, hardware_ng, weight = (sum(part[place] for part in parts) for place in (1, 2, 3))
    # Where nothing was metered there is nothing to split, however many were there.
    body = json.dumps(parts if jsc_ng or hardware_ng else [], separators=(",", ":"))
    insert(
        database,
        "fleet_closed",
        (*_PART[:-1], *_AMOUNTS[:-1], "parts", "at_unix_ns"),
        [(*key, jsc_ng, hardware_ng, str(weight), body, now_unix_ns)],
        "ON CONFLICT DO NOTHING",
    )


def _closed(database: Database, parts: Iterable[Part]) -> dict[Key, Verdict]:
    """Those of the intervals that are closed."""
    found: dict[Key, Verdict] = {}
    keys = sorted(part.key for part in parts)
    for (product_id, kind), some in groupby(keys, lambda key: (key.product_id, key.kind)):
        wanted = set(some)
        starts = [key.start_unix_ns for key in wanted]
        for start_unix_ns, end_unix_ns, body in database.rows(
            "SELECT start_unix_ns, end_unix_ns, parts FROM fleet_closed WHERE product_id = :product_id"
            " AND kind = :kind AND start_unix_ns BETWEEN :first AND :last",
            {"product_id": product_id, "kind": kind, "first": min(starts), "last": max(starts)},
        ):
            key = Key(product_id, kind, start_unix_ns, end_unix_ns)
            if key in wanted:
                found[key] = Verdict(key, {node: Amounts(*amounts) for node, *amounts in json.loads(body)})
    return found
