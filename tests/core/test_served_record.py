"""The names of requests in closed rows: apart in one way only; what a node tells comes back as a report adds it up."""

from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.model import TERMS, ServedTotals, TenantTotals
from wattribute.agent.core.served_record import KINDS, Billed, ServedName, named, parse, served_record, split_uj

words = st.text(st.characters(), min_size=1, max_size=8) | st.sampled_from(
    [".", "%2E", "a.b", "%u002E", "\x00", "\ud800"]
)
amounts = st.integers(1, 10**15)


@given(st.sampled_from(KINDS), words, words, st.just("") | words)
def test_every_name_comes_apart_as_it_was_put_together(kind: str, what: str, product: str, whose: str) -> None:
    name = ServedName(kind, what, product, whose)  # type: ignore[arg-type]
    text = str(name)
    assert parse(text) == name
    assert text.isprintable() or not "".join(name).isprintable()
    assert not any(char < " " or "\ud800" <= char <= "\udfff" for char in text)
    if "%" not in what + product + whose:
        assert text.count(".") == (3 if whose else 2)


def test_other_names_arent_of_requests() -> None:
    for name in ("operation", "node.measured", "untaxed.product.units", "idle", "units.x", "request.a.b.c.d", ""):
        assert parse(name) is None
    assert served_record("bert", [("node.measured", 5), ("untaxed.platform.bert", 6)]) is None


@given(st.dictionaries(words, st.tuples(st.dictionaries(words, amounts, max_size=2), amounts), max_size=3), amounts)
def test_what_was_billed_comes_back(tenants: dict[str, tuple[dict[str, int], int]], idle: int) -> None:
    terms = [*range(7)]
    totals = ServedTotals(
        product_id="llama-3.1",
        tenants={
            tenant: TenantTotals(units=units, aborted=2, energy_uj=energy, terms_ng=terms)
            for tenant, (units, energy) in tenants.items()
        },
        idle_uj=idle,
        idle_ng=terms,
        unsettled_uj=77,
        unsettled_ng=terms,
        stages={"decode": (3, terms)},
    )
    rows = [*named(totals).items(), ("request.uj.other", 9)]
    record = served_record("llama-3.1", [*rows, *rows])  # of two nodes
    assert record is not None
    told = {term: 2 * ng for term, ng in zip(TERMS, terms, strict=True) if ng}
    assert record.idle == Billed(energy_uj=2 * idle, terms_ng=told)
    assert record.stages == {"decode": Billed(energy_uj=6, terms_ng=told)}
    assert record.tenants == {
        tenant: Billed(units={unit: 2 * n for unit, n in units.items()}, aborted=4, energy_uj=2 * energy, terms_ng=told)
        for tenant, (units, energy) in tenants.items()
    }
    assert record.whole.energy_uj == record.billed.energy_uj + 2 * idle == split_uj(rows[:-1]) * 2
