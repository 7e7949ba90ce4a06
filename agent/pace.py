"""How often totals are taken and committed: as often as that costs little.

On a full node one commit packs, hands over and writes a thousand rows. What is spent so is earned at a fixed part of a
core; nothing is lost in between, since an agent that is killed goes on from the counters.
"""

LEAST_NS = 450_000_000
"""No commit for time's sake comes sooner after the one before; those at starts and ends of jobs do."""

EARNED_PPM = 1_000
"""CPU time per time for taking and committing, in both threads, in millionths of a core."""

MOST_NS = 10_000_000
"""So much can be saved up, and owed: a page is at most 10 s older than it must be, whatever a commit costs."""


class Pace:
    """Tells when the next commit may be. Times are any monotone clock's."""

    def __init__(self) -> None:
        self._credit_ns = MOST_NS
        self._at_ns = 0
        self._used_ns = 0

    def due(self, now_ns: int, since_ns: int, used_ns: int) -> bool:
        """Whether to commit again, `since_ns` after the last one, when all so far have cost `used_ns` of CPU time."""
        earned_ns = (now_ns - self._at_ns) * EARNED_PPM // 1_000_000
        self._credit_ns = min(MOST_NS, max(-MOST_NS, self._credit_ns - used_ns + self._used_ns) + earned_ns)
        self._at_ns, self._used_ns = now_ns, used_ns
        return since_ns >= LEAST_NS and self._credit_ns >= 0
