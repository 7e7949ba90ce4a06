"""What requests are billed for: exactly what their job used, nobody twice, and as plain fractions say."""

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattribute.agent.core.claims import Entry
from wattribute.agent.core.errors import Refused
from wattribute.agent.core.model import BUCKETS_UJ, CPU_NS_SLOT, TERM_SLOT, TERMS, Job, ServedTotals, Term, energy_slot
from wattribute.agent.core.products import MICRO, Product
from wattribute.agent.core.served import BILL, NO_BILL, ServedProduct
from wattribute.agent.core.served_account import AHEAD_NS, PATIENCE_NS, Account, bill_of
from wattribute.agent.core.served_sender import Counts, Receipts, Report
from wattribute.agent.core.served_window import floors

S = 1_000_000_000
CPUS = 4
DIRECT, IDLE = energy_slot("cpu", "direct", "measured"), energy_slot("gpu", "idle", "measured")
BY_UNITS = {"llm": Product(id="llm", kind="model", unit="token", amortise="units")}


class Served:
    """One metered job of the product `llm` that began at 0, and everything that happens to it."""

    def __init__(self, tenants_max: int = 3, unit: str = "token") -> None:
        self.entry = Entry(Job(id="serve-llm", product_id="llm"), 0)
        self.product = ServedProduct("llm", tenants_max)
        self.account = Account(self.product, unit, 1000, CPUS, 0)
        self.now_ns = 0
        self.before: dict[str, list[int]] = {}

    def use(self, seconds: float, active_uj: int, idle_uj: int = 0, cpu_ns: int | None = None, **ng: int) -> None:
        """Time passes, and the job uses something in it."""
        self.now_ns += round(seconds * S)
        values = self.entry.values
        values[DIRECT] += active_uj
        values[IDLE] += idle_uj
        values[CPU_NS_SLOT] += round(seconds * S) if cpu_ns is None else cpu_ns
        for term in TERMS:
            self.owe("another", term, ng.get(term, 0))

    def owe(self, payee: str, term: Term, more_ng: int) -> None:
        self.entry.values[TERM_SLOT[term]] += more_ng
        self.entry.taxes_ng[payee, term] = self.entry.taxes_ng.get((payee, term), 0) + more_ng

    def tick(self) -> ServedTotals:
        self.account.tick(self.now_ns, self.entry, BY_UNITS)
        return self.look()

    def report(self, token: str = "t", until_s: float | None = None, **fields: Any) -> dict[str, int]:
        until_ns = self.now_ns if until_s is None else round(until_s * S)
        fields.setdefault("served", ())
        return self.account.report(Report(token=token, until_ns=until_ns, **fields), self.now_ns)

    def look(self) -> ServedTotals:
        """Everything adds up to what the job used, and nothing has fallen."""
        totals = self.product.totals(self.account.unsettled(), self.account.in_flight())
        bills = {name: [one.energy_uj, *one.terms_ng] for name, one in totals.tenants.items()}
        bills["idle"] = [totals.idle_uj, *totals.idle_ng]
        unsettled = [totals.unsettled_uj, *totals.unsettled_ng]
        whole = [sum(place) for place in zip(unsettled, *bills.values(), strict=True)]
        assert whole == bill_of(self.entry)
        assert min(unsettled) >= 0
        for name, bill in bills.items():
            assert all(now >= then for now, then in zip(bill, self.before.get(name, NO_BILL), strict=True))
        self.before |= bills
        return totals


def counts(**requests: int) -> list[tuple[str, Counts]]:
    return [(name, Counts(count, 0, {})) for name, count in requests.items()]


def energies(totals: ServedTotals) -> dict[str, int]:
    return {name: tenant.energy_uj for name, tenant in totals.tenants.items()}


