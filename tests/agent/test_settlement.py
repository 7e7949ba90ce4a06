"""Provisional prices are settled by corrections: each window once, in order, and only when its price is final."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.agent.test_ledger import commit, open_ledger, totals, verified

from wattribute.agent.core.accounting import Price
from wattribute.agent.core.units import NS_PER_S, UJ_PER_KWH
from wattribute.agent.ledger.batch import Batch, Close, JobRow
from wattribute.agent.ledger.schema import NODE_KEY, WindowRow
from wattribute.agent.settlement import GIVEN_UP_NS, FinalPrice, Settlement, closed_windows, settle

S = NS_PER_S
KWH_UJ = UJ_PER_KWH
G = 10**9


def rows(
    job_id: str, start: int, energy: dict[str, dict[str, int]], booked: dict[str, int], *, final: bool
) -> list[WindowRow]:
    """A closed window as the ledger has it."""
    said = json.dumps({"product_id": "p", "quality": "estimated", "final": final})
    common = ("n", "boot/1", start * S, job_id)
    return [
        *(WindowRow(*common, domain, (start + 300) * S, json.dumps(used), "") for domain, used in energy.items()),
        WindowRow(*common, "", (start + 300) * S, json.dumps(booked), said),
    ]


def numbered(*windows: list[WindowRow]) -> list[tuple[int, WindowRow]]:
    return list(enumerate((row for window in windows for row in window), start=1))


def at_final(start_unix_ns: int, end_unix_ns: int) -> Price | None:
    return Price(56 * G, 28 * G)


def test_a_window_is_brought_to_its_final_price_exactly() -> None:
    window = rows(
        "a", 0, {"cpu": {"direct.measured": KWH_UJ, "idle.measured": KWH_UJ}, "dram": {"direct.measured": KWH_UJ}},
        {"operation": 3 * 480 * G, "cooling": 3 * 240 * G, "cpu_ns": 5, "tax.product.q": 9}, final=False,
    )  # fmt: skip
    found = settle(closed_windows(numbered(window)), at_final, 10_000 * S, 0)
    assert found.position == 3
    assert {one.term: one.delta_ng for one in found.corrections} == {"operation": -1272 * G, "cooling": -636 * G}
    assert {(one.job_id, one.product_id, one.cause) for one in found.corrections} == {("a", "p", "intensity")}


def test_of_the_nodes_window_only_what_nobody_paid_is_corrected() -> None:
    window = rows(
        NODE_KEY, 0, {"cpu": {"node.measured": 5 * KWH_UJ, "unattributed.idle": KWH_UJ, "unattributed.gap": KWH_UJ}},
        {"operation": 5 * 480 * G, "unattributed.idle.operation": 480 * G, "unattributed.gap.operation": 480 * G,
         "unattributed.idle.cooling": 0, "unattributed.idle.hardware": 77}, final=False,
    )  # fmt: skip
    found = settle(closed_windows(numbered(window)), lambda start, end: Price(56 * G, 0), 10_000 * S, 0)
    assert [(one.term, one.delta_ng) for one in found.corrections] == [("operation", -848 * G)]


def test_final_windows_cost_nothing_and_an_open_price_stops_the_pass() -> None:
    energy = {"cpu": {"direct.measured": KWH_UJ}}
    first = rows("a", 0, energy, {"operation": G}, final=True)
    second = rows("b", 300, energy, {"operation": G}, final=False)
    third = rows("c", 600, energy, {"operation": G}, final=True)
    windows = list(closed_windows(numbered(first, second, third)))
    stopped = settle(windows, lambda start, end: None, 1000 * S, 0)
    assert stopped == ([], 2, 300 * S)
    given_up = settle(windows, lambda start, end: None, GIVEN_UP_NS + 600 * S, 0)
    assert given_up == ([], 6, 900 * S)
    another_source = settle(windows, lambda start, end: None, 1000 * S, 0, 301 * S)
    assert another_source == ([], 6, 900 * S)


windows_of = st.lists(
    st.tuples(st.integers(0, 10**13), st.integers(0, 1300), st.integers(0, 1300), st.booleans()), max_size=12
)


@given(windows_of, st.integers(1, 12))
def test_whatever_is_booked_and_corrected_is_the_final_cost(
    drawn: list[tuple[int, int, int, bool]], known: int
) -> None:
    """In two passes, of which the first doesn't know all prices yet: nothing twice, nothing left out."""
    windows, booked, final = [], {}, {}
    for number, (energy_uj, first_g, final_g, is_final) in enumerate(drawn):
        start, job_id = 300 * number, f"j{number}"
        booked[job_id] = energy_uj * first_g * G // UJ_PER_KWH
        used = {"cpu": {"direct.measured": energy_uj}} if energy_uj else {}
        windows.append(rows(job_id, start, used, {"operation": booked[job_id]}, final=is_final))
        final[start * S] = (energy_uj, first_g if is_final else final_g)
    listed = numbered(*windows)

    def price(limit: int) -> FinalPrice:
        return lambda start, end: Price(final[start][1] * G, 0) if start < limit * 300 * S else None

    first = settle(closed_windows(listed), price(known), 5000 * S, 0)
    rest = [(position, row) for position, row in listed if position > first.position]
    second = settle(closed_windows(rest), price(99), 5000 * S, first.position)
    for one in (*first.corrections, *second.corrections):
        booked[one.job_id] += one.delta_ng
    for number, (energy_uj, final_g) in enumerate(final.values()):
        assert abs(booked[f"j{number}"] - energy_uj * final_g * G // UJ_PER_KWH) <= 1


def test_it_reads_the_ledger_beside_the_agent_and_each_window_once(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    job = {"id": "a", "product_id": "p"}
    prices = json.dumps({"quality": "estimated", "final": False})
    used = totals(direct=KWH_UJ, operation=480 * G)
    commit(
        ledger,
        Batch(
            seq=1,
            at_unix_ns=9 * S,
            jobs=[JobRow.of("a", used, {"job": job, "taxes": []})],
            closes=[Close.of("a", 9 * S, used, prices)],
        ),
    )
    settlement = Settlement(tmp_path, at_final, lambda: 10_000 * S, 0)
    settlement.look()
    found = settlement.take()
    assert found is not None
    assert {one.term: one.delta_ng for one in found.corrections} == {"operation": -424 * G, "cooling": 28 * G}
    commit(ledger, Batch(seq=2, at_unix_ns=11 * S, corrections=found.corrections))
    assert not settlement.look()
    assert settlement.take() is None
    assert verified(tmp_path) == []
    settlement.close()
    ledger.close()


def test_more_rows_than_one_pass_takes_are_more_passes(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    used, prices = totals(direct=KWH_UJ, operation=480 * G), json.dumps({"quality": "estimated", "final": False})
    jobs = [JobRow.of(f"j{n}", used, {"job": {"id": f"j{n}", "product_id": "p"}, "taxes": []}) for n in range(1500)]
    closes = [Close.of(row.key, 9 * S, used, prices) for row in jobs]
    commit(ledger, Batch(seq=1, at_unix_ns=9 * S, jobs=jobs, closes=closes))
    settlement = Settlement(tmp_path, at_final, lambda: 10_000 * S, 0)
    corrected: set[str] = set()
    assert settlement.look(), "3000 rows are behind it"
    assert settlement.look(), "the first pass wasn't taken yet"
    for more in (False, False):
        found = settlement.take()
        assert found is not None
        assert not corrected & {one.job_id for one in found.corrections}
        corrected |= {one.job_id for one in found.corrections}
        assert settlement.look() == more
    assert len(corrected) == 1500
    settlement.close()
    ledger.close()
