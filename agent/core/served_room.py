"""How much of metered requests is kept for one user and for all, so that reports that make up names without end use up
neither the agent's memory nor the page, and one user leaves the others some.
"""

from collections import Counter
from collections.abc import Mapping

PRODUCTS_MAX = 1000
"""So many products may have metered requests: what was shown of one stays for good."""
TENANTS_MAX = 5000
"""So many tenants of all products together have a name of their own."""
ENTRIES_MAX = 400_000
"""So many counts and rows of all reports are remembered, some 100 MB, and rows split at one tick, in some 0.8 s."""
PAST_MAX = 200_000
"""So many counts of senders whose jobs are over."""
_PARTS = 5  # a user other than root has one of them


class Room:
    """So many of something, by user."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used: Counter[int] = Counter()

    def left(self, uid: int) -> int:
        """How many more a user may have."""
        on_node = self._most - self._used.total()
        return on_node if uid == 0 else min(on_node, self._most // _PARTS - self._used[uid])

    def take(self, uid: int, more: int = 1) -> None:
        """So many more are a user's."""
        self._used[uid] += more

    def count(self, used: Mapping[int, int]) -> None:
        """So many are, by user, all told."""
        self._used = Counter(used)


class Rooms:
    """What all products of a node share: names of tenants, and counts of senders whose jobs are over."""

    def __init__(self) -> None:
        self.tenants = Room(TENANTS_MAX)
        self.past = Room(PAST_MAX)


__all__ = ["ENTRIES_MAX", "PRODUCTS_MAX", "Room", "Rooms"]