def test_a_window_is_split_by_who_was_in_flight() -> None:
    """One worker, busy for 8 of 10 s; a was in flight in twice as much virtual time as b."""
    job = Served()
    job.report(workers=1)
    job.use(10, 9_000, 1_000, cpu_ns=20 * S, operation=100, cooling=20, platform=50, hardware=1000, product=10)
    shares = ((0, 0, 12 * S, 5 * S), (0, 1, 4 * S, 3 * S))
    job.report(served=counts(a=3, b=1), shares=shares)
    totals = job.tick()
    assert energies(totals) == {"a": 6_750 + 500, "b": 2_250 + 300}
    assert (totals.idle_uj, totals.unsettled_uj) == (200, 0)
    by_term = dict(zip(TERMS, totals.tenants["a"].terms_ng, strict=True))
    assert by_term == {
        "operation": 72,  # 7,250 of 10,000 uJ
        "cooling": 14,
        "platform": 25,  # 5 of 10 s
        "retraining": 0,
        "hardware": 500,
        "overhead_hardware": 0,
        "product": 5,
    }
    assert totals.tenants["a"].units == {"request": 3 * MICRO}
    assert totals.in_flight == 0


def test_active_energy_is_no_more_than_what_busy_requests_can_have_used() -> None:
    """1 s busy of 10, on 4 CPUs: of 40 s of CPU time at most 4 are theirs."""
    job = Served()
    job.report()
    job.use(10, 1_000, cpu_ns=40 * S)
    job.report(served=counts(a=1), shares=((0, 0, S, S),))
    assert energies(job.tick()) == {"a": 100}


