"""Requests in the archive: a product's over all nodes, by tenant and by time, on SQLite and on PostgreSQL."""

from tests.archive.rows import S, chain, told, window
from wattribute.agent.archive import Archive
from wattribute.agent.core.served_record import Billed
from wattribute.agent.ledger.schema import NODE_KEY, Row


def test_requests_of_all_nodes_by_tenant_and_time(archive: Archive) -> None:
    for node in ("n1", "n2"):
        rows: list[Row] = []
        for at in (0, 300, 600):
            amounts = {
                "operation": 9, "node.x": 4, "untaxed.platform.a.b": 2,
                "units.token.a%2Eb": 5, "request.uj.a%2Eb": 11, "request.platform.a%2Eb": 3, "idle.uj.a%2Eb": 7,
                "units.token.a%2Eb.x%00y": 1 + at, "request.aborted.a%2Eb.x%00y": 1, "stage.uj.a%2Eb.decode": 2,
                "request.uj.a": 100,
            }  # fmt: skip
            rows.append(window(NODE_KEY, node=node, at=at, node__measured=50))
            rows.append(told(NODE_KEY, node=node, at=at, facts={}, **amounts))
        archive.deliver(node, "windows", chain(rows))
    ever = archive.served("a.b")
    assert ever is not None
    assert ever.tenants == {
        "": Billed(units={"token": 30}, energy_uj=66, terms_ng={"platform": 18}),
        "x\x00y": Billed(units={"token": 1806}, aborted=6),
    }
    assert (ever.idle, ever.stages) == (Billed(energy_uj=42), {"decode": Billed(energy_uj=12)})
    late = archive.served("a.b", from_unix_ns=300 * S, to_unix_ns=600 * S)
    assert late is not None
    assert late.tenants["x\x00y"] == Billed(units={"token": 602}, aborted=2)
    assert archive.served("a.b", from_unix_ns=900 * S) is None
    assert archive.served("b") is None
    assert archive.verify() == []
    first = archive.node_totals()["n1"]
    assert (first.energy_uj, first.terms_ng) == ({("cpu", "measured"): 150}, {"operation": 27})
