"""Between a node's parts of a fleet's metered overhead and the courier: only what is durable is offered."""

from typing import TYPE_CHECKING

from wattribute.agent.core.fleet_parts import Key
from wattribute.agent.core.fleet_shares import FleetShares

if TYPE_CHECKING:
    from wattribute.agent.courier import Courier
    from wattribute.agent.norecord import NoRecord
    from wattribute.agent.record import Record


class FleetExchange:
    """A part that others may have seen must still be there after a kill: it is offered once it was committed."""

    def __init__(self, shares: FleetShares, courier: "Courier") -> None:
        self._shares = shares
        self._courier = courier
        self._written: dict[Key, int] = {}  # of a part -> the last batch without it
        shares.join(courier.node_id)

    def follow(self) -> dict[str, int]:
        """Before a tick: what the archive has closed. Products that others shall wait for, with no weight."""
        self._shares.hear(self._courier.take_closed())
        return dict.fromkeys(self._shares.expected(), 0)

    def collect(self, record: "Record | NoRecord") -> None:
        """After a tick: what the archive may be offered."""
        waiting = self._shares.waiting()
        self._written = {part.key: self._written.get(part.key, record.written) for part in waiting}
        committed = record.committed
        self._courier.fleet_parts = [part for part in waiting if self._written[part.key] < committed]
