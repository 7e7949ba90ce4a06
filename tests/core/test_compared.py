"""What records come to as costs: nothing is lost or counted twice on the way from EPC to break-even."""

from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.break_even import AS_IT_IS
from wattribute.agent.core.compared import Terms, jobs_per_day, making_of, terms_of, work_of
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.core.lineage import Book, book
from wattribute.agent.core.model import Role, Term
from wattribute.agent.core.products import Frozen, Product
from wattribute.agent.core.provenance import Registry, registry
from wattribute.agent.core.records import JobRecord
from wattribute.agent.core.units import DAY_S, NG_PER_G

DAY_NS = DAY_S * 10**9


def job(
    product: str,
    role: Role = "use",
    terms: Mapping[Term, int] | None = None,
    *,
    job_id: str = "j",
    taxes: Mapping[tuple[str, Term], int] | None = None,
    start: int = 0,
    end: int | None = DAY_NS,
    energy_uj: int = 0,
) -> JobRecord:
    return JobRecord(
        id=job_id,
        product_id=product,
        role=role,
        terms_ng=terms or {},
        taxes_ng=taxes or {},
        started_unix_ns=start,
        ended_unix_ns=end,
        energy_uj={("cpu", "direct", "measured"): energy_uj},
    )


def made(jobs: list[JobRecord]) -> dict[str, Terms]:
    creation: dict[str, Terms] = {}
    for one in jobs:
        if one.role == "creation":
            creation[one.product_id] = creation.get(one.product_id, Terms()) + terms_of(one)
    return creation


TERMS: dict[Term, int] = {
    "operation": 100, "cooling": 20, "platform": 7, "retraining": 3, "hardware": 50, "overhead_hardware": 5,
    "product": 90,
}  # fmt: skip


def test_each_term_moves_with_what_it_is() -> None:
    used = job("m", terms=TERMS, taxes={("m", "product"): 60, ("iks", "product"): 30}, energy_uj=5)
    assert terms_of(used, "jsc") == Terms(120, 0, 0, 5)
    assert terms_of(used, "asc") == Terms(120, 50, 0, 5)
    assert terms_of(used, "asce") == Terms(130, 55, 30, 5)  # m's own EPC is the up-front side
    # A creation job has no such side: what it pays for others is part of what it makes.
    assert terms_of(job("m", "creation", TERMS, taxes={("iks", "product"): 90})) == Terms(130, 55, 90, 0)


def test_the_mean_is_of_ended_jobs_of_use() -> None:
    jobs = [
        job("m", terms={"operation": 2 * NG_PER_G}, end=DAY_NS),
        job("m", terms={"operation": 5 * NG_PER_G}, start=DAY_NS, end=4 * DAY_NS),
        job("m", terms={"operation": 100 * NG_PER_G}, end=None),
        job("m", "retraining", terms={"operation": 100 * NG_PER_G}),
    ]
    work = work_of(jobs, "g", "jsc")
    assert work is not None
    assert work.mean.operation.central == Fraction(7, 2)
    assert [work.least, work.most, work.jobs] == [2, 5, 2]
    assert jobs_per_day(work) == Fraction(2, 4)
    assert jobs_per_day(work, work, None) == 1
    assert work_of(jobs[2:], "g", "jsc") is None
    assert jobs_per_day(None) is None


def test_jobs_that_corrections_made_negative_can_t_be_compared() -> None:
    with pytest.raises(WattributeError, match="by hand"):
        work_of([job("m", terms={"operation": -1})], "g", "jsc")


def test_a_frozen_epc_keeps_its_figure_whatever_came_late() -> None:
    frozen = Frozen(own=Bounded(80, 100, 150), inherited={"p": Bounded.exactly(10)})
    parent = Product(id="p", epc_own_ng=20)
    child = Product(id="m", frozen=frozen, parents={"p": Fraction(1, 2)})
    early = [job("m", "creation", {"operation": 60, "hardware": 30, "product": 10})]
    late = [*early, job("m", "creation", {"operation": 1000}, job_id="late")]
    for jobs, operation in ((early, 60), (late, 0)):
        found = book(Registry(products={"p": parent, "m": child}), jobs)
        making = making_of(found, made(jobs), "m", "g")
        assert making.own.operation.central * NG_PER_G == operation
        whole = making.whole.under(AS_IT_IS)
        assert [value * NG_PER_G for value in (whole.low, whole.central, whole.high)] == [90, 110, 160]


def test_what_isn_t_known_is_no_zero() -> None:
    found = book(registry([]), [], [Product(id="m", parents={"p": Fraction(1)}), Product(id="p")])
    for product_id, said in (("m", "'p'"), ("p", "no creation job"), ("x", "no product 'x'")):
        with pytest.raises(WattributeError, match=said):
            making_of(found, {}, product_id, "g")


def test_kwh_are_of_what_was_measured() -> None:
    jobs = [job("m", "creation", {"operation": 1}, energy_uj=7_200_000 * 10**6)]
    known = book(registry([]), jobs, [Product(id="m", status="open"), Product(id="d", epc_own_ng=5)])
    assert making_of(known, made(jobs), "m", "kWh").whole.fixed.central == 2
    with pytest.raises(WattributeError, match="grams only"):
        making_of(known, {}, "d", "kWh")


@st.composite
def books(draw: st.DrawFn) -> tuple[Book, dict[str, Terms]]:
    """Up to eight products, each from some of those before, declared with bounds or made by jobs."""
    amounts = st.integers(0, 10**12)
    products: list[Product] = []
    jobs: list[JobRecord] = []
    for number in range(draw(st.integers(1, 8))):
        name = f"p{number}"
        parents = {
            one.id: Fraction(draw(st.integers(0, 10)), 10) for one in products if draw(st.booleans())
        }  # weights over 1 in sum are the registry's to refuse
        if draw(st.booleans()):
            low, central, high = sorted(draw(st.tuples(amounts, amounts, amounts)))
            products.append(Product(id=name, parents=parents, epc_low_ng=low, epc_own_ng=central, epc_high_ng=high))
        else:
            products.append(Product(id=name, parents=parents, status="open"))
            terms: dict[Term, int] = {term: draw(amounts) for term in TERMS}
            jobs.append(job(name, "creation", terms, job_id=name))
    return book(registry([]), jobs, products), made(jobs)


@given(books())
def test_what_a_comparison_starts_from_is_the_epc(known: tuple[Book, dict[str, Terms]]) -> None:
    found, creation = known
    for product_id, epc in found.epc.items():
        assert epc.total is not None
        whole = making_of(found, creation, product_id, "g").whole.under(AS_IT_IS)
        for ours, theirs in zip(
            (whole.low, whole.central, whole.high), (epc.total.low, epc.total.central, epc.total.high), strict=True
        ):
            # The registry rounds what is inherited down to a nanogram, at each step.
            assert 0 <= ours * NG_PER_G - theirs < 10**4
