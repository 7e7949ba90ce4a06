"""A meter that measures nothing: it keeps every request that it is told of."""

from typing import Any, NamedTuple


class Estimate(NamedTuple):
    energy_uj: int
    jsce_gco2e: float
    asce_gco2e: float


class RecordedReceipt:
    """What is known of a request once it has ended; settled when the test says so."""

    def __init__(self, request: "RecordedRequest") -> None:
        self._request = request
        self.settled = request.settled

    def to_dict(self) -> dict[str, Any]:
        return {"id": self._request.id, "settled": self.settled}


class RecordedRequest:
    def __init__(self, number: int, tenant: str, receipt: bool | None) -> None:
        self.id = f"abcd-0-{number}"
        self.tenant = tenant
        self.wants_receipt = receipt
        self.units: dict[str, float] = {}
        self.aborted: bool | None = None  # while it runs
        self.settled = False

    def add(self, **units: float) -> None:
        for unit, count in units.items():
            self.units[unit] = self.units.get(unit, 0) + count

    def end(self, units: dict[str, float] | None = None, aborted: bool = False) -> None:
        assert self.aborted is None, "it ended before"
        self.aborted = aborted


class RecordingMeter:
    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.broken = False
        self.stops = 0

    @property
    def last(self) -> RecordedRequest:
        return self.requests[-1]

    def begin(self, tenant: str = "", weight: float = 1, receipt: bool | None = None) -> RecordedRequest:
        if self.broken:
            raise RuntimeError("a defect")
        request = RecordedRequest(len(self.requests), tenant, receipt)
        self.requests.append(request)
        return request

    def estimate(self, request: RecordedRequest) -> Estimate | None:
        return Estimate(1234, 56e-9, 78e-9)

    def receipt(self, request_id: str) -> RecordedReceipt | None:
        return next((RecordedReceipt(one) for one in self.requests if one.id == request_id), None)

    def stop(self) -> None:
        self.stops += 1
