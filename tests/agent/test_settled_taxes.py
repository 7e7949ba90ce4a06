"""A platform's correction reaches its payers by what they paid in that time; what nobody paid stays nobody's."""

import json

from hypothesis import given
from hypothesis import strategies as st

from wattribute.agent.ledger.schema import NODE_KEY, WindowRow
from wattribute.agent.settled_taxes import Billed, billed, corrections

S = 10**9


def row(job_id: str, start_s: int, end_s: int, **amounts: int) -> WindowRow:
    content = json.dumps({name.replace("_of_", "."): amount for name, amount in amounts.items()})
    return WindowRow("n", "boot/1", start_s * S, job_id, "", end_s * S, content, "")


def test_windows_count_by_how_much_of_them_lies_in_the_stretch() -> None:
    rows = [
        row("a", 0, 300, tax_of_platform_of_iks=900),
        row("a", 300, 400, tax_of_platform_of_iks=50, tax_of_platform_of_other=7),
        row("b", 200, 300, tax_of_platform_of_iks=100, operation=5),
        row("later", 600, 700, tax_of_platform_of_iks=100),
        row(NODE_KEY, 0, 600, untaxed_of_platform_of_iks=60, operation=1),
    ]
    assert billed(rows, "iks", 100 * S, 400 * S) == Billed({"a": 600 + 50, "b": 100}, 30)


def test_nobody_was_there_and_nothing_to_correct() -> None:
    assert list(corrections(Billed({}, 5), "iks", 0, S, 100, "")) == []
    assert list(corrections(Billed({"a": 5}, 0), "iks", 0, S, 0, "")) == []


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**12), min_size=1),
    st.integers(0, 10**12),
    st.integers(-(10**12), 10**12),
)
def test_parts_are_in_proportion_and_never_more_than_the_whole(
    paid: dict[str, int], untaxed_ng: int, delta_ng: int
) -> None:
    whole = sum(paid.values()) + untaxed_ng
    found = {one.job_id: one.delta_ng for one in corrections(Billed(paid, untaxed_ng), "iks", 0, S, delta_ng, "")}
    for job_id, paid_ng in paid.items():
        assert abs(found.get(job_id, 0) - delta_ng * paid_ng / whole) <= 1.001
    assert abs(sum(found.values())) <= abs(delta_ng)
    if not untaxed_ng:
        assert sum(found.values()) == delta_ng
