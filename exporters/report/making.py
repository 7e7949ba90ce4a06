"""What a product cost to make, from whom it inherited, and what its users have paid back."""

from collections.abc import Iterator

from wattribute.agent.core.bounds import Bounded
from wattribute.agent.core.units import NS_PER_S
from wattribute.exporters.report.blocks import Block, Curve, Graph, Paragraph, Section, Table
from wattribute.exporters.report.exact import decimal_of, grams, mass, percent, plain
from wattribute.exporters.report.sheet import Made, Sheet
from wattribute.exporters.report.words import TERM_NAMES, duration, signed

DRAWN = 100  # products; a graph of more is nothing to look at
UNKNOWN = ("unknown", "", "", "")


def making(sheet: Sheet, made: Made) -> Iterator[Section]:
    """The sections of a product's EPC, of its lineage, and of its recovery."""
    yield _epc(made)
    if sheet.lineage is not None and sheet.lineage.edges:
        yield _lineage(sheet)
    yield _recovery(sheet, made)


def _epc(made: Made) -> Section:
    rows = [("own", *_amounts(made.own)), ("inherited", *_amounts(made.inherited)), ("EPC", *_amounts(made.epc))]
    blocks: list[Block] = [
        Table("Embodied product cost", ("part", "CO2e", "low", "high", "exactly, g"), rows, frozenset({1, 2, 3, 4}))
    ]
    recorded = made.recorded
    entries = [
        ("creation jobs", recorded.job_count, recorded.jobs),
        ("costs entered by hand", recorded.entered_count, recorded.entered),
    ]
    known = [f"{name}: {count} ({mass(cost.central)})" for name, count, cost in entries if count]
    if known:
        blocks.append(Paragraph(f"Recorded of its making: {'; '.join(known)}."))
    if recorded.running:
        blocks.append(
            Paragraph(f"Creation jobs still run: {', '.join(recorded.running)}. The EPC isn't all there yet.")
        )
    if made.missing:
        blocks.append(
            Paragraph(
                f"Not known, and never taken for 0: the EPC of {', '.join(made.missing)}. Until it is, ASC^e of its "
                "users is a lower bound.",
                warning=True,
            )
        )
    return Section("What it cost to make (EPC)", tuple(blocks))


def _amounts(value: Bounded | None) -> tuple[str, str, str, str]:
    if value is None:
        return UNKNOWN
    return mass(value.central), mass(value.low), mass(value.high), plain(grams(value.central))


def _lineage(sheet: Sheet) -> Section:
    assert sheet.lineage is not None
    known = {node.id: node for node in sheet.lineage.nodes}
    rows = []
    for edge in sheet.lineage.edges:
        parent = known[edge.parent]
        epc, inherits = ("unknown" if one is None else mass(one.central) for one in (parent.epc, edge.inherited))
        kind = "not registered" if parent.kind == "undeclared" else parent.kind
        rows.append((edge.child, edge.parent, kind, epc, plain(decimal_of(edge.weight, 12)), inherits))
    columns = ("product", "inherits from", "kind", "parent's EPC", "weight", "inherits")
    drawn: Block = Graph("What it was made from", sheet.lineage, sheet.id)
    if len(sheet.lineage.nodes) > DRAWN:
        drawn = Paragraph(f"Its {len(sheet.lineage.nodes)} products are too many to be drawn.")
    return Section("Lineage", (drawn, Table("Lineage", columns, rows, frozenset({3, 4, 5}))))


def _recovery(sheet: Sheet, made: Made) -> Section:
    recovery, product = made.recovery, sheet.product
    rows: list[tuple[str, str]] = [("recovered so far", mass(recovery.recovered_ng))]
    if recovery.stock_ng is not None:
        part = percent(made.own_part.numerator, made.own_part.denominator)
        rest = "" if made.own_part == 1 else f" ({part} of the EPC; its children inherit the rest)"
        rows.append(("to recover over its life", mass(recovery.stock_ng) + rest))
    if recovery.expected_ng is not None:
        rows.append(("expected by now", mass(recovery.expected_ng)))
    if recovery.ahead_ng is not None:
        word = "over-recovered" if recovery.ahead_ng > 0 else "under-recovered"
        rows.append(("balance", f"{signed(recovery.ahead_ng)} ({word})" if recovery.ahead_ng else "0 g (as expected)"))
    if recovery.left_s is not None:
        rows.append(("life left", duration(recovery.left_s * NS_PER_S)))
    blocks: list[Block] = []
    deployed, lifetime_s = (None, None) if product is None else (product.deployed_unix_ns, product.lifetime_s)
    by_units = sheet.amortised is not None and sheet.amortised.in_force == "units"
    if made.curve and not by_units and recovery.stock_ng is not None and deployed is not None and lifetime_s:
        expected = ((deployed, 0), (deployed + lifetime_s * NS_PER_S, recovery.stock_ng))
        blocks.append(Curve("Recovered over its life", made.curve, expected, mass(recovery.stock_ng)))
    blocks.append(Table("Recovery", ("", ""), rows))
    if recovery.stock_ng is not None and recovery.expected_ng is None:
        why = "no day of deployment is known" if deployed is None else "it has no lifetime"
        why = "nobody said how many units are expected" if by_units else why
        blocks.append(Paragraph(f"What should have been recovered by now isn't known: {why}."))
    if recovery.excess_ng:
        text = f"Recovered and inherited are more than the EPC, by {mass(recovery.excess_ng)}."
        blocks.append(Paragraph(text, warning=True))
    if sheet.billed_ng:
        billed = [(TERM_NAMES[term], mass(ng), plain(grams(ng))) for term, ng in sheet.billed_ng.items()]
        table = Table("Taxes that its users paid", ("term", "CO2e", "exactly, g"), billed, frozenset({1, 2}))
        blocks.append(table)
    return Section("What its users have paid back", tuple(blocks))


__all__ = ["making"]
