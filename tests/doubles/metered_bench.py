"""Metered jobs on a simulated node: senders of reports, and what must hold of everything that is shown of them."""

from typing import Any

from benchmarks.truthbench.kernel import Process

from tests.doubles.found_bench import FoundBench
from tests.doubles.node_bench import S
from wattribute.agent.core.model import ServedTotals
from wattribute.agent.core.served_account import bill_of
from wattribute.agent.requests import Peer, Served, Units


class Meter:
    """One sender, with its true counts: requests by tenant. `report` sends them all, as of the bench's clock."""

    def __init__(self, bench: FoundBench, job_id: str, token: str, uid: int | None = None) -> None:
        self.job_id = job_id
        self.token = token
        self.requests: dict[str, int] = {}
        self._bench = bench
        self._peer = Peer(1, bench.peer_uid if uid is None else uid, 0)

    def serve(self, **requests: int) -> "Meter":
        for tenant, count in requests.items():
            self.requests[tenant] = self.requests.get(tenant, 0) + count
        return self

    def report(self, busy_s: float | None = None, late_s: float = 0.0, **fields: Any) -> dict[str, Any]:
        """`busy_s`: for so long each tenant was in flight since the report before; None: no shares."""
        shares = None
        if busy_s is not None:
            busy_ns = round(busy_s * S)
            shares = tuple((0, place, 2 * busy_ns, busy_ns) for place in range(len(self.requests)))
        served = tuple(
            Served(tenant=tenant, requests=count, units={"token": count / 2}) for tenant, count in self.requests.items()
        )
        until_ns = max(0, self._bench.clock.boot_ns - round(late_s * S))
        units = Units(
            id=1, job_id=self.job_id, account=self.token, until_ns=until_ns, served=served, shares=shares, **fields
        )
        return self._bench.node.units(units, self._peer)


class MeteredBench(FoundBench):
    """`look_at_requests` checks: they add up to what their jobs used, and nothing has fallen, over restarts too."""

    def serving(self, job_id: str, product_id: str, **fields: Any) -> tuple[Process, Meter]:
        """A serving job of one process begins, and its meter opens with a report of nothing."""
        self.sim.make("/serving")
        worker = self.sim.fork("/serving")
        self.start(job_id, worker.pid, product_id=product_id, **fields)
        meter = Meter(self, job_id, f"{job_id} {worker.pid}")
        meter.report(0.0)
        self.tick(0.05)
        return worker, meter

    def look_at_requests(self, *job_ids: str) -> dict[str, ServedTotals]:
        """What is shown of each product, with the ledger as far as it is; `job_ids` are all that were ever metered."""
        self.node.flush()
        self.node.show()
        shown = {totals.product_id: totals for totals in self.node.snapshot().served}
        used: dict[str, list[int]] = {}
        for job_id in job_ids:
            live = self.node.registry.jobs.get(job_id) or self.node.record.finished(job_id)
            assert live is not None
            bill = bill_of(live.entry)
            sums = used.setdefault(live.entry.job.product_id, [0] * len(bill))
            used[live.entry.job.product_id] = [a + b for a, b in zip(sums, bill, strict=True)]
        for product_id, bill in used.items():
            totals = shown[product_id]
            parts = [[one.energy_uj, *one.terms_ng] for one in totals.tenants.values()]
            parts += [[totals.idle_uj, *totals.idle_ng], [totals.unsettled_uj, *totals.unsettled_ng]]
            assert [sum(place) for place in zip(*parts, strict=True)] == bill, product_id
            assert min(map(min, parts)) >= 0
        self._none_fell(shown)
        return shown

    def _none_fell(self, shown: dict[str, ServedTotals]) -> None:
        before: dict[tuple[str, ...], int] = getattr(self, "_shown_before", {})
        now: dict[tuple[str, ...], int] = {}
        for product_id, totals in shown.items():
            now[product_id, "idle"] = totals.idle_uj
            now[product_id, "receipts"] = totals.receipt_sum_uj
            for stage, (energy_uj, _) in totals.stages.items():
                now[product_id, "stage", stage] = energy_uj
            for name, tenant in totals.tenants.items():
                now[product_id, "energy", name] = tenant.energy_uj
                now[product_id, "terms", name] = sum(tenant.terms_ng)
                for unit, micro in tenant.units.items():
                    now[product_id, unit, name] = micro
        for key, value in before.items():
            assert now.get(key, 0) >= value, key
        self._shown_before = now