def test_the_end_of_a_window_is_interpolated_and_a_late_one_waits_for_its_tick() -> None:
    job = Served()
    job.report()
    job.use(1, 100)
    job.tick()
    job.use(0.5, 0)
    job.report(served=counts(a=1), shares=((0, 0, S, 3 * S // 2),), workers=1)  # until 1.5
    assert job.look().unsettled_uj == 100
    job.use(0.5, 30)
    totals = job.tick()
    assert energies(totals) == {"a": 115}
    assert totals.unsettled_uj == 15


def test_what_was_used_before_the_first_window_is_idle() -> None:
    """A first report tells of as long as its busiest slot was busy."""
    job = Served()
    job.use(10, 1_000)
    job.report(served=counts(a=1), shares=((0, 0, S, S), (1, 0, S, 2 * S)), workers=2)
    totals = job.tick()
    assert energies(totals) == {"a": 200}
    assert totals.idle_uj == 800


def test_without_shares_a_window_goes_by_requests_then_by_units() -> None:
    job = Served()
    job.report()
    job.use(1, 90)
    job.report(served=[("a", Counts(2, 0, {"token": 5})), ("b", Counts(1, 0, {"token": 500}))])
    assert energies(job.tick()) == {"a": 60, "b": 30}
    job.use(1, 90)
    job.report(served=[("a", Counts(2, 0, {"image": 1, "token": 35})), ("b", Counts(1, 0, {"token": 560}))])
    assert energies(job.tick()) == {"a": 60 + 30, "b": 30 + 60}
    job.use(1, 90)
    job.report(served=[("b", Counts(1, 7, {"token": 560}))])
    totals = job.tick()
    assert totals.idle_uj == 90  # only failed ones: nothing was served
    assert totals.tenants["b"].aborted == 7


def test_something_in_flight_and_nothing_served_waits_for_the_next_window() -> None:
    job = Served()
    job.use(5, 50)
    job.report(in_flight=1)  # of the first report nobody knows since when: idle
    assert job.tick().idle_uj == 50
    for _ in range(3):
        job.use(1, 10)
        job.report(in_flight=1)
        assert job.tick().in_flight == 1
    job.use(1, 10)
    job.report(served=counts(a=1))
    assert energies(job.tick()) == {"a": 40}
    job.use(1, 10)
    job.report()
    assert job.tick().idle_uj == 60


def test_what_nobody_reports_of_is_idle_after_a_while_and_a_later_window_is_cut_there() -> None:
    job = Served()
    job.report()
    silent_s = PATIENCE_NS // S
    job.use(silent_s, 600)
    assert job.tick().unsettled_uj == 600
    job.use(1, 1)
    assert job.tick().idle_uj == 601
    job.use(silent_s + 1, 601)
    job.report(served=counts(a=1), shares=((0, 0, 1, (2 * silent_s + 2) * S),))
    totals = job.tick()
    assert energies(totals) == {"a": 601}


def test_of_a_long_stretch_without_reports_only_the_last_ticks_are_kept() -> None:
    """What is left out is taken as even; the last of it is as exact as ever."""
    job = Served()
    job.report()
    for _ in range(400):
        job.use(1, 2)
        job.tick()
    assert len(job.account._track._points) == 256
    job.report(until_s=390.5, served=counts(a=1), shares=((0, 0, 1, 400 * S),))
    totals = job.tick()
    assert energies(totals) == {"a": 781}
    assert totals.unsettled_uj == 19


def test_two_senders_share_a_stretch_once_both_have_told_of_it() -> None:
    """Two containers of one job: the one with three times as much in flight pays three times as much."""
    job = Served()
    for token in ("x", "y"):
        job.report(token)
    job.tick()
    job.use(1, 100, 100)
    job.report("x", served=counts(a=1), shares=((0, 0, 3 * S, S),))
    assert job.tick().unsettled_uj == 200
    job.use(1, 100, 100)
    job.report("y", served=counts(b=1), shares=((0, 0, 2 * S, 2 * S),))
    totals = job.tick()
    assert energies(totals) == {"a": 75 + 50, "b": 25 + 50}
    assert totals.unsettled_uj == 200


def test_a_sender_that_died_is_not_waited_for() -> None:
    job = Served()
    for token in ("x", "y"):
        job.report(token)
    for second in range(1, 7):
        job.use(1, 100)
        job.report("x", served=counts(a=second), shares=((0, 0, S, S),))
        job.tick()
    totals = job.look()
    assert energies(totals) == {"a": 600}
    assert totals.in_flight == 0


def test_what_falls_due_by_units_goes_by_what_was_reported_since() -> None:
    """Product tax by tokens with the reports' own, retraining by requests; nothing reported since: idle."""
    job = Served()
    job.report(served=[("a", Counts(1, 0, {"token": 10})), ("b", Counts(3, 0, {"token": 30}))])
    job.owe("llm", "product", 100)
    job.use(1, 0, retraining=8, product=5)
    totals = job.tick()
    place = TERMS.index("product"), TERMS.index("retraining")
    assert [[totals.tenants[name].terms_ng[i] for i in place] for name in "ab"] == [[25, 2], [75, 6]]
    assert totals.unsettled_ng[place[0]] == 5
    job.use(1, 0, retraining=9)
    job.report(served=[("a", Counts(1, 0, {"token": 20}))])
    job.owe("llm", "product", 7)
    totals = job.tick()
    assert [totals.tenants[name].terms_ng[place[0]] for name in "ab"] == [25 + 7 + 5, 75]
    assert [totals.idle_ng[i] for i in place] == [0, 9]


def test_the_hardware_of_a_retraining_goes_by_what_was_served_as_the_retraining_does() -> None:
    """Not to whoever is there when the interval ends; a platform's goes by time."""
    job = Served()
    place = TERMS.index("overhead_hardware")
    job.report()
    job.use(1, 0, overhead_hardware=40)
    job.report(served=counts(a=3, b=1), shares=[(0, 0, S, S)])
    assert job.tick().tenants["a"].terms_ng[place] == 40
    job.use(1, 0, overhead_hardware=60)
    job.owe("llm", "retraining", 8)
    job.owe("llm", "overhead_hardware", 400)
    job.report(served=counts(a=3, b=1), shares=[(0, 1, S, S)])
    totals = job.tick()
    assert [totals.tenants[name].terms_ng[place] for name in "ab"] == [40 + 300, 60 + 100]
    assert [totals.tenants[name].terms_ng[TERMS.index("retraining")] for name in "ab"] == [6, 2]


def test_stages_divide_what_requests_were_billed_for() -> None:
    job = Served()
    job.report()
    job.use(1, 60, 40)
    job.report(served=counts(a=1), stages_ns={"prefill": S // 4, "decode": 3 * S // 4})
    assert {stage: uj for stage, (uj, _) in job.tick().stages.items()} == {"prefill": 25, "decode": 75}
    job.use(1, 60, 40)
    job.report(served=counts(a=2), stages_ns={"prefill": S // 4, "decode": S})
    assert {stage: uj for stage, (uj, _) in job.tick().stages.items()} == {"prefill": 25, "decode": 175}


def test_counts_are_cumulative_under_a_token_and_never_fall() -> None:
    job = Served()
    report: dict[str, Any] = {
        "served": [("a", Counts(5, 1, {"token": 7}))],
        "receipts": Receipts((0, 2), 9, ((1, "r", 5, 1),)),
    }
    assert job.report(**report) == {"request": 5 * MICRO, "token": 7}
    assert job.report(**report) == {}
    job.use(1, 1)
    bad: tuple[dict[str, Any], ...] = (
        {"served": counts(a=4)},
        {"served": [("a", Counts(5, 0, {}))]},
        {"served": [("a", Counts(5, 1, {"token": 5}))]},
        {"served": [("b", Counts(1, 0, {})), ("b", Counts(1, 0, {}))]},
        {"served": counts(b=1), "receipts": Receipts((0, 1), 9, ())},
        {"served": counts(b=1), "receipts": Receipts((), 8, ())},
        {"served": counts(b=1), "receipts": Receipts((0,) * (len(BUCKETS_UJ) + 2), 9, ())},
        {"served": counts(b=1), "receipts": Receipts((), 9, ((-1, "r", 1, 1),))},
        {"served": counts(b=1), "shares": ((0, 1, 1, 1),)},
        {"served": counts(b=1), "shares": ((0, 0, 1, -1),)},
        {"served": counts(b=1), "until_s": (job.now_ns + AHEAD_NS) / S + 1},
        {"served": [("b", Counts(1, 0, {f"unit {i}": 1 for i in range(33)}))]},
        {"served": counts(**{f"t{i}": 1 for i in range(1025)})},
    )
    for one in bad:
        with pytest.raises(Refused):
            job.report(**one)
    totals = job.tick()
    assert {name: one.units for name, one in totals.tenants.items()} == {"a": {"request": 5 * MICRO, "token": 7}}
    assert (totals.receipt_counts[1], totals.receipt_sum_uj, totals.receipt_latest) == (2, 9, {1: ("r", 5, 1)})
    assert job.report("another", served=counts(a=4)) == {"request": 4 * MICRO}
    assert job.report("another", until_s=0, served=counts(a=3)) == {}  # older than the last one


def test_a_count_that_is_lower_by_rounding_has_not_fallen() -> None:
    """Sums of floats depend on the order in which workers are added up."""
    job = Served()
    high, low = round(0.3 * 3e9 * MICRO), round((0.1 + 0.2) * 3e9 * MICRO) - 900
    assert job.report(served=[("a", Counts(1, 0, {"second": high}))])["second"] == high
    assert job.report(served=[("a", Counts(1, 0, {"second": low}))]) == {}
    assert job.report(served=[("a", Counts(1, 0, {"second": high + 5}))]) == {"second": 5}


def test_tenants_past_the_bound_share_a_name_for_good() -> None:
    job = Served(tenants_max=2)
    job.report(served=counts(a=1, b=1, c=1, d=1))
    job.report(served=counts(a=2, b=1, c=5, d=1))
    job.report("u", served=[("x\ny", Counts(1, 0, {})), ("b", Counts(1, 0, {}))])
    assert {name: one.units["request"] // MICRO for name, one in job.look().tenants.items()} == {
        "a": 2,
        "b": 2,
        "_other": 7,
    }


def test_so_many_senders_and_no_more_until_one_is_silent_for_long() -> None:
    job = Served()
    for number in range(64):
        job.report(f"t{number}", served=counts(a=1))
    with pytest.raises(Refused, match="64 accounts"):
        job.report("one more", served=counts(a=1))
    job.use(PATIENCE_NS / S, 0)
    job.report("t0", served=counts(a=2))
    assert job.report("one more", served=counts(a=1)) == {"request": MICRO}
    assert job.report("t0", served=counts(a=2)) == {}


def test_settled_windows_can_be_asked_for_by_slot() -> None:
    job = Served()
    job.report(asks=True)
    for second in (1, 2):
        job.use(1, 100)
        job.report(served=counts(a=1, b=1), shares=((0, 0, S, S), (7, 0, S, S), (7, 1, 2 * S, S)), asks=True)
        assert not list(job.account.windows("t", (second - 1) * S, 7))
        job.tick()
    rows = [
        (since, until, [(row.name, row.bill[0]) for row in rows])
        for since, until, rows in job.account.windows("t", 0, 7)
    ]
    assert rows == [(0, S, [("a", 25), ("b", 50)]), (S, 2 * S, [("a", 25), ("b", 50)])]
    assert [until for _, until, _ in job.account.windows("t", S, 0)] == [2 * S]
    assert not list(job.account.windows("unknown", 0, 0))


AMOUNT = st.integers(0, 10**9)
TIMES = st.lists(st.integers(1, 10 * S), min_size=1, max_size=6, unique=True).map(sorted)
SHARES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 9 * S), st.integers(0, S)), max_size=5)


@settings(max_examples=100, deadline=None)
@given(ticks=TIMES, ends=TIMES, data=st.data())
def test_a_bill_is_what_fractions_say(ticks: list[int], ends: list[int], data: st.DataObject) -> None:
    """To a microjoule per window, row and kind of energy: amounts grow evenly between ticks, in whole microjoules."""
    job = Served()
    job.report()
    points = {0: (0, 0, 0)}
    windows = []
    for at_ns in sorted({*ticks, *ends, 11 * S}):
        if at_ns in ends:
            shares, workers = data.draw(SHARES), data.draw(st.integers(1, 4))
            job.now_ns = at_ns
            job.report(served=counts(a=0, b=0), shares=tuple(shares), workers=workers)
            windows.append((shares, workers))
        if at_ns in ticks or at_ns == 11 * S:
            active_uj, idle_uj, cpu_ns = data.draw(st.tuples(AMOUNT, AMOUNT, AMOUNT))
            job.use((at_ns - job.now_ns) / S, active_uj, idle_uj, cpu_ns)
            points[at_ns] = tuple(a + b for a, b in zip(points[max(points)], (active_uj, idle_uj, cpu_ns), strict=True))  # type: ignore[assignment]
            job.tick()

    def used(at_ns: int) -> list[int]:
        after = min(one for one in points if one >= at_ns)
        before = max((one for one in points if one < at_ns), default=0)
        part = Fraction(at_ns - before, after - before) if after > before else Fraction(1)
        return [int(a + (b - a) * part) for a, b in zip(points[before], points[after], strict=True)]

    expected = {"a": Fraction(0), "b": Fraction(0)}
    tolerance = {"a": 0, "b": 0}
    for since_ns, until_ns, (shares, workers) in zip([0, *ends], ends, windows, strict=False):
        active_uj, idle_uj, cpu_ns = (b - a for a, b in zip(used(since_ns), used(until_ns), strict=True))
        weighted, busy = sum(row[2] for row in shares), sum(row[3] for row in shares)
        most = min(Fraction(1), Fraction(busy * CPUS, cpu_ns)) if cpu_ns else Fraction(1)
        for _, place, weighted_ns, busy_ns in shares:
            active = active_uj * most * Fraction(weighted_ns, weighted) if weighted else 0
            idle = Fraction(idle_uj * busy_ns, max(workers * (until_ns - since_ns), busy))
            expected["ab"[place]] += active + idle
            tolerance["ab"[place]] += 2
    found = energies(job.look())
    for name, energy_uj in expected.items():
        assert abs(found.get(name, 0) - energy_uj) <= tolerance[name]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_whatever_is_reported_everything_adds_up(data: st.DataObject) -> None:
    """Several senders, with shares and without, late, repeated and silent; a restart in between; until it is over."""
    draw = data.draw
    job = Served()
    state: dict[str, Any] = {}
    told: dict[str, list[int]] = {}
    for _ in range(draw(st.integers(1, 20))):
        match draw(st.sampled_from(["tick"] * 4 + ["report"] * 5 + ["restart", "silence"])):
            case "tick":
                seconds, retraining = draw(st.sampled_from([0.0, 0.4, 1.0, 3.3])), draw(st.sampled_from([0, 0, 7]))
                job.use(seconds, draw(AMOUNT), draw(AMOUNT), draw(AMOUNT), cooling=draw(AMOUNT), retraining=retraining)
                job.owe("llm", "product", draw(st.sampled_from([0, 11])))
                job.tick()
            case "report":
                token = draw(st.sampled_from("xyz"))
                known = told.setdefault(token, [0, 0, 0])
                place = draw(st.integers(0, 2))
                known[place] += draw(st.integers(0, 3))
                shares = tuple((slot, place, 3 * busy, busy) for slot, place, _, busy in draw(SHARES))
                job.now_ns += draw(st.sampled_from([0, S // 7]))
                job.report(
                    token,
                    max(0, job.now_ns - draw(st.sampled_from([0, 0, S // 3, 20 * S]))) / S,
                    served=[(name, Counts(n, 0, {"token": n // 2})) for name, n in zip("abc", known, strict=True)],
                    shares=draw(st.sampled_from([shares, None])),
                    in_flight=draw(st.integers(0, 1)),
                    stages_ns={"prefill": sum(known)},
                )
            case "restart":
                state |= json.loads(json.dumps(job.product.save() | {"account": job.account.save()}))
                job.product = ServedProduct("llm", 3)
                job.product.restore(state)
                job.account = Account.restore(job.product, "token", CPUS, state["account"])
            case "silence":
                job.use(PATIENCE_NS / S + 1, 9)
                job.tick()
        job.look()
    job.use(1, 5)
    job.tick()
    job.account.close()
    assert job.look().unsettled_uj == 0
    total = sum(one.units.get("request", 0) for one in job.look().tenants.values())
    assert total <= sum(map(sum, told.values())) * MICRO


@given(st.integers(0, 10**20), st.lists(st.integers(0, 10**20), max_size=9), st.integers(0, 10**20))
def test_floors_leave_less_than_nothing_to_nobody(total: int, weights: list[int], more: int) -> None:
    whole = sum(weights) + more
    parts = floors(total, weights, whole)
    assert len(parts) == len(weights)
    assert all(part >= 0 for part in parts)
    assert sum(parts) == (total * sum(weights) // whole if whole else 0)
    if whole:
        assert all(abs(part - Fraction(total * weight, whole)) < 1 for part, weight in zip(parts, weights, strict=True))


def test_a_job_that_was_metered_before_owes_its_requests_nothing_twice() -> None:
    """What it used without an account is idle, from where the last one ended."""
    job = Served()
    job.use(1, 100)
    job.tick()
    job.account.close()
    metered = bill_of(job.entry)
    job.use(1, 30)
    job.entry.base_ns = job.entry.values[CPU_NS_SLOT]
    job.account = Account.open(job.product, "token", 1000, CPUS, job.entry, job.now_ns, BY_UNITS, metered)
    assert job.look().idle_uj == 130
    job.use(1, 10)
    job.report(served=counts(a=1), shares=((0, 0, S, S),))
    assert energies(job.tick()) == {"a": 10}


def test_a_sender_goes_on_with_its_counts_when_its_job_comes_back() -> None:
    """A file of counts outlives the processes that share it; another user's token of that name is another."""
    job = Served()
    job.report(served=counts(a=5))
    job.account.close()
    state = json.loads(json.dumps(job.product.save()))
    job.product = ServedProduct("llm", 3)
    job.product.restore(state)
    for uid, more in ((1000, 2), (1001, 7), (1000, 0)):
        job.account = Account(job.product, "token", uid, CPUS, job.now_ns)
        with pytest.raises(Refused, match="ahead"):
            job.report(until_s=100, served=counts(a=70))
        assert job.report(served=counts(a=7)) == ({"request": more * MICRO} if more else {})
        job.account.close()
    assert job.look().tenants["a"].units["request"] == 14 * MICRO


def test_a_job_that_changes_its_product_leaves_the_rest_to_the_old_one() -> None:
    job = Served()
    job.report(served=counts(a=1))
    job.use(1, 100)
    job.tick()
    new = ServedProduct("new", 3)
    job.account.move(new, "request")
    assert new.totals(job.account.unsettled(), 0).tenants == {}
    assert job.look().idle_uj == 100
    job.use(1, 50)
    job.report(served=counts(a=2), shares=((0, 0, S, S),))
    job.account.tick(job.now_ns, job.entry, {})
    assert energies(new.totals(NO_BILL, 0)) == {"a": 50}
    assert len(NO_BILL) == BILL
