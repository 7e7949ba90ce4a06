"""One serving engine, by the address of its page of metrics: what it served since the page before."""

from collections.abc import Callable, Mapping, Sequence

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.collectors.engines.counters import Counters, Work
from wattribute.collectors.engines.fetch import fetch
from wattribute.collectors.engines.mappings import SWITCH, told_by
from wattribute.collectors.engines.page import read_page


class EngineCollector:
    """Reads an engine of a kind that mappings.py has. `counters`: selectors by field, in its kind's place.

    Raises ValueError for a selector that is none. Keeps nothing open: it is asked seldom.
    """

    def __init__(
        self,
        name: str,
        url: str,
        kind: str,
        *,
        counters: Mapping[str, str],
        timeout_s: float,
        now_ns: Callable[[], int],
    ) -> None:
        self.name = name
        self.url = url
        self.fields = frozenset(told := told_by(kind, counters))
        self._kind = kind
        self._timeout_s = timeout_s
        self._now_ns = now_ns
        self._counters = Counters(told)

    def read(self) -> Sequence[Work]:
        """One Work. Blocks for the time-out at most. Raises SensorUnavailable."""
        switch = SWITCH.get(self._kind, "")
        body, at_ns = fetch(self.url, self._timeout_s, self._now_ns, switch)
        page = read_page(body, self._counters.wanted)
        work = self._counters.take(page, at_ns)
        if work is None:
            unread = f" (lines that couldn't be read: {page.skipped})" if page.skipped else ""
            raise SensorUnavailable(
                f"its page has no series that tells what was served{unread}",
                'set kind, or url to its own page; for another engine kind = "other" and counters',
            )
        return [work]

    def close(self) -> None:
        """Nothing is open."""
