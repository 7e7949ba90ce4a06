"""A product's metered requests: what one of them and a thousand units cost, who they were for, and how its EPC is due.

A mean is told twice: of what was billed to requests, and with what the product's jobs used while there were none.
"""

from collections.abc import Iterator
from fractions import Fraction

from wattribute.agent.core.products import MICRO, REQUEST
from wattribute.agent.core.served_record import Billed, ServedRecord
from wattribute.exporters.report.blocks import Block, Paragraph, Section, Table
from wattribute.exporters.report.exact import counted, energy, grams, mass, mean_energy, mean_mass, percent, plain
from wattribute.exporters.report.sheet import Amortised, Sheet

TENANTS_SHOWN = 10
NAMED = {"": "(nobody in particular)", "_other": "(all others)"}
WHAT_IDLE_IS = (
    "Idle is what the product's metered jobs used while no request was there. Requests and idle together are all that "
    "was split; what isn't split yet is in neither."
)
AS_BOOKED = (
    "Requests have what was booked at the time. What was corrected since is in the figures of the jobs, and not here."
)


def requests(sheet: Sheet) -> Iterator[Section]:
    """The sections of what was served, and of both ways to write the EPC off; none where nothing is known of either."""
    if sheet.served is not None:
        yield _served(sheet, sheet.served)
    if sheet.amortised is not None:
        yield _both_ways(sheet.amortised)


def _served(sheet: Sheet, served: ServedRecord) -> Section:
    billed, whole = served.billed, served.whole
    facts = [("requests", plain(counted(billed.requests))), ("aborted", str(billed.aborted))]
    facts += [(unit, plain(counted(micro))) for unit, micro in sorted(billed.units.items()) if unit != REQUEST]
    blocks: list[Block] = [Table("What was served", ("", ""), facts)]
    means = [
        (
            f"{'1' if per == 1 else '1,000'} {unit}",
            *(
                text
                for of in (billed, whole)
                for text in (
                    mean_energy(of.energy_uj, count / per),
                    *(mean_mass(of.sums_ng()[name], count / per) for name in ("jsce", "asce")),
                )
            ),
        )
        for unit, per, count in per_unit(billed)
    ]
    if means:
        header = ("", "energy", "JSC^e", "ASC^e", "energy with idle", "JSC^e with idle", "ASC^e with idle")
        blocks.append(Table("On average", header, means, frozenset(range(1, 7))))
    blocks += [
        _parts("Billed", (("requests", billed), ("idle", served.idle), ("together", whole)), whole),
        Paragraph(WHAT_IDLE_IS),
    ]
    if served.stages:
        blocks.append(_parts("Stages of the requests", tuple(sorted(served.stages.items())), billed))
    if served.tenants.keys() - {""}:
        blocks.append(_tenants(served, billed))
    if any(sheet.total.corrections_ng.values()):
        blocks.append(Paragraph(AS_BOOKED))
    return Section("Requests", tuple(blocks))


def per_unit(billed: Billed) -> Iterator[tuple[str, int, Fraction]]:
    """(unit, how many a mean is of, how many there were): one request first, then a thousand of each other unit."""
    for unit, micro in sorted(billed.units.items(), key=lambda pair: (pair[0] != REQUEST, pair[0])):
        if micro:
            yield unit, 1 if unit == REQUEST else 1000, Fraction(micro, MICRO)


def _parts(title: str, parts: tuple[tuple[str, Billed], ...], whole: Billed) -> Table:
    rows = []
    for name, part in parts:
        sums = part.sums_ng()
        share = percent(sums["asce"], whole.sums_ng()["asce"])
        rows.append(
            (name, energy(part.energy_uj), mass(sums["jsce"]), mass(sums["asce"]), plain(grams(sums["asce"])), share)
        )
    header = ("", "energy", "JSC^e", "ASC^e", "ASC^e exactly, g", "part of ASC^e")
    return Table(title, header, rows, frozenset(range(1, 6)))


def _tenants(served: ServedRecord, billed: Billed) -> Table:
    ordered = sorted(served.tenants.items(), key=lambda pair: (-pair[1].sums_ng()["asce"], pair[0]))
    shown = [(NAMED.get(tenant, tenant), of) for tenant, of in ordered[:TENANTS_SHOWN]]
    if rest := ordered[TENANTS_SHOWN:]:
        shown.append((f"({len(rest)} more)", Billed.of(of for _, of in rest)))
    units = [unit for unit, _, _ in per_unit(billed) if unit != REQUEST]
    rows = []
    for name, of in shown:
        sums = of.sums_ng()
        counts = [plain(counted(of.units.get(unit, 0))) for unit in (REQUEST, *units)]
        share = percent(sums["asce"], billed.sums_ng()["asce"])
        rows.append((name, *counts, energy(of.energy_uj), mass(sums["jsce"]), mass(sums["asce"]), share))
    header = ("tenant", "requests", *units, "energy", "JSC^e", "ASC^e", "part of ASC^e")
    return Table("Tenants", header, rows, frozenset(range(1, len(header))))


def _both_ways(amortised: Amortised) -> Section:
    unit, served = amortised.unit, counted(amortised.served_micro)

    def row(way: str, due_ng: int | None, each_ng: Fraction | None) -> tuple[str, ...]:
        each = "unknown" if each_ng is None else mean_mass(each_ng.numerator, Fraction(each_ng.denominator))
        in_force = "in force" if way == amortised.in_force else ""
        return f"by {way}", in_force, "unknown" if due_ng is None else mass(due_ng), each

    rows = [
        row("time", amortised.by_time_ng, amortised.per_unit_by_time),
        row("units", amortised.by_units_ng, amortised.per_unit_by_units),
    ]
    if amortised.expected_micro:
        expected = counted(amortised.expected_micro)
        part = percent(amortised.served_micro, amortised.expected_micro)
        text = (
            f"{plain(served)} of {plain(expected)} expected {unit} were served so far by its own metered jobs ({part})."
        )
    else:
        text = f"{plain(served)} {unit} were served by its own metered jobs; expected_units isn't set."
    if amortised.served_micro > (amortised.expected_micro or amortised.served_micro):
        text += " More than expected: by units, all of it is paid."
    return Section(
        "What it cost to make, by time and by units",
        (
            Table("Amortisation", ("", "", "due by now", f"per {unit}"), rows, frozenset({2, 3})),
            Paragraph(
                f"{text} By time, what a {unit} pays is a mean so far, and falls the more are served. "
                "Jobs of other products that use it aren't in these counts."
            ),
        ),
    )


__all__ = ["per_unit", "requests"]
