"""How a node does: the health of all that it reads, of its record, and of what serves its numbers."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from wattribute.agent.climate import Climate
from wattribute.agent.core.model import SourceHealth
from wattribute.agent.cpu_reads import CpuReads
from wattribute.agent.dues import Dues
from wattribute.agent.rounds import Rounds

if TYPE_CHECKING:
    from wattribute.agent.norecord import NoRecord
    from wattribute.agent.record import Record


class Web(Protocol):
    """What a Node needs of its web server: how often it refused to serve, by reason, and how its web file is."""

    @property
    def refused(self) -> Mapping[str, int]: ...
    def health(self) -> Iterable[SourceHealth]: ...


class Outlet(Protocol):
    """What a Node needs of what pushes its metrics elsewhere: how that goes."""

    def health(self) -> Iterable[SourceHealth]: ...


class Condition:
    """Of one node. `web` serves its pages and `otlp` pushes its metrics, where something does."""

    def __init__(
        self, reads: CpuReads, rounds: Rounds, record: "Record | NoRecord", climate: Climate, dues: Dues
    ) -> None:
        self.web: Web | None = None
        self.otlp: Outlet | None = None
        self._reads = reads
        self._rounds = rounds
        self._record = record
        self._climate = climate
        self._dues = dues

    def sources(self) -> list[SourceHealth]:
        """Each by itself."""
        read = (self._reads.health(), *self._rounds.health(), *self._rounds.finders_health())
        web = () if self.web is None else self.web.health()
        otlp = () if self.otlp is None else self.otlp.health()
        return [*read, *self._record.health(), *self._climate.health(), *self._dues.health(), *web, *otlp]

    def told(self, *, whole: bool) -> list[dict[str, Any]]:
        """As the protocol tells it. Why one that tells of jobs is down may name them: said only in the `whole`."""
        hushed = set() if whole else {h.name for h in self._rounds.finders_health()}
        return [
            {
                "source": h.name,
                "up": h.up,
                "why": h.why if h.name not in hushed or not h.why else "root and the agent's own user are told why",
                "fix": "" if h.name in hushed else h.fix,
                "failures": dict(h.failures),
            }
            for h in self.sources()
        ]

    def problem(self, required: Collection[str]) -> str:
        """Why the node isn't healthy, in words; "" where what is required of it, and its ledger, are."""
        needed = {*required, "ledger"}
        down = [h for h in self.sources() if not h.up and h.name in needed and not h.released]
        return "; ".join(f"{h.name}: {h.why}" for h in down)

    def web_refused(self) -> dict[str, int]:
        """How often the web server refused to serve, by reason."""
        return {} if self.web is None else dict(self.web.refused)


__all__ = ["Condition"]
