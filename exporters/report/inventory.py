"""What some nodes used and who was billed for it: the sum that an organisation may put in its books."""

from collections import Counter

from wattribute.agent.core.model import Term
from wattribute.exporters.report.blocks import Bars, Block, Paragraph, Section, Step, Table
from wattribute.exporters.report.exact import energy, grams, mass, percent, plain
from wattribute.exporters.report.sheet import OWN_TERMS, Sheet
from wattribute.exporters.report.words import PRICE, TERM_NAMES, signed


def inventory(sheet: Sheet) -> Section:
    """Operation, cooling and hardware: of the jobs of every role, of what nobody was billed for, and of the nodes."""
    by_role: Counter[tuple[str, Term]] = Counter()
    used_uj: Counter[str] = Counter()
    for group in sheet.groups:
        used_uj[group.role] += group.costs.whole_uj
        for term in OWN_TERMS:
            by_role[group.role, term] += group.costs.term_ng(term)
    unbilled: Counter[tuple[str, Term]] = Counter()
    unbilled_uj: Counter[str] = Counter()
    whole: Counter[Term] = Counter()
    whole_uj = 0
    for node in sheet.nodes:
        unbilled.update(node.unattributed_ng)
        whole.update(node.terms_ng)
        whole_uj += sum(node.energy_uj.values())
        for (_, reason), energy_uj in node.unattributed_uj.items():
            unbilled_uj[reason] += energy_uj
    parts = [(f"jobs, {role}", used_uj[role], [by_role[role, term] for term in OWN_TERMS]) for role in sorted(used_uj)]
    reasons = sorted({reason for reason, _ in unbilled} | set(unbilled_uj))
    parts += [
        (f"nobody, {reason}", unbilled_uj[reason], [unbilled[reason, term] for term in OWN_TERMS]) for reason in reasons
    ]
    sums = [sum(amounts[position] for _, _, amounts in parts) for position in range(3)]
    summed_uj = sum(energy_uj for _, energy_uj, _ in parts)
    node_sums = [whole[term] for term in OWN_TERMS]
    rows = [_row(name, energy_uj, amounts) for name, energy_uj, amounts in parts]
    rows.append(_row("together", summed_uj, sums))
    rows.append(_row("the nodes", whole_uj, node_sums))
    columns = ("who", "energy", *(TERM_NAMES[term] for term in OWN_TERMS), "together", "exactly, g")
    bars = tuple(
        (
            name,
            mass(sum(amounts)),
            tuple(
                Step(TERM_NAMES[term], ng, mass(ng), None, term) for term, ng in zip(OWN_TERMS, amounts, strict=True)
            ),
        )
        for name, _, amounts in parts
    )
    legend = tuple((TERM_NAMES[term], str(term)) for term in OWN_TERMS)
    blocks: list[Block] = [
        Bars("Emissions by who caused them", bars, legend),
        Table("Emissions by who caused them", columns, rows, frozenset(range(1, len(columns)))),
        _check(node_sums, sums, whole_uj - summed_uj),
        Paragraph(PRICE, warning=True),
    ]
    if len(sheet.nodes) > 1:
        blocks.append(_each(sheet, sum(node_sums)))
    return Section("What it emitted", tuple(blocks))


def _row(name: str, energy_uj: int, amounts: list[int]) -> tuple[str, ...]:
    return name, energy(energy_uj), *map(mass, amounts), mass(sum(amounts)), plain(grams(sum(amounts)))


def _check(nodes: list[int], sums: list[int], left_uj: int) -> Paragraph:
    left = [f"{TERM_NAMES[term]} {signed(a - b)}" for term, a, b in zip(OWN_TERMS, nodes, sums, strict=True) if a != b]
    if left_uj:
        left.insert(0, f"energy {'+' if left_uj > 0 else '-'}{energy(abs(left_uj))}")
    if not left:
        return Paragraph("Jobs of every role and what nobody was billed for add up to what the nodes used, exactly.")
    return Paragraph(
        f"What the nodes used is more (+) or less (-) than the parts, by: {', '.join(left)}. Windows that are still "
        "open, or that the asked-for time cuts through, and jobs brought in from elsewhere do that.",
        warning=True,
    )


def _each(sheet: Sheet, whole_ng: int) -> Table:
    rows = []
    for node in sorted(sheet.nodes, key=lambda node: node.id):
        amounts = [node.terms_ng.get(term, 0) for term in OWN_TERMS]
        used_uj = sum(node.energy_uj.values())
        rows.append(
            (node.id, energy(used_uj), *map(mass, amounts), mass(sum(amounts)), percent(sum(amounts), whole_ng))
        )
    columns = ("node", "energy", *(TERM_NAMES[term] for term in OWN_TERMS), "together", "part")
    return Table("By node", columns, rows, frozenset(range(1, len(columns))))


__all__ = ["inventory"]
