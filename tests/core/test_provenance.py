"""The registry of products: a fold of events, the rules of a new one; the EPC, recovery and lineage they come to."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.lineage import Book, Recovery, book, lineage, recovery
from wattribute.agent.core.model import Role
from wattribute.agent.core.products import Product
from wattribute.agent.core.provenance import Registry, check, exact, fold, registry
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.units import DAY_S, YEAR_S, ng_from_g

G = ng_from_g(1)
DAY_NS = DAY_S * 10**9


def event(kind: str, product_id: str, /, **values: Any) -> dict[str, Any]:
    return {"event": kind, "id": product_id, "at": "2026-03-01T00:00:00Z", "by": "ada", **values}


def add(product_id: str, epc_g: int | None = None, **values: Any) -> dict[str, Any]:
    if epc_g is not None:
        values["epc_ng"] = [epc_g * G] * 3
    return event("add", product_id, **values)


def cost(product_id: str, mass_g: int, cost_id: str = "c", **values: Any) -> dict[str, Any]:
    return event("cost", product_id, cost_id=cost_id, ng=[mass_g * G] * 3, note="work", **values)


def freeze(product_id: str, own_g: int, deployed_unix_ns: int = 0, **inherited_g: int) -> dict[str, Any]:
    return event(
        "freeze",
        product_id,
        own_ng=[own_g * G] * 3,
        inherited_ng={parent: [mass_g * G] * 3 for parent, mass_g in inherited_g.items()},
        deployed_unix_ns=deployed_unix_ns,
    )


def creation(job_id: str, product_id: str, asce_g: int, *, ended: bool = True) -> JobRecord:
    terms = {"operation": asce_g * G - 3, "hardware": 2, "product": 1}
    return JobRecord(
        id=job_id,
        product_id=product_id,
        role="creation",
        terms_ng=terms,  # type: ignore[arg-type]
        ended_unix_ns=1 if ended else None,
    )


def payer(job_id: str, paid_g: Mapping[str, int], role: Role = "use") -> JobRecord:
    return JobRecord(
        id=job_id, role=role, taxes_ng={(payee, "product"): mass_g * G for payee, mass_g in paid_g.items()}
    )


def refusal(events: list[dict[str, Any]], new: dict[str, Any], *declared: Product) -> str:
    folded = registry(events)
    with pytest.raises(Refused) as caught:
        check(folded, new, declared)
    return str(caught.value)


# The fold


def test_events_fold_to_products_costs_and_freezes() -> None:
    folded = registry(
        [
            add("wiki", 100, kind="dataset", version="2020", boundary="crawl"),
            freeze("wiki", 100),
            add("bert", kind="model", parents={"wiki": "0.4"}, runs_on=["k8s"], owners=["ada"], scope="fleet"),
            event("set", "bert", lifetime_s=3 * YEAR_S, concurrency_ppm=5),
            cost("bert", 20, "a"),
            cost("bert", 20, "a"),
            cost("bert", 30, "b"),
            cost("bert", 7, "b", replaces=True),
            freeze("bert", 27, 5, wiki=40),
            event("retire", "wiki"),
        ]
    )
    wiki, bert = folded.products["wiki"], folded.products["bert"]
    assert (wiki.kind, wiki.version, wiki.status, wiki.boundary) == ("dataset", "2020", "retired", "crawl")
    assert (wiki.retraining_interval_s, wiki.own) == (None, Bounded.exactly(100 * G))
    assert (bert.status, bert.runs_on, bert.owners, bert.scope) == ("frozen", ("k8s",), ("ada",), "fleet")
    assert (bert.lifetime_s, bert.concurrency_ppm, bert.deployed_unix_ns) == (3 * YEAR_S, 5, 5)
    assert bert.parents == {"wiki": Fraction(2, 5)}
    assert {one.id: one.mass.central for one in folded.costs["bert"].values()} == {"a": 20 * G, "b": 7 * G}
    assert (folded.freezes["bert"].by, folded.freezes["bert"].deployed_unix_ns) == ("ada", 5)
    assert [one["event"] for one in folded.history["bert"]] == ["add", "set", "cost", "cost", "cost", "freeze"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "rename", "id": "a"},
        {"event": "set", "id": "nobody"},
        {"event": "retire", "id": "nobody"},
        {"event": "add"},
        {"event": "add", "id": "a", "parents": {"b": "1.5"}},
        {"event": "add", "id": "a", "epc_ng": [3, 2, 1]},
        {"event": "add", "id": "a", "epc_ng": ["1", "2", "3"]},
        {"event": "add", "id": "a", "lifetime_s": "long"},
        {"event": "add", "id": "a", "lifetime_s": float("nan")},
        {"event": "add", "id": "a", "overhead_rate": None},
        {"event": "add", "id": "a", "overhead_rate": -5},
        {"event": "add", "id": "a", "retraining_interval_s": 0},
        {"event": "add", "id": "a", "scope": 7},
        {"event": "add", "id": "a", "kind": []},
        {"event": "add", "id": "a", "owners": [1]},
        {"event": "add", "id": "a", "amortise": "use"},
        {"event": "add", "id": "a", "unit": 5},
        {"event": "add", "id": "a", "expected_micro_units": 0.5},
        {"event": "cost", "id": "a", "cost_id": "x"},
        {"event": "cost", "id": "a", "cost_id": "x", "ng": [1, 2, 3.5]},
        {"event": "freeze", "id": "a", "own_ng": [1, 1, 1], "inherited_ng": {}, "deployed_unix_ns": "now"},
        {"event": "freeze", "id": "a", "own_ng": [], "inherited_ng": {}, "deployed_unix_ns": 0},
        ["add"],
    ],
    ids=str,
)
def test_an_event_that_cannot_be_read_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"product event 2 .* can't be read"):
        registry([add("first"), wrong])


@pytest.mark.parametrize("text", ["0", "1", "0.5", "1e-12", "0.123456789012", "0.10"])
def test_weights_are_exact(text: str) -> None:
    assert exact(text) == Fraction(text)


@pytest.mark.parametrize("text", ["-0.1", "1.0000001", "nan", "inf", "1e-13", "half", "", "0.1234567890123"])
def test_what_is_no_weight_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no number|isn't between 0 and 1|has more than 12 places"):
        exact(text)


# The rules


def configured(product_id: str, **values: Any) -> Product:
    return Product(id=product_id, **values)


OPEN = add("bert", kind="model")
KNOWN = [add("wiki", 100), freeze("wiki", 100), OPEN]


@pytest.mark.parametrize(
    ("events", "new", "said"),
    [
        (KNOWN, add("bert"), "registered already; change it with --update"),
        (KNOWN, add("site"), "declared in the configuration"),
        (KNOWN, add("x", parents={"x": "1"}), "can't be its own parent"),
        (KNOWN, add("x", runs_on=["x"]), "can't be its own runs-on"),
        (KNOWN, add("x", parents={"wikki": "1"}), 'parent "wikki" isn\'t registered; did you mean "wiki"?'),
        (KNOWN, add("x", parents={"zzz": "0"}), 'parent "zzz" isn\'t registered; add it first'),
        (KNOWN, add("x", runs_on=["zzz"]), 'runs-on "zzz" isn\'t registered'),
        ([*KNOWN, event("retire", "wiki")], add("x", parents={"wiki": "1"}), 'parent "wiki" is retired'),
        ([*KNOWN, event("retire", "wiki")], add("x", runs_on=["wiki"]), 'runs-on "wiki" is retired'),
        (
            [*KNOWN, add("y", parents={"wiki": "0.7"})],
            add("x", parents={"wiki": "0.300000000001"}),
            'product "x": "wiki" gave away all but 0.3 of its EPC; a weight of 0.300000000001 is too much',
        ),
        (KNOWN, add("x", 5, lifetime_s=9), "its EPC would be billed in full by every node"),
        (KNOWN, add("x", overhead_rate=5), "its overhead would be billed in full by every node"),
        (KNOWN, event("set", "zzz", kind="model"), "isn't registered"),
        (KNOWN, event("set", "site", kind="model"), "declared in the configuration"),
        (KNOWN, event("set", "wiki", version="2", kind="model"), "is frozen, so its kind, version no longer changes"),
        (KNOWN, event("set", "wiki", epc_ng=None), "is frozen, so its declared EPC no longer changes"),
        ([*KNOWN, event("retire", "bert")], event("set", "bert", kind="model"), "is retired and no longer changes"),
        ([*KNOWN, cost("bert", 1)], event("set", "bert", epc_ng=[1, 1, 1]), "has costs entered by hand"),
        (
            [*KNOWN, add("x", parents={"bert": "0.5"}), add("y", parents={"x": "1"})],
            event("set", "bert", parents={"y": "1"}),
            'product "bert" would inherit from itself: bert -> y -> x -> bert',
        ),
        (
            [*KNOWN, add("x", runs_on=["bert"])],
            event("set", "bert", runs_on=["x"]),
            'product "bert" would run on itself: bert -> x -> bert',
        ),
        (KNOWN, cost("zzz", 1), "isn't registered"),
        (KNOWN, cost("wiki", 1), "has a declared EPC (with --epc-kg), of which a cost would be left out"),
        (KNOWN, cost("site", 1), "has a declared EPC (in the configuration)"),
        (KNOWN, cost("bert", -1), "a cost is at least 0"),
        ([*KNOWN, cost("bert", 1)], cost("bert", 2), "has another cost with the id \"c\" (0.001 kg, 'work')"),
        (KNOWN, cost("bert", 2, replaces=True), 'has no cost with the id "c" to replace'),
        (KNOWN, freeze("zzz", 1), "isn't registered"),
        (KNOWN, freeze("site", 1), "has its EPC declared in the configuration"),
        (KNOWN, freeze("wiki", 1), "is frozen already"),
        (
            [*KNOWN, event("retire", "bert"), add("x"), event("set", "x", parents={})],
            add("y", parents={"bert": "1"}),
            "is retired; nothing new stands on it",
        ),
        (
            [*KNOWN, add("x", parents={"bert": "1"}), event("retire", "bert")],
            freeze("x", 1, bert=1),
            'parent "bert" isn\'t frozen yet',
        ),
        ([*KNOWN, add("x", parents={"bert": "1"})], freeze("x", 1, bert=1), 'parent "bert" isn\'t frozen yet'),
        ([*KNOWN, add("x", parents={"wiki": "1"})], freeze("x", 1), "changed meanwhile: try again"),
        (KNOWN, event("retire", "zzz"), "isn't registered"),
        (KNOWN, event("retire", "site"), "declared in the configuration"),
        ([*KNOWN, event("retire", "bert")], event("retire", "bert"), "is retired already"),
        (KNOWN, event("rename", "bert"), "there is no such event as 'rename'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_event_that_breaks_a_rule_is_refused(events: list[dict[str, Any]], new: dict[str, Any], said: str) -> None:
    assert said in refusal(events, new, configured("site", epc_own_ng=5))


def test_what_may_change_after_freezing() -> None:
    folded = registry(KNOWN)
    check(folded, event("set", "wiki", owners=["eve"], concurrency_ppm=3, overhead_rate=1, kind="service"))


def test_products_of_the_configuration_may_be_parents_have_costs_and_be_frozen() -> None:
    site, team = configured("site", epc_own_ng=5), configured("team", parents={"site": Fraction(1, 2)})
    folded = registry([])
    for new in (
        add("x", parents={"site": "0.5"}),
        cost("team", 3),
        freeze("team", 3, site=2),
    ):
        check(folded, new, [site, team])
        fold(folded, new)
    assert folded.effective([site, team])["team"].frozen is not None
    assert '"site" gave away all' in refusal(
        [add("x", parents={"site": "0.5"})], add("y", parents={"site": "0.1"}), team, site
    )
    assert "billed in full" in refusal([], freeze("paid", 1), configured("paid", lifetime_s=9))
    # One whose parent's own parent is open isn't settled either.
    moving = configured("moving", epc_own_ng=1, parents={"bert": Fraction(1)})
    assert "isn't frozen yet" in refusal([OPEN, add("x", parents={"moving": "1"})], freeze("x", 1, moving=1), moving)


def test_the_configuration_counts_before_the_registry() -> None:
    folded = registry([add("a", 1), freeze("a", 1, 7)])
    declared = configured("a", epc_own_ng=9)
    assert folded.effective([declared])["a"] is declared
    computed = folded.effective([configured("a", deployed_unix_ns=3)])["a"]
    assert (computed.own, computed.deployed_unix_ns, computed.status) == (Bounded.exactly(G), 3, "frozen")
    assert Registry().effective([configured("a")])["a"].status == "open"
    assert folded.effective([configured("a", status="retired")])["a"].status == "retired"
    assert folded.effective([configured("a", status="open")])["a"].status == "frozen"


def test_what_was_retired_unfrozen_may_be_frozen_and_stays_retired() -> None:
    folded = registry([*KNOWN, event("retire", "bert")])
    check(folded, freeze("bert", 1))
    fold(folded, freeze("bert", 1))
    assert (folded.products["bert"].status, folded.products["bert"].own) == ("retired", Bounded.exactly(G))


# The book


def test_an_epc_is_what_creation_jobs_and_entered_costs_come_to() -> None:
    folded = registry([add("m", parents={"d": "0.5"}), add("d"), cost("d", 10, "x"), cost("d", 30, "y")])
    jobs = [creation("a", "m", 5), creation("b", "m", 7, ended=False), payer("c", {"m": 1}), creation("z", "gone", 1)]
    found = book(folded, jobs)
    assert found.epc["d"].total == Bounded.exactly(40 * G)
    assert found.epc["m"].own == Bounded.exactly(12 * G)
    assert found.epc["m"].inherited == {"d": Bounded.exactly(20 * G)}
    assert (found.recorded["m"].job_count, found.recorded["m"].running) == (2, ("b",))
    assert found.computed == {"m", "d"}
    wide = book(folded, jobs, cost_of=lambda job: Bounded(0, 1, 2))
    assert wide.epc["m"].own == Bounded(0, 2, 4)


def test_nothing_recorded_is_missing_and_a_declared_figure_stands_alone() -> None:
    folded = registry([add("a"), add("b", 5), add("c", parents={"a": "0.1"}), cost("c", 1)])
    found = book(folded, [creation("j", "b", 90)])
    assert found.epc["a"].total is None
    assert found.missing("c") == ("a",)
    assert found.epc["b"].total == Bounded.exactly(5 * G)
    assert found.recorded["b"].total == Bounded.exactly(90 * G)
    assert found.computed == {"c"}


def test_a_cost_of_nothing_is_known() -> None:
    assert book(registry([add("a"), cost("a", 0)])).epc["a"].total == Bounded.exactly(0)


def test_what_is_frozen_does_not_move() -> None:
    events = [
        add("d"),
        cost("d", 10),
        freeze("d", 10),
        add("m", parents={"d": "1"}),
        cost("m", 1),
        freeze("m", 1, d=10),
    ]
    late = [cost("d", 90, "late"), cost("m", 4, "late")]
    found = book(registry([*events, *late]), [creation("j", "m", 1000)])
    assert found.epc["m"].total == Bounded.exactly(11 * G)
    assert found.recorded["m"].total == Bounded.exactly(1005 * G)


def deployed(*events: dict[str, Any], jobs: list[JobRecord] | None = None) -> Book:
    start = [add("m", 1000, lifetime_s=100 * DAY_S, scope="fleet"), freeze("m", 1000, 10 * DAY_NS)]
    return book(registry([*start, *events]), jobs or [])


def test_the_worked_example_is_recovered_over_the_lifetime() -> None:
    found = deployed(
        add("child", 0, parents={"m": "0.5"}), jobs=[payer("a", {"m": 200}), payer("b", {"m": 30, "x": 9})]
    )
    now = recovery(found, "m", 50 * DAY_NS)
    assert now == Recovery(stock_ng=500 * G, recovered_ng=230 * G, expected_ng=200 * G, left_s=60 * DAY_S)
    assert now.ahead_ng == 30 * G
    assert found.epc["child"].brought == Bounded.exactly(500 * G)
    assert (found.given, found.given_ng) == ({"m": Fraction(1, 2)}, {"m": 500 * G})


@pytest.mark.parametrize(
    ("at_days", "expected_g", "left_days"), [(0, 0, 100), (10, 0, 100), (11, 10, 99), (110, 1000, 0), (999, 1000, 0)]
)
def test_nothing_is_expected_before_deployment_or_after_the_lifetime(
    at_days: int, expected_g: int, left_days: int
) -> None:
    now = recovery(deployed(), "m", at_days * DAY_NS)
    assert (now.expected_ng, now.left_s, now.ahead_ng) == (expected_g * G, left_days * DAY_S, -expected_g * G)


def test_more_than_the_epc_is_said() -> None:
    paid = [payer("a", {"m": 700})]
    assert recovery(deployed(jobs=paid), "m", 0).excess_ng == 0
    assert recovery(deployed(add("c", 0, parents={"m": "0.5"}), jobs=paid), "m", 0).excess_ng == 200 * G


def test_what_is_not_written_off_expects_nothing() -> None:
    found = book(registry([add("a", 5), add("b"), add("c", 5, lifetime_s=5, scope="node")]), [payer("j", {"b": 3})])
    assert recovery(found, "a", 1) == Recovery(stock_ng=5 * G, recovered_ng=0)
    assert recovery(found, "b", 1) == Recovery(stock_ng=None, recovered_ng=3 * G)
    assert recovery(found, "b", 1).ahead_ng is None
    assert recovery(found, "c", 1).left_s is None  # not deployed


# Lineage

FAMILY = [
    add("wiki", 100),
    add("books", 10),
    add("bert", 1000, parents={"wiki": "0.4", "books": "1"}),
    add("distil", 0, parents={"bert": "0.5", "wiki": "0.1"}),
    add("site", 0, parents={"distil": "1"}),
    add("other", 7, parents={"wiki": "0.2"}),
]


def test_lineage_is_all_ancestors_once_by_the_longest_way() -> None:
    graph = lineage(book(registry(FAMILY)), "distil")
    assert [(node.id, node.depth) for node in graph.nodes] == [("distil", 0), ("bert", 1), ("wiki", 2), ("books", 2)]
    assert {(edge.parent, edge.child): (edge.weight, edge.inherited) for edge in graph.edges} == {
        ("bert", "distil"): (Fraction(1, 2), Bounded.exactly(525 * G)),
        ("wiki", "distil"): (Fraction(1, 10), Bounded.exactly(10 * G)),
        ("wiki", "bert"): (Fraction(2, 5), Bounded.exactly(40 * G)),
        ("books", "bert"): (Fraction(1), Bounded.exactly(10 * G)),
    }
    assert graph.nodes[1].epc == Bounded.exactly(1050 * G)


def test_lineage_with_children_goes_down_too() -> None:
    graph = lineage(book(registry(FAMILY)), "bert", children=True)
    assert {node.id: node.depth for node in graph.nodes} == {"bert": 0, "wiki": 1, "books": 1, "distil": -1, "site": -2}
    assert ("wiki", "distil") in {(edge.parent, edge.child) for edge in graph.edges}  # both are shown, so is this
    assert {node.id for node in lineage(book(registry(FAMILY)), "wiki").nodes} == {"wiki"}


def test_lineage_shows_what_nobody_registered() -> None:
    found = book(registry([]), declared=[configured("a", epc_own_ng=1, parents={"gone": Fraction(1)})])
    graph = lineage(found, "a")
    assert [(node.kind, node.epc) for node in graph.nodes] == [("service", None), ("undeclared", None)]
    assert graph.edges[0].inherited is None
    with pytest.raises(KeyError):
        lineage(found, "gone")


# Anything that goes

NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
WEIGHTS = st.sampled_from(["0", "0.25", "0.5", "1", "0.333333333333"])
EVENTS = st.one_of(
    st.builds(lambda p, parents: add(p, parents=parents), NAMES, st.dictionaries(NAMES, WEIGHTS, max_size=3)),
    st.builds(
        lambda p, g, parents: add(p, g, parents=parents), NAMES, st.integers(0, 9), st.dictionaries(NAMES, WEIGHTS)
    ),
    st.builds(lambda p, parents: event("set", p, parents=parents), NAMES, st.dictionaries(NAMES, WEIGHTS, max_size=3)),
    st.builds(lambda p, g, c: cost(p, g, c), NAMES, st.integers(-1, 9), st.sampled_from(["x", "y"])),
    st.builds(lambda p: event("retire", p), NAMES),
    st.builds(lambda p: event("freeze", p), NAMES),
)


@given(st.lists(EVENTS, max_size=30))
def test_whatever_is_let_in_keeps_the_books_in_order(events: list[dict[str, Any]]) -> None:
    folded = Registry()
    kept: list[dict[str, Any]] = []
    for new in events:
        if new["event"] == "freeze":
            found = book(folded)
            epc = found.epc.get(new["id"])
            parts = {} if epc is None else {parent: part for parent, part in epc.inherited.items() if part}
            own = Bounded.exactly(0) if epc is None or epc.own is None else epc.own
            new = {
                **new,
                "own_ng": [own.low, own.central, own.high],
                "inherited_ng": {parent: [part.low, part.central, part.high] for parent, part in parts.items()},
                "deployed_unix_ns": 1,
            }
        before = registry(kept)
        try:
            check(folded, new)
        except Refused:
            assert folded == before  # nothing was written
            continue
        fold(folded, new)
        kept.append(new)
    assert folded == registry(kept)
    found = book(folded)
    for product_id, epc in found.epc.items():
        assert found.given.get(product_id, 0) <= 1
        now = recovery(found, product_id, 0)
        if epc.total is not None and now.stock_ng is not None:
            assert now.stock_ng + found.given_ng.get(product_id, 0) <= epc.total.central
            assert now.excess_ng == 0
        assert all(parent in found.products for parent in found.products[product_id].parents)
