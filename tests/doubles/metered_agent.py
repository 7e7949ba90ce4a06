"""An agent that keeps what it is told of served work, and bills every microsecond of busy time with a microjoule."""

from collections import Counter
from typing import Any

from tests.doubles.fake_node import FakeNode
from wattribute.agent.core.errors import Refused
from wattribute.agent.requests import Peer, Units

BILL = 8


class MeteredNode(FakeNode):
    """`reports` are those that tell something, `asked` the others. `lost` answers are taken in and never given."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[Units] = []
        self.asked: list[Units] = []
        self.lost = 0
        self.interval_s = 0.05
        self.retraining_open = False
        self.price: tuple[str, float] | None = None
        self._windows: list[tuple[int, dict[int, list[list[Any]]]]] = []
        self._until_ns = 0

    def units(self, request: Units, peer: Peer) -> dict[str, Any]:
        if not self._members.get(request.job_id):
            raise Refused(f"there is no job {request.job_id!r}")
        if request.until_ns == 0:
            self.asked.append(request)
        else:
            self.reports.append(request)
            self._take(request)
        if self.lost:
            self.lost -= 1
            raise RuntimeError("the answer is lost")
        unit, ng = self.price or (None, None)
        windows = [
            {"since_ns": 0, "until_ns": until_ns, "rows": rows.get(request.slot, [])}
            for until_ns, rows in self._windows
            if request.seen_ns is not None and until_ns > request.seen_ns
        ]
        answer = {"windows": windows, "unit": unit, "product_ng_per_unit": ng, "retraining_open": self.retraining_open}
        return {"job_id": request.job_id, "until_ns": self._until_ns, "interval_s": self.interval_s, **answer}

    def _take(self, request: Units) -> None:
        until_ns = request.until_ns or 0
        if until_ns <= self._until_ns:
            return
        self._until_ns = until_ns
        rows: dict[int, list[list[Any]]] = {}
        for slot, place, _, busy_ns in request.shares or ():
            energy_uj = busy_ns // 1000
            row = [request.served[place].tenant, energy_uj, *(energy_uj * term for term in range(1, BILL))]
            rows.setdefault(slot, []).append(row)
        self._windows.append((until_ns, rows))

    @property
    def served(self) -> Counter[str]:
        """Requests by tenant, as they were told last."""
        return Counter({one.tenant: one.requests for report in self.reports for one in report.served})

    @property
    def billed_uj(self) -> Counter[str]:
        """Microjoules by tenant."""
        sums: Counter[str] = Counter()
        for _, rows in self._windows:
            for slot_rows in rows.values():
                for tenant, energy_uj, *_ in slot_rows:
                    sums[tenant] += energy_uj
        return sums
