"""What the web server turned away, counted by reason and said in the log: a line per reason and minute at most."""

import logging
import math
from typing import Literal, TypeAlias, get_args

from wattribute.exporters.messages import Response

Reason: TypeAlias = Literal["auth", "bad_request", "busy", "rate_limit", "timeout", "tls", "too_large"]

REASONS: tuple[Reason, ...] = get_args(Reason)
SAID_EVERY_S = 60.0
BY_STATUS: dict[int, Reason] = {
    400: "bad_request",
    401: "auth",
    413: "too_large",
    429: "rate_limit",
    431: "too_large",
    503: "busy",
    505: "bad_request",
}

logger = logging.getLogger(__name__)


class Refusals:
    """Counts since the start, by reason."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(REASONS, 0)
        self._said = dict(self.counts)
        self._said_at_s: dict[str, float] = dict.fromkeys(REASONS, -math.inf)
        self._last: dict[str, tuple[str, str]] = {}

    def count(self, reason: Reason, peer: str, why: str) -> None:
        """One more. `peer`: the address it came from."""
        self.counts[reason] += 1
        self._last[reason] = peer, why

    def count_response(self, response: Response, peer: str) -> None:
        """One more, whose reason is what it was answered."""
        self.count(BY_STATUS[response.status], peer, response.body.decode(errors="replace").strip())

    def tell(self, now_s: float) -> None:
        """Log what is new (seconds of any monotonic clock); to be called about once a second."""
        for reason, count in self.counts.items():
            more = count - self._said[reason]
            if more and now_s - self._said_at_s[reason] >= SAID_EVERY_S:
                peer, why = self._last[reason]
                since = "" if self._said[reason] == 0 else " since this was last said"
                logger.warning("refused %d%s, reason %s; the last from %s: %s", more, since, reason, peer, why)
                self._said[reason], self._said_at_s[reason] = count, now_s
