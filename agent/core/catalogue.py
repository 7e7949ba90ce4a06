"""What hardware costs to make, by item: published figures with bounds, and which item fits a thing by its name."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Sure: TypeAlias = Literal["exact", "close", "generic"]
"""The item is about this very model; about a sibling, or derived; about things of its kind."""

HOST_OF_EIGHT = "server-8gpu-host"
GENERIC: Mapping[str, str] = {
    "server": "server-generic",
    "chassis": "server-chassis",
    "cpu": "cpu-generic",
    "dram": "dram",
    "gpu": "gpu-generic",
    "ssd": "ssd",
    "hdd": "hdd",
}
"""Which item stands for a kind of thing that no other item is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry: kg CO2e per `unit`, low <= central <= high.

    `exact` and `close` are patterns of the names that it is about; `hgx`: of those of its names that sit on a board of
    eight. `boundary` says from where to where the life cycle is counted, `derived` how a figure was made that nobody
    has published.
    """

    id: str
    component: Literal["server", "cpu", "dram", "gpu", "ssd", "other"]
    what: str
    low: float
    central: float
    high: float
    unit: Literal["each", "GB"] = "each"
    boundary: str
    source: str
    year: int
    licence: str
    derived: str = ""
    exact: str = ""
    close: str = ""
    hgx: str = ""


Catalogue: TypeAlias = Mapping[str, Item]
"""Items by id, in the order in which they are tried."""


def best(catalogue: Catalogue, kind: str, name: str) -> tuple[Item, Sure]:
    """The item that fits a thing of a kind (a key of GENERIC) by its name, and how surely."""
    generic = catalogue[GENERIC[kind]]
    candidates = [item for item in catalogue.values() if item.component == generic.component]
    if any(item := one for one in candidates if _fits(one.exact, name)):
        return item, "exact"
    if any(item := one for one in candidates if _fits(one.close, name)):
        return item, "close"
    return generic, "generic"


def on_boards_of_eight(catalogue: Catalogue, gpu_names: Iterable[str]) -> int:
    """How many of some GPUs are of the kind that sits on a board of eight."""
    patterns = [item.hgx for item in catalogue.values() if item.hgx]
    return sum(any(_fits(pattern, name) for pattern in patterns) for name in gpu_names)


def _fits(pattern: str, name: str) -> bool:
    return bool(pattern) and re.search(pattern, name, re.IGNORECASE) is not None
