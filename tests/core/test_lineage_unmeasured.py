"""A creation job whose energy nobody knows isn't one that cost nothing."""

from wattribute.agent.core.lineage import book
from wattribute.agent.core.provenance import registry
from wattribute.agent.core.records import JobRecord


def test_it_is_named() -> None:
    folded = registry([{"event": "add", "id": "m", "kind": "model", "scope": "node"}])
    jobs = [
        JobRecord(id="lost", product_id="m", role="creation", cpu_ns=5, terms_ng={"hardware": 7}),
        JobRecord(id="known", product_id="m", role="creation", cpu_ns=5, energy_uj={("cpu", "direct", "measured"): 1}),
        JobRecord(id="empty", product_id="m", role="creation"),
    ]
    recorded = book(folded, jobs).recorded["m"]
    assert (recorded.unmeasured, recorded.job_count, recorded.jobs.central) == (("lost",), 3, 7)
